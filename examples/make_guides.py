# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the files that guide the examples, from the demo scene played four times as fast.

    blender -b -P examples/make_guides.py

Koshi must be installed and enabled. Writes beside this script:

- motion_camera_depth.koshi.json and its folder: what `koshi sample` writes of the scene, cameras, depth and vectors;
- guides/start.png and guides/depth.png: the first frame, and how near things are in it (white is near);
- guides/clip.mp4: the scene rendered as a film.

With `-- FOLDER` it writes there what tools/motion_pictures.py draws from instead.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import bpy
import numpy as np

HERE = Path(__file__).resolve().parent
GUIDES = HERE / "guides"
SHOT = HERE / "motion_camera_depth.koshi.json"
FRAMES = 12
SMALL, LARGE = (128, 96), (192, 192)  # pixels: of the camera's shot, of everything else
DOCS, DOCS_FRAMES = (384, 256), (5, 6)
NEAREST, FARTHEST = 5.0, 30.0  # scene units, of white and of black in depth.png
PROMPTS = [
    {"frame": 0, "text": "a modern city at sunset, photo"},
    {"frame": 7, "text": "a modern city at night, photo"},
]

sys.path.insert(0, str(HERE))
import make_demo_scene as demo  # noqa: E402 - it lies beside this script
from strip_notes import strip  # noqa: E402 - so does this


def main() -> None:
    """Build the scene and render everything."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "fast.blend")
        GUIDES.mkdir(exist_ok=True)
        keep_small()
        sample(SHOT, SMALL, 1, FRAMES)
        tidy(SHOT)
        sample(Path(folder) / "large.json", LARGE, 1, 1)
        shutil.copy(Path(folder) / "large_guides" / "start.png", GUIDES / "start.png")
        save_depth(Path(folder) / "large_guides" / "geometry_0001.exr", GUIDES / "depth.png")
        render_clip(bpy.context.scene, GUIDES / "clip.mp4")
        made = SHOT.with_name(f"{SHOT.name.removesuffix('.koshi.json')}_guides")
        for picture in (GUIDES / "start.png", GUIDES / "depth.png", *sorted(made.iterdir())):
            strip(picture)


def for_docs(folder: Path) -> None:
    """What tools/motion_pictures.py draws from: some frames, larger, and the last of them as Blender renders it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        build(Path(aside) / "fast.blend")
        sample(folder / "scene.koshi.json", DOCS, *DOCS_FRAMES)
        sample(Path(aside) / "last.json", DOCS, DOCS_FRAMES[1], DOCS_FRAMES[1])
        shutil.copy(Path(aside) / "last_guides" / "start.png", folder / "last.png")


def sample(target: Path, size: tuple[int, int], first: int, last: int) -> None:
    """`koshi sample` of the open scene: the shot and what guides it."""
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = size
    frames = ["--frame-start", str(first), "--frame-end", str(last)]
    if koshi("operators.cli").main(["sample", *frames, "-o", str(target)]):
        sys.exit("Koshi could not write the shot.")


def build(path: Path) -> None:
    """The demo scene in a quarter of its time, open and saved at `path`."""

    def fast(keys: tuple) -> tuple:
        return tuple((1 + round((key[0] - 1) * (FRAMES - 1) / 47), *key[1:]) for key in keys)

    for name in ("CAMERA_KEYS", "BOAT_KEYS", "ZOOM_KEYS", "PROMPTS"):
        setattr(demo, name, fast(getattr(demo, name)))
    demo.FRAMES, demo.STRENGTH_KEYS = FRAMES, ((1, 0.3), (2, 0.4))
    demo.main(path)
    # Through a lens of some width each ray starts elsewhere: near water would seem to move by itself, by .03 pixels.
    bpy.context.scene.camera.data.dof.use_dof = False


def koshi(name: str) -> ModuleType:
    """A module of the installed extension."""
    return importlib.import_module(f"{type(bpy.context.scene.koshi).__module__.split('.panels')[0]}.{name}")


def keep_small() -> None:
    """Paint the scene black where only depth and vectors count: the colours in those files then take no room."""
    compat = koshi("operators.compat")
    set_up = compat.set_multilayer_exr
    black = bpy.data.materials.new("Black")
    black.use_nodes = True
    black.node_tree.nodes.clear()
    output, light = (black.node_tree.nodes.new(f"ShaderNode{kind}") for kind in ("OutputMaterial", "Emission"))
    light.inputs["Strength"].default_value = 0.0
    black.node_tree.links.new(light.outputs[0], output.inputs["Surface"])

    def in_black(settings: bpy.types.ImageFormatSettings) -> None:
        set_up(settings)
        copy = settings.id_data
        copy.world, copy.view_layers[0].material_override = None, black

    compat.set_multilayer_exr = in_black


def tidy(path: Path) -> None:
    """One line for each of the shot's values and cameras, as a person would write it."""
    shot = json.loads(path.read_text())
    cameras = shot["motion"].pop("cameras")
    shot["prompts"] = PROMPTS
    rows = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in shot.items() if name != "motion"]
    lines = ",\n".join("   " + json.dumps(rounded(camera)) for camera in cameras)
    motion = json.dumps(shot["motion"])[1:-1]
    rows.append(f' "motion": {{{motion},\n  "cameras": [\n{lines}\n  ]}}')
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def rounded(camera: dict) -> dict:
    """Blender's single precision without the digits that say nothing."""
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda found: f"{float(found[0]):.7g}", json.dumps(camera))
    return json.loads(text)


def save_depth(exr: Path, png: Path) -> None:
    """The pass Depth as 8-bit grey, even in 1 / depth: what the shot's depth.nearest and .farthest read back."""
    reader = koshi("koshi_backend.exr")
    depth = reader.exr_pass(reader.read_exr(exr), "Depth")
    near = ((1 / depth - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST)).clip(0, 1)
    image = bpy.data.images.new("Depth", *LARGE)
    image.colorspace_settings.name = 'Non-Color'
    pixels = np.ones((LARGE[1], LARGE[0], 4), np.float32)
    pixels[..., :3] = near[::-1, :, None]
    image.pixels.foreach_set(pixels.ravel())
    image.file_format = 'PNG'
    image.save(filepath=str(png))


def render_clip(scene: bpy.types.Scene, path: Path) -> None:
    """The whole scene as an H.264 film."""
    scene.render.engine = 'CYCLES'
    scene.cycles.samples, scene.cycles.use_denoising = 48, True
    scene.render.use_motion_blur = False
    scene.render.filepath = str(path)
    bpy.ops.render.render(animation=True)


if __name__ == "__main__":
    wanted = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    if wanted:
        for_docs(Path(wanted[0]))
    else:
        main()
