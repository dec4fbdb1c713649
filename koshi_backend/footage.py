# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of a shot's guides.video, read at the shot's size."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .errors import KoshiError
from .hybrid_checks import frames_of_video, too_short
from .pictures import read_picture
from .shot import Shot
from .video_reader import READABLE, VideoReader


class Footage:
    """Reads them, one after the other or any."""

    def __init__(self, shot: Shot) -> None:
        self.shot = shot
        self._reader: VideoReader | None = None

    def picture(self, index: int) -> Tensor:
        """The video's picture [1, 3, H, W] in 0..1 for a frame of the shot. Raises KoshiError."""
        shot, path = self.shot, self.shot.video_file(index)
        if path.suffix.lower() not in READABLE:
            return read_picture(path, shot.width, shot.height)
        self._reader = self._reader or VideoReader(path)
        return self._reader.picture(shot.video_frame(index), shot.width, shot.height)


def sound_begins(shot: Shot) -> float:
    """The seconds of the shot's sound that come before its first picture: of the video's own, all that comes before the
    frame that it is taken from (Deforum plays it from its start)."""
    given, path = shot.audio, shot.video_file(0)
    if given is None or not shot.guides.video_first or path.suffix.lower() not in READABLE:
        return 0.0
    return VideoReader(path).seconds(shot.video_frame(0)) if path == Path(given) else 0.0


def check_footage(shot: Shot) -> None:
    """Refuse a shot whose video file ends too early, before anything is rendered: KoshiError("bad_video")."""
    if shot.guides.video is None or not (needed := frames_of_video(shot)):
        return
    path = shot.video_file(0)
    if path.suffix.lower() not in READABLE:
        return  # numbered pictures have been looked for when the shot was loaded
    count = VideoReader(path).count
    if late := [k for k in needed if shot.video_frame(k) >= count]:
        text, hint = too_short(shot, late, count)
        raise KoshiError("bad_video", f"guides.video: {text} It is {path}.", hint)
