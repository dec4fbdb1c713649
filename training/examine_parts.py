# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured without the judge: the autoencoder, speed, and parity with diffusers."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from koshi_backend.api import create_pipeline
from koshi_backend.models.autoencoder import Autoencoder
from koshi_backend.models.text import read_settings

from .autoencoder import held_out
from .captions import STYLES
from .figures import Row
from .measures import LinearInverse, psnr, psnr_bytes
from .reality import as_tensor, real_pictures, wishes
from .stage import TELL_SECONDS

FITTED = 25  # seed of the pictures that the linear inverse is fitted on
ROUNDS = {24: 28.0, 240: 26.0}  # rounds, and the least PSNR after them
PROMPT = "a calm sea at dawn, photo"
SIZES = ((256, 256), (192, 128), (176, 320))


@torch.inference_mode()
def autoencoder(
    net: Autoencoder, count: int, looped: int, fitted: int, rounds: Mapping[int, float] = ROUNDS
) -> list[Row]:
    """PSNR on held-out pictures of 256 x 256 after one round and many, beside the best linear way back.

    count, looped: pictures; the first 160 hold every scene, time and style once, the first 40 every scene in every
    style. fitted: pictures for the linear inverse. rounds: numbers of them, and the least PSNR afterwards.
    Float all the way, clamped to the range after every round.
    """
    device = next(net.parameters()).device
    x = held_out(count)

    def once(part: Tensor) -> Tensor:
        return net.decode(net.encode(part.to(device))).cpu()

    def raw(part: Tensor) -> Tensor:
        return torch.cat([net.encoder(v.to(device)).chunk(2, 1)[0].float().cpu() for v in part.split(8)])

    rebuilt = torch.cat([once(v / 2 + 0.5) for v in x.split(8)]) * 2 - 1
    known = as_tensor(list(real_pictures(wishes(fitted, FITTED)))) * 2 - 1
    inverse = LinearInverse(raw(known), known)
    linear = inverse(raw(x))
    rows = [
        Row("one round", psnr(rebuilt, x), least=34.0, unit="dB", note=f"{count} pictures, all styles"),
        Row("the linear inverse", psnr(linear, x), unit="dB"),
    ]
    for k, style in enumerate(STYLES):
        if len(x[k::5]):
            note = f"linear {psnr(linear[k::5], x[k::5]):.1f}"
            rows.append(Row(f"one round: {style}", psnr(rebuilt[k::5], x[k::5]), unit="dB", note=note))
    y, begin, last = x[:looped] / 2 + 0.5, time.monotonic(), time.monotonic()
    for k in range(1, max(rounds) + 1):
        y = torch.cat([once(v) for v in y.split(8)])
        if k in rounds:
            value = psnr(y * 2 - 1, x[:looped])
            rows.append(Row(f"after {k} rounds", value, least=rounds[k], unit="dB", note=f"{looped} pictures"))
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            print(f"  round {k} of {max(rounds)}  {last - begin:.0f} s", flush=True)
    return rows


def speed(folder: Path, device: torch.device, frames: int = 12) -> list[Row]:
    """Whole frames a second, from the caption to 8-bit pixels, at 256 x 256 in 4 steps; the median frame counts.

    On the processor with two threads, in float32 and bfloat16, from text alone and with a reference; on a graphics
    card as well where that is what is judged on.
    """
    rows, threads = [], torch.get_num_threads()
    busy = f"load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    ways = [("cpu", torch.float32), ("cpu", torch.bfloat16)]
    if device.type != "cpu":
        ways.append((str(device), torch.bfloat16))
    torch.set_num_threads(2)
    try:
        for where, dtype in ways:
            pipe = create_pipeline(str(folder), device=where, dtype=dtype)
            shown = pipe.generate_image(PROMPT, None, width=256, height=256, seed=1)
            for name, reference in (("text", None), ("with a reference", shown)):
                spent = []
                for k in range(frames + 2):
                    begin = time.perf_counter()
                    pipe.generate_image(PROMPT, None, reference, 256, 256, seed=k)
                    spent.append(time.perf_counter() - begin)
                kind = str(dtype).removeprefix("torch.")
                least = 2.0 if (where, kind, name) == ("cpu", "float32", "text") else None
                value = 1 / statistics.median(spent[2:])
                rows.append(Row(f"{where}, {kind}, {name}", value, least=least, unit="frames/s", note=busy))
    finally:
        torch.set_num_threads(threads)
    return rows


def parity(folder: Path) -> list[Row]:
    """Koshi's pictures against those of diffusers' pipeline, in 8 bits, at three sizes, without and with a reference.

    Raises ImportError where diffusers is not installed; it is no part of what Koshi needs.
    """
    from diffusers import Flux2KleinPipeline

    ours = create_pipeline(str(folder), device="cpu", dtype=torch.float32)
    theirs = Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    settings, rows = read_settings(folder), []
    for width, height in SIZES:
        generator = torch.Generator().manual_seed(6)
        latents = torch.randn(1, 128, height // 16, width // 16, generator=generator)
        shown = ours.generate_image("a modern city at night, photo", None, width=width, height=height, seed=1)
        for name, image in (("text", None), ("with a reference", shown)):
            a = ours.generate_image(PROMPT, None, image, width, height, latents=latents)
            b: Image.Image = theirs(
                prompt=PROMPT, image=image, latents=latents.clone(), width=width, height=height, num_inference_steps=4,
                guidance_scale=1.0, max_sequence_length=settings.length, text_encoder_out_layers=settings.layers,
            ).images[0]  # fmt: skip
            value = psnr_bytes(np.asarray(a), np.asarray(b))
            rows.append(Row(f"{width} x {height}, {name}", value, least=45.0, unit="dB"))
    return rows
