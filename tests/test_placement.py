# SPDX-License-Identifier: GPL-3.0-or-later
"""Offloading: the same pictures, with little on the device at a time.

Here device and memory are the same processor; what is on the device is a copy, so that it can be counted and told from
what lies away.
"""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from flux3_models import make_model as make_flux3_model
from hypothesis import given
from hypothesis import strategies as st
from test_families import CPU, HEIGHT, PROMPT, WIDTH, make_flux1_model, make_flux2_model
from torch import Tensor, nn

from koshi_backend import cli
from koshi_backend.chain import render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.lora.fit import fit_loras
from koshi_backend.models import pool
from koshi_backend.models.autoencoder import AutoencoderConfig
from koshi_backend.models.budget import Job, Need, Offload, Weights, choose, pick_offload, pick_vram, policy_for
from koshi_backend.models.family import load_family
from koshi_backend.models.flux2_model import Flux2Model
from koshi_backend.models.flux3_model import Flux3Model
from koshi_backend.models.layout import Source
from koshi_backend.models.model import FluxModel, Reference
from koshi_backend.models.placement import Placement, place
from koshi_backend.models.quantise import quantised
from koshi_backend.models.quantised import put_quantised, quantised_layers
from koshi_backend.models.residence import Guest, Run, blocks_of
from koshi_backend.motion.rife import layout
from koshi_backend.room import shot_job
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore


@pytest.fixture(scope="module", params=["schnell", "klein", "flux.2-dev", "flux.3"])
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "schnell":
        return make_flux1_model(folder, request.param).folder
    if request.param == "flux.3":
        return make_flux3_model(folder, "klein")
    return make_flux2_model(folder, request.param, tiny).folder


def load(folder: Path) -> FluxModel:
    return load_family(folder, CPU, torch.float32, "test")


def networks(model: FluxModel) -> list[nn.Module]:
    return [model.transformer, *model.text.networks]


def draw(model: FluxModel, prompt: str = PROMPT) -> Tensor:
    noise = model.noise(3, WIDTH, HEIGHT)
    shown = [Reference(model.noise(4, WIDTH, HEIGHT))] if model.references else []
    return model.decode(model.denoise(prompt, noise, steps=2, references=shown))


def placement(model: FluxModel) -> Placement:
    assert model.placement is not None
    return model.placement


