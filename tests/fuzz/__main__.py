"""Run a campaign and print its table; status 1 where a reader failed.

Stop it at any time with an interrupt: the table says with which ``--first`` it goes on.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
import time
from pathlib import Path

from fuzz.campaign import FAULTS, files_of, run
from fuzz.seeds import corpus


def main() -> int:
    """Run the cases, keep those that are faults, and print a row per kind."""
    parser = argparse.ArgumentParser("fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="cases (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", help="only seeds of this kind")
    parser.add_argument("--keep", type=Path, help="folder for the files of each fault")
    options = parser.parse_args()
    seeds = [seed for seed in corpus() if options.kind in (None, seed.kind)]
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    started = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        for outcome in run(options.seed, range(options.first, options.first + options.count), options.workers, seeds):
            table[outcome.kind][outcome.state] += 1
            if (done := sum(counts.total() for counts in table.values())) % 500 == 0:
                sys.stderr.write(f"{done} cases, {time.monotonic() - started:.0f} s\n")
            if outcome.state in FAULTS:
                sys.stdout.write(f"{outcome.number} {outcome.kind} {outcome.state}: {outcome.said[:1500]}\n")
                sys.stdout.flush()
                if options.keep is not None:
                    _, files = files_of(seeds, options.seed, outcome.number)
                    place = options.keep / f"{outcome.kind}-{options.seed}-{outcome.number}"
                    place.mkdir(parents=True, exist_ok=True)
                    for name, data in files.items():
                        (place / name).write_bytes(data)
    states = ("read", "refused", *FAULTS)
    sys.stdout.write(f"{'kind':10}" + "".join(f"{state:>11}" for state in states) + "\n")
    total: collections.Counter[str] = collections.Counter()
    for kind, counts in sorted(table.items()):
        sys.stdout.write(f"{kind:10}" + "".join(f"{counts[state]:11}" for state in states) + "\n")
        total.update(counts)
    sys.stdout.write(f"{'all':10}" + "".join(f"{total[state]:11}" for state in states) + "\n")
    done = options.first + total.total()
    sys.stdout.write(f"cases {options.first} to {done - 1}, seed {options.seed}, {time.monotonic() - started:.0f} s\n")
    if total.total() < options.count:
        sys.stdout.write(f"stopped; --first {max(done - options.workers, 0)} goes on\n")  # cases may end out of order
    return int(any(total[state] for state in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
