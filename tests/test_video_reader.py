# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading films: the frame that is asked for, of every kind of file, in any order. Every frame shows its number."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import number_of, numbered, write_film
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koshi_backend.errors import KoshiError
from koshi_backend.video_reader import VideoReader

COUNT = 40
GOP = {"g": "12", "bf": "3", "x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=0"}
OPEN = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}
UNEVEN = [sum(1 + (j * j) % 7 + (60 if j == 20 else 0) for j in range(k)) for k in range(COUNT)]
KINDS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": GOP},
    "open_gop.mkv": {"options": OPEN},
    "open_gop.mp4": {"options": OPEN},
    "variable_rate.mp4": {"options": GOP, "times": UNEVEN},
    "variable_rate.mkv": {"options": GOP, "times": UNEVEN},
    "odd_size.mp4": {"options": GOP, "size": (97, 63), "pix_fmt": "yuv444p"},
    "ten_bit.mkv": {"options": GOP, "pix_fmt": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}},
    "packed.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "program.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "intra.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "lossless.mkv": {"codec": "ffv1", "size": (97, 63), "pix_fmt": "yuv444p"},
    "web.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8", "deadline": "realtime"}},
    "alt_ref.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16",
                                                    "cpu-used": "8", "deadline": "good"}},
    "one_key_frame.mp4": {"options": {"x264-params": "keyint=999:scenecut=0:bframes=2"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("films")
    for name, kind in KINDS.items():
        write_film(folder / name, COUNT, **kind)
    yield folder


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_itself_forwards_and_backwards(films: Path, name: str) -> None:
    reader = VideoReader(films / name)
    assert reader.count == COUNT
    assert [number_of(reader.picture(k, 96, 64)) for k in range(COUNT)] == list(range(COUNT))
    assert [number_of(reader.picture(k, 96, 64)) for k in range(COUNT - 1, -1, -3)] == list(range(COUNT - 1, -1, -3))
    with pytest.raises(KoshiError, match="has 40 frames, and frame 41 is needed"):
        reader.picture(COUNT, 96, 64)
    assert number_of(reader.picture(7, 96, 64)) == 7  # and goes on after that


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(KINDS)), order=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=6))
def test_in_any_order(films: Path, name: str, order: list[int]) -> None:
    reader = VideoReader(films / name)
    assert [number_of(reader.picture(k, 96, 64)) for k in order] == order


def test_times_are_the_file_s(films: Path) -> None:
    reader = VideoReader(films / "variable_rate.mkv")
    assert [reader.seconds(k) for k in range(COUNT)] == pytest.approx([t / 100 for t in UNEVEN], abs=1e-3)
    assert VideoReader(films / "b_frames.mp4").seconds(13) == pytest.approx(13 / 25, abs=1e-3)


def test_going_back_decodes_from_the_key_frame_before(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the whole film: at most a key frame's distance (12) and the frames that are decoded ahead of time."""
    reader = VideoReader(films / "b_frames.mp4")
    reader.picture(COUNT - 1, 96, 64)
    decoded = 0
    decode = VideoReader._decode

    def counted(self: VideoReader, begin: int | None) -> Iterator[av.VideoFrame]:
        nonlocal decoded
        for frame in decode(self, begin):
            decoded += 1
            yield frame

    monkeypatch.setattr(VideoReader, "_decode", counted)
    assert number_of(reader.picture(30, 96, 64)) == 30
    assert number_of(reader.picture(31, 96, 64)) == 31
    assert decoded == 8  # 24 to 31
    assert number_of(reader.picture(2, 96, 64)) == 2
    assert decoded == 8 + 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prores.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
        ("animation.mov", {"codec": "qtrle", "pix_fmt": "argb"}),
        ("png.mov", {"codec": "png", "pix_fmt": "rgba"}),
    ],
)
def test_transparent_parts_are_black_as_in_pictures(tmp_path: Path, name: str, kind: dict[str, Any]) -> None:
    """White lies below the transparent half: without alpha it would show."""
    reader = VideoReader(write_film(tmp_path / name, 9, **kind))
    for k in (8, 0, 5):
        picture = reader.picture(k, 96, 64)
        assert number_of(picture, bits=4) == k
        assert float(picture[..., 50:].max()) < 0.02


def test_ten_bits_are_read_to_the_nearest_of_eight(tmp_path: Path) -> None:
    """Lossless, so that only the conversion counts: at most 2 of 255 off. Observed 1."""
    film = write_film(tmp_path / "a.mkv", 3, "ffv1", pix_fmt="yuv444p10le")
    picture = VideoReader(film).picture(2, 96, 64)[0].permute(1, 2, 0).numpy() * 255.0
    assert np.abs(picture - numbered(2, 96, 64)).max() <= 2.0


def turned(path: Path, matrix: tuple[int, ...]) -> Path:
    """The file with another display matrix (ISO/IEC 14496-12, tkhd), in 16.16 but for the last column in 2.30."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4
    assert data[place] == 0  # version 0: the matrix follows 40 bytes on
    data[place + 40 : place + 76] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, ONE, 0, -ONE, 0, 0, 64 * ONE, 0, 1 << 30), 3),  # a quarter to the right: a telephone held upright
        ((-ONE, 0, 0, 0, -ONE, 0, 96 * ONE, 64 * ONE, 1 << 30), 2),
        ((0, -ONE, 0, ONE, 0, 0, 0, 96 * ONE, 1 << 30), 1),
    ],
)
def test_a_film_is_turned_as_it_asks(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    plain = write_film(tmp_path / "plain.mp4", 3, options=GOP)
    film = turned(write_film(tmp_path / "turned.mp4", 3, options=GOP), matrix)
    size = (96, 64) if turns == 2 else (64, 96)
    upright = VideoReader(plain).picture(1, 96, 64)[0].numpy()
    assert np.array_equal(VideoReader(film).picture(1, *size)[0].numpy(), np.rot90(upright, turns, axes=(1, 2)))


def test_what_is_no_film_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    for ask in (lambda reader: reader.count, lambda reader: reader.picture(0, 96, 64)):
        with pytest.raises(KoshiError, match="cannot be read"):
            ask(VideoReader(tmp_path / "text.mp4"))
        with pytest.raises(KoshiError, match="cannot be read"):
            ask(VideoReader(tmp_path / "missing.mp4"))
