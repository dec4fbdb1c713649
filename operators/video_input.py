# SPDX-License-Identifier: GPL-3.0-or-later
"""Use Strip as Video Input: what the sequencer shows becomes the film that Koshi paints over, mixes in or follows.

A movie, or numbered pictures, that nothing was done to are used as they are, from the frame that lies under the
scene's first one. Everything else (effects, scenes, meta strips, what was scaled, cropped, graded or played at another
speed) is rendered to pictures first, one for each frame of the scene's range, just as the sequencer shows it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty

from ..bridge_server.protocol import BridgeError
from . import camera, compat, engine_colors, media, sequencer, shot_fields, state, strip_alone
from .take_operators import active_strip

TICK = 0.01  # seconds between two frames that are rendered in the window
_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)")
_NO_PICTURE = ('SOUND',)


@dataclass(frozen=True)
class Film:
    """A film for a shot: its file or pattern, and which of its frames. last: -1 for its end."""

    file: str
    first: int = 0
    every: int = 1
    last: int = -1


def as_it_is(scene: bpy.types.Scene, strip: Any) -> Film | None:
    """The strip's own film, if a shot can use its very files; else None."""
    if strip.type not in ('IMAGE', 'MOVIE') or _is_edited(strip):
        return None
    return _movie(scene, strip) if strip.type == 'MOVIE' else _pictures(scene, strip)


def _movie(scene: bpy.types.Scene, strip: Any) -> Film | None:
    rate = _rate(scene, strip)
    path = bpy.path.abspath(strip.filepath)
    begin = (scene.frame_start - compat.content_start(strip)) * (rate or 0) + strip.animation_offset_start
    if rate is None or begin < 0 or begin != int(begin) or Path(path).suffix.lower() not in shot_fields.VIDEOS:
        return None
    last, right = -1, compat.strip_range(strip)[1]
    if scene.frame_end >= right:  # what is trimmed away is not used
        last = int(begin) + max(right - 1 - scene.frame_start, 0) * rate
    return Film(path, int(begin), rate * max(scene.frame_step, 1), last)


def _pictures(scene: bpy.types.Scene, strip: Any) -> Film | None:
    """Numbered pictures whose numbers go on as the scene's frames do."""
    found = [_NUMBERED.fullmatch(element.filename) for element in strip.elements]
    if not found or found[0] is None:
        return None
    stem, digits, suffix = found[0].groups()
    names = (f"{stem}{int(digits) + k:0{len(digits)}d}{suffix}" for k in range(len(found)))
    if any(element.filename != name for element, name in zip(strip.elements, names, strict=True)):
        return None
    step = max(scene.frame_step, 1)
    ahead = int(digits) + strip.animation_offset_start - compat.content_start(strip)
    if ahead < 0 or ahead % step:
        return None
    return Film(str(Path(bpy.path.abspath(strip.directory)) / (stem + "#" * len(digits) + suffix)), int(ahead / step))


def _rate(scene: bpy.types.Scene, strip: Any) -> int | None:
    """How many of a movie's frames go by in one of the scene's; None where that is no whole number."""
    left, right = compat.strip_range(strip)
    shown = right - left + strip.frame_offset_start + strip.frame_offset_end
    if abs(shown - strip.frame_duration) < 0.5:
        return 1
    rate = strip.fps / (scene.render.fps / scene.render.fps_base)
    return round(rate) if rate > 1.5 and abs(rate - round(rate)) < 1e-4 else None


def _is_edited(strip: Any) -> bool:
    """Whether a strip shows its files otherwise than they are."""
    place, crop = strip.transform, strip.crop
    return (
        any((place.offset_x, place.offset_y, place.rotation, place.scale_x != 1.0, place.scale_y != 1.0))
        or any((crop.min_x, crop.max_x, crop.min_y, crop.max_y))
        or any((strip.use_flip_x, strip.use_flip_y, strip.use_reverse_frames, strip.use_deinterlace))
        or any((strip.color_saturation != 1.0, strip.color_multiply != 1.0, strip.strobe > 1.0))
        or any(not one.mute for one in strip.modifiers)
        or len(getattr(strip, "retiming_keys", ())) > 0
    )


