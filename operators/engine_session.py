# SPDX-License-Identifier: GPL-3.0-or-later
"""What the frames of one render share: one F12, or one animation.

The first frame asks the backend for the shot up to itself, the second one for all the rest: so F12 at frame 30 makes 30
frames once, and an animation is one job whose frames come while Blender writes the ones before.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError
from . import guides, sample, settings
from .engine_link import Link
from .engine_options import Options, options

ENGINE = "KOSHI"
STOPPED = "The render was stopped. Finished frames are kept: render again and it goes on from there."
BUDGET = 0.01  # seconds of the main thread at a time, while values are read in the window
WAIT = 0.05  # seconds between two looks at whether Esc was pressed
TRIES = 3  # without a new frame in between


class Session:
    """The render of one scene. `preparing` is for the main thread; `picture` for whichever thread renders."""

    def __init__(self, scene: bpy.types.Scene) -> None:
        self.scene = scene.session_uid  # it may be renamed meanwhile
        self.warning = ""
        self._options: Options | None = None
        self._link: Link | None = None
        self._shot: dict[str, Any] = {}
        self._error: BridgeError | None = None
        self._first = self._last = 0  # frames of the job that runs
        self._next = 0  # the next frame that it gives
        self._asked = False
        self._picture: tuple[int, bytes] | None = None
        self._notes: set[str] = set()
        self._interrupted = False
        self._signal: Any = None

    def ready(self, number: int) -> bool:
        """Whether `picture` can be asked for this frame."""
        if self._error is not None or (self._picture and self._picture[0] == number):
            return True
        return self._link is not None and self._next <= number <= self._last

    def preparing(self, scene: bpy.types.Scene, number: int) -> Generator[str, None, None]:
        """Read the scene's values and ask the backend for the frames up to `number`; after the first time, for all.

        Yields a line for a person now and then. An error is kept for `picture`: a handler of Blender's cannot tell it.
        """
        try:
            yield from self._begin(scene, number)
        except BridgeError as error:
            self._error = error
        self._asked = True

    def picture(self, number: int, engine: Any) -> bytes | None:
        """The frame's PNG; None if the render was stopped. Raises BridgeError."""
        if self._error is not None:
            raise self._error
        if self._picture and self._picture[0] == number:  # the same frame for another view layer
            return self._picture[1]
        tries = 0
        while True:
            if engine.test_break() or self._interrupted:
                self.close(cancel=True)
                return None
            assert self._link is not None
            message = self._link.take(WAIT)
            match message:
                case ("stage", text):
                    engine.update_stats("", f"Koshi | {text}")
                case ("progress", event):
                    self._tell(engine, number, event)
                case ("frame", event, png):
                    tries = 0
                    self._next = event["number"] + 1
                    if event["number"] == number:
                        self._picture = number, png
                        engine.update_progress(1.0)
                        return png
                case ("failed", error) if error.code != "connection_lost" or tries == TRIES:
                    raise error
                case ("cancelled",) if tries == TRIES:
                    raise BridgeError(
                        "cancelled", f"Other programs cancel this render again and again, now before frame {number}."
                    )
                case ("failed", _) | ("cancelled",):
                    # The server went away, or somebody else wants this job no more. Finished frames are stored.
                    tries += 1
                    self._ask()
                case ("done",):
                    raise BridgeError("internal", f"The backend ended without frame {number}.", "Render again.")

    def say(self, note: str) -> None:
        """A remark for whoever reads the terminal; each one once."""
        if note and note not in self._notes:
            self._notes.add(note)
            print(f"koshi: {note}", file=sys.stderr, flush=True)

    def take_warning(self) -> str:
        """What the artist has to be told, once."""
        told, self.warning = self.warning, ""
        return told

    def watch_interrupts(self) -> None:
        """Ctrl-C where Blender is a Python module: a KeyboardInterrupt in one of its handlers would be printed and
        forgotten. Blender's program sees to it itself, and `test_break` tells."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._signal = signal.signal(signal.SIGINT, self._interrupt)

    def leave_interrupts(self) -> None:
        """Undo `watch_interrupts`."""
        if self._signal is not None:
            signal.signal(signal.SIGINT, self._signal)
            self._signal = None

    def _interrupt(self, number: int, frame: Any) -> None:
        self._interrupted = True

    def close(self, cancel: bool) -> None:
        """Stop listening to the backend. cancel: it shall stop making frames that nobody waits for, too."""
        if self._link is not None:
            self._link.leave(cancel, wait=bpy.app.background)
            self._link = None

    def _begin(self, scene: bpy.types.Scene, number: int) -> Generator[str, None, None]:
        self._options = self._options or options()
        first = scene.frame_start if self._options.start is None else self._options.start
        _check(scene, first, number)
        whole = self._asked or sample.needs_what_follows(scene.koshi)
        last = _last_of(scene, number) if whole else number
        with self._options.over(scene.koshi):
            budget = float("inf") if bpy.app.background else BUDGET
            sampled = yield from sample.sampling(scene, first, last, budget)
        for note in sampled.notes:
            self.say(note)
        if sampled.guides:
            yield from guides.render_guides(scene, sampled.shot, guides.guides_folder(scene))
        self.close(cancel=True)
        shot = sample.frame_by_frame(sampled.shot)  # Blender asks for its own frames
        self._shot, self._first, self._last = self._options.change(shot), first, last
        self._ask()

    def _ask(self) -> None:
        assert self._options is not None
        self.close(cancel=False)
        self._link = Link(settings.backend(), self._shot, self._options.device)
        self._next = self._first

    def _tell(self, engine: Any, number: int, event: dict[str, Any]) -> None:
        step = int(self._shot.get("frame_step", 1))
        index, last = int(event.get("index", 0)), (number - self._first) // step
        part = int(event.get("step", 0)) / max(int(event.get("steps", 0)), 1)
        engine.update_progress(min((index + part) / (last + 1), 0.99))
        at = self._first + index * step
        steps = f", step {event['step']} of {event['steps']}" if event.get("steps") else ""
        engine.update_stats("", f"Koshi | Frame {at}, up to {number}{steps}: {event.get('message', '')}")


_current: Session | None = None


def begin(scene: bpy.types.Scene) -> Session:
    """A render begins."""
    global _current
    end(cancel=True)
    _current = Session(scene)
    _current.watch_interrupts()
    return _current


def of(scene: bpy.types.Scene) -> Session:
    """The session of the render that is under way."""
    if _current is None or _current.scene != scene.session_uid:
        return begin(scene)
    return _current


def end(cancel: bool) -> None:
    """A render is over."""
    global _current
    if _current is not None:
        _current.leave_interrupts()
        _current.close(cancel)
        _current = None


def _check(scene: bpy.types.Scene, first: int, number: int) -> None:
    """Refuse what the engine cannot do; the size, the prompts and the values are judged with the shot."""
    last = max(scene.frame_end, first)
    if not first <= number <= last:
        raise BridgeError(
            "frame_outside",
            f"Frame {number} is not in the shot, which goes from frame {first} to {last}.",
            "Choose a frame of the shot, or change its range in Output Properties > Frame Range.",
        )
    step = scene.frame_step
    if (number - first) % step:
        raise BridgeError(
            "frame_outside",
            f"Frame {number} is between two of the shot: with a frame step of {step} they are {first}, {first + step}, "
            f"{first + 2 * step} and so on.",
            "Choose one of these, or make the step 1 in Output Properties > Frame Range.",
        )
    if scene.render.use_border:
        raise BridgeError(
            "border",
            "A render region is set, and Koshi paints whole pictures only.",
            "Switch Render Region off in Output Properties > Format.",
        )
    if scene.render.use_multiview:
        raise BridgeError(
            "multiview",
            "Stereoscopy is on, and Koshi paints one picture a frame.",
            "Switch it off in Output Properties > Stereoscopy.",
        )


def _last_of(scene: bpy.types.Scene, number: int) -> int:
    """The last frame that an animation will ask for."""
    return number + (max(scene.frame_end, number) - number) // scene.frame_step * scene.frame_step
