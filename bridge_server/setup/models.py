# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches, checks and removes models for Blender: `koshi models` in the backend's Python, and how far it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..launcher import clean_environment
from ..protocol import BridgeError
from .running import Runner

_LEASH = Path(__file__).with_name("leash.py")
_PROGRESS = re.compile(r"Progress (\d+) of (\d+), (.*)$")
_DOING = {"pull": "Fetching", "verify": "Checking", "delete": "Removing"}
_DONE = {"pull": "is here", "verify": "is sound", "delete": "is removed"}


def run(task: str, model: str, title: str, python: str, source: Path, repair: bool, runner: Runner) -> str:
    """Do it; returns a sentence. Raises BridgeError with what `koshi models` says, or Stopped.

    model: its name. title: for people. python: of the backend's environment. repair: when pulling, fetch again what has
    a wrong checksum. Environment variables (HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE) reach it as they are.
    """
    runner.tell(f"{_DOING[task]} {title}")
    environ = clean_environment(source)
    if task == "pull":
        environ.pop("HF_HUB_OFFLINE", None)  # a Blender that was started offline may be online by now
    action = ["remove" if task == "delete" else task, model, "--json"]
    if task != "delete":
        action += ["--progress"]
    if repair:
        action += ["--repair"]

    def read(line: str) -> None:
        if found := _PROGRESS.match(line):
            runner.tell(None, found[3], int(found[1]) / max(int(found[2]), 1))

    # On a leash: a set-up's program that is killed takes it along, and the next one finds no other at work.
    _, said = runner.run([python, str(_LEASH), "koshi_backend", "models", *action], environ, read)
    report = next((line for line in reversed(said.splitlines()) if line.startswith("{")), "")
    try:
        told = json.loads(report)
    except ValueError:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing")
        raise BridgeError("models_failed", f"The backend did not answer: {last[:300]}", "The log has more.") from None
    if told.get("error"):
        raise BridgeError.from_dict(told["error"])
    if not told.get("ok"):
        raise _unsound(title, told.get("problems") or [])
    sums = told.get("checksums") or {}
    right, unknown = len(sums.get("right", ())), len(sums.get("unknown", ()))
    more = f": {right} checksums are right" if right else ""
    if unknown:
        more += f"{',' if right else ':'} of {unknown} files none is known"
    return f"{title} {_DONE[task]}{more}"


def _unsound(title: str, problems: list[dict[str, str]]) -> BridgeError:
    hint = "Press Repair: what is damaged is fetched again."
    first = problems[0] if problems else {"field": "files", "message": "it cannot be used."}
    more = f" And {len(problems) - 1} more faults." if len(problems) > 1 else ""
    return BridgeError("model_damaged", f"{title}: {first['field']}: {first['message']}{more}", hint)
