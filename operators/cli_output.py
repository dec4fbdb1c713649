# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands print: words to stderr, JSON to stdout."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(text: str) -> None:
    """A line for a person."""
    if text:
        print(f"koshi: {text}", file=sys.stderr, flush=True)


def print_json(data: dict[str, Any]) -> None:
    """One JSON object. Blender prints to stdout too, so it is a line of its own."""
    print(json.dumps(data), flush=True)
