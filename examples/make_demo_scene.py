# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the demo: a small scene whose camera, boat and curves Koshi turns into two seconds of video.

    blender -b -P examples/make_demo_scene.py -- OUT.blend

Koshi must be installed and enabled. Then, to render it and to make a video of it:

    blender -b OUT.blend --command koshi render --save
    blender -b OUT.blend -a
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import bpy
from mathutils import Matrix, Vector

FRAMES = 48
SIZE = 256
TARGET = Vector((0.0, 2.0, 1.4))
# (frame, camera's place, turn about the view in degrees, where it looks beside the target)
CAMERA_KEYS = (
    (1, (0.0, -9.0, 1.6), -3.0, (-0.15, 0.0, 0.0)),
    (25, (0.2, -6.6, 1.6), 1.0, (0.05, 0.0, 0.05)),
    (48, (0.1, -4.6, 1.5), 6.0, (0.15, 0.0, 0.1)),
)
# (x, y, width, height); every window is 0.5 high
TOWERS = (
    (-5.6, 3.0, 1.8, 3.0), (-3.5, 2.2, 1.6, 2.0), (-1.7, 2.8, 1.4, 2.5), (0.1, 2.0, 1.5, 4.0), (1.9, 2.6, 1.5, 2.0),
    (3.6, 2.2, 1.7, 3.0), (5.6, 2.9, 1.6, 2.5), (-0.9, 4.5, 1.8, 3.1), (2.8, 4.6, 1.9, 3.4), (-4.6, 4.8, 1.7, 3.6),
)  # fmt: skip
BOAT_KEYS = ((1, (-1.9, -1.6, 0.0)), (48, (1.1, 0.2, 0.0)))  # it sails by itself
ZOOM_KEYS = ((1, 1.0), (24, 1.004), (48, 1.0))
STRENGTH_KEYS = ((1, 0.35), (4, 0.15), (24, 0.15), (29, 0.5), (34, 0.22), (48, 0.18))
PROMPTS = ((1, "a modern city at sunset, photo"), (25, "a modern city at night, photo"))


def main(path: Path) -> None:
    """Build the scene and save it at `path`."""
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    scene = bpy.context.scene
    scene.name = "Demo"
    if not hasattr(scene, "koshi"):
        sys.exit(
            "Koshi is not enabled: install its zip in Preferences > Get Extensions > Install from Disk first."
        )
    set_up_output(scene)
    add_city(scene)
    add_boat()
    add_camera(scene)
    set_up_koshi(scene)
    scene.frame_set(scene.frame_start)
    path.parent.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(path.resolve()))
    print(f"Saved {path}")


def set_up_output(scene: bpy.types.Scene) -> None:
    """256 x 256 at 24 frames a second; rendering the animation writes an H.264 video beside the .blend."""
    scene.frame_start, scene.frame_end = 1, FRAMES
    render = scene.render
    render.resolution_x = render.resolution_y = SIZE
    render.resolution_percentage = 100
    render.fps, render.fps_base = 24, 1.0
    render.filepath = "//demo.mp4"
    render.use_file_extension = False
    if hasattr(render.image_settings, "media_type"):  # Blender 5.0 and later
        render.image_settings.media_type = 'VIDEO'
    render.image_settings.file_format = 'FFMPEG'
    render.ffmpeg.format = 'MPEG4'
    render.ffmpeg.codec = 'H264'
    render.ffmpeg.constant_rate_factor = 'HIGH'
    render.ffmpeg.audio_codec = 'NONE'
    render.dither_intensity = 0.0
    scene.display_settings.display_device = 'sRGB'
    scene.view_settings.view_transform = 'Standard'


def add_city(scene: bpy.types.Scene) -> None:
    """A row of towers by the water under an evening sky."""
    water = material("Water", (0.03, 0.07, 0.16), roughness=0.12)
    bpy.ops.mesh.primitive_plane_add(size=60.0)
    bpy.context.object.name = "Water"
    bpy.context.object.data.materials.append(water)
    stone = windows(material("Towers", (0.16, 0.12, 0.16), roughness=0.8))
    for i, (x, y, width, height) in enumerate(TOWERS):
        bpy.ops.mesh.primitive_cube_add(size=1.0, location=(x, y, height / 2))
        tower = bpy.context.object
        tower.name = f"Tower {i + 1}"
        tower.scale = (width, 0.9, height)
        bpy.ops.object.transform_apply(location=False, rotation=False, scale=True)  # windows of one size
        tower.data.materials.append(stone)
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", 'SUN'))
    sun.data.energy = 2.0
    sun.data.color = (1.0, 0.6, 0.4)
    sun.rotation_euler = (math.radians(75.0), 0.0, math.radians(30.0))
    scene.collection.objects.link(sun)
    scene.world = sky(bpy.data.worlds.new("Sunset"))


def sky(world: bpy.types.World) -> bpy.types.World:
    """From orange at the horizon to blue."""
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    place, split = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeSeparateXYZ")
    ramp = nodes.new("ShaderNodeValToRGB")
    for position, color in zip((0.0, 0.5), ((1.0, 0.42, 0.16, 1.0), (0.10, 0.16, 0.42, 1.0)), strict=True):
        point = ramp.color_ramp.elements[0 if position == 0.0 else 1]
        point.position, point.color = position, color
    middle = ramp.color_ramp.elements.new(0.16)
    middle.color = (0.72, 0.28, 0.34, 1.0)
    links.new(place.outputs["Generated"], split.inputs[0])
    links.new(split.outputs["Z"], ramp.inputs[0])
    links.new(ramp.outputs[0], next(n for n in nodes if n.type == 'BACKGROUND').inputs["Color"])
    return world


