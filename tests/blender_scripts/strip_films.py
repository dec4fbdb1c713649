# SPDX-License-Identifier: GPL-3.0-or-later
"""Strips as video input, strips of interpolated takes, and the colours of takes: `-- FOLDER SEED`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

compat, sequencer, state = koshi("operators.compat"), koshi("operators.sequencer"), koshi("operators.state")
sample, strip_alone = koshi("operators.sample"), koshi("operators.strip_alone")
place, seed = arguments()
folder = Path(place)
out: dict[str, Any] = {}


def picture(path: Path, value: int, width: int = 64, height: int = 64) -> None:
    """A PNG file in one colour, with another one in its left half."""
    image = bpy.data.images.new("made", width, height)
    image.colorspace_settings.name = 'Non-Color'
    pixels = np.ones((height, width, 4), np.float32)
    pixels[..., :3] = np.array([value, 255 - value, 60]) / 255
    pixels[:, : width // 2, :3] = np.array([200, 40, value]) / 255
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw, image.file_format = str(path), 'PNG'
    image.save()
    bpy.data.images.remove(image)


def read(path: Path) -> np.ndarray:
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = 'Non-Color'
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return np.rint(pixels.reshape(height, width, 4)[..., :3] * 255).astype(int)


def shown(scene: bpy.types.Scene, frame: int) -> np.ndarray:
    """What the sequencer's output is at a frame, with the scene's own colour settings."""
    scene.frame_set(frame)
    compat.set_png(scene.render.image_settings)
    scene.render.filepath = str(folder / "shown.png")
    bpy.ops.render.render(write_still=True, scene=scene.name)
    return read(folder / "shown.png")


def video(scene: bpy.types.Scene) -> list[Any]:
    settings = scene.koshi
    path = Path(bpy.path.abspath(settings.video))
    return [path.parent.name + "/" + path.name, settings.video_first, settings.video_every, settings.video_last]


def use(strip: Any, **given: Any) -> list[Any]:
    scene.sequence_editor.active_strip = strip
    answer = bpy.ops.koshi.strip_as_video(**given)
    return [*answer, *video(scene)]


scene = empty_scene(64, 64, 4)
scene.frame_start, scene.frame_end = 11, 14
scene.render.dither_intensity = 0.0
bpy.ops.wm.save_as_mainfile(filepath=str(folder / "films.blend"))
scene = bpy.context.scene
settings = scene.koshi
other = bpy.data.scenes.new("Other")
editor = scene.sequence_editor_create()
strips = compat.strips(editor)

# Numbered pictures, as they are and edited.
clip = folder / "clip"
clip.mkdir()
for number in range(5, 25):
    picture(clip / f"p_{number:03}.png", 10 * number)
images = strips.new_image(name="clip", filepath=str(clip / "p_005.png"), channel=1, frame_start=3)
for number in range(6, 25):
    images.elements.append(f"p_{number:03}.png")
out["poll"] = bpy.ops.koshi.strip_as_video.poll()
out["files"] = use(images)
out["over"] = settings.hybrid_over
out["shot"] = sample.shot_from_scene(scene).shot["guides"]
images.transform.scale_x = 0.5
images.color_saturation = 0.8
out["edited"] = use(images, purpose='KEEP')
scene.view_settings.view_transform = 'Standard'
first_seen = shown(scene, 12)
images.transform.scale_x, images.color_saturation = 1.0, 1.0
made = folder / "koshi" / "Scene_video_clip"
out["edited_names"] = sorted(path.name for path in made.iterdir())
out["edited_same"] = int(np.abs(read(made / "0012.png") - first_seen).max())
# A film that is rendered anew stays what it was until all of it is there: Esc leaves it alone.
before = {path.name: path.read_bytes() for path in made.iterdir()}
images.use_flip_x, scene.frame_end = True, 12
steps = koshi("operators.video_input").pictures_of(scene, images, made)
next(steps)
steps.close()
images.use_flip_x, scene.frame_end = False, 14
out["stopped_same"] = before == {path.name: path.read_bytes() for path in made.iterdir()}
out["stopped_left"] = [sorted(path.name for path in made.parent.iterdir()), len(bpy.data.scenes)]
out["files_anyway"] = use(images, pictures='FILE', purpose='KEEP')

# A render of what was not edited has the very pixels, whatever the scene's view and what lies beside it.
scene.view_settings.view_transform = 'AgX'
scene.view_settings.exposure = 0.5
wall = strips.new_effect(
        name="wall", type='COLOR', channel=5, frame_start=1,
    **({"length": 30} if bpy.app.version >= (5, 0) else {"frame_end": 31}),
)  # fmt: skip
editor.channels[1].mute = True  # what the artist does not want to see over the takes
out["rendered"] = use(images, pictures='RENDER', purpose='FLOW')
editor.channels[1].mute = False
out["source"] = settings.motion_source
out["rendered_same"] = [
    int(np.abs(read(made / f"{frame:04}.png") - read(clip / f"p_{frame + 2:03}.png")).max()) for frame in range(11, 15)
]
out["untouched"] = [len(bpy.data.scenes), wall.mute, scene.view_settings.view_transform, scene.render.filepath]

# An effect over two strips, a scene strip.
blur = compat.new_effect(editor, 'GAUSSIAN_BLUR', "blur", 2, 3, 23, images)
out["effect"] = use(blur, purpose='KEEP')[:2]
out["effect_names"] = len(list((folder / "koshi" / "Scene_video_blur").glob("*.png")))
strips.remove(blur)
strips.remove(wall)

# A movie: where it is cut in, at twice the scene's rate, with its end trimmed; Blender itself makes it.
movie_scene = scene.copy()
movie_scene.name = "movie"
movie_scene.view_settings.view_transform, movie_scene.view_settings.exposure = 'Standard', 0.0
movie_scene.frame_start, movie_scene.frame_end = 3, 22
settings_of = movie_scene.render.image_settings
if hasattr(settings_of, "media_type"):
    settings_of.media_type = 'VIDEO'
settings_of.file_format = 'FFMPEG'
movie_scene.render.ffmpeg.format = 'MPEG4'
movie_scene.render.filepath = str(folder / "film.mp4")
bpy.ops.render.render(animation=True, scene="movie")
bpy.data.scenes.remove(movie_scene)
compat.set_png(scene.render.image_settings)
movie = strips.new_movie(name="movie", filepath=str(folder / "film.mp4"), channel=3, frame_start=9)
compat.set_strip_range(movie, 10, 20)
out["movie"] = use(movie, purpose='MIX')
out["mix"] = settings.hybrid_composite
compat.set_strip_range(movie, 10, 13)
out["movie_short"] = use(movie, purpose='KEEP')
movie.use_flip_x = True
out["movie_flipped"] = use(movie, purpose='KEEP')[:2]
compat.set_strip_range(movie, 10, 20)
scene.frame_step = 2
movie.use_flip_x = False
out["movie_step"] = use(movie, purpose='KEEP')
scene.frame_step = 1
inside = compat.strips(other.sequence_editor_create()).new_image(
    name="inside", filepath=str(clip / "p_010.png"), channel=1, frame_start=1
)
for number in (11, 12, 13):
    inside.elements.append(f"p_{number:03}.png")
other.frame_end, other.view_settings.view_transform = 4, 'Standard'
inner = strips.new_scene(name="inner", scene=other, channel=4, frame_start=11)
inner.scene_input = 'SEQUENCER'
scene.frame_end = 13
out["scene_strip"] = use(inner, purpose='KEEP')[:2]
seen = [read(folder / "koshi" / "Scene_video_inner" / f"{11 + k:04}.png") for k in range(3)]
out["scene_strip_same"] = [int(np.abs(one - read(clip / f"p_{10 + k:03}.png")).max()) for k, one in enumerate(seen)]
scene.frame_end = 14
for strip in (images, movie, inner):
    strips.remove(strip)
bpy.data.scenes.remove(other)

# A take, its colours, and an interpolated version of it.
for name in ("video_source", "hybrid_over", "hybrid_composite", "motion_source"):
    settings.property_unset(name)
settings.steps, settings.seed, settings.mode, settings.zoom, settings.prompts[0].frame = 1, int(seed), 'START', 1.03, 11
scene.view_settings.view_transform, scene.view_settings.exposure = 'AgX', 0.0
bpy.ops.koshi.render()
(take,) = strips
pixels = {11 + k: read(Path(bpy.path.abspath(take.directory)) / one.filename) for k, one in enumerate(take.elements)}
out["take_view"] = scene.view_settings.view_transform
out["take_off"] = [int(np.abs(shown(scene, frame) - pixels[frame]).max()) for frame in pixels]
# Beside strips that are there already the view is the artist's own: one button makes it right.
scene.view_settings.view_transform, scene.view_settings.exposure = 'AgX', 0.25
out["graded_off"] = int(np.abs(shown(scene, 12) - pixels[12]).max())
out["exact"] = list(bpy.ops.koshi.exact_colors())
out["exact_off"] = [int(np.abs(shown(scene, frame) - pixels[frame]).max()) for frame in pixels]

compat.set_content_start(take, 31)
compat.set_strip_range(take, 32, 35)
editor.active_strip = take
out["between"] = list(bpy.ops.koshi.interpolated_strip(factor='4'))
done = state.status
out["between_status"] = [done.phase, done.made, done.stored, done.frames, done.error]
speed = editor.active_strip
long = speed.input_1 if speed is not None and speed.type == 'SPEED' else None
out["aligned"] = [compat.strip_range(speed), compat.strip_range(long), len(long.elements), speed.speed_factor]
take.mute = True
out["aligned_off"] = [int(np.abs(shown(scene, 32 + k) - pixels[12 + k]).max()) for k in range(3)]
speed.speed_factor = 2.0
half = read(Path(bpy.path.abspath(long.directory)) / long.elements[6].filename)
out["slower_off"] = int(np.abs(shown(scene, 33) - half).max())
out["half_is_new"] = int(min(np.abs(half - one).max() for one in pixels.values()))
editor.active_strip = take
out["slow"] = list(bpy.ops.koshi.interpolated_strip(factor='4', playing='SLOW'))
slow = editor.active_strip
out["slow_range"] = [compat.strip_range(slow), slow.elements[0].filename, state.status.made]
# A handle that is dragged beyond the pictures, or to where none is seen any more: every file is there all the same.
footage = sequencer.Footage("f" * 64, Path(bpy.path.abspath(slow.directory)), 11, 13, 1, 4)
out["beyond"] = []
for left, right in ((27, 35), (40, 45)):
    compat.set_strip_range(take, left, right)
    laid = koshi("operators.between_strip").lay(scene, take.name, footage, slow=True)
    files = [footage.folder / one.filename for one in laid.elements]
    out["beyond"].append([laid.elements[0].filename, compat.strip_range(laid)[0], all(map(Path.is_file, files))])
    strips.remove(laid)
# More pictures than one strip takes without Blender standing still: several in a meta strip, to be used as one.
compat.set_strip_range(take, 32, 35)
sequencer.LONGEST, out["many"] = 5, []
for slow in (False, True):
    laid = koshi("operators.between_strip").lay(scene, take.name, footage, slow=slow)
    meta = laid if slow else laid.input_1
    inner = sorted(compat.strips(meta), key=lambda one: compat.strip_range(one)) if meta.type == 'META' else []
    out["many"].append([
        meta.type, compat.strip_range(laid), compat.strip_range(meta), [len(one.elements) for one in inner],
        meta.get("koshi_between") == footage.digest,
    ])  # fmt: skip
    if not slow:
        meta.blend_type = laid.blend_type = 'REPLACE'
        out["many_off"] = [int(np.abs(shown(scene, 32 + k) - pixels[12 + k]).max()) for k in range(3)]
        compat.set_strip_range(meta, 31, 40)  # beyond the frames that the take has left of it
        laid.speed_factor = 2.0
        last = read(footage.folder / inner[-1].elements[0].filename)
        out["many_last"] = int(np.abs(shown(scene, 39) - last).max())
    for one in (laid, meta) if not slow else (laid,):
        strips.remove(one)
sequencer.LONGEST = 1000
# Every third frame only: four pictures take as long as three frames.
laid = koshi("operators.between_strip").lay(
    scene, take.name, sequencer.Footage("e" * 64, footage.folder, 11, 13, 3, 4), slow=False
)
out["stepped_speed"] = [round(laid.speed_factor, 4), compat.strip_range(laid)]
for one in (laid, laid.input_1):
    strips.remove(one)
out["takes"] = [[one.shown, one.places] for one in sequencer.takes(scene)]

# From 5.0 on a sequencer may show another scene than the window: its button is about that one.
window, out["shown_scene"] = bpy.context.window, None
if hasattr(window.workspace, "sequencer_scene"):
    cut = bpy.data.scenes.new("Cut")
    cut.view_settings.view_transform = scene.view_settings.view_transform = 'AgX'
    area, window.workspace.sequencer_scene = window.screen.areas[0], cut
    area.type = 'SEQUENCE_EDITOR'
    with bpy.context.temp_override(window=window, area=area):
        bpy.ops.koshi.exact_colors()
    out["shown_scene"] = [cut.view_settings.view_transform, scene.view_settings.view_transform]
result(out)
