# SPDX-License-Identifier: GPL-3.0-or-later
"""`koshi doctor`: does this installation work, and with what?"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from typing import Any

from . import __version__
from .errors import KoshiError
from .store import Entry, FrameStore

_PACKAGES = (
    "torch",
    "einops",
    "safetensors",
    "transformers",
    "huggingface_hub",
    "numpy",
    "opencv-python-headless",
    "pydantic",
    "av",
)


def examine() -> dict[str, Any]:
    """{"ok", "version", "checks": [{"name", "ok", "found", "hint"}]}. A check that fails does not stop the others."""
    checks = [
        _check("python", lambda: f"{platform.python_version()} at {sys.executable}"),
        _check("packages", _packages),
        _check("device", _device),
        _check("frame store", _store),
        _check("koshi-tiny", _draw),
    ]
    return {"ok": all(c["ok"] for c in checks), "version": __version__, "checks": checks}


def print_report(report: dict[str, Any]) -> None:
    print(f"koshi {report['version']}")
    for check in report["checks"]:
        print(f"  {'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['found']}")
        if check["hint"]:
            print(f"        {check['hint']}")
    print("Everything works." if report["ok"] else "Something needs mending, see above.")


def _check(name: str, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "found": look(), "hint": ""}
    except KoshiError as error:
        return {"name": name, "ok": False, "found": error.message, "hint": error.hint}
    except (ImportError, OSError, RuntimeError) as error:
        return {
            "name": name,
            "ok": False,
            "found": f"{type(error).__name__}: {error}",
            "hint": "Install Koshi again.",
        }


def _packages() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)


def _device() -> str:
    import torch

    from .models.pool import pick_device, pick_dtype

    device = pick_device()
    kind = str(pick_dtype(device)).removeprefix("torch.")
    if device.type != "cuda":
        return f"{device}, {kind}, {torch.get_num_threads()} threads"
    free, total = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)}, {kind}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"


def _store() -> str:
    import numpy as np

    store = FrameStore()
    key = "0" * 63 + "d"
    store.put(key, Entry(np.zeros((16, 16, 3), np.uint16), b"probe", np.zeros(6)))
    sound = store.png(key) == b"probe"
    store.path(key).unlink(missing_ok=True)
    if not sound:
        raise KoshiError("store_write", f"{store.root} does not give back what it was given.", "Check that disk.")
    return (
        f"{store.root}, up to {store.limit / 1e9:g} GB, {shutil.disk_usage(store.root).free / 1e9:.0f} GB of disk free"
    )


def _draw() -> str:
    import numpy as np

    from .api import create_pipeline

    image = create_pipeline("koshi-tiny").generate_image("a sea at dawn, photo", None, width=64, height=64, seed=0)
    if np.asarray(image).std() < 1.0:
        raise KoshiError("bad_model", "koshi-tiny drew an even grey.", "Install Koshi again.")
    return "draws"
