# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that runs out, at every stage of a shot: it is made once more with less on the device, or ends in words.

The errors are the libraries' own: an allocation that no computer can serve, at the place where it would happen.
"""

from __future__ import annotations

import errno
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koshi_backend import create_pipeline
from koshi_backend.betweens import _Span
from koshi_backend.chain import Frame, render_shot
from koshi_backend.errors import KoshiError
from koshi_backend.lora import fit
from koshi_backend.models import family, pool
from koshi_backend.models.autoencoder import Decoder, Encoder
from koshi_backend.models.flux2 import Flux2Transformer
from koshi_backend.models.model import FluxModel
from koshi_backend.models.residence import Run
from koshi_backend.models.shortage import OutOfMemory, asked_for, is_out_of_memory, out_of_memory_explained
from koshi_backend.models.surviving import surviving
from koshi_backend.models.text import TextEncoder
from koshi_backend.shot import Shot, load_shot
from koshi_backend.store import FrameStore

FRAMES, TOO_MUCH = 12, 1 << 52
CYANOTYPE = Path(__file__).parents[1] / "examples" / "guides" / "cyanotype.safetensors"


def by_torch() -> None:
    torch.empty(TOO_MUCH, dtype=torch.uint8)


def by_numpy() -> None:
    np.ones(TOO_MUCH, np.uint8)


def by_a_card() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total of 7.6 GiB")


STAGES = {"prompt": (TextEncoder, "_run"), "encode": (Encoder, "forward"), "denoise": (Flux2Transformer, "forward"),
          "decode": (Decoder, "forward")}  # fmt: skip
BETWEEN = (_Span, "at")


SHOT = {
    "model": "koshi-tiny", "width": 64, "height": 64, "frames": FRAMES, "steps": 1, "seed": 5,
    "prompts": [{"frame": 0, "text": "a calm sea at dawn, photo"}, {"frame": 6, "text": "a forest at night, ink"}],
    "schedules": {"zoom": 1.02, "strength": 0.5}, "feedback": {"condition": "both"},
}  # fmt: skip


def a_shot() -> Shot:
    return load_shot(SHOT)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No test finds the model as another one has left it."""
    pool._loaded.clear()
    yield
    pool._loaded.clear()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [frame.png for frame in render_shot(a_shot(), store=FrameStore(tmp_path_factory.mktemp("whole")))]


def model() -> FluxModel:
    (loaded,) = pool._loaded.values()
    return loaded


