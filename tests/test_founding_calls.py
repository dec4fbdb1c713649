# SPDX-License-Identifier: GPL-3.0-or-later
"""Every call that the founding documents print, as it is written there, on koshi-tiny and on a small random FLUX.1.

Models under their own names (FLUX_1_DEV, "flux-schnell") are found in a hub cache that holds small ones.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from test_families import make_flux1_model, make_flux2_model

import koshi_backend
from koshi_backend import (
    FeedbackConfig,
    Flux1DeforumPipeline,
    Flux1MotionEngine,
    Flux2MotionEngine,
    FluxVersion,
    KoshiError,
    KoshiFlux,
    create_flux1_pipeline,
    create_pipeline,
    generate_animation,
    generate_image,
)
from koshi_backend.cli import _parser, main
from koshi_backend.feedback_command import call_of
from koshi_backend.models.registry import MODELS, find_traits
from koshi_backend.shot import read_shot

SMALL = {"width": 64, "height": 64}
QUICK = {**SMALL, "num_inference_steps": 1, "seed": 1}
PROMPT = "a calm sea at dawn, photo"


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model for each that the documents name."""
    made = {kind: tmp_path_factory.mktemp(kind) for kind in ("schnell", "dev", "flux.2-dev")}
    return {
        "flux.1-schnell": make_flux1_model(made["schnell"], "schnell").folder,
        "flux.1-dev": make_flux1_model(made["dev"], "dev").folder,
        "flux.2-dev": make_flux2_model(made["flux.2-dev"], "flux.2-dev", tiny).folder,
        "flux.2-klein-4b": tiny,
        "flux.2-klein-9b": tiny,
    }


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in the hub's cache as downloads do, and there is no network."""
    from huggingface_hub import constants

    for name, folder in folders.items():
        cache = tmp_path / "hub" / constants.REPO_ID_SEPARATOR.join(["models", *MODELS[name].repository.split("/")])
        (cache / "refs").mkdir(parents=True)
        (cache / "snapshots").mkdir()
        (cache / "refs" / "main").write_text("0" * 40)
        (cache / "snapshots" / ("0" * 40)).symlink_to(folder, target_is_directory=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module", params=["koshi-tiny", "flux.1"])
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> str:
    """What stands for a model's name in a call; one after the other, as one stays loaded."""
    return "koshi-tiny" if request.param == "koshi-tiny" else str(folders["flux.1-schnell"])


def count(path: str | Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def draws(pipe: koshi_backend.Pipeline) -> bool:
    return pipe.generate_image(PROMPT, None, **SMALL, num_steps=1, seed=0).size == (64, 64)


# ---- create_pipeline


@pytest.mark.parametrize("name", ["FLUX_1_DEV", "FLUX_1_SCHNELL", "FLUX_2_DEV", "FLUX_2_KLEIN_4B", "FLUX_2_KLEIN_9B"])
def test_create_pipeline_with_each_version(name: str, hub: None) -> None:
    pipe = create_pipeline(
        version=FluxVersion[name],
        device="cuda",
        dtype=torch.bfloat16,
        enable_cpu_offload=False,
        enable_sequential_offload=False,
    )
    assert draws(pipe)


def test_create_pipeline_by_position(hub: None, model: str) -> None:
    assert draws(create_pipeline(FluxVersion.FLUX_1_DEV))
    assert draws(create_pipeline(model, "cuda", torch.bfloat16, True, True))


# ---- create_flux1_pipeline, Flux1DeforumPipeline


def test_create_flux1_pipeline(hub: None, model: str) -> None:
    pipe = create_flux1_pipeline(device="cuda", offload=True, schnell=True)
    assert (pipe.model, pipe.offload) == ("flux.1-schnell", "model")
    assert draws(pipe)
    assert create_flux1_pipeline(device="cuda", offload=True, schnell=False).model == "flux.1-dev"
    assert draws(create_flux1_pipeline(device="cuda", offload=True, model=model))


def test_flux1_deforum_pipeline(hub: None, model: str) -> None:
    pipe = Flux1DeforumPipeline(model_name="flux-schnell", offload=True)
    assert (pipe.model, pipe.offload) == ("flux.1-schnell", "model")
    assert draws(pipe)
    assert draws(Flux1DeforumPipeline(model_name=model, offload=True))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("flux-dev", "flux.1-dev"),
        ("flux-schnell", "flux.1-schnell"),
        ("flux-klein", "flux.2-klein-4b"),
        ("FLUX_2_KLEIN_9B", "flux.2-klein-9b"),
        ("black-forest-labs/FLUX.1-dev", "flux.1-dev"),
    ],
)
def test_names_that_models_also_have(name: str, known: str) -> None:
    assert create_pipeline(name).model == known


