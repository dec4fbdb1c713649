# SPDX-License-Identifier: GPL-3.0-or-later
"""The training room: the picture world, and every step at its smallest, kills included."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT))  # the training room is no installed package

from koshi_backend.models.family import load_family
from training.__main__ import main
from training.autoencoder import built, random_warp, train_autoencoder
from training.budget import share_out
from training.captions import SCENES, STYLES, TIMES, Spec, caption, draw_spec, from_numbers, held_out
from training.correction import CorrectedEncoder
from training.distill import train_distilled
from training.encoder import LinearEncoder, fit
from training.export import export
from training.net import TEXT_LENGTH, Net, load_net, make_tokenizer
from training.optim import orthogonalise
from training.pictures import SETS, Pictures, draw_pictures, plan, shard_file, work
from training.settle import settle
from training.stage import Room
from training.transformer import Examples, damage, train_transformer
from training.world import Camera, motion, render

CPU = torch.device("cpu")
PROMPT = "a calm sea at dawn, photo"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The exact repetition of a run needs the same number of threads in this process and the ones it starts."""
    before, attention = torch.get_num_threads(), torch.nn.functional.scaled_dot_product_attention
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.nn.functional.scaled_dot_product_attention = attention


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """A run folder with a few pictures in it."""
    room = Room(tmp_path_factory.mktemp("run"), CPU, torch.float32, batch=0.1)
    draw_pictures(room, 8, workers=1)
    return room


# ---- the world


def test_a_place_is_its_seed_s() -> None:
    spec = Spec("city", "sunset", "mosaic", "old", "rain")
    assert np.array_equal(render(5, spec, 64), render(5, spec, 64))
    assert np.abs(render(5, spec, 64) - render(6, spec, 64)).mean() > 0.02


@pytest.mark.parametrize("scene", SCENES)
def test_a_place_keeps_its_layout_at_another_time(scene: str) -> None:
    def outlines(seed: int, time: str) -> np.ndarray:
        grey = render(seed, Spec(scene, time), 64)[24:].mean(2)  # without sun, moon and stars
        return np.hypot(*np.gradient(cv2.GaussianBlur(grey, (0, 0), 1.5))).ravel()

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    same, other = likeness(outlines(5, "day"), outlines(5, "sunset")), likeness(outlines(5, "day"), outlines(7, "day"))
    assert same > 0.7  # observed: 0.77 (the sea, whose glitter follows the sun) to 1.00
    assert same > other + 0.1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(256, 256), (320, 176)])
def test_the_camera_moves_every_pixel_as_it_says(style: str, size: tuple[int, int]) -> None:
    spec, after = Spec("forest", "day", style), Camera(1.2, 0.10, -0.05, 4.0)
    still, moved = render(3, spec, *size), render(3, spec, *size, after)
    assert moved.shape == (size[1], size[0], 3)
    way = motion(*size, Camera(), after)[:2]
    carried = cv2.warpAffine(still, way, size, flags=cv2.INTER_CUBIC)
    seen = cv2.warpAffine(np.ones_like(still), way, size) > 0.999
    seen[:4], seen[-4:], seen[:, :4], seen[:, -4:] = False, False, False, False
    error, without = np.abs(carried - moved)[seen].mean(), np.abs(still - moved)[seen].mean()
    assert error < 0.2 * without  # observed: 0.03 to 0.12, the most in the mosaic, whose joints are two pixels wide


def test_pictures_of_all_shapes_are_whole() -> None:
    for width, height in ((96, 96), (128, 72), (72, 128), (96, 72)):
        for scene in SCENES:
            picture = render(1, Spec(scene, "night", "watercolor", "", "clear"), width, height)
            assert picture.shape == (height, width, 3)
            assert picture.dtype == np.float32
            assert picture.min() >= 0
            assert picture.max() <= 1
            assert picture.std() > 0.02


def test_captions_are_short_and_of_known_words() -> None:
    tokenizer, rng = make_tokenizer(), np.random.default_rng(0)
    texts = {caption(rng, draw_spec(rng)) for _ in range(600)}
    assert len(texts) > 500
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids, text
        assert len(ids) + 9 <= TEXT_LENGTH, text  # 9: the chat template's own


def test_some_combinations_are_kept_for_the_judge() -> None:
    every = [Spec(s, t, k) for s in SCENES for t in TIMES for k in STYLES]
    kept = [spec for spec in every if held_out(spec)]
    assert 8 <= len(kept) <= 20
    rng = np.random.default_rng(1)
    assert not any(held_out(draw_spec(rng)) for _ in range(500))
    spec = draw_spec(rng)
    assert from_numbers(spec.numbers()) == spec


