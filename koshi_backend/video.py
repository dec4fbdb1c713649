# SPDX-License-Identifier: GPL-3.0-or-later
"""Video files: H.264 through PyAV (FFmpeg's libraries), with the colour tags that players go by."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

from .errors import KoshiError
from .outputs import check_file, write_whole

SUFFIXES = (".mp4", ".mov", ".mkv")
_CRF = "17"  # visually lossless; Deforum's default too
_BT709 = 1  # the number of BT.709 for primaries, transfer and matrix in ITU-T H.273


def is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def write_video(path: Path, frames: Iterable[bytes], fps: float) -> int:
    """Write PNG frames as a video; returns how many. The file appears whole or not at all.

    All frames have one size, with even sides. Raises KoshiError("bad_output" | "video_write").
    """
    check_file(path, SUFFIXES)
    count = 0

    def write(aside: Path) -> None:
        nonlocal count
        count = _encode(aside, frames, Fraction(fps).limit_denominator(1001))

    try:
        write_whole(path, write)
    except av.FFmpegError as error:
        raise KoshiError(
            "video_write", f"The video {path} cannot be written: {error}.", "Try another folder."
        ) from error
    return count


def _encode(path: Path, frames: Iterable[bytes], rate: Fraction) -> int:
    count = 0
    with av.open(str(path), "w") as container:
        stream = None
        for png in frames:
            pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                raise KoshiError("video_write", f"Frame {count} of the video is not a picture.")
            if stream is None:
                stream = container.add_stream("libx264", rate=rate)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": _CRF, "preset": "medium"}
                context = stream.codec_context
                context.color_primaries = context.color_trc = context.colorspace = _BT709
                context.color_range = 1  # limited ("tv")
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            for packet in stream.encode(frame):
                container.mux(packet)
            count += 1
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
    return count