# ---- generate_animation


def test_generate_animation_with_everything(model: str, tmp_path: Path) -> None:
    pipe = create_pipeline(model, device="cuda")
    Image.new("RGB", (80, 64), (40, 90, 160)).save(tmp_path / "start.png")
    path = pipe.generate_animation(
        prompts={0: "a calm sea at dawn, photo", 2: "a calm sea at night, photo"},
        motion_params={
            "zoom": "0:(1.0), 3:(1.05)", "angle": "0:(0.5)", "translation_x": 2, "translation_y": "0:(-1)",
            "translation_z": "0:(10)", "strength_schedule": "0:(0.65), 2:(0.55)",
        },
        num_frames=3,
        width=64,
        height=80,
        num_inference_steps=2,
        guidance_scale=3.5,
        strength=0.5,
        noise_scale=1.0,
        noise_mode="slerp",
        init_image=str(tmp_path / "start.png"),
        color_coherence="match_first",
        loop=True,
        interpolation=2,
        fps=24,
        seed=42,
        feedback_mode=True,
        feedback_config=FeedbackConfig(
            color_mode="LAB", noise_amount=0.02, noise_type="perlin", sharpen_amount=0.1, contrast_boost=1.0
        ),
        output_path=str(tmp_path / "out.mp4"),
    )  # fmt: skip
    assert path == str(tmp_path / "out.mp4")
    assert count(path) == 8  # 0 .5 1 1.5 2 and back
    with av.open(path) as film:
        assert film.streams.video[0].average_rate == 48


@pytest.mark.parametrize(
    "value",
    [
        {"prompts": PROMPT},
        {"motion_params": {"zoom": 0.9, "angle": -30, "translation_x": 50, "translation_z": -100}},
        {"motion_params": {"zoom": 1.2, "angle": 30, "translation_y": -50, "translation_z": 75}},
        *({"noise_mode": mode} for mode in ("fixed", "incremental", "slerp")),
        {"noise_mode": "slerp", "noise_delta": 0.2},
        {"noise_mode": "subseed", "motion_params": {"subseed": 7, "subseed_strength": "0:(0), 1:(.5)"}},
        *({"color_coherence": way} for way in ("match_first", "match_frame", "LAB", "RGB", "HSV", None)),
        {"color_coherence": "Match Frame 0"},
        {"color_coherence": "Match Previous"},
        *({"interpolation": factor} for factor in (None, 2, 4, 8)),
        {"loop": True},
        {"init_image": Image.new("RGB", (64, 64), (200, 120, 40))},
        {"feedback_mode": False},
        {"feedback_config": FeedbackConfig(color_mode=None, noise_type="gaussian")},
    ],
    ids=lambda value: str(value).partition("<")[0],  # without an object's address, which is new in each process
)
def test_every_value_of_generate_animation(value: dict[str, Any], model: str, tmp_path: Path) -> None:
    expected = 2 * (value.get("interpolation") or 1) - (value.get("interpolation") or 1) + 1
    call = {"prompts": PROMPT, "num_frames": 2, **QUICK, "output_path": tmp_path / "o.mp4", **value}
    assert count(generate_animation(model=model, **call)) == expected


def test_sizes_from_64_to_1792_by_16() -> None:
    for side in (63, 72, 1808):
        with pytest.raises(KoshiError, match="width"):
            generate_image(PROMPT, None, width=side, height=64)


# ---- FeedbackConfig


def test_feedback_config() -> None:
    config = FeedbackConfig(
        color_mode="LAB", noise_amount=0.02, noise_type="perlin", sharpen_amount=0.1, contrast_boost=1.0
    )
    assert config == FeedbackConfig()
    for mode in ("LAB", "RGB", "HSV", None):
        for kind in ("perlin", "gaussian"):
            FeedbackConfig(mode, 0.005, kind, 0.05, 0.9)
            FeedbackConfig(mode, 0.03, kind, 0.25, 1.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"color_mode": "sepia"}, "color_mode.*LAB, RGB, HSV, None"),
        ({"color_mode": "match_first"}, "color_mode"),
        ({"noise_type": "pink"}, "noise_type.*perlin, gaussian"),
        ({"noise_amount": -0.1}, "noise_amount.*between 0 and 8.5"),
        ({"noise_amount": float("nan")}, "noise_amount"),
        ({"sharpen_amount": "much"}, "sharpen_amount"),
        ({"contrast_boost": True}, "contrast_boost"),
        ({"contrast_boost": 9.0, "sharpen_amount": 9.0}, "2 faults.*sharpen_amount.*contrast_boost"),
        ({"sharpen": 0.1}, "sharpen:.*Did you mean 'sharpen_amount'"),
    ],
)
def test_wrong_feedback_configs_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(KoshiError, match=words):
        FeedbackConfig(**options)


