# SPDX-License-Identifier: GPL-3.0-or-later
"""New Koshi Project: a file that renders at once, to change from there."""

from __future__ import annotations

import math
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty
from mathutils import Vector

from . import engine_colors, markers, project_workspace

FRAMES, SIZE = 48, 256  # two seconds in the size that koshi-tiny is best at
TOWERS = (  # x, y, width, height
    (-5.2, 3.2, 1.8, 3.0), (-3.2, 2.4, 1.5, 2.1), (-1.4, 3.0, 1.4, 3.4), (0.4, 2.4, 1.4, 4.4), (2.1, 3.0, 1.5, 2.6),
    (3.8, 2.4, 1.6, 3.3), (5.6, 3.2, 1.7, 2.2),
)  # fmt: skip
CAMERA_KEYS = ((1, (-0.4, -9.0, 1.6)), (FRAMES, (0.3, -5.0, 1.5)))
TARGET = Vector((0.2, 2.4, 1.7))
# Low at first: at .65 koshi-tiny paints windows all over the water, and every later frame keeps them.
STRENGTH_KEYS = ((1, 0.35), (4, 0.15), (24, 0.15), (29, 0.5), (34, 0.22), (48, 0.18))
PROMPTS = ((1, "a modern city at sunset, photo"), (25, "a modern city at night, photo"))


class KOSHI_OT_new_project(bpy.types.Operator):
    """Begin a new file that Koshi can render at once: a stage with a keyed camera, two prompts, and a workspace"""

    bl_idname = "koshi.new_project"
    bl_label = "New Koshi Project"

    stage: EnumProperty(
        name="Stage",
        description="What is in the scene",
        items=(
            ('BLOCKS', "Blocks by the Water", "A row of towers, to be replaced by things of your own"),
            ('EMPTY', "Only a Camera", "Nothing to see: the pictures come from the prompt alone"),
        ),
        default='BLOCKS',
    )
    use_workspace: BoolProperty(
        name="Workspace",
        description="Add a workspace with the camera's view, the sequencer and its preview",
        default=True,
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not bpy.data.is_dirty:
            return self.execute(context)
        return context.window_manager.invoke_confirm(
            self, event, title="New Koshi Project", message="What this file has that is not saved will be lost",
            confirm_text="New Project", icon='WARNING',
        )  # fmt: skip

    def execute(self, context: bpy.types.Context) -> set[str]:
        stage, workspace = self.stage, self.use_workspace  # loading a file takes the operator's own away
        bpy.ops.wm.read_homefile('EXEC_DEFAULT', use_empty=True)
        window = bpy.context.window_manager.windows[0]  # the context has lost its own
        with bpy.context.temp_override(window=window):
            set_up(window.scene, stage == 'BLOCKS')
            if workspace:
                project_workspace.add(window.scene)
        return {'FINISHED'}


def set_up(scene: bpy.types.Scene, blocks: bool) -> None:
    """Make a scene ready to render: output, camera, curves, prompts, sequencer; with towers or with nothing to see."""
    scene.name = "Koshi"
    scene.frame_start, scene.frame_end = 1, FRAMES
    render = scene.render
    render.resolution_x = render.resolution_y = SIZE
    render.resolution_percentage = 100
    render.fps, render.fps_base = 24, 1.0
    engine_colors.make_exact(scene)
    if blocks:
        _add_blocks(scene)
    _add_camera(scene)
    koshi = scene.koshi
    koshi.motion_source, koshi.start = ('EXACT', 'SCENE') if blocks else ('CAMERA', 'PROMPT')
    for frame, value in STRENGTH_KEYS:
        koshi.strength = value
        koshi.keyframe_insert("strength", frame=frame)
    for frame, text in PROMPTS:
        prompt = koshi.prompts.add()
        prompt.frame, prompt.text = frame, text
    markers.show_all(scene)
    scene.sequence_editor_create()
    scene.frame_set(scene.frame_start)


def _add_camera(scene: bpy.types.Scene) -> None:
    """A camera that pushes in, looking at the middle; its focus is there, for flat motion."""
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.lens = 35.0
    for frame, place in CAMERA_KEYS:
        camera.location = place
        camera.rotation_euler = (TARGET - Vector(place)).to_track_quat('-Z', 'Y').to_euler()
        camera.data.dof.focus_distance = (TARGET - Vector(place)).length
        camera.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_euler", frame=frame)


def _add_blocks(scene: bpy.types.Scene) -> None:
    water = _plate("Water", (0.05, 0.10, 0.20), 0.15)
    _add_mesh(scene, water, [(-40, -40, 0), (40, -40, 0), (40, 40, 0), (-40, 40, 0)], [(0, 1, 2, 3)])
    stone = _plate("Towers", (0.22, 0.16, 0.20), 0.8)
    for x, y, width, height in TOWERS:
        lower, upper, depth = x - width / 2, x + width / 2, 0.5
        corners = [(cx, cy, cz) for cz in (0.0, height) for cy in (y - depth, y + depth) for cx in (lower, upper)]
        _add_mesh(scene, stone, corners, [(0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5), (4, 5, 7, 6)])
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", 'SUN'))
    sun.data.energy, sun.data.color = 3.0, (1.0, 0.65, 0.45)
    sun.rotation_euler = (math.radians(65.0), 0.0, math.radians(30.0))
    scene.collection.objects.link(sun)
    world = scene.world = bpy.data.worlds.new("Sunset")
    world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == 'BACKGROUND')
    background.inputs["Color"].default_value = (0.80, 0.36, 0.26, 1.0)
    background.inputs["Strength"].default_value = 0.7


def _plate(name: str, color: tuple[float, float, float], roughness: float) -> bpy.types.Material:
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = next(node for node in made.node_tree.nodes if node.type == 'BSDF_PRINCIPLED')
    shader.inputs["Base Color"].default_value = made.diffuse_color = (*color, 1.0)
    shader.inputs["Roughness"].default_value = roughness
    return made


def _add_mesh(scene: bpy.types.Scene, material: Any, corners: list[Any], faces: list[Any]) -> None:
    mesh = bpy.data.meshes.new(material.name)
    mesh.from_pydata(corners, [], faces)
    mesh.materials.append(material)
    scene.collection.objects.link(bpy.data.objects.new(material.name, mesh))


# The menu


def _draw_new(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.operator_context = 'INVOKE_DEFAULT'
    menu.layout.operator(KOSHI_OT_new_project.bl_idname, text="Koshi Project", icon='SEQ_STRIP_DUPLICATE')


def register() -> None:
    """Add the operator, and File > New > Koshi Project."""
    bpy.utils.register_class(KOSHI_OT_new_project)
    bpy.types.TOPBAR_MT_file_new.append(_draw_new)


def unregister() -> None:
    """Remove them, and what still arranges a window."""
    project_workspace.stop()
    bpy.types.TOPBAR_MT_file_new.remove(_draw_new)
    bpy.utils.unregister_class(KOSHI_OT_new_project)
