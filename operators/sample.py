# SPDX-License-Identifier: GPL-3.0-or-later
"""From a scene to a shot: every value as Blender evaluates it, frame by frame.

`frame_set` and reading the property is the only way that is right for F-curves, modifiers, drivers and NLA
alike; the curves' own `evaluate` knows nothing of the last two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bpy

from ..bridge_server.protocol import BridgeError
from ..panels.properties import SCHEDULES
from . import camera, guides
from .camera import Similarity, View

MULTIPLE = 16  # the models see the picture in blocks of this many pixels
FLAT = ("zoom", "angle", "translation_x", "translation_y")  # what a similarity of the picture is made of
CONDITIONS = {'START': "start", 'REFERENCE': "reference", 'BOTH': "both"}


class Sampled(NamedTuple):
    """A shot as the backend takes it, and remarks that do not stop it but that the artist should read."""

    shot: dict[str, Any]
    notes: list[str]
    guides: bool = False  # whether it names files that guides.render_guides has to make


def shot_from_scene(
    scene: bpy.types.Scene, frame_start: int | None = None, frame_end: int | None = None
) -> Sampled:
    """Sample the scene's range, or the given frames, into a shot.

    Moves the playhead and puts it back. Raises BridgeError "bad_shot" with all that Blender knows to be wrong
    (range, size, prompts, model path, drivers that do not run); the backend judges the values.
    """
    first = scene.frame_start if frame_start is None else frame_start
    last = scene.frame_end if frame_end is None else frame_end
    settings = scene.koshi
    width, height = camera.picture_size(scene)
    notes: list[str] = []
    problems = [
        *_check_range(first, last),
        *_check_size(scene, width, height),
        *_check_model(settings),
        *_check_prompts(settings, last),
    ]
    raise_problems(problems)
    table, seeds, views, cameras = _sample(scene, first, last)
    raise_problems(_check_drivers(scene))
    if bpy.app.autoexec_fail:
        notes.append(
            f"Blender did not run some drivers of this file ({bpy.app.autoexec_fail_message}). "
            "If the motion is wrong, reload it with File > Open > Trusted Source."
        )
    if views:
        _add_camera(table, views, first, notes)
    schedules = {name: _short(values) for name, values in table.items()}
    if len(set(seeds)) > 1:
        schedules["seed"] = seeds
    files = guides.guides_of(guides.guides_folder(scene), exact=bool(cameras), start=settings.start == 'SCENE')
    if cameras:
        files["motion"] = {"source": "camera", "cameras": cameras}
    return Sampled(
        {
            "koshi": 1,
            "model": model_name(settings),
            "width": width,
            "height": height,
            "fps": _rounded(scene.render.fps / scene.render.fps_base),
            "frame_start": first,
            "frames": last - first + 1,
            "seed": seeds[0],
            "steps": settings.steps,
            "prompts": _prompts(settings, first, last, notes),
            "schedules": schedules,
            "feedback": {"carry": "pixels", "condition": CONDITIONS[settings.mode]},
            "strength_convention": "denoise",
            **files,
        },
        notes,
        bool(files),
    )


def model_name(settings: Any) -> str:
    """The model as the backend knows it: its name, or the absolute path of a custom one."""
    if settings.model != 'CUSTOM':
        return settings.model
    return bpy.path.abspath(settings.model_path.strip())


def raise_problems(problems: list[dict[str, Any]]) -> None:
    """Raise one BridgeError "bad_shot" for all problems, or return if there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise BridgeError("bad_shot", problems[0]["message"], problems[0]["hint"], problems)
    lines = " ".join(f"{i}. {p['message']} {p['hint']}" for i, p in enumerate(problems, 1))
    raise BridgeError("bad_shot", f"{len(problems)} things to mend before rendering: {lines}", "", problems)


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


def _sample(
    scene: bpy.types.Scene, first: int, last: int
) -> tuple[dict[str, list[float]], list[int], list[View], list[dict[str, Any]]]:
    """Per frame: the schedules, the seed, and the camera, as a view or as numbers, if it is what moves the picture."""
    source = scene.koshi.motion_source
    table: dict[str, list[float]] = {name: [] for name in SCHEDULES}
    seeds: list[int] = []
    views: list[View] = []
    cameras: list[dict[str, Any]] = []
    with evaluated(scene) as depsgraph:
        for frame in range(first, last + 1):
            scene.frame_set(frame)
            settings = scene.koshi
            for name, values in table.items():
                values.append(_rounded(getattr(settings, name)))
            seeds.append(settings.seed)
            if source != 'CURVES':
                try:
                    if source == 'EXACT':
                        cameras.append(camera.numbers_of(scene, depsgraph))
                    else:
                        views.append(camera.view_of(scene, depsgraph))
                except BridgeError as error:
                    raise _at_frame(error, frame) from error
    return table, seeds, views, cameras


def _add_camera(table: dict[str, list[float]], views: list[View], first: int, notes: list[str]) -> None:
    """Let the camera move the picture, with the sampled curves on top of it."""
    for i in range(1, len(views)):
        before, after = views[i - 1], views[i]
        if before.name != after.name:
            notes.append(
                f'Frame {first + i} cuts to the camera "{after.name}"; no camera motion across the cut.'
            )
            continue
        try:
            moved = camera.similarity(before, after)
        except BridgeError as error:
            raise _at_frame(error, first + i) from error
        own = Similarity(*(table[name][i] for name in FLAT))
        for name, value in zip(FLAT, moved.then(own).rounded(), strict=True):
            table[name][i] = value
    sources = dict.fromkeys(view.source for view in views)
    notes.append(f"Camera motion at {views[0].focus:.4g} units: {'; then '.join(sources)}.")


