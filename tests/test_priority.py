# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that paints on the processor lets Blender's window go first."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bridge_helpers import Rig, shot

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
        assert os.getpriority(os.PRIO_PROCESS, worker) == min(here + 5, 19)
        assert rig.server is not None and os.getpriority(os.PRIO_PROCESS, rig.server.pid) == here
        if before:  # Linux with groups by session, where a nice value counts only within one
            group = Path(f"/proc/{worker}/autogroup").read_text(encoding="ascii")
            assert group.split()[-1] == "5" if apart else group == before
            assert AUTOGROUP.read_text(encoding="ascii") == before
    finally:
        rig.close()
