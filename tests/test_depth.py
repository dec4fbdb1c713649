# SPDX-License-Identifier: GPL-3.0-or-later
"""Depth: from files, from models (tiny ones of the real classes) and from latents."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_exr import small_exr
from torch import Tensor

from koshi_backend.depth import (
    FAR,
    GreyScale,
    first_alignment,
    group_nearness,
    plane,
    read_depth,
    resize_depth,
)
from koshi_backend.depth.estimate import DepthModel
from koshi_backend.errors import KoshiError

# ---- files


def exr_file(path: Path, channels: dict[str, np.ndarray]) -> Path:
    path.write_bytes(small_exr(channels, codec=3))
    return path


def slope(height: int = 12, width: int = 16) -> np.ndarray:
    """A floor: 1 / depth grows evenly from 0.1 to 0.5 downwards."""
    return np.repeat(1 / np.linspace(0.1, 0.5, height, dtype=np.float32)[:, None], width, axis=1)


@pytest.mark.parametrize("name", ["Z", "V", "ViewLayer.Depth.Z", "Depth.V"])
def test_depth_from_openexr(tmp_path: Path, name: str) -> None:
    values = slope()
    values[:3] = 1e10
    values[3, 0] = np.inf
    channels = {name: values, "ViewLayer.Combined.R": slope(), "ViewLayer.Vector.X": slope()}
    found = read_depth(exr_file(tmp_path / "a.exr", channels), 16, 12)
    assert found.kind == "scene"
    assert torch.equal(found.values[4:], torch.from_numpy(values[4:]))
    assert found.background.sum() == 3 * 16 + 1
    assert found.values.max() == FAR


def test_half_floats_know_nothing_as_infinity(tmp_path: Path) -> None:
    with np.errstate(over="ignore"):
        values = np.where(slope() > 5, 1e10, slope()).astype(np.float16)
    found = read_depth(exr_file(tmp_path / "a.exr", {"V": values}), 16, 12)
    assert found.background.sum() == (slope() > 5).sum()


def test_grey_openexr_is_depth_and_coloured_is_not(tmp_path: Path) -> None:
    grey = exr_file(tmp_path / "a.exr", dict.fromkeys("RGB", slope()))
    assert torch.equal(read_depth(grey, 16, 12).values, torch.from_numpy(slope()))
    coloured = exr_file(tmp_path / "b.exr", {"R": slope(), "G": slope() + 1, "B": slope()})
    with pytest.raises(KoshiError, match="colours, not depth"):
        read_depth(coloured, 16, 12)


def test_the_view_layer_can_be_named(tmp_path: Path) -> None:
    path = exr_file(tmp_path / "a.exr", {"Far.Depth.Z": slope() * 2, "Near.Depth.Z": slope()})
    assert torch.equal(read_depth(path, 16, 12, layer="Near").values, torch.from_numpy(slope()))
    with pytest.raises(KoshiError, match="Far, Near") as caught:
        read_depth(path, 16, 12)
    assert str(path) in caught.value.message


def test_depth_from_numpy(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64, np.float16, np.int32):
        np.save(tmp_path / "a.npy", slope().astype(dtype))
        found = read_depth(tmp_path / "a.npy", 16, 12)
        assert torch.allclose(found.values, torch.from_numpy(slope().astype(dtype)).float())


@pytest.mark.parametrize("bits", [8, 16])
def test_greys_are_read_as_they_are_said_to_be(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    light = np.repeat(np.linspace(0, top, 16).round()[None], 12, axis=0).astype(f"uint{bits}")
    cv2.imwrite(str(tmp_path / "a.png"), light)
    share = light / top
    scale = {"nearest": 2.0, "farthest": 10.0}
    for near, amount in (("white", share), ("black", 1 - share)):
        inverse = read_depth(tmp_path / "a.png", 16, 12, grey=GreyScale(near=near, **scale))  # type: ignore[arg-type]
        assert inverse.kind == "relative"
        assert np.allclose(1 / inverse.values.numpy(), amount / 2 + (1 - amount) / 10, atol=1e-6)
        linear = read_depth(tmp_path / "a.png", 16, 12, grey=GreyScale(near, "linear", **scale))  # type: ignore[arg-type]
        assert np.allclose(linear.values.numpy(), 10 - 8 * amount, atol=1e-5)


def test_a_grey_saved_in_three_colours_is_a_grey(tmp_path: Path) -> None:
    light = np.arange(192, dtype=np.uint8).reshape(12, 16)
    cv2.imwrite(str(tmp_path / "one.png"), light)
    cv2.imwrite(str(tmp_path / "three.png"), np.dstack([light] * 3 + [np.full_like(light, 255)]))
    assert torch.equal(
        read_depth(tmp_path / "one.png", 16, 12).values, read_depth(tmp_path / "three.png", 16, 12).values
    )


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    hole = slope()
    hole[5, 7] = np.nan
    zero = slope()
    zero[2, 3] = 0.0
    for name, array in (
        ("nan.npy", hole),
        ("zero.npy", zero),
        ("three.npy", np.ones((4, 4, 3))),
        ("empty.npy", np.ones((0, 4))),
        ("words.npy", np.array([["a"]])),
        ("long.npy", np.ones((1, 20_000), np.float32)),
    ):
        np.save(folder / name, array)
    (folder / "text.npy").write_text("depth")
    (folder / "text.png").write_text("depth")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.exr").write_text("depth")
    (folder / "a.txt").write_text("depth")
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[..., 0] = 200
    cv2.imwrite(str(folder / "colour.png"), colours)
    exr_file(folder / "nan.exr", {"Z": hole})
    exr_file(folder / "normal.exr", {"ViewLayer.Normal.X": slope()})
    words = {
        "nan.npy": "1 pixels is not a number, the first at x 7, y 5",
        "nan.exr": "1 pixels is not a number, the first at x 7, y 5",
        "zero.npy": "is not above 0, the first at x 3, y 2",
        "three.npy": "[4, 4, 3]",
        "empty.npy": "[0, 4]",
        "words.npy": "<U1",
        "long.npy": "20000 x 1",
        "text.npy": "no NumPy array",
        "text.png": "cannot be read as a picture",
        "empty.png": "cannot be read as a picture",
        "text.exr": "no OpenEXR file",
        "a.txt": "no depth map",
        "colour.png": "in colour",
        "normal.exr": "no pass Depth; the file holds nothing",
        "none.png": "no depth map",
        "none.npy": "no depth map",
        "none.exr": "no file",
    }
    return {name: (folder / name, text) for name, text in words.items()}


def test_bad_files_are_refused_in_words(tmp_path: Path) -> None:
    for path, words in bad_files(tmp_path).values():
        with pytest.raises(KoshiError) as caught:
            read_depth(path, 16, 12)
        assert caught.value.code in ("bad_depth", "bad_exr"), path
        assert words in caught.value.message, path
        assert str(path) in caught.value.message
        assert caught.value.hint, path


def test_a_grey_scale_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    for scale in (GreyScale(nearest=5, farthest=1), GreyScale(nearest=0), GreyScale(farthest=float("nan"))):
        with pytest.raises(KoshiError, match="nearest above 0"):
            read_depth(tmp_path / "a.png", 4, 4, grey=scale)


@settings(max_examples=60, deadline=None)
@given(
    a=st.floats(-0.3, 0.3),
    b=st.floats(-0.3, 0.3),
    width=st.integers(4, 50),
    height=st.integers(4, 50),
)
def test_a_plane_stays_a_plane_at_any_size(a: float, b: float, width: int, height: int) -> None:
    """1 / depth of a plane is a linear function of the place, so its resized map is known exactly."""
    rows, columns = 24, 32
    # Gentle enough that neighbours differ by less than what counts as an edge.
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    values = 1 / (1 + a * (x / columns - 0.5) + b * (y / rows - 0.5))
    found = resize_depth(values, width, height)
    scale = max(width / columns, height / rows)
    sy, sx = np.mgrid[0:height, 0:width].astype(np.float64)
    sx = (sx + 0.5 - width / 2) / scale + columns / 2 - 0.5
    sy = (sy + 0.5 - height / 2) / scale + rows / 2 - 0.5
    inner = (sx >= 0) & (sx <= columns - 1) & (sy >= 0) & (sy <= rows - 1)
    expected = 1 / (1 + a * (sx / columns - 0.5) + b * (sy / rows - 0.5))
    assert np.allclose(found[inner], expected[inner], rtol=1e-6)


def test_no_depth_appears_between_near_and_far() -> None:
    values = np.full((16, 16), 1e10)
    values[:, :8] = 2.0
    values[4:8, 4:12] = 1.0
    for size in (7, 16, 31, 100):
        assert set(np.unique(resize_depth(values, size, size))) <= {1.0, 2.0, np.float32(1e10)}


def test_a_plane_has_one_depth() -> None:
    assert torch.equal(plane(5, 3, 2.5).values, torch.full((3, 5), 2.5))


# ---- models


def tiny_depth_anything(folder: Path, metric: bool = False) -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 16, 24, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type="metric" if metric else "relative",
        max_depth=20 if metric else 1,
    )
    net = DepthAnythingForDepthEstimation(config)
    if not metric:
        # Drawn at random, the last layers answer within 1e-8 of 0 and a ReLU makes most of it exactly that.
        for weight in (*net.neck.parameters(), *net.head.parameters()):
            if weight.ndim == 4:
                torch.nn.init.xavier_normal_(weight)
        torch.nn.init.constant_(net.head.conv3.bias, 1.0)
    net.save_pretrained(folder)
    prepared = {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": 70, "width": 70},
        "ensure_multiple_of": 14,
        "keep_aspect_ratio": True,
        "resample": 3,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return folder


def tiny_dpt(folder: Path) -> Path:
    from transformers import DPTConfig, DPTForDepthEstimation

    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 24, 32],
        fusion_hidden_size=16,
        is_hybrid=False,
    )
    DPTForDepthEstimation(config).save_pretrained(folder)
    prepared = {"size": 64, "keep_aspect_ratio": False, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return folder


def photo(height: int = 96, width: int = 128) -> Tensor:
    random = np.random.default_rng(0)
    light = cv2.GaussianBlur(random.random((height, width, 3)).astype(np.float32), (0, 0), 3)
    light = (light - light.min()) / np.ptp(light)
    return torch.from_numpy((light * 255).round() / 255).permute(2, 0, 1)[None].contiguous()


@pytest.mark.parametrize("make", [tiny_depth_anything, tiny_dpt])
def test_a_model_answers_as_transformers_own_way_does(tmp_path: Path, make: object) -> None:
    from transformers import AutoModelForDepthEstimation, DPTImageProcessorPil

    folder = make(tmp_path)  # type: ignore[operator]
    picture = photo()
    nearness = DepthModel.load(folder).nearness(picture)
    processor = DPTImageProcessorPil.from_pretrained(folder)
    pixels = (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()
    inputs = processor(images=pixels, return_tensors="pt")
    with torch.inference_mode():
        outputs = AutoModelForDepthEstimation.from_pretrained(folder)(**inputs)
    wanted = processor.post_process_depth_estimation(outputs, target_sizes=[(96, 128)])[0]["predicted_depth"]
    assert nearness.shape == (96, 128)
    # Theirs rounds the scaled picture to 8 bits and enlarges the answer bicubically. Observed: 0.01 of the spread.
    assert (nearness - wanted).abs().mean() < 0.05 * wanted.std()
    assert np.corrcoef(nearness.flatten(), wanted.flatten())[0, 1] > 0.99


@pytest.mark.parametrize("written", [{}, {"max_depth": None}])
def test_a_relative_model_s_config_may_lack_what_only_metres_need(tmp_path: Path, written: dict[str, object]) -> None:
    """Published relative models leave max_depth out or write null; transformers multiplies by it all the same."""
    before = DepthModel.load(tiny_depth_anything(tmp_path)).nearness(photo())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["max_depth"], config["depth_estimation_type"]
    # As in depth-anything/Depth-Anything-V2-Small-hf, beside the sizes.
    config |= {"_commit_hash": None, "backbone": None, "use_pretrained_backbone": False, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config | written))
    model = DepthModel.load(tmp_path)
    assert model.kind == "relative"
    assert torch.equal(model.nearness(photo()), before)


def test_a_relative_model_gives_a_depth_map_in_the_usual_range(tmp_path: Path) -> None:
    model = DepthModel.load(tiny_depth_anything(tmp_path))
    nearness, depth = model.nearness(photo()), model.depth(photo())
    assert model.kind == depth.kind == "relative"
    assert torch.quantile(depth.values, 0.02) == pytest.approx(1.0, abs=0.02)
    assert torch.quantile(depth.values, 0.98) == pytest.approx(5.0, abs=0.1)
    # What the model calls nearer is nearer.
    a, b = nearness.flatten()[:-1], nearness.flatten()[1:]
    da, db = depth.values.flatten()[:-1], depth.values.flatten()[1:]
    assert ((a - b) * (da - db) <= 0).all()


def test_a_metric_model_gives_metres(tmp_path: Path) -> None:
    model = DepthModel.load(tiny_depth_anything(tmp_path, metric=True))
    depth = model.depth(photo())
    assert model.kind == depth.kind == "scene"
    raw = model.net(pixel_values=model._prepare(photo())).predicted_depth
    assert 0 < raw.min() <= depth.values.min() <= depth.values.max() <= raw.max() <= 20
    assert depth.values.mean() == pytest.approx(float(raw.mean()), rel=0.02)


def test_a_model_gives_the_same_depth_again(tmp_path: Path) -> None:
    tiny_depth_anything(tmp_path)
    assert torch.equal(DepthModel.load(tmp_path).nearness(photo()), DepthModel.load(str(tmp_path)).nearness(photo()))


def test_a_file_without_the_tensors_that_nothing_uses_is_whole(tmp_path: Path) -> None:
    """MiDaS' published DPT lacks the first fusion layer's residual unit, which has nothing to join."""
    tiny_dpt(tmp_path)
    before = DepthModel.load(tmp_path).nearness(photo())
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "fusion_stage.layers.0.residual_layer1" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(DepthModel.load(tmp_path).nearness(photo()), before)


def damage_missing_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["head.conv1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def damage_cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def damage_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["head.conv1.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def damage_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def damage_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def damage_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_preparation(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": -3}}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_missing_tensor, "head.conv1.weight: this tensor is missing"),
        (damage_cut, "damaged or cut short"),
        (damage_shape, ""),
        (damage_pickle, "lacks a .safetensors file"),
        (damage_family, "'bert'"),
        (damage_config, "config.json is damaged"),
        (damage_no_config, "lacks config.json"),
        (damage_preparation, "cannot be understood"),
    ],
)
def test_a_damaged_model_is_refused_in_words(tmp_path: Path, damage: object, words: str) -> None:
    tiny_depth_anything(tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(KoshiError) as caught:
        DepthModel.load(tmp_path)
    assert caught.value.code in ("bad_model", "bad_model_file")
    assert words in caught.value.message


def test_a_model_that_is_not_there_is_never_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("something opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("koshi-test/there-is-no-such-depth-model", "/no/such/folder", "bad name!", "x" * 5000):
        with pytest.raises(KoshiError) as caught:
            DepthModel.load(name)
        assert caught.value.code == "depth_model_missing"
        assert "hf download" in caught.value.hint


# ---- latent groups


def test_groups_count_with_their_weights() -> None:
    latent = torch.ones(1, 128, 8, 8)
    latent[:, :16, :, :4] = 3.0  # the first group is more active on the left: its weight is +0.35, so nearer
    latent[:, 112:, :4] = 5.0  # the last one above: its weight is -0.30, so farther
    nearness = group_nearness(latent, 32, 32)
    assert nearness.shape == (32, 32)
    assert nearness[28, 2] > nearness[28, 29]
    assert nearness[2, 29] < nearness[28, 29]
    assert first_alignment(nearness).depth(nearness).kind == "relative"
    # Other latents, other groups: FLUX.1 has 16 channels, the papers weigh four groups of them.
    assert group_nearness(torch.randn(1, 16, 8, 8), 64, 32, (0.30, -0.20, 0.10, 0.05)).shape == (32, 64)


@pytest.mark.parametrize("shape", [(1, 100, 8, 8), (128, 8, 8), (2, 128, 8, 8)])
def test_latents_that_cannot_be_split_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(KoshiError, match=re.escape(str(list(shape)))):
        group_nearness(torch.zeros(shape), 8, 8)
