"""Many short trainings at once, in processes of one thread each, that go on where a killed study stopped.

    a study ─► trials ─► run_trials ─► one result per trial, and a file for each

A result is kept as ``FOLDER/DIGEST.json``, named by the trial's settings: the same settings are never trained twice,
and a study of which some trials were changed keeps the others. Each trial has a seed and a thread of its own, so that
the results do not depend on how many processes there are, nor on which of them did what.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgecnn import __version__
from edgecnn.errors import InputError
from edgecnn.files import require_writable, sha256, write_json
from edgecnn.jobs import LocalExecutor, Status, Task
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
    todo = {key: trial for key, trial in known.items() if key not in done}
    if done:
        progress(f"{len(done)} of {len(known)} trials were done before")
    start, first = time.perf_counter(), len(done)
    with LocalExecutor(workers) as executor:
        for key, trial in todo.items():
            executor.submit(Task(key=key, call=_run, arguments=(trial, folder / key), name=trial.name, kind="trial"))
        while len(done) < len(known):
            for ended in executor.completed():
                trial = todo[ended.key]
                if ended.status is not Status.OK:
                    left = "; what was done is kept: run the same again to go on"
                    raise InputError(f"{trial.name}: {ended.text}{'' if ended.status is Status.ERROR else left}")
                write_json(folder / f"{ended.key}.json", {**_record(trial), "result": ended.value})
                shutil.rmtree(folder / ended.key, ignore_errors=True)
                done[ended.key] = ended.value
                left_s = (time.perf_counter() - start) / (len(done) - first) * (len(known) - len(done))
                wait_for = f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 60:.0f} min"
                progress(f"{len(done):4d} of {len(known)}  {trial.name}  ({wait_for} left)")
    return [done[digest(trial)] for trial in trials]


def _run(trial: Trial, scratch: Path) -> Result:
    """Run a trial, in a process of its own."""
    scratch.mkdir(parents=True, exist_ok=True)
    with use(Progress()):
        return trial.run(scratch)


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
