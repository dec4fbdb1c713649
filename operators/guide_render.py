# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendering guides in this very Blender, a frame at a time.

Depth, motion and mask come from a throw-away copy of the scene, rendered by Cycles with one sample through the centre
of each pixel: the depth equals a ray cast to 3e-6. The artist's scene stays untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..bridge_server.protocol import BridgeError
from . import compat
from .camera import STATE, picture_size
from .guide_keys import Look, Looks, is_current, key_of, remember
from .raycast import write_depth

GEOMETRY, DEPTH, CLAY, SCENE, START = "geometry", "depth", "clay", "scene", "start"
_ENDING = {GEOMETRY: ".exr", DEPTH: ".npy"}
_SAMPLES = {START: 64, SCENE: 16, CLAY: 16}
_OWN = ("BLENDER_EEVEE", "BLENDER_EEVEE_NEXT", "BLENDER_WORKBENCH")
_LARGEST_MAP = 900  # of Blender's time stretching


@dataclass(frozen=True)
class GuideJob:
    """What to render. frames, starts: scene frames; starts are those that need a picture to start from.

    step: scene frames from one to the next, over which the motion goes. kinds: of GEOMETRY, DEPTH, CLAY, SCENE, START.
    mask: a collection's name, or "". width, height: pixels. still: the camera stands still while a frame's motion is
    rendered (compat.vectors_seen). own_engine: whether pictures may come from an engine that
    needs a GPU; else Cycles stands in for it. threads: of Cycles; 0 as the scene says.
    """

    scene: str
    folder: str
    frames: list[int]
    step: int
    starts: list[int]
    kinds: list[str]
    mask: str
    width: int
    height: int
    still: bool = False
    own_engine: bool = False
    threads: int = 0

    def path(self, kind: str, frame: int) -> Path:
        """The file of a frame, as Blender and `frame_file` number them."""
        return Path(self.folder) / f"{kind}_{frame:04d}{_ENDING.get(kind, '.png')}"


