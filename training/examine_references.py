# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model does with a reference: follows a moved one, and keeps one that is fed back for hundreds of frames."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from koshi_backend.chain import Frame, render_shot
from koshi_backend.feedback import shown_tokens
from koshi_backend.motion import MotionField, deforum_matrix, resample
from koshi_backend.shot import load_shot
from koshi_backend.store import FrameStore

from .captions import ADJECTIVES, SCENES, STYLES, TIMES, Spec, plain
from .figures import Row
from .judge import Judge
from .measures import Flow, drift, flow_error
from .painter import Painter, batches
from .reality import Wish, as_tensor, real_picture
from .stage import TELL_SECONDS

MOVES: dict[str, dict[str, float]] = {
    "zoom in": {"zoom": 1.06},
    "pan": {"translation_x": 7.0, "translation_y": -4.0},
    "turn": {"angle": 3.0, "zoom": 1.02},
    "zoom out": {"zoom": 0.96, "translation_x": -3.0},
}
DRIFT = 0.05


def place(n: int, seed: int) -> Wish:
    """The n-th of several places that go through scenes, times and styles together, with a plain caption."""
    scene = SCENES[n % 8]
    spec = Spec(scene, TIMES[(n + n // 4) % 4], STYLES[n % 5], ADJECTIVES[scene][n % 2])
    return Wish(spec, plain(spec), seed + n)


def in_bytes(x: Tensor) -> np.ndarray:
    """A picture [3, H, W] of 0..1 as uint8 [H, W, 3]."""
    return (x.permute(1, 2, 0).clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()


def followed(painter: Painter, wished: list[Wish], matrix: np.ndarray) -> list[tuple[Flow, Flow]]:
    """For each place: the motion from the unmoved real picture to what is drawn when the moved one is shown as a
    reference, and to the moved picture itself, which is what the measurement can tell at best.

    The reference is moved and its uncovered borders left out as the feedback loop does it.
    """
    found = []
    width, height = wished[0].size
    field = MotionField.affine(matrix, width, height)
    for places in batches(wished):
        batch = [wished[k] for k in places]
        still = [real_picture(w, moved=False) for w in batch]
        moved = torch.cat([resample(as_tensor([p]), field) for p in still])
        drawn = painter.draw(batch, reference=moved, shown=shown_tokens(field.valid))
        for before, ours, best in zip(still, drawn, moved, strict=True):
            found.append((flow_error(before, in_bytes(ours), matrix), flow_error(before, in_bytes(best), matrix)))
    return found


def references(painter: Painter, places: int) -> list[Row]:
    """Distance of the drawn picture's motion from the commanded one, in pixels, over several places and moves."""
    rows: list[Row] = []
    errors: list[float] = []
    wished = [place(n, 60_000) for n in range(places)]
    for name, move in MOVES.items():
        seen = followed(painter, wished, deforum_matrix(256, 256, **move))
        ours, best = [a.error for a, _ in seen], [b.error for _, b in seen]
        errors += ours
        moved = sum(a.moved for a, _ in seen) / len(seen)
        note = f"moved {moved:.1f}, worst place {max(ours):.2f}; the reference itself {sum(best) / len(best):.2f}"
        rows.append(Row(f"{name}: mean error", sum(ours) / len(ours), most=1.0, unit="px", note=note))
    within = sum(e <= 1 for e in errors) / len(errors)
    rows.append(Row("places and moves within 1 px", within, unit="%", note=f"{len(errors)}"))
    rows.append(Row("worst place and move", max(errors), unit="px"))
    return rows


def chain(folder: Path, wish: Wish, frames: int, device: torch.device, store: Path) -> list[Frame]:
    """A shot of one prompt without motion, with the default feedback. What is in the store is not made again."""
    shot = load_shot({
        "model": str(folder), "frames": frames, "seed": wish.seed, "width": wish.size[0], "height": wish.size[1],
        "prompts": [{"text": wish.words}],
    })  # fmt: skip
    made, begin, last = [], time.monotonic(), time.monotonic()
    for frame in render_shot(shot, store=FrameStore(store), device=device, dtype=torch.float32):
        made.append(frame)
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            print(f"  {wish.words}: frame {frame.index + 1} of {frames}  {last - begin:.0f} s", flush=True)
    return made


def loop(net: Judge, folder: Path, chains: int, frames: int, device: torch.device, store: Path) -> list[Row]:
    """Pictures fed back without motion: the furthest that contrast and mean colour ever are from frame 0's, and what
    the judge reads off the last frame."""
    rows: list[Row] = []
    worst: dict[str, tuple[float, str]] = {}
    known, kept = [], []
    for n in range(chains):
        wish = place(n, 70_000)
        pictures = [decoded(frame.png) for frame in chain(folder, wish, frames, device, store)]
        drifts = [drift(pictures[0], p) for p in pictures]
        for key, values in (("contrast", [d.contrast for d in drifts]), ("mean colour", [d.colour for d in drifts])):
            at = int(np.argmax(values))
            if key not in worst or values[at] > worst[key][0]:
                worst[key] = values[at], f"frame {at} of: {wish.words}"
            note = f"last {100 * values[-1]:.1f} %"
            rows.append(Row(f"{key}: {wish.words}", values[at], unit="%", note=note))
        first, last = (net.look(p[None])[1][0].tolist() for p in (pictures[0], pictures[-1]))
        truth = wish.spec.numbers()[:3]
        known.append(last[0] == truth[0])
        kept.append([a == b for a, b in zip(last, first, strict=True)])
    whole = [Row(f"{key}, furthest", value, most=DRIFT, unit="%", note=note) for key, (value, note) in worst.items()]
    whole.append(Row("scene still recognised", sum(known) / chains, least=1.0, unit="%", note=f"{chains} shots"))
    for k, name in ((1, "time"), (2, "style")):
        share = sum(row[k] for row in kept) / chains
        whole.append(Row(f"{name} read as in frame 0", share, unit="%", note=f"after {frames} frames"))
    return whole + rows


def decoded(png: bytes) -> Tensor:
    """A PNG as [3, H, W] of 0..1."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return as_tensor([np.ascontiguousarray(image[..., ::-1])])[0]