def _at_frame(error: BridgeError, frame: int) -> BridgeError:
    fault = problem("motion_source", error.message, error.hint, frame)
    return BridgeError(error.code, f"Frame {frame}: {error.message}", error.hint, [fault])


def _prompts(settings: Any, first: int, last: int, notes: list[str]) -> list[dict[str, Any]]:
    """Prompts counted from the shot's first frame; the one in force there begins at 0."""
    ordered = sorted(settings.prompts, key=lambda prompt: prompt.frame)
    earlier = [prompt for prompt in ordered if prompt.frame <= first]
    if not earlier:
        notes.append(
            f"The first prompt stands at frame {ordered[0].frame}; it also holds from frame {first} on."
        )
        earlier = ordered[:1]
    used = [(0, earlier[-1].text)]
    used += [(p.frame - first, p.text) for p in ordered if first < p.frame <= last and p != earlier[-1]]
    late = [str(p.frame) for p in ordered if p.frame > last and p != earlier[-1]]
    if late:
        notes.append(f"Prompts after the last frame {last} are not used (frame {', '.join(late)}).")
    return [{"frame": frame, "text": text.strip()} for frame, text in used]


def problem(
    field: str, message: str, hint: str, frame: int | None = None, value: object = None
) -> dict[str, Any]:
    """One fault of a shot, in the form the backend uses too; `frame` is a frame of the scene."""
    return {"field": field, "frame": frame, "value": value, "message": message, "hint": hint}


def _check_range(first: int, last: int) -> list[dict[str, Any]]:
    if last >= first:
        return []
    return [
        problem(
            "frame_end",
            f"The frame range ends at {last}, before it starts at {first}.",
            "Make the end frame at least the start frame.",
            value=last,
        )
    ]


def _check_size(scene: bpy.types.Scene, width: int, height: int) -> list[dict[str, Any]]:
    faults = []
    percent = scene.render.resolution_percentage
    scaled = f" (at {percent} % of {{}})" if percent != 100 else ""
    for field, value, full in (
        ("width", width, scene.render.resolution_x),
        ("height", height, scene.render.resolution_y),
    ):
        if value % MULTIPLE == 0 and value > 0:
            continue
        below = max(value // MULTIPLE, 4) * MULTIPLE  # 64 is the smallest side
        nearest = (below, below + MULTIPLE)
        faults.append(
            problem(
                field,
                f"The picture's {field} is {value} pixels{scaled.format(full)}, no multiple of {MULTIPLE}.",
                f"{' and '.join(map(str, nearest))} would fit. Set it in Output Properties > Format.",
                value=value,
            )
        )
    return faults


def _check_model(settings: Any) -> list[dict[str, Any]]:
    if settings.model != 'CUSTOM':
        return []
    path = model_name(settings)
    if not path:
        return [
            problem(
                "model_path",
                "The model is set to Custom but no path is given.",
                "Choose the model's folder in Koshi > Path.",
            )
        ]
    if not Path(path).exists():
        return [
            problem(
                "model_path",
                f"There is no model at {path}.",
                "Choose the model's folder in Koshi > Path.",
                value=path,
            )
        ]
    return []


def _check_prompts(settings: Any, last: int) -> list[dict[str, Any]]:
    if not len(settings.prompts):
        return [
            problem(
                "prompts",
                "There is no prompt, so Koshi does not know what to paint.",
                "Add a prompt in Koshi > Prompts.",
            )
        ]
    faults = []
    frames = [prompt.frame for prompt in settings.prompts]
    for prompt in settings.prompts:
        if not prompt.text.strip() and prompt.frame <= last:
            faults.append(
                problem(
                    "prompts",
                    f"The prompt at frame {prompt.frame} is empty.",
                    "Write what the picture shows, or remove it in Koshi > Prompts.",
                    prompt.frame,
                )
            )
    for frame in sorted({frame for frame in frames if frames.count(frame) > 1}):
        faults.append(
            problem(
                "prompts",
                f"{frames.count(frame)} prompts stand at frame {frame}.",
                "Keep one of them, or give them different frames.",
                frame,
            )
        )
    return faults


def _check_drivers(scene: bpy.types.Scene) -> list[dict[str, Any]]:
    """Drivers of Koshi's values that Blender could not run; it would silently use 0 for them."""
    animation = scene.animation_data
    faults = []
    for curve in animation.drivers if animation else ():
        if not curve.data_path.startswith("koshi.") or curve.mute or curve.driver.is_valid:
            continue
        name = curve.data_path.removeprefix("koshi.")
        refused = bpy.app.autoexec_fail
        hint = (
            "Blender does not run Python from this file: reload it with File > Open > Trusted Source."
            if refused
            else "Mend its expression in the Drivers editor, or remove it."
        )
        faults.append(
            problem(name, f"The driver of {name} does not work.", hint, value=curve.driver.expression)
        )
    return faults


def _short(values: list[float]) -> float | list[float]:
    """One number instead of a list that never changes: easier to read, and the same shot to the backend."""
    return values[0] if len(set(values)) == 1 else values


def _rounded(value: float) -> float:
    """A single-precision property as the decimal number it was typed as (1.01, not 1.0099999904632568)."""
    return float(f"{value:.7g}")
