# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of models without any weights, and where they are looked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from koshi_backend.errors import KoshiError
from koshi_backend.models.describe import as_text, describe
from koshi_backend.models.registry import MODELS

PUBLISHED = {  # parameters of the transformer, and its tensors in the native layout
    "flux.2-klein-4b": (3_875_544_576, 149),
    "flux.2-klein-9b": (9_078_581_248, 201),
    "flux.2-dev": (32_223_281_152, 299),
    "flux.1-schnell": (11_891_178_560, 776),
    "flux.1-dev": (11_901_408_320, 780),
    "flux.3-image-klein": (5_548_681_984, 359),
    "flux.3-image-klein-base": (5_538_458_368, 357),
}
AUTOENCODERS = {"FLUX.1": 83_819_683, "FLUX.2": 84_046_372, "FLUX.3": 84_046_372}


@pytest.fixture(autouse=True)
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", [name for name, info in MODELS.items() if info.repository])
def test_a_model_that_is_not_here_is_described_as_it_is_published(name: str) -> None:
    report, info = describe(name), MODELS[name]
    parts = {one["component"]: one for one in report["components"]}
    assert not report["installed"] and report["gated"] == info.gated and report["licence"] == info.licence
    if name in PUBLISHED:
        assert (parts["transformer"]["parameters"], parts["transformer"]["tensors"]) == PUBLISHED[name]
    assert parts["vae"]["parameters"] == AUTOENCODERS[report["family"]]
    assert report["parameters"] == sum(one["parameters"] for one in parts.values())
    # The registry's figures, which Blender shows, are those.
    assert round(report["needs"]["memory"] / 1e9, 1) == info.memory_gb
    assert report["needs"]["disk"] == report["needs"]["download"] > 0.9 * report["needs"]["memory"]
    assert report["page"].endswith(info.repository) and info.repository in report["page"]
    json.dumps(report)
    assert info.title in as_text(report) and "koshi models pull" in as_text(report)


def test_one_that_is_here_is_described_from_its_files(tiny: Path) -> None:
    report = describe("koshi-tiny")
    assert report["installed"] and report["folder"] == str(tiny) and report["needs"]["download"] == 0
    parts = {one["component"]: one for one in report["components"]}
    assert parts["transformer"]["stored"]["types"] == {"BF16": 61}
    assert parts["transformer"]["parameters"] == parts["transformer"]["stored"]["parameters"]
    assert parts["text_encoder"]["parameters"] <= parts["text_encoder"]["stored"]["parameters"]  # layers in use
    assert report["needs"]["disk"] == sum(one["bytes"] for one in report["files"]) > 20e6
    by_path = describe(str(tiny))
    assert by_path["components"] == report["components"] and by_path["licence"] is None
    with pytest.raises(KoshiError, match="not known"):
        describe("flux.9")


@pytest.mark.parametrize(
    "told",
    [
        {}, {"HF_HOME": "~/here"}, {"HF_HOME": "$HOME/x"}, {"XDG_CACHE_HOME": "/cache"}, {"HF_HUB_CACHE": "/models"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/home"}, {"HF_HUB_CACHE": "~/m", "HUGGINGFACE_HUB_CACHE": "/old"},
    ],
)  # fmt: skip
def test_the_cache_is_where_the_hub_s_client_has_it(told: dict[str, str]) -> None:
    """Blender has no such client, and must find the same folder."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "HUGGING", "XDG_CACHE"))}
    program = """
import sys
from koshi_backend.models.hub_cache import hub_folder
own = hub_folder()
assert "huggingface_hub" not in sys.modules and "torch" not in sys.modules
from huggingface_hub import constants
assert str(own) == constants.HF_HUB_CACHE == str(hub_folder()), (own, constants.HF_HUB_CACHE)
"""
    subprocess.run([sys.executable, "-c", program], env={**kept, **told}, cwd=ROOT, check=True, timeout=60)


def test_listing_and_pulling_load_no_torch() -> None:
    program = """
import sys
from koshi_backend.cli import main
main(["models", "--json"])
main(["models", "pull", "koshi-tiny"])
assert not {"torch", "transformers", "pydantic"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60, capture_output=True)
