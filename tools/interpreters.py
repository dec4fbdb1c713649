# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding Python interpreters, and the small things that all tools share. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Variables of the caller that would leak other packages into our environments.
LEAKS = {
    "PYTHONPATH",
    "PYTHONHOME",
    "PIP_TARGET",
    "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV",
    "__PYVENV_LAUNCHER__",
}


class SetupError(Exception):
    """Something is missing; the text says what, and what to do about it."""


def say(text: str) -> None:
    """Print one line of what is being done."""
    print(f"koshi: {text}", flush=True)


def clean_environ(**extra: str) -> dict[str, str]:
    """The environment variables for child processes."""
    environ = {name: value for name, value in os.environ.items() if name not in LEAKS}
    return environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | extra


def capture(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a short command that only answers a question; raises OSError or TimeoutExpired."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=clean_environ(), check=False
    )


# ---- interpreters


def find_python(version: str) -> Path | None:
    """An interpreter of exactly this minor version that can make environments, or None.

    Every candidate is run, not only found: a version manager's stand-ins exist on PATH and fail.
    """
    override = "PYTHON" + version.replace(".", "")
    if named := os.environ.get(override):
        if found := probe_python(named, version):
            return found
        raise SetupError(f"{override}={named} is not a working Python {version} with the venv module.")
    tried: set[str] = set()
    for candidate in python_candidates(version):
        if candidate not in tried and (found := probe_python(candidate, version)):
            return found
        tried.add(candidate)
    return None


def python_candidates(version: str) -> Iterator[str]:
    """Places where a Python of this version may lie, likely ones first."""
    suffix = ".exe" if os.name == "nt" else ""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder) / f"python{version}{suffix}"
        if folder and path.is_file():
            yield str(path)
    yield getattr(sys, "_base_executable", None) or sys.executable
    for path in sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True):
        yield str(path)
    if os.name == "nt":
        # One folder per user and version is where python.org's installer and the py launcher put it.
        programs = Path(os.environ.get("LOCALAPPDATA", "")) / "Programs" / "Python"
        yield str(programs / f"Python{version.replace('.', '')}" / "python.exe")


def probe_python(candidate: str, version: str) -> Path | None:
    """The interpreter's own path if it runs, is of this version and can make environments with pip."""
    code = "import sys, venv, ensurepip; print(sys.version.split()[0], getattr(sys, '_base_executable', ''))"
    try:
        ran = capture([candidate, "-c", code], timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found, _, executable = ran.stdout.strip().partition(" ")
    return Path(executable or candidate) if ran.returncode == 0 and found.startswith(version + ".") else None


def python_missing(what: str, *versions: str) -> SetupError:
    """The error for a Python that was not found."""
    wanted, first = " or ".join(versions), versions[0]
    return SetupError(
        f"{what} needs Python {wanted} and none was found that runs and has the venv module.\n"
        f"  Debian, Ubuntu:  sudo apt-get install python{first} python{first}-venv   (where it is packaged)\n"
        f"  anywhere else:   install it as usual, or name it: PYTHON{first.replace('.', '')}=/path/to/python"
    )


# ---- environments
