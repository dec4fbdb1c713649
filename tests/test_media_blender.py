# SPDX-License-Identifier: GPL-3.0-or-later
"""Films, pictures, masks and LoRAs in Blender: as the artist sets them, as the backend reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from conftest import ROOT, in_versions
from PIL import Image
from pydantic import BaseModel
from safetensors.torch import save_file
from test_engine import pixels, scene_file
from test_prompts_blender import _pure

from koshi_backend.chain import render_shot
from koshi_backend.settings import SCHEDULES
from koshi_backend.shot import Shot, load_shot, read_shot

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]


def a_lora(path: Path, seed: int) -> None:
    """A small LoRA for koshi-tiny's first block."""
    generator = torch.Generator().manual_seed(seed)
    config = json.loads((ROOT / "koshi_backend/weights/koshi-tiny/transformer/config.json").read_text())
    width = config["num_attention_heads"] * config["attention_head_dim"]
    module = "transformer.transformer_blocks.0.attn.to_q"
    down, up = (torch.randn(*shape, generator=generator) * 0.2 for shape in ((2, width), (width, 2)))
    save_file({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}, path)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film, its pictures, two pictures and two LoRAs."""
    folder = tmp_path_factory.mktemp("media é")
    shutil.copy(ROOT / "examples/guides/clip.mp4", folder)
    for k in range(1, 9):
        Image.new("RGB", (64, 64), (20 * k, 90, 120)).save(folder / f"clip_{k:04d}.png")
    for name, color in (("picture", (200, 120, 60, 128)), ("other", (10, 60, 200, 255))):
        Image.new("RGBA", (80, 64), color).save(folder / f"{name}.png")
    half = np.zeros((64, 64), np.uint8)
    half[:, :40] = 255
    Image.fromarray(half).save(folder / "half.png")
    for k, name in enumerate(("ink", "steady")):
        a_lora(folder / f"{name}.safetensors", k)
    return folder


@pytest.fixture(scope="module")
def seen(blender: Blender, media: Path) -> Any:
    return blender.script("media", media)


def ready(seen: Any, name: str) -> Shot:
    """The backend's own reading of a shot that Blender has sampled; what Blender renders for it is not there."""
    return load_shot(seen["shots"][name])


def test_what_is_not_used_is_not_named(seen: Any) -> None:
    shot = seen["shots"]["plain"]
    assert not {"guides", "hybrid", "masking", "guided_images", "loras", "init_image", "color_image"} & set(shot)
    assert not {"guided", "mask", "hybrid_alpha"} & set(shot["schedules"])
    assert shot["feedback"] == {"carry": "pixels", "condition": "both"}


def test_a_film_is_painted_over(seen: Any, media: Path) -> None:
    shot = ready(seen, "over")
    assert shot.guides.video == str(media / "clip.mp4")
    assert (shot.guides.video_last, shot.hybrid.over, shot.feedback.carry) == (20, "every", "none")
    assert shot.init_image is None
    assert [shot.video_frame(k) for k in range(shot.frames)] == [4, 6, 8, 10, 12, 14, 16, 18]
    part = ready(seen, "over_part")  # the scene's frames 4 to 6
    assert [part.video_frame(k) for k in range(part.frames)] == [10, 12, 14]
    stepped = ready(seen, "over_stepped")  # every second one, 5 and 7: the shot's third and fourth
    assert [stepped.video_frame(k) for k in range(stepped.frames)] == [8, 10]


def test_a_film_is_mixed_in_by_keyframes(seen: Any) -> None:
    shot = ready(seen, "mixed")
    assert shot.hybrid.model_dump() == {
        "over": "first", "composite": "normal", "mask": "blend", "inverse": True, "equalize": "after",
        "auto_contrast": True,
    }  # fmt: skip
    np.testing.assert_allclose(shot.values["hybrid_alpha"], np.linspace(0, 0.7, 8), atol=1e-6)
    np.testing.assert_allclose(shot.values["hybrid_mask_alpha"], np.linspace(0.1, 0.8, 8), atol=1e-6)
    assert [shot.values[f"hybrid_{name}"][3] for name in ("mask_contrast", "cutoff_low", "cutoff_high")] == [1.5, 5, 95]
    deep = ready(seen, "by_depth")
    assert (deep.hybrid.mask, deep.depth.source, deep.depth.nearest) == ("depth", "files", 0.5)
    assert Path(deep.guides.depth or "").name == "picture.png"
    # The motion preview mixes it in as well, if its mask needs no depth.
    moving = load_shot(seen["motion_of_mixed"])
    assert moving.hybrid == shot.hybrid and moving.values["hybrid_alpha"] == shot.values["hybrid_alpha"]
    assert "guides" not in seen["motion_by_own_depth"]  # nothing would be rendered for a mask that is not looked at
    # A .blend keeps the numbers: they must never change.
    assert seen["depth_numbers"] == {"plane": 0, "files": 1, "model": 2, "groups": 3, "scene": 4}
    assert "hybrid" not in seen["motion_by_depth"] and "video" not in seen["motion_by_depth"].get("guides", {})


