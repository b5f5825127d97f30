"""``edgecnn scale``."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli.options import add_json, add_numbers, positive
from edgecnn.cli.printing import command, listed, print_document, print_json, table
from edgecnn.cli.streams import write_result

if TYPE_CHECKING:
    from edgecnn.lab.accuracy import Plan, Scored
    from edgecnn.models.scaling import Compound

HELP = "compound scaling: depth, width and resolution together"
EXAMPLES = (
    "edgecnn scale show --family efficientnet_b0 --phi 1",
    "edgecnn scale fit --family mobilenet_v2 --max-sram-kib 320 --device cortex-m7",
    "edgecnn scale show --alpha 1.3 --beta 1 --gamma 1.1",
    "edgecnn scale law",
    "edgecnn scale law --family efficientnet_b0 -o law.svg",
    "edgecnn scale fit --max-macs 3e8",
    "edgecnn scale search --seeds 2 --epochs 3",
    "edgecnn scale search --base resnet18_0.25_48 --step 0.2 -o search",
    "edgecnn scale study --doublings 1 --epochs 3",
    "edgecnn scale study --data images -o study",
)
BUDGETS = {
    "macs": "multiply-accumulates; needs no device",
    "instructions": "of one inference",
    "ms": "of one inference: measured, or estimated where the device counts instructions",
    "sram_kib": "memory for activations",
    "flash_kib": "memory for weights and code",
}
BASE = "resnet18_0.25_48"  # learns most in a minute of one core, and rounding leaves its costs near the rule's
DOUBLINGS = 2
COEFFICIENTS = ("alpha", "beta", "gamma")
MILLIONS = ("predicted_macs", "macs", "parameters")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show, law, fit, search, study = (
        actions.add_parser(name, help=said, description=said)
        for name, said in (
            ("show", "what the rule makes of a family, beside the published members"),
            ("law", "MACs while one axis alone grows, and the fitted exponents"),
            ("fit", "the largest member of a family that fits a budget"),
            ("search", "alpha, beta and gamma for a base of your own: a grid at twice its cost, by short trainings"),
            ("study", "accuracy against MACs: depth, width or resolution alone, and all together, by short trainings"),
        )
    )
    show.add_argument("--phi", type=float, metavar="PHI", help="the model at this exponent, too; may be below 0")
    _add_family(show)
    _add_rule(show)
    add_json(show)
    _add_family(law)
    law.add_argument("-o", "--output", type=Path, metavar="FILE.svg", help="draw the plot")
    add_json(law)
    _add_family(fit)
    _add_rule(fit)
    fit.add_argument(
        "--axis", choices=["compound", "depth", "width", "resolution"], default="compound",
        help="let one axis alone grow (default compound: all three)",
    )  # fmt: skip
    add_numbers(fit, ("classes", positive, "of your data (default: the family's own): a head of 1,000 is large"))
    fit.add_argument("--device", metavar="NAME", help="measure the int8 models there")
    fit.add_argument("--target", metavar="NAME", help="format to measure in (default: the device's first)")
    budget = fit.add_mutually_exclusive_group(required=True)
    for figure, what in BUDGETS.items():
        budget.add_argument(f"--max-{figure.replace('_', '-')}", type=float, metavar="N", help=what)
    add_json(fit)
    _add_trainings(search, folder="scale-search")
    search.add_argument("--step", type=float, default=0.1, metavar="X", help="between grid points (default 0.1)")
    search.add_argument(
        "--tolerance", type=float, default=0.05, metavar="SHARE",
        help="of alpha * beta^2 * gamma^2 = 2 (default 0.05: 1.9 to 2.1)",
    )  # fmt: skip
    _add_trainings(study, folder="scale-study")
    _add_rule(study)
    study.add_argument(
        "--doublings", type=positive, default=DOUBLINGS, metavar="N",
        help=f"of the base's MACs along each curve (default {DOUBLINGS})",
    )  # fmt: skip


def _add_trainings(parser: argparse.ArgumentParser, *, folder: str) -> None:
    """Add what short trainings need; the figures that are not given are as ``accuracy.Plan`` says."""
    parser.add_argument("--base", default=BASE, metavar="MODEL", help=f"what is made larger (default {BASE})")
    parser.add_argument(
        "--data", default="demo", metavar="DIR|FILE.npz|demo", help="as of `edgecnn train` (default demo)"
    )
    add_numbers(
        parser,
        ("epochs", positive, "of each training"),
        ("batch", positive, "images per step"),
        ("lr", float, "peak learning rate"),
        ("images", positive, "training images of the demo data"),
        ("val-images", positive, "held-out images of the demo data"),
        ("seeds", positive, "trainings of each model; of one, nothing tells chance from difference"),
        ("workers", positive, "processes (default: one for each core)"),
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(folder), metavar="DIR",
        help=f"results, plot, and each training's result: the same command goes on from them (default {folder})",
    )  # fmt: skip
    add_json(parser)


def _add_family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--family", default="efficientnet_b0", metavar="NAME", help="what is scaled (default efficientnet_b0)"
    )


def _add_rule(parser: argparse.ArgumentParser) -> None:
    for name, default, axis in (("alpha", 1.2, "depth"), ("beta", 1.1, "width"), ("gamma", 1.15, "resolution")):
        said = f"{axis} per unit of phi (default {default})"
        parser.add_argument(f"--{name}", type=float, default=default, help=said)


def _rule(options: argparse.Namespace) -> Compound:
    from edgecnn.models.scaling import Compound

    return Compound(alpha=options.alpha, beta=options.beta, gamma=options.gamma)


def run(options: argparse.Namespace) -> int:
    """Run one action."""
    return {"show": _show, "law": _law, "fit": _fit, "search": _search, "study": _study}[options.action](options)


def _show(options: argparse.Namespace) -> int:
    from edgecnn.lab.compound import published, scalable, scaled

    rule = _rule(options)
    scalable(options.family)
    one = None if options.phi is None else asdict(scaled(options.family, rule, options.phi))
    beside = published(options.family, rule)
    members = [asdict(member) for member in beside]
    if options.json:
        print_json(options, {**asdict(rule), "cost": rule.cost, "scaled": one, "published": members})
        return 0
    write_result(
        f"alpha {rule.alpha:g}, beta {rule.beta:g}, gamma {rule.gamma:g}; alpha * beta^2 * gamma^2 = {rule.cost:.4f}"
    )
    parts = {
        f"the rule on {options.family} at phi {options.phi or 0:g}:": [one] if one else [],
        "the published members, beside the rule at the nearest phi:": members,
    }
    for said, rows in parts.items():
        if rows:
            write_result(said)
            table([{k: _figure(k, v) for k, v in row.items()} for row in rows], right=list(rows[0])[1:])
    if beside:
        most = max(member.off for member in beside)
        write_result(f"their authors rounded by hand: no multiplier is farther than {most:.1%} from the rule")
    return 0


def _law(options: argparse.Namespace) -> int:
    from edgecnn.files import write_atomic
    from edgecnn.lab.compound import law, law_chart

    growths = law(options.family)
    if options.output is not None:
        write_atomic(options.output, law_chart(options.family, growths).encode())
    rows = [
        {
            "axis": g.axis,
            "exponent": f"{g.exponent:.3f}",
            "theory": f"{g.theory:g}",
            "M MACs at factor": ", ".join(f"{factor:g}: {macs / 1e6:.1f}" for factor, macs in g.points),
        }
        for g in growths
    ]
    return listed([asdict(growth) for growth in growths], rows, options, right=("exponent", "theory"))


def _fit(options: argparse.Namespace) -> int:
    from edgecnn.lab.fit import Budget, along, export_command, fit, measured, target_on, written
    from edgecnn.progress import Terminal

    figure, most = next((f, getattr(options, f"max_{f}")) for f in BUDGETS if getattr(options, f"max_{f}") is not None)
    budget = Budget(figure=figure, most=most, device=options.device)
    rule = along(_rule(options), options.axis)
    target = options.target or target_on(budget)
    measure = partial(measured, budget=budget, target=target)
    found = fit(options.family, rule, budget, measure, Terminal().say, options.classes)
    command = export_command(found.chosen.model, target, budget)
    if options.json:
        print_json(options, {**asdict(found), "export": command})
        return 0
    rows = [
        {
            "model": c.model,
            "phi": f"{c.phi:g}",
            "M MACs": f"{c.macs / 1e6:.1f}",
            figure: "-" if c.value is None else written(c.value),
            "fits": "yes" if c.fits else f"no {c.reason}".strip(),
        }
        for c in found.frontier
    ]
    table(rows, right=("phi", "M MACs", figure))
    if found.largest:
        write_result("the family's largest fits: the budget leaves room")
    write_result(f"chosen: {found.chosen.model}")
    write_result(command, command=True)
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    from edgecnn.lab.accuracy import Plan

    given = {f.name: v for f in fields(Plan) if (v := getattr(options, f.name, None)) is not None}
    return Plan(folder=options.output, **given)


def _search(options: argparse.Namespace) -> int:
    from edgecnn.lab.search import chart, grid, search, verdict
    from edgecnn.progress import Terminal

    plan, say = _plan(options), Terminal().say
    base = plan.base(options.base)
    compared = grid(base, options.step, options.tolerance)
    say(f"{len(compared.points)} models of twice the cost of {base.name}: {plan.seeds} trainings of each and of it")
    if compared.unequal:
        say(
            f"left out: {len(compared.unequal)} grid points that rounding makes {compared.unequal[0]:.2f} to "
            f"{compared.unequal[-1]:.2f} times as costly as the base, not 2"
        )
    found = search(base, compared.points, plan, say)
    rows = [
        {**asdict(point.rule), "product": point.rule.cost, "growth": point.growth, **_scored(scored)}
        for point, scored in found.ranked
    ]
    content = {"base": _scored(found.base), "ranked": rows, "margin": found.margin, "verdict": verdict(found)}
    return _kept(options, plan, content, rows, chart(base.name, found))


def _study(options: argparse.Namespace) -> int:
    from edgecnn.lab.axes import chart, models, study, verdict
    from edgecnn.progress import Terminal

    plan = _plan(options)
    base = plan.base(options.base)
    found = study(models(base, _rule(options), options.doublings), plan, Terminal().say)
    rows = [
        {"grows": curve.axis, "growth": point.macs / curve.points[0].macs, **_scored(point)}
        for curve in found.curves
        for point in curve.points
    ]
    content = {"rows": rows, "margin": found.margin, "verdict": verdict(found)}
    return _kept(options, plan, content, rows, chart(base.name, found))


def _scored(scored: Scored) -> dict[str, Any]:
    return {**asdict(scored), "top1": round(scored.top1, 3), "spread": scored.spread}


def _kept(
    options: argparse.Namespace, plan: Plan, content: dict[str, Any], rows: list[dict[str, Any]], svg: str
) -> int:
    """Write what was found beside the trainings, and print it."""
    from edgecnn.files import write_atomic, write_json
    from edgecnn.report.document import document

    content = {"trainings": plan.to_json(), **content}
    made = document(command(options), content)
    write_json(options.output / f"{options.action}.json", made)
    write_atomic(options.output / f"{options.action}.svg", svg.encode())
    if options.json:
        print_document(made)
        return 0
    shown = [{k: _figure(k, v) for k, v in row.items()} for row in rows]
    table(shown, right=[k for k in rows[0] if k not in ("model", "grows", "runs")])
    for line in (*content["verdict"], f"{options.output / options.action}.svg"):
        write_result(line)
    return 0


def _figure(key: str, value: Any) -> str:
    if key == "runs":
        return ", ".join(f"{top1:.1f}" for top1 in value)
    if key in ("growth", "top1", "spread", "product"):
        return "-" if value is None else f"{value:.2f}"
    if key in MILLIONS:
        return f"{value / 1e6:.1f} M"
    return str(value) if not isinstance(value, float) else f"{value:{'.4g' if key in COEFFICIENTS else '.3f'}}"