class Shortage:
    """Lets a stage run out of memory: at its calls from `first` on, as long as the model's policy is one of `under`."""

    def __init__(
        self, patch: pytest.MonkeyPatch, stage: str, fail: Callable[[], None], first: int, under: tuple[str, ...]
    ) -> None:
        kind, name = BETWEEN if stage == "between" else STAGES[stage]
        real: Callable[..., Any] = getattr(kind, name)
        self.calls = self.failed = 0

        def watched(own: Any, *given: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls >= first and (not pool._loaded or model().policy in under):
                self.failed += 1
                fail()
            return real(own, *given, **named)

        patch.setattr(kind, name, watched)


def collect(store: FrameStore) -> tuple[list[Frame], KoshiError | None]:
    """What comes out before the shot ends, and with what it ends."""
    frames: list[Frame] = []
    try:
        for frame in render_shot(a_shot(), store=store):
            frames.append(frame)
    except KoshiError as error:
        return frames, error
    return frames, None


def whole(store: FrameStore) -> bool:
    """Every file in the store is a sound entry, and nothing is left of a write."""
    files = [path for path in store.root.rglob("*") if path.is_file()]
    return all(path.suffix == ".safetensors" and store.get(path.stem) is not None for path in files)


# Which call of a stage: within the first frame, at a later frame, where the second prompt comes in.
@pytest.mark.parametrize(
    ("stage", "first", "fail"),
    [
        ("prompt", 1, by_torch), ("prompt", 2, by_a_card), ("encode", 4, by_torch), ("denoise", 1, by_a_card),
        ("denoise", 9, by_torch), ("decode", 7, by_numpy),
    ],
)  # fmt: skip
def test_the_shot_is_completed_at_the_next_policy(
    stage: str, first: int, fail: Callable[[], None], undisturbed: list[bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shortage, store = Shortage(monkeypatch, stage, fail, first, ("none",)), FrameStore(tmp_path)
    frames, error = collect(store)
    assert error is None and shortage.failed == 1
    assert [frame.png for frame in frames] == undisturbed
    assert not any(frame.stored for frame in frames)
    assert model().policy == "model" and whole(store)


def test_a_picture_between_frames_gets_the_room_that_the_model_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot = load_shot({**SHOT, "frames": 3, "time": {"interpolation": 2}})
    calm = [frame.png for frame in render_shot(shot, store=FrameStore(tmp_path / "calm"))]
    pool._loaded.clear()
    shortage = Shortage(monkeypatch, "between", by_a_card, 2, ("none",))
    assert [frame.png for frame in render_shot(shot, store=FrameStore(tmp_path / "short"))] == calm
    assert shortage.failed == 1 and model().policy == "model"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[FrameStore, list[Frame]]:
    """Three frames and the pictures between them."""
    store = FrameStore(tmp_path_factory.mktemp("three"))
    return store, list(render_shot(between_shot(), store=store))


def between_shot() -> Shot:
    return load_shot({**SHOT, "frames": 3, "time": {"interpolation": 2}})


@pytest.fixture
def damaged(three: tuple[FrameStore, list[Frame]], tmp_path: Path) -> FrameStore:
    """A store without the first picture between frames, for which frame 1 has to be made again: its PNG is sound, and
    what is behind it is not. Nothing else asks for a model."""
    store = FrameStore(shutil.copytree(three[0].root, tmp_path / "damaged"))
    store.path(three[1][1].key).unlink()
    path = store.path(three[1][2].key)
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    data[8 + header + json.loads(data[8 : 8 + header])["picture"]["data_offsets"][0] + 1000] ^= 0x10
    path.write_bytes(bytes(data))
    assert store.png(three[1][2].key) == three[1][2].png
    return store


def test_a_picture_between_frames_and_a_lost_frame_in_it_each_get_their_room(
    three: tuple[FrameStore, list[Frame]], damaged: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both run out once: two policies further, and the same pictures."""
    frame = Shortage(monkeypatch, "denoise", by_a_card, 1, ("none",))
    between = Shortage(monkeypatch, "between", by_a_card, 1, ("model",))
    made = list(render_shot(between_shot(), store=damaged))
    assert [one.png for one in made] == [one.png for one in three[1]]
    assert [one.index for one in made if not one.stored] == [1]
    assert (frame.failed, between.failed, model().policy) == (1, 1, "block") and whole(damaged)


def test_a_model_that_is_loaded_on_the_way_makes_room_too(
    three: tuple[FrameStore, list[Frame]], damaged: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortage = Shortage(monkeypatch, "between", by_a_card, 1, ("none",))
    made = list(render_shot(between_shot(), store=damaged))
    assert [one.png for one in made] == [one.png for one in three[1]]
    assert shortage.failed == 1 and model().policy == "model"


def test_a_lost_frame_is_tried_twice_and_not_four_times(
    damaged: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been tried in vain in a picture between frames is not tried again around it."""
    shortage = Shortage(monkeypatch, "denoise", by_a_card, 1, ("none", "model", "block"))
    with pytest.raises(OutOfMemory, match=r"while making a picture with the model offloaded \(model\)") as found:
        list(render_shot(between_shot(), store=damaged))
    assert shortage.failed == 2 and found.value.final and model().policy == "model"


@pytest.fixture
def without_betweens(three: tuple[FrameStore, list[Frame]], tmp_path: Path) -> FrameStore:
    """A store of all frames, from which no picture between them can be had: nothing asks for a model."""
    store = FrameStore(shutil.copytree(three[0].root, tmp_path / "frames"))
    for index in (1, 3):
        store.path(three[1][index].key).unlink()
    return store


def test_a_model_that_another_shot_has_loaded_makes_room_for_a_picture_between_frames(
    three: tuple[FrameStore, list[Frame]], without_betweens: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.load_model("koshi-tiny", torch.device("cpu"), torch.float32)
    shortage = Shortage(monkeypatch, "between", by_a_card, 1, ("none",))
    made = list(render_shot(between_shot(), store=without_betweens))
    assert [one.png for one in made] == [one.png for one in three[1]]
    assert [one.index for one in made if not one.stored] == [1, 3]
    assert shortage.failed == 1 and model().policy == "model"


@pytest.mark.parametrize("times", [1, 2])
def test_a_picture_between_frames_is_tried_twice_without_a_model(
    times: int, three: tuple[FrameStore, list[Frame]], without_betweens: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = _Span.at, []

    def tight(*given: Any) -> Any:
        tries.append(True)
        return by_torch() if len(tries) <= times else real(*given)

    monkeypatch.setattr(_Span, "at", tight)
    if times == 1:
        made = [one.png for one in render_shot(between_shot(), store=without_betweens)]
        assert made == [one.png for one in three[1]] and not pool._loaded
    else:
        with pytest.raises(OutOfMemory, match="while making a picture between two frames: "):
            list(render_shot(between_shot(), store=without_betweens))
        assert len(tries) == 2


def test_a_model_that_a_picture_between_frames_cannot_load_is_not_tried_four_times(
    damaged: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def full(*given: Any) -> None:
        tries.append(True)
        by_a_card()

    monkeypatch.setattr(family, "place", full)
    with pytest.raises(OutOfMemory, match="while loading the model"):
        list(render_shot(between_shot(), store=damaged))
    assert len(tries) == 2


@pytest.mark.parametrize("stage", list(STAGES))
def test_else_it_ends_in_words_and_goes_on_from_there(
    stage: str, undisturbed: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once at the next policy, and the frames before are kept: asked for again, it goes on."""
    store = FrameStore(tmp_path)
    with monkeypatch.context() as patch:
        shortage = Shortage(patch, stage, by_torch, {"prompt": 2, "encode": 4, "denoise": 6, "decode": 5}[stage], (
            "none", "model",
        ))  # fmt: skip
        frames, error = collect(store)
        assert isinstance(error, OutOfMemory) and error.code == "out_of_memory" and shortage.failed == 2
        assert error.asked == TOO_MUCH and error.policy == "model" and len(set(error.remedies)) == 3
        assert error.free is None or 0 < error.free < error.total  # type: ignore[operator]
        assert all(remedy.lower() in str(error).lower() for remedy in error.remedies)
        assert 0 < len(frames) < FRAMES and [frame.png for frame in frames] == undisturbed[: len(frames)]
        assert whole(store) and len(list(store.root.glob("??/*"))) == len(frames)
        # The model stays where it was brought to, and the next policy suffices.
        again, error = collect(store)
    assert error is None and model().policy == "block"
    assert [frame.png for frame in again] == undisturbed
    assert [frame.stored for frame in again] == [True] * len(frames) + [False] * (FRAMES - len(frames))


def test_where_nothing_helps_it_says_so_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Shortage(monkeypatch, "denoise", by_a_card, 1, ("none", "model", "block"))
    for policy in ("model", "block", "block"):
        frames, error = collect(FrameStore(tmp_path))
        assert not frames and isinstance(error, OutOfMemory) and error.policy == policy
        assert error.asked == int(1.5 * 2**30)
        assert "offload more" in error.hint if policy == "model" else "quantised" in error.hint
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_picture_survives_as_a_frame_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = create_pipeline("koshi-tiny", device="cpu")
    call: dict[str, Any] = {"width": 64, "height": 64, "seed": 3, "output_path": None, "num_steps": 2}
    expected = [np.asarray(pipe.generate_image(text, **call)) for text in ("a reef, photo", "a city, ink")]
    Shortage(monkeypatch, "decode", by_torch, 2, ("none",))
    found = pipe.generate_image(["a reef, photo", "a city, ink"], **call)
    assert all(np.array_equal(np.asarray(a), b) for a, b in zip(found, expected, strict=True))
    assert model().policy == "model"


@pytest.mark.parametrize("times", [1, 2])
def test_a_model_that_does_not_fit_is_loaded_once_more(
    times: int, undisturbed: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = family.open_autoencoder, []

    def tight(*given: Any) -> Any:
        opened = real(*given)
        load = opened.load

        def refuse(*given: Any) -> Any:
            if len(failed) < times:
                failed.append(True)
                by_torch()
            return load(*given)

        object.__setattr__(opened, "load", refuse)
        return opened

    monkeypatch.setattr(family, "open_autoencoder", tight)
    frames, error = collect(FrameStore(tmp_path))
    if times == 1:
        assert error is None and [frame.png for frame in frames] == undisturbed and model().policy == "model"
    else:
        assert isinstance(error, OutOfMemory) and "loading the model" in error.message and not pool._loaded


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which", 2 << 30),
        ("CUDA out of memory. Tried to allocate 20.50 MiB (GPU 0; 7.79 GiB total capacity", int(20.5 * 2**20)),
        ("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
         "4096000 bytes. Error code 12 (Cannot allocate memory)", 4096000),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 17 bytes.", 17),
        ("Unable to allocate 3.00 TiB for an array with shape (1, 2) and data type float32", 3 << 40),
        ("MPS backend out of memory (MPS allocated: 5.1 GB). Tried to allocate 256 bytes on private pool.", 256),
        ("CUDA error: out of memory", None), ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", None),
        ("OpenCV(4.10) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 8 bytes in function", 8),
    ],
)  # fmt: skip
def test_what_was_asked_is_read_from_what_libraries_say(message: str, asked: int | None) -> None:
    assert is_out_of_memory(RuntimeError(message)) or "Unable" in message
    assert asked_for(message) == asked


def test_other_errors_stay_what_they_are() -> None:
    for error in (RuntimeError("shapes differ"), ValueError("allocate 8 bytes"), KoshiError("x", "out of memory")):
        with pytest.raises(type(error)) as found, out_of_memory_explained("trying", torch.device("cpu")):
            raise error
        assert found.value is error
    with pytest.raises(OutOfMemory, match="while trying"), out_of_memory_explained("trying", torch.device("cpu")):
        raise MemoryError


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), by_numpy, by_torch])
def test_the_computers_memory_is_not_taken_for_the_cards(error: Exception | Callable[[], None]) -> None:
    """A shortage there is mended by other means, and not by keeping more of the model there."""
    card = torch.device("meta")
    with pytest.raises(OutOfMemory, match=r"^The computer ran out") as found, out_of_memory_explained("trying", card):
        if callable(error):
            error()
        else:
            raise error
    assert found.value.device.type == "cpu"
    with pytest.raises(OutOfMemory, match=r"^The graphics card ran out"), out_of_memory_explained("trying", card):
        by_a_card()
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


def test_where_the_computer_runs_short_beside_a_card_the_policy_stays() -> None:
    loaded, tries = pool.load_model("koshi-tiny", torch.device("cpu"), torch.float32), [MemoryError()]

    def work() -> int:
        if tries:
            raise tries.pop()
        return 7

    loaded.device = torch.device("meta")
    assert surviving(loaded, "trying", work) == 7 and loaded.policy == "none"


def test_a_lora_that_does_not_fit_beside_the_model_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, real, failed = pool.load_model("koshi-tiny", torch.device("cpu"), torch.float32), fit.fit, []

    def tight(*given: Any) -> Any:
        if not failed:
            failed.append(True)
            by_a_card()
        return real(*given)

    monkeypatch.setattr(fit, "fit", tight)
    (worn,) = fit.fit_loras(loaded, "koshi-tiny", [CYANOTYPE])
    assert worn.changes and loaded.policy == "model"


def test_a_model_that_was_moved_by_half_is_not_used_again(
    undisturbed: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise MemoryError

    store = FrameStore(tmp_path)
    with monkeypatch.context() as patch:
        Shortage(patch, "denoise", by_a_card, 6, ("none",))
        patch.setattr(Run, "pack", full)
        frames, error = collect(store)
    assert isinstance(error, OutOfMemory) and "moving the model" in error.message and 0 < len(frames) < FRAMES
    frames, error = collect(store)
    assert error is None and [frame.png for frame in frames] == undisturbed


def test_what_failed_is_let_go_before_the_next_try() -> None:
    """Else its tensors would be in the way of the next one's."""
    kept: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        held = torch.zeros(1000)
        kept.append(weakref.ref(held))
        by_torch()

    with pytest.raises(OutOfMemory), out_of_memory_explained("trying", torch.device("cpu")):
        work()
    assert kept[0]() is None
