# SPDX-License-Identifier: GPL-3.0-or-later
"""Models in Blender: the menu, and the buttons that fetch, check and remove them, against a local hub by real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, versions
from hub_server import Hub, Repository, serve
from test_setup import stretch

from koshi_backend.models.registry import MODELS

if TYPE_CHECKING:
    from blender_scripts.fixtures import Blender

pytest_plugins = ("blender_scripts.fixtures",)
pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]
OPEN, GATED = "flux.2-klein-4b", "flux.2-klein-9b"
WHOLE = versions("4.5")  # one does everything, the others the basics


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    files = Repository.of(ROOT / "koshi_backend" / "weights" / "koshi-tiny").files
    gated = Repository(files, gated="manual")
    with serve(Hub({MODELS[OPEN].repository: Repository(files), MODELS[GATED].repository: gated})) as served:
        yield served


@pytest.fixture(scope="module")
def seen(hub: Hub, blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    room = tmp_path_factory.mktemp("models é")
    told = {name: value for name, value in blender.environment.items() if not name.startswith(("HF_", "HUGGING"))}
    told |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(room / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    told |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "KOSHI_CACHE": str(room / "cache")}
    hub.rate = 0.0
    extent = "all" if blender.version in WHOLE else "basics"
    made = replace(blender, environment=told).script("model_buttons", room, OPEN, GATED, extent)
    return {"version": blender.version, **made}


def test_the_menu_tells_what_is_here_and_a_button_fetches_the_rest(seen: dict[str, Any]) -> None:
    assert "Allow Online Access" in seen["offline"]
    assert seen["before"]["koshi-tiny"] == ["koshi-tiny", 'CHECKMARK']
    assert seen["before"][OPEN] == ["FLUX.2 Klein 4B (16 GB to download)", 'IMPORT']
    assert seen["before"][GATED] == ["FLUX.2 Klein 9B (35 GB to download)", 'LOCKED']
    assert seen["chosen"] == OPEN
    assert seen["pulled"] == "FINISHED" and seen["installed"]
    assert seen["after"] == {**seen["before"], OPEN: ["FLUX.2 Klein 4B", 'CHECKMARK']}
    assert len(seen["files"]) == 3


def whole(seen: dict[str, Any]) -> dict[str, Any]:
    if seen["version"] not in WHOLE:
        pytest.skip(f"tried in Blender {', '.join(WHOLE)}")
    return seen


def test_check_repair_remove(seen: dict[str, Any]) -> None:
    seen = whole(seen)
    said, error = seen["damaged"]
    assert error["code"] == "model_damaged" and "vae/diffusion_pytorch_model.safetensors" in said
    assert "Repair" in error["hint"]
    assert seen["repaired"] == seen["removed"] == "FINISHED"
    assert seen["sound"][0] == "FINISHED" and "checksums are right" in seen["sound"][1]
    assert seen["gone"] == [False, []]


def test_cancelled_or_killed_nothing_is_fetched_twice(seen: dict[str, Any]) -> None:
    seen = whole(seen)
    assert seen["cancelled"]["phase"] == "cancelled" and seen["cancelled"]["seconds"] < 1.0 * stretch()
    assert seen["cancelled"]["kept"] > 5e6
    assert seen["killed"]["code"] == "setup_interrupted" and "goes on" in seen["killed"]["hint"]
    assert seen["ended too"] and seen["again"] == "FINISHED"
    fetched = seen["fetched"]
    assert fetched["sent"] <= fetched["download"] - fetched["kept"] + 1e5


def test_a_gated_model_tells_what_to_do_and_a_token_opens_it(hub: Hub, seen: dict[str, Any]) -> None:
    seen = whole(seen)
    said, error, sent = seen["gated"]
    assert error["code"] == "gated" and not sent
    assert f"{hub.address}/{MODELS[GATED].repository}" in error["hint"] and "Token in Koshi's preferences" in said
    assert seen["refused"][1]["code"] == "token_refused"
    assert seen["let in"] == "FINISHED" and not seen["token elsewhere"]
    assert "another computer" in seen["remote"]
