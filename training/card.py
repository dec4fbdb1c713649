# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 7, the model card: README.md in the model's folder, from what was measured and logged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open

from koshi_backend.models.identity import model_identity

from .captions import ADJECTIVES, SCENES, STYLES, TIMES, WEATHERS
from .examine import SECTIONS
from .export import LOGS
from .figures import Row, read_rows
from .stage import write_atomically

TITLES = {
    "classifier": "The judge itself, on real pictures",
    "adherence": "Prompts: what the judge reads off the pictures",
    "distance": "Distance to the world (Fréchet, in the judge's features)",
    "autoencoder": "Autoencoder, 256 x 256, PSNR",
    "variety": "Variety of one prompt's seeds, of that of real pictures",
    "sharpness": "Sharpness: energy in the top octave, of that of real pictures",
    "steps": "Fewer steps, and against the teacher",
    "comb": "Combs: how far a period stands out, of that in real pictures",
    "references": "References: error of the drawn motion",
    "loop": "Fed back without motion",
    "speed": "Speed, 256 x 256, 4 steps, two threads on the processor",
    "parity": "Parity with diffusers' Flux2KleinPipeline, PSNR of 8-bit pictures",
    "sizes": "Other sizes",
}
PARTS = {
    "transformer": "transformer (Flux2Transformer2DModel)",
    "vae": "autoencoder (AutoencoderKLFlux2)",
    "text_encoder": "text encoder (Qwen3ForCausalLM)",
}


def weights(folder: Path) -> dict[str, int]:
    """Numbers of weights by part."""
    found = {}
    for part in PARTS:
        found[part] = 0
        for file in (folder / part).glob("*.safetensors"):
            with safe_open(file, framework="numpy") as handle:
                for name in handle.keys():  # noqa: SIM118 - it is no dict
                    count = 1
                    for side in handle.get_slice(name).get_shape():
                        count *= side
                    found[part] += count
    return found


def short(commit: str) -> str:
    """A commit's first digits, and the plus that tells of changed files."""
    return commit.rstrip("+")[:12] + "+" * commit.endswith("+")


def course(log: Path) -> str:
    """A training log in one line: steps, hours, device, commit. Empty when there is no log."""
    if not log.is_file():
        return ""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    starts = [line for line in lines if "start" in line]
    if not starts or not lines:
        return ""
    last, start = max(lines, key=lambda line: line["step"]), starts[-1]
    hours = max(line.get("seconds", 0.0) for line in lines) / 3600
    commits = ", ".join(
        dict.fromkeys(f"`{s['commit'][:12]}{'+' if s['commit'].endswith('+') else ''}`" for s in starts)
    )
    kind = str(start["dtype"]).removeprefix("torch.")
    return (
        f"{last['step']:,} steps in {hours:.2f} hours on {start['device']} as {kind}, seed {start['seed']}, {commits}"
    )


def cell(text: str) -> str:
    """Text that fits into a table."""
    return text.replace("|", "\\|")


def figures_table(rows: list[Row]) -> list[str]:
    """Rows as a Markdown table; those without a limit have empty columns."""
    lines = ["| figure | value | limit | holds | |", "|---|---|---|---|---|"]
    for row in rows:
        value, limit, holds = row.shown()
        value = f"**{value}**" if row.holds is False else value
        lines.append(
            f"| {cell(row.name)} | {value} | {limit} | {'**NO**' if holds == 'NO' else holds} | {cell(row.note)} |"
        )
    return lines


def measured(whole: dict[str, Any]) -> list[str]:
    """All figures, section by section, the misses listed first."""
    rows = read_rows(whole)
    missing = [name for name in SECTIONS if name not in rows]
    limited = [(name, row) for name, part in rows.items() for row in part if row.holds is not None]
    missed = [(name, row) for name, row in limited if not row.holds]
    lines = [f"{len(limited) - len(missed)} of {len(limited)} limits hold."]
    if missed:
        lines += ["", "Not reached:", ""]
        lines += [f"- {TITLES[name]}: {row.name}: {row.shown()[0]} (limit {row.shown()[1]})" for name, row in missed]
    if missing:
        lines += ["", f"Not measured: {', '.join(missing)}."]
    for name in SECTIONS:
        if rows.get(name):
            section = whole["sections"][name]
            how = ", ".join(f"{key} {value}" for key, value in section["settings"].items() if key != "judge")
            where = f"{section['date'][:10]}, commit `{short(section['commit'])}`, torch {section['torch']}"
            lines += ["", f"### {TITLES[name]}", "", *figures_table(rows[name]), ""]
            lines.append(f"<sub>{where}, {section['machine']}{'; ' + how if how else ''}</sub>")
    return lines


