"""Try a sample of faults, and print the score of each room and what survived."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from mutants.lines import Lines
from mutants.mutate import Mutant, files, mutants_of
from mutants.trial import (
    EQUIVALENT,
    KILLED,
    NOT_COVERED,
    PATIENCE,
    START_S,
    SURVIVED,
    TIMED_OUT,
    Place,
    Trial,
    ordered,
    tests_of,
)

LEAST = 6  # faults of each room


def main() -> int:
    """Make the map or bring it up to date, draw the faults, try them, and print the table."""
    parser = argparse.ArgumentParser("mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "edgecnn-mutants", help="where the map is kept"
    )
    parser.add_argument(
        "--commit", default="HEAD", help="whose source and tests (default HEAD; what is not committed is left out)"
    )
    parser.add_argument("--budget", type=float, default=120, help="seconds of tests for a fault")
    parser.add_argument("--room", nargs="+", help="only faults of these rooms")
    parser.add_argument(
        "--keep", type=Path, help="file of what came of each fault; a run that was interrupted goes on with it"
    )
    options = parser.parse_args()
    lines = Lines(options.cache.resolve(), options.commit)
    lines.update()
    harmless = equivalents()
    known = {}
    if options.keep and options.keep.exists():
        known = {key: tuple(rest) for key, *rest in map(json.loads, options.keep.read_text("utf-8").splitlines())}
    with tempfile.TemporaryDirectory(prefix="edgecnn-mutants-") as folder:
        place = Place(Path(folder), options.commit)
        drawn = [
            mutant
            for mutant in draw(place.tree, options.count, options.seed)
            if options.room is None or mutant.room in options.room
        ]
        trials = list[Trial]()
        for number, mutant in enumerate(drawn, 1):
            if mutant.place in harmless:
                trials.append(Trial(mutant=mutant, tests=[], how="", state=EQUIVALENT))
                continue
            found, how = tests_of(mutant, lines)
            trial = Trial(mutant=mutant, tests=ordered(found, mutant, lines, options.budget), how=how)
            trials.append(trial)
            if mutant.key in known:
                trial.state, trial.killer = known[mutant.key]
                continue
            tried(place, trial, lines)
            sys.stderr.write(f"{number}/{len(drawn)} {told(trial)}\n")
            if options.keep:
                with options.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([mutant.key, trial.state, trial.killer]) + "\n")
        doubted(place, trials, lines)
    sys.stdout.write(f"{table(trials)}\n")
    return 0


def draw(tree: Path, count: int, seed: int) -> list[Mutant]:
    """Draw faults: each room gets its share of the lines, and at least some; a line gets one fault at most."""
    rooms: dict[str, list[list[Mutant]]] = defaultdict(list)
    for path in files(tree):
        by_line: dict[int, list[Mutant]] = defaultdict(list)
        for mutant in mutants_of(tree, path):
            by_line[mutant.line].append(mutant)
        for group in by_line.values():
            rooms[group[0].room].append(group)
    total = sum(map(len, rooms.values()))
    free = max(0, count - LEAST * len(rooms))
    drawn = list[Mutant]()
    for room in sorted(rooms):
        share = LEAST + round(free * len(rooms[room]) / total)
        dice = random.Random(f"{seed} {room}")
        drawn += [dice.choice(group) for group in dice.sample(rooms[room], min(share, len(rooms[room])))]
    return drawn


def equivalents() -> set[tuple[str, str, str]]:
    """Return the faults of ``equivalent.toml``: file, function, and text before and after."""
    rows = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text("utf-8"))["fault"]
    return {(row["file"], row["function"], row["what"]) for row in rows}


def tried(place: Place, trial: Trial, lines: Lines) -> None:
    """Run a trial's tests, but for those that fail without a fault too."""
    tests = [test for test in trial.tests if test not in trial.refused]
    if not tests:
        trial.state = NOT_COVERED
        return
    limit = START_S + round(sum(lines.seconds[test] for test in tests))
    child = place.begin(tests, limit, trial.mutant)
    trial.state, failed = place.end(child, PATIENCE * limit, trial.mutant)
    trial.killer = failed[0] if failed else ""


def doubted(place: Place, trials: list[Trial], lines: Lines) -> None:
    """Run each test that noticed a fault on the source as it is; where it fails too, try again without it."""
    killers = sorted({trial.killer for trial in trials if trial.state == KILLED} & lines.seconds.keys())
    if not killers:
        return
    limit = START_S + round(sum(lines.seconds[test] for test in killers))
    _, failed = place.end(place.begin(killers, limit, None, first=False), PATIENCE * limit, None)
    for trial in trials:
        while trial.killer in failed:
            trial.refused |= {*failed}
            tried(place, trial, lines)


def told(trial: Trial) -> str:
    """Write a trial as a line."""
    mutant = trial.mutant
    ran = f"{len(trial.tests)} tests by {trial.how}" + (f": {', '.join(trial.tests[:3])}" if trial.tests else "")
    end = trial.killer or ran if trial.state == KILLED else ran
    return f"{mutant.path}:{mutant.line} [{trial.state}] {mutant.what} ({end})"


def table(trials: list[Trial]) -> str:
    """Write the score of each room, and the faults that no test noticed."""
    states = (KILLED, TIMED_OUT, SURVIVED, NOT_COVERED, EQUIVALENT)
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials:
        rooms[trial.mutant.room][trial.state] += 1
        rooms["all"][trial.state] += 1

    def row(room: str) -> str:
        counts = rooms[room]
        score = 100 * (counts[KILLED] + counts[TIMED_OUT]) / max(1, counts.total() - counts[EQUIVALENT])
        return f"{room:12}" + "".join(f"{counts[state]:>12}" for state in states) + f"{score:>9.0f} %"

    def rows() -> Iterator[str]:
        yield f"{'room':12}" + "".join(f"{state:>12}" for state in states) + f"{'score':>11}"
        yield from map(row, sorted(rooms, key=lambda room: (room == "all", room)))
        yield ""
        yield from (told(trial) for trial in trials if trial.state in (SURVIVED, NOT_COVERED))

    return "\n".join(rows())


if __name__ == "__main__":
    sys.exit(main())
