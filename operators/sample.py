# SPDX-License-Identifier: GPL-3.0-or-later
"""From a scene to a shot: every value as Blender evaluates it, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import bpy

from ..bridge_server.protocol import BridgeError
from ..panels.properties import MORE_SCHEDULES, SCHEDULES
from . import camera, compat, guides, markers, prompt_text, sample_checks, sample_media, shot_fields, values
from .camera import Similarity, View
from .sample_checks import model_name, problem, raise_problems

__all__ = ["Sampled", "evaluated", "model_name", "problem", "raise_problems", "sampling", "shot_from_scene"]

CONDITIONS = {'START': "start", 'REFERENCE': "reference", 'BOTH': "both"}
SEED = "seed"  # sampled like the schedules; also the shot's own
KEYFRAME = "keyframe_here"  # sampled like them, too


class Sampled(NamedTuple):
    """A shot as the backend takes it, and remarks that do not stop it but that the artist should read."""

    shot: dict[str, Any]
    notes: list[str]
    guides: bool = False  # whether it names files that guides.render_guides has to make


def shot_from_scene(
    scene: bpy.types.Scene,
    frame_start: int | None = None,
    frame_end: int | None = None,
    *,
    size: tuple[int, int] | None = None,
    painted: bool = True,
) -> Sampled:
    """Sample the scene's range, or the given frames, into a shot: all at once. `sampling` does it in portions."""
    steps = sampling(scene, frame_start, frame_end, budget=float("inf"), size=size, painted=painted)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def sampling(
    scene: bpy.types.Scene,
    frame_start: int | None = None,
    frame_end: int | None = None,
    budget: float = 0.01,
    *,
    size: tuple[int, int] | None = None,
    painted: bool = True,
) -> Generator[str, None, Sampled]:
    """Sample the scene's range, or the given frames, into a shot; yields a line for a person every `budget`
    seconds.

    size: width and height of a smaller picture than the scene's; what moves it by pixels shrinks with it. painted:
    whether a model will paint; for the motion alone model and prompts do not matter.
    Of the scene's frame step every such frame counts, and what the curves do in between is added up. Moves the playhead
    and puts it back before each yield. Raises BridgeError "bad_shot" with all that Blender knows to be wrong (range,
    size, prompts, model path, drivers that do not run), and "no_scene" if the scene goes away meanwhile.
    """
    first = scene.frame_start if frame_start is None else frame_start
    last = scene.frame_end if frame_end is None else frame_end
    settings, step = scene.koshi, max(scene.frame_step, 1)
    whole = camera.picture_size(scene)
    width, height = size or whole
    notes: list[str] = []
    raise_problems(
        [
            *sample_checks.check_range(first, last),
            *(() if size else sample_checks.check_size(scene, width, height)),
            *(sample_checks.check_model(settings) if painted else ()),
            *(sample_checks.check_prompts(settings, last) if painted else ()),
            *(sample_checks.check_audio(settings) if painted else ()),
            *sample_checks.check_files(settings, painted),
        ]
    )
    samples = Samples(first, last, step)
    name = scene.name
    for line in samples.take(name, budget):
        yield line
        scene = scene_named(name)
    settings = scene.koshi
    raise_problems(sample_checks.check_drivers(scene))
    if bpy.app.autoexec_fail:
        notes.append(
            f"Blender did not run some drivers of this file ({bpy.app.autoexec_fail_message}). "
            "If the motion is wrong, reload it with File > Open > Trusted Source."
        )
    around, deep = settings.loop == "seamless", settings.motion_source == '3D'
    table = samples.motion_into_frames(absolute=settings.curves == 'ABSOLUTE', around=around, deep=deep)
    cuts = samples.cuts(notes)
    if samples.views:
        _add_camera(table, samples, set(cuts), notes, around)
    if (width, height) != whole and not deep:  # there they are no pixels
        table["translation_x"] = [values.rounded(x * width / whole[0]) for x in table["translation_x"]]
        table["translation_y"] = [values.rounded(y * height / whole[1]) for y in table["translation_y"]]
    seeds = table.pop(SEED)
    schedules = {name: prompt_text.short(column) for name, column in table.items()}
    for name in MORE_SCHEDULES:
        usual = values.rounded(settings.bl_rna.properties[shot_fields.property_of(name)].default)
        if schedules[name] == usual or not shot_fields.counts(name, settings):
            del schedules[name]
    if len(set(seeds)) > 1:
        schedules[SEED] = seeds
    motion: dict[str, Any] = {"cuts": cuts} if cuts else {}
    if samples.cameras:
        motion = {"source": "camera", "cameras": samples.cameras, **motion}
    elif deep:
        motion = {"source": "3d", **motion}
    elif settings.motion_source in shot_fields.FOLLOWERS:
        motion = {"source": shot_fields.FOLLOWERS[settings.motion_source], **motion}
    prompts, begin = [{"frame": 0, "text": "motion"}], []
    if painted:
        prompts, begin = prompt_text.in_shot(spots(scene, samples), first, last, step, notes)
    files = guides.guides_of(scene, parallel=any(one["kind"] == 'ORTHO' for one in samples.cameras))
    shot = {
        "koshi": 1,
        "model": model_name(settings),
        "width": width,
        "height": height,
        "fps": values.rounded(scene.render.fps / scene.render.fps_base),
        "frame_start": first,
        **({"frame_step": step} if step > 1 else {}),
        "frames": len(samples.frames),
        "seed": seeds[0],
        "steps": settings.steps,
        "prompts": prompts,
        "schedules": schedules,
        "feedback": {"carry": "pixels", "condition": CONDITIONS[settings.mode]},
        "strength_convention": "denoise",
        **({"motion": motion} if motion else {}),
        **files,
    }
    for where, value in told(settings).items():
        shot_fields.place(shot, where, value)
    keyframes = {k for k, on in enumerate(samples.table[KEYFRAME][::step]) if on}
    keyframes |= set(begin if settings.keyframe_prompts else ())
    if keyframes:
        shot_fields.place(shot, "time.keyframes.frames", sorted(keyframes))
    ahead = (first - scene.frame_start) // step
    sample_media.add(shot, scene, samples, ahead, painted)
    if ahead and len(set(seeds)) == 1:
        sample_media.go_on_with_seeds(shot, ahead)
    return Sampled(shot, notes, bool(files))


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
            with evaluated(scene) as depsgraph:
                while done < len(todo):
                    frame = todo[done]
                    done += 1
                    scene.frame_set(frame)
                    if direct is None:
                        settings = scene.koshi
                        for value_name, column in self.table.items():
                            column.append(settings.path_resolve(shot_fields.property_of(value_name)))
                    if watched and (frame - self.first) % self.step == 0:
                        self._look(scene, depsgraph, frame)
                    if time.monotonic() > until:
                        break
            if done < len(todo):
                yield f"Reading the curves: {done} of {len(todo)} frames"

    def _look(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph, frame: int) -> None:
        source = scene.koshi.motion_source
        try:
            if source == 'EXACT':
                self.cameras.append(camera.numbers_of(scene, depsgraph))
            elif source == 'CAMERA':
                self.views.append(camera.view_of(scene, depsgraph))
            elif scene.camera is None:
                raise BridgeError(
                    "no_camera",
                    "The scene has no camera to render what Koshi starts from or is guided by.",
                    "Add a camera, or set Start From to Prompt, Structure and Video to None and Mask to none.",
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


def _add_camera(
    table: dict[str, list[Any]], samples: Samples, cuts: set[int], notes: list[str], around: bool
) -> None:
    """Let the camera move the picture, with the sampled curves on top of it."""
    for i, moved in enumerate(camera_moves(samples, cuts, around)):
        if (i == 0 and not around) or i in cuts:
            continue
        own = Similarity(*(table[name][i] for name in values.FLAT))
        for name, value in zip(values.FLAT, moved.then(own).rounded(), strict=True):
            table[name][i] = value
    sources = dict.fromkeys(view.source for view in samples.views)
    notes.append(f"Camera motion at {samples.views[0].focus:.4g} units: {'; then '.join(sources)}.")


def scene_named(name: str) -> bpy.types.Scene:
    """The scene of a name, which may have gone since the last look."""
    scene = bpy.data.scenes.get(name)
    if scene is None:
        raise BridgeError("no_scene", f'The scene "{name}" is gone.', "Start the render again.")
    return scene


def _at_frame(error: BridgeError, frame: int) -> BridgeError:
    fault = problem("motion_source", error.message, error.hint, frame)
    return BridgeError(error.code, f"Frame {frame}: {error.message}", error.hint, [fault])


def spots(scene: bpy.types.Scene, samples: Samples) -> list[prompt_text.Spot]:
    """The scene's prompts wherever they begin; those that were taken off the timeline are none."""
    step = samples.step
    ahead = (samples.first - scene.frame_start) // step
    whole = (scene.frame_end - scene.frame_start) // step + 1
    found = []
    for index, prompt in enumerate(scene.koshi.prompts):
        text = prompt.text
        if "`" in text and (samples.first, samples.last) != (scene.frame_start, scene.frame_end):
            text = prompt_text.counted_from(text, ahead, whole)
        column = samples.table.get(_weight(index))
        weights = None if column is None else tuple(values.rounded(value) for value in column[::step])
        frames = markers.frames_of(prompt)
        # One that counts beside the others goes on from its first marker; a second one would count twice.
        for frame in frames if weights is None else frames[:1]:
            found.append(prompt_text.Spot(frame, text, prompt.negative, prompt.ease, weights))
    return found


def told(settings: Any) -> dict[str, Any]:
    """The settings that a shot names, because they are not what it means without them: by their places in it."""
    found = {}
    for name, (where, default) in shot_fields.FIELDS.items():
        if not shot_fields.counts(name, settings):
            continue
        value = getattr(settings, name)
        if isinstance(value, float):
            value = values.rounded(value)
        elif isinstance(default, int) and isinstance(value, str):
            value = int(value)
        elif name in shot_fields.FILES:
            value = bpy.path.abspath(value.strip()) or None
        elif default is None:
            value = (value.strip() or None) if isinstance(value, str) else None if value < 0 else value
        if value != default:
            found[where] = value
    return found


def frame_by_frame(shot: dict[str, Any]) -> dict[str, Any]:
    """The shot whose pictures are its frames: none between them, and none after the last one."""
    time_table = {key: value for key, value in shot.get("time", {}).items() if key != "interpolation"}
    if time_table.get("loop") == "back":
        del time_table["loop"]
    out = {key: value for key, value in shot.items() if key != "time"}
    return out | ({"time": time_table} if time_table else {})


def needs_what_follows(settings: Any) -> bool:
    """Whether a frame may depend on the frames after it: it lies between two that are made, or before a seam."""
    return settings.loop == "seamless" or settings.cadence > 1 or compat.is_animated(settings, "cadence")


def _weights(settings: Any) -> list[str]:
    """The weights that count."""
    return [_weight(i) for i, prompt in enumerate(settings.prompts) if markers.counts_beside(prompt)]


def _weight(index: int) -> str:
    return f"prompts[{index}].weight"