def test_the_scenes_own_depth(seen: Any) -> None:
    for name in ("by_own_depth", "own_depth"):
        shot = seen["shots"][name]
        assert shot["depth"]["source"] == "files" and Path(shot["guides"]["depth"]).name == "geometry_####.exr"
        assert "vector" not in shot["guides"]
    assert seen["shots"]["by_own_depth"]["hybrid"]["mask"] == "depth"
    shot = seen["shots"]["own_depth"]
    assert shot["motion"]["source"] == "3d" and shot["depth"]["farthest"] == 9.0
    assert Path(seen["motion_over_depth"]["guides"]["depth"]).name == "geometry_####.exr"
    assert seen["depth_wanted"] == [True, False, True]  # nothing is rendered that is not used
    assert "The scene has no camera" in seen["refused"]["no_camera_for_depth"][0]


def test_the_motion_of_a_film(seen: Any, media: Path) -> None:
    shot, part = ready(seen, "flow"), ready(seen, "flow_part")
    assert (shot.motion.source, shot.motion.flow_method, shot.motion.flow_factor) == ("flow", "dis_fast", 0.5)
    assert [shot.video_file(k).name for k in range(3)] == [f"clip_{k:04d}.png" for k in (1, 2, 3)]
    assert [part.video_file(k).name for k in range(3)] == [f"clip_{k:04d}.png" for k in (4, 5, 6)]
    assert [ready(seen, name).motion.source for name in ("affine", "perspective")] == ["affine", "perspective"]
    alone = load_shot(seen["motion_alone"])
    assert alone.guides.video == str(media / "clip_####.png") and alone.motion.source == "flow" and not alone.loras
    assert "guides" not in seen["motion_of_masked"]  # the motion needs neither mask nor structure


def test_the_scene_itself_is_the_film(seen: Any) -> None:
    assert seen["wanted"] and not seen["unwanted"]
    clay, scene = seen["shots"]["clay"]["guides"], seen["shots"]["scene"]["guides"]
    assert Path(clay["video"]).name == "clay_####.png" and Path(scene["video"]).name == "scene_####.png"
    assert "video_first" not in clay
    assert {"clay_0001.png", "clay_0002.png"} <= set(seen["rendered"])
    assert not [name for name in seen["rendered"] if name.startswith(("geometry", "scene"))]
    assert "The scene has no camera" in seen["refused"]["no_camera"][0]


def test_masks_and_pictures(seen: Any) -> None:
    alpha, masked = ready(seen, "alpha"), ready(seen, "masked")
    assert Path(alpha.init_image or "").name == "picture.png"
    assert (alpha.masking.alpha, alpha.masking.invert, alpha.masking.blur) == (True, True, 2.0)
    np.testing.assert_allclose(alpha.values["mask"], np.linspace(1, 0.3, 8), atol=1e-6)
    assert seen["refused"]["alpha"] == ["The mask is a start picture's, but the shot starts from none."]
    assert Path(masked.guides.mask or "").name == "clip.mp4"
    assert (masked.masking.contrast, masked.masking.brightness) == (2.0, 1.5)
    assert (Path(masked.guides.structure or "").name, masked.guides.structure_as) == ("picture.png", "edges")
    assert (masked.feedback.color_reference, Path(masked.color_image or "").name) == ("image", "picture.png")
    assert masked.color_every == 3
    assert ready(seen, "masked_part").video_frame(0) == 4  # a mask that is a film stays where it is


def test_guided_pictures(seen: Any) -> None:
    assert seen["other_scene"] == [1, 1, 2]
    assert seen["guided_frames"] == [6, 2, 7] and seen["guided_image"] == "//picture.png"
    shot = ready(seen, "guided")
    told = [(one.frame, Path(one.image).name) for one in shot.guided_images]
    assert told == [(1, "picture.png"), (5, "other.png")]
    assert (shot.guided_as, shot.feedback.color_reference) == ("both", "guided")
    np.testing.assert_allclose(shot.values["guided"], np.linspace(0.1, 0.5, 8), atol=1e-6)
    assert [one["frame"] for one in seen["shots"]["guided_part"]["guided_images"]] == [0]
    assert [one["frame"] for one in seen["shots"]["guided_stepped"]["guided_images"]] == [1, 2]


