# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module, such as pip, and ends with the set-up that started it: `python leash.py MODULE ARGUMENTS`.

Its stdin is a pipe from the set-up. When that closes, because the set-up was killed, pip must not go on writing into a
folder that the next set-up makes anew.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _watch() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock must be free when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
