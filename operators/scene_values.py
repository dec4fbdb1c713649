# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scene says, frame by frame: every value and camera as Blender evaluates them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..bridge_server.protocol import BridgeError
from ..panels.properties import MORE_SCHEDULES, SCHEDULES
from . import camera, camera_curves, guides, markers, sample_media, shot_fields, values
from .camera import Similarity, View
from .sample_checks import problem

SEED = "seed"  # sampled like the schedules; also the shot's own
KEYFRAME = "keyframe_here"  # sampled like them, too


@dataclass
class Samples:
    """What is read from a scene, frame by frame.

    table: every value at every scene frame from first to last. frames: the scene frames that the shot is made of; the
    others lie between two of them. views or cameras: of those, if the camera moves the picture; seen_by: its name.
    """

    first: int
    last: int
    step: int
    table: dict[str, list[Any]] = field(default_factory=dict)
    views: list[View] = field(default_factory=list)
    cameras: list[dict[str, Any]] = field(default_factory=list)
    seen_by: list[str] = field(default_factory=list)

    @property
    def frames(self) -> range:
        """The scene frames that the shot is made of."""
        return range(self.first, self.last + 1, self.step)

    def take(self, name: str, budget: float) -> Iterator[str]:
        """Read everything of the scene called `name`; a line for a person every `budget` seconds."""
        scene = scene_named(name)
        weights = (*_weights(scene.koshi), *sample_media.weights(scene.koshi))
        names = (*SCHEDULES, *MORE_SCHEDULES, SEED, KEYFRAME, *weights)
        every = range(self.first, self.last + 1)
        direct = values.direct(scene, names, every)
        self.table = {name: [] for name in names} if direct is None else direct
        watched = scene.koshi.motion_source in ('CAMERA', 'EXACT') or guides.wanted(scene.koshi)
        todo = list(self.frames if direct is not None else every) if direct is None or watched else []
        # With a step, motion counts between its frames too; everything else is of no interest there.
        done = 0
        while done < len(todo):
            scene = scene_named(name)
            until = time.monotonic() + budget
            eye_at = camera_curves.reader(scene) if direct is not None else None
            with evaluated(scene) if eye_at is None else nullcontext() as depsgraph:
                while done < len(todo):
                    frame = todo[done]
                    done += 1
                    if eye_at is None:
                        scene.frame_set(frame)
                    if direct is None:
                        settings = scene.koshi
                        for value_name, column in self.table.items():
                            column.append(settings.path_resolve(shot_fields.property_of(value_name)))
                    if watched and (frame - self.first) % self.step == 0:
                        self._look(scene, frame, depsgraph if eye_at is None else eye_at)
                    if time.monotonic() > until:
                        break
            if done < len(todo):
                yield iface_("Reading the curves: {} of {} frames").format(done, len(todo))

    def _look(
        self, scene: bpy.types.Scene, frame: int, by: bpy.types.Depsgraph | Callable[[int], camera.Eye]
    ) -> None:
        source = scene.koshi.motion_source
        try:
            if source in ('EXACT', 'CAMERA'):
                eye = by(frame) if callable(by) else camera.eye_of(scene, by)
                if source == 'EXACT':
                    self.cameras.append(camera.numbers_of(scene, eye))
                else:
                    self.views.append(camera.view_of(scene, eye))
            elif scene.camera is None:
                raise BridgeError(
                    "no_camera",
                    "The scene has no camera to render what Koshi starts from or is guided by.",
                    "Add a camera, or set Start From to Prompt, Structure and Video to None, Mask to none and Depth to "
                    "another one.",
                )
        except BridgeError as error:
            raise _at_frame(error, frame) from error
        self.seen_by.append(scene.camera.name_full)

    def motion_into_frames(
        self, absolute: bool, around: bool = False, deep: bool = False
    ) -> dict[str, list[Any]]:
        """The values at the shot's frames, those that move as the move from one to the next.

        around: the last frame goes over into the first. deep: the curves move the view in 3D; of several frames in one
        what they say adds up.
        """
        names, step = (*SCHEDULES, *MORE_SCHEDULES), self.step
        table = {name: [values.rounded(v) for v in self.table[name]] for name in names}
        moving = (*values.MOTION, *values.TURNS)
        if absolute:
            moved = {name: values.per_frame(name, table[name][::step], around) for name in moving}
            rest: tuple[str, ...] = values.FLIPS
        else:
            moved, rest = {}, (*values.FLIPS, *values.TURNS, *(values.MOTION if deep else ()))
            if not deep and step > 1:
                moved = {name: table[name] for name in values.MOTION}
                values.accumulated(moved, step)
        if step > 1:
            added = {name: table[name] for name in rest}
            values.added_up(added, rest, step)
            moved |= added
        table = {name: moved.get(name, column[::step]) for name, column in table.items()}
        return table | {SEED: self.table[SEED][::step]}

    def cuts(self, notes: list[str]) -> list[int]:
        """The shot's frames, from 0, that another camera sees than the frame before: they begin anew."""
        found = [i for i in range(1, len(self.seen_by)) if self.seen_by[i] != self.seen_by[i - 1]]
        for i in found:
            notes.append(f'Frame {self.frames[i]} cuts to the camera "{self.seen_by[i]}" and begins anew.')
        return found


def camera_moves(samples: Samples, cuts: set[int], around: bool = False) -> list[Similarity]:
    """The flat move by the camera into every frame of the shot; none over a cut, and none into the first, or, around,
    that from the last one."""
    moves = [] if around else [Similarity()]
    for i in range(len(moves), len(samples.views)):
        try:
            moves.append(
                Similarity() if i in cuts else camera.similarity(samples.views[i - 1], samples.views[i])
            )
        except BridgeError as error:
            raise _at_frame(error, samples.frames[i]) from error
    return moves


@contextmanager
def evaluated(scene: bpy.types.Scene) -> Iterator[bpy.types.Depsgraph]:
    """A dependency graph that follows `frame_set`, and the playhead put back afterwards.

    A scene that no window shows has none until it is asked for one, and then animates nothing.
    """
    frame, subframe = scene.frame_current, scene.frame_subframe
    with bpy.context.temp_override(scene=scene, view_layer=scene.view_layers[0]):
        depsgraph = bpy.context.evaluated_depsgraph_get()
        try:
            yield depsgraph
        finally:
            scene.frame_set(frame, subframe=subframe)


def scene_named(name: str) -> bpy.types.Scene:
    """The scene of a name, which may have gone since the last look."""
    scene = bpy.data.scenes.get(name)
    if scene is None:
        raise BridgeError("no_scene", f'The scene "{name}" is gone.', "Start the render again.")
    return scene


def _at_frame(error: BridgeError, frame: int) -> BridgeError:
    fault = problem("motion_source", error.message, error.hint, frame)
    return BridgeError(error.code, f"Frame {frame}: {error.message}", error.hint, [fault])


def _weights(settings: Any) -> list[str]:
    """The prompts' weights that count."""
    return [weight_path(i) for i, prompt in enumerate(settings.prompts) if markers.counts_beside(prompt)]


def weight_path(index: int) -> str:
    """Where a prompt's weight is among the sampled values."""
    return f"prompts[{index}].weight"
