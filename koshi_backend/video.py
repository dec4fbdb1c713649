# SPDX-License-Identifier: GPL-3.0-or-later
"""Video files: H.264 through PyAV (FFmpeg's libraries), with the colour tags that players go by, and AAC for sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace
from torch import Tensor

from .errors import KoshiError
from .outputs import check_file, write_whole
from .pictures import read_picture
from .sound import LAYOUT, RATE, Sound

SUFFIXES = (".mp4", ".mov", ".mkv")
READABLE = (*SUFFIXES, ".avi", ".m4v", ".mpeg", ".mpg", ".webm")
_TRY = "Give an .mp4, or numbered pictures such as clip/####.png."
_BIT_RATE = 192_000  # of the sound, a second
_CRF = "17"  # visually lossless; Deforum's default too
_BT709 = 1  # the number of BT.709 for primaries, transfer and matrix in ITU-T H.273


def is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def write_video(path: Path, frames: Iterable[bytes], fps: float, sound: str | Path | None = None) -> int:
    """Write PNG frames as a video; returns how many. The file appears whole or not at all.

    All frames have one size, with even sides. sound: a file whose beginning is heard with them, cut where the film
    ends, or followed by silence.
    Raises KoshiError("bad_output" | "video_write" | "bad_audio"), the last one before the first frame is asked for.
    """
    check_file(path, SUFFIXES)
    count, track = 0, None if sound is None else Sound(sound)

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


class VideoReader:
    """The frames of a video, one after the other or any.

    Raises KoshiError("bad_video") for a file that holds no video that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next = -1  # index of the frame that comes next; below 0 before the file is opened

    def picture(self, index: int, width: int, height: int) -> Tensor:
        """Frame `index`, from 0, as [1, 3, H, W] in 0..1, scaled and cut as `read_picture` does.

        Raises KoshiError("bad_video"), also when the video is too short.
        """
        try:
            if self._next < 0 or index < self._next:
                self._frames, self._next = self._decode(), 0
            for frame in self._frames:
                self._next += 1
                if self._next > index:
                    return read_picture(frame.to_image(), width, height)
        except (av.FFmpegError, OSError) as error:
            self._next = -1
            raise KoshiError("bad_video", f"The video {self.path} cannot be read: {error}.", _TRY) from error
        count, self._next = self._next, -1
        raise KoshiError(
            "bad_video",
            f"{self.path} has {count} frames, and frame {index + 1} is needed.",
            "Give a video that is at least as long as the shot.",
        )

    def _decode(self) -> Iterator[av.VideoFrame]:
        with av.open(str(self.path)) as container:
            if not container.streams.video:
                raise KoshiError("bad_video", f"{self.path} holds no moving pictures.", _TRY)
            yield from container.decode(container.streams.video[0])


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
