# SPDX-License-Identifier: GPL-3.0-or-later
"""Guides: what Blender renders of the scene for a shot, before the backend paints it.

    geometry_0001.exr   depth, motion and mask of a frame, exactly (depth_0001.npy where Cycles is not there)
    clay_0001.png, scene_0001.png, start_0001.png       pictures to look at, and to start from

They are kept: a frame of which nothing has changed (guide_keys) is not rendered again. Blender's own program renders
them in a process of its own, so that the window stays alive; where there is only the module, they are rendered here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from .. import __package__ as base_package
from ..bridge_server.protocol import BridgeError, cache_folder
from . import compat, shot_fields, state
from .guide_render import CLAY, DEPTH, GEOMETRY, SCENE, START, GuideJob, render_job

_FILES = {GEOMETRY: f"{GEOMETRY}_####.exr", DEPTH: f"{DEPTH}_####.npy", CLAY: f"{CLAY}_####.png"}
_FILES |= {SCENE: f"{SCENE}_####.png", START: f"{START}_####.png"}
_SHOWN = {'DEPTH': "depth", 'EDGES': "edges"}  # structures that are drawn from the depth
_FILMED = {'CLAY': CLAY, 'SCENE': SCENE}  # video sources
_GIVEN = ("depth", "video", "structure", "mask")  # of a shot's guides, those that may be the artist's own files
_LOG = "guides.log"


def wanted(settings: Any) -> bool:
    """Whether a shot with these settings needs anything of the scene but its curves."""
    return (
        _starts_here(settings)
        or settings.structure in ('DEPTH', 'EDGES', 'CLAY', 'SCENE')
        or _masks_here(settings)
        or _films_here(settings)
        or _depth_here(settings)
    )


def _starts_here(settings: Any) -> bool:
    return settings.start == 'SCENE' and not shot_fields.is_painted_over(settings)


def _masks_here(settings: Any) -> bool:
    return settings.mask_source == 'COLLECTION' and settings.mask is not None


def _films_here(settings: Any) -> bool:
    """Whether the scene's own pictures are the film that the shot takes something from."""
    return settings.video_source in _FILMED and shot_fields.video_is_used(settings)


def _depth_here(settings: Any) -> bool:
    """Whether the scene's own depth moves the curves in 3D, or says where a film is mixed in."""
    used = settings.motion_source == '3D' or shot_fields.needs_depth(settings)
    return settings.depth_source == "scene" and used


def guides_folder(scene: bpy.types.Scene, preview: bool = False) -> Path:
    """Where a scene's guides lie: always the same place, so that the same shot stays the same shot. preview: the small
    ones, which must not displace the others."""
    place = hashlib.sha256(bpy.data.filepath.encode()).hexdigest()[:8]
    small = "_preview" if preview else ""
    return cache_folder() / "guides" / f"{bpy.path.clean_name(scene.name) or 'Scene'}_{place}{small}"


def guides_of(scene: bpy.types.Scene, parallel: bool) -> dict[str, Any]:
    """The part of a shot that names the files that `render_guides` makes. parallel: for an orthographic camera.

    Raises BridgeError "guides" for what cannot be rendered here.
    """
    settings, folder = scene.koshi, guides_folder(scene)
    files = {kind: str(folder / name) for kind, name in _FILES.items()}
    cycles = hasattr(scene, "cycles")
    depth = files[GEOMETRY if cycles else DEPTH]
    named: dict[str, Any] = {}
    if settings.motion_source == 'EXACT' or _depth_here(settings):
        named["depth"] = depth
    if settings.motion_source == 'EXACT' and cycles:
        named["vector"] = depth
        if (seen := compat.vectors_seen(parallel)) != "camera":
            named["vector_seen"] = seen
    if settings.structure in _SHOWN:
        named |= {"structure": depth, "structure_as": _SHOWN[settings.structure]}
    elif settings.structure in ('CLAY', 'SCENE'):
        named["structure"] = files[CLAY if settings.structure == 'CLAY' else SCENE]
    if _masks_here(settings):
        named["mask"] = files[GEOMETRY]
    if _films_here(settings):
        named["video"] = files[_FILMED[settings.video_source]]
    start = {"init_image": files[START]} if _starts_here(settings) else {}
    if not cycles and (start or any(named.get(key, depth) != depth for key in _GIVEN)):
        raise BridgeError(
            "guides",
            "Koshi renders the scene with Cycles for this shot, and Cycles is switched off.",
            "Enable Cycles Render Engine in Preferences > Add-ons, or set Start From to Prompt, Structure to None or "
            "Depth, Video to None, and take the mask away.",
        )
    return ({"guides": named} if named else {}) | start


