# SPDX-License-Identifier: GPL-3.0-or-later
"""A model by name, and what can be made with it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from . import templates
from .animation import AnimationCall, Schedules, warn_of_unused_negative
from .arguments import Picture, plain
from .calls import named, passing
from .chain import Frame, Progress, render_shot
from .errors import KoshiError
from .feedback import FeedbackConfig
from .images import OnPicture, OnStep, draw_all, picture_jobs
from .lora.fit import fit_loras
from .lora.uses import lora_uses, single_weights
from .models.budget import UNKNOWN, Job, Wanted, pick_offload, pick_vram
from .models.model import FluxModel
from .models.pool import load_model, pick_device, pick_dtype
from .models.quantise import Quantise, pick_quantise
from .models.registry import FluxVersion, Traits, find_model, find_traits
from .names import model_name
from .outputs import PICTURES, check_file, write_whole
from .progress import FrameLine
from .quality import Quality, steps_of
from .room import pictures_job
from .shot import Shot
from .store import FrameStore
from .video import SUFFIXES, write_video

Version = FluxVersion | str | Path


class Pipeline:
    """A model by name, loaded at the first picture and kept for the next ones.

    model: a FluxVersion, a name or a path. device, dtype: as `pick_device` and `pick_dtype` choose when None.
    offload: what leaves the card while it is not needed (models/placement.py): auto, none, model or block, as
        `pick_offload` chooses when None. vram: GB of the card that may be used, as `pick_vram` chooses when None.
    quantize: what the transformer's layers are made while they are loaded, as `pick_quantise` chooses when None.
    quality: how many steps where a call names none; `quality.steps_of` says what each word is.
    """

    @named
    def __init__(
        self,
        model: Version,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        offload: Wanted | None = None,
        quality: Quality = "normal",
        vram: float | None = None,
        quantize: Quantise | None = None,
    ) -> None:
        self.model = model_name(model)
        find_model(self.model)
        self.quantize = pick_quantise(quantize)
        self.offload, self.vram, self.quality = pick_offload(offload), pick_vram(vram), quality
        steps_of(quality, self.traits)
        self.device = pick_device(device, or_processor=True)
        fell_back = str(device or "").startswith("cuda") and self.device.type == "cpu"
        self.dtype = pick_dtype(self.device, None if fell_back else dtype)

    @property
    def traits(self) -> Traits:
        """What the model can do and how it likes to run."""
        return find_traits(self.model)

    def load(self, job: Job = UNKNOWN) -> FluxModel:
        """The model, loaded. job: what for; with it offloading is chosen where nobody has said it."""
        return load_model(self.model, self.device, self.dtype, self.offload, self.vram, self.quantize, job)

    @named
    def generate_image(
        self,
        prompt: str | Sequence[str],
        output_path: str | Path | Sequence[str | Path] | None = "output.png",
        input_image: Picture | Sequence[Any] | None = None,
        width: int | Sequence[int] = 512,
        height: int | Sequence[int] = 512,
        num_steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int | None] | None = None,
        latents: Tensor | Sequence[Tensor] | None = None,
        on_step: OnStep | None = None,
        *,
        negative_prompt: str = "",
        quality: Quality | None = None,
        template: str | None = None,
        loras: Any = None,
        on_picture: OnPicture | None = None,
        progress: bool | None = None,
    ) -> Any:
        """One picture from text, or from text and references, as a PIL image; several as a list of them.

        Several are made where prompt, width, height, seed, output_path or latents is a list: one entry for each, and
        what is no list for all. input_image is then a list of lists where each has references of its own.
        output_path: where it is written as well, over what is there; None writes nothing. Of several, one path is
            numbered: output-1.png, output-2.png, ...
        input_image: one or more references shown in context, each fitted to width x height, each at a time of its own.
        width, height: multiples of 16, 64 to 1792. num_steps: network evaluations; None: what `quality` says.
        guidance: the model's own when None; Klein's distilled models and schnell ignore it.
        seed: a random one for each when None. latents: the starting noise itself, packed, [1, 128 or 64, H/16, W/16].
        negative_prompt: what it shall not show, for base models with guidance above 1; the others warn.
        quality: draft, normal or final. template: one of `koshi templates`, or a text of your own with {prompt} in it.
        loras: a .safetensors file, (file, weight), or a list of these; all pictures wear them. Weights are 1 if not
            said, and may be negative.
        on_step(k, n): called before step k of n, from 0. on_picture(k, n, image): called after it with a PIL image of
            where it is heading; the last one is the finished picture. Each costs a decoding.
        progress: a line on stderr; None where that is a terminal. Raises KoshiError.
        """
        guidance = self.traits.guidance if guidance is None else guidance
        steps = steps_of(quality or self.quality, self.traits) if num_steps is None else num_steps
        jobs, several = picture_jobs(
            self.traits, self._words(template), prompt=prompt, output_path=output_path, input_image=input_image,
            width=width, height=height, num_steps=steps, guidance=guidance, seed=seed, latents=latents,
        )  # fmt: skip
        warn_of_unused_negative(self.traits, negative_prompt, guidance)
        uses = single_weights(lora_uses(loras), self.model)
        model = self.load(pictures_job(jobs, [file for file, _ in uses], self.dtype))
        worn = [
            (lora, weight)
            for lora, (_, weight) in zip(fit_loras(model, self.model, [file for file, _ in uses]), uses, strict=True)
        ]
        images = list(draw_all(jobs, model, negative_prompt, on_step, on_picture, progress, worn))
        return images if several else images[0]

    @named
    def generate_animation(
        self,
        prompts: str | dict[int, str],
        motion_params: Schedules | None = None,
        num_frames: int = 48,
        width: int = 512,
        height: int = 512,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        noise_scale: float = 1.0,
        noise_mode: str = "incremental",
        init_image: Picture | None = None,
        color_coherence: str | None = "match_prompt",
        loop: bool | str = False,
        interpolation: int | None = None,
        fps: float = 24.0,
        seed: int | None = None,
        feedback_mode: bool | str = True,
        feedback_config: FeedbackConfig | None = None,
        output_path: str | Path = "output.mp4",
        noise_delta: float = 0.05,
        store: FrameStore | None = None,
        progress: Callable[[Progress], None] | bool | None = None,
        *,
        negative_prompt: str = "",
        quality: Quality | None = None,
        template: str | None = None,
        loras: Any = None,
        audio: str | Path | None = None,
    ) -> str:
        """An animation as a video file; returns its path.

        prompts: one text, or {frame: text}.
        motion_params: schedules (strings, numbers or lists) by Deforum's names; may hold `strength_schedule`.
        num_inference_steps, guidance_scale: the model's own when None.
        strength: how much each frame is made anew, 0..1, where motion_params does not say.
        noise_scale: factor on the latent noise; below 1 blurs.
        noise_mode: incremental, fixed, slerp (by noise_delta), subseed (by the schedules subseed and subseed_strength),
            warped, scaled.
        init_image: frame 0 is made from it. color_coherence: match_prompt, match_first, match_frame, LAB, RGB, HSV,
            "Match Frame 0", "Match Previous" or None.
        loop: True or "back": the frames in reverse follow, without the two turning points twice. "seamless": the last
            frames are drawn towards the first, so that it can follow them.
        interpolation: 2, 4 or 8 times as many pictures a second, along the motion between frames: the film takes as
            long.
        feedback_mode: True or "both", "start", "reference", "none"; False matches no colours.
        feedback_config: picture corrections; its colour mode goes before color_coherence.
        negative_prompt, quality, template, loras: as in generate_image; a LoRA's weight may be a schedule.
        progress: True, False, or called with each step; None is a line where stderr is a terminal.
        audio: a sound file, or a film with sound, that is heard from the start and cut where the pictures end.
        Finished frames are kept in the store: the same call again is a matter of seconds. Raises KoshiError.
        """
        path = Path(output_path)
        check_file(path, SUFFIXES)
        shot = self.shot(
            AnimationCall(
                prompts, motion_params, num_frames, width, height, num_inference_steps, guidance_scale, strength,
                noise_scale, noise_mode, init_image, color_coherence, fps, seed, feedback_mode, feedback_config,
                noise_delta, negative_prompt, loop, interpolation, loras, audio,
            ),
            quality,
            template,
        )  # fmt: skip
        frames = (frame.png for frame in self._rendered(shot, store, progress))
        write_video(path, frames, shot.film_rate, shot.audio)
        return str(path)

    @passing(AnimationCall)
    def generate_single_frame(
        self,
        prompt: str | dict[int, str],
        motion_params: Schedules | None = None,
        num_frames: int | None = None,
        width: int = 512,
        height: int = 512,
        *,
        frame: int = 0,
        output_path: str | Path | None = None,
        store: FrameStore | None = None,
        progress: Callable[[Progress], None] | bool | None = None,
        quality: Quality | None = None,
        template: str | None = None,
        **options: Any,
    ) -> Image.Image:
        """One frame of the animation that generate_animation makes of the same arguments, as a PIL image.

        frame: its index, from 0; the frames before it are made as well, or come from the store. Frame 0 is a picture of
            the prompt, or of the prompt and init_image. num_frames: of the whole animation, 48 or as many as it takes.
        output_path: where the picture is written as well. options: generate_animation's others.
        """
        index = plain(frame)
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise KoshiError("bad_value", f"frame is {frame!r}.", "Frames are counted from 0.")
        if output_path is not None:
            check_file(Path(output_path), PICTURES)
        count = max(48, index + 1) if num_frames is None else num_frames
        shot = self.shot(AnimationCall(prompt, motion_params, count, width, height, **options), quality, template)
        if index >= shot.film_frames:
            more = f", and {shot.film_frames} come out" if shot.film_frames != shot.frames else ""
            hint = f"num_frames is {shot.frames}{more}: the last one is {shot.film_frames - 1}."
            raise KoshiError("bad_value", f"frame is {index}.", hint)
        *_, last = self._rendered(shot, store, progress, index + 1)
        image = Image.open(io.BytesIO(last.png))
        if output_path is not None:
            write_whole(Path(output_path), image.save)
        return image

    def shot(self, call: AnimationCall, quality: Quality | None = None, template: str | None = None) -> Shot:
        """The shot that generate_animation renders for these arguments. Raises KoshiError."""
        if call.num_inference_steps is None:
            call = replace(call, num_inference_steps=steps_of(quality or self.quality, self.traits))
        shot = call.shot(self.model, self._words(template))
        warn_of_unused_negative(self.traits, call.negative_prompt, max(shot.values["guidance"]))
        return shot

    def render(self, shot: Shot, **options: Any) -> list[Frame]:
        """All frames of a shot as this pipeline's model runs. options: as `chain.render_shot`."""
        return list(self.frames(shot, **options))

    def frames(self, shot: Shot, **options: Any) -> Iterator[Frame]:
        """The same, one after the other as they are made."""
        place: dict[str, Any] = {"device": self.device, "dtype": self.dtype, "offload": self.offload, "vram": self.vram}
        return render_shot(shot, **place, quantize=self.quantize, **options)

    def _words(self, template: str | None) -> Callable[[str], str]:
        if template is None:
            return lambda prompt: prompt
        family = templates.family_of(self.model)
        return lambda prompt: templates.apply(template, prompt, family)

    def _rendered(
        self,
        shot: Shot,
        store: FrameStore | None,
        progress: Callable[[Progress], None] | bool | None,
        count: int | None = None,
    ) -> Iterator[Frame]:
        """The first `count` pictures, all if None, and how far they are on stderr if that is asked for."""
        line = FrameLine(count or shot.film_frames, False if callable(progress) else progress)
        step = progress if callable(progress) else line.step
        return line.over(islice(self.frames(shot, store=store, progress=step), count))
