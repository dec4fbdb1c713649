# SPDX-License-Identifier: GPL-3.0-or-later
"""What `koshi feedback` does: a picture that is zoomed into and painted over, again and again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .animation import AnimationCall
from .api import create_pipeline
from .feedback import FeedbackConfig
from .lora.uses import parse_lora
from .models.pool import pick_device
from .models.registry import Traits
from .outputs import check_folder, write_whole
from .progress import FrameLine
from .video import write_video

FILM = "feedback.mp4"


def feedback(options: argparse.Namespace) -> dict[str, Any]:
    """Render options.iterations frames to options.output: 0000.png, 0001.png, ... and feedback.mp4.

    Frame 0 is a picture of the prompt, or the one given; every frame after it is the one before, in this order: moved
    (as a picture, or with --carry latent as a latent, which is then decoded), matched to frame 0's colours, contrasted,
    sharpened, strewn with noise, encoded and painted over.
    """
    check_folder(options.output)
    device = pick_device(options.device)
    pipeline = create_pipeline(
        options.model, device, quantize=options.quantize, offload=options.offload, vram=options.vram
    )
    shot = pipeline.shot(call_of(options, pipeline.traits))
    line, files = FrameLine(shot.frames, True), []
    for frame in line.over(pipeline.frames(shot, progress=line.step)):
        files.append(options.output / f"{frame.number:04d}.png")
        write_whole(files[-1], frame.png)
    film = Path(options.output) / FILM
    write_video(film, (file.read_bytes() for file in files), shot.fps)
    facts = {"frames": shot.frames, **line.counts, "seconds": line.seconds, "seed": shot.seed, "model": shot.model}
    return {"ok": True, **facts, "out": str(options.output), "video": str(film)}


def call_of(options: argparse.Namespace, traits: Traits) -> AnimationCall:
    """What the options ask for, as the arguments of generate_animation."""
    side = min(traits.side, 512)
    return AnimationCall(
        prompts=options.prompt,
        motion_params={
            "zoom": 1.0 + options.zoom,
            "angle": options.angle,
            "translation_x": options.translation_x,
            "translation_y": options.translation_y,
        },
        num_frames=options.iterations,
        width=side if options.width is None else options.width,
        height=side if options.height is None else options.height,
        num_inference_steps=options.steps,
        guidance_scale=options.cfg,
        strength=options.feedback_denoise,
        init_image=options.init_image,
        color_coherence="match_first",
        fps=options.fps,
        seed=options.seed,
        feedback_config=FeedbackConfig(
            None if options.color_mode == "none" else options.color_mode,
            options.noise_amount,
            options.noise_type,
            options.sharpen,
            options.contrast,
        ),
        negative_prompt=options.negative,
        carry=options.carry,
        loras=[parse_lora(text) for text in options.lora],
    )
