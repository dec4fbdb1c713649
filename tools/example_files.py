# SPDX-License-Identifier: GPL-3.0-or-later
"""`make examples`: the example .blend files, made by examples/blend/make_*.py in a clean Blender with Koshi.

    python tools/make.py examples [FOLDER]        (default: out/examples)
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from interpreters import ROOT, SetupError, clean_environ, say

SCRIPTS = sorted((ROOT / "examples" / "blend").glob("make_*.py"))
TIME = 300  # seconds for one of them; it takes one


def example_files(blender: list[str], name: str, arguments: list[str]) -> int:
    """Make all of them."""
    folder = Path(arguments[0]).resolve() if arguments else ROOT / "out" / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    say(f"making the examples with {name}")
    with tempfile.TemporaryDirectory() as aside:
        environ = clean_environ(BLENDER_USER_RESOURCES=str(Path(aside) / "profile"))

        def run(*given: object) -> None:
            ran = subprocess.run(
                [*blender, *map(str, given)],
                cwd=ROOT, env=environ, capture_output=True, text=True, timeout=TIME, check=False,
            )  # fmt: skip
            if ran.returncode:
                raise SetupError(f"Blender could not do it ({given}):\n" + (ran.stdout + ran.stderr)[-2000:])

        run("--command", "extension", "build", "--source-dir", ROOT, "--output-dir", aside)
        (zipped,) = Path(aside).glob("*.zip")
        run("--command", "extension", "install-file", "--repo", "user_default", "--enable", zipped)
        for script in SCRIPTS:
            path = folder / f"{script.stem.removeprefix('make_')}.blend"
            run("-b", "--python-exit-code", "1", "-P", script, "--", path)
            say(f"{path}, {path.stat().st_size // 1024} KB")
    say("render one in Blender, or: blender -b FILE.blend --command koshi render --save")
    return 0
