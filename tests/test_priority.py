# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that paints on the processor lets Blender's window go first."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bridge_helpers import Rig, shot
from conftest import ROOT

from bridge_server.worker import GIVING_WAY

AUTOGROUP = Path("/proc/self/autogroup")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has classes instead of nice values")
@pytest.mark.parametrize("apart", [True, False])
def test_the_worker_gives_way(tmp_path: Path, apart: bool) -> None:
    """apart: the server has a session of its own, as when Blender starts it; else it shares one, as in a terminal."""
    rig, here = Rig(tmp_path), os.getpriority(os.PRIO_PROCESS, 0)
    before = AUTOGROUP.read_text(encoding="ascii") if AUTOGROUP.exists() else ""
    try:
        rig.start(start_new_session=apart)
        with rig.connect() as client:
            client.submit(shot(1))
            assert list(client.events())[-1][0]["type"] == "done"
        worker = rig.worker()
        assert os.getpriority(os.PRIO_PROCESS, worker) == min(here + GIVING_WAY, 19)
        assert rig.server is not None and os.getpriority(os.PRIO_PROCESS, rig.server.pid) == here
        if before:  # Linux with groups by session, where a nice value counts only within one
            group = Path(f"/proc/{worker}/autogroup").read_text(encoding="ascii")
            assert group.split()[-1] == str(GIVING_WAY) if apart else group == before
            assert AUTOGROUP.read_text(encoding="ascii") == before
    finally:
        rig.close()


TWICE = """
import time
from pathlib import Path
from bridge_server.worker import _weigh_session

group = Path("/proc/self/autogroup")
for _ in range(20):
    try:
        group.write_text("4")
        break
    except BlockingIOError:
        time.sleep(0.05)
_weigh_session()
print(group.read_text().split()[-1])
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="groups by session are Linux's")
def test_a_session_whose_weight_is_refused_is_weighed_again() -> None:
    """Linux takes one in a tenth of a second from those who are no administrators: here the second at once."""
    drop = ctypes.CDLL(None).prctl
    ran = subprocess.run(
        [sys.executable, "-c", TWICE], cwd=ROOT, start_new_session=True, capture_output=True, text=True, check=True,
        preexec_fn=lambda: drop(24, 21, 0, 0, 0),  # PR_CAPBSET_DROP, CAP_SYS_ADMIN: what root has, too
    )  # fmt: skip
    assert ran.stdout.strip() == str(GIVING_WAY)
