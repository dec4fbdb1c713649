# SPDX-License-Identifier: GPL-3.0-or-later
"""`--command koshi doctor`: does Koshi work in this Blender, and does its backend?"""

from __future__ import annotations

import argparse
import os
import platform
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.client import Client, read_connection
from ..bridge_server.protocol import BridgeError
from . import job, reader, sequencer, settings, state


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """{"ok", "blender": {"checks": [...]}, "backend": the report of `koshi doctor`, or None if it cannot be had}."""
    checks = blender_checks()
    backend = None
    python = checks[2]
    if python["ok"]:
        try:
            backend = reader.doctor(python["found"], settings.source())
        except BridgeError as error:
            checks.append({"name": "backend", "ok": False, "found": error.message, "hint": error.hint})
    ok = all(check["ok"] for check in checks) and backend is not None and bool(backend.get("ok"))
    if not arguments.json:
        _print("Blender's side", checks)
        if backend is not None:
            _print("The backend's", backend["checks"])
        print("Everything works." if ok else "Something needs mending, see above.", flush=True)
    return {"ok": ok, "blender": {"checks": checks}, "backend": backend}


def blender_checks() -> list[dict[str, Any]]:
    """Blender's side, at once: [{"name", "ok", "found", "hint"}]; the third is the backend's Python."""
    return [
        _check("Blender", lambda: f"{bpy.app.version_string}, Python {platform.python_version()}"),
        _check("extension", _extension),
        _check("backend Python", settings.backend_python),
        _check("connection", _connection),
        _check("frames folder", _frames_folder),
        _check("Cycles", _cycles),
        _check("log", lambda: str(state.log_file())),
    ]


def _check(name: str, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "found": look(), "hint": ""}
    except BridgeError as error:
        return {"name": name, "ok": False, "found": error.message, "hint": error.hint}


def _extension() -> str:
    folder = Path(__file__).resolve().parent.parent
    manifest = tomllib.loads((folder / "blender_manifest.toml").read_text(encoding="utf-8"))
    return f"{manifest['id']} {manifest['version']} at {folder}"


def _connection() -> str:
    """Whether a backend runs, and whether it can be talked to. None is no fault: a render starts it."""
    try:
        with Client(settings.remote() or read_connection()) as client:
            return job.server_line(client.status())
    except BridgeError as error:
        if error.code == "server_not_running":
            return "no backend runs; a render starts it"
        raise


def _frames_folder() -> str:
    folder, note = sequencer.takes_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise BridgeError("cannot_write", f"{folder} cannot be written to.", "Save the .blend in another folder.")
    return f"{folder} ({note})" if note else str(folder)


def _cycles() -> str:
    if hasattr(bpy.context.scene, "cycles"):
        return "on; it renders depth, vectors and start pictures where a shot uses them"
    return "off; shots that use depth, vectors or start pictures of the scene cannot be rendered"


def _print(title: str, checks: list[dict[str, Any]]) -> None:
    print(title)
    for check in checks:
        print(f"  {'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['found']}")
        if check["hint"]:
            print(f"        {check['hint']}")
