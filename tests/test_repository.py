# SPDX-License-Identifier: GPL-3.0-or-later
"""`make repository`: Blender installs Koshi from it and updates to it, whether it lies on the disk or on the web."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from blender_scripts.fixtures import STAND_IN, Blender
from conftest import ROOT, find_blender_pythons

sys.path.insert(0, str(ROOT / "tools"))
import repository
from interpreters import SetupError

from koshi_backend import __version__

pytestmark = [pytest.mark.blender, pytest.mark.timeout(600)]
OLD = "0.0.9"


class Quiet(SimpleHTTPRequestHandler):
    """A web server of files that tells nobody."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def any_blender() -> list[str]:
    """Blender's tool, which is the same in each version."""
    found = find_blender_pythons()
    if not found:
        pytest.skip("there is no Blender")
    return [str(found.get("4.5") or next(iter(found.values()))), str(STAND_IN)]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that `make repository` makes."""
    folder = tmp_path_factory.mktemp("repository") / "the place é"
    repository.make_repository(any_blender(), folder)
    return folder


@pytest.fixture(scope="session")
def older(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a version before, with a preference and a curve that are gone since."""
    folder = tmp_path_factory.mktemp("older")
    (source,) = made.glob("*.zip")
    swaps = {"blender_manifest.toml", "koshi_backend/__init__.py", "bridge_server/protocol.py"}
    gone = {"panels/preferences.py": b"    store_limit:", "panels/properties.py": b"    zoom:"}
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(folder / f"koshi-{OLD}.zip", "w") as old:
        for name in whole.namelist():
            data = whole.read(name)
            if name in gone:
                assert data.count(gone[name]) == 1
                data = data.replace(gone[name], b"    worn_out: FloatProperty(default=1.0)\n" + gone[name])
            old.writestr(name, data.replace(__version__.encode(), OLD.encode()) if name in swaps else data)
    repository.index_folder(any_blender(), folder)
    return folder


@pytest.fixture(scope="session")
def served(made: Path) -> Iterator[str]:
    """Its address on a web server of this computer's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(made)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.json"
    server.shutdown()
    server.server_close()


def test_it_lists_the_zip(made: Path) -> None:
    (entry,) = json.loads((made / "index.json").read_text())["data"]
    assert (entry["id"], entry["version"]) == ("koshi", __version__)
    assert set(os.listdir(made)) == {"index.json", "index.html", f"koshi-{__version__}.zip", repository.MARK}
    page = (made / "index.html").read_text()
    # What Blender reads when the link is dragged into its window.
    assert f"koshi-{__version__}.zip?repository=.%2Findex.json&blender_version_min=4.2.0" in page


def test_what_does_not_fit_is_told(made: Path, tmp_path: Path) -> None:
    (zipped,) = made.glob("*.zip")
    (tmp_path / zipped.name).write_bytes(b"not what was listed")
    (tmp_path / "index.json").write_bytes((made / "index.json").read_bytes())
    faults = " ".join(repository.index_faults(tmp_path))
    assert "19 bytes" in faults and "sum" in faults
    with pytest.raises(SetupError, match="other files"):
        repository.make_repository(any_blender(), tmp_path)  # never replaces what is not its own
    assert (tmp_path / zipped.name).is_file()


def test_blender_installs_and_updates_from_it(
    blender_python: Path,
    request: pytest.FixtureRequest,
    made: Path,
    older: Path,
    served: str,
    tmp_path: Path,
) -> None:
    version = request.node.callspec.params["blender_python"]
    data = tmp_path / "data"
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "profile"), "KOSHI_DATA": str(data)}
    blender = Blender(version, str(blender_python), environment)
    (zipped,) = made.glob("*.zip")
    blender.run("--command", "extension", "validate", zipped)
    seen = blender.script("repository", (older / "index.json").as_uri(), served)
    works = {"enabled": True, "works": True}
    assert seen["installed"] == {"version": OLD, "code": OLD, **works}
    assert seen["updated"] == {"version": __version__, "code": __version__, **works}
    assert seen["kept"]
    assert seen["worn_out"] == {"before": [3.0, 4.0], "after": [False, False]}  # which stands in nobody's way
    assert seen["frames"] == 3 and seen["saved"] == ["FINISHED"]
    assert seen["zoom"] == 1.25  # the scene's settings, too
    # Uninstalled, Blender has deleted all that it gives an extension; what was rendered is elsewhere.
    assert seen["gone"] and seen["note"]
    assert seen["takes"] == [str(data / "takes"), True]
