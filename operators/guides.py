# SPDX-License-Identifier: GPL-3.0-or-later
"""Guides: what Blender renders of the scene for a shot, before the backend paints it.

Depth and motion, frame by frame, for camera-exact motion: a throw-away copy of the scene is rendered by Cycles with
one sample through the centre of each pixel. That is exact (the depth equals a ray cast to 3e-6), takes about 0.3 s for
512 x 512 on two processor cores, and leaves the artist's scene untouched. And the first frame's picture, to paint over.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.protocol import BridgeError, cache_folder
from . import compat

NAME = "geometry_"
START = "start.png"
START_SAMPLES = 64


def guides_folder(scene: bpy.types.Scene) -> Path:
    """Where a scene's guides lie: always the same place, so that the same shot stays the same shot."""
    place = hashlib.sha256(bpy.data.filepath.encode()).hexdigest()[:8]
    return cache_folder() / "guides" / f"{bpy.path.clean_name(scene.name) or 'Scene'}_{place}"


def guides_of(folder: Path, exact: bool, start: bool) -> dict[str, Any]:
    """The part of a shot that names the files that `render_guides` makes."""
    pattern = str(folder / f"{NAME}####.exr")
    named: dict[str, Any] = {"guides": {"depth": pattern, "vector": pattern}} if exact else {}
    return named | ({"init_image": str(folder / START)} if start else {})


def render_guides(scene: bpy.types.Scene, shot: dict[str, Any], folder: Path) -> Iterator[str]:
    """Render what `shot` needs into `folder`, which is emptied first; yields a line for a person after each step.

    Raises BridgeError "guides" when Blender cannot. Close the iterator to stop early.
    """
    if not hasattr(scene, "cycles"):
        raise BridgeError(
            "guides",
            "Koshi renders the scene with Cycles for this shot, and Cycles is switched off.",
            "Enable Cycles Render Engine in Preferences > Add-ons, or set Koshi > Motion > Source to Camera, Flat "
            "and Start From to Prompt.",
        )
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BridgeError(
            "guides", f"The folder {folder} for what Blender renders cannot be made: {error.strerror}."
        ) from error
    first, count = shot["frame_start"], shot["frames"]
    if "init_image" in shot:
        yield "Rendering the first frame's scene"
        with _copied(scene) as copy:
            _set_up_start(copy)
            _render(copy, first, folder / START)
    if "guides" in shot:
        yield "Rendering the scene's depth and motion"
        with _copied(scene) as copy:
            _set_up(copy)
            for frame in range(first, first + count):
                _render(copy, frame, folder / f"{NAME}{frame:04d}.exr")
                yield f"Depth and motion: {frame - first + 1} of {count} frames"


@contextmanager
def _copied(scene: bpy.types.Scene) -> Iterator[bpy.types.Scene]:
    copy = scene.copy()
    pinholes: dict[bpy.types.Object, bpy.types.Object] = {}
    try:
        copy.name = ".koshi_guides"
        for owner in (copy, *copy.timeline_markers):
            if (camera := owner.camera) is not None and camera.type == 'CAMERA' and camera.data.dof.use_dof:
                if camera not in pinholes:
                    pinholes[camera] = _pinhole(camera)
                owner.camera = pinholes[camera]
        yield copy
    finally:
        bpy.data.scenes.remove(copy)
        for made in pinholes.values():
            data = made.data
            bpy.data.objects.remove(made)
            bpy.data.cameras.remove(data)


def _pinhole(camera: bpy.types.Object) -> bpy.types.Object:
    """The same camera, its animation included, without depth of field: that lets rays begin all over the lens, and
    near things were .03 px beside their place."""
    made = camera.copy()
    made.data = camera.data.copy()
    made.data.dof.use_dof = False
    return made


def _set_up_start(copy: bpy.types.Scene) -> None:
    """The scene's own look, quickly. Cycles also where the scene has another engine: that may need a window."""
    render = copy.render
    if render.engine != 'CYCLES':
        render.engine = 'CYCLES'
        copy.cycles.samples = START_SAMPLES
        copy.cycles.use_denoising = False
    copy.cycles.samples = min(copy.cycles.samples, START_SAMPLES)
    render.use_sequencer = render.use_border = render.use_stamp = render.film_transparent = False
    compat.set_png(render.image_settings)


def _set_up(copy: bpy.types.Scene) -> None:
    render, cycles = copy.render, copy.cycles
    render.engine = 'CYCLES'
    cycles.device = 'CPU'
    cycles.samples = 1
    cycles.use_adaptive_sampling = cycles.use_denoising = False
    cycles.pixel_filter_type, cycles.filter_width = 'BOX', 0.01  # the centre of the pixel, and nothing else
    cycles.max_bounces = 0
    render.use_motion_blur = False  # with it Cycles makes no vectors
    render.use_compositing = render.use_sequencer = render.use_border = render.use_stamp = False
    for layer in copy.view_layers[1:]:
        layer.use = False
    layer = copy.view_layers[0]
    layer.use = layer.use_pass_z = layer.use_pass_vector = True
    layer.material_override = None
    compat.set_multilayer_exr(render.image_settings)


def _render(copy: bpy.types.Scene, frame: int, path: Path) -> None:
    copy.render.filepath = str(path)
    try:
        # A scene that no window shows animates nothing, in a render either, unless it is made the context's own and
        # asked for its dependency graph: else every frame was the same (4.5, 5.2).
        with bpy.context.temp_override(scene=copy, view_layer=copy.view_layers[0]):
            bpy.context.evaluated_depsgraph_get()
            copy.frame_set(frame)
            bpy.ops.render.render(write_still=True, scene=copy.name)
    except RuntimeError as error:  # what Blender reported, such as a full disk
        raise BridgeError("guides", f"Frame {frame} of the scene cannot be rendered. {error}".strip()) from error
    if not path.is_file():
        raise BridgeError(
            "guides",
            f"Frame {frame}: Blender rendered nothing.",
            "Was the render stopped? If not, set Koshi > Motion > Source to Camera, Flat and Start From to Prompt.",
        )