def test_amounts_beyond_the_usual_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    FeedbackConfig(contrast_boost=1.5, noise_amount=0.0)
    assert ["contrast_boost" in record.getMessage() for record in caplog.records] == [True]


# ---- motion engines


def test_the_motion_engines_need_no_model() -> None:
    latent = torch.randn(1, 16, 64, 64)
    moved = Flux1MotionEngine(device="cpu").apply_motion(latent, {"zoom": 1.1, "angle": 5, "translation_z": 20})
    assert moved.shape == latent.shape
    assert not torch.equal(moved, latent)
    packed = torch.randn(1, 128, 32, 32)
    weights = (0.35, 0.28, 0.18, 0.08, -0.05, -0.15, -0.25, -0.30)
    assert Flux2MotionEngine(device="cpu").depth_weights == weights
    engine = Flux2MotionEngine(device="cpu", depth_weights=weights[::-1])
    assert engine.apply_motion(packed, {"zoom": 1.1, "angle": 5, "translation_z": 20}).shape == packed.shape


# ---- generate_single_frame


def test_generate_single_frame(model: str, tmp_path: Path) -> None:
    pipe = create_pipeline(model)
    first = pipe.generate_single_frame(PROMPT, **QUICK)
    assert first.size == (64, 64)
    again = pipe.generate_single_frame(prompt=PROMPT, **QUICK, frame=0, output_path=tmp_path / "0.png")
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert np.array_equal(np.asarray(first), np.asarray(Image.open(tmp_path / "0.png")))
    third = pipe.generate_single_frame(
        PROMPT, {"zoom": "0:(1.1)"}, num_frames=3, **QUICK, frame=2, init_image=first, strength=0.4
    )
    assert not np.array_equal(np.asarray(third), np.asarray(first))
    with pytest.raises(KoshiError, match="num_frames is 3"):
        pipe.generate_single_frame(PROMPT, num_frames=3, **QUICK, frame=3)
    with pytest.raises(KoshiError, match="Did you mean 'guidance_scale'"):
        pipe.generate_single_frame(PROMPT, guidance=2.0)


# ---- KoshiFlux


def test_koshi_flux(hub: None, model: str, tmp_path: Path) -> None:
    quick = {**SMALL, "steps": 1, "seed": 1}
    out = KoshiFlux(model="flux-dev").animate(
        prompt=PROMPT, zoom="0:(1.0), 2:(1.02)", frames=3, output=tmp_path / "a.mp4", **quick
    )
    assert count(out) == 3
    out = KoshiFlux(model=model).animate(
        prompt=PROMPT, zoom="0:(1.0)", angle=1, strength="0:(.4)", frames=2, output=tmp_path / "b.mp4", **quick
    )
    assert count(out) == 2
    with pytest.raises(KoshiError, match="Did you mean 'zoom'"):
        KoshiFlux(model=model).animate(prompt=PROMPT, zom="0:(1.0)", frames=60)


# ---- generate_image


