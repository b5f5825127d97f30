"""Many short trainings at once, in processes of one thread each, that go on where a killed study stopped.

    a study ─► trials ─► run_trials ─► one result per trial, and a file for each

A result is kept as ``FOLDER/DIGEST.json``, named by the trial's settings: the same settings are never trained twice,
and a study of which some trials were changed keeps the others. Each trial has a seed and a thread of its own, so that
the results do not depend on how many processes there are, nor on which of them did what.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgecnn import __version__
from edgecnn.errors import EdgecnnError, InputError
from edgecnn.files import require_writable, sha256, write_json
from edgecnn.progress import Progress, use
from edgecnn.records import read_file

if TYPE_CHECKING:
    from edgecnn.train.config import TrainConfig
    from edgecnn.train.loop import Watch

OUTPUT = Path("trial.safetensors")  # for the config of a ``Training``, which writes it into its scratch folder
Result = dict[str, Any]


class Trial(Protocol):
    """Something to try: picklable, as an instance of a top-level class is."""

    @property
    def name(self) -> str:
        """Return what a person calls it."""

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, as JSON values."""

    def run(self, scratch: Path) -> Result:
        """Do it, in a process with one thread.

        Args:
            scratch: a folder of the trial's own; what a killed try left in it is there, and afterwards it is removed.

        Returns:
            JSON values that depend on the settings alone: no seconds, no paths.

        Raises:
            EdgecnnError: it cannot be done.
        """


@dataclass(frozen=True, kw_only=True)
class Training:
    """A trial that is one run of ``edgecnn.train``.

    A study that wants to see more overrides ``watch`` and ``result``, or ``run`` where it does something else before.

    Attributes:
        config: the run; ``output`` is ``OUTPUT``.
    """

    config: TrainConfig

    @property
    def name(self) -> str:
        """Return the model and the seed."""
        return f"{self.config.model}, seed {self.config.seed}"

    def settings(self) -> dict[str, Any]:
        """Return those of the run."""
        return self.config.identity()

    def watch(self) -> Watch | None:
        """Return what is called in every step, when the gradients are there; a new one for each run."""
        return None

    def result(self, watch: Watch | None, epochs: list[Result]) -> Result:
        """Return what is kept of a run.

        Args:
            watch: what ``watch()`` returned.
            epochs: a row each, without its seconds: loss, and top-1 on training and on held-out images, in percent.
        """
        return {"val_top1": epochs[-1]["val_top1"], "train_top1": epochs[-1]["train_top1"], "epochs": epochs}

    def run(self, scratch: Path) -> Result:
        """Train; goes on from a checkpoint in the scratch folder."""
        from edgecnn.train import train
        from edgecnn.train.state import SUFFIX

        config, watch = replace(self.config, output=scratch / OUTPUT), self.watch()
        if watch is not None:  # it has to see every step
            config.beside(SUFFIX).unlink(missing_ok=True)
        train(config, watch)
        return self.result(watch, epochs_of(config))


def epochs_of(config: TrainConfig) -> list[Result]:
    """Return what a run measured, a row for each epoch, without its seconds, which are others every time."""
    from edgecnn.train.history import read
    from edgecnn.train.loop import METRICS

    return [{k: v for k, v in row.items() if k != "seconds"} for row in read(config.beside(METRICS))]


def digest(trial: Trial) -> str:
    """Return the name of a trial's result: a digest of its class, its settings and the version of edgecnn."""
    return sha256(json.dumps(_record(trial), sort_keys=True).encode())[:24]


def _record(trial: Trial) -> dict[str, Any]:
    kind = type(trial)
    return {"trial": f"{kind.__module__}.{kind.__qualname__}", "edgecnn": __version__, "settings": trial.settings()}


