# SPDX-License-Identifier: GPL-3.0-or-later
"""`--command koshi doctor`: does Koshi work in this Blender, and does its backend?"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from ..bridge_server.client import Client, ask_backend, read_connection
from ..bridge_server.protocol import BridgeError
from . import job, sequencer, settings, state


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """{"ok", "blender": {"checks": [...]}, "backend": the report of `koshi doctor`, or None if it cannot be had}."""
    checks = [
        _check("Blender", lambda: f"{bpy.app.version_string}, Python {platform.python_version()}"),
        _check("extension", _extension),
        _check("backend Python", settings.backend_python),
        _check("connection", _connection),
        _check("frames folder", _frames_folder),
        _check("Cycles", _cycles),
        _check("log", lambda: str(state.log_file())),
    ]
    backend = None
    python = checks[2]
    if python["ok"]:
        try:
            backend = _ask_backend(python["found"])
        except BridgeError as error:
            checks.append({"name": "backend", "ok": False, "found": error.message, "hint": error.hint})
    ok = all(check["ok"] for check in checks) and backend is not None and bool(backend.get("ok"))
    if not arguments.json:
        _print("Blender's side", checks)
        if backend is not None:
            _print("The backend's", backend["checks"])
        print("Everything works." if ok else "Something needs mending, see above.", flush=True)
    return {"ok": ok, "blender": {"checks": checks}, "backend": backend}


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
        with Client(read_connection()) as client:
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


def _ask_backend(python: str) -> dict[str, Any]:
    """What `koshi doctor` says, run by the backend's Python. Raises BridgeError "backend_broken"."""
    source = Path(__file__).resolve().parent.parent
    out, said = ask_backend(python, source, "doctor", "--json")
    try:
        report = json.loads((out.splitlines() or [""])[-1])
    except ValueError as error:  # no JSON: it did not come so far
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise BridgeError("backend_broken", f"{python} cannot run the backend: {last}", settings.SET_UP) from error
    if not isinstance(report, dict) or not isinstance(report.get("checks"), list):
        error = BridgeError.from_dict(report.get("error") if isinstance(report, dict) else None)
        raise BridgeError("backend_broken", f"The backend's own check failed: {error.message}", error.hint)
    return report


def _print(title: str, checks: list[dict[str, Any]]) -> None:
    print(title)
    for check in checks:
        print(f"  {'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['found']}")
        if check["hint"]:
            print(f"        {check['hint']}")
