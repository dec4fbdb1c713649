# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that the backend's environment is made with, and uv where it is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..launcher import detached_flags
from ..protocol import BridgeError

VERSIONS = ("3.11", "3.12", "3.13")  # that the packages were tested with, the preferred one first
# Variables of the caller's that would put packages elsewhere, or other packages into the environment.
LEAKS = {
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__",
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """An interpreter that can make environments."""

    path: Path
    version: str


def clean_environ(**extra: str) -> dict[str, str]:
    """Environment variables for what is started."""
    environ = {name: value for name, value in os.environ.items() if name not in LEAKS}
    return {**environ, "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **extra}


def find_uv() -> Path | None:
    """uv's program, on PATH or where its installer puts it; windowed programs often have a short PATH."""
    name = "uv.exe" if os.name == "nt" else "uv"
    places = [shutil.which("uv"), *(Path.home() / folder / name for folder in (".local/bin", ".cargo/bin"))]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def find_base() -> Base:
    """A Python of the computer's own, else Blender's: an environment made with that ends with that Blender.

    KOSHI_BASE_PYTHON names one. Every candidate is run, not only found: stand-ins of version managers and shops exist
    and fail. Raises BridgeError "no_python".
    """
    if named := os.environ.get("KOSHI_BASE_PYTHON"):
        if found := probe(named):
            return found
        raise no_python(f"KOSHI_BASE_PYTHON={named} is not a Python that can be used.")
    tried: dict[str, Base | None] = {}
    for version in VERSIONS:
        for candidate in _candidates(version):
            if candidate not in tried:
                tried[candidate] = probe(candidate)
            base = tried[candidate]
            if base is not None and base.version.startswith(version + "."):
                return base
    if found := probe(getattr(sys, "_base_executable", "") or sys.executable):
        return found
    raise no_python("No Python that can be used was found.")


def no_python(message: str) -> BridgeError:
    """The error for a computer without a suitable Python."""
    own = f"Blender's own ({sys.version.split()[0]}) cannot make environments either."
    hint = f"Install Python {VERSIONS[0]} to {VERSIONS[-1]} with its venv module (from python.org, say), and try again."
    return BridgeError("no_python", f"{message} {own}", hint)


def _candidates(version: str) -> Iterator[str]:
    """Places where a Python of this version may lie, likely ones first."""
    suffix = ".exe" if os.name == "nt" else ""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/opt/homebrew/bin", "/usr/local/bin"]
    for folder in folders:
        path = Path(folder) / f"python{version}{suffix}"
        if folder and path.is_file():
            yield str(path)
    for path in sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True):
        yield str(path)
    if os.name == "nt":
        programs = Path(os.environ.get("LOCALAPPDATA", "")) / "Programs" / "Python"
        path = programs / f"Python{version.replace('.', '')}" / "python.exe"
        if path.is_file():
            yield str(path)


def probe(candidate: str) -> Base | None:
    """The interpreter itself, if it runs, has a version that was tested, and can make environments with pip."""
    code = "import sys, venv, ensurepip; print(sys.version.split()[0], getattr(sys, '_base_executable', ''))"
    try:
        ran = subprocess.run(
            [candidate, "-I", "-c", code],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            check=False,
            creationflags=detached_flags(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version, _, executable = ran.stdout.strip().partition(" ")
    if ran.returncode or version.rpartition(".")[0] not in VERSIONS:
        return None
    return Base(Path(executable or candidate), version)
