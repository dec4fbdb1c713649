#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make` calls: runs the project's commands in its environments.

    python tools/make.py demo | test [pytest arguments] | lint | extension | repository [folder] | messages
        | examples [folder] | screenshots [folder] | env | tiny [training options]

Works without make too, with any Python from 3.11 on. setup_env.py says which variables it reads.
"""

from __future__ import annotations

import os
import subprocess
import sys

from interpreters import ROOT, SetupError, clean_environ, say
from setup_env import backend_env, blender_command, blender_envs, required_blenders


def demo(arguments: list[str]) -> int:
    """Run tools/demo.py in the backend's environment."""
    python = backend_env()
    blender_command()  # makes its environment now, so that the demo's own times are the demo's
    command = [str(python), str(ROOT / "tools" / "demo.py"), *arguments]
    return subprocess.call(command, cwd=ROOT, env=clean_environ())


def test(arguments: list[str]) -> int:
    """Run pytest in the backend's environment, with the Blender environments made known to it.

    Two files at a time where there are the cores; `-n 0` among the arguments is one after the other.
    """
    python = backend_env()
    blenders = {f"KOSHI_BPY_{v.replace('.', '')}": str(path) for v, path in blender_envs().items()}
    environ = clean_environ(KOSHI_PYTHON=str(python), **blenders)
    # Two, not more: each worker of pytest's has a backend, a copy of torch and five Blenders of its own.
    workers = ["-n", str(min(os.cpu_count() or 1, 2)), "--dist", "loadscope"]
    return subprocess.call([str(python), "-m", "pytest", *workers, *arguments], cwd=ROOT, env=environ)


def lint(arguments: list[str]) -> int:
    """Run ruff and mypy; both, so that one run shows everything."""
    python = str(backend_env())
    say("ruff check")
    ruff = subprocess.call([python, "-m", "ruff", "check", *arguments, "."], cwd=ROOT, env=clean_environ())
    say("mypy")
    mypy = subprocess.call([python, "-m", "mypy"], cwd=ROOT, env=clean_environ())
    return 1 if ruff or mypy else 0


def extension(arguments: list[str]) -> int:
    """Build the extension's zip into dist/ with the builder that comes with Blender."""
    command, name = blender_command()
    say(f"building the extension with {name}")
    (ROOT / "dist").mkdir(exist_ok=True)
    build = ["--command", "extension", "build", "--source-dir", str(ROOT), "--output-dir", str(ROOT / "dist")]
    return subprocess.call([*command, *build, *arguments], cwd=ROOT, env=clean_environ())


def repository(arguments: list[str]) -> int:
    """Build an extension repository that Blender installs and updates Koshi from, into dist/repository/."""
    from repository import repository as make

    return make(*blender_command(), arguments)


def messages(arguments: list[str]) -> int:
    """Write the template of the translations, and list what they lack."""
    from messages import messages as collect

    return collect(*blender_command())


def examples(arguments: list[str]) -> int:
    """Make the example .blend files, into out/examples/."""
    from example_files import example_files

    return example_files(*blender_command(), arguments)


def screenshots(arguments: list[str]) -> int:
    """Take the pictures of docs/guide.md in the window of the Blender that KOSHI_BLENDER names."""
    command = [str(backend_env()), str(ROOT / "tools" / "screenshots.py"), *arguments]
    return subprocess.call(command, cwd=ROOT, env=clean_environ())


def env(arguments: list[str]) -> int:
    """Make the backend's environment and say where it lies. Those of Blender are made when something needs them."""
    say(f"backend: {backend_env()}")
    return 0


def tiny(arguments: list[str]) -> int:
    """Train koshi-tiny into training/run: all steps, going on from where the last run was stopped."""
    command = [str(backend_env()), "-m", "training", "all", *arguments]
    return subprocess.call(command, cwd=ROOT, env=clean_environ())


ACTIONS = {
    "demo": demo, "test": test, "lint": lint, "extension": extension, "repository": repository,
    "messages": messages, "examples": examples, "screenshots": screenshots, "env": env, "tiny": tiny,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run one action; returns its exit code. A missing thing is said in plain words, with exit code 1."""
    if not arguments or arguments[0] not in ACTIONS:
        print(__doc__.strip())
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        required_blenders()  # a wrong name is said before minutes of installing, not after
        return ACTIONS[arguments[0]](arguments[1:])
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped. The next run goes on from here.")
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
