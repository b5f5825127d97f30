"""Sessions whose artifact is open in ``runner.py``, in another process: an emulator, or a shell on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecnn.child import Command, Runner
from edgecnn.errors import InputError, MissingDependencyError, unknown
from edgecnn.report.record import Resources
from edgecnn_targets.evaluate import timing
from edgecnn_targets.interface import Arrays, Description, Session, Usage, bytes_of, filled, packed, unpacked
from edgecnn_targets.results import ResultCache
from edgecnn_targets.runtimes import litert, onnxruntime

Opening = tuple[dict[str, Any], bytes]
"""The request that opens a file, and the file."""


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
