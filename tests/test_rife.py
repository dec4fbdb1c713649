# SPDX-License-Identifier: GPL-3.0-or-later
"""RIFE v4.6 as the way between pictures: its arithmetic against the reference's, its file's faults, and whole shots.

The published weights are not Koshi's to ship. These have its names and shapes, and random numbers in them: what it
computes from them is held against what the reference computes, and shots show that it is asked and kept. How good its
pictures are, these tests cannot say.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from koshi_backend.chain import Frame, render_shot
from koshi_backend.errors import Cancelled, KoshiError
from koshi_backend.inbetween import Ways, between, on_the_way
from koshi_backend.motion import MotionField, deforum_matrix
from koshi_backend.motion.invert import part_way
from koshi_backend.motion.rife import Rife, layout, load_rife
from koshi_backend.shot import load_shot, read_shot
from koshi_backend.store import FrameStore

CPU = torch.device("cpu")


def random_weights() -> dict[str, Tensor]:
    """Ways of some pixels, and all of 0..1 of how much the first picture counts."""
    random, found = np.random.default_rng(46), dict[str, Tensor]()
    for name, shape in layout():
        fan = math.prod(shape[1:]) if name.endswith(".weight") else 1
        size = {"weight": 0.8 * math.sqrt(2.0 / fan), "bias": 0.05, "beta": 0.3}[name.rpartition(".")[2]]
        values = random.standard_normal(shape, np.float32) * size
        found[name] = torch.from_numpy(values.astype(np.float32))
    return found


def picture(height: int, width: int, phase: float) -> Tensor:
    """[1, 3, H, W] in 0..1: waves."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / (5 + c) + y / (9 - c) + phase) * np.cos(y / (6 + c) - 0.7 * phase) for c in range(3)]
    return torch.from_numpy(0.5 + 0.45 * np.stack(waves)).float()[None]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is published: names as of parallel training, and what only training needs."""
    path = tmp_path_factory.mktemp("rife") / "flownet.pkl"
    torch.save({f"module.{name}": one for name, one in weights.items()} | {"module.teacher": torch.zeros(3)}, path)
    return path


# Of the reference: IFNet of RIFE v4.6 (vsrife/IFNet_HDv3_v4_6.py with vsrife/warplayer.py, in HolyWu/vs-rife), scale
# 1 and no ensemble, load_state_dict(random_weights(), strict=True), in float32 on a processor, of picture(H, W, 0) and
# picture(H, W, .8), padded to the right and below to multiples of 32 by their edges, and cut out again. For each time:
# all three colours at (H // 5, W // 6), (H // 2, W // 2) and the last pixel, [y, x]; the mean of all; and in the middle
# the last flow that it warps by: x and y to the first picture, x and y to the second.
GOLDEN = {
    (64, 96): {
        0.25: ([[0.65219, 0.5673, 0.46637], [0.54096, 0.35082, 0.49964], [0.27186, 0.83271, 0.43708]],
               0.51104, [0.007, -0.611, 6.349, -0.527]),
        0.5: ([[0.65819, 0.58457, 0.48634], [0.52128, 0.30967, 0.45246], [0.27236, 0.83564, 0.44026]],
              0.51129, [-0.102, -0.685, 6.812, -0.862]),
        0.75: ([[0.6742, 0.59956, 0.49916], [0.51772, 0.26731, 0.38466], [0.27776, 0.84013, 0.44324]],
               0.51237, [-0.144, -0.347, 7.492, -0.961]),
    },
    (53, 75): {
        0.25: ([[0.4526, 0.41235, 0.39112], [0.56566, 0.34524, 0.34761], [0.52954, 0.33942, 0.15427]],
               0.4997, [0.784, -12.84, -5.047, -2.87]),
        0.5: ([[0.46094, 0.42008, 0.397], [0.51381, 0.32008, 0.3383], [0.60237, 0.3416, 0.19911]],
              0.50123, [0.104, -12.987, -5.726, -2.883]),
        0.75: ([[0.46727, 0.4263, 0.40105], [0.47232, 0.28774, 0.3154], [0.65472, 0.34675, 0.23862]],
               0.503, [-0.083, -13.149, -6.551, -2.823]),
    },
}  # fmt: skip


@pytest.mark.parametrize("size", GOLDEN, ids=str)
def test_it_computes_what_the_reference_computes(size: tuple[int, int], file: Path) -> None:
    """Whole cells, and an odd size. Observed: every pixel within 1.4e-6, every way within 5.3e-6 of the reference."""
    rife, (height, width) = load_rife(file, CPU), size
    pair = picture(height, width, 0.0), picture(height, width, 0.8)
    points = [(height // 5, width // 6), (height // 2, width // 2), (height - 1, width - 1)]
    for share, (colours, mean, way) in GOLDEN[size].items():
        found = rife.between(*pair, share)
        assert found.shape == pair[0].shape
        assert torch.equal(found, rife.between(*pair, share))
        assert [[float(v) for v in found[0, :, y, x]] for y, x in points] == [
            pytest.approx(colour, abs=2e-5) for colour in colours
        ]
        assert float(found.mean()) == pytest.approx(mean, abs=2e-5)
        to_first, to_second, _ = rife.ways(*pair, share)
        middle = torch.cat([to_first, to_second], -1)[height // 2, width // 2]
        assert middle.tolist() == pytest.approx(way, abs=1e-3)


def test_along_a_motion_what_is_left_over_is_asked_for(weights: dict[str, Tensor]) -> None:
    """Where the pictures already lie on one another but for what is left, that alone is given to it; and where only one
    of them shows anything, that one is seen."""
    rife, field = Rife(weights), MotionField.affine(deforum_matrix(96, 64, translation_x=40.0), 96, 64)
    ways = Ways(*part_way(field, 0.5))
    first, second = picture(64, 96, 0.0), picture(64, 96, 0.8)
    still = Ways(*[MotionField.identity(96, 64)] * 2)
    shared = on_the_way(first, second, 0.5, still, rife=rife)
    # With no motion it is RIFE's own picture, but for the resampler, which is sharper than its own. Observed: .006.
    assert (shared - rife.between(first, second, 0.5)).abs().mean() < 0.02
    moved = on_the_way(first, second, 0.5, ways, rife=rife)
    assert not torch.equal(moved, on_the_way(first, second, 0.5, ways)) and bool(torch.isfinite(moved).all())
    (same,) = between(first, first, [0.5], rife)
    assert torch.equal(same, first)


def refused(path: Path) -> str:
    with pytest.raises(KoshiError) as caught:
        load_rife(path, CPU)
    assert caught.value.code == "rife_unavailable" and caught.value.hint
    return caught.value.message


def test_files_that_do_not_serve_say_why(weights: dict[str, Tensor], file: Path, tmp_path: Path) -> None:
    def saved(one: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pkl"
        torch.save(one, path)
        return path

    assert "No such file" in refused(tmp_path / "none.pkl")
    whole = file.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2], whole[:-100]):
        (path := tmp_path / "damaged.pkl").write_bytes(damaged)
        assert "damaged" in refused(path)
    assert "no named tensors" in refused(saved([1.0, 2.0]))
    # v4.5 has 20 channels at each block's end, v4.7 more at each one's beginning, and v4.3 other layers.
    older = {k: v[:, :20] if k.endswith("lastconv.0.weight") else v for k, v in weights.items()}
    assert "block0.lastconv.0.weight [192, 20, 4, 4] instead of [192, 24, 4, 4]" in refused(saved(older))
    newer = weights | {"block0.conv0.0.0.weight": torch.zeros(96, 15, 3, 3)}
    assert "Different: block0.conv0.0.0.weight [96, 15, 3, 3] instead of [96, 7, 3, 3]." in refused(saved(newer))
    lacking = {k: v for k, v in weights.items() if "beta" not in k}
    assert "Missing: block0.convblock.0.beta, block0.convblock.1.beta" in refused(saved(lacking))
    assert "and 26 more" in refused(saved(lacking))
    unfit = weights | {"block3.lastconv.0.bias": torch.full((24,), float("nan"))}
    assert "not finite" in refused(saved(unfit))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["KOSHI_TEST_BOMB"],)


def test_nothing_in_a_file_is_run(weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSHI_TEST_BOMB", str(tmp_path / "went off"))
    torch.save(weights | {"more": Bomb()}, tmp_path / "bomb.pkl")
    assert "damaged" in refused(tmp_path / "bomb.pkl")
    assert not (tmp_path / "went off").exists()


SHOT: dict[str, Any] = {
    "width": 64,
    "height": 64,
    "frames": 3,
    "seed": 3,
    "steps": 1,
    "prompts": [{"frame": 0, "text": "a modern city at day, photo"}],
    "schedules": {"zoom": 1.03, "translation_x": 0.7, "strength": 0.4},
}


def render(data: dict[str, Any], store: FrameStore) -> list[Frame]:
    return list(render_shot(load_shot(data), store=store))


def made(frames: list[Frame]) -> list[int]:
    return [frame.index for frame in frames if not frame.stored]


def test_a_shot_is_interpolated_stopped_and_gone_on_with(
    file: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    store, done = FrameStore(tmp_path / "store"), list[Frame]()
    flow = SHOT | {"time": {"interpolation": 2}}
    data = SHOT | {"time": {"interpolation": 2, "inbetween": "rife", "rife": str(file)}}
    plain = render(flow, store)
    # The frames are the same; what is between them is new. A stop within loses nothing.
    with pytest.raises(Cancelled):
        for frame in render_shot(load_shot(data), store=store, cancelled=lambda: len(done) == 2):
            done.append(frame)
    whole = render(data, store)
    assert made(done) == [1] and made(whole) == [3] and len(whole) == 5
    assert [f.key for f in whole[::2]] == [f.key for f in plain[::2]]
    assert all(one.png != other.png for one, other in zip(whole[1::2], plain[1::2], strict=True))
    pictures = [cv2.imdecode(np.frombuffer(f.png, np.uint8), cv2.IMREAD_COLOR) for f in whole]
    assert {p.shape for p in pictures} == {(64, 64, 3)}
    # Kept by what is in the file, not by its name; and flow's pictures are still there.
    moved = file.with_name("other.pkl")
    moved.write_bytes(file.read_bytes())
    assert made(render(SHOT | {"time": data["time"] | {"rife": str(moved)}}, store)) == []
    assert made(render(flow | {"time": {"interpolation": 2, "rife": str(file)}}, store)) == []
    # The same pictures again, from nothing; and others with other weights.
    assert [f.png for f in render(data, FrameStore(tmp_path / "fresh"))] == [f.png for f in whole]
    torch.save(weights | {"block3.lastconv.0.bias": torch.full((24,), 2.0)}, moved)
    other = render(SHOT | {"time": data["time"] | {"rife": str(moved)}}, store)
    assert made(other) == [1, 3] and other[1].png != whole[1].png


def test_without_carry_it_alone_makes_what_is_between(file: Path, tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    time = {"interpolation": 4, "inbetween": "rife", "rife": str(file)}
    data = SHOT | {"frames": 2, "feedback": {"carry": "none"}, "time": time}
    assert len({f.png for f in render(data, store)}) == 5
    assert made(render(data, store)) == []
    assert made(render(data | {"time": {"interpolation": 4}}, store)) == [1, 2, 3]


def test_a_shot_says_what_is_wrong_before_anything_is_painted(tmp_path: Path) -> None:
    with pytest.raises(KoshiError, match=r"time\.rife: .*not given"):
        load_shot(SHOT | {"time": {"inbetween": "rife"}})
    with pytest.raises(KoshiError, match=r"time\.rife: there is no such file"):
        load_shot(SHOT | {"time": {"inbetween": "rife", "rife": "none.pkl"}})
    (tmp_path / "flownet.pkl").write_bytes(b"hello")
    (tmp_path / "a.koshi.json").write_text(
        '{"width": 64, "height": 64, "frames": 3, "prompts": [{"frame": 0, "text": "a"}],'
        ' "time": {"inbetween": "rife", "rife": "flownet.pkl", "interpolation": 2}}',
        encoding="utf-8",
    )
    shot = read_shot(tmp_path / "a.koshi.json")
    assert shot.time.rife == str(tmp_path / "flownet.pkl")  # beside the shot
    store = FrameStore(tmp_path / "store")
    with pytest.raises(KoshiError) as caught:
        next(iter(render_shot(shot, store=store)))
    assert caught.value.code == "rife_unavailable"
    assert not list(store.root.rglob("*.png"))