def render_job(job: GuideJob) -> Iterator[str]:
    """Render what is not there already; yields a line for a person after each frame. Raises BridgeError "guides"."""
    scene = bpy.data.scenes.get(job.scene)
    if scene is None:
        raise BridgeError("guides", f'The scene "{job.scene}" is gone.', "Start the render again.")
    made = 0
    with ExitStack() as stack:
        looks = stack.enter_context(Looks.on(stack.enter_context(_copied(scene))))
        stack.enter_context(_marked(scene, job.mask))
        stages: dict[str, _Stage] = {}
        reach = job.step if GEOMETRY in job.kinds else 0
        for count, frame in enumerate(job.frames, 1):
            seen = [looks.at(k) for k in sorted({frame - reach, frame, frame + reach})]
            now = seen[len(seen) // 2]
            for kind in job.kinds:
                if kind == START and frame not in job.starts:
                    continue
                path = job.path(kind, frame)
                key = _key(job, kind, now, seen)
                if is_current(path, key):
                    continue
                if kind not in stages:
                    stages[kind] = _Stage(stack.enter_context(_copied(scene)), kind, job, stack)
                stages[kind].render(frame, now, path)
                remember(path, key)
                made += 1
            told = iface_("Guides: {} of {} frames") if made else iface_("Guides: {} of {} frames, nothing has changed")
            yield told.format(count, len(job.frames))


class _Stage:
    """A copy of the scene, set up for one kind of render."""

    def __init__(self, copy: bpy.types.Scene, kind: str, job: GuideJob, stack: ExitStack) -> None:
        self.copy, self.kind, self.job, self._stack = copy, kind, job, stack
        self._pinholes: dict[str, bpy.types.Object] = {}
        _tidy(copy, job)
        _SET_UP[kind](copy, job, stack)

    def render(self, frame: int, now: Look, path: Path) -> None:
        """Render a scene frame to `path`, by the camera that looks there."""
        copy, step = self.copy, self.job.step
        copy.camera = now.camera if self.kind in (START, SCENE) or self.job.still else self._pinhole(now.camera)
        # A scene that no window shows animates nothing, in a render either, unless it is made the context's own and
        # asked for its dependency graph: else every frame was the same (4.5, 5.2).
        with bpy.context.temp_override(scene=copy, view_layer=copy.view_layers[0]):
            depsgraph = bpy.context.evaluated_depsgraph_get()
            if self.kind == GEOMETRY and step > 1:
                # Cycles' vectors go to the next frame; with stretched time that is the one `step` further.
                part = Fraction(frame, step)
                copy.frame_set(part.numerator // part.denominator, subframe=float(part % 1))
            else:
                copy.frame_set(frame)
            if self.kind == GEOMETRY and self.job.still:
                copy.camera = self._standing(now.camera.evaluated_get(depsgraph))
            if self.kind == DEPTH:
                write_depth(copy, depsgraph, path)
                return
            copy.render.filepath = str(path)
            try:
                bpy.ops.render.render(write_still=True, scene=copy.name)
            except RuntimeError as error:  # what Blender reported, such as a full disk
                raise BridgeError(
                    "guides", f"Frame {frame} of the scene cannot be rendered. {error}".strip()
                ) from error
        if not path.is_file():
            raise BridgeError(
                "guides",
                f"Frame {frame}: Blender rendered nothing.",
                "Was the render stopped? If not, set Koshi > Motion > Source to Camera, Flat and Start From to Prompt.",
            )

    def _standing(self, camera: bpy.types.Object) -> bpy.types.Object:
        """A camera without depth of field that stands where an evaluated one does now, and does nothing else."""
        made = self._pinholes.get("")
        if made is None:
            data = camera.original.data.copy()
            data.animation_data_clear()
            data.dof.use_dof = False
            made = self._pinholes[""] = bpy.data.objects.new(".koshi_still", data)
            self._stack.callback(_forget_camera, made)
        for name in (*STATE, "type", "sensor_fit"):
            setattr(made.data, name, getattr(camera.data, name))
        made.matrix_world = camera.matrix_world.normalized()
        return made

    def _pinhole(self, camera: bpy.types.Object) -> bpy.types.Object:
        """The same camera, its animation included, without depth of field: that lets rays begin all over the lens, and
        near things were .03 px beside their place."""
        name = camera.name_full
        if not camera.data.dof.use_dof:
            return camera
        if name not in self._pinholes:
            made = camera.copy()
            made.data = camera.data.copy()
            made.data.dof.use_dof = False
            self._pinholes[name] = made
            self._stack.callback(_forget_camera, made)
        return self._pinholes[name]


def _key(job: GuideJob, kind: str, now: Look, seen: list[Look]) -> str:
    """What a file of this kind depends on."""
    if kind == GEOMETRY:
        return key_of(kind, job.width, job.height, job.step, job.mask, job.still, *(look.digest for look in seen))
    # Not on the engine: what a window has rendered with its GPU counts for a farm's processors, too.
    return key_of(kind, job.width, job.height, now.digest)


@contextmanager
def _copied(scene: bpy.types.Scene) -> Iterator[bpy.types.Scene]:
    copy = scene.copy()
    copy.name = ".koshi_guides"
    try:
        yield copy
    finally:
        bpy.data.scenes.remove(copy)


def _forget_camera(made: bpy.types.Object) -> None:
    data = made.data
    bpy.data.objects.remove(made)
    bpy.data.cameras.remove(data)


@contextmanager
def _marked(scene: bpy.types.Scene, collection: str) -> Iterator[None]:
    """Give the objects of a collection the pass index 1 and all others 0, as long as this lasts."""
    chosen = bpy.data.collections.get(collection)
    wanted = {} if chosen is None else {item: 1 for item in chosen.all_objects}
    changed = {
        item: item.pass_index for item in scene.objects if chosen and item.pass_index != wanted.get(item, 0)
    }
    for item in changed:
        item.pass_index = wanted.get(item, 0)
    try:
        yield
    finally:
        for item, index in changed.items():
            item.pass_index = index


def _tidy(copy: bpy.types.Scene, job: GuideJob) -> None:
    """Nothing but the scene, whole: what Koshi paints has no border, no strips and no stamp."""
    render = copy.render
    render.use_compositing = render.use_sequencer = render.use_border = False
    render.use_multiview = render.use_single_layer = False
    render.use_overwrite, render.use_placeholder, render.use_file_extension = True, False, False
    for name in dir(render):
        if name.startswith("use_stamp"):  # else files hold the date, and no two are the same
            setattr(render, name, False)
    if picture_size(copy) != (job.width, job.height):  # a preview's
        render.resolution_x, render.resolution_y, render.resolution_percentage = job.width, job.height, 100
    if job.threads:
        render.threads_mode, render.threads = 'FIXED', job.threads
    # The camera is told for each frame: in stretched time the markers would be at other frames.
    copy.timeline_markers.clear()
    for layer in copy.view_layers[1:]:
        layer.use = False
    copy.view_layers[0].use = True


def _set_up_geometry(copy: bpy.types.Scene, job: GuideJob, stack: ExitStack) -> None:
    render, cycles, layer = copy.render, copy.cycles, copy.view_layers[0]
    render.engine = 'CYCLES'
    cycles.device = 'CPU'
    cycles.samples = 1
    cycles.use_adaptive_sampling = cycles.use_denoising = False
    cycles.pixel_filter_type, cycles.filter_width = 'BOX', 0.01  # the centre of the pixel, and nothing else
    cycles.max_bounces = 0
    render.use_motion_blur = False  # with it Cycles makes no vectors
    layer.use_pass_z = layer.use_pass_vector = True
    layer.use_pass_object_index = bool(job.mask)
    layer.material_override = None
    compat.set_multilayer_exr(render.image_settings)
    if job.step > 1:
        stretched = Fraction(render.frame_map_old * job.step, render.frame_map_new)
        if max(stretched.numerator, stretched.denominator) > _LARGEST_MAP:
            raise BridgeError(
                "guides",
                f"Koshi cannot render the scene's motion over {job.step} frames of stretched time.",
                "Choose a smaller frame step in Output Properties, or set Time Stretching back to 100 and 100.",
            )
        render.frame_map_old, render.frame_map_new = stretched.numerator, stretched.denominator


def _set_up_depth(copy: bpy.types.Scene, job: GuideJob, stack: ExitStack) -> None:
    pass


def _set_up_picture(copy: bpy.types.Scene, job: GuideJob, stack: ExitStack, kind: str) -> None:
    """The scene's own look, quickly: by its own engine where that may run, else by Cycles, which runs everywhere."""
    render, samples = copy.render, _SAMPLES[kind]
    if render.engine != 'CYCLES' and not (job.own_engine and render.engine in _OWN):
        render.engine = 'CYCLES'
        copy.cycles.samples = samples
        copy.cycles.use_denoising = False
    copy.cycles.samples = min(copy.cycles.samples, samples)
    if hasattr(copy.eevee, "taa_render_samples"):
        copy.eevee.taa_render_samples = min(copy.eevee.taa_render_samples, samples)
    render.film_transparent = False
    _plain_view(copy)
    compat.set_png(render.image_settings)


def _set_up_clay(copy: bpy.types.Scene, job: GuideJob, stack: ExitStack) -> None:
    """All in one grey, lit by the scene's lights and by a grey sky: shapes, and nothing of what they are made of."""
    render, cycles = copy.render, copy.cycles
    render.engine = 'CYCLES'
    cycles.device = 'CPU'
    cycles.samples = _SAMPLES[CLAY]
    cycles.use_adaptive_sampling = cycles.use_denoising = False
    cycles.max_bounces = 1
    render.use_motion_blur = render.film_transparent = False
    clay, sky = bpy.data.materials.new(".koshi_clay"), bpy.data.worlds.new(".koshi_sky")
    stack.callback(bpy.data.materials.remove, clay)
    stack.callback(bpy.data.worlds.remove, sky)
    sky.color = (0.5, 0.5, 0.5)
    for node in sky.node_tree.nodes if sky.node_tree else ():  # from 5.0 on a world always has nodes
        if node.type == 'BACKGROUND':
            node.inputs["Color"].default_value = (0.5, 0.5, 0.5, 1.0)
    copy.view_layers[0].material_override, copy.world = clay, sky
    _plain_view(copy)
    compat.set_png(render.image_settings)


def _plain_view(copy: bpy.types.Scene) -> None:
    """The Standard view, whatever the scene's: Koshi's strips and engine set it, and a shot must stay the same."""
    view = copy.view_settings
    view.exposure, view.gamma, view.use_curve_mapping = 0.0, 1.0, False
    copy.render.dither_intensity = 0.0
    try:
        view.view_transform, view.look = 'Standard', 'None'
    except TypeError:
        pass  # a colour configuration of the studio's own


_SET_UP: dict[str, Callable[[bpy.types.Scene, GuideJob, ExitStack], None]] = {
    GEOMETRY: _set_up_geometry,
    DEPTH: _set_up_depth,
    CLAY: _set_up_clay,
    SCENE: lambda copy, job, stack: _set_up_picture(copy, job, stack, SCENE),
    START: lambda copy, job, stack: _set_up_picture(copy, job, stack, START),
}
