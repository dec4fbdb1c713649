# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by a Blender of its own: `blender -b COPY.blend --python guide_process.py -- JOB.json` renders a shot's guides.

Tells how it goes in lines on stdout that begin with KOSHI. The extension may not be enabled there, and need not be.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_NAME = "koshi_guides"


def _tell(message: dict) -> None:
    print("\nKOSHI " + json.dumps(message), flush=True)


def main(asked: Path) -> int:
    """Render the job; returns the exit code."""
    for name, folder in ((_NAME, _ROOT), (f"{_NAME}.operators", _ROOT / "operators")):
        # Bare packages: the extension's own ones would import all of it.
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(folder)]
    render = importlib.import_module(f"{_NAME}.operators.guide_render")
    protocol = importlib.import_module(f"{_NAME}.bridge_server.protocol")
    job = render.GuideJob(**json.loads(asked.read_text(encoding="utf-8")))
    if job.threads and hasattr(os, "nice"):
        os.nice(5)  # there is a window, which goes first
    try:
        for line in render.render_job(job):
            _tell({"line": line})
    except protocol.BridgeError as error:
        _tell({"error": error.as_dict()})
        return 1
    return 0


if __name__ == "__main__":
    _code = main(Path(sys.argv[sys.argv.index("--") + 1]))
    sys.stdout.flush()
    os._exit(_code)  # some engines crash when Blender ends by itself, after all is done
