# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi animate` and `koshi generate` do."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api import create_pipeline
from .arguments import check_picture
from .chain import render_shot
from .errors import KoshiError
from .footage import sound_begins
from .lora.uses import parse_lora
from .models.budget import Wanted
from .models.flux2_model import Flux2Model
from .models.pool import pick_device
from .models.quantise import Quantise
from .models.registry import find_traits
from .outputs import PICTURES, check_file, check_folder, write_whole
from .preview import motion_frames
from .progress import FrameLine
from .shot import load_shot, read_shot
from .video import SUFFIXES, is_video, write_video

_OTHER_MEDIA = (".avi", ".gif", ".mpg", ".mpeg", ".webm", ".wmv", ".m4v", ".png", ".jpg", ".jpeg", ".webp", ".exr")


def animate(
    shot_file: Path,
    out: Path,
    device: str | None,
    *,
    motion_only: bool = False,
    loras: Sequence[str] = (),
    quantize: Quantise | None = None,
    offload: Wanted | None = None,
    vram: float | None = None,
) -> dict[str, Any]:
    """Render a shot file to `out`: a folder of %04d.png by frame number, or a video. motion_only: without a model.
    loras: as `--lora` has them; they come after the shot's own. quantize, offload, vram: as `render_shot` takes them.

    Frames are written as they come; files of other names in the folder are left alone.
    """
    shot = read_shot(shot_file)
    if loras:
        written = shot.as_dict()
        shot = load_shot(written | {"loras": [*written["loras"], *map(parse_lora, loras)]})
    _check_out(out)
    where = pick_device(device)
    line = FrameLine(shot.film_frames, True)
    drawn = (
        motion_frames(shot)
        if motion_only
        else render_shot(
            shot, device=where, quantize=quantize, offload=offload, vram=vram, progress=line.step
        )
    )
    frames = line.over(drawn)
    if is_video(out):
        write_video(out, (frame.png for frame in frames), shot.film_rate, shot.audio, sound_begins(shot))
    else:
        for frame in frames:
            write_whole(out / f"{frame.number:04d}.png", frame.png)
    return {"ok": True, "frames": shot.film_frames, **line.counts, "seconds": line.seconds, "out": str(out)}


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Draw one picture to options.out."""
    begin = time.monotonic()
    device = pick_device(options.device)
    pipeline = create_pipeline(
        options.model, device, quantize=options.quantize, offload=options.offload, vram=options.vram
    )
    side = pipeline.traits.side
    width = side if options.width is None else options.width
    height = side if options.height is None else options.height
    pipeline.generate_image(
        options.prompt,
        options.out,
        options.image,
        width,
        height,
        options.steps,
        options.guidance,
        options.seed,
        negative_prompt=options.negative,
        quality=options.quality,
        template=options.template,
        loras=[parse_lora(text) for text in options.lora],
    )
    seconds = round(time.monotonic() - begin, 2)
    print(f"{options.out}  {width} x {height}  {pipeline.model}  {seconds} s", file=sys.stderr)
    return {"ok": True, "out": str(options.out), "model": pipeline.model, "seconds": seconds}


def groups(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what channel groups carry: a table on stdout, or JSON, and a picture to options.out."""
    from .groups import as_json, draw_sample, draw_sheet, judge, measure_groups, measure_moves, table

    begin = time.monotonic()
    if options.out is not None:
        check_file(options.out, PICTURES)
    side = find_traits(options.model).side // 2 if options.size is None else options.size
    check_picture(prompt="any", width=side, height=side, num_steps=4, guidance=1.0, seed=options.seed)
    if not 2 <= options.pictures <= 1000:
        raise KoshiError("bad_value", f"--pictures is {options.pictures}.", "Measure on 2 to 1000 pictures.")
    model = create_pipeline(options.model, pick_device(options.device)).load()
    if not isinstance(model, Flux2Model):
        raise KoshiError("not_supported", "Channel groups are those of FLUX.2's latents.", "Name a FLUX.2 model.")
    sample = draw_sample(model, options.pictures, side, options.seed, _said)
    measured, moves = measure_groups(model, sample, options.seed, _said), measure_moves(model, sample, _said)
    verdict = judge(measured, moves)
    if options.out is not None:
        write_whole(options.out, draw_sheet(model, options.model, sample, measured, moves).save)
    if not options.json:
        print(table(measured, moves, verdict))
    seconds = round(time.monotonic() - begin, 2)
    out = None if options.out is None else str(options.out)
    facts = {"ok": True, "model": options.model, "pictures": options.pictures, "side": side, "seconds": seconds}
    return {**facts, "out": out, **as_json(measured, moves, verdict)}


def _said(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def _check_out(out: Path) -> None:
    """Refuse a place that cannot take the result, before anything is rendered."""
    if is_video(out):
        check_file(out, SUFFIXES)
    elif out.suffix.lower() in _OTHER_MEDIA:
        # Such a name would silently become a folder.
        raise KoshiError("bad_output", f"{out} looks like a file.", "Name a folder, or a .mp4, .mov or .mkv file.")
    else:
        check_folder(out)
