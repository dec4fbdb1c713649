# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that renders: the only one with torch. The server feeds it, and may lose it at any time.

Messages come on stdin and go out on stdout, framed as on the socket:
 in   render {"job", "shot", "device", "kind"}, cancel {"job"}, release {}; the end of stdin means that the server is
      gone, and so are we
 out  ready {"pid"}, progress {"job", ...}, frame {"job", "index", "number", "key", "stored"} + PNG,
      done {"job"}, failed {"job", "error"}, cancelled {"job"}
Whatever a library prints goes to stderr, which the server keeps in its log.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time

from . import protocol
from .protocol import BridgeError, Header

log = logging.getLogger(__name__)

# Nice value of a worker that paints on the processor. Beside one of 5 a window that software draws was away for over
# 50 ms 12 times in 200 frames on two cores, beside one of 10 once (CONTRIBUTING.md).
GIVING_WAY = 10


class Worker:
    """Reads orders in a thread of its own, so that a cancel gets through while a frame is being made."""

    def __init__(self, orders: int, output: int, log_path: str) -> None:
        self._orders = orders
        self._output = output
        self._log_path = log_path
        self._renders: queue.SimpleQueue[Header] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._writing = threading.Lock()
        self._gave_way = False

    def run(self) -> None:
        """Renders one job after the other; never returns."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        self._send({"type": "ready", "pid": os.getpid()})
        while True:
            order = self._renders.get()
            if order["type"] == "release":
                _release()
                continue
            job = str(order["job"])
            self._send({**self._render(job, order["shot"], order.get("device"), order.get("kind")), "job": job})
            self._cancelled.discard(job)

    def _listen(self) -> None:
        decoder = protocol.Decoder()
        try:
            while data := os.read(self._orders, 1 << 16):
                decoder.feed(data)
                while message := decoder.next():
                    self._obey(message[0])
        except (OSError, BridgeError, KeyError) as error:
            log.error("orders cannot be read: %s", error)
        # Without a server nobody wants our frames, and a render in C code cannot be asked to stop.
        os._exit(0)

    def _obey(self, order: Header) -> None:
        if order["type"] in ("render", "release"):
            self._renders.put(order)
        elif order["type"] == "cancel":
            self._cancelled.add(str(order["job"]))

    def _render(self, job: str, shot_data: Header, device: str | None = None, kind: str | None = None) -> Header:
        """Renders one shot, or only its motion, and sends the frames. Returns the message that ends the job, without
        its id."""
        try:
            # Imported late: reading orders must not wait for torch, and a missing package becomes a message.
            from koshi_backend.environment import prepare

            prepare()
            from koshi_backend.chain import Progress, render_shot
            from koshi_backend.errors import Cancelled, KoshiError
            from koshi_backend.models.pool import pick_device
            from koshi_backend.preview import kept_motion_frames
            from koshi_backend.shot import load_shot
            from koshi_backend.store import FrameStore
        except ImportError as error:
            log.exception("the backend cannot be imported")
            return {"type": "failed", "error": _import_error(error).as_dict()}

        def progress(p: Progress) -> None:
            self._send(
                {"type": "progress", "job": job, "index": p.index, "step": p.step, "steps": p.steps}
                | {"message": p.message}
            )

        def cancelled() -> bool:
            return job in self._cancelled

        try:
            shot, store, where = load_shot(shot_data), FrameStore(), pick_device(device)
            if not self._gave_way and where.type == "cpu":
                self._gave_way = True
                _give_way()
            if kind == "motion":
                frames = kept_motion_frames(shot, store, cancelled)
            else:
                frames = render_shot(shot, store=store, device=where, progress=progress, cancelled=cancelled)
            for frame in frames:
                header = {"type": "frame", "job": job, "index": frame.index, "number": frame.number}
                self._send({**header, "key": frame.key, "stored": frame.stored}, frame.png)
        except Cancelled:
            return {"type": "cancelled"}
        except KoshiError as error:
            log.warning("job %s failed: %s", job, error)
            return {"type": "failed", "error": error.as_dict()}
        except ImportError as error:
            log.exception("a package is missing")
            return {"type": "failed", "error": _import_error(error).as_dict()}
        except Exception:  # the boundary of the process: a person gets a sentence, the log the rest
            log.exception("job %s failed unexpectedly", job)
            return {"type": "failed", "error": self._internal_error().as_dict()}
        return {"type": "done"}

    def _internal_error(self) -> BridgeError:
        where = self._log_path or "the terminal in which `koshi serve` runs"
        hint = f"The details are in {where}; please report them. Finished frames are kept."
        return BridgeError("internal", "Something in Koshi's backend went wrong that should not have.", hint)

    def _send(self, header: Header, payload: bytes = b"") -> None:
        rest = memoryview(protocol.pack(header, payload))
        with self._writing:
            while rest:
                rest = rest[os.write(self._output, rest) :]


def _import_error(error: ImportError) -> BridgeError:
    package = (error.name or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and package:
        message = f"Koshi's environment ({sys.executable}) lacks the Python package {package}."
        return BridgeError("missing_package", message, "Run Koshi's set-up again.")
    message = f"A Python package in Koshi's environment ({sys.executable}) cannot be loaded: {error}."
    return BridgeError("missing_package", message, "Run Koshi's set-up again.")


def _release() -> None:
    """Give back the memory of what is loaded, if anything is."""
    if "koshi_backend.models.pool" not in sys.modules:
        return
    from koshi_backend.unload import unload

    log.info("unloaded, to make room: %d", unload())


def _give_way() -> None:
    """Let Blender's window go first while the processor paints."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), 0x4000)  # BELOW_NORMAL_PRIORITY_CLASS
    else:
        os.nice(GIVING_WAY)
        # Linux weighs whole sessions first: among processes of two sessions their own values count for nothing. The
        # server has a session of its own, unless somebody started it in a terminal, whose shell would suffer.
        if sys.platform == "linux" and os.getsid(0) == os.getppid():
            _weigh_session()


def _weigh_session() -> None:
    """Linux takes one such number in 0.1 seconds on the whole machine, from all but administrators, or says EAGAIN."""
    for _ in range(5):
        try:
            group = os.open("/proc/self/autogroup", os.O_WRONLY)
            try:
                os.write(group, b"%d" % GIVING_WAY)
            finally:
                os.close(group)
            return
        except BlockingIOError:
            time.sleep(0.15)
        except OSError:  # a kernel without such groups
            return


def _die_with_parent() -> None:
    """Linux: the kernel ends us with the server, also while a library holds the interpreter lock."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


def main() -> int:
    """Runs the worker. Its only argument is the path of the server's log, for error messages, or ""."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides
    _die_with_parent()
    orders, output = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # prints, also those of C libraries, must not mix with messages
    os.close(nothing)
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (orders, output):
            msvcrt.setmode(descriptor, os.O_BINARY)
    Worker(orders, output, sys.argv[1] if len(sys.argv) > 1 else "").run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
