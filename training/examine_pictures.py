# SPDX-License-Identifier: GPL-3.0-or-later
"""What the judge says about drawn pictures: adherence to prompts, distance to the world, detail, combs, variety.

Sets of pictures are drawn in chunks, and only what is measured of each picture is kept, in the run's folder: a judge
who is stopped loses a chunk at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .captions import ADJECTIVES, SCENES, STYLES, TIMES, Spec, held_out, plain
from .figures import Row
from .judge import NAMES, Judge, right, shrink
from .measures import comb, frechet, octave, spread
from .painter import TEACHER_STEPS, Painter, TeacherPainter, batches
from .reality import SQUARE, Wish, as_tensor, classes, real_pictures, wishes
from .stage import TELL_SECONDS, write_atomically

CHUNK = 40  # pictures between two writes
ASKED, COMPARED, REAL, OTHERS = 21, 22, 23, 24  # seeds of the lists of pictures
SHAPED = 0.3  # of the 500 asked for, those that are not square
LIMITS = {"scene": 0.99, "time": 0.97, "style": 0.95}
EACH = 0.90  # of every scene and every style
Described = dict[str, Tensor]


def describe(net: Judge, pictures: Tensor) -> Described:
    """What is kept of pictures [B, 3, H, W] of 0..1, as they are in 8 bits."""
    x = (pictures * 255).round() / 255
    features, read = net.look(x)
    combs = [comb(x, period, over) for period in (8, 16) for over in (False, True)]
    return {"features": features, "read": read, "octave": octave(x), "comb": torch.stack(combs, 1)}


@dataclass(frozen=True)
class Looker:
    """Describes whole sets, chunk by chunk. cache: a folder for this model and this judge."""

    net: Judge
    cache: Path

    def set(self, name: str, wished: Sequence[Wish], draw: Callable[[Sequence[Wish]], Tensor]) -> Described:
        """The descriptions of all pictures of a list, in its order. draw: pictures of wishes of one size."""
        parts: list[Described] = []
        begin = last = time.monotonic()
        for at in range(0, len(wished), CHUNK):
            chunk, path = wished[at : at + CHUNK], self.cache / f"{name}-{at:05d}-{len(wished)}.safetensors"
            if not path.is_file():
                found: dict[int, Described] = {}
                for places in batches(chunk):
                    seen = describe(self.net, draw([chunk[k] for k in places]))
                    found |= {k: {key: v[n] for key, v in seen.items()} for n, k in enumerate(places)}
                whole = {key: torch.stack([found[k][key] for k in range(len(chunk))]) for key in found[0]}
                write_atomically(path, lambda aside, whole=whole: save_file(whole, aside))
                if time.monotonic() - last > TELL_SECONDS:
                    last = time.monotonic()
                    done = at + len(chunk)
                    print(f"  {name} {100 * done / len(wished):5.1f} %  {last - begin:.0f} s", flush=True)
            parts.append(load_file(path))
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def real(
        self,
        name: str,
        wished: Sequence[Wish],
        change: Callable[[Tensor], Tensor] | None = None,
        moved: bool = True,
    ) -> Described:
        """The descriptions of the real pictures of a list of squares; change: what is done to them before."""
        missing = [w for at in range(0, len(wished), CHUNK) for w in wished[at : at + CHUNK]
                   if not (self.cache / f"{name}-{at:05d}-{len(wished)}.safetensors").is_file()]  # fmt: skip
        drawn = real_pictures(missing, moved)

        def draw(batch: Sequence[Wish]) -> Tensor:
            x = as_tensor([next(drawn) for _ in batch])
            return change(x) if change else x

        return self.set(name, wished, draw)


def adherence_rows(seen: Described, wished: Sequence[Wish]) -> list[Row]:
    """Right answers in all, of each scene and style, of what training never showed together, of each shape."""
    read, truth = seen["read"], classes(wished)
    rows = [Row(name, value, least=LIMITS[name], unit="%") for name, value in right(read, truth).items()]
    for k, names, column in ((0, SCENES, "scene"), (2, STYLES, "style"), (1, TIMES, "time")):
        for n, name in enumerate(names):
            chosen = truth[:, k] == n
            if chosen.any():
                value = float((read[chosen, k] == n).float().mean())
                rows.append(Row(f"{column} of {name}", value, least=None if k == 1 else EACH, unit="%"))
    unseen = [k for k, w in enumerate(wished) if held_out(w.spec)]
    groups = {"never seen together": unseen}
    for width, height in sorted({w.size for w in wished} - {SQUARE}):
        groups[f"{width} x {height}"] = [k for k, w in enumerate(wished) if w.size == (width, height)]
    for name, chosen in groups.items():
        if chosen:
            found = right(read[chosen], truth[chosen])
            rows += [Row(f"{name}: {key}", value, unit="%", note=f"{len(chosen)}") for key, value in found.items()]
    return rows


def adherence(look: Looker, painter: Painter, count: int) -> list[Row]:
    """Prompt adherence on `count` pictures of 4 steps: all scenes, times and styles evenly, three in ten not square."""
    wished = wishes(count, ASKED, SHAPED)
    return adherence_rows(look.set("asked", wished, painter.draw), wished)


def steps(look: Looker, painter: Painter, teacher: TeacherPainter | None, count: int, taught: int) -> list[Row]:
    """Adherence with 1 and 2 steps, and of 4 steps against 24 of the teacher on the first `taught` pictures.

    Without the teacher, against one who is always right: the real one cannot have been better.
    """
    wished, rows = wishes(count, ASKED, SHAPED), []
    for n in (1, 2):
        seen = look.set(f"asked-{n}-steps", wished, lambda batch, n=n: painter.draw(batch, n))
        for name, value in right(seen["read"], classes(wished)).items():
            limit = 0.85 if (n, name) == (1, "scene") else None
            rows.append(Row(f"{n} step{'s'[: n - 1]}: {name}", value, least=limit, unit="%"))
    drawn, truth = look.set("asked", wished, painter.draw)["read"], classes(wished)
    if teacher is None:
        for name, value in right(drawn, truth).items():
            what, note = f"lost against a teacher who is always right: {name}", f"on {count}; the teacher is gone"
            rows.append(Row(what, 1 - value, most=0.02, unit="%", note=note))
        return rows
    ours = right(drawn[:taught], truth[:taught])
    theirs = right(look.set("teacher", wished[:taught], teacher.draw)["read"], truth[:taught])
    for name in NAMES:
        note = f"{100 * ours[name]:.1f} against {100 * theirs[name]:.1f} on {taught}"
        lost = theirs[name] - ours[name]
        rows.append(Row(f"lost against {TEACHER_STEPS} guided steps: {name}", lost, most=0.02, unit="%", note=note))
    return rows


@dataclass(frozen=True)
class Compared:
    """The same kinds of pictures, drawn, real twice over, and real ones through the autoencoder; squares of 256."""

    wished: list[Wish]
    drawn: Described
    real: Described
    others: Described
    rebuilt: Described


def compare(look: Looker, common: Looker, painter: Painter, count: int) -> Compared:
    """Draw and describe `count` of each. common: keeps what all models share."""
    drawn, real, others = (wishes(count, seed) for seed in (COMPARED, REAL, OTHERS))
    return Compared(
        drawn,
        look.set("drawn", drawn, painter.draw),
        common.real("real", real),
        common.real("others", others),
        look.real("rebuilt", others, painter.rebuilt),
    )


def distance_rows(sets: Compared) -> list[Row]:
    """Fréchet distances to the real pictures. The rebuilt ones are of other places than those they are held against,
    as the drawn ones are: what is due to the number of pictures is then in both."""
    real = sets.real["features"]
    rebuilt = frechet(sets.rebuilt["features"], real)
    count = f"{len(real)} each"
    return [
        Row("generated to real", frechet(sets.drawn["features"], real), most=4 * rebuilt, note=count),
        Row("other real ones to real", frechet(sets.others["features"], real), note=count),
        Row("other real ones, rebuilt, to real", rebuilt, note=count),
        Row("rebuilt to the very same", frechet(sets.rebuilt["features"], sets.others["features"]), note=count),
    ]


def by_kind(wished: Sequence[Wish]) -> dict[str, list[int]]:
    """Places in a list by scene and by style."""
    found: dict[str, list[int]] = {}
    for k, w in enumerate(wished):
        for name in (w.spec.scene, w.spec.style):
            found.setdefault(name, []).append(k)
    return {name: found[name] for name in (*SCENES, *STYLES) if name in found}


def sharpness_rows(sets: Compared) -> list[Row]:
    """Energy in the top octave over that of real pictures, by scene and style, and of rebuilt ones."""
    real_of = by_kind(wishes(len(sets.wished), REAL))

    def ratio(seen: Described, chosen: list[int], real: list[int]) -> float:
        return float(seen["octave"][chosen].mean() / sets.real["octave"][real].mean())

    everything = list(range(len(sets.wished)))
    rows = [
        Row("generated", ratio(sets.drawn, everything, everything), 0.8, 1.25),
        Row("other real ones", ratio(sets.others, everything, everything)),
        Row("other real ones, rebuilt", ratio(sets.rebuilt, everything, everything)),
    ]
    for name, chosen in by_kind(sets.wished).items():
        if name in real_of:
            rows.append(Row(name, ratio(sets.drawn, chosen, real_of[name]), 0.8, 1.25))
    return rows


def comb_rows(sets: Compared, tiles: Described) -> list[Row]:
    """How far periods of 8 and 16 pixels stand out, over real pictures of the style.

    tiles: real mosaics under the unmoved camera. A mosaic's own tiles are 16 pixels wide there and 8 where they are
    split, and nobody knows which camera a drawn mosaic has in mind: it may stand out as far as an unmoved one.
    """
    real_of, rows = by_kind(wishes(len(sets.wished), REAL)), []
    for column, name in enumerate(("8 pixels", "8 pixels, overtones", "16 pixels", "16 pixels, overtones")):
        for style in STYLES:
            chosen = by_kind(sets.wished).get(style)
            if not chosen or style not in real_of:
                continue
            real = tiles["comb"] if style == "mosaic" else sets.real["comb"][real_of[style]]
            value = float((sets.drawn["comb"][chosen, column].mean() - real[:, column].mean()).exp())
            note = "over unmoved real ones" if style == "mosaic" else ""
            rows.append(Row(f"{name}: {style}", value, most=None if column % 2 else 1.15, note=note))
    return rows


def variety(net: Judge, painter: Painter, seeds: int) -> list[Row]:
    """Mean distance between pictures of one prompt over that between real pictures of it; a prompt for each scene."""
    found: dict[str, list[float]] = {"features": [], "pixels": []}
    names = []
    for n, scene in enumerate(SCENES):
        spec = Spec(scene, TIMES[n % 4], STYLES[n % 5], ADJECTIVES[scene][n % 2])
        words = plain(spec)
        names.append(words)
        wished = [Wish(spec, words, 50_000 + 100 * n + k) for k in range(seeds)]
        ours = torch.cat([painter.draw([wished[k] for k in places]) for places in batches(wished)])
        theirs = as_tensor(list(real_pictures(wished)))
        found["features"].append(spread(net.look(ours)[0]) / spread(net.look(theirs)[0]))
        found["pixels"].append(spread(shrink(ours)) / spread(shrink(theirs)))
    rows = []
    for name, values in found.items():
        worst = min(range(len(values)), key=lambda k: values[k])
        rows.append(Row(f"in {name}", sum(values) / len(values), least=0.6, unit="%", note=f"{seeds} seeds"))
        rows.append(Row(f"in {name}, worst prompt", values[worst], least=0.6, unit="%", note=names[worst]))
    return rows


def sizes(net: Judge, painter: Painter, count: int) -> list[Row]:
    """Adherence at other sizes, from 128 to 512, `count` pictures each."""
    rows = []
    for width, height in ((128, 128), (192, 192), (256, 144), (144, 256), (384, 384), (512, 288), (512, 512)):
        wished = [w._replace(size=(width, height)) for w in wishes(count, ASKED + 100)]
        read = torch.cat([net.look(painter.draw([wished[k] for k in places]))[1] for places in batches(wished)])
        found = right(read, classes(wished))
        rows += [Row(f"{width} x {height}: {name}", value, unit="%") for name, value in found.items()]
    return rows