def size(tensors: Any) -> int:
    """Bytes as they lie in a run, each tensor on a multiple of 256."""
    return sum(-(-tensor.nbytes // 256) * 256 for tensor in {id(t): t for t in tensors}.values())


def parts(network: nn.Module) -> tuple[int, list[int]]:
    """Bytes of what a network's blocks share, without its tables, and of each block."""
    blocks = blocks_of(network)
    inside = {id(t) for block in blocks for t in (*block.parameters(), *block.buffers())}
    tables = {
        id(layer.weight) for layer in network.modules()
        if isinstance(layer, nn.Embedding) and id(layer.weight) not in inside
    }  # fmt: skip
    every = [t for t in (*network.parameters(), *network.buffers()) if id(t) not in inside | tables]
    return size(every), [size([*block.parameters(), *block.buffers()]) for block in blocks]


@pytest.mark.parametrize("offload", ["model", "block"])
def test_the_picture_is_the_same_with_little_on_the_device(folder: Path, offload: Offload) -> None:
    expected = draw(load(folder))
    model = place(load(folder), CPU, offload)
    each = [parts(net) for net in networks(model)]
    for _ in range(2):
        assert torch.equal(draw(model), expected)
    draw(model, "another prompt")
    ledger = placement(model).ledger
    if offload == "model":
        assert ledger.most == max(shared + sum(blocks) for shared, blocks in each)
    else:
        assert ledger.most == max(shared + min(2, len(blocks)) * max(blocks) for shared, blocks in each)
        assert ledger.now == 0  # the picture was decoded with the device to itself


def test_never_more_than_two_blocks_and_what_they_share_are_copied(folder: Path) -> None:
    """Not by the ledger: by the tensors that are alive, at every layer that computes."""
    model = place(load(folder), CPU, "block")
    most = dict.fromkeys(networks(model), 0)
    homes = {run.home.data_ptr() for guest in placement(model)._guests for run in [*guest.runs, guest.stay]}

    def copied() -> int:
        alive = (one for one in gc.get_objects() if type(one) is Tensor and one.dtype is torch.uint8 and one.ndim == 1)
        found = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}
        return sum(count for address, count in found.items() if address not in homes)

    gc.freeze()  # what is there by now is not looked at
    for net in most:
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(lambda *_, net=net: most.update({net: max(most[net], copied())}))
    try:
        draw(model)
    finally:
        gc.unfreeze()
    for net, seen in most.items():
        shared, blocks = parts(net)
        assert 0 < seen <= shared + 2 * max(blocks) < shared + sum(blocks) + max(blocks)


@pytest.mark.parametrize("offload", ["model", "block"])
def test_a_layer_never_computes_with_weights_that_are_away(folder: Path, offload: Offload) -> None:
    model = place(load(folder), CPU, offload)
    wrong = []
    for guest in placement(model)._guests:
        homes = [(run.home.data_ptr(), run.home.data_ptr() + run.size) for run in guest.runs if run.size]

        def watch(layer: nn.Module, _: Any, __: Any, homes: Any = homes) -> None:
            for tensor in layer.parameters(recurse=False):
                wrong.extend(layer for begin, end in homes if begin <= tensor.data_ptr() < end)

        for run in guest.runs:
            assert all(run.home.data_ptr() <= t.data_ptr() < run.home.data_ptr() + run.size for t in run.tensors)
        for layer in [*guest.block_of]:
            layer.register_forward_hook(watch, prepend=True)
    draw(model)
    assert not wrong


def test_the_next_block_is_there_before_it_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a picture's first one no block is waited for: the way through the network has been learned.

    FLUX.3's base takes another way in the first step than in the others, and so waits where the two part.
    """
    model = place(load(folder), CPU, "block")
    stream = placement(model)._guests[0].stream
    late, need = [], type(stream).need

    def watched(self: Any, block: int) -> None:
        if self is stream and block != self._now:
            late.append(block not in self._where)
        need(self, block)

    monkeypatch.setattr(type(stream), "need", watched)
    draw(model)
    late.clear()
    draw(model)
    assert len(late) > len(stream.runs)
    assert late[0] and sum(late) <= (4 if isinstance(model, Flux3Model) else 1)


def test_a_network_stays_until_another_one_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of one prompt do not send the weights to and fro."""
    visits, come = [], Guest.come

    def counted(guest: Guest) -> None:
        visits.append(guest)
        come(guest)

    monkeypatch.setattr(Guest, "come", counted)
    model = place(load(folder), CPU, "model")
    for _ in range(3):
        draw(model)
    assert len(visits) == len(networks(model))


@pytest.mark.parametrize("offload", ["model", "block"])
def test_references_kept_as_keys_and_values_are_no_exception(tiny: Path, tmp_path: Path, offload: Offload) -> None:
    """They run the layers one by one, past the network's own call."""
    folder = make_flux2_model(tmp_path, "klein", tiny).folder
    models = [load(folder), place(load(folder), CPU, offload)]
    home = models[1].transformer.img_in.weight.data_ptr()
    seen = []

    def watched(layer: nn.Module, given: object, output: Tensor) -> None:
        seen.append(layer.weight.data_ptr() != home)

    models[1].transformer.img_in.register_forward_hook(watched, prepend=True)
    for model in models:
        assert isinstance(model, Flux2Model)
        model.cached = True
    assert torch.equal(draw(models[0]), draw(models[1]))
    assert len(seen) == 3 and all(seen)  # the references, then two steps: never with the weights in memory


@pytest.mark.parametrize("offload", ["model", "block"])
@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_quantised_layers_come_and_go_like_any_other(tiny: Path, tmp_path: Path, offload: Offload, form: Any) -> None:
    """Their codes and scales are parameters of other types and shapes."""
    folder = make_flux2_model(tmp_path, "klein", tiny).folder
    models = [load(folder) for _ in range(2)]
    for model in models:
        net = model.transformer
        packed = {
            f"{name}.weight": ([quantised(layer.weight, form)], Source((f"{name}.weight",)))
            for name, layer in net.named_modules() if isinstance(layer, nn.Linear) and "blocks" in name
        }  # fmt: skip
        put_quantised(net, packed, {}, torch.float32)
        assert quantised_layers(net) == len(packed) > 8
    assert torch.equal(draw(place(models[1], CPU, offload)), draw(models[0]))
    assert placement(models[1]).ledger.most > 0


def test_it_goes_down_in_place_while_it_is_used(folder: Path) -> None:
    model = load(folder)
    expected = draw(model)
    found = []
    while (lower := placement(model).lower()) is not None:
        found.append(lower)
        model.text.forget()
        assert torch.equal(draw(model), expected)
        assert model.policy == lower
    assert found == ["model", "block"]


def test_a_failed_layer_leaves_things_in_order(folder: Path) -> None:
    model = place(load(folder), CPU, "block")
    expected = draw(model)
    with pytest.raises(RuntimeError):
        model.transformer.img_in(torch.zeros(1, 1, 3))
    placement(model).clear()
    assert placement(model).ledger.now == 0
    for guest in placement(model)._guests:
        for run in guest.runs:
            assert all(run.home.data_ptr() <= t.data_ptr() < run.home.data_ptr() + run.size for t in run.tensors)
    assert torch.equal(draw(model), expected)


def test_where_the_disk_is_full_weights_stay_in_memory(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KOSHI_CACHE", str(tmp_path / "file"))
    model = place(load(tiny), CPU, "block")
    assert "stay in memory" in caplog.text
    sea = "a calm sea at dawn, photo"
    assert torch.equal(draw(model, sea), draw(load(tiny), sea))


def test_a_run_keeps_every_type_and_shape() -> None:
    given = [
        torch.arange(6.0).view(2, 3), torch.tensor(3.5, dtype=torch.bfloat16), torch.arange(5, dtype=torch.uint8),
        torch.zeros(0, 4), torch.ones(3, dtype=torch.float8_e4m3fn), torch.tensor([True, False]),
    ]  # fmt: skip
    copies = [tensor.clone() for tensor in given]
    run = Run(given)
    run.pack(None, pinned=False)
    flat = run.home.clone()
    run.stand(flat)
    for tensor, copy in zip(given, copies, strict=True):
        assert tensor.dtype == copy.dtype and tensor.shape == copy.shape
        assert torch.equal(tensor.flatten().view(torch.uint8), copy.flatten().view(torch.uint8))
        assert tensor.data_ptr() % 64 == 0 or not tensor.numel()
    run.go_home()
    assert given[0].data_ptr() == run.home.data_ptr()


def test_frames_and_their_keys_do_not_depend_on_the_policy(tmp_path: Path) -> None:
    """So that a shot goes on from the store whatever has been freed or filled since."""
    shot = load_shot({
        "model": "koshi-tiny", "width": 64, "height": 64, "frames": 3, "steps": 1, "seed": 2,
        "prompts": [{"frame": 0, "text": "a reef at noon, photo"}], "schedules": {"zoom": 1.02, "strength": 0.5},
    })  # fmt: skip
    made = [
        [(frame.key, frame.png, frame.stored) for frame in render_shot(shot, store=store, offload=policy, vram=vram)]
        for policy, vram, store in (
            ("none", None, FrameStore(tmp_path / "a")), ("block", 8.0, FrameStore(tmp_path / "b")),
        )
    ]  # fmt: skip
    (model,) = pool._loaded.values()
    assert model.policy == "block" and made[0] == made[1] and not made[0][0][2]
    assert all(frame.stored for frame in render_shot(shot, store=FrameStore(tmp_path / "a"), offload="model"))


def test_the_command_line_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ["generate", "a reef at noon, photo", "--model", "koshi-tiny", "--seed", "1", "--steps", "1"]
    usual += ["--width", "64", "--height", "64"]
    for name, more in (("a", []), ("b", ["--offload", "block", "--vram", "8"])):
        assert cli.main([*usual, "--out", str(tmp_path / f"{name}.png"), *more]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert cli.main([*usual, "--out", str(tmp_path / "c.png"), "--vram", "0.1"]) == 1
    assert "vram is 0.1" in capsys.readouterr().err


def test_the_need_is_what_the_loaded_weights_take(folder: Path) -> None:
    """Told from names and shapes, before anything is read."""
    found: list[Need] = []

    def choice(need: Need) -> Offload:
        found.append(need)
        return "model"

    for quantise in ("none", "int8"):
        model = load_family(folder, CPU, torch.bfloat16, "test", None, choice, quantise)  # type: ignore[arg-type]
        loaded = sum(p.nbytes for p in model.transformer.parameters())
        need = found.pop()
        # But for scales of rows, norms that are kept in float32, and buffers.
        assert need.transformer == pytest.approx(loaded, rel=0.02 if quantise == "none" else 0.25)
        texts = [t.nbytes for guest in placement(model)._guests[1:] for run in guest.runs for t in run.tensors]
        assert need.texts == pytest.approx(sum(texts), rel=0.1)
        tables = [t.nbytes for guest in placement(model)._guests[1:] for t in guest.stay.tensors]
        assert need.tables == pytest.approx(sum(tables), rel=0.1)
        assert need.whole - need.in_turn == min(need.transformer, need.texts) + need.tables


def test_the_need_on_a_processor_is_of_the_weights_as_they_are_held(tiny: Path) -> None:
    """In two bytes, though four are computed in."""
    found: list[Need] = []

    def choice(need: Need) -> Offload:
        found.append(need)
        return "none"

    model = load_family(tiny, CPU, torch.float32, "test", None, choice)
    need = found.pop()
    assert need.whole - need.work == pytest.approx(placement(model).held, rel=0.03)


GB = 10**9
KLEIN = Need(transformer=int(7.75e9), texts=int(5.5e9), tables=int(0.8e9), autoencoder=int(0.17e9), work=int(2.5e9))


@pytest.mark.parametrize(
    ("free", "policy"),
    [(24 * GB, "none"), (17 * GB, "none"), (16 * GB, "model"), (11 * GB, "model"), (8 * GB, "block"), (None, "none")],
)
def test_the_policy_follows_from_what_is_free(free: int | None, policy: Offload) -> None:
    assert choose("auto", KLEIN, free) == policy
    assert choose("model", KLEIN, free) == "model"


# Klein 9B-KV in bfloat16, which is 30.0 GB of weights.
KLEIN_9B = Weights(
    transformer=int(18.16e9), texts=int(10.42e9), tables=int(1.24e9), autoencoder=int(0.17e9), hidden=4096,
    pictures=AutoencoderConfig(), widest=0, kept=2 * 2 * 32 * 4096 * 2, itemsize=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("job", "policy"),
    [
        (Job(512, 512, references=0), "none"),
        (Job(1024, 1024, references=0), "model"),  # 2.5 GB to decode it
        (Job(1792, 1792, references=0), "model"),
        (Job(512, 512, references=2), "model"),  # 2.1 GB of keys and values
        (Job(512, 512, references=0, beside=int(2.0e9)), "model"),  # a large LoRA
        (Job(1792, 1792, references=2, beside=int(2.0e9)), "block"),
    ],
)
def test_what_a_shot_is_and_brings_counts(job: Job, policy: Offload) -> None:
    assert choose("auto", KLEIN_9B.need(job), 32 * GB) == policy


JOBS = st.builds(Job, *[st.integers(4, 112).map(lambda k: 16 * k)] * 2, st.integers(0, 4), st.integers(0, 4 * GB))


@given(JOBS, JOBS, st.integers(1, 60 * GB), st.sampled_from(["none", "model", "block"]))
def test_more_never_takes_less_and_a_loaded_model_never_goes_up(one: Job, two: Job, free: int, now: Offload) -> None:
    order = ("none", "model", "block").index
    both = Job(*(max(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True)))
    needs = [KLEIN_9B.need(job) for job in (one, two, both)]
    found = [choose("auto", need, free) for need in needs]
    assert order(found[2]) >= max(map(order, found[:2]))
    assert all(needs[2].whole >= need.whole > need.in_turn for need in needs[:2])
    assert order(policy_for("auto", now, needs[0], free)) == max(order(now), order(found[0]))
    assert policy_for("none", now, needs[0], free) == policy_for("auto", now, needs[0], None) == now


def test_a_model_that_is_loaded_makes_room_for_a_larger_job(tiny: Path) -> None:
    """For 1792 x 1792 koshi-tiny wants more than a gigabyte, for its own size less."""

    def loaded(job: Job) -> FluxModel:
        return pool.load_model(str(tiny), CPU, torch.float32, vram=1.0, job=job)

    pool._loaded.clear()
    small = loaded(Job(128, 128))
    expected = draw(small, "a reef")
    assert small.policy == "none"
    assert loaded(Job(1792, 1792)) is small and small.policy == "block"
    assert torch.equal(draw(small, "a reef"), expected)
    assert loaded(Job(128, 128)).policy == "block"
    pool._loaded.clear()
    assert loaded(Job(128, 128)).policy == "none" and pool.load_model(str(tiny), CPU, torch.float32).policy == "none"
    pool._loaded.clear()


def test_a_job_that_has_been_done_is_done_again_at_the_same_policy(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last one has left there, keys and values of references for one, is not counted twice."""
    tight, kept = 1 << 40, 0

    def free(*_: object) -> int:
        nonlocal kept
        if not pool._loaded:
            return tight
        (model,) = pool._loaded.values()
        assert isinstance(model, Flux2Model)
        sets = [pair for one in model._remembered.values() for pair in (*one.double, *one.single)]
        kept = sum(tensor.nbytes for pair in sets for tensor in pair)
        return tight - placement(model).held - kept

    def loaded(job: Job) -> FluxModel:
        return pool.load_model(str(tiny), CPU, torch.float32, job=job)

    def use(model: FluxModel) -> None:
        assert isinstance(model, Flux2Model)
        model.cached = True
        draw(model, "a reef")
        free()
        assert kept > 0

    pool._loaded.clear()
    monkeypatch.setattr(pool, "budget", free)
    weights = loaded(Job(64, 64)).weights
    assert weights is not None
    pool._loaded.clear()
    tight = weights.need(Job(160, 128)).whole  # and not a byte more
    model = loaded(Job(128, 128))
    for job in (Job(128, 128), Job(160, 128), Job(160, 128), Job(64, 64)):
        use(model)
        assert loaded(job) is model and model.policy == "none", job
    use(model)
    assert loaded(Job(160, 144)) is model and model.policy != "none"
    pool._loaded.clear()


def test_what_a_model_holds_is_not_room_beyond_the_limit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Apple and on processors nothing but the limit says how much there is."""
    monkeypatch.setattr(pool, "pick_vram", lambda given: given)  # koshi-tiny holds much less than the smallest limit

    def loaded(job: Job, vram: float | None) -> FluxModel:
        return pool.load_model(str(tiny), CPU, torch.float32, vram=vram, job=job)

    pool._loaded.clear()
    job = Job(64, 64)
    weights = loaded(job, None).weights
    assert weights is not None
    limit = weights.need(job).whole + 1000
    model = loaded(job, limit / 1e9)
    held = placement(model).held
    assert model.policy == "none" and limit < 3 * held
    assert loaded(Job(64, 64, beside=held // 2), limit / 1e9) is model and model.policy != "none"
    pool._loaded.clear()


def test_a_shot_s_job(tiny: Path) -> None:
    look = Path(__file__).parents[1] / "examples" / "guides" / "cyanotype.safetensors"
    plain: dict[str, Any] = {
        "model": "koshi-tiny", "width": 128, "height": 64, "frames": 3, "prompts": [{"frame": 0, "text": "a reef"}],
    }  # fmt: skip

    def job(**more: Any) -> Job:
        return shot_job(load_shot({**plain, **more}), torch.bfloat16)

    assert job(feedback={"condition": "start"}) == Job(128, 64, 0, 0)
    assert job(feedback={"condition": "both"}).references == 1
    assert job(feedback={"condition": "both", "carry": "none"}).references == 0
    guides = {"structure": str(Path(__file__).parents[1] / "docs" / "koshi-tiny.png")}
    assert job(feedback={"condition": "reference"}, guides=guides).references == 2
    (fitted,) = fit_loras(load_family(tiny, CPU, torch.bfloat16, "test"), "koshi-tiny", [look])
    worn = {"file": str(look), "weight": "0:(0), 2:(1)"}
    assert job(loras=[worn, worn]).beside == fitted.bytes() > 0
    assert job(loras=[{**worn, "weight": 0}]).beside == 0
    layers = sum(math.prod(shape) for _, shape in layout())
    assert job(time={"inbetween": "rife", "rife": str(look), "interpolation": 2}).beside == 4 * layers


def test_policy_and_limit_come_from_the_call_else_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (pick_offload(), pick_vram()) == ("auto", None)
    monkeypatch.setenv("KOSHI_OFFLOAD", "block")
    monkeypatch.setenv("KOSHI_VRAM", "7.5")
    assert (pick_offload(), pick_offload("model"), pick_vram(), pick_vram(24)) == ("block", "model", 7.5, 24.0)
    for wrong in ("some", "Model"):
        monkeypatch.setenv("KOSHI_OFFLOAD", wrong)
        with pytest.raises(KoshiError, match=repr(wrong)):
            pick_offload()
    for wrong in ("much", "0.5", "-8", "nan", "inf"):
        monkeypatch.setenv("KOSHI_VRAM", wrong)
        with pytest.raises(KoshiError, match=wrong):
            pick_vram()
