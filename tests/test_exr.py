# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenEXR files: what Blender really writes, and what a damaged or hostile file does."""

from __future__ import annotations

import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koshi_backend.errors import KoshiError
from koshi_backend.exr import exr_pass, read_exr

SCRIPT = Path(__file__).parent / "blender_scripts" / "exr_files.py"
LOSSLESS = ("RLE", "ZIPS", "ZIP", "PIZ")


def attribute(name: str, kind: str, data: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(data)) + data


def small_exr(
    channels: dict[str, np.ndarray],
    display: tuple[int, int, int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    codec: int = 0,
    flags: int = 2,
    backwards: bool = False,
) -> bytes:
    """A file written by the book: NONE (0) or ZIP (3), the stored window at `corner` of the display window."""
    kinds = {"uint32": 0, "float16": 1, "float32": 2}
    names = sorted(channels)
    height, width = channels[names[0]].shape
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<IIII", kinds[str(channels[name].dtype)], 0, 1, 1) for name in names
    )
    window = (*corner, corner[0] + width - 1, corner[1] + height - 1)
    head = struct.pack("<II", 20000630, flags) + attribute("channels", "chlist", listed + b"\0")
    head += attribute("compression", "compression", bytes([codec]))
    head += attribute("dataWindow", "box2i", struct.pack("<4i", *window))
    head += attribute("displayWindow", "box2i", struct.pack("<4i", *(display or window))) + b"\0"
    lines = 16 if codec == 3 else 1
    chunks = []
    for top in range(0, height, lines):
        rows = range(top, min(top + lines, height))
        raw = b"".join(channels[name][row].tobytes() for row in rows for name in names)
        if codec == 3:
            values = np.frombuffer(raw, np.uint8)
            split = np.concatenate([values[0::2], values[1::2]]).astype(np.int64)
            steps = np.concatenate([split[:1], np.diff(split) + 128]) & 0xFF
            packed = zlib.compress(steps.astype(np.uint8).tobytes())
            raw = packed if len(packed) < len(raw) else raw
        chunks.append((top + corner[1], raw))
    if backwards:
        chunks.reverse()
    place, offsets, body = len(head) + 8 * len(chunks), b"", b""
    for y, raw in chunks:
        offsets += struct.pack("<Q", place + len(body))
        body += struct.pack("<iI", y, len(raw)) + raw
    return head + offsets + body


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def files(blender_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of OpenEXR files from a real Blender."""
    folder = tmp_path_factory.mktemp("exr")
    done = subprocess.run([blender_python, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.mark.blender
class TestBlender:
    def test_depth_and_vectors_are_what_the_scene_says(self, files: Path) -> None:
        channels = read_exr(files / "layers-NONE-32.exr")
        depth, vector = exr_pass(channels, "Depth"), exr_pass(channels, "Vector")
        assert depth.shape == (48, 80)
        assert vector.shape == (48, 80, 4)
        # The plane's right edge: 5 units away, x = 0.2 + 1, f = 50 / 36 * 80 pixels, so at 39.5 + 26.7.
        assert depth[24, 66] == pytest.approx(5.0, abs=1e-5)
        assert depth[24, 67] == np.float32(1e10)
        # 0.1 units to the right are 2.222 pixels: previous - current, then current - next, y up.
        shift = -0.1 / 5 * 50 / 36 * 80
        assert vector[24, 40] == pytest.approx([shift, 0.0, shift, 0.0], abs=1e-4)
        assert exr_pass(channels, "Combined").shape == (48, 80, 4)

    @pytest.mark.parametrize("depth", ["16", "32"])
    def test_every_codec_tells_the_same(self, files: Path, depth: str) -> None:
        plain = read_exr(files / f"layers-NONE-{depth}.exr")
        for path in sorted(files.glob(f"layers-*-{depth}*.exr")):
            codec = path.stem.split("-")[1]
            if codec in ("NONE", *LOSSLESS):
                packed = read_exr(path)
                assert packed.keys() == plain.keys()
                assert all(np.array_equal(packed[name], plain[name]) for name in plain), path.name
        assert len(plain) == 9

    @pytest.mark.parametrize("size", ["1x1", "37x29", "131x70"])
    def test_noise_uses_every_branch_of_the_codecs(self, files: Path, size: str) -> None:
        """Odd sizes, words that fill 16 bits, codes longer than the table, chunks that did not get smaller."""
        for depth in ("16", "32"):
            plain = read_exr(files / f"noise-{size}-NONE-{depth}.exr")
            for codec in LOSSLESS:
                packed = read_exr(files / f"noise-{size}-{codec}-{depth}.exr")
                assert all(np.array_equal(packed[name], plain[name]) for name in "RGBA"), (codec, depth)
            rounded = read_exr(files / f"noise-{size}-PXR24-{depth}.exr")
            # PXR24 keeps 15 of a float's 23 bits after the point, and halves whole.
            limit = 0.0 if depth == "16" else 2.0**-15
            assert all(np.all(abs(rounded[name] - plain[name]) <= limit * plain[name]) for name in "RGBA")

    def test_only_what_is_wanted_is_read(self, files: Path) -> None:
        for path in files.glob("layers-ZIP-32*.exr"):
            assert list(read_exr(path, lambda name: ".Depth." in name)) == ["ViewLayer.Depth.Z"]

    def test_pictures_of_one_layer(self, files: Path) -> None:
        grey = read_exr(files / "single-BW.exr")
        assert set(grey) in ({"V"}, {"Y"}, set("RGBA"))  # the last in 4.2
        assert all(np.array_equal(grey[name], grey["R"]) for name in "GB" if name in grey)
        assert exr_pass(read_exr(files / "single-RGB.exr"), "Combined").shape == (48, 80, 3)
        assert exr_pass(read_exr(files / "single-RGBA.exr"), "Combined").shape == (48, 80, 4)

    @pytest.mark.parametrize("codec", ["RLE", "PIZ", "PXR24"])
    def test_damage_in_other_codecs(self, files: Path, tmp_path: Path, codec: str) -> None:
        """As test_damage_is_noticed_or_harmless, for what only Blender writes here."""
        sound = (files / f"noise-37x29-{codec}-16.exr").read_bytes()
        random = np.random.default_rng(0)
        for _ in range(100):
            data = bytearray(sound)
            for place in random.integers(200, len(data), 3):
                data[place] = random.integers(256)
            try:
                read_exr(written(tmp_path / "x.exr", bytes(data)))
            except KoshiError as error:
                assert error.code == "bad_exr"

    def test_a_codec_that_loses_depth_is_refused_in_words(self, files: Path) -> None:
        with pytest.raises(KoshiError) as caught:
            read_exr(files / "layers-DWAA-32.exr")
        assert caught.value.code == "bad_exr"
        assert "DWAA" in caught.value.message
        assert "ZIP" in caught.value.hint


def ramp(height: int, width: int) -> np.ndarray:
    return np.arange(height * width, dtype=np.float32).reshape(height, width) / 7


@pytest.mark.parametrize("codec", [0, 3])
def test_values_come_back_bit_for_bit(tmp_path: Path, codec: int) -> None:
    given_ = {
        "A.half": ramp(21, 13).astype(np.float16),
        "A.id": np.arange(21 * 13, dtype=np.uint32).reshape(21, 13) * 15_000_000,
        "Z": np.where(ramp(21, 13) > 30, np.float32(1e10), ramp(21, 13)),
    }
    for backwards in (False, True):
        got = read_exr(written(tmp_path / "a.exr", small_exr(given_, codec=codec, backwards=backwards)))
        assert all(np.array_equal(got[name], given_[name]) for name in given_)
        assert [got[name].dtype for name in sorted(got)] == [np.float32, np.uint32, np.float32]


def test_a_border_render_lies_where_it_belongs(tmp_path: Path) -> None:
    data = ramp(4, 6) + 1
    got = read_exr(written(tmp_path / "a.exr", small_exr({"Z": data}, display=(0, 0, 9, 7), corner=(3, 2))))["Z"]
    assert got.shape == (8, 10)
    assert np.array_equal(got[2:6, 3:9], data)
    assert np.count_nonzero(got) == data.size
    # Overscan is cut off: the display window is the picture.
    got = read_exr(written(tmp_path / "b.exr", small_exr({"Z": data}, display=(0, 0, 3, 2), corner=(-1, -1))))["Z"]
    assert np.array_equal(got, data[1:4, 1:5])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no OpenEXR file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no OpenEXR file"),
        (small_exr({"Z": ramp(4, 4)})[:-5], "cut short"),
        (small_exr({"Z": ramp(4, 4)}, flags=2 | 0x200), "tiles"),
        (small_exr({"Z": ramp(4, 4)}, flags=2 | 0x800), "deep"),
        (small_exr({"Z": ramp(4, 4)}, codec=9), "DWAB"),
        (small_exr({"Z": ramp(4, 4)}, codec=77), "codec (77)"),
        (small_exr({"Z": ramp(4, 4)}, display=(0, 0, 999_999, 3)), "1000000 pixels"),
    ],
)
def test_unreadable_files_are_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    path = written(tmp_path / "depth.exr", data)
    with pytest.raises(KoshiError) as caught:
        read_exr(path)
    assert caught.value.code == "bad_exr"
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no.exr", tmp_path):
        with pytest.raises(KoshiError, match="Check the path"):
            read_exr(path)


def test_a_chunk_cannot_unpack_to_more_than_it_should(tmp_path: Path) -> None:
    """A few kilobytes of zlib can claim gigabytes: here 100 MB for a chunk of 4096 bytes."""
    sound = small_exr({"Z": np.zeros((16, 64), np.float32)}, codec=3)
    bomb = zlib.compress(bytes(100_000_000))
    start = sound.index(b"\0" * 4 + struct.pack("<I", len(zlib.compress(bytes([0, *[128] * 4095])))))
    path = written(tmp_path / "bomb.exr", sound[:start] + struct.pack("<iI", 0, len(bomb)) + bomb)
    tracemalloc.start()
    read_exr(path)  # its first 4096 bytes are a chunk like any other
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 10_000),
    codec=st.sampled_from([0, 3]),
)
def test_damage_is_noticed_or_harmless(tmp_path: Path, places: list[tuple[int, int]], cut: int, codec: int) -> None:
    """No other error than Koshi's, whatever the bytes."""
    data = bytearray(small_exr({"A.Depth.Z": ramp(18, 9), "A.Vector.X": ramp(18, 9)}, codec=codec))
    for place, value in places:
        data[place % len(data)] = value
    if cut % 3 == 0:
        data = data[: cut % len(data)]
    try:
        read_exr(written(tmp_path / "x.exr", bytes(data)))
    except KoshiError as error:
        assert error.code == "bad_exr"


def test_a_pass_is_found_by_name_and_layer() -> None:
    one = np.ones((2, 3), np.float32)
    channels = {f"{layer}.Depth.Z": one * k for k, layer in enumerate(("Near", "Far"), 1)}
    channels |= {f"Near.Vector.{letter}": one * k for k, letter in enumerate("XYZW")}
    assert exr_pass(channels, "Vector")[0, 0].tolist() == [0, 1, 2, 3]
    assert exr_pass(channels, "Depth", "Far")[0, 0] == 2
    with pytest.raises(KoshiError, match="Far, Near"):
        exr_pass(channels, "Depth")
    with pytest.raises(KoshiError, match=r"no pass Normal; the file holds Far\.Depth, Near\.Depth, Near\.Vector"):
        exr_pass(channels, "Normal")
    with pytest.raises(KoshiError, match="view layer 'Other'"):
        exr_pass(channels, "Depth", "Other")
