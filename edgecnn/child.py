"""A child process that answers requests: a device's runner, or native code that a file may crash.

Requests and answers are a line of JSON and the raw bytes after it. ``Runner`` is this end of it for any child.
``Child`` runs functions of edgecnn in ``serving.py``, and hands arrays over in shared memory.
"""

from __future__ import annotations

import json
import mmap
import os
import selectors
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgecnn import errors
from edgecnn.budget import REMEDY, budget
from edgecnn.errors import DeviceFault, EdgecnnError, InputError, UnsupportedError
from edgecnn.process import how_it_ended, kill, last_output, start

CHUNK = 1 << 16
ALIGNED = 64  # bytes: where an array begins in shared memory
Arrays = Mapping[str, NDArray[Any]]
Places = list[tuple[str, str, tuple[int, ...], int]]
"""Name, dtype, shape and offset of each array in shared memory."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a runner is started.

    Attributes:
        device: its name, for messages.
        words: the command; what it runs is ``runner.py``.
        environment: all of it, or ``None`` to inherit.
        open_s: it is killed when starting and opening an artifact takes longer.
        image_s: it is killed when an inference takes longer.
    """

    device: str
    words: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    open_s: float = 300.0
    image_s: float = 60.0


class Runner:
    """One running child.

    Args:
        command: how it is started.
        fds: file descriptors that it inherits.

    Raises:
        DeviceFault: it cannot be started.
    """

    def __init__(self, command: Command, fds: tuple[int, ...] = ()) -> None:
        self._command = command
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            options = {"env": command.environment, "stdin": -1, "stderr": self._said, "pass_fds": fds}
            self._process = start(command.words, **options)
        except BaseException:
            self._said.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._into, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for end in (self._into, self._from):
            os.set_blocking(end, False)
        self._read = bytearray()
        self._deadline = 0.0

    def ask(self, request: Mapping[str, Any], payload: bytes = b"", *, within_s: float) -> None:
        """Send a request, a line of JSON, and the raw bytes after it; ``answer`` waits for what comes of it.

        Args:
            within_s: of now, the answer is there, or the runner is killed.

        Raises:
            DeviceFault: it has ended, or does not read.
        """
        self._deadline, self._patience = time.monotonic() + within_s, within_s
        rest = memoryview(json.dumps({**request, "bytes": len(payload)}).encode() + b"\n" + payload)
        while rest:
            self._wait(self._into, selectors.EVENT_WRITE)
            try:
                rest = rest[os.write(self._into, rest) :]
            except BrokenPipeError:
                self._ended()

    def answer(self) -> tuple[dict[str, Any], bytes]:
        """Return the answer to ``ask``.

        Raises:
            DeviceFault: it ended, hung, or said something else than an answer; with its last output.
            UnsupportedError: it answers that it cannot; the message is its reason.
        """
        while (end := self._read.find(b"\n")) < 0:
            self._more()
        try:
            head = json.loads(self._read[:end])
            size = int(head.pop("bytes"))
        except (ValueError, TypeError, AttributeError, KeyError):
            self._broke(f"answered {bytes(self._read[:80])!r}, which is no answer")
        while len(self._read) < end + 1 + size:
            self._more()
        payload = bytes(self._read[end + 1 : end + 1 + size])
        del self._read[: end + 1 + size]
        if "error" in head:
            raise self._refusal(head)
        return head, payload

    def close(self) -> None:
        """End the runner; a second call does nothing."""
        if not self._said.closed:
            kill(self._process)
            self._process.communicate()
            self._said.close()

    def _refusal(self, head: Mapping[str, Any]) -> EdgecnnError:
        """Return the error for what it answers that it cannot."""
        return UnsupportedError(f"device {self._command.device!r} cannot run it: {head['error']}")

    def _more(self) -> None:
        self._wait(self._from, selectors.EVENT_READ)
        chunk = os.read(self._from, CHUNK)
        if not chunk:
            self._ended()
        self._read += chunk

    def _wait(self, end: int, event: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(end, event)
            if not selector.select(max(0.0, self._deadline - time.monotonic())):
                self._broke(f"hung: no answer within {self._patience:g} s")

    def _ended(self) -> NoReturn:
        self._broke(how_it_ended(self._process.wait()))

    def _broke(self, how: str) -> NoReturn:
        kill(self._process)
        self._process.wait()
        self._said.seek(0)
        said = last_output(self._said.read())
        self.close()
        raise DeviceFault(f"{self._command.device} {how}; its last output: {said}")


class Shared:
    """Memory that a process and its child have in common, in which arrays lie one after another."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else None  # noqa: SIM115
        self.fd = os.memfd_create("edgecnn") if self._file is None else self._file.fileno()
        self._map: mmap.mmap | None = None

    def put(self, arrays: Arrays, *, room: int = 0) -> tuple[Places, int]:
        """Copy arrays in; return where they lie, and how large the memory is.

        Args:
            room: bytes that the memory has at least, for what comes back.
        """
        places, at = list[tuple[str, str, tuple[int, ...], int]](), 0
        for name, array in arrays.items():
            places.append((name, array.dtype.str, array.shape, at))
            at += -(-array.nbytes // ALIGNED) * ALIGNED
        size = self.grow(max(at, room, ALIGNED))
        for view, array in zip(self.views(places).values(), arrays.values(), strict=True):
            np.copyto(view, array)
        return places, size

    def grow(self, size: int) -> int:
        """Give the memory at least this size; return the size that it has."""
        held = os.fstat(self.fd).st_size
        if held < size:
            os.ftruncate(self.fd, size)
            held = size
        if self._map is None or len(self._map) < held:
            self._map = mmap.mmap(self.fd, held)  # views of the old one keep it
        return held

    def views(self, places: Places) -> dict[str, NDArray[Any]]:
        """Return the arrays that lie in it, not copied."""
        assert self._map is not None
        return {
            name: np.frombuffer(self._map, kind, prod(shape), offset).reshape(shape)
            for name, kind, shape, offset in places
        }

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self.fd) if self._file is None else self._file.close()


class Child:
    """A child that runs functions of edgecnn: ``call`` names one.

    A function takes what the child holds (a dictionary that stays between calls), JSON values and arrays, and returns
    JSON values and arrays. One of edgecnn's errors there is raised here.

    Args:
        what: runs in it, for messages: ``LiteRT``.
        file_bytes: memory for what it reads, beside that for what it computes: two budgets.

    Raises:
        DeviceFault: it cannot be started.
    """

    def __init__(self, what: str, *, file_bytes: int = 0) -> None:
        self._shared, self.file_bytes = Shared(), file_bytes
        limits = (str(budget().memory), str(2 * budget().memory + file_bytes))
        words = (sys.executable, "-m", "edgecnn.serving", str(self._shared.fd), *limits)
        self._runner = _Serving(Command(device=what, words=words), (self._shared.fd,))
        self._end = weakref.finalize(self, _end, self._runner, self._shared)

    def call(
        self, function: str, given: Mapping[str, Any], arrays: Arrays | None = None, *, room: int = 0, within_s: float
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Run ``package.module:function`` in the child.

        Args:
            given: JSON values.
            arrays: are handed over by name.
            room: bytes of the arrays that come back, where that is known.
            within_s: of now, it answers, or it is killed.

        Returns:
            What the function returned; the arrays lie in shared memory until the next call.

        Raises:
            DeviceFault: it ended, hung, or took too much memory; with its last output.
            EdgecnnError: the function raised it.
        """
        places, size = self._shared.put(arrays or {}, room=room)
        request = {"call": function, "given": given, "arrays": places, "size": size}
        self._runner.ask(request, within_s=within_s)
        head, _ = self._runner.answer()
        self._shared.grow(int(head["size"]))
        return head["answer"], self._shared.views([(n, kind, tuple(s), at) for n, kind, s, at in head["arrays"]])

    def close(self) -> None:
        """End it; a second call does nothing."""
        self._end()


_kept: dict[str, Child] = {}


@contextmanager
def kept(what: str, *, file_bytes: int = 0) -> Iterator[Child]:
    """Give a child that stays for the next use, by the same name; one that broke is replaced.

    Raises:
        DeviceFault: it cannot be started, or the body's.
    """
    child = _kept.pop(what, None)
    if child is not None and child.file_bytes < file_bytes:
        child.close()
        child = None
    child = child or Child(what, file_bytes=file_bytes)
    try:
        yield child
    except EdgecnnError as error:
        if isinstance(error, DeviceFault):
            child.close()
            raise
        _kept[what] = child
        raise
    except BaseException:
        child.close()
        raise
    _kept[what] = child


class _Serving(Runner):
    def _refusal(self, head: Mapping[str, Any]) -> EdgecnnError:
        if head["kind"] == "MemoryError":
            return DeviceFault(f"{self._command.device} ran out of the memory it may take: {head['error']}; {REMEDY}")
        kinds = {each.__name__: each for each in vars(errors).values() if isinstance(each, type)}
        kind = kinds.get(head["kind"], Exception)
        if issubclass(kind, EdgecnnError):
            return kind(head["error"])
        return InputError(f"{self._command.device} cannot run it: {head['error']}")


def _end(runner: Runner, shared: Shared) -> None:
    runner.close()
    shared.close()