def text_of(folder: Path, whole: dict[str, Any]) -> str:
    """The whole card."""
    counts, kept = weights(folder), folder / "training"
    files = [f for f in folder.rglob("*") if f.is_file() and f.parent != kept and f.name != "README.md"]  # this card
    size = sum(f.stat().st_size for f in files)
    listed = "\n".join(f"| {title} | {counts[part] / 1e6:.2f} million |" for part, title in PARTS.items())
    courses = {name: course(kept / f"{name}.jsonl") for name in LOGS}
    trained = "\n".join(f"- {name}: {line} ([log](training/{name}.jsonl))" for name, line in courses.items() if line)
    plots = "\n".join(f"![{n}: loss by step](training/{n}.png)" for n in courses if (kept / f"{n}.png").is_file())
    words = "\n".join(f"| {scene} | {', '.join(ADJECTIVES[scene])} |" for scene in SCENES)
    return f"""# koshi-tiny

A text-to-image model with FLUX.2 Klein's exact architecture at small width, {size / 1e6:.1f} MB, that draws in four
steps on a laptop's processor. It ships with Koshi, so that Koshi draws real pictures with nothing to download, and so
that everything which is measured on it is measured on the code that runs the large models. The folder is in
diffusers' layout; `Flux2KleinPipeline` draws the same pictures from it.

| part | weights |
|---|---|
{listed}

## What it draws

{len(SCENES)} scenes at {len(TIMES)} times ({", ".join(TIMES)}) in {len(STYLES)} styles ({", ".join(STYLES)}),
outdoors with weather ({", ".join(WEATHERS[1:])}). From text alone, or with reference pictures: the same place moved by
a camera, at another time, in another style. Best at about 256 x 256; 16:9, 9:16 and 4:3 of
that size work, and so do 128 x 128 to 384 x 384 for most scenes. At 512 x 512 a scene repeats itself and falls apart.

| scene | adjectives |
|---|---|
{words}

    from koshi_backend import generate_image
    generate_image("a modern city at night, photo", "city.png", width=256, height=256, model="koshi-tiny")

With diffusers, `Flux2KleinPipeline` must be called with `text_encoder_out_layers=(1, 2, 3), max_sequence_length=24`
and `guidance_scale=1.0`; `koshi.json` says so too.

## How it was trained

On pictures by our own code only (the project's `training/world.py`): no photograph, no data set, no other model's
output. Captions come from `training/captions.py`. The autoencoder's encoder is a principal component analysis written
into the weights; its decoder was trained through many rounds of encoding and decoding. Text encoder and transformer
were trained together by flow matching, with references in a third of the batches; guidance and 24 steps were then
distilled to 4.

{trained or "The logs of this training are not beside this card."}

{plots}

## How good it is

Measured on this folder by `python -m training judge`, 4 steps, fixed seeds; limits are the project's own. Real
pictures are held-out ones of the world, under the cameras of the training.

{chr(10).join(measured(whole))}

## Limits of use

It knows the words of its world and nothing else: an unknown word is ignored. It draws no people, no text, nothing
that exists. It is an instrument and a toy for trying things out; for pictures to show, use a large model. Every
picture has the look of the procedural world it comes from.

Its autoencoder holds a picture through two dozen rounds of decoding and encoding, not through hundreds: alone, without
the colour matching and the repainting of Koshi's loop, what goes round 240 times falls apart.

## Licence

GPL-3.0-or-later, as the whole project. The weights are derived from nothing but the project's own code.

## Training another one, or a larger one

`make tiny` in the project's folder repeats all of it; `training/README.md` says what each step does, what to change for
more scenes and styles, and which constants make a larger model.
"""


def write_card(folder: Path, run: Path) -> Path:
    """Write README.md into a model's folder, and judge.json beside the logs in its `training`. Returns the card.

    The figures are those of the run's judge.json when it is about this very model, else those in the folder.
    Raises FileNotFoundError when there are none.
    """
    identity, kept = model_identity(folder), folder / "training" / "judge.json"
    for path in (run / "judge.json", kept):
        whole = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if whole.get("model") == identity:
            if path != kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept)
            break
    else:
        raise FileNotFoundError(
            f"no figures of {folder}: run `python -m training judge --folder {folder}` with these weights first"
        )
    card = folder / "README.md"
    text = text_of(folder, whole)
    write_atomically(card, lambda aside: aside.write_text(text, encoding="utf-8"))
    print(f"card: {card}", flush=True)
    return card
