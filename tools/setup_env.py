# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes Koshi's Python environments.

They lie in the checkout: `.venv` (backend and tests), and `.venv-blender-4.5` and its like (Blender as a Python
module). A stamp in each says that it is complete and for which requirements, so a second run starts at once
and an interrupted one begins that environment anew. Standard library only, any Python from 3.11 on.

PYTHON311, PYTHON312, PYTHON313 name interpreters; BLENDER names a Blender for the demo and the extension;
KOSHI_REQUIRE_BLENDER="4.5,5.2" makes a missing Blender version an error instead of a note.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from interpreters import ROOT, SetupError, capture, clean_environ, find_python, python_missing, say

sys.path.append(str(ROOT))

from bridge_server.setup.requirements import has_nvidia_card

CONSTRAINTS = ROOT / "constraints.txt"
BLENDER_CONSTRAINTS = ROOT / "constraints-blender.txt"
TORCH = "2.13.0"
BACKEND_PYTHONS = ("3.11", "3.12", "3.13")  # the preferred one first
# Blender -> the release that is tested, and the only Python its module exists for.
BLENDERS = {
    "4.2": ("4.2.23", "3.11"),
    "4.5": ("4.5.15", "3.11"),
    "5.0": ("5.0.1", "3.11"),
    "5.1": ("5.1.2", "3.13"),
    "5.2": ("5.2.3", "3.13"),
}
PREFERRED = "4.5"  # for the demo and the extension
OLDEST_BLENDER = (4, 2)
STAMP = "koshi-environment.json"
LOG = "koshi-setup.log"
# What Blender's module is linked to and a bare Debian or Ubuntu lacks; libegl1 is for EEVEE and Workbench.
SYSTEM_LIBRARIES = [
    "libx11-6", "libxrender1", "libxxf86vm1", "libxfixes3", "libxi6", "libxkbcommon0",
    "libgomp1", "libsm6", "libice6", "libxext6", "libgl1", "libegl1",
]  # fmt: skip


def python_in(env: Path) -> Path:
    """The interpreter inside an environment."""
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_text(path: Path) -> str:
    """A file's text, or nothing if there is no such file."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def state(env: Path, requirements: list[str]) -> str:
    """The stamp a complete environment has: a hash of its requirements, its interpreter and where it lies."""
    interpreter = re.search(r"^version\s*=\s*(\S+)", read_text(env / "pyvenv.cfg"), re.MULTILINE)
    parts = [str(ROOT), interpreter.group(1) if interpreter else "", *requirements]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_complete(env: Path, requirements: list[str]) -> bool:
    """Whether the environment is finished and made for just these requirements. Starts no process."""
    if not python_in(env).exists() or not (stamp := read_text(env / STAMP)):
        return False
    try:
        return bool(json.loads(stamp).get("state") == state(env, requirements))
    except (ValueError, AttributeError):
        return False


def ensure_env(
    env: Path, what: str, pythons: tuple[str, ...], requirements: list[str], install: Callable[[Path], None]
) -> Path:
    """Make or update one environment if it is not complete; returns its interpreter.

    what: how the environment reads in a sentence. pythons: versions it may have, the preferred one first.
    install: fills it, given the environment's folder.
    """
    if is_complete(env, requirements):
        return python_in(env)
    with locked(env):
        if is_complete(env, requirements):  # another make has just finished it
            return python_in(env)
        begin_env(env, what, pythons)
        install(env)
        finished = env / (STAMP + ".new")
        finished.write_text(json.dumps({"state": state(env, requirements)}), encoding="utf-8")
        os.replace(finished, env / STAMP)
        say(f"{env.name} is ready.")
    return python_in(env)


def begin_env(env: Path, what: str, pythons: tuple[str, ...]) -> None:
    """Leave a bare or an outdated, but never a half-filled environment, marked as unfinished."""
    unfinished = json.dumps({"state": "unfinished"})
    if env.exists() and not (env / STAMP).exists() and any(env.iterdir()):
        raise SetupError(f"{env} exists but was not made by this script. Move or delete it, then try again.")
    if python_in(env).exists() and read_text(env / STAMP) not in ("", unfinished):
        say(f"the requirements of {what} have changed: updating {env.name}")
        (env / STAMP).write_text(unfinished, encoding="utf-8")
        return
    python = next((found for version in pythons if (found := find_python(version))), None)
    if python is None:
        raise python_missing(what, *pythons)
    say(f"making {env.name} for {what} with {python}")
    shutil.rmtree(env, ignore_errors=True)
    env.mkdir(parents=True)
    (env / STAMP).write_text(
        unfinished, encoding="utf-8"
    )  # first: an interruption here is then known as ours
    logged(env, [str(python), "-m", "venv", str(env)], f"Making {env.name} failed")


@contextlib.contextmanager
def locked(env: Path) -> Iterator[None]:
    """Let one process at a time fill an environment; Windows has no flock and no such guard."""
    if os.name == "nt":
        yield
        return
    import fcntl  # not on Windows

    with (env.parent / f"{env.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is filling {env.name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def logged(env: Path, command: list[str], failure: str) -> None:
    """Run a command with its output in the environment's log; raises SetupError with the last lines."""
    code, output = attempt(env, command)
    if code:
        raise failed(env, failure, output)


