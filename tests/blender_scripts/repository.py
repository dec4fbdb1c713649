# SPDX-License-Identifier: GPL-3.0-or-later
"""Install Koshi from a repository of files, change its preferences, update it from the same one on the web, and
uninstall it.

Arguments: the address of an old repository (file://), and that of a newer one (http://), which only then exists.
"""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, result

PACKAGE = "bl_ext.KoshiTest.koshi"  # Blender makes the middle one of the repository's name
KEPT = {"store_limit": 7.5, "package_index": "https://example.org/simple", "use_remote": True, "remote_address": "a:1"}


def main() -> None:
    """Everything a person does in Get Extensions."""
    old, new = arguments()
    preferences = bpy.context.preferences
    for other in list(preferences.extensions.repos):
        other.enabled = False  # Blender's own repository is not asked
    preferences.system.use_online_access = True  # some versions want it for files, too
    bpy.ops.preferences.extension_repo_add(name="Koshi Test", remote_url=old, type='REMOTE')
    repository = preferences.extensions.repos[-1]
    where = {"repo_directory": repository.directory}
    bpy.ops.extensions.repo_sync(**where)
    bpy.ops.extensions.package_install(**where, pkg_id="koshi", enable_on_install=True)
    seen: dict[str, Any] = {"installed": state(repository)}
    chosen = preferences.addons[PACKAGE].preferences
    for name, value in KEPT.items():
        setattr(chosen, name, value)
    settings = bpy.context.scene.koshi
    settings.zoom = 1.25
    chosen.worn_out, settings.worn_out = 3.0, 4.0  # which only the old version has
    settings.keyframe_insert("worn_out", frame=1)
    seen["worn_out"] = {"before": [chosen.worn_out, settings.worn_out]}

    repository.remote_url = new
    bpy.ops.extensions.repo_sync(**where)
    bpy.ops.extensions.package_upgrade_all()
    seen["updated"] = state(repository)
    chosen = preferences.addons[PACKAGE].preferences
    seen["kept"] = {name: getattr(chosen, name) for name in KEPT} == KEPT
    scene = bpy.context.scene
    seen["zoom"] = scene.koshi.zoom
    seen["worn_out"]["after"] = [hasattr(chosen, "worn_out"), hasattr(scene.koshi, "worn_out")]
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.koshi.prompts.add().text = "a calm sea at dawn, photo"
    sample = importlib.import_module(f"{PACKAGE}.operators.sample")
    seen["frames"] = sample.shot_from_scene(scene, 1, 3).shot["frames"]  # its curve is still there
    seen["saved"] = list(bpy.ops.wm.save_userpref())

    takes, note = importlib.import_module(f"{PACKAGE}.operators.sequencer").takes_folder()
    seen["note"] = str(takes) in note
    takes.mkdir(parents=True)
    (takes / "0001.png").touch()  # a frame of a file that was never saved
    bpy.ops.extensions.package_uninstall(**where, pkg_id="koshi")
    seen["gone"] = PACKAGE not in preferences.addons and not Path(repository.directory, "koshi").exists()
    seen["takes"] = [str(takes), (takes / "0001.png").is_file()]
    result(seen)


def state(repository: Any) -> dict[str, Any]:
    """Which version lies there, and whether it works."""
    manifest = Path(repository.directory, "koshi", "blender_manifest.toml")
    return {
        "version": tomllib.loads(manifest.read_text())["version"],
        "enabled": PACKAGE in bpy.context.preferences.addons,
        "works": bpy.ops.koshi.render.poll() and hasattr(bpy.context.scene, "koshi"),
        "code": importlib.import_module(f"{PACKAGE}.koshi_backend").__version__,
    }


main()
