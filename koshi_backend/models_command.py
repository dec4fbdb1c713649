# SPDX-License-Identifier: GPL-3.0-or-later
"""`koshi models list | describe | pull | verify | remove`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .errors import KoshiError

if TYPE_CHECKING:
    from .models.pull_progress import Progress
    from .models.registry import ModelInfo

ACTIONS = {
    "list": "list the models that Koshi knows, and which are installed",
    "describe": "what a model is made of, what it needs and what its licence is",
    "pull": "fetch a model, or the rest of it; an interrupted pull goes on where it was",
    "verify": "check every tensor of a model against the networks, and every file against the hub's checksum",
    "remove": "delete a model that was fetched, and what was broken off",
}


def add_actions(models: argparse.ArgumentParser) -> None:
    """The arguments of `koshi models`."""
    actions = models.add_subparsers(dest="action", metavar="ACTION")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
        action.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout"
        )
        if name in ("describe", "verify"):
            action.add_argument("model", metavar="MODEL", help="a name, a folder or a file")
        elif name != "list":
            action.add_argument("model", metavar="NAME", help="one of the names that `koshi models` lists")
        if name == "verify":
            action.add_argument("--headers", action="store_true", help="tensors only, in a second: read no weights")
        if name == "pull":
            action.add_argument("--repair", action="store_true", help="fetch again what has a wrong checksum")
        if name in ("pull", "verify"):
            # For programs that show it in their own way: lines on stderr, Progress DONE of TOTAL, TEXT
            action.add_argument("--progress", action="store_true", help=argparse.SUPPRESS)


def models(options: argparse.Namespace) -> dict[str, Any]:
    """Do what `koshi models` was asked to."""
    match options.action:
        case "describe":
            from .models.describe import as_text, describe

            return _told(options, describe(options.model), as_text)
        case "pull":
            return _pull(options)
        case "verify":
            return _verify(options)
        case "remove":
            from .models.pull import remove
            from .models.pull_words import size

            return _told(options, remove(_named(options.model)), lambda done: f"{size(done['freed'])} freed")
    from .models.catalogue import as_text as listed
    from .models.catalogue import list_models

    return _told(options, list_models(), listed)


def _told(options: argparse.Namespace, report: dict[str, Any], text: Any) -> dict[str, Any]:
    if not options.json:
        print(text(report))
    return report


def _named(name: str) -> ModelInfo:
    """A model from the registry: only those can be fetched and removed by name."""
    from .models.registry import MODELS, find_model

    if name not in MODELS:
        find_model(name)  # refuses what is no model at all, with the names that come near
        raise KoshiError("not_by_name", f"{name} is a path.", f"Known by name are {', '.join(MODELS)}.")
    return MODELS[name]


def _pull(options: argparse.Namespace) -> dict[str, Any]:
    from .models.pull import pull
    from .models.pull_words import size
    from .progress import Line

    info, line = _named(options.model), Line(True)
    tenth = -1

    def tell(progress: Progress) -> None:
        nonlocal tenth
        if options.progress:
            _progress(progress.done, progress.total, str(progress))
            return
        now = 10 * progress.done // max(progress.total, 1)
        line.show(str(progress), milestone=now != tenth)
        tenth = now

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        report = pull(info, tell, repair=options.repair, say=say)
    except KeyboardInterrupt as error:
        hint = "What was fetched is kept: the same command goes on from there."
        raise KoshiError("cancelled", "Stopped.", hint) from error
    finally:
        line.end()

    def text(done: dict[str, Any]) -> str:
        if not done["fetched"]:
            return f"{info.title} is here: {done['folder']}"
        return f"{info.title} is here, {size(done['fetched'])} fetched in {done['seconds']:.0f} s: {done['folder']}"

    return _told(options, report, text)


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    from .models.checkpoint_check import as_text, check_files, verify_files
    from .models.pull_words import size
    from .progress import Line

    if options.headers:
        return _told(options, check_files(options.model), as_text)
    line = Line(None)

    def tell(file: str, done: int, total: int) -> None:
        text = f"{size(done)} of {size(total)} read, {file}"
        if options.progress:
            _progress(done, total, text)
        else:
            line.show(text)

    report = verify_files(options.model, tell)
    line.end()
    return _told(options, report, as_text)


def _progress(done: int, total: int, text: str) -> None:
    print(f"Progress {done} of {total}, {text}", file=sys.stderr, flush=True)
