# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompt templates: a look by name, in the words that each family is used to. {prompt} stands for what is shown.

FLUX.1's T5 reads sentences, and CLIP beside it only the first 77 tokens: the look comes first, in a sentence. FLUX.2
dev also understands JSON with scene, style, lighting, camera. Klein reads prose, subject first, style last. (Source:
Black Forest Labs' prompting guides, docs.bfl.ml.) koshi-tiny knows only its own few words.
"""

from __future__ import annotations

import json
from pathlib import Path

from .calls import nearest
from .errors import KoshiError
from .models.registry import find_model, find_traits

PLACE = "{prompt}"
TEMPLATES: dict[str, dict[str, str]] = {
    "flux1": {
        "photo": "A photograph of {prompt}. Natural light, sharp focus, fine detail, taken with a 35 mm lens.",
        "film still": "A film still of {prompt}. Widescreen, soft key light, shallow depth of field, fine film grain.",
        "painting": "An oil painting of {prompt}. Visible brush strokes, layered paint, canvas texture.",
        "watercolor": "A watercolor painting of {prompt}. Soft washes that run into each other, paper texture.",
        "ink": "An ink drawing of {prompt}. Black lines and washes on white paper, confident strokes.",
        "anime": "An anime illustration of {prompt}. Clean lines, flat cel shading, a painted background.",
        "neon": "A scene in neon lights: {prompt}. Glowing outlines in pink and cyan on a dark ground.",
    },
    "flux2-dev": {
        "photo": '{"scene": "{prompt}", "style": "photograph, true to life", "lighting": "natural light", '
        '"camera": {"lens": "35mm", "depth_of_field": "deep"}}',
        "film still": '{"scene": "{prompt}", "style": "film still, fine grain", "lighting": "soft key light", '
        '"composition": "widescreen", "camera": {"lens": "50mm", "depth_of_field": "shallow"}}',
        "painting": '{"scene": "{prompt}", "style": "oil painting, visible brush strokes, canvas texture"}',
        "watercolor": '{"scene": "{prompt}", "style": "watercolor painting, soft washes, paper texture"}',
        "ink": '{"scene": "{prompt}", "style": "ink drawing, black lines and washes on white paper"}',
        "anime": '{"scene": "{prompt}", "style": "anime illustration, clean lines, flat cel shading"}',
        "neon": '{"scene": "{prompt}", "style": "neon lights, glowing outlines", '
        '"color_palette": ["#FF2D95", "#00E5FF", "#0A0A12"]}',
    },
    "klein": {
        "photo": "{prompt}, in natural light, every detail in sharp focus. Style: photograph with a 35 mm lens.",
        "film still": "{prompt}, lit by a soft key light, the background out of focus. Style: film still, fine grain.",
        "painting": "{prompt}, in layered oil paint with visible brush strokes. Style: oil painting on canvas.",
        "watercolor": "{prompt}, in soft washes that run into each other. Style: watercolor on rough paper.",
        "ink": "{prompt}, in confident black lines and washes on white paper. Style: ink drawing.",
        "anime": "{prompt}, in clean lines and flat cel shading. Style: anime illustration.",
        "neon": "{prompt}, glowing outlines in pink and cyan on a dark ground. Style: neon lights.",
    },
    "koshi-tiny": {
        "photo": "{prompt}, photo",
        "painting": "{prompt}, watercolor painting",
        "watercolor": "{prompt}, watercolor",
        "ink": "{prompt}, ink drawing",
        "neon": "{prompt}, neon lights",
        "mosaic": "{prompt}, mosaic",
    },
}


def apply(name: str, prompt: str, family: str) -> str:
    """The prompt in the named look, as `family` (a key of TEMPLATES) wants it.

    name: one of the family's templates, or a template of your own: a text with {prompt} in it.
    In a template that is JSON the prompt's quotes and line breaks are escaped. Raises KoshiError("bad_value").
    """
    known = TEMPLATES[family]
    template = name if isinstance(name, str) and PLACE in name else known.get(name)
    if template is None:
        near = nearest(name, known) if isinstance(name, str) else None
        meant = f"Did you mean {near!r}? " if near else ""
        raise KoshiError(
            "bad_value",
            f"There is no template {name!r} for {family}.",
            f"{meant}Use {', '.join(known)}, or a text of your own with {PLACE} in it.",
        )
    what = prompt.strip().rstrip(".")
    if template.lstrip().startswith('{"'):
        what = json.dumps(what, ensure_ascii=False)[1:-1]
    return template.replace(PLACE, what)


def family_of(model: str) -> str:
    """Which templates a model, by its registry name or path, takes. Raises KoshiError as `find_model` does."""
    found, traits = find_model(model), find_traits(model)
    if model == "koshi-tiny" or (isinstance(found, Path) and _is_tiny(found)):
        return "koshi-tiny"
    if traits.family == "flux1":
        return "flux1"
    return "flux2-dev" if traits.embeds else "klein"


def _is_tiny(path: Path) -> bool:
    try:
        return json.loads((path / "koshi.json").read_text(encoding="utf-8"))["name"] == "koshi-tiny"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def listing() -> str:
    """All templates for a person to read."""
    lines = []
    for family, known in TEMPLATES.items():
        lines += [family, *(f"  {name:11} {template}" for name, template in known.items())]
    return "\n".join(lines)