def test_guided_pictures_on_the_timeline(seen: Any) -> None:
    names, frames = seen["pictures_marked"]
    assert names == ["«other»", "«picture» 2", "“a calm sea at dawn, photo”"] and frames == [6, 2]
    assert seen["picture_moved"] == [4, [[1, "picture.png"], [3, "other.png"]]]
    assert seen["picture_again"] == [5, [[1, "picture.png"], [4, "other.png"], [7, "other.png"]]]
    assert seen["picture_off"] == [[[1, "picture.png"]], [[1, "picture.png"], [6, "other.png"]], 0]
    assert seen["pictures_none"] == []  # nor what would say how they count


def test_loras_and_their_keyframes(seen: Any) -> None:
    assert seen["lora_files"] == ["//ink.safetensors", "//steady.safetensors", "//ink.safetensors"]
    assert seen["weight"] == [True, -10.0, 10.0, 1.0]
    ramp, driven = np.linspace(0, 0.7, 8), [frame / 4 for frame in range(1, 9)]

    def worn(name: str) -> list[tuple[str, list[float]]]:
        shot = ready(seen, name)
        loras = [one.file for one in shot.loras]
        found = [(Path(file).stem, weights) for (_, weights), file in zip(shot.lora_weights, loras, strict=True)]
        return found

    for name, order in (("loras", (0, 1, 2)), ("loras_moved", (2, 0, 1)), ("loras_removed", (0,))):
        wanted = [("ink", ramp), ("steady", [0.25] * 8), ("ink", driven)]
        for (file, weights), k in zip(worn(name), order, strict=True):
            assert file == wanted[k][0], name
            np.testing.assert_allclose(weights, wanted[k][1], atol=1e-6, err_msg=name)
    assert seen["top"] == ["CANCELLED"]
    assert seen["lora_paths"] == ["koshi.loras[0].weight", "koshi.loras[1].weight"]


def test_seeds_go_on(seen: Any) -> None:
    shot, part = ready(seen, "seeds"), ready(seen, "seeds_part")
    assert (shot.seed_behavior, shot.seed_iter_n, shot.time_rounding) == ("iter", 3, "bfl")
    assert shot.feedback.carry == "latent"
    assert shot.values["seed"] == [100, 101, 101, 101, 102, 102, 102, 103]
    assert part.values["seed"] == shot.values["seed"][3:]


def test_masks_in_words_and_keyframes(seen: Any, media: Path) -> None:
    shot, part = ready(seen, "words"), ready(seen, "words_part")
    assert shot.time.keyframes.frames == [2, 6, 7] and part.time.keyframes.frames == [3, 4]
    said = [str(shot.mask_at(k)) for k in range(8)]
    assert said == ["{video_mask}"] * 5 + [f"![{media / 'other.png'}]"] * 3
    assert [str(part.mask_at(k)) for k in range(5)] == said[3:]
    assert str(shot.noise_mask_at(0)) == f"[{media / 'other.png'}]"
    assert Path(shot.guides.mask or "").name == "picture.png"


# What a shot can say and Blender does not: why it has no place there.
NOT_IN_BLENDER = {
    "motion.absolute": "curves that hold places are turned into moves when they are sampled",
    "motion.plane": "Blender knows the scene's own depth",
    "feedback.position": "it has one value",
}


