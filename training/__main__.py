# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the training room.

    python -m training all --minutes 20          every step, sharing the time out
    python -m training world | autoencoder | transformer | distill | export
    python -m training judge --folder FOLDER     measures an exported model (default: the run's own)
    python -m training card --folder FOLDER      writes the model card from what the judge found
    python -m training picture --out FILE        every scene, time and style, drawn by the model
    python -m training sheets                    pictures of the world to look at
    python -m training plot LOG.jsonl            a log as a picture (made by every step anyway)

Every step goes on from its last checkpoint; the same command again is all it takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from koshi_backend.environment import prepare
from koshi_backend.errors import KoshiError

if TYPE_CHECKING:
    from .stage import Room

SETTLED = 8  # steps of the autoencoder to one in which its loop settles, where steps are counted
STEPS = ("world", "autoencoder", "transformer", "distill", "export", "judge", "card")


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*STEPS, "all", "picture", "sheets", "plot"])
    parser.add_argument("file", nargs="?", type=Path, help="the log to plot")
    parser.add_argument(
        "--run", type=Path, default=Path("training/run"), help="the run's folder (default: training/run)"
    )
    parser.add_argument("--minutes", type=float, help="of all steps together; each step takes its share")
    parser.add_argument("--steps", type=int, default=0, help="training steps instead of minutes: repeats exactly")
    parser.add_argument("--pictures", type=int, help="how many to draw (default: what fits the minutes)")
    parser.add_argument("--folder", type=Path, help="the model to judge, to describe or to draw with: the run's own")
    parser.add_argument(
        "--judged", type=int, help="pictures the judge asks for; all his other numbers go with it (default: 500)"
    )
    parser.add_argument("--frames", type=int, help="that a picture is fed back for (default: 240)")
    parser.add_argument("--only", default="", metavar="A,B", help="the judge's sections to measure (default: all)")
    parser.add_argument("--again", action="store_true", help="measure what is known already, too")
    parser.add_argument("--out", type=Path, default=Path("docs/koshi-tiny.png"), help="where `picture` goes")
    parser.add_argument("--save-seconds", type=float, default=90.0, help="between checkpoints (default: 90)")
    parser.add_argument("--no-measure", action="store_true", help="leave out the figures at the autoencoder's end")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile on CUDA")
    parser.add_argument("--batch", type=float, help="times a CPU's batch (default: 1, on CUDA 12)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def remembered(folder: Path, wanted: dict) -> dict:
    """The first start's budget: a run that goes on must keep it. A number that is given now goes before."""
    path = folder / "run.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    merged = {**kept, **{name: value for name, value in wanted.items() if value is not None}}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    return merged


def main(arguments: list[str]) -> int:
    """Run one step or all; returns the exit code."""
    given = options(arguments)
    logging.basicConfig(level=logging.WARNING)
    prepare()
    try:
        return run(given)
    except FileNotFoundError as error:
        print(f"An earlier step has not been made yet: {error}")
        return 1
    except (KoshiError, ValueError) as error:
        print(error)
        return 2
    except KeyboardInterrupt:
        print("stopped. The same command goes on from the last checkpoint.")
        return 130


def run(given: argparse.Namespace) -> int:
    """What `main` does. Each step imports its own modules, so that it starts quickly."""
    if given.what == "plot":
        from .plot import plot_log

        if given.file is None:
            print("Name the log to plot: python -m training plot training/run/transformer.jsonl")
            return 2
        plot_log(given.file, given.file.with_suffix(".png"))
        return 0
    if given.what == "sheets":
        from .world import contact_sheets

        print("\n".join(map(str, contact_sheets(given.run / "sheets"))))
        return 0

    import torch

    from .budget import default_minutes, expected, share_out
    from .stage import Room, pick_device, pick_dtype

    if given.threads:
        torch.set_num_threads(given.threads)
    device = pick_device(given.device)
    cuda, processors = device.type == "cuda", os.cpu_count() or 1
    kept = remembered(given.run, {"minutes": given.minutes, "pictures": given.pictures})
    minutes = kept.get("minutes") or default_minutes(device)
    budget = share_out(minutes, processors)
    room = Room(
        folder=given.run,
        device=device,
        dtype=pick_dtype(device, given.dtype),
        steps=given.steps,
        seed=given.seed,
        compile=cuda and not given.no_compile,
        save_seconds=given.save_seconds,
        batch=given.batch or (12.0 if cuda else 1.0),
    )
    if given.what == "all":
        words = expected(minutes, device)
        print(f"{minutes:g} minutes on {device} as {room.dtype}, kept in {given.run}. {words}", flush=True)
    for name in STEPS if given.what == "all" else [given.what]:
        if name == "world":
            from .pictures import draw_pictures

            draw_pictures(room, kept.get("pictures") or budget.pictures, processors)
        elif name == "autoencoder":
            from .autoencoder import train_autoencoder
            from .settle import settle

            train_autoencoder(dataclasses.replace(room, minutes=budget.autoencoder))
            last = dataclasses.replace(room, minutes=budget.settle, steps=-(-room.steps // SETTLED))
            settle(last, 0 if given.no_measure else 40)
        elif name == "transformer":
            from .transformer import train_transformer

            train_transformer(dataclasses.replace(room, minutes=budget.transformer))
        elif name == "distill":
            from .distill import train_distilled

            train_distilled(dataclasses.replace(room, minutes=budget.distill))
        elif name == "export":
            from .export import export

            export(room)
        else:
            after(name, given, dataclasses.replace(room, dtype=torch.float32, steps=0), minutes)
    return 0


def after(name: str, given: argparse.Namespace, room: Room, minutes: float) -> None:
    """What comes after the export: judging, the card, the picture. minutes: that the training had."""
    folder = given.folder or room.folder / "model"
    if name == "judge":
        from .examine import FULL, Numbers, judge_folder

        if given.what == "all" and not given.judged:
            numbers = Numbers.after(minutes, room.device)
        else:
            numbers = Numbers.scaled(given.judged or FULL, given.frames)
        judge_folder(room, folder, numbers, tuple(part for part in given.only.split(",") if part), given.again)
    elif name == "card":
        from .card import write_card

        write_card(folder, room.folder)
    else:
        from .painter import Painter
        from .sheet import draw_sheet

        draw_sheet(Painter.load(folder, room.device), given.out, given.seed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
