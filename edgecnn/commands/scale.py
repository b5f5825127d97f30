"""``edgecnn scale``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgecnn.commands.options import add_json
from edgecnn.commands.tables import print_json, table

HELP = "compound scaling: depth, width and resolution together"
BUDGETS = {
    "macs": "multiply-accumulates; needs no device",
    "instructions": "of one inference",
    "ms": "of one inference: measured, or estimated where the device counts instructions",
    "sram_kib": "memory for activations",
    "flash_kib": "memory for weights and code",
}
MILLIONS = ("predicted_macs", "macs", "parameters")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    said = "what the rule makes of a family, beside the published members"
    show = actions.add_parser("show", help=said, description=said)
    show.add_argument("--phi", type=float, metavar="PHI", help="the model at this exponent, too; may be below 0")
    _add_family(show)
    _add_rule(show)
    add_json(show)
    said = "MACs while one axis alone grows, and the fitted exponents"
    law = actions.add_parser("law", help=said, description=said)
    _add_family(law)
    law.add_argument("-o", "--output", type=Path, metavar="FILE.svg", help="draw the plot")
    add_json(law)
    said = "the largest member of a family that fits a budget"
    fit = actions.add_parser("fit", help=said, description=said)
    _add_family(fit)
    _add_rule(fit)
    fit.add_argument(
        "--axis", choices=["compound", "depth", "width", "resolution"], default="compound",
        help="let one axis alone grow (default compound: all three)",
    )  # fmt: skip
    fit.add_argument("--device", metavar="NAME", help="measure the int8 models there")
    fit.add_argument("--target", metavar="NAME", help="format to measure in (default: the device's first)")
    budget = fit.add_mutually_exclusive_group(required=True)
    for figure, what in BUDGETS.items():
        budget.add_argument(f"--max-{figure.replace('_', '-')}", type=float, metavar="N", help=what)
    add_json(fit)


def _add_family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--family", default="efficientnet_b0", metavar="NAME", help="what is scaled (default efficientnet_b0)"
    )


def _add_rule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alpha", type=float, default=1.2, help="depth per unit of phi (default 1.2)")
    parser.add_argument("--beta", type=float, default=1.1, help="width per unit of phi (default 1.1)")
    parser.add_argument("--gamma", type=float, default=1.15, help="resolution per unit of phi (default 1.15)")


def run(options: argparse.Namespace) -> int:
    """One action."""
    return {"show": _show, "law": _law, "fit": _fit}[options.action](options)


def _show(options: argparse.Namespace) -> int:
    from edgecnn.models.scaling import Compound
    from edgecnn.study.compound import published, scalable, scaled

    rule = Compound(alpha=options.alpha, beta=options.beta, gamma=options.gamma)
    scalable(options.family)
    one = None if options.phi is None else asdict(scaled(options.family, rule, options.phi))
    members = [asdict(member) for member in published(options.family, rule)]
    if options.json:
        print_json({**asdict(rule), "cost": rule.cost, "scaled": one, "published": members})
        return 0
    sys.stdout.write(
        f"alpha {rule.alpha:g}, beta {rule.beta:g}, gamma {rule.gamma:g}; alpha * beta^2 * gamma^2 = {rule.cost:.4f}\n"
    )
    for rows in filter(None, ([one] if one else [], members)):
        table([{k: _figure(k, v) for k, v in row.items()} for row in rows], right=list(rows[0])[1:], to=sys.stdout)
    return 0


def _law(options: argparse.Namespace) -> int:
    from edgecnn.files import write_atomic
    from edgecnn.study.compound import law, law_chart

    growths = law(options.family)
    if options.output is not None:
        write_atomic(options.output, law_chart(options.family, growths).encode())
    if options.json:
        print_json([asdict(growth) for growth in growths])
        return 0
    rows = [
        {
            "axis": g.axis,
            "exponent": f"{g.exponent:.3f}",
            "theory": f"{g.theory:g}",
            "M MACs at factor": ", ".join(f"{factor:g}: {macs / 1e6:.1f}" for factor, macs in g.points),
        }
        for g in growths
    ]
    table(rows, right=("exponent", "theory"), to=sys.stdout)
    return 0


def _fit(options: argparse.Namespace) -> int:
    from edgecnn.models.scaling import Compound
    from edgecnn.progress import Stopwatch
    from edgecnn.study.fit import Budget, along, export_command, fit, measure_of, target_on

    figure, most = next((f, getattr(options, f"max_{f}")) for f in BUDGETS if getattr(options, f"max_{f}") is not None)
    budget = Budget(figure=figure, most=most, device=options.device)
    rule = along(Compound(alpha=options.alpha, beta=options.beta, gamma=options.gamma), options.axis)
    target = options.target or target_on(budget)
    found = fit(options.family, rule, budget, measure_of(budget, target), Stopwatch().say)
    command = export_command(found.chosen.model, target, budget)
    if options.json:
        print_json({**asdict(found), "export": command})
        return 0
    rows = [
        {
            "model": c.model,
            "phi": f"{c.phi:g}",
            "M MACs": f"{c.macs / 1e6:.1f}",
            figure: "-" if c.value is None else f"{c.value:,.6g}",
            "fits": "yes" if c.fits else f"no {c.reason}".strip(),
        }
        for c in found.frontier
    ]
    table(rows, right=("phi", "M MACs", figure), to=sys.stdout)
    if found.largest:
        sys.stdout.write("the family's largest fits: the budget leaves room\n")
    sys.stdout.write(f"chosen: {found.chosen.model}\n{command}\n")
    return 0


def _figure(key: str, value: Any) -> str:
    return f"{value / 1e6:.1f} M" if key in MILLIONS else f"{value:.3f}" if isinstance(value, float) else str(value)
