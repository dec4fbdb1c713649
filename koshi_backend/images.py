# SPDX-License-Identifier: GPL-3.0-or-later
"""One call for one picture or several: all of them checked before the first is drawn, then drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .arguments import Picture, PictureCall, as_picture, check_latents, check_picture, plain, seed_or_random
from .errors import KoshiError
from .lora.wear import Worn
from .models.model import FluxModel, Reference
from .models.registry import Traits
from .models.surviving import surviving
from .outputs import PICTURES, check_file, write_whole
from .pictures import read_picture, to_pil
from .progress import Line

OnStep = Callable[[int, int], None]
OnPicture = Callable[[int, int, Image.Image], None]


@dataclass(frozen=True)
class PictureJob:
    """One picture that is to be drawn; everything in it has been checked."""

    call: PictureCall
    path: Path | None
    references: list[Tensor]
    latents: Tensor | None

    def draw(
        self,
        model: FluxModel,
        negative: str = "",
        on_step: OnStep | None = None,
        on_picture: OnPicture | None = None,
        loras: Worn = (),
    ) -> Image.Image:
        """The picture, also written to its path. on_picture also gets the finished one, as that of the last step."""
        call, noise = self.call, self.latents
        if noise is None:
            noise = model.noise(seed_or_random(call.seed), call.width, call.height)

        def hand_out(k: int, n: int, latent: Tensor) -> None:
            if on_picture is not None and k < n - 1:
                on_picture(k, n, to_pil(model.decode(latent)))

        latent = model.denoise(
            call.prompt,
            noise.to(model.device),
            steps=call.num_steps,
            references=[Reference(model.encode_picture(picture)) for picture in self.references],
            guidance=call.guidance,
            negative=negative,
            loras=loras,
            on_step=on_step,
            on_prediction=None if on_picture is None else hand_out,
        )
        image = to_pil(model.decode(latent))
        if on_picture is not None:
            on_picture(call.num_steps - 1, call.num_steps, image)
        if self.path is not None:
            write_whole(self.path, image.save)
        return image


def draw_all(
    jobs: Sequence[PictureJob],
    model: FluxModel,
    negative: str,
    on_step: OnStep | None,
    on_picture: OnPicture | None,
    progress: bool | None,
    loras: Worn = (),
) -> Iterator[Image.Image]:
    """The pictures, one after the other, each written as soon as it is done."""
    line = Line(progress)
    for number, job in enumerate(jobs, 1):
        which = f"picture {number} of {len(jobs)}, " if len(jobs) > 1 else ""

        def step(k: int, n: int, which: str = which) -> None:
            line.show(f"{which}step {k + 1} of {n}")
            if on_step is not None:
                on_step(k, n)

        doing = f"drawing {which or 'a picture, '}".removesuffix(", ")
        image = surviving(model, doing, partial(job.draw, model, negative, step, on_picture, loras))
        line.show(f"{which}done" + ("" if job.path is None else f": {job.path}"), milestone=True)
        yield image
    line.end()


def picture_jobs(
    traits: Traits,
    words: Callable[[str], str],
    *,
    prompt: Any,
    output_path: Any,
    input_image: Any,
    width: Any,
    height: Any,
    num_steps: int,
    guidance: float,
    seed: Any,
    latents: Any,
) -> tuple[list[PictureJob], bool]:
    """The pictures that a call asks for, and whether it asks for several.

    prompt, width, height, seed, output_path, latents may be lists, and input_image a list of lists: one entry for each
    picture, all of one length; what is no list is for all of them. words: the prompt as the model shall read it.
    Raises KoshiError for the first picture that cannot be drawn as asked.
    """
    for_all: dict[str, Any] = {
        "prompt": plain(prompt), "output_path": plain(output_path), "width": plain(width), "height": plain(height),
        "seed": plain(seed), "input_image": input_image, "latents": latents,
    }  # fmt: skip
    each = {name: value for name, value in for_all.items() if isinstance(value, list) and name != "input_image"}
    if isinstance(latents, (list, tuple)):
        each["latents"] = list(latents)
    if isinstance(input_image, (list, tuple)) and any(isinstance(one, (list, tuple)) for one in input_image):
        each["input_image"] = list(input_image)
    lengths = {name: len(value) for name, value in each.items()}
    count = max(lengths.values(), default=1)
    if count == 0 or any(length != count for length in lengths.values()):
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise KoshiError("bad_value", f"The lists do not fit together: {said}.", "Give one entry for each picture.")
    if each and "output_path" not in each:
        each["output_path"] = numbered(output_path, count)
    jobs = []
    for k in range(count):
        one = {**for_all, **{name: value[k] for name, value in each.items()}}
        try:
            jobs.append(_job(traits, words, num_steps, guidance, **one))
        except KoshiError as error:
            if not each:
                raise
            text = f"Picture {k + 1} of {count}: {error.message}"
            raise KoshiError(error.code, text, error.hint, error.problems) from error
    return jobs, bool(each)


def numbered(path: str | Path | None, count: int) -> list[Path | None]:
    """A path for each of several pictures: output.png becomes output-1.png, output-2.png, ... (output-01.png of 12)."""
    if path is None:
        return [None] * count
    whole, digits = Path(path), len(str(count))
    return [whole.with_name(f"{whole.stem}-{k:0{digits}d}{whole.suffix}") for k in range(1, count + 1)]


def _job(
    traits: Traits,
    words: Callable[[str], str],
    num_steps: int,
    guidance: float,
    *,
    prompt: Any,
    output_path: Any,
    input_image: Any,
    width: Any,
    height: Any,
    seed: Any,
    latents: Any,
) -> PictureJob:
    call = check_picture(prompt=prompt, width=width, height=height, num_steps=num_steps, guidance=guidance, seed=seed)
    call = call.model_copy(update={"prompt": words(call.prompt)})
    path = None if output_path is None else Path(output_path)
    if path is not None:
        check_file(path, PICTURES)
    some = input_image if isinstance(input_image, (list, tuple)) else [input_image]
    shown: list[Picture] = [as_picture(one) for one in some if one is not None]
    if shown and not traits.references:
        raise KoshiError(
            "no_references",
            "This model cannot be shown reference pictures.",
            "Leave input_image out, or choose a FLUX.2 model or FLUX.1 Kontext.",
        )
    if latents is not None:
        latents = check_latents(latents, call.width, call.height, 64 if traits.family == "flux1" else 128)
    pictures = [read_picture(one, call.width, call.height) for one in shown]
    return PictureJob(call, path, pictures, latents)
