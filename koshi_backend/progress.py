# SPDX-License-Identifier: GPL-3.0-or-later
"""How far it is, in one line on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loads torch, and a download has a line, too
    from .chain import Frame, Progress


class Line:
    """One line that is written over again and again on a terminal; elsewhere only its milestones, each on its own.

    shown: True, False, or None for only where stderr is a terminal.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self.live = sys.stderr.isatty()
        self.shown = self.live if shown is None else bool(shown)

    def show(self, text: str, *, milestone: bool = False) -> None:
        if self.shown and (self.live or milestone):
            print(f"\r\033[K{text}" if self.live else text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line as it is and go on below it."""
        if self.shown and self.live:
            print(file=sys.stderr)


class FrameLine(Line):
    """The progress of a render. counts: frames that were "made" and that came from the store, "stored"."""

    def __init__(self, frames: int, shown: bool | None = None) -> None:
        super().__init__(shown)
        self.frames, self.begin, self.counts = frames, time.monotonic(), {"made": 0, "stored": 0}

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.begin, 2)

    def step(self, p: Progress) -> None:
        """For `render_shot(progress=...)`."""
        loading = p.message.startswith("loading")
        self.show(f"{p.message}, step {p.step + 1} of {p.steps}" if self.live else p.message, milestone=loading)

    def over(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, counted."""
        for frame in frames:
            self.counts["stored" if frame.stored else "made"] += 1
            done = frame.index + 1
            left = (time.monotonic() - self.begin) / done * (self.frames - done)
            text = f"{done} of {self.frames} frames, {self.counts['stored']} from the store, {left:.0f} s left"
            self.show(text, milestone=done == self.frames or done % max(self.frames // 10, 1) == 0)
            yield frame
        self.end()
