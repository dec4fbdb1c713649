# SPDX-License-Identifier: GPL-3.0-or-later
"""Any frame of a video file, exactly, in either direction, through PyAV (FFmpeg's libraries)."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from PIL import Image
from torch import Tensor

from .errors import KoshiError
from .pictures import read_picture

READABLE = (".mp4", ".mov", ".mkv", ".avi", ".m4v", ".mpeg", ".mpg", ".webm")
_TRY = "Give an .mp4, or numbered pictures such as clip/####.png."
_HIDDEN_FRAMES = ("vp8",)  # not every packet of these codecs is a picture that is shown


class VideoReader:
    """The frames of a video, by their place in the order in which they are shown, from 0.

    Times play no part: in a film of variable rate frame 7 is the eighth picture, however long the others last. A frame
    is turned as the file asks, has 8 bits, and its transparent parts are black.
    Another frame than the next is decoded from the last key frame before it. Where a file's list of packets does not
    say which frame is which, it is decoded from the start.
    Raises KoshiError("bad_video") for a file that holds no video that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next = -1  # index of the frame that comes next; below 0 before the file is opened
        self._scanned = False
        self._times: list[int] | None = None  # of every frame, as it is shown; None where the packets do not tell
        self._keys: list[int] = []  # indices of the key frames
        self._count: int | None = None

    @property
    def count(self) -> int:
        """How many frames there are."""
        if self._count is None:
            self._scan()
        if self._count is None:
            try:
                self._count = sum(1 for _ in self._decode(None))
            except (av.FFmpegError, OSError) as error:
                raise self._broken(error) from error
        return self._count

    def seconds(self, index: int) -> float:
        """When frame `index` is shown, from the start of the video's file on."""
        self._scan()
        try:
            with av.open(str(self.path)) as container:
                stream = self._stream(container)
                if self._times is not None and stream.time_base is not None:
                    start = (container.start_time or 0) / av.time_base
                    return float(self._times[min(index, len(self._times) - 1)] * stream.time_base) - start
                return float(index / stream.average_rate) if stream.average_rate else 0.0
        except (av.FFmpegError, OSError) as error:
            raise self._broken(error) from error

    def picture(self, index: int, width: int, height: int) -> Tensor:
        """Frame `index` as [1, 3, H, W] in 0..1, scaled and cut as `read_picture` does.

        Raises KoshiError("bad_video"), also when the video is too short.
        """
        self._scan()
        try:
            frame = self._exact(index) if self._times is not None else self._by_counting(index)
        except (av.FFmpegError, OSError) as error:
            self._next = -1
            raise self._broken(error) from error
        if frame is None:
            raise KoshiError(
                "bad_video",
                f"{self.path} has {self.count} frames, and frame {index + 1} is needed.",
                "Give a video that is at least as long as the shot.",
            )
        return read_picture(_upright(frame), width, height)

    def _exact(self, index: int) -> av.VideoFrame | None:
        assert self._times is not None
        if index >= len(self._times):
            return None
        nearest = self._keys[max(bisect.bisect_right(self._keys, index) - 1, 0)]
        if not 0 <= self._next <= index or nearest > self._next:
            self._frames, self._next = self._decode(self._times[nearest]), nearest
        for frame in self._frames:
            if frame.pts == self._times[index]:
                self._next = index + 1
                return frame
            if frame.pts is None or frame.pts > self._times[index]:
                break
        # The packets promised another frame than came. This is not expected of any file, but costs only time.
        self._times, self._count, self._next = None, None, -1
        return self._by_counting(index)

    def _by_counting(self, index: int) -> av.VideoFrame | None:
        if self._next < 0 or index < self._next:
            self._frames, self._next = self._decode(None), 0
        for frame in self._frames:
            self._next += 1
            if self._next > index:
                return frame
        self._count, self._next = self._next, -1
        return None

    def _decode(self, begin: int | None) -> Iterator[av.VideoFrame]:
        """The frames from the key frame at time `begin` on, or from the start. Some before it may come first."""
        with av.open(str(self.path)) as container:
            stream = self._stream(container)
            if begin is not None:
                container.seek(begin, stream=stream)
            yield from container.decode(stream)

    def _scan(self) -> None:
        """Read which frames there are, without decoding any. A gigabyte takes about a second."""
        if self._scanned:
            return
        self._scanned = True
        times: list[tuple[int | None, bool]] = []
        try:
            with av.open(str(self.path)) as container:
                stream = self._stream(container)
                hidden = stream.codec_context.name in _HIDDEN_FRAMES
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        times.append((packet.pts, packet.is_keyframe))
        except (av.FFmpegError, OSError) as error:
            raise self._broken(error) from error
        shown = {pts: key for pts, key in times if pts is not None}
        if hidden or len(shown) < len(times) or not shown:
            return
        self._times = sorted(shown)
        # A frame that is shown after a key frame, yet decoded before it, is found from the key frame before that one.
        self._keys = [k for k, pts in enumerate(self._times) if shown[pts]]
        self._count = len(self._times)
        if not self._keys or self._keys[0] != 0:
            self._times, self._count = None, None

    def _stream(self, container: Any) -> Any:
        if not container.streams.video:
            raise KoshiError("bad_video", f"{self.path} holds no moving pictures.", _TRY)
        return container.streams.video[0]

    def _broken(self, error: Exception) -> KoshiError:
        return KoshiError("bad_video", f"The video {self.path} cannot be read: {error}.", _TRY)


def _upright(frame: av.VideoFrame) -> Image.Image:
    see_through = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
    picture = Image.fromarray(frame.to_ndarray(format="rgba")) if see_through else frame.to_image()
    turn = round(frame.rotation) % 360
    return picture.rotate(turn, expand=True) if turn else picture
