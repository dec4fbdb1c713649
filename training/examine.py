# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 6, judging: measures an exported folder, section by section, into judge.json.

The folder that is judged is only read. What is kept lies in the run's folder: the judge, judge.json, and in `judged`
what was found out about single pictures, so that a judge who is stopped goes on.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .budget import CPU_MINUTES
from .examine_parts import autoencoder, parity, speed
from .examine_pictures import (
    Compared,
    Looker,
    adherence,
    comb_rows,
    compare,
    distance_rows,
    sharpness_rows,
    sizes,
    steps,
    variety,
)
from .examine_references import loop, references
from .figures import Figures, Row, summary, table
from .judge import PICTURES, STEPS, Judge, held_out_accuracy, train_judge
from .painter import Painter, TeacherPainter
from .reality import wishes
from .stage import Room

SECTIONS = (
    "classifier", "adherence", "distance", "autoencoder", "variety", "sharpness", "steps", "comb", "references",
    "loop", "speed", "parity", "sizes",
)  # fmt: skip
FULL = 500  # pictures asked for in a full examination
QUICK = 0.2  # of the full recipe's minutes: after less, the classifier is not trained to the end either


@dataclass(frozen=True)
class Numbers:
    """How much is looked at. The defaults are what the project holds itself to."""

    asked: int = FULL  # pictures for adherence
    taught: int = 250  # of them, those that the teacher draws too, at 12 times the price
    compared: int = 2000  # pictures of each set for distance, sharpness and combs
    classified: int = 1600  # real pictures the classifier is tested on
    coded: int = 160  # pictures for the autoencoder's single round
    looped: int = 40  # pictures for its many rounds
    seeds: int = 20  # of every prompt, for variety
    places: int = 16  # for each move of a reference
    chains: int = 8  # shots fed back
    frames: int = 240  # of each of them
    sized: int = 16  # pictures of every other size
    judge_steps: int = STEPS  # of the classifier's training
    judge_pictures: int = PICTURES

    @staticmethod
    def scaled(asked: int, frames: int | None = None) -> Numbers:
        """All in proportion to the pictures asked for; but the shots' length, unless it is given, and the judge."""
        part, full = asked / FULL, Numbers()
        least = {"compared": 8, "classified": 160, "coded": 5, "looped": 2, "seeds": 3, "places": 2, "sized": 2}
        scaled = {name: max(round(value * part), least.get(name, 1)) for name, value in asdict(full).items()}
        most = {name: min(scaled[name], getattr(full, name)) for name in ("seeds", "places", "chains", "sized")}
        kept = {"judge_steps": STEPS, "judge_pictures": PICTURES, "frames": frames or full.frames}
        return Numbers(**(scaled | most | kept))

    @staticmethod
    def after(minutes: float, device: torch.device) -> Numbers:
        """Less of everything after a shorter training."""
        part = 1.0 if device.type == "cuda" else min(minutes / CPU_MINUTES, 1.0)
        numbers = Numbers.scaled(max(round(FULL * part), 8), max(round(240 * part), 3))
        if part < QUICK:
            numbers = replace(numbers, judge_steps=STEPS // 10, judge_pictures=PICTURES // 10)
        return numbers


class Examiner:
    """One model folder before the judge. Parts that are dear are made when a section first needs them."""

    def __init__(self, room: Room, folder: Path, numbers: Numbers) -> None:
        self.room, self.folder, self.numbers = room, folder, numbers
        self.painter = Painter.load(folder, room.device)
        self.model = self.painter.model
        self.net: Judge = train_judge(room, numbers.judge_steps, numbers.judge_pictures)
        kept = room.folder / "judged"
        self.look = Looker(self.net, kept / f"{self.model.identity[:12]}-{self.net.name()}")
        self.common = Looker(self.net, kept / f"real-{self.net.name()}")

    @functools.cached_property
    def sets(self) -> Compared:
        """What distance, sharpness and combs are measured on."""
        return compare(self.look, self.common, self.painter, self.numbers.compared)

    def teacher(self) -> TeacherPainter | None:
        """The run's own teacher, where there is one."""
        if not self.taught:
            print("  24 steps of the teacher are left out: this folder's training run is not here", flush=True)
            return None
        return TeacherPainter(self.room.folder, self.model)

    @property
    def taught(self) -> bool:
        """Whether this is the run's own model, and its teacher is still there."""
        ours = self.folder.resolve() == (self.room.folder / "model").resolve()
        return ours and (self.room.folder / "transformer.pt").is_file()

    def classifier(self) -> list[Row]:
        """The judge itself, on real pictures."""
        found, mistakes = held_out_accuracy(self.net, self.numbers.classified)
        print("\n".join(f"  {text}" for text in mistakes), flush=True)
        count = f"{self.numbers.classified} real pictures"
        return [Row(name, value, least=0.98, unit="%", note=count) for name, value in found.items()]

    def combs(self) -> list[Row]:
        """Combs, with real mosaics under the unmoved camera to compare with."""
        mosaics = [w for w in wishes(self.numbers.compared, 26) if w.spec.style == "mosaic"]
        return comb_rows(self.sets, self.common.real("unmoved", mosaics, moved=False))

    def parity(self) -> list[Row]:
        """Against diffusers, where it is installed."""
        if importlib.util.find_spec("diffusers") is None:
            print("  left out: diffusers is not installed (pip install diffusers)", flush=True)
            return []
        return parity(self.folder)

    def section(self, name: str) -> tuple[dict[str, Any], Callable[[], list[Row]]]:
        """What a section depends on besides the model, and how it is measured."""
        n, seen = self.numbers, {"judge": self.net.name()}
        sections: dict[str, tuple[dict[str, Any], Callable[[], list[Row]]]] = {
            "classifier": (seen | {"classified": n.classified}, self.classifier),
            "adherence": (seen | {"asked": n.asked}, lambda: adherence(self.look, self.painter, n.asked)),
            "distance": (seen | {"compared": n.compared}, lambda: distance_rows(self.sets)),
            "autoencoder": (
                {"coded": n.coded, "looped": n.looped},
                lambda: autoencoder(self.model.autoencoder, n.coded, n.looped, 2 * n.coded),
            ),
            "variety": (seen | {"seeds": n.seeds}, lambda: variety(self.net, self.painter, n.seeds)),
            "sharpness": (seen | {"compared": n.compared}, lambda: sharpness_rows(self.sets)),
            "steps": (
                seen | {"asked": n.asked, "taught": n.taught * self.taught},
                lambda: steps(self.look, self.painter, self.teacher(), n.asked, n.taught),
            ),
            "comb": (seen | {"compared": n.compared}, self.combs),
            "references": ({"places": n.places}, lambda: references(self.painter, n.places)),
            "loop": (
                seen | {"chains": n.chains, "frames": n.frames},
                lambda: loop(
                    self.net, self.folder, n.chains, n.frames, self.room.device, self.room.folder / "judged" / "frames"
                ),
            ),
            "speed": ({}, lambda: speed(self.folder, self.room.device)),
            "parity": ({}, self.parity),
            "sizes": (seen | {"sized": n.sized}, lambda: sizes(self.net, self.painter, n.sized)),
        }
        return sections[name]


def judge_folder(
    room: Room, folder: Path, numbers: Numbers, only: tuple[str, ...] = (), again: bool = False
) -> Figures:
    """Measure all sections, or some, of a model folder, and show the whole table. again: also what is known already.

    Raises FileNotFoundError when the folder is no model, ValueError for a section that does not exist.
    """
    strange = [name for name in only if name not in SECTIONS]
    if strange:
        raise ValueError(f"{', '.join(strange)}: no such section; they are {', '.join(SECTIONS)}")
    examiner = Examiner(room, folder, numbers)
    figures = Figures(room.folder / "judge.json", examiner.model.identity, folder, room.device)
    for name in only or SECTIONS:
        settings, make = examiner.section(name)
        figures.measure(name, settings, make, again)
    rows = figures.rows()
    ordered = {name: rows[name] for name in SECTIONS if name in rows}
    print(f"\n{folder}\n{table(ordered)}\n\n{summary(ordered)}\n{figures.path}", flush=True)
    return figures
