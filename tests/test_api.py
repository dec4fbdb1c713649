# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python interface on koshi-tiny."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from koshi_backend import (
    FeedbackConfig,
    FluxVersion,
    KoshiError,
    create_pipeline,
    generate_animation,
    generate_image,
)

SMALL = {"width": 64, "height": 64}


def count(path: str) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_generate_image_returns_and_writes_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = generate_image("a sea at night, photo", **SMALL, seed=1, model=FluxVersion.KOSHI_TINY)
    assert image.size == (64, 64)
    assert np.array_equal(np.asarray(Image.open("output.png")), np.asarray(image))
    again = create_pipeline("koshi-tiny").generate_image("a sea at night, photo", None, **SMALL, seed=1)
    assert np.array_equal(np.asarray(again), np.asarray(image))


def test_references_may_be_paths_or_pictures_one_or_several(tmp_path: Path) -> None:
    pipe = create_pipeline("koshi-tiny")
    first = pipe.generate_image("a reef at day, photo", tmp_path / "a.png", **SMALL, seed=1)
    one = pipe.generate_image("a reef at night, photo", None, tmp_path / "a.png", **SMALL, seed=2)
    same = pipe.generate_image("a reef at night, photo", None, [first], **SMALL, seed=2)
    two = pipe.generate_image("a reef at night, photo", None, [first, one], **SMALL, seed=2)
    assert np.array_equal(np.asarray(one), np.asarray(same))
    assert not np.array_equal(np.asarray(one), np.asarray(two))


def test_steps_are_reported(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    create_pipeline("koshi-tiny").generate_image(
        "a sea", None, **SMALL, num_steps=3, seed=0, on_step=lambda k, n: seen.append((k, n))
    )
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_latents_of_another_shape_are_refused() -> None:
    with pytest.raises(KoshiError, match=r"\(1, 128, 4, 4\)"):
        generate_image("a sea", None, **SMALL, latents=torch.zeros(1, 128, 4, 5), model="koshi-tiny")


def test_generate_animation_as_the_documents_call_it(tmp_path: Path) -> None:
    pipe = create_pipeline(version=FluxVersion.KOSHI_TINY, device="cuda", dtype=torch.bfloat16)
    path = pipe.generate_animation(
        prompts={0: "a calm sea at dawn, photo", 3: "a calm sea at night, photo"},
        motion_params={"zoom": "0:(1.0), 5:(1.05)", "angle": 1.0, "strength_schedule": "0:(0.6)"},
        num_frames=5,
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=1.0,
        strength=0.3,
        noise_scale=1.0,
        noise_mode="slerp",
        color_coherence="match_first",
        loop=True,
        interpolation=None,
        fps=12,
        seed=42,
        feedback_mode=True,
        feedback_config=FeedbackConfig(color_mode="LAB", noise_amount=0.02, noise_type="perlin", sharpen_amount=0.1),
        output_path=str(tmp_path / "out.mp4"),
    )
    assert path == str(tmp_path / "out.mp4")
    assert count(path) == 8  # 0 1 2 3 4 3 2 1


def test_an_init_image_from_memory(tmp_path: Path) -> None:
    start = Image.new("RGB", (100, 80), (200, 120, 40))
    path = generate_animation(
        "a desert at sunset, photo", model="koshi-tiny", num_frames=2, **SMALL, num_inference_steps=1, seed=0,
        init_image=start, output_path=tmp_path / "o.mp4",
    )  # fmt: skip
    assert count(path) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_frames": 0}, "frames"),
        ({"motion_params": {"zom": 1.0}}, "zoom"),
        ({"strength": 3.0}, "strength"),
        ({"color_coherence": "sepia"}, "sepia"),
        ({"interpolation": 4}, "interpolation"),
        ({"noise_mode": "loud"}, "noise_mode"),
        ({"output_path": "x.gif"}, r"\.mp4"),
        ({"prompts": ""}, "prompt"),
        ({"prompts": {"x": "a sea"}}, "prompts"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, object], words: str, tmp_path: Path) -> None:
    call: dict[str, object] = {
        "prompts": "a sea",
        "num_frames": 2,
        **SMALL,
        "output_path": tmp_path / "o.mp4",
        **options,
    }
    with pytest.raises(KoshiError, match=words):
        create_pipeline("koshi-tiny").generate_animation(**call)  # type: ignore[arg-type]


def test_unknown_models_and_devices_are_refused() -> None:
    with pytest.raises(KoshiError, match="not known"):
        create_pipeline("flux-7")
    with pytest.raises(KoshiError, match="cannot run yet"):
        create_pipeline(FluxVersion.FLUX_1_DEV)
    with pytest.raises(KoshiError, match="not a device"):
        create_pipeline("koshi-tiny", device="warp")


def test_offload_is_not_silently_ignored() -> None:
    with pytest.warns(UserWarning, match="offloading"):
        create_pipeline("koshi-tiny", enable_cpu_offload=True)