def rendered(shot: dict[str, Any]) -> bool:
    """Whether a shot names files that `render_guides` makes."""
    return any(_is_rendered(name) for name in (*shot.get("guides", {}).values(), shot.get("init_image", "")))


def moved_to(shot: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The shot with what Blender renders for it in another folder."""

    def moved(name: Any) -> Any:
        return str(folder / Path(name).name) if _is_rendered(name) else name

    out = dict(shot)
    if "guides" in shot:
        out["guides"] = {k: moved(v) for k, v in shot["guides"].items()}
    if "init_image" in shot:
        out["init_image"] = moved(shot["init_image"])
    return out


def _is_rendered(name: Any) -> bool:
    """Whether a guide's file is made here, and not the artist's own."""
    if not isinstance(name, str) or Path(name).name not in _FILES.values():
        return False
    return Path(name).parent.parent == cache_folder() / "guides"


def render_guides(scene: bpy.types.Scene, shot: dict[str, Any], folder: Path) -> Iterator[str]:
    """Render what `shot` needs into `folder`, unless it lies there already; yields a line for a person now and then.

    In Blender's program nothing here takes long but for saving a copy of the file once. Raises BridgeError "guides"
    when Blender cannot. Close the iterator to stop early.
    """
    job = _job(scene, shot, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BridgeError(
            "guides", f"The folder {folder} for what Blender renders cannot be made: {error.strerror}."
        ) from error
    program = bpy.app.binary_path
    if program and os.access(program, os.X_OK) and Path(program).is_file():
        yield from _in_a_process(job, program, own_engine=_has_gpu())
    else:
        yield from render_job(job)


def clear(scene: bpy.types.Scene) -> int:
    """Forget a scene's guides; returns how many files that were. Raises BridgeError "guides"."""
    count = 0
    for folder in (guides_folder(scene), guides_folder(scene, preview=True)):
        count += sum(1 for _ in folder.glob("*_*.*")) if folder.is_dir() else 0
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BridgeError("guides", f"{error.filename} cannot be deleted: {error.strerror}.") from error
    return count


def _job(scene: bpy.types.Scene, shot: dict[str, Any], folder: Path) -> GuideJob:
    named = shot.get("guides", {})
    # In the artist's own folders the same names may stand.
    given = [name for name in (*named.values(), shot.get("init_image")) if isinstance(name, str)]
    names = {Path(name).name for name in given if Path(name).parent == folder or _is_rendered(name)}
    first, step, count = shot["frame_start"], shot.get("frame_step", 1), shot["frames"]
    cuts = shot.get("motion", {}).get("cuts", [])
    return GuideJob(
        scene=scene.name,
        folder=str(folder),
        frames=[first + k * step for k in range(count)],
        step=step,
        starts=[first + k * step for k in (0, *cuts)],
        kinds=[kind for kind, name in _FILES.items() if name in names],
        mask=scene.koshi.mask.name if scene.koshi.mask is not None else "",
        width=shot["width"],
        height=shot["height"],
        still=named.get("vector_seen") == "still",
    )


def _in_a_process(job: GuideJob, program: str, own_engine: bool) -> Iterator[str]:
    """Let another Blender render this file, or a copy saved as it is now. own_engine: with a GPU, if that works."""
    yield iface_("Preparing to render the scene's guides")
    with tempfile.TemporaryDirectory(prefix="koshi_guides_", ignore_cleanup_errors=True) as place:
        copy = Path(place) / "scene.blend"
        if bpy.data.filepath and not bpy.data.is_dirty and not bpy.app.background:
            copy = Path(bpy.data.filepath)  # as it is saved it will do
        else:
            _save_copy(copy)
        yield iface_("Preparing to render the scene's guides")
        # A window needs a thread, and goes first.
        threads = 0 if bpy.app.background else max(1, (os.cpu_count() or 2) - 1)
        own = own_engine and {SCENE, START} & set(job.kinds)
        # Should the scene's own engine fail, the other process is lost, not the window; Cycles runs everywhere.
        for tried in (True, False) if own else (False,):
            asked = Path(place) / "job.json"
            told = {**asdict(job), "own_engine": tried, "threads": threads}
            asked.write_text(json.dumps(told), encoding="utf-8")
            code, error = yield from _follow(program, copy, asked, Path(place) / _LOG)
            if error is not None:
                raise BridgeError.from_dict(error)
            if code == 0:
                return
            state.log().warning("guides: Blender ended with %s; %s", code, _tail(Path(place) / _LOG))
        raise BridgeError(
            "guides",
            "Blender could not render the scene's guides in the background.",
            f"The details are in {state.log_file()}.",
        )


def _follow(
    program: str, copy: Path, asked: Path, log: Path
) -> Generator[str, None, tuple[int, dict[str, Any] | None]]:
    """Start the other Blender and follow it. Returns its exit code, and the error it told of, if any."""
    trust = "--disable-autoexec" if bpy.app.autoexec_fail else "--enable-autoexec"
    script = Path(__file__).with_name("guide_process.py")
    command = [
        program, "--background", trust, "--addons", base_package, str(copy),
        "--python-exit-code", "3", "--python", str(script), "--", str(asked),
    ]  # fmt: skip
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        gentle = 0 if bpy.app.background else subprocess.BELOW_NORMAL_PRIORITY_CLASS
        options["creationflags"] = subprocess.CREATE_NO_WINDOW | gentle
    error: dict[str, Any] | None = None
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT, **options
        )
    try:
        with log.open(encoding="utf-8", errors="replace") as read:
            over, rest, line = False, "", iface_("Rendering the scene's guides")
            while not over:
                over = process.poll() is not None  # before reading, so that the last lines are read as well
                *whole, rest = (rest + read.read()).split("\n")
                for told in whole:
                    if told.startswith("KOSHI "):
                        message = json.loads(told.removeprefix("KOSHI "))
                        error, line = message.get("error", error), message.get("line", line)
                if bpy.app.background and not over:
                    time.sleep(0.05)
                yield line
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5.0)
    return process.returncode, error


