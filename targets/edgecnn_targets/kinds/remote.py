"""Sessions whose artifact is open in ``runner.py``, in another process: an emulator, or a shell on another machine."""

from __future__ import annotations

import json
import os
import selectors
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgecnn.errors import DeviceFault, InputError, MissingDependencyError, UnsupportedError, unknown
from edgecnn.report.record import Resources
from edgecnn_targets.evaluate import timing
from edgecnn_targets.interface import Arrays, Description, Session, Usage, bytes_of, filled, packed, unpacked
from edgecnn_targets.process import how_it_ended, kill, last_output, start
from edgecnn_targets.results import ResultCache
from edgecnn_targets.runtimes import litert, onnxruntime

CHUNK = 1 << 16

Opening = tuple[dict[str, Any], bytes]
"""The request that opens a file, and the file."""


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
    """One running ``runner.py``.

    Raises:
        DeviceFault: it cannot be started.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = start(command.words, env=command.environment, stdin=-1, stderr=self._said)
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
            raise UnsupportedError(f"device {self._command.device!r} cannot run it: {head['error']}")
        return head, payload

    def close(self) -> None:
        """End the runner; a second call does nothing."""
        if not self._said.closed:
            kill(self._process)
            self._process.communicate()
            self._said.close()

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


class RemoteSession(Session):
    """An artifact open in runners; see ``Session``.

    Args:
        command: how a runner is started.
        path: of the artifact here.
        target: ``tflite`` or ``onnx``.
        kernels: as the target's own session takes them; ``None`` is the fastest.
        vnni: whether sums of bytes are exact there, see ``saturation``.
        runners: so many run side by side, each with its share of a batch.
        results: what it has answered before; with it, runners start only for what is not known yet.
        notes: further findings.

    Raises:
        InputError: the file cannot be read, the kernels are unknown, or it is not what its suffix says.
        UnsupportedError: the device cannot run it.
        DeviceFault: the device broke.
    """

    def __init__(
        self,
        command: Command,
        path: Path,
        target: str,
        *,
        threads: int = 1,
        kernels: str | None = None,
        vnni: bool = True,
        runners: int = 1,
        results: ResultCache | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.command, self.opening = command, opening(path, target, threads, kernels)
        self.notes, self.results, self._count, self._reused, self._ran = notes, results, runners, 0, 0
        self._runners: list[Runner] = []
        self._own: set[int] = set()  # hashes of what ran here in this session
        try:
            details, graph = self._opened()
            super().__init__(_described(path, target, kernels, details, graph, vnni=vnni), threads=threads)
        except BaseException:
            self.close()
            raise

    @property
    def findings(self) -> tuple[str, ...]:
        said = (*self.description.findings, *self.notes)
        if self.results is None or not self._reused:
            return said
        counts = f"{self._reused} of {self._reused + self._ran}"
        return (*said, f"{counts} outputs are of an earlier run, in {self.results.folder}")

    def _opened(self) -> tuple[dict[str, Any], bytes]:
        """Return details and graph, from the cache or from the device."""
        if self.results is None:
            return self._start()
        known = self.results.get("opened")
        if known is None:
            details, graph = self._start()
            known = json.dumps(details).encode() + b"\n" + graph
            self.results.put("opened", known)
        head, _, graph = known.partition(b"\n")
        return json.loads(head), graph

    def _start(self) -> tuple[dict[str, Any], bytes]:
        for _ in range(self._count):
            self._runners.append(Runner(self.command))
            self._runners[-1].ask(*self.opening, within_s=self.command.open_s)
        first, *_ = [runner.answer() for runner in self._runners]
        return first

    def execute(self, batch: Arrays) -> Arrays:
        count, size = len(batch[self.inputs[0].name]), self.batch
        whole = {name: filled(array, -(-count // size) * size) if count else array for name, array in batch.items()}
        fed = packed(whole, self.inputs)
        made = {k: self.results.output(image) for k, image in enumerate(fed)} if self.results is not None else {}
        new = [k for k in range(len(fed)) if made.get(k) is None]
        earlier = [k for k in set(range(len(fed))) - set(new) if hash(fed[k]) not in self._own]
        self._own.update(hash(fed[k]) for k in new)
        self._reused, self._ran = self._reused + len(earlier), self._ran + len(new)
        if new:
            outputs = self._executed([fed[k] for k in new])
            made |= dict(zip(new, outputs, strict=True))
            if self.results is not None:
                self.results.put_outputs((fed[k] for k in new), outputs)
        found = unpacked([made[k] or b"" for k in range(len(fed))], self.outputs)
        return {name: values[:count] for name, values in found.items()}

    def _executed(self, inferences: list[bytes]) -> list[bytes]:
        """Run inferences on the device; return the outputs of each."""
        if not self._runners:
            self._start()
        share = -(-len(inferences) // len(self._runners))
        shares = [inferences[at : at + share] for at in range(0, len(inferences), share)]
        asked = list(zip(self._runners, shares, strict=False))
        for runner, part in asked:
            runner.ask({"do": "run"}, b"".join(part), within_s=self.command.image_s * len(part))
        made = b"".join(runner.answer()[1] for runner, _ in asked)
        size = bytes_of(self.outputs)
        return [made[at : at + size] for at in range(0, len(inferences) * size, size)]

    def time(self, sample: Arrays, *, warmup: int, runs: int) -> Usage:
        """Time so many runs there, by its clock; return what the network holds of its memory too.

        Raises:
            DeviceFault: the device broke.
        """
        if not self._runners:
            self._start()
        request = {"do": "time", "warmup": warmup, "runs": runs}
        (fed,) = packed(sample, self.inputs)
        self._runners[0].ask(request, fed, within_s=self.command.image_s * (warmup + runs))
        said, _ = self._runners[0].answer()
        return Usage(latency=timing(said["ns"], threads=self.threads), resources=Resources(heap_kib=kib(said["heap"])))

    def close(self) -> None:
        """End the runners."""
        for runner in self._runners:
            runner.close()


def kib(heap: int | None) -> float | None:
    """Return what a runner says of its heap, in KiB."""
    return None if heap is None else heap / 1024


def opening(path: Path, target: str, threads: int, kernels: str | None) -> Opening:
    """Return the request that opens an artifact.

    Raises:
        InputError: the file cannot be read, or the kernels are unknown.
    """
    known = _KERNELS[target]
    name = kernels or next(iter(known))
    if name not in known:
        raise InputError(unknown("kernels", name, known))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return {"do": "open", "target": target, "threads": threads, "kernels": known[name]}, content


_KERNELS = {"tflite": litert.RESOLVERS, "onnx": onnxruntime.KERNELS}  # the first is the fastest


def _described(
    path: Path, target: str, kernels: str | None, details: Mapping[str, Any], graph: bytes, *, vnni: bool
) -> Description:
    name = kernels or next(iter(_KERNELS[target]))
    if target == "tflite":
        return litert.describe(path, details, kernels=name)
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("reading a .onnx file needs onnx: pip install 'edgecnn[onnx]'") from None
    made = onnx.load_from_string(graph) if graph else onnxruntime.open_file(path, 1, name)[2]  # there it is not shown
    return onnxruntime.describe(path, details, onnx.load(str(path)), made, kernels=name, vnni=vnni)
