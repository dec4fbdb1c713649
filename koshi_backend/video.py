# SPDX-License-Identifier: GPL-3.0-or-later
"""Video files: H.264 through PyAV (FFmpeg's libraries), with the colour tags that players go by, and AAC for sound."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

from .errors import KoshiError
from .outputs import check_file, write_whole
from .sound import LAYOUT, RATE, Sound

SUFFIXES = (".mp4", ".mov", ".mkv")
_BIT_RATE = 192_000  # of the sound, a second
_CRF = "17"  # visually lossless; Deforum's default too
_BT709 = 1  # the number of BT.709 for primaries, transfer and matrix in ITU-T H.273


def is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def write_video(
    path: Path, frames: Iterable[bytes], fps: float, sound: str | Path | None = None, begin: float = 0.0
) -> int:
    """Write PNG frames as a video; returns how many. The file appears whole or not at all.

    All frames have one size, with even sides. sound: a file that is heard with them from `begin` seconds on, cut where
    the film ends, or followed by silence.
    Raises KoshiError("bad_output" | "video_write" | "bad_audio"), the last one before the first frame is asked for.
    """
    check_file(path, SUFFIXES)
    count, track = 0, None if sound is None else Sound(sound, begin)

    def write(aside: Path) -> None:
        nonlocal count
        count = _encode(aside, frames, Fraction(fps).limit_denominator(1001), track)

    try:
        write_whole(path, write)
    except av.FFmpegError as error:
        raise KoshiError(
            "video_write", f"The video {path} cannot be written: {error}.", "Try another folder."
        ) from error
    return count


def _encode(path: Path, frames: Iterable[bytes], rate: Fraction, sound: Sound | None) -> int:
    count = 0
    with av.open(str(path), "w") as container:
        stream, track = None, None
        for png in frames:
            pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                raise KoshiError("video_write", f"Frame {count} of the video is not a picture.")
            if stream is None:
                stream = _add_pictures(container, rate, pixels)
                track = None if sound is None else _Track(container, sound)
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            for packet in stream.encode(frame):
                container.mux(packet)
            count += 1
            if track is not None:
                track.fill(round(count / rate * RATE))
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
        if track is not None:
            track.end()
    return count


def _add_pictures(container: Any, rate: Fraction, pixels: np.ndarray) -> Any:
    stream = container.add_stream("libx264", rate=rate)
    stream.height, stream.width = pixels.shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": _CRF, "preset": "medium"}
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = 1  # limited ("tv")
    return stream


class _Track:
    """A film's sound, as far as there are pictures."""

    def __init__(self, container: Any, sound: Sound) -> None:
        self.container, self.sound, self.filled = container, sound, 0
        # Matroska cannot say that AAC begins before the film and ends after it: it would be 21 ms longer.
        exact = container.format.name == "matroska"
        self.stream = container.add_stream("flac" if exact else "aac", rate=RATE, layout=LAYOUT)
        if not exact:
            self.stream.bit_rate = _BIT_RATE

    def fill(self, until: int) -> None:
        """Go on with it to sample number `until`."""
        frame = av.AudioFrame.from_ndarray(self.sound.read(until - self.filled), format="fltp", layout=LAYOUT)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self.filled
        self.filled = until
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def end(self) -> None:
        for packet in self.stream.encode():
            self.container.mux(packet)
