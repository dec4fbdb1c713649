# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture for each of a shot's frames out of one name: a file for all of them, numbered files (####), or a video."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .errors import KoshiError
from .guides import frame_file
from .hybrid_checks import frames_of_video, too_short
from .pictures import read_picture
from .shot import Shot
from .video_reader import READABLE, VideoReader


def footage_place(shot: Shot, name: str, index: int, *, timed: bool = False) -> tuple[Path, int | None]:
    """The file in which frame `index` finds its picture, and the number of that in it, from 0, if it is a video.

    Of a video it is the frame that guides.video has there (video_first, video_every). Numbered files count as the
    shot's frames do; timed: as the frames of guides.video do, for that one itself.
    """
    file = frame_file(name, shot.number(shot.video_frame(index) if timed else index))
    return file, shot.video_frame(index) if file.suffix.lower() in READABLE else None


class Footage:
    """Reads them, one after the other or any. The newest picture is kept: one file for all frames is read once."""

    def __init__(self, shot: Shot, name: str, *, timed: bool = False) -> None:
        self._shot, self._name, self._timed = shot, name, timed
        self._readers: dict[Path, VideoReader] = {}
        self._kept: tuple[tuple[Path, int | None], Tensor] | None = None

    def picture(self, index: int) -> Tensor:
        """The picture of frame `index`, [1, 3, H, W] in 0..1, in the shot's size.

        Raises KoshiError for a file that does not serve, and for a video that is too short.
        """
        place = footage_place(self._shot, self._name, index, timed=self._timed)
        if self._kept is None or self._kept[0] != place:
            self._kept = place, self._read(*place)
        return self._kept[1]

    def _read(self, file: Path, number: int | None) -> Tensor:
        if number is None:
            return read_picture(file, self._shot.width, self._shot.height)
        reader = self._readers.setdefault(file, VideoReader(file))
        return reader.picture(number, self._shot.width, self._shot.height)


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
