# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backend's environment is made of: the packages, and the build of PyTorch that suits this computer's card."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..launcher import detached_flags
from ..protocol import BridgeError

CUDAS = ("cu130", "cu128", "cu126")  # folders of an index of PyTorch builds, the newest first
UV_CHOOSES = "--torch-backend"  # uv knows where PyTorch keeps the builds for each card, and which card there is
# 10^9 bytes on the disk while it is made: measured 1.4 without CUDA, of which downloads are .35; with CUDA 6 and 3.
ROOM = {"cpu": 2.5, "default": 2.5, "cuda": 10.0, "own": 0.02}


@dataclass(frozen=True)
class Requirements:
    """names: what pip is asked for, PyTorch aside. torch: its exact version, "" if it is not wanted. constraints: pip's
    file with the exact versions that were tested. digest: tells two of these apart."""

    names: tuple[str, ...]
    torch: str
    constraints: Path | None
    digest: str


def requirements(source: Path) -> Requirements:
    """What the backend in `source` needs: pyproject.toml's dependencies in constraints.txt's versions.

    KOSHI_SETUP_REQUIREMENTS names a file with other requirements, one in a line, instead of all these: for trying the
    set-up itself. Raises BridgeError "setup_incomplete" if the add-on lacks those files.
    """
    if own := os.environ.get("KOSHI_SETUP_REQUIREMENTS"):
        names = tuple(line.strip() for line in _read(Path(own)).splitlines() if line.strip() and line[0] != "#")
        return Requirements(names, "", None, _digest(*names))
    constraints = source / "constraints.txt"
    try:
        project = tomllib.loads(_read(source / "pyproject.toml"))["project"]
        wanted = [str(name) for name in project["dependencies"]]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise _incomplete(source / "pyproject.toml") from error
    versions = _read(constraints)
    torch = re.search(r"^torch==(\S+)", versions, re.MULTILINE)
    if torch is None:
        raise _incomplete(constraints)
    names = tuple(name for name in wanted if not re.match(r"torch\b", name))
    return Requirements(names, torch[1], constraints, _digest(*wanted, versions))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _incomplete(path) from error


def _incomplete(path: Path) -> BridgeError:
    return BridgeError("setup_incomplete", f"{path} cannot be read.", "Install the Koshi add-on again.")


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def has_nvidia_card() -> bool:
    """Whether this computer has an NVIDIA card with a driver, found out without torch."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    if (windows := os.environ.get("SYSTEMROOT")) and (Path(windows) / "System32" / "nvcuda.dll").exists():
        return True
    if not (tool := shutil.which("nvidia-smi")):
        return False
    try:
        ran = subprocess.run(
            [tool, "-L"], capture_output=True, timeout=30, check=False, creationflags=detached_flags()
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0


def build_for(nvidia: bool, system: str = sys.platform) -> str:
    """The build of PyTorch for a computer: "cuda", "cpu", or "default" where there is only one (macOS).

    AMD's and Intel's cards get "cpu": their builds are other packages, and Koshi was not tried with them.
    """
    if system == "darwin":
        return "default"
    return "cuda" if nvidia else "cpu"


def torch_attempts(
    version: str, build: str, index: str, direct: bool, system: str = sys.platform
) -> list[list[str]]:
    """Arguments for pip, or for uv where they begin with UV_CHOOSES, to be tried in turn as long as nothing offers what
    they ask for.

    What pip's own configuration offers comes first where it can be the right build; then `index`, one of PyTorch builds
    ("": none); then, if packages come directly and not from a mirror that is configured, uv's own choice; at last any
    build, so that there is one. The common package index has one build for each system: for Linux that with CUDA, for
    Windows that for the processor.
    """
    any_build = [f"torch=={version}"]
    if build == "cuda":
        asked = [[f"torch=={version}+{cuda}", *_extra(index, cuda)] for cuda in CUDAS] if index else []
        if system != "win32":
            return [[f"torch=={version},!={version}+cpu"], *asked, any_build]
        return [*asked, *([[UV_CHOOSES, "auto", *any_build]] if direct else []), any_build]
    if build == "cpu" and system != "win32":
        asked = [[f"torch=={version}+cpu", *_extra(index, "cpu")]] if index else []
        chosen = [[UV_CHOOSES, "cpu", *any_build]] if direct else []
        return [[f"torch=={version}+cpu"], *asked, *chosen, any_build]
    return [any_build]


def _extra(index: str, folder: str) -> list[str]:
    return ["--extra-index-url", f"{index.rstrip('/')}/{folder}"]
