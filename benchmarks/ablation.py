"""What each step of a recipe is worth on many networks: it is left out, one step at a time.

    python benchmarks/ablation.py --out FOLDER --recipes fast:5 [options of zoo.py]

Networks, images and results are those of `zoo.py`, and lie in the same folder: the whole recipe is measured once for
both. A step that a recipe needs gives way to its plain form: ranges become min-max. No peer is run.
"""

from __future__ import annotations

import os
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rows import Row, in_process, kept, machine
from zoo import arguments, prepare, quantize, recipes_of, sources, sources_digest

import edgecnn

IDLE = ("int16_promotion",)  # with nothing to keep in 16 bits they do nothing
WHOLE = ""  # in place of the step that is left out


def ablations(recipe: edgecnn.Recipe) -> dict[str, edgecnn.Recipe]:
    """Return the recipe without each of its steps, or with its plain form; without some there is no recipe."""
    found = {}
    for at, step in enumerate(recipe.steps):
        name = f"{recipe.name}-without-{step.name}"
        plain = step.plain()
        try:
            less = replace(recipe, name=name, steps=recipe.steps[:at] + recipe.steps[at + 1 :])
        except edgecnn.InputError:
            if plain is None or plain == step:
                continue
            less = replace(recipe, name=name, steps=(*recipe.steps[:at], plain, *recipe.steps[at + 1 :]))
        if step.name not in IDLE:
            found[step.name] = less
    return found


def measured(options: Namespace) -> Iterable[Row]:
    """Yield a row of each network, seed and step that is left out, as they are made, and say each on stderr."""
    from edgecnn.quant.recipe import recipe as named

    code = sources_digest()
    for source in sources(options):
        folder = options.out / source.name
        folder.mkdir(parents=True, exist_ok=True)
        network = kept(folder / "network.json", [source.digest, code], partial(in_process, prepare, source, folder))
        for text, seeds in recipes_of(options.recipes):
            whole = named(text)
            for seed in range(seeds):
                for step, recipe in {WHOLE: whole, **ablations(whole)}.items():
                    key = [network["digest"], code, recipe.to_json(), seed]
                    job = partial(quantized, folder, source.name, recipe if step else text, seed)
                    row = kept(folder / "rows" / f"{recipe.name}-{seed}.json", key, job)
                    print(f"{source.name}, {recipe.name}-{seed}: {row['sqnr_db']:.1f} dB", file=sys.stderr, flush=True)
                    yield {**row, "network": source.name, "tool": whole.name, "step": step, "seed": seed}


def quantized(folder: Path, name: str, recipe: str | edgecnn.Recipe, seed: int) -> Row:
    """Measure the whole recipe, named, as `zoo.py` does; any other in this process, whose CPU seconds say nothing."""
    if isinstance(recipe, str):
        return in_process(quantize, folder, name, recipe, seed)
    row = quantize(folder, name, recipe, seed)
    return {key: value for key, value in row.items() if key not in ("wall_s", "cpu_s", "peak_mib")}


def table(rows: Iterable[Row]) -> str:
    """Return a table of each recipe: by how many dB SQNR falls without a step, median of the seeds; step by network."""
    found: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    for row in rows:
        seeds = found.setdefault(row["tool"], {}).setdefault(row["step"], {}).setdefault(row["network"], {})
        seeds[row["seed"]] = row["sqnr_db"]
    lines = []
    for tool, steps in found.items():
        whole = steps[WHOLE]
        lines += [f"| `{tool}`, dB | {' | '.join(whole)} |", "|---" * (len(whole) + 1) + "|"]
        cells = [f"{statistics.median(seeds.values()):.1f} (seeds: {len(seeds)})" for seeds in whole.values()]
        lines.append(f"| the whole recipe | {' | '.join(cells)} |")
        for step, networks in steps.items():
            if step:
                cells = [_worth(seeds, networks.get(name, {})) for name, seeds in whole.items()]
                lines.append(f"| {step} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _worth(whole: dict[int, float], without: dict[int, float]) -> str:
    return f"{statistics.median(whole[seed] - without[seed] for seed in without):+.1f}" if without else "-"


def main() -> None:
    """Measure and print the tables."""
    options = arguments(__doc__).parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = list(measured(options))
    print(f"{datetime.now(UTC):%Y-%m-%d}, edgecnn {edgecnn.__version__}, {machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