def add_boat() -> None:
    """A small sailing boat that moves by itself."""
    wood, cloth = material("Hull", (0.30, 0.05, 0.03), 0.6), material("Sails", (0.85, 0.75, 0.62), 0.9)
    hull = [(-0.55, 0, 0.22), (0.6, 0, 0.24), (-0.35, -0.14, 0), (0.35, -0.14, 0), (-0.35, 0.14, 0), (0.35, 0.14, 0)]
    sails = [(0.03, 0, 0.26), (0.03, 0, 1.15), (0.5, 0, 0.3), (-0.03, 0, 0.26), (-0.03, 0, 1.0), (-0.45, 0, 0.3)]
    faces = [(0, 2, 3, 1), (0, 1, 5, 4), (0, 4, 2), (1, 3, 5), (2, 4, 5, 3), (6, 7, 8), (9, 11, 10)]
    mesh = bpy.data.meshes.new("Boat")
    mesh.from_pydata(hull + sails, [], faces)
    for made in (wood, cloth):
        mesh.materials.append(made)
    for polygon in mesh.polygons[-2:]:
        polygon.material_index = 1
    boat = bpy.data.objects.new("Boat", mesh)
    bpy.context.scene.collection.objects.link(boat)
    for frame, place in BOAT_KEYS:
        boat.location = place
        boat.keyframe_insert("location", frame=frame)


def material(name: str, color: tuple[float, float, float], roughness: float) -> bpy.types.Material:
    """A plain material that also has its colour in the solid viewport."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = next(n for n in made.node_tree.nodes if n.type == 'BSDF_PRINCIPLED')
    shader.inputs["Base Color"].default_value = made.diffuse_color = (*color, 1.0)
    shader.inputs["Roughness"].default_value = made.roughness = roughness
    return made


def windows(stone: bpy.types.Material) -> bpy.types.Material:
    """Rows of lit windows."""
    nodes, links = stone.node_tree.nodes, stone.node_tree.links
    shader = next(n for n in nodes if n.type == 'BSDF_PRINCIPLED')
    place, bricks = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeTexBrick")
    bricks.offset = 0.0
    bricks.inputs["Color1"].default_value = (1.0, 0.62, 0.25, 1.0)
    bricks.inputs["Color2"].default_value = (0.05, 0.03, 0.05, 1.0)
    bricks.inputs["Mortar"].default_value = (0.0, 0.0, 0.0, 1.0)
    for name, value in (("Scale", 1.0), ("Mortar Size", 0.09), ("Brick Width", 0.4), ("Row Height", 0.5)):
        bricks.inputs[name].default_value = value
    turn = nodes.new("ShaderNodeMapping")
    turn.inputs["Rotation"].default_value = (math.radians(90.0), 0.0, 0.0)
    links.new(place.outputs["Object"], turn.inputs[0])
    links.new(turn.outputs[0], bricks.inputs["Vector"])
    links.new(bricks.outputs["Color"], shader.inputs["Emission Color"])
    shader.inputs["Emission Strength"].default_value = 0.9
    return stone


def add_camera(scene: bpy.types.Scene) -> None:
    """A slow push-in with a turn and a pan, eased by Blender's own Bezier keys."""
    focus = bpy.data.objects.new("Focus", None)
    focus.location = TARGET
    scene.collection.objects.link(focus)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.lens = 35.0
    camera.data.dof.use_dof = True
    camera.data.dof.focus_object = focus
    before = None
    for frame, place, turn, beside in CAMERA_KEYS:
        camera.location = place
        view = (TARGET + Vector(beside) - Vector(place)).to_track_quat('-Z', 'Y').to_matrix()
        rolled = view @ rotation_about_view(turn)
        camera.rotation_euler = rolled.to_euler('XYZ', before) if before else rolled.to_euler('XYZ')
        before = camera.rotation_euler.copy()
        camera.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_euler", frame=frame)


def rotation_about_view(degrees: float) -> Matrix:
    """A rotation about the camera's own view axis."""
    return Matrix.Rotation(math.radians(degrees), 3, 'Z')


def set_up_koshi(scene: bpy.types.Scene) -> None:
    """Curves on top of the camera, and two prompts a second apart."""
    koshi = scene.koshi
    koshi.model = "koshi-tiny"
    koshi.mode = 'BOTH'
    koshi.motion_source = 'EXACT'  # over the scene's own depth, and the boat by its own motion
    koshi.start = 'SCENE'
    koshi.steps = 4
    koshi.seed = 5
    for name, keys in (("zoom", ZOOM_KEYS), ("strength", STRENGTH_KEYS)):
        for frame, value in keys:
            setattr(koshi, name, value)
            koshi.keyframe_insert(name, frame=frame)  # float keys are Bezier by default
    for frame, text in PROMPTS:
        prompt = koshi.prompts.add()
        prompt.frame, prompt.text = frame, text


if __name__ == "__main__":
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if len(arguments) != 1:
        sys.exit("Usage: blender -b -P examples/make_demo_scene.py -- OUT.blend")
    main(Path(arguments[0]))
