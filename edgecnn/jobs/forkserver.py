"""A process that has imported edgecnn and torch forks one child per job, which costs milliseconds instead of seconds.

``multiprocessing`` has a fork server too. It runs the caller's script again in every child, so that a script needs a
guard; its processes cannot be started from a Dask worker; and children would get the terminal's Ctrl-C.

    ForkServer ─(socket: one end of a pipe per job)─► serve ─fork─► _run ─(pipe: result)─► Child
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from edgecnn.jobs.task import Status, Task, attempt
from edgecnn.progress import Terminal, use

PRELOADED = (
    "torch",
    "msgspec",
    "edgecnn.exporting",
    "edgecnn.models.checkpoint",
    "edgecnn.graph.capture",
    "edgecnn.sweeping.run",
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_NUMBER = struct.Struct("i")


class Child:
    """A job in a process of its own.

    Attributes:
        pid: of the process, and of the session of all that it starts.
        connection: becomes ready when the result is there, or the process has ended.
    """

    def __init__(self, connection: Connection, status: int, task: Task) -> None:
        self.connection, self._status, self._killed = connection, status, False
        self.pid = self._read()
        if self.pid is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # it died; `result` finds it
                payload = (task.call, task.arguments)
                place = (sys.path, Path.cwd(), dict(os.environ), task.log)
                self.connection.send_bytes(pickle.dumps((*place, pickle.dumps(payload))))

    def result(self) -> tuple[Status, Any, str, int]:
        """Return status, value, a line about the error and the peak of memory in MiB, once ``connection`` is ready."""
        try:
            answer: tuple[Status, Any, str, int] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            code = self._read()
            return Status.LOST, None, _death(code), 0
        finally:
            self._close()
        return answer

    def kill(self) -> None:
        """End the process and all that it started."""
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):  # it has not made its session yet
                os.kill(self.pid, signal.SIGKILL)
        self._read()
        self._close()

    def memory_mib(self) -> int:
        """Return the resident memory of the process and its children; 0 where the system does not tell."""
        return 0 if self.pid is None else sum(map(_resident, _family(self.pid))) // 2**20

    def _read(self) -> int | None:
        data = os.read(self._status, _NUMBER.size) if self._status >= 0 else b""
        return _NUMBER.unpack(data)[0] if len(data) == _NUMBER.size else None

    def _close(self) -> None:
        self.connection.close()
        if self._status >= 0:
            os.close(self._status)
            self._status = -1


def _death(code: int | None) -> str:
    if code is None:
        return "the server of its process died"
    if code >= 0:
        return f"its process ended with status {code}"
    want = " (was there too little memory? then give fewer --workers)" if -code == signal.SIGKILL else ""
    return f"its process was killed by {signal.Signals(-code).name}{want}"


def _resident(pid: int) -> int:
    """Return bytes of resident memory, 0 of a process that has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _family(pid: int) -> list[int]:
    """Return a process and those that it started, as Linux tells."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for path in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, path.read_text().split())
    return found


@cache
def server() -> ForkServer:
    """Return the server of this process, which starts when the first job does."""
    made = ForkServer()
    atexit.register(made.close)
    return made


class ForkServer:
    """Starts children; ends them all when it is closed, or when this process ends in any way."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self, task: Task) -> Child:
        """Run a task in a new process."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._launch()
            assert self._channel is not None
            mine, theirs = Pipe()
            status, told = os.pipe()
            with suppress(BrokenPipeError):
                socket.send_fds(self._channel, [b"F"], [theirs.fileno(), told])
            theirs.close()
            os.close(told)
        return Child(mine, status, task)

    def close(self) -> None:
        """End the server and its children."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.wait()
        self._process = self._channel = None

    def _launch(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel, theirs = socket.socketpair()
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from edgecnn.jobs.forkserver import serve; serve({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, **dict.fromkeys(THREADS, "1")},
            start_new_session=True,  # Ctrl-C is for the caller, which ends the children
        )
        theirs.close()


def serve(channel: int) -> None:
    """Fork a child for each message, and tell of each how it ended, until the other side of the socket is gone."""
    for name in PRELOADED:
        import_module(name)
    gc.collect()
    gc.freeze()  # a collection would write to pages that children share
    requests = socket.socket(fileno=channel)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, int] = {}  # pid to the descriptor that takes its status
    while True:
        ready, _, _ = select.select([channel, woken], [], [])
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(children)
        if channel in ready:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
            if not message:
                break
            _fork(descriptors, children, [channel, woken, wake])
    for pid in children:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _reap(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        told = children.pop(pid)
        with suppress(BrokenPipeError):
            os.write(told, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os.close(told)


def _fork(descriptors: list[int], children: dict[int, int], own: list[int]) -> None:
    pipe, told = descriptors
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (told, *own, *children.values()):
                os.close(descriptor)
            os.setsid()
            _end_with_parent()
            os.set_inheritable(pipe, False)  # what it executes shall not keep the pipe open
            _run(Connection(pipe))
        except BaseException:  # noqa: BLE001  # a fork must not return into the server
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(pipe)
    children[pid] = told
    os.write(told, _NUMBER.pack(pid))


def _run(pipe: Connection) -> None:
    """Do the job that the pipe gives, and send back what came of it."""
    sys.path[:], folder, environment, log, payload = pickle.loads(pipe.recv_bytes())  # noqa: S301  # from the process that started us
    os.chdir(folder)
    os.environ.update({**environment, **dict.fromkeys(THREADS, "1")})
    _redirect(log)
    status, value, text = attempt(_call, (payload,))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        answer = pickle.dumps((status, value, text, _peak_mib()))
    except Exception as error:  # noqa: BLE001  # the value of another's function
        answer = pickle.dumps((Status.FAULT, None, f"its result cannot be pickled: {error}", _peak_mib()))
    pipe.send_bytes(answer)


def _end_with_parent() -> None:
    """Let the system end this process when the server dies, where it is Linux. Source: prctl(2), PR_SET_PDEATHSIG."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _call(payload: bytes) -> Any:
    call, arguments = pickle.loads(payload)  # noqa: S301  # likewise
    with use(Terminal()):  # its lines go to the log
        return call(*arguments)


def _redirect(log: Path | None) -> None:
    target = os.open(os.devnull if log is None else log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)


def _peak_mib() -> int:
    import resource

    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return max(peaks) // unit