def pictures_of(scene: bpy.types.Scene, strip: Any, folder: Path) -> Iterator[float]:
    """Render what the sequencer shows of a strip, alone, for the frames of the scene's range, to numbered pictures in
    a folder; yields how far it is, 0 to 1, after each. Pictures that are there stay until all are made.

    Raises BridgeError "no_pictures"."""
    step = max(scene.frame_step, 1)
    frames = range(scene.frame_start, scene.frame_end + 1, step)
    try:
        with _in_place_of(folder) as aside, strip_alone.alone(scene, strip) as (copy, mine):
            # Nothing is under it; what it leaves open is black.
            mine.blend_type = 'ALPHA_OVER' if mine.type in ('IMAGE', 'MOVIE', 'SCENE') else 'REPLACE'
            _to_png(copy)
            copy.render.filepath = str(aside / "####")
            for k, frame in enumerate(frames):
                # As an animation of one frame: a scene that no window shows does not go to a frame otherwise.
                copy.frame_start, copy.frame_end, copy.frame_step = frame, frame, 1
                try:
                    bpy.ops.render.render(animation=True, scene=copy.name)
                except RuntimeError as error:
                    told = f'"{strip.name}" cannot be rendered at frame {frame}: {error}'.strip()
                    raise BridgeError("no_pictures", told) from error
                if not (aside / f"{frame:04d}.png").is_file():
                    told = f'Blender has written no picture of "{strip.name}" at frame {frame}.'
                    raise BridgeError("no_pictures", told)
                yield (k + 1) / len(frames)
    except OSError as error:
        raise BridgeError(
            "no_pictures", f"The folder {folder} cannot be written to: {error.strerror}.", "Save the .blend elsewhere."
        ) from error


@contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """A new folder to write pictures to; those of `folder` give way to them if all goes well, and only then: who
    presses Esc, or whose disk is full, still has the film that the scene names."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}_", dir=folder.parent))
    try:
        yield aside
        folder.mkdir(exist_ok=True)
        made = {file.name for file in aside.glob("*.png")}
        for name in made:
            os.replace(aside / name, folder / name)
        for old in folder.glob("*.png"):  # of another range
            if old.name not in made:
                old.unlink()
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_png(scene: bpy.types.Scene) -> None:
    """Render a scene's strips at its size, to PNG files that hold the strips' very colours."""
    render = scene.render
    width, height = camera.picture_size(scene)
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
    render.use_sequencer, render.use_compositing, render.use_border = True, False, False
    render.use_stamp, render.use_multiview, render.use_file_extension = False, False, True
    render.use_overwrite, render.use_placeholder = True, False
    compat.set_png(render.image_settings)
    render.image_settings.color_management = 'FOLLOW_SCENE'
    engine_colors.make_exact(scene)


def use(scene: bpy.types.Scene, film: Film, purpose: str) -> None:
    """Make a film the video of a scene's shot. purpose: one of the operator's."""
    settings = scene.koshi
    settings.video_source, settings.video = 'FILE', media.relative(film.file)
    settings.video_first, settings.video_every, settings.video_last = film.first, film.every, film.last
    if purpose in ('OVER', 'FIRST'):
        settings.hybrid_over = "every" if purpose == 'OVER' else "first"
    elif purpose == 'MIX':
        settings.hybrid_composite = "normal"
    elif purpose == 'FLOW':
        settings.motion_source = 'FLOW'


class KOSHI_OT_strip_as_video(bpy.types.Operator):
    """Let Koshi paint over this strip, mix it in or follow its motion: it becomes the film in Koshi's panel Video.
    Strips that were edited, effects and scenes are rendered to pictures first"""

    bl_idname = "koshi.strip_as_video"
    bl_label = "Use Strip as Video Input"
    bl_options = {'REGISTER', 'UNDO'}

    purpose: EnumProperty(
        name="For",
        description="What Koshi does with it",
        items=(
            ('OVER', "Paint Over Every Frame", "Each frame is painted over the strip's own"),
            ('FIRST', "Paint Over the First Frame", "The first frame, and the one after a cut, begins in the strip's"),
            ('FLOW', "Follow Its Motion", "Every pixel moves as it does in the strip"),
            ('MIX', "Mix It In", "The strip's picture is mixed into each frame before it is painted"),
            ('KEEP', "Leave That as It Is", "Only the film is another one"),
        ),
        default='OVER',
    )
    pictures: EnumProperty(
        name="Pictures",
        description="Which pictures Koshi gets",
        items=(
            ('AUTO', "As They Are Seen", "The strip's own files where nothing was done to them, else a render"),
            ('FILE', "The Files", "The strip's own files, without what was done to them"),
            ('RENDER', "Render", "A render of the strip, as the sequencer shows it"),
        ),
        default='AUTO',
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        strip = active_strip(context)
        if strip is None or strip.type in _NO_PICTURE:
            cls.poll_message_set("Select a strip with pictures: a movie, images, a scene or an effect")
            return False
        return state.idle(cls) and compat.may_change(cls, context, compat.strips_scene(context))

    def execute(self, context: bpy.types.Context) -> set[str]:
        """All of it now; for scripts and background mode."""
        try:
            for _ in self._begin(context):
                pass
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return self._end(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """A frame at a time, so that the window is drawn and Esc is heard."""
        if bpy.app.background:
            return self.execute(context)
        self._steps = self._begin(context)
        try:
            next(self._steps)
        except StopIteration:
            return self._end(context)
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {'RUNNING_MODAL'}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """A tick: one more frame. Everything else waits, as what is rendered must not be changed meanwhile."""
        if event.type == 'ESC':
            self._stop(context)
            self.report({'INFO'}, "Koshi: nothing was changed")
            return {'CANCELLED'}
        if event.type != 'TIMER':
            return {'RUNNING_MODAL'}
        try:
            done = next(self._steps)
            context.workspace.status_text_set(f"Rendering the strip: {done:.0%}. Esc cancels")
        except StopIteration:
            self._stop(context)
            return self._end(context)
        except BridgeError as error:
            self._stop(context)
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        return {'RUNNING_MODAL'}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator."""
        self._stop(context)

    def _stop(self, context: bpy.types.Context) -> None:
        self._steps.close()
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)

    def _begin(self, context: bpy.types.Context) -> Iterator[float]:
        """What has to be done before the film is there: nothing, or its frames."""
        scene, strip = compat.strips_scene(context), active_strip(context)
        self._rendered = False
        self._film = as_it_is(scene, strip) if self.pictures != 'RENDER' else None
        if self.pictures == 'FILE' and self._film is None:
            self._film = self._bare(scene, strip)
        if self._film is None:
            base, _ = sequencer.takes_folder()
            name = bpy.path.clean_name(strip.name) or "strip"
            # Unsaved files share a folder, and each keeps the path of its own film.
            own = "" if bpy.data.filepath else f"_{uuid.uuid4().hex[:8]}"
            folder = base / f"{sequencer.take_stem(scene)}_video_{name}{own}"
            yield from pictures_of(scene, strip, folder)
            self._film, self._rendered = Film(str(folder / "####.png")), True

    def _bare(self, scene: bpy.types.Scene, strip: Any) -> Film:
        film = None
        if strip.type in ('IMAGE', 'MOVIE'):
            film = _movie(scene, strip) if strip.type == 'MOVIE' else _pictures(scene, strip)
        if film is None:
            raise BridgeError(
                "no_pictures",
                f'"{strip.name}" has no files that a shot could use as they are.',
                "Let its pictures be rendered: set Pictures to As They Are Seen.",
            )
        return film

    def _end(self, context: bpy.types.Context) -> set[str]:
        scene, strip = compat.strips_scene(context), active_strip(context)
        use(scene, self._film, self.purpose)
        left, right = compat.strip_range(strip)
        what = "a render of" if self._rendered else "the files of"
        if scene.frame_start < left or scene.frame_end >= right:
            covers = f'"{strip.name}", which covers the frames {left} to {right - 1}'
            span = f"{scene.frame_start} to {scene.frame_end}"
            self.report({'WARNING'}, f"Koshi uses {what} {covers}, and the scene's range is {span}")
        else:
            self.report({'INFO'}, f'Koshi uses {what} "{strip.name}": {scene.koshi.video}')
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_strip_as_video,))