# ---- the parts


def test_the_convolutional_encoder_is_the_matrix() -> None:
    pca = fit(24)
    statistics = {"bn.mean": torch.zeros(128), "bn.var": torch.ones(128)}
    x = torch.from_numpy(render(9, Spec("reef"), 64)).permute(2, 0, 1)[None] * 2 - 1
    with torch.no_grad():
        ours, exact = built(pca | statistics).encoder(x).chunk(2, 1)[0], LinearEncoder(pca)(x)
    assert float((ours - exact).square().mean().sqrt() / exact.std()) < 0.01  # observed: 0.002
    assert float((LinearEncoder(pca).decode(exact) - x).square().mean()) < 0.05
    whole = built(pca | statistics)
    for block in (whole.encoder.down[-1].block[0], whole.encoder.mid.block_2):
        torch.nn.init.normal_(block.conv2.weight, std=0.02)  # a correction that does something
    with torch.no_grad():
        ours, short = whole.encoder(x).chunk(2, 1)[0], CorrectedEncoder(whole, pca)(x)
    assert float((ours - exact).square().mean().sqrt() / exact.std()) > 0.05
    assert float((ours - short).square().mean().sqrt() / exact.std()) < 0.01  # observed: 0.002


def test_orthogonalise_brings_singular_values_near_one() -> None:
    g = torch.randn(2, 40, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(g))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_damage_keeps_shape_and_range() -> None:
    x = render(2, Spec("sea"), 64) * 2 - 1
    for seed in range(20):
        out = damage(x, np.random.default_rng(seed))
        assert out.shape == x.shape
        assert np.abs(out).max() <= 1
        assert float(np.corrcoef(out.ravel(), x.ravel())[0, 1]) > 0.6, seed  # damaged, yet the same picture, not turned


def test_random_warp_moves_all_alike() -> None:
    x = torch.rand(2, 3, 32, 48)
    a, b = random_warp([x, x], np.random.default_rng(0))
    assert torch.equal(a, b)
    assert not torch.equal(a, x)


def test_the_budget_grows_with_the_minutes() -> None:
    shares = [share_out(minutes, 2) for minutes in (5, 20, 360)]
    assert [s.pictures for s in shares] == sorted(s.pictures for s in shares)
    for minutes, s in zip((5, 20, 360), shares, strict=True):
        assert s.autoencoder + s.settle + s.transformer + s.distill + s.judge < 0.95 * minutes


# ---- the steps


def test_a_lost_shard_is_drawn_again_the_same(room: Room) -> None:
    path = shard_file(room.folder, SETS[-1], 0)
    before, others = path.read_bytes(), {p: p.stat().st_mtime_ns for p in path.parent.iterdir() if p != path}
    path.unlink()
    work(room.folder, room.seed, plan(8), os.getppid())  # what each drawing process does
    assert path.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in others} == others
    batch = Pictures(room.folder).take("tall-pairs", 3, np.random.default_rng(0), CPU)
    assert batch.pictures.shape == (3, 3, 320, 176)
    assert batch.references is not None
    assert len(batch.specs) == 3


def test_a_step_without_what_it_needs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transformer", "--run", str(tmp_path), "--device", "cpu", "--dtype", "fp32"]) == 1
    assert "python -m training world" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(room: Room, tmp_path: Path) -> None:
    steps, checkpoint, log = 4, room.folder / "autoencoder.pt", room.folder / "autoencoder.jsonl"
    options = ["--steps", str(steps), "--save-seconds", "0", "--no-measure", "--threads", "1", "--device", "cpu"]
    options += ["--dtype", "fp32", "--batch", str(room.batch)]
    code = "import sys; from training.__main__ import main; "
    code += "sys.exit(any([main(['autoencoder', '--run', run, *sys.argv[2:]]) for run in sys.argv[1].split('|')]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(room.folder), *options], cwd=ROOT)
    until = time.monotonic() + 60
    while not checkpoint.is_file():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < steps
    with log.open("a", encoding="utf-8") as handle:
        handle.write('{"step": 9999, "seconds"')  # a line that the kill cut short
    # The same run without a kill, in a process of the same kind as the one that goes on.
    shutil.copytree(room.folder / "pictures", tmp_path / "pictures")
    shutil.copyfile(room.folder / "encoder.safetensors", tmp_path / "encoder.safetensors")
    runs = f"{room.folder}|{tmp_path}"
    subprocess.run([sys.executable, "-c", code, runs, *options], cwd=ROOT, check=True, timeout=120)
    again, whole = (torch.load(folder / "autoencoder.pt", weights_only=True) for folder in (room.folder, tmp_path))
    assert again["step"] == whole["step"] == steps
    for kind in ("master", "average"):
        for name, tensor in whole["state"]["net"][kind].items():
            assert torch.equal(tensor, again["state"]["net"][kind][name]), name
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert lines[0]["commit"]
    assert sum("start" in line for line in lines) == 2


