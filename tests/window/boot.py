# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside the Blender window: plays one chapter after another, as the test process asks for them.

A chapter is a script beside this file with a generator function `steps(**arguments)`. Each `yield seconds` gives
Blender that long to handle events and to draw; what it returns goes back as JSON. Requests and answers are files
in the folder KOSHI_WINDOW, because a Blender in a chroot shares little more than folders with the test.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

import bpy

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ["KOSHI_WINDOW"])
sys.path.insert(0, str(HERE))

import hands  # noqa: E402

IDLE = 0.02  # seconds between two looks for a request


class Player:
    """The chapter that is played now, if any."""

    def __init__(self) -> None:
        self.number = 0
        self.chapter: Generator[float | None, None, Any] | None = None

    def tick(self) -> float:
        """What Blender's timer calls: one step of the chapter."""
        try:
            if self.chapter is None:
                return self.begin()
            return next(self.chapter) or 0.0
        except StopIteration as ended:
            self.answer({"result": ended.value})
        except Exception:  # the chapter's edge: the test must learn of it, and the next chapter go on
            hands.shot(f"failed-{self.number}")
            self.answer({"error": traceback.format_exc()})
        return IDLE

    def begin(self) -> float:
        """Start the chapter that is asked for, if one is."""
        request = FOLDER / f"request-{self.number}.json"
        if not request.is_file():
            return IDLE
        asked = json.loads(request.read_text())
        self.chapter = runpy.run_path(str(HERE / f"{asked['chapter']}.py"))["steps"](**asked["arguments"])
        return 0.0

    def answer(self, what: dict[str, Any]) -> None:
        """Hand the chapter's outcome to the test."""
        self.chapter = None
        hands.write(FOLDER / f"answer-{self.number}.json", what)
        self.number += 1


preferences = bpy.context.preferences
preferences.view.show_splash = False
preferences.view.smooth_view = 0  # a view that glides is not where the mouse was sent, on a busy machine
preferences.use_preferences_save = False
preferences.view.use_save_prompt = False
preferences.filepaths.use_auto_save_temporary_files = False
bpy.app.timers.register(Player().tick, first_interval=0.5, persistent=True)
