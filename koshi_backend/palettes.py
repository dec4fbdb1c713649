# SPDX-License-Identifier: GPL-3.0-or-later
"""The colours that hold at a frame: what its picture is matched to, and is handed on to the next one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import color
from .entries import to_tensor
from .guided import GuidedPictures
from .prompts import Part
from .shot import Shot
from .store import Entry


class Palettes:
    """Those of one shot."""

    def __init__(self, shot: Shot, guided: GuidedPictures) -> None:
        self._shot, self._guided = shot, guided

    def at(
        self, index: int, carried: Entry, drawn: Callable[[Part], np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The colours that hold from frame `index` on, and what later frames have to know of the prompts' own.

        carried: the entry of the made frame before it. drawn: finds the colours of a prompt.
        """
        settings, texts = self._shot.feedback, self._shot.texts
        if settings.color_mode == "none" or settings.color_reference != "prompt":
            given = None if settings.color_mode == "none" else self._guided.colors(index)
            return carried.anchor if given is None else given, {}
        known = carried.state.get("palettes")
        before_it = self._shot.before(index)
        if not texts.turning(index, before_it):
            return carried.anchor, {} if known is None else {"palettes": known}
        # One row for each prompt, not a number where it is not known yet.
        known = np.full((len(self._shot.prompts), len(carried.anchor)), np.nan) if known is None else known.copy()
        before, now = texts.at(before_it), texts.at(index)
        if len(before) == 1:
            known[before[0].prompt] = carried.anchor
        for part in now:
            if np.isnan(known[part.prompt]).any():
                known[part.prompt] = drawn(part)
        anchor = sum((part.weight * known[part.prompt] for part in now), np.zeros_like(carried.anchor))
        return anchor, {"palettes": known} if texts.mixes else {}

    def after(self, stored: np.ndarray, anchor: np.ndarray | None) -> np.ndarray:
        """The colours that are handed on with a finished frame: `anchor`, or its own picture's.

        stored: uint16 [H, W, 3]. anchor: the colours that hold so far; None where the frame begins.
        """
        settings = self._shot.feedback
        if settings.color_mode == "none":
            return np.zeros(6)
        if anchor is None or settings.color_reference == "previous":
            return color.statistics(to_tensor(stored), settings.color_mode)
        return anchor
