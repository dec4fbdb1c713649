# SPDX-License-Identifier: GPL-3.0-or-later
"""`koshi convert` in the backend's Python: files of other tools need what Blender's Python has not."""

from __future__ import annotations

import json
import queue
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bpy.app.translations import pgettext_iface as iface_

from ..bridge_server.client import ask_backend
from ..bridge_server.protocol import BridgeError
from . import reader, settings


def converted(*arguments: object) -> Generator[str, None, dict[str, Any]]:
    """Run `koshi convert` with these arguments; yields a line while it waits, and returns what it says, as JSON.

    Raises BridgeError: what the command said, or that there is no backend to run it.
    """
    signals = reader.Signals()
    reader.start(_convert, settings.backend_python(), settings.source(), arguments, signals=signals)
    while True:
        try:
            kind, said = signals.messages.get_nowait()
        except queue.Empty:
            yield iface_("Converting, in the backend")
            continue
        if kind == "failed":
            raise BridgeError.from_dict(said)
        return said


def _convert(python: str, source: Path, arguments: tuple[object, ...], signals: reader.Signals) -> None:
    """For a reader thread."""
    out, said = ask_backend(python, source, "convert", *map(str, arguments), "--json")
    try:
        answer = json.loads((out.splitlines() or [""])[-1])
    except ValueError as error:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        hint = "Press Diagnostics in Koshi's preferences."
        raise BridgeError("backend_broken", f"{python} cannot run the backend: {last}", hint) from error
    if not answer.get("ok"):
        raise BridgeError.from_dict(answer.get("error"))
    signals.put("converted", answer)


def remarks(answer: dict[str, Any]) -> list[str]:
    """What a conversion could not carry over, or read otherwise, in words: a line for each."""
    lines = [f"{left['key']} is not carried over: {left['why']}" for left in answer["not_carried"]]
    if answer["unknown"]:
        lines.append(f"Not known to Koshi: {', '.join(answer['unknown'])}.")
    return lines + list(answer["notes"])