def fields(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """All of a model's fields, and those of the models in it: "guides.video", "prompts.text"."""
    for name, info in model.model_fields.items():
        inner = [part for part in parts(info.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        yield from (f for part in inner for f in fields(part, f"{before}{name}.")) if inner else [before + name]


def parts(annotation: Any) -> list[Any]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    return [annotation] if not inner else [part for one in inner for part in parts(one)]


def said_in(value: Any, before: str = "") -> Iterator[str]:
    """The fields that a document names, as `fields` has them."""
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            yield before.rstrip(".")
        else:
            for name, inner in item.items():
                yield from said_in(inner, f"{before}{name}.")


@pytest.mark.parametrize("blender", ["4.5"], indirect=True)  # one of those that need vector_seen
def test_everything_that_a_shot_can_say_has_its_place_in_blender(seen: Any) -> None:
    said = {name for shot in seen["shots"].values() for name in said_in(shot)} | set(seen["told"])
    whole = set(fields(Shot)) - {"schedules"}  # whose names are their own
    plane = {name for name in whole if name.startswith("motion.plane.")}
    assert whole - said - plane - NOT_IN_BLENDER.keys() == set()
    assert not said & NOT_IN_BLENDER.keys()
    assert sorted(seen["schedules"]) == sorted(SCHEDULES)


@in_versions("4.5")  # sampling is the same code in all; this is about the ways
def test_every_way_of_rendering_takes_all_of_it(blender: Blender, media: Path, tmp_path: Path) -> None:
    """The sidebar's render, the engine's and an exported shot: the same frames, which all of it has changed."""
    blend = scene_file(blender, tmp_path / "media.blend", frames=2, seed=4571, media=str(media))
    sidebar = sorted(Path(blender.koshi(blend, "render")["out"]).iterdir())
    blender.run(blend, "-E", "KOSHI", "-o", tmp_path / "a" / "####", "-a")
    blender.koshi(blend, "export", "-o", tmp_path / "shot.koshi.json")
    shot = read_shot(tmp_path / "shot.koshi.json")
    assert shot.guided_images and shot.loras_at(1) and shot.hybrid.over == "first" and shot.guides.mask
    frames = list(render_shot(shot))
    assert [path.read_bytes() for path in sidebar] == [frame.png for frame in frames]
    for path in sidebar:
        np.testing.assert_array_equal(pixels(tmp_path / "a" / path.name), pixels(path))
    for part, value in {"hybrid": {}, "masking": {"invert": True}, "guided_images": [], "loras": []}.items():
        other = list(render_shot(load_shot({**shot.as_dict(), part: value})))
        assert other[-1].png != frames[-1].png, part  # it has an effect


@in_versions("4.5")  # the words are the same in all
def test_the_backends_faults_come_in_the_artists_words(blender: Blender, media: Path, tmp_path: Path) -> None:
    blend = scene_file(blender, tmp_path / "wrong.blend", frames=60, seed=4572, media=str(media))
    told = blender.koshi(blend, "render", code=1)["error"]  # found when the film is opened
    assert told["message"].startswith("Koshi > Video > File: the video ends after 12 frames"), told


def test_every_field_has_an_artists_word() -> None:
    names = _pure("field_names")
    nowhere = {"koshi", "strength_convention", *NOT_IN_BLENDER, "schedules"}
    lists = ("prompts.", "loras.", "guided_images.", "motion.plane.")  # whose items have numbers
    told = [name for name in fields(Shot) if not name.startswith(lists) and name not in nowhere]
    assert [name for name in told if names.title(name) == name] == []
    error = {"code": "bad_shot", "message": "loras[1].file: there is no such file.", "hint": "Check the path.",
             "problems": [{"field": "loras[1].file", "message": "there is no such file.", "hint": "Check the path."}]}
    assert names.in_words(error)["message"] == "LoRA 2: there is no such file."
    two = {**error, "message": "This shot has 2 faults. loras[1].file: there is no such file. Check the path. | "
                               "schedules.hybrid_alpha: the value at frame 0 is 3.",
           "problems": [*error["problems"],
                        {"field": "schedules.hybrid_alpha", "message": "the value at frame 0 is 3."}]}  # fmt: skip
    assert names.in_words(two)["message"] == (
        "2 things to mend before rendering: 1. LoRA 2: there is no such file. Check the path. "
        "2. Koshi > Video > Amount: the value at frame 0 is 3."
    )
    assert names.in_words(names.in_words(two)) == names.in_words(two)
    plain = {"code": "worker_crashed", "message": "The worker ended.", "problems": [{"field": "log", "message": "a"}]}
    assert names.in_words(plain) == plain


def test_what_is_not_there_is_told_in_words(seen: Any, media: Path) -> None:
    refused = seen["refused"]
    assert "unused" not in refused
    assert refused["no_film"] == ["The picture shall move as a film does, but there is none."]
    assert refused["no_file_chosen"] == ["Koshi > Video > File names no file."]
    assert refused["gone"] == [
        f"Koshi > Video > File: there is no file {media / 'gone.mp4'}.",
        "Koshi > Colors and Detail > Picture names no file.",
        f"Guided picture 1: there is no file {media / 'gone.png'}.",
        f"LoRA 1: there is no file {media / 'gone.safetensors'}.",
        "LoRA 2 names no file.",
    ]
