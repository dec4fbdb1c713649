# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs that Deforum's prompts name, as LoRAs of a shot, and back; and `koshi feedback --lora`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from koshi_backend.cli import main
from koshi_backend.convert.command import read_file, read_settings
from koshi_backend.convert.deforum_out import to_settings
from koshi_backend.convert.loras import without_words, written
from koshi_backend.convert.report import Report
from koshi_backend.convert.webui_settings import SETTINGS as WEBUI
from koshi_backend.errors import KoshiError
from koshi_backend.schedules import evaluate

WIDTH = 256  # of koshi-tiny's layers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ink and oil are for koshi-tiny, old is for Stable Diffusion; oil lies in a folder of its own."""
    (tmp_path / "loras").mkdir()
    own = "diffusion_model.single_blocks.0.linear2.lora_{}.weight"
    old = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight"
    ends = {"ink": (own, "A", "B"), "loras/oil": (own, "A", "B"), "old": (old, "down", "up")}
    for name, (module, down, up) in ends.items():
        wide = 4 * WIDTH if module == own else 320
        state = {module.format(down): torch.ones(2, wide) * 0.02, module.format(up): torch.ones(WIDTH, 2) * 0.02}
        save_file(state, tmp_path / f"{name}.safetensors")
    return tmp_path


def read(folder: Path, prompts: dict[str, str], **changed: Any) -> Any:
    """webui's settings with these prompts."""
    return read_settings(WEBUI | {"prompts": prompts, "max_frames": 24, "seed": 3, **changed}, folder)


def told(found: Any) -> str:
    return " ".join(entry["why"] for entry in found.report.not_carried if "prompts" in entry["key"])


def test_a_lora_counts_as_long_as_its_prompt(folder: Path) -> None:
    found = read(folder, {"0": "a sea <lora:ink:0.8>", "8": "a hill <lora:ink:0.5> <lyco:oil>", "16": "a town"})
    assert [prompt.text for prompt in found.shot.prompts] == ["a sea", "a hill", "a town"]
    weights = {Path(lora.file).stem: values for lora, values in found.shot.lora_weights}
    assert weights == {"ink": [0.8] * 8 + [0.5] * 8 + [0.0] * 8, "oil": [0.0] * 8 + [1.0] * 8 + [0.0] * 8}
    assert [lora["file"] for lora in found.document["loras"]] == ["ink.safetensors", "loras/oil.safetensors"]
    assert not told(found)


def test_weights_as_people_write_them(folder: Path) -> None:
    words = {"<lora:ink:.25>": 0.25, "<lora:ink>": 1.0, "<lora:ink:0.7:0.3>": 0.7, "<lora: ink : -1 >": -1.0,
             "<lora:ink:unet=0.6:te=0.2>": 0.6}  # fmt: skip
    for word, weight in words.items():
        found = read(folder, {"0": f"a {word} sea"})
        assert [prompt.text for prompt in found.shot.prompts] == ["a sea"], word
        assert [values for _, values in found.shot.lora_weights] == [[weight] * 24], word
    ramp = read(folder, {"0": "a sea <lora:ink:`t/max_f`>"})
    assert ramp.shot.lora_weights[0][1] == pytest.approx([k / 23 for k in range(24)])


def test_what_cannot_be_worn_is_reported(folder: Path) -> None:
    found = read(folder, {"0": "a sea <lora:nowhere:1> <lora:old:1> <hypernet:more:1> <lora:ink:40> <lora:oil:x>"})
    assert found.shot.prompts[0].text == "a sea"
    why = told(found)
    assert "there is no nowhere.safetensors beside the settings" in why and "Stable Diffusion" in why
    assert "hypernetworks" in why and "from -10 to 10" in why and "cannot be read; 1 is taken" in why
    assert [values[0] for _, values in found.shot.lora_weights] == [10.0, 1.0]


def test_there_and_back(folder: Path) -> None:
    document = {
        "koshi": 1, "frames": 12, "model": "koshi-tiny", "prompts": [{"text": "a sea"}, {"frame": 6, "text": "a hill"}],
        "loras": [{"file": "ink.safetensors", "weight": "step; 0:(0), 3:(0.5), 9:(0)"},
                  {"file": "oil.safetensors", "weight": "step; 0:(0.25), 9:(0)"}],
    }  # fmt: skip
    (folder / "oil.safetensors").write_bytes((folder / "loras" / "oil.safetensors").read_bytes())
    shot_file = folder / "a.koshi.json"
    shot_file.write_text(json.dumps(document), encoding="utf-8")
    first = read_file(shot_file)
    left = Report("koshi", "", "denoise")
    settings = to_settings(first.shot, left, folder)
    assert settings["prompts"] == {
        "0": "a sea <lora:oil:0.25>", "3": "a sea <lora:ink:0.5> <lora:oil:0.25>",
        "6": "a hill <lora:ink:0.5> <lora:oil:0.25>", "9": "a hill",
    }  # fmt: skip
    assert left.carried["loras"] == "prompts" and any("models/Lora" in note for note in left.notes)
    again = read_settings(settings, folder).shot
    assert [(p.frame, p.text) for p in again.prompts] == [(0, "a sea"), (6, "a hill")]
    weights = [{lora.file: values for lora, values in shot.lora_weights} for shot in (first.shot, again)]
    assert weights[0] == weights[1]


def test_a_shots_loras_move_with_it_and_are_checked(folder: Path) -> None:
    document = {"koshi": 1, "frames": 2, "prompts": [{"text": "a"}], "loras": [{"file": "ink.safetensors"}]}
    out = folder / "deep" / "b.koshi.json"
    out.parent.mkdir()
    assert read_settings(document, folder, out=out).document["loras"] == [{"file": "../ink.safetensors"}]
    for wrong in ([{"weight": 1}], [{"file": "a", "weight": 11}], [{"file": "a", "weight": "0:("}], "ink"):
        with pytest.raises(KoshiError) as error:
            read_settings(document | {"loras": wrong}, folder)
        assert error.value.code == "bad_shot" and "loras[0]" in str(error.value)


@given(st.lists(st.sampled_from([0.0, 0.5, -1.25, 1 / 3]), min_size=1, max_size=12))
def test_written_weights_mean_what_they_were(column: list[float]) -> None:
    assert evaluate(written(column), len(column)) == pytest.approx(column)


def test_words_that_are_none_stay() -> None:
    for text in ("a < b", "1:2", "<b>bold</b>", "a  sea"):
        assert without_words(text) == text


def test_feedback_wears_a_lora(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def frames(name: str, *options: str) -> list[bytes]:
        out = folder / name
        call = ["feedback", "--prompt", "a sea", "--output", str(out), "--iterations", "2", "--width", "64",
                "--height", "64", "--steps", "1", "--seed", "4", "--device", "cpu", "--json", *options]  # fmt: skip
        assert main(call) == 0, capsys.readouterr()
        return [file.read_bytes() for file in sorted(out.glob("*.png"))]

    plain, worn = frames("plain"), frames("worn", "--lora", f"{folder / 'ink.safetensors'}:2")
    half = frames("half", "--lora", f"{folder / 'ink.safetensors'}:step; 0:(0), 1:(2)")
    assert plain[0] == half[0] and worn[0] != plain[0] and half[1] != plain[1]