def _save_copy(path: Path) -> None:
    """Save a copy of the file as it is in memory. Without the preview that Blender would draw for the file browser."""
    preferences = bpy.context.preferences.filepaths
    preview = preferences.file_preview_type
    try:
        preferences.file_preview_type = 'NONE'
        bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True, compress=False, check_existing=False)
    except RuntimeError as error:
        raise BridgeError("guides", f"A copy of the scene cannot be saved. {error}".strip()) from error
    finally:
        preferences.file_preview_type = preview


def _has_gpu() -> bool:
    """Whether Blender's window is drawn by a GPU, and not by the processor, on which EEVEE takes minutes a frame."""
    if bpy.app.background:
        return False
    import gpu

    name = gpu.platform.renderer_get().lower()
    return not any(word in name for word in ("llvmpipe", "softpipe", "swrast", "swiftshader", "basic render"))


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


class KOSHI_OT_guides_clear(bpy.types.Operator):
    """Forget the renders of this scene (depth, motion, clay, ...), so that all are made again.
    For changes that Koshi cannot see"""

    bl_idname = "koshi.guides_clear"
    bl_label = "Clear Guides"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state.idle(cls)

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            count = clear(compat.edited_scene(context))
        except BridgeError as error:
            self.report({'ERROR'}, str(error))
            return {'CANCELLED'}
        self.report({'INFO'}, f"Koshi: {count} files forgotten" if count else "Koshi: there were no guides")
        return {'FINISHED'}


register, unregister = bpy.utils.register_classes_factory((KOSHI_OT_guides_clear,))
