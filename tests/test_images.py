# SPDX-License-Identifier: GPL-3.0-or-later
"""generate_image beyond one picture: several, a picture a step, quality, templates, negative prompts, progress."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_families import make_flux2_model
from transformers import AutoTokenizer

from koshi_backend import KoshiError, Pipeline, create_pipeline, generate_image
from koshi_backend.models import pool
from koshi_backend.models.registry import MODELS, find_traits
from koshi_backend.quality import steps_of
from koshi_backend.templates import TEMPLATES, apply, family_of

QUICK: dict[str, Any] = {"width": 64, "height": 64, "num_steps": 1}


@pytest.fixture
def pipe() -> Pipeline:
    return create_pipeline("koshi-tiny")


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_several_pictures_are_each_what_they_are_alone(pipe: Pipeline, tmp_path: Path) -> None:
    prompts, widths, seeds = ["a calm sea, photo", "a forest, ink"], [64, 96], [3, 4]
    both = pipe.generate_image(prompts, tmp_path / "s.png", None, widths, 64, 1, seed=seeds)
    assert [image.size for image in both] == [(64, 64), (96, 64)]
    for k in (0, 1):
        alone = pipe.generate_image(prompts[k], None, None, widths[k], 64, 1, seed=seeds[k])
        assert same(alone, both[k])
        assert same(Image.open(tmp_path / f"s-{k + 1}.png"), alone)
    assert not (tmp_path / "s.png").exists()


def test_any_list_makes_several_and_the_rest_is_for_all(pipe: Pipeline, tmp_path: Path) -> None:
    assert len(pipe.generate_image("a sea", None, **QUICK, seed=(1, 2, 3))) == 3
    (one,) = pipe.generate_image(["a sea"], None, **QUICK, seed=1)
    assert same(one, pipe.generate_image("a sea", None, **QUICK, seed=1))
    sea, reef = pipe.generate_image("a sea", [tmp_path / "x.png", tmp_path / "y.png"], **QUICK, seed=1)
    assert same(sea, reef)
    assert (tmp_path / "y.png").exists()
    dark = Image.new("RGB", (64, 64))
    shown = pipe.generate_image("a sea", None, [[sea], [sea, dark], []], **QUICK, seed=2)
    assert same(shown[0], pipe.generate_image("a sea", None, sea, **QUICK, seed=2))
    assert same(shown[1], pipe.generate_image("a sea", None, [sea, dark], **QUICK, seed=2))
    assert same(shown[2], pipe.generate_image("a sea", None, **QUICK, seed=2))
    noise = torch.randn(1, 128, 4, 4)
    assert same(*pipe.generate_image("a sea", None, **QUICK, latents=[noise, noise]))
    pipe.generate_image("a sea", tmp_path / "many.png", **QUICK, seed=list(range(10)))
    assert [p.name for p in sorted(tmp_path.glob("many*"))][::9] == ["many-01.png", "many-10.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": ["a", "b"], "width": [64, 64, 64]}, "prompt 2, width 3"),
        ({"prompt": []}, "prompt 0"),
        ({"prompt": ["a", ""]}, "Picture 2 of 2: prompt"),
        ({"prompt": ["a", "b"], "height": [64, 65]}, "Picture 2 of 2: height: 65"),
        ({"prompt": ["a", "b"], "input_image": [["no.png"], []]}, r"Picture 1 of 2.*no\.png"),
        ({"quality": "best"}, "quality is 'best'"),
        ({"template": "photograph"}, "Did you mean 'photo'"),
    ],
)
def test_nothing_is_drawn_where_one_of_several_is_unfit(options: dict[str, Any], words: str, pipe: Pipeline) -> None:
    drawn: list[int] = []
    call = {"prompt": "a", "output_path": None, "width": 64, "height": 64, "on_step": lambda k, n: drawn.append(k)}
    with pytest.raises(KoshiError, match=words):
        pipe.generate_image(**{**call, **options})
    assert not drawn


def test_the_model_stays_loaded_between_calls(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pipe.load()
    monkeypatch.setattr(pool, "load_family", None)  # would be called again
    for _ in range(2):
        generate_image("a sea", None, **QUICK, model="koshi-tiny")
    assert create_pipeline("koshi-tiny").load() is first


def test_a_picture_a_step_comes_nearer_and_the_last_is_the_result(pipe: Pipeline) -> None:
    seen: list[tuple[int, int, Image.Image]] = []
    call: dict[str, Any] = {"width": 128, "height": 128, "num_steps": 4, "seed": 5}
    prompt = "a modern city at night, photo"
    result = pipe.generate_image(prompt, None, **call, on_picture=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert same(seen[-1][2], result)
    assert same(result, pipe.generate_image(prompt, None, **call))  # looking on changes nothing
    pixels = [np.asarray(image).astype(float) for _, _, image in seen]
    away = [np.abs(p - pixels[-1]).mean() for p in pixels]
    assert away == sorted(away, reverse=True)
    assert away[0] < 40  # of 255; the prediction, not the noise: 20, then 14 and 8


def test_quality_is_a_number_of_steps(pipe: Pipeline) -> None:
    def steps(pipe: Pipeline, **options: Any) -> int:
        seen: list[int] = []
        pipe.generate_image("a sea", None, width=64, height=64, seed=0, on_step=lambda k, n: seen.append(n), **options)
        assert len(seen) == seen[0]
        return seen[0]

    assert [steps(pipe, quality=word) for word in ("draft", "normal", "final")] == [2, 4, 8]
    assert steps(pipe) == 4
    draft = create_pipeline("koshi-tiny", quality="draft")
    assert (steps(draft), steps(draft, quality="final"), steps(draft, quality="final", num_steps=1)) == (2, 8, 1)
    assert steps_of("draft", find_traits("flux.1-dev")) == 14
    assert steps_of("final", find_traits("flux.2-klein-base-4b")) == 100


def test_negative_prompts_count_where_guidance_contrasts(
    pipe: Pipeline, tiny: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = make_flux2_model(tmp_path / "base", "base", tiny).folder
    base = create_pipeline(str(folder))
    call = {**QUICK, "seed": 1}
    recwarn.clear()
    plain = base.generate_image("a word", None, **call)
    against = base.generate_image("a word", None, **call, negative_prompt="b word")
    assert not same(plain, against)
    assert not recwarn.list
    film = {"width": 64, "height": 64, "num_inference_steps": 1, "seed": 1}
    frames = [base.generate_single_frame("a word", **film, negative_prompt=text) for text in ("", "b word")]
    assert not same(*frames)
    with pytest.warns(UserWarning, match="guidance 1"):
        base.generate_image("a word", None, **call, guidance=1.0, negative_prompt="b word")
    with pytest.warns(UserWarning, match="built in"):
        pipe.generate_image("a sea", None, **call, negative_prompt="fog")
    with pytest.warns(UserWarning, match="built in"):
        pipe.generate_single_frame("a sea", **film, negative_prompt="fog")


def test_templates_are_in_the_words_of_each_family(pipe: Pipeline, tiny: Path) -> None:
    families = {name: family_of(name) for name in MODELS}
    assert families["flux.1-kontext-dev"] == "flux1"
    assert families["flux.2-dev"] == "flux2-dev"
    assert families["flux.2-klein-base-9b"] == "klein"
    assert family_of(str(tiny)) == "koshi-tiny"
    assert set(families.values()) == set(TEMPLATES)
    assert all(text.count("{prompt}") == 1 for known in TEMPLATES.values() for text in known.values())
    styled = pipe.generate_image("a sea at dawn", None, **QUICK, seed=1, template="mosaic")
    assert same(styled, pipe.generate_image("a sea at dawn, mosaic", None, **QUICK, seed=1))
    own = pipe.generate_image("sea", None, **QUICK, seed=1, template="a {prompt} at dawn, mosaic")
    assert same(own, styled)
    film = {"width": 64, "height": 64, "num_inference_steps": 1, "seed": 1}
    assert same(
        pipe.generate_single_frame("a sea at dawn", **film, template="ink"),
        pipe.generate_single_frame("a sea at dawn, ink drawing", **film),
    )


def test_koshi_tiny_knows_every_word_of_its_templates(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny / "tokenizer")
    for name in TEMPLATES["koshi-tiny"]:
        ids = tokenizer(apply(name, "a calm sea", "koshi-tiny"))["input_ids"]
        assert tokenizer.unk_token_id not in ids, name
    assert tokenizer.unk_token_id is not None


def test_templates_for_flux2_dev_stay_json() -> None:
    prompt = 'a sign that says "open",\nat night.'
    for name in TEMPLATES["flux2-dev"]:
        assert json.loads(apply(name, prompt, "flux2-dev"))["scene"] == prompt[:-1]


def test_progress_is_shown_where_it_is_asked_for(pipe: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipe.generate_image("a sea", None, **QUICK, seed=1)
    assert capsys.readouterr().err == ""  # no terminal here
    pipe.generate_image("a sea", None, **QUICK, seed=[1, 2], progress=True)
    assert capsys.readouterr().err.splitlines() == ["picture 1 of 2, done", "picture 2 of 2, done"]
