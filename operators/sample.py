# SPDX-License-Identifier: GPL-3.0-or-later
"""From a scene to a shot."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import bpy

from ..panels.properties import MORE_SCHEDULES
from . import camera, compat, guides, markers, prompt_text, sample_checks, sample_media, shot_fields, values
from .camera import Similarity
from .sample_checks import model_name, problem, raise_problems
from .scene_values import KEYFRAME, SEED, Samples, camera_moves, scene_named, weight_path

__all__ = ["Sampled", "model_name", "problem", "raise_problems", "sampling", "shot_from_scene"]

CONDITIONS = {'START': "start", 'REFERENCE': "reference", 'BOTH': "both"}


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
    raise_problems([*sample_checks.check_drivers(scene), *sample_checks.check_numbers(samples.table, first)])
    notes += sample_checks.cut_drivers(scene, samples.table, first)
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
        column = samples.table.get(weight_path(index))
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
        elif name == "depth_source" and value == "scene":
            value = "files"  # which Blender renders (guides.py)
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