def failed(env: Path, failure: str, output: str) -> SetupError:
    """The error for a command that failed, with its last lines and the log's place."""
    lines = "\n".join("    " + line for line in output.strip().splitlines()[-15:])
    return SetupError(f"{failure}:\n{lines}\n  The whole log: {env / LOG}")


def attempt(env: Path, command: list[str]) -> tuple[int, str]:
    """Run a command, append its output to the environment's log; returns its exit code and output."""
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=clean_environ(PYTHONUTF8="1"),
        cwd=ROOT,
        check=False,
    )
    with (env / LOG).open("a", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(command)}\n{ran.stdout}\n[exit code {ran.returncode}]\n\n")
    return ran.returncode, ran.stdout


def pip_install(env: Path, *arguments: str) -> list[str]:
    """The command line of a pip install into the environment."""
    return [str(python_in(env)), "-m", "pip", "install", "--no-input", *arguments]


# ---- the backend's environment


def backend_env() -> Path:
    """`.venv` with the backend, its tests and the linters; returns its interpreter."""
    gpu = has_nvidia_card()
    project = tomllib.loads(read_text(ROOT / "pyproject.toml"))
    packaging = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    requirements = [json.dumps(packaging, sort_keys=True), read_text(CONSTRAINTS), f"torch {TORCH} gpu={gpu}"]

    def install(env: Path) -> None:
        install_torch(env, gpu)
        say("installing the backend, its tests and the linters")
        command = pip_install(env, "-c", str(CONSTRAINTS), "-e", f"{ROOT}[test,lint]")
        logged(env, command, "Installing Koshi's backend failed")

    return ensure_env(ROOT / ".venv", "Koshi's backend and tests", BACKEND_PYTHONS, requirements, install)


def install_torch(env: Path, gpu: bool) -> None:
    """PyTorch in the build that suits the machine: never the CPU-only one beside an NVIDIA GPU."""

    def command(requirement: str) -> list[str]:
        return pip_install(env, "-c", str(CONSTRAINTS), requirement)

    failure = "Installing PyTorch failed"
    if gpu:
        say(f"installing PyTorch {TORCH} for the NVIDIA GPU (some 3 GB, minutes on a slow line)")
        return logged(env, command(f"torch=={TORCH},!={TORCH}+cpu"), failure)
    say(f"installing PyTorch {TORCH} for the CPU (some 200 MB)")
    code, output = attempt(env, command(f"torch=={TORCH}+cpu"))
    if code == 0:
        return None
    if "No matching distribution found for torch" not in output:
        raise failed(env, failure, output)  # the line or the disk, say: a larger build would not help
    say("pip's configuration offers no CPU-only build of it: installing the ordinary one (larger)")
    return logged(env, command(f"torch=={TORCH}"), failure)


# ---- Blender's environments


