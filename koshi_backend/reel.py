# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture for each of a shot's frames out of one name: a file for all of them, numbered files (####), or a video."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .guides import frame_file
from .pictures import read_picture
from .shot import Shot
from .video_reader import READABLE, VideoReader


def reel_file(shot: Shot, name: str, index: int) -> tuple[Path, int | None]:
    """The file of frame `index`, and the number of its picture in it, from 0, if it is a video.

    Of a video it is the one that guides.video has there, too (guides.video_first, video_every).
    """
    file = frame_file(name, shot.number(index))
    return file, shot.video_frame(index) if file.suffix.lower() in READABLE else None


class Reel:
    """Reads them. The newest picture is kept: one file for all frames is read once."""

    def __init__(self, shot: Shot, name: str) -> None:
        self._shot, self._name = shot, name
        self._readers: dict[Path, VideoReader] = {}
        self._kept: tuple[tuple[Path, int | None], Tensor] | None = None

    def picture(self, index: int) -> Tensor:
        """The picture of frame `index`, [1, 3, H, W] in 0..1, in the shot's size.

        Raises KoshiError for a file that does not serve, and for a video that is too short.
        """
        place = reel_file(self._shot, self._name, index)
        if self._kept is None or self._kept[0] != place:
            self._kept = place, self._read(*place)
        return self._kept[1]

    def _read(self, file: Path, number: int | None) -> Tensor:
        if number is None:
            return read_picture(file, self._shot.width, self._shot.height)
        reader = self._readers.setdefault(file, VideoReader(file))
        return reader.picture(number, self._shot.width, self._shot.height)
