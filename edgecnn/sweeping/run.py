"""The loop: which stage can run now, what came of it, and which combinations that ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgecnn.jobs import Executor, Outcome, Status, Task
from edgecnn.sweeping.perform import job, keep
from edgecnn.sweeping.spec import Engine
from edgecnn.sweeping.stages import Stage, chain
from edgecnn.sweeping.store import Result, Store


@dataclass
class Progress:
    """What is seen of a sweep while it runs: counts of stages, and when it began.

    Attributes:
        done, failed: stages that ended in this run, well or not.
        kept: stages whose result was there before.
        running: names of stages in flight, by digest.
        rows: combinations that ended.
        rows_failed: those of which a check did not hold or a stage failed.
        best: the best combination so far, in words.
    """

    done: int = 0
    failed: int = 0
    kept: int = 0
    running: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    rows_failed: int = 0
    best: str = ""
    started: float = field(default_factory=time.monotonic)


Ended = tuple[Stage, Stage, Result]
"""A last stage, the stage that decided it (itself, or the one before it that failed), and that one's result."""


class Loop:
    """Runs stages, each once, as an executor has room.

    Args:
        store: where results are.
        executor: runs jobs.
        engine: limits of each job.
        until: time, of ``time.monotonic``, after which nothing is started; ``None`` is no such time.
        seen: called after every change.
    """

    def __init__(
        self, store: Store, executor: Executor, engine: Engine, *, until: float | None, seen: Callable[[Progress], None]
    ) -> None:
        self._store, self._executor, self._engine, self._until, self._seen = store, executor, engine, until, seen
        self.progress = Progress()
        self._ok: set[str] = set()
        self._bad: dict[str, Result] = {}
        self._flying: dict[str, tuple[Stage, list[Stage]]] = {}  # by digest: a stage, and the last stages that wait
        self._ready: deque[Stage] = deque()

    def results(self, stages: Iterable[Stage]) -> Iterator[Ended]:
        """Run last stages and what they depend on; yield each when it has ended. In time's budget, some never are.

        Raises:
            EdgecnnError: the executor is lost; what has ended is kept.
        """
        given = iter(stages)
        while True:
            more = True
            while more and len(self._flying) < self._executor.window and not self._late():
                last = self._ready.popleft() if self._ready else next(given, None)
                more = last is not None
                if last is not None and (ended := self._advance(last)) is not None:
                    self.progress.rows += 1
                    yield ended
            self._seen(self.progress)
            if not self._flying:
                if self._late() or not (more or self._ready):
                    return
                continue
            for outcome in self._executor.completed(1.0):
                stage, waiting = self._flying.pop(outcome.key)
                self.progress.running.pop(outcome.key, None)
                self._note(stage, outcome)
                self._ready.extendleft(reversed(waiting))  # first what is begun, so that combinations end early

    def _late(self) -> bool:
        return self._until is not None and time.monotonic() > self._until

    def _advance(self, last: Stage) -> Ended | None:
        """Start the first stage of a chain that has not ended, or return how the chain ended."""
        for stage in chain(last):
            if stage.digest in self._flying:
                self._flying[stage.digest][1].append(last)
                return None
            if stage is not last and stage.digest in self._ok:
                continue
            found = self._bad.get(stage.digest) or self._store.done(stage.digest)
            if found is None:
                self._start(stage, last)
                return None
            if stage.digest not in self._ok and stage.digest not in self._bad:
                self.progress.kept += 1
            if found.status is not Status.OK or stage is last:
                if found.status is Status.OK:
                    self._ok.add(stage.digest)
                else:
                    self._bad[stage.digest] = found
                return last, stage, found
            self._ok.add(stage.digest)
        raise AssertionError(last)

    def _start(self, stage: Stage, last: Stage) -> None:
        self._flying[stage.digest] = stage, [last]
        self.progress.running[stage.digest] = stage.name
        log = self._store.log(stage.digest)
        log.parent.mkdir(parents=True, exist_ok=True)
        call, *arguments = job(self._store, stage, self._executor)
        self._executor.submit(
            Task(
                key=stage.digest,
                call=call,
                arguments=tuple(arguments),
                name=stage.name,
                kind=f"{stage.kind} {stage.device}",
                memory_mib=self._engine.memory_mib,
                timeout_s=self._engine.timeout_s,
                retries=self._engine.retries,
                alone=stage.alone,
                resource=stage.device or None,
                board=stage.board,
                log=log,
            )
        )

    def _note(self, stage: Stage, outcome: Outcome) -> None:
        if outcome.status is Status.OK:
            keep(self._store, stage, outcome.value)
            self._ok.add(stage.digest)
            self.progress.done += 1
            return
        run: dict[str, Any] = {"seconds": round(outcome.seconds, 3), "attempts": outcome.attempts}
        run["peak_mib"] = outcome.peak_mib
        self._bad[stage.digest] = self._store.put(stage, outcome.status, text=outcome.text, run=run)
        self.progress.failed += 1