@pytest.fixture(scope="module")
def model(room: Room) -> Path:
    """A model that went through all steps, a few batches each."""
    short = dataclasses.replace(room, steps=2)
    if not (room.folder / "autoencoder.pt").is_file():
        train_autoencoder(short)
    settle(short, examined=0)
    train_transformer(short)
    train_distilled(dataclasses.replace(room, steps=1))
    return export(room)


def test_every_step_leaves_a_log_and_a_plot(model: Path, room: Room) -> None:
    for name in ("autoencoder", "settle", "transformer", "distill"):
        with Image.open(model / "training" / f"{name}.png") as plot:
            assert len(plot.convert("RGB").getcolors(2**20) or ()) > 3
        assert (model / "training" / f"{name}.jsonl").read_text(encoding="utf-8").count('"commit"') >= 1
    assert json.loads((model / "training" / "export.json").read_text(encoding="utf-8"))["commit"]
    assert not list(room.folder.glob("*.new"))


def test_batches_have_the_sizes_they_say(model: Path, room: Room) -> None:
    examples, rng = Examples(room), np.random.default_rng(0)
    seen = {}
    for _ in range(12):
        name, x, words, references, start = examples.draw(rng, False, 0.5)
        assert (start is not x) == name.endswith("loop")
        assert len(words) == len(x)
        assert all(r.shape == x.shape for r in references)
        assert bool(references) == (" " in name)
        seen[name.split()[0]] = tuple(x.shape[2:])
    shapes = {"small": (8, 8), "square": (16, 16), "wide": (11, 20), "tall": (20, 11), "classic": (14, 18)}
    assert seen.items() <= (shapes | {"large": (32, 32)}).items()


def test_the_export_is_the_trained_network(model: Path, room: Room) -> None:
    loaded = load_family(model, CPU, torch.float32, "test")
    ours: Net = load_net(room.folder, "distill", CPU, torch.bfloat16).float()
    theirs = loaded.transformer.state_dict()
    assert theirs.keys() == ours.transformer.state_dict().keys()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.transformer.state_dict().items())
    with torch.no_grad():
        assert torch.equal(ours.embed([PROMPT]), loaded.text.encode([PROMPT]).states)
        x, t = loaded.noise(1, 64, 64), torch.tensor([0.7])
        reference = loaded.noise(2, 64, 64)
        v = ours(x, t, ours.embed([PROMPT]), (reference,))
        assert v.shape == x.shape
        assert not torch.equal(v, ours(x, t, ours.embed([PROMPT])))
    assert loaded.autoencoder.bn.running_var is not None


@pytest.mark.parametrize("with_reference", [False, True])
def test_diffusers_draws_the_same_from_the_export(model: Path, with_reference: bool) -> None:
    from diffusers import Flux2KleinPipeline

    from koshi_backend.models.model import Reference

    loaded = load_family(model, CPU, torch.float32, "test")
    pipe = Flux2KleinPipeline.from_pretrained(model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = Image.fromarray((render(4, Spec("reef"), 128) * 255).astype(np.uint8)) if with_reference else None
    pixels = torch.from_numpy(np.asarray(image) / 255.0).float().permute(2, 0, 1)[None] if image else None
    references = [Reference(loaded.encode_picture(pixels))] if pixels is not None else []
    noise = loaded.noise(3, 128, 128)
    ours = loaded.decode(loaded.denoise(PROMPT, noise, steps=4, references=references))[0].permute(1, 2, 0).numpy()
    theirs = pipe(
        prompt=PROMPT, image=image, latents=noise.clone(), width=128, height=128, num_inference_steps=4,
        guidance_scale=1.0, max_sequence_length=TEXT_LENGTH, text_encoder_out_layers=(1, 2, 3),
    ).images[0]  # fmt: skip
    error = float(((np.asarray(theirs) / 255.0 - ours) ** 2).mean())
    assert -10 * np.log10(error) >= 45  # observed: 58, which is the rounding to bytes
