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
from koshi_backend.animation import AnimationCall
from koshi_backend.pictures import read_picture

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
        ({"interpolation": 3}, "interpolation"),
        ({"motion_params": {"strength": 0.5, "strength_schedule": 0.5}}, "strength_schedule"),
        ({"motion_params": {"translation_z": 100}}, "translation_z"),
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
    with pytest.raises(KoshiError, match="not a device"):
        create_pipeline("koshi-tiny", device="warp")


@pytest.mark.parametrize(
    ("parts", "blocks", "policy"), [(0, 0, "auto"), (1, 0, "model"), (0, 1, "block"), (1, 1, "block")]
)
def test_offload_becomes_a_policy(parts: int, blocks: int, policy: str) -> None:
    pipe = create_pipeline("koshi-tiny", enable_cpu_offload=bool(parts), enable_sequential_offload=bool(blocks))
    assert pipe.offload == policy


PATHS = ["", "noending", "film.mp4", "x.psd", "a" * 300 + ".png", "afile/x.png", "folder.png", "no\0.png"]


@pytest.mark.parametrize("path", PATHS)
def test_unfit_places_for_a_picture_are_refused_before_it_is_drawn(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("precious")
    (tmp_path / "folder.png").mkdir()
    steps: list[int] = []
    with pytest.raises(KoshiError) as caught:
        create_pipeline("koshi-tiny").generate_image(
            "a sea", path, **SMALL, seed=0, num_steps=1, on_step=lambda k, n: steps.append(k)
        )
    assert caught.value.code == "bad_output"
    assert not steps or len(path) > 200  # only the system itself knows that a name is too long
    assert not list(tmp_path.glob(".part*"))


@pytest.mark.parametrize("path", ["x.gif", "afile/x.mp4", "folder.mp4"])
def test_unfit_places_for_a_film_are_refused_before_it_is_rendered(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("precious")
    (tmp_path / "folder.mp4").mkdir()
    seen: list[object] = []
    with pytest.raises(KoshiError) as caught:
        create_pipeline("koshi-tiny").generate_animation(
            "a sea", num_frames=2, **SMALL, loop=True, output_path=path, progress=seen.append
        )
    assert caught.value.code == "bad_output"
    assert not seen


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"prompt": None}, "prompt"),
        ({"width": 64.5}, "width"),
        ({"width": "64"}, "width"),
        ({"height": 250}, "240 or 256"),
        ({"num_steps": 1.5}, "num_steps"),
        ({"num_steps": True}, "num_steps"),
        ({"seed": 2**70}, "seed"),
        ({"seed": -1}, "seed"),
        ({"guidance": float("nan")}, "guidance"),
        ({"input_image": b"png"}, "bytes"),
        ({"input_image": [3]}, "int"),
        ({"latents": "noise"}, "latents"),
        ({"latents": torch.full((1, 128, 4, 4), float("nan"))}, "finite"),
    ],
)
def test_wrong_arguments_of_generate_image_are_named(options: dict[str, object], word: str) -> None:
    call: dict[str, object] = {"prompt": "a sea", "output_path": None, **SMALL, "seed": 0, **options}
    with pytest.raises(KoshiError, match=word):
        create_pipeline("koshi-tiny").generate_image(**call)  # type: ignore[arg-type]


def test_numpy_s_numbers_and_arrays_are_understood(tmp_path: Path) -> None:
    pipe = create_pipeline("koshi-tiny")
    noise = np.random.default_rng(0).standard_normal((1, 128, 4, 4)).astype(np.float32)
    array = np.zeros((64, 64, 3), np.uint8)
    image = pipe.generate_image("a sea", None, array, np.int64(64), 64, seed=np.int64(3), latents=noise)
    assert image.size == (64, 64)
    path = pipe.generate_animation(
        "a sea", {"zoom": np.linspace(1, 1.02, 3), "angle": (0, 1, 2)}, np.int32(3), 64, 64, 1,
        fps=np.float32(24), seed=np.int64(1), init_image=array, output_path=tmp_path / "o.mp4",
    )  # fmt: skip
    assert count(path) == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"prompts": ["a"]}, "prompts"),
        ({"prompts": {"²": "a"}}, "prompts"),
        ({"motion_params": [1]}, "motion_params"),
        ({"color_coherence": 5}, "color_coherence"),
        ({"feedback_config": {}}, "feedback_config"),
        ({"fps": "x"}, "fps"),
        ({"feedback_mode": "loud"}, "condition"),
    ],
)
def test_wrong_types_in_generate_animation_are_named(options: dict[str, object], word: str, tmp_path: Path) -> None:
    call: dict[str, object] = {"prompts": "a sea", "num_frames": 2, **SMALL, "output_path": tmp_path / "o.mp4"}
    call |= options
    with pytest.raises(KoshiError, match=word):
        create_pipeline("koshi-tiny").generate_animation(**call)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("coherence", "mode", "expected"),
    [
        ("match_prompt", "LAB", ("LAB", "prompt", 0.3)),
        ("match_prompt", "RGB", ("RGB", "prompt", 0.3)),
        ("match_frame", "rgb", ("RGB", "previous", 1.0)),
        ("match_first", None, ("none", "first", 1.0)),
        ("Match Frame 0 HSV", "LAB", ("LAB", "first", 1.0)),
        (None, "LAB", ("LAB", "first", 0.3)),
    ],
)
def test_the_config_sets_the_space_and_color_coherence_the_rest(
    coherence: str | None, mode: str | None, expected: tuple[str, str, float]
) -> None:
    call = AnimationCall(
        "a sea", num_frames=2, **SMALL, seed=0, color_coherence=coherence, feedback_config=FeedbackConfig(mode)
    )
    shot = create_pipeline("koshi-tiny").shot(call)
    assert (shot.feedback.color_mode, shot.feedback.color_reference, shot.values["color_match"][0]) == expected


@pytest.mark.parametrize("device", ["meta", "xpu", "cpu:3", "cuda:x"])
def test_devices_that_are_not_there_are_refused(device: str) -> None:
    with pytest.raises(KoshiError) as caught:
        create_pipeline("koshi-tiny", device=device)
    assert caught.value.code == "bad_device"


def test_a_script_for_a_gpu_machine_runs_on_the_processor_too(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    assert create_pipeline("koshi-tiny", device="cuda:1").device == torch.device("cpu")
    assert "cuda:1 was asked for" in caplog.text


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_without_a_name_the_best_device_is_taken(wanted: str | None) -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert create_pipeline("koshi-tiny", device=wanted).device.type == best


def test_pictures_with_16_bits_or_transparency_come_out_as_they_look(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (64, 1))).save(tmp_path / "ramp.png")
    shown = read_picture(tmp_path / "ramp.png", 64, 64)[0, 0, 0].numpy()
    assert np.abs(shown - ramp / 65535).max() < 0.01
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert float(read_picture(clear, 64, 64).max()) == 0.0
    (tmp_path / "cut.png").write_bytes((tmp_path / "ramp.png").read_bytes()[:80])
    with pytest.raises(KoshiError, match=r"cut\.png"):
        read_picture(tmp_path / "cut.png", 64, 64)