def blender_env(version: str) -> Path:
    """`.venv-blender-VERSION` with Blender as a Python module that really loads; returns its interpreter."""
    what, (release, python) = f"Blender {version}", BLENDERS[version]

    def install(env: Path) -> None:
        say(f"installing {what} as a Python module (some 400 MB)")
        command = pip_install(env, "-c", str(BLENDER_CONSTRAINTS), f"bpy=={release}")
        logged(env, command, f"Installing {what} failed")
        check_blender_loads(env, what)

    requirements = [read_text(BLENDER_CONSTRAINTS), release]
    return ensure_env(ROOT / f".venv-blender-{version}", what, (python,), requirements, install)


def check_blender_loads(env: Path, what: str) -> None:
    """Import bpy; system libraries that are missing get installed where that is allowed, else named."""
    # os._exit: some versions of the module crash or hang while Python shuts down.
    code_text = "import bpy, os; print(bpy.app.version_string, flush=True); os._exit(0)"
    load = [str(python_in(env)), "-c", code_text]
    code, output = attempt(env, load)
    if code == 0:
        return
    missing = re.search(r"(\S+\.so\S*): cannot open shared object file", output)
    if not missing:
        return logged(env, load, f"{what} is installed but does not load")
    install_system_libraries(env, what, missing.group(1))
    logged(env, load, f"{what} does not load although its system libraries are installed")


def install_system_libraries(env: Path, what: str, missing: str) -> None:
    """Install Blender's libraries with apt-get when we may; else raises SetupError with the command."""
    install = ["apt-get", "install", "-y", "--no-install-recommends", *SYSTEM_LIBRARIES]
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not (is_root and shutil.which("apt-get")):
        raise SetupError(
            f"{what} needs system libraries that are not installed (the first is {missing}).\n"
            f"  Debian, Ubuntu:  sudo {shlex.join(install)}\n"
            f"  elsewhere: the packages that hold the X11, GL and OpenMP run-time libraries of these names"
        )
    say(f"{what} lacks the system library {missing}: installing it and its companions with apt-get")
    attempt(env, ["apt-get", "update"])  # a stale list may still do; the install below decides
    install = ["env", "DEBIAN_FRONTEND=noninteractive", *install]
    logged(env, install, "apt-get could not install Blender's libraries")


def required_blenders() -> set[str]:
    """The versions that KOSHI_REQUIRE_BLENDER names."""
    named = {part.strip() for part in os.environ.get("KOSHI_REQUIRE_BLENDER", "").split(",") if part.strip()}
    if unknown := named - BLENDERS.keys():
        names = ", ".join(sorted(unknown))
        raise SetupError(f"KOSHI_REQUIRE_BLENDER names {names}; known are {', '.join(BLENDERS)}.")
    return named


def blender_envs() -> dict[str, Path]:
    """Every Blender environment that can be made here; one that cannot is an error only if it is required."""
    made = {}
    for version in BLENDERS:
        try:
            made[version] = blender_env(version)
        except SetupError as error:
            if version in required_blenders():
                raise
            say(f"going on without Blender {version}: {error}")
    return made


def blender_command() -> tuple[list[str], str]:
    """What to start as `blender`, and its name: what BLENDER names, else the module's stand-in."""
    if named := os.environ.get("BLENDER"):
        return [named], f"Blender {check_blender(named)}"
    problems = []
    for version in sorted(BLENDERS, key=lambda v: (v not in required_blenders(), v != PREFERRED)):
        try:
            stand_in = str(ROOT / "tools" / "bpy_blender.py")
            return [str(blender_env(version)), stand_in], f"Blender {version} (Python module)"
        except SetupError as error:
            problems.append(str(error))
    problems.append("  Or name one: make BLENDER=/path/to/blender")
    raise SetupError("\n".join(["There is no Blender to work with.", *problems]))


def check_blender(executable: str) -> str:
    """The version of a Blender executable; raises SetupError if it does not run or is too old."""
    try:
        ran = capture([executable, "--version"], timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"BLENDER={executable} does not run: {error}") from error
    found = re.search(r"^Blender (\d+)\.(\d+)\S*", ran.stdout, re.MULTILINE)
    if not found:
        raise SetupError(f"BLENDER={executable} does not answer --version like Blender does.")
    if (int(found[1]), int(found[2])) < OLDEST_BLENDER:
        raise SetupError(f"BLENDER={executable} is {found[0]}; Koshi needs Blender 4.2 or newer.")
    return found[0].removeprefix("Blender ")
