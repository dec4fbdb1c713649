# SPDX-License-Identifier: GPL-3.0-or-later
"""Python packages for the tests of the set-up: small, and on this computer."""

from __future__ import annotations

import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, megabytes: int = 0, shares: str = "") -> str:
    """Write a package; returns how pip is asked for it. shares: a folder whose packages come along without a copy."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.py", "there = True\n")
        file.writestr(f"{name}.bin", bytes(megabytes << 20))
        file.writestr(f"{name}.pth", shares)
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return f"{name} @ {path.as_uri()}"