def test_generate_image(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = generate_image(
        PROMPT, output_path="output.png", input_image=None, width=64, height=64, num_steps=4, guidance=1.0,
        seed=None, model=model,
    )  # fmt: skip
    assert image.size == (64, 64)
    assert Image.open("output.png").size == (64, 64)
    assert generate_image(PROMPT, "b.png", None, 64, 80, 1, 1.0, 5, model=model).size == (64, 80)
    if model != "koshi-tiny":
        with pytest.raises(KoshiError, match="reference pictures"):
            generate_image(PROMPT, "c.png", image, 64, 64, model=model)
        return
    one = generate_image(PROMPT, None, "output.png", 64, 64, 1, 1.0, 5, model=model)
    two = generate_image(PROMPT, None, ["output.png", image], 64, 64, 1, 1.0, 5, model=model)
    assert not np.array_equal(np.asarray(one), np.asarray(two))


# ---- koshi feedback


@pytest.mark.parametrize("name", ["flux-schnell", "koshi-tiny"])
def test_the_feedback_sampler(name: str, hub: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        f"feedback --model {name} --prompt sea --iterations 4 --zoom 0.006 --feedback-denoise 0.18 "
        f"--noise-amount 0.015 --sharpen 0.1 --steps 4 --cfg 1.0 --fps 12 --output {tmp_path / 'out'} "
        "--width 64 --height 64 --seed 3 --json"
    )
    assert main(line.split()) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["frames"], said["made"]) == (True, 4, 4)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*(f"{k:04d}.png" for k in range(4)), "feedback.mp4"]
    with av.open(said["video"]) as film:
        assert film.streams.video[0].average_rate == 12
    pipe = create_pipeline(name)
    same = pipe.generate_single_frame(
        "sea", {"zoom": 1.006}, 4, 64, 64, frame=3, num_inference_steps=4, guidance_scale=1.0, strength=0.18, seed=3,
        color_coherence="match_first", feedback_config=FeedbackConfig("LAB", 0.015, "perlin", 0.1, 1.0),
    )  # fmt: skip
    assert np.array_equal(np.asarray(same), np.asarray(Image.open(tmp_path / "out" / "0003.png")))


def test_the_example_is_what_the_command_makes() -> None:
    """examples/README.md shows the line; examples/feedback.koshi.json is the same as a shot."""
    folder = Path(__file__).resolve().parent.parent / "examples"
    said = next(line for line in (folder / "README.md").read_text().splitlines() if line.startswith("koshi feedback "))
    options = _parser().parse_args(shlex.split(said)[1:])
    made = create_pipeline("koshi-tiny").shot(call_of(options, find_traits("koshi-tiny")))
    shot = read_shot(folder / "feedback.koshi.json")
    assert made.values == shot.values and made.feedback == shot.feedback
    for name in ("model", "width", "height", "fps", "frames", "seed", "steps"):
        assert getattr(made, name) == getattr(shot, name), name
    assert [one.text for one in made.prompts] == [one.text for one in shot.prompts]


def test_latents_can_be_carried_as_in_the_founding_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Motion in latents, then decoded, colours, contrast, sharpening, noise, encoded, painted."""
    line = (
        f"feedback --model koshi-tiny --prompt sea --iterations 3 --zoom 0.05 --steps 1 --output {tmp_path} "
        "--width 64 --height 64 --seed 3 --json --carry "
    )
    films = []
    for carry in ("pixels", "latent"):
        assert main([*line.split(), carry]) == 0
        films.append([(tmp_path / f"{k:04d}.png").read_bytes() for k in range(3)])
    capsys.readouterr()
    assert films[0][0] == films[1][0] and films[0][1] != films[1][1]


# ---- wrong calls


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.generate_animation("a", strenght=0.3), "strenght.*Did you mean 'strength'"),
        (lambda p: p.generate_animation("a", colour_coherence=None, frames=3), "2 faults.*color_coherence.*num_frames"),
        (lambda p: p.generate_animation(), "the argument 'prompts'"),
        (lambda p: p.generate_image("a", num_inference_steps=4), "Did you mean 'num_steps'"),
        (lambda p: p.generate_image("a", guidance_scale=4), "Did you mean 'guidance'"),
        (lambda p: p.generate_image("a", "b.png", output_path="c.png"), "output_path"),
        (lambda p: generate_image("a", modle="koshi-tiny"), "Did you mean 'model'"),
        (lambda p: generate_animation("a", strenght=0.3, model="koshi-tiny"), "Did you mean 'strength'"),
        (lambda p: create_pipeline("koshi-tiny", enable_offload=True), "Did you mean 'enable_cpu_offload'"),
        (lambda p: create_pipeline(model="koshi-tiny"), "no such argument"),
        (lambda p: create_flux1_pipeline(shnell=True), "Did you mean 'schnell'"),
        (lambda p: Flux1DeforumPipeline(model="flux-dev"), "Did you mean 'model_name'"),
        (lambda p: KoshiFlux(modell="flux-dev"), "Did you mean 'model'"),
        (lambda p: KoshiFlux(model="koshi-tiny").animate(), "the argument 'prompt'"),
        (lambda p: create_pipeline("flux-devv"), "Did you mean"),
        (lambda p: create_pipeline(3), "The model is a int"),
    ],
)
def test_wrong_arguments_are_named_with_the_right_ones(call: Any, words: str) -> None:
    with pytest.raises(KoshiError, match=words):
        call(create_pipeline("koshi-tiny"))