def run_trials(
    trials: Sequence[Trial], *, folder: Path, workers: int | None, progress: Callable[[str], None]
) -> list[Result]:
    """Return the results of the trials, in their order; those that the folder holds already are not run again.

    Args:
        trials: what to try; of equal ones, one is run.
        folder: where results are kept; made if it is not there.
        workers: processes; ``None`` is one for each core.
        progress: gets a line for each trial that is done.

    Raises:
        InputError: a trial cannot be done, its process died, or the folder holds a file that is no result. What was
            done stays, and running the same again goes on from there.
    """
    require_writable(folder)
    known = {digest(trial): trial for trial in trials}
    done = {key: kept for key, trial in known.items() if (kept := _kept(folder / f"{key}.json", trial)) is not None}
    todo = [_Job(key=key, trial=trial, scratch=folder / key) for key, trial in known.items() if key not in done]
    if done:
        progress(f"{len(done)} of {len(known)} trials were done before")
    start, first = time.perf_counter(), len(done)
    with _workers(min(workers or os.cpu_count() or 1, len(todo))) as processes:
        for job, result in _finished(processes, todo):
            write_json(folder / f"{job.key}.json", {**_record(job.trial), "result": result})
            shutil.rmtree(job.scratch, ignore_errors=True)
            done[job.key] = result
            left = (time.perf_counter() - start) / (len(done) - first) * (len(known) - len(done))
            wait_for = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
            progress(f"{len(done):4d} of {len(known)}  {job.trial.name}  ({wait_for} left)")
    return [done[digest(trial)] for trial in trials]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The file of a result."""

    trial: str
    edgecnn: str
    settings: Result
    result: Result


def _kept(path: Path, trial: Trial) -> Result | None:
    """Return the result in a file, ``None`` where there is no file."""
    if not path.exists():
        return None
    with suppress(InputError):
        kept = read_file(_Kept, path)
        if asdict(kept) == {**json.loads(json.dumps(_record(trial))), "result": kept.result}:
            return kept.result
    raise InputError(f"{path} is not the result of {trial.name}; delete it, or choose another folder with -o")


# --- processes ---


@dataclass(frozen=True, kw_only=True)
class _Job:
    key: str
    trial: Trial
    scratch: Path


_Worker = tuple[SpawnProcess, Connection]


@contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    """Start processes that run a job for each that they are sent; whatever happens, none is left behind."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        with _interrupts_ignored():  # children inherit this: Ctrl-C is for the parent, which ends them
            for _ in range(count):
                mine, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
                workers.append((process, mine))
                theirs.close()  # so that the pipe ends when the process does
        yield workers
    finally:
        for process, _ in workers:
            process.terminate()
        for process, pipe in workers:
            process.join()
            pipe.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others cannot set handlers, and get no signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _finished(workers: Sequence[_Worker], jobs: Sequence[_Job]) -> Iterator[tuple[_Job, Result]]:
    """Yield each job with its result, as they come."""
    waiting, idle = list(reversed(jobs)), list(workers)
    busy: dict[Any, tuple[_Worker, _Job]] = {}  # by pipe
    while waiting or busy:
        while waiting and idle:
            worker, job = idle.pop(), waiting.pop()
            busy[worker[1]] = worker, job
            with suppress(BrokenPipeError):  # the process has died, as it is found when its answer is read
                worker[1].send(job)
        for pipe in wait(list(busy)):
            worker, job = busy.pop(pipe)
            try:
                result, fault = worker[1].recv()
            except (EOFError, ConnectionResetError):
                raise _death(worker[0], job) from None
            if fault is not None:
                raise InputError(f"{job.trial.name}: {fault}")
            idle.append(worker)
            yield job, result


def _death(process: SpawnProcess, job: _Job) -> InputError:
    process.join()
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    want = " (was there too little memory? then give fewer --workers)" if -code == signal.SIGKILL else ""
    return InputError(f"{job.trial.name}: its process {how}{want}; what was done is kept: run the same again to go on")


def _serve(pipe: Connection) -> None:
    """Work: one thread for all arithmetic, no bars, jobs until the pipe or the parent ends."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    with use(Progress()):  # several bars would write over each other
        while True:
            try:
                job = pipe.recv()
            except EOFError:
                return
            try:
                job.scratch.mkdir(parents=True, exist_ok=True)
                answer: tuple[Result | None, str | None] = (job.trial.run(job.scratch), None)
            except EdgecnnError as error:
                answer = (None, str(error))
            pipe.send(answer)


def _end_with(parent: int) -> None:
    """End at once when the parent has gone, however it went."""
    wait([parent])
    os._exit(1)
