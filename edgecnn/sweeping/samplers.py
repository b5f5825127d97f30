"""Which combinations are tried: all, some by chance, or those that Optuna proposes from results.

Optuna is asked for a fixed number of combinations at a time and told their results in the order in which it proposed
them. What it proposes thus depends on the seed alone, not on how many workers there are or which one ends first.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgecnn.errors import MissingDependencyError
from edgecnn.sweeping.figures import Figures
from edgecnn.sweeping.plan import Planner, Row
from edgecnn.sweeping.spec import Sweep, direction

Score = tuple[Figures | None, int]
"""Figures of a result, ``None`` where it has none, and how many checks it failed."""
Evaluate = Callable[[Iterable[tuple[Row, int | None]]], Mapping[str, Score]]
"""Runs rows, on at most so many images; returns the score of each by its digest."""
TRIES = 10  # proposals for each new combination, before a sampler that repeats itself is stopped


def sampled(sweep: Sweep, planner: Planner) -> Iterator[Row]:
    """Yield the combinations of ``grid`` and ``random``."""
    most = sweep.budget.jobs
    if sweep.sampler.name == "grid":
        yield from itertools.islice(planner.rows(), most)
        return
    assert most is not None
    chance, seen, axes = random.Random(sweep.sampler.seed), set[str](), sweep.axes
    for _ in range(TRIES * most):
        row = planner.row({axis: chance.choice(values) for axis, values in axes.items()})
        if row is not None and row.stage.digest not in seen:
            seen.add(row.stage.digest)
            yield row
            if len(seen) == most:
                return


def learned(sweep: Sweep, planner: Planner, evaluate: Evaluate) -> Iterator[tuple[Row, int | None]]:
    """Yield the combinations that Optuna proposes, after they were evaluated, each once.

    Yields:
        A row, and the number of images after which it was pruned, or ``None``.

    Raises:
        MissingDependencyError: Optuna is not installed.
    """
    study, most = new_study(sweep), sweep.budget.jobs
    assert most is not None
    known: dict[str, Score] = {}
    proposed = 0
    while len(known) < most and proposed < TRIES * most:
        trials = [(trial, planner.row(_point(trial, sweep))) for trial in _asked(study, sweep.sampler.batch)]
        proposed += len(trials)
        fresh = {row.stage.digest: row for _, row in trials if row is not None and row.stage.digest not in known}
        rows = dict(itertools.islice(fresh.items(), most - len(known)))
        pruned = _pruned(sweep, trials, rows, evaluate)
        left = [(row, None) for digest, row in rows.items() if digest not in pruned]
        known.update(evaluate(left))
        known.update(dict.fromkeys(pruned, (None, 0)))
        for trial, row in trials:
            digest = row.stage.digest if row is not None else ""
            _tell(study, sweep, trial, known.get(digest, (None, 0)), digest in pruned)
        yield from ((row, pruned.get(digest)) for digest, row in rows.items())


def _pruned(sweep: Sweep, trials: list[Any], rows: Mapping[str, Row], evaluate: Evaluate) -> dict[str, int]:
    """Return the rows that fall behind on few images, with how many these were."""
    (name, _), found = direction(sweep.objective[0]), dict[str, int]()
    first = {row.stage.digest: trial for trial, row in reversed(trials) if row is not None and row.stage.digest in rows}
    for rung in sweep.sampler.rungs:
        left = [digest for digest in rows if digest not in found]
        scores = evaluate([(rows[digest], rung) for digest in left])
        for digest in left:
            figures, trial = scores[digest][0], first[digest]
            if figures is not None and name in figures:
                trial.report(figures[name], rung)
                if trial.should_prune():
                    found[digest] = rung
    return found


def new_study(sweep: Sweep) -> Any:
    """Return a study of Optuna's.

    Raises:
        MissingDependencyError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError(
            f"sampler {sweep.sampler.name} needs Optuna: pip install 'edgecnn[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = sweep.sampler.seed
    made: Any
    if sweep.sampler.name == "tpe":
        made = optuna.samplers.TPESampler(seed=seed, n_startup_trials=sweep.sampler.batch)
    else:
        made = optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, sweep.sampler.batch))
    directions = ["maximize" if direction(each)[1] else "minimize" for each in sweep.objective]
    pruner = optuna.pruners.MedianPruner(n_startup_trials=sweep.sampler.batch)
    return optuna.create_study(sampler=made, pruner=pruner, directions=directions)


def _asked(study: Any, count: int) -> list[Any]:
    return [study.ask() for _ in range(count)]


def _point(trial: Any, sweep: Sweep) -> dict[str, Any]:
    """Return the value of every axis; axes of numbers are ordered for the sampler."""
    found = {}
    for axis, values in sweep.axes.items():
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        ordered = sorted(values) if numbers else list(values)
        places = len(ordered) - 1
        place = trial.suggest_int(axis, 0, places) if numbers else trial.suggest_categorical(axis, range(len(ordered)))
        found[axis] = ordered[place]
    return found


def _tell(study: Any, sweep: Sweep, trial: Any, score: Score, pruned: bool) -> None:
    from optuna.trial import TrialState

    figures, _ = score
    names = [direction(each)[0] for each in sweep.objective]
    if pruned:
        study.tell(trial, state=TrialState.PRUNED)
    elif figures is None or any(name not in figures for name in names):
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, [figures[name] for name in names])
