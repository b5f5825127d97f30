"""``edgecnn scale fit``: the largest that fits, the frontier, and what is said where nothing fits."""

from __future__ import annotations

import json

import pytest

from edgecnn.cli import main
from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn.lab.fit import Budget, along, candidates, export_command, figure_of, fit
from edgecnn.models import resolve
from edgecnn.models.count import Size, size_of
from edgecnn.models.scaling import Compound
from edgecnn.report.record import Check, Finding, Latency, ReportEntry, Resources

RULE = Compound()
FAMILY = "resnet20"


@pytest.fixture
def uncounted(monkeypatch):
    """MACs of large members take long to count; what is searched for here is another figure."""
    monkeypatch.setattr("edgecnn.lab.fit.size_of", lambda spec: Size(parameters=1, macs=1, activations=1))


def quiet(line):
    """Nobody at the terminal."""


def pixels(spec):
    """A figure that is quick to find out and grows with phi."""
    return float(spec.resolution**2)


def entry(**fields):
    """A report of a device."""
    return ReportEntry(
        model="m", target="tflite", device="cortex-a72", artifact="a", size_bytes=1, precision="int8", **fields
    )


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("most", [32**2, 50**2, 100**2])
def test_the_largest_that_fits_is_found(most):
    found = fit(FAMILY, RULE, Budget(figure="macs", most=most), pixels, quiet)
    fitting = [(phi, spec.name) for phi, spec in candidates(FAMILY, RULE) if pixels(spec) <= most]
    assert (found.chosen.phi, found.chosen.model) == fitting[-1]
    assert all(c.fits == (c.value <= most) for c in found.frontier)
    assert [c.phi for c in found.frontier] == sorted(c.phi for c in found.frontier)
    assert len(found.frontier) < 14
    assert not found.largest


@pytest.mark.usefixtures("uncounted")
def test_a_budget_without_end_takes_the_largest():
    found = fit(FAMILY, RULE, Budget(figure="macs", most=1e12), pixels, quiet)
    assert found.largest
    assert found.chosen.phi == candidates(FAMILY, RULE)[-1][0]


@pytest.mark.usefixtures("uncounted")
def test_nothing_fits():
    with pytest.raises(InputError, match=r"the smallest, .*_32, takes 1,024 macs, 2\.00 times the budget of 512"):
        fit(FAMILY, RULE, Budget(figure="macs", most=512), pixels, quiet)


@pytest.mark.usefixtures("uncounted")
def test_what_cannot_run_does_not_fit():
    def measure(spec):
        if spec.resolution > 64:
            raise UnsupportedError("flash_kib 3000 > 2048")
        return pixels(spec)

    found = fit(FAMILY, RULE, Budget(figure="macs", most=1e6), measure, quiet)
    assert resolve(found.chosen.model).resolution == 64
    assert {c.reason for c in found.frontier if not c.fits} == {"flash_kib 3000 > 2048"}


@pytest.mark.parametrize("axis", ["depth", "width", "resolution"])
def test_one_axis_alone(axis):
    made = [spec for _, spec in candidates("resnet20", along(RULE, axis))]
    for other in {"depth", "width", "resolution"} - {axis}:
        assert len({getattr(spec, other) for spec in made}) == 1
    assert len({getattr(spec, axis) for spec in made}) == len(made) > 3


def test_the_command_prints_a_model_and_the_export(capfd):
    assert main(["scale", "fit", "--family", FAMILY, "--max-macs", "60e6", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    chosen = found["chosen"]
    assert chosen["macs"] == chosen["value"] == size_of(resolve(chosen["model"])).macs <= 60e6
    larger = next(c for c in found["frontier"] if c["phi"] > chosen["phi"])
    assert larger["macs"] > 60e6
    words = found["export"].split()
    assert words[:3] == ["edgecnn", "export", chosen["model"]]


def test_the_export_is_held_to_the_budget():
    budget = Budget(figure="instructions", most=60e6, device="cortex-a72")
    assert export_command("m", "tflite", budget).endswith("--device cortex-a72 --max-instructions 60000000")
    estimate = Budget(figure="ms", most=3, device="cortex-a72")
    assert export_command("m", "tflite", estimate).endswith("--device cortex-a72")
    measured = Budget(figure="ms", most=3, device="host")
    assert export_command("m", "tflite", measured).endswith("--device host --max-latency-ms 3")


def test_the_figure_in_a_report():
    latency, resources = Latency(instructions=7), Resources(estimated_ms=2.5)
    both = entry(latency=latency, resources=resources)
    assert figure_of(both, Budget(figure="instructions", most=1, device="cortex-a72")) == 7
    assert figure_of(both, Budget(figure="ms", most=1, device="cortex-a72")) == 2.5
    budget = Budget(figure="instructions", most=1, device="cortex-m7")
    with pytest.raises(DeviceFault, match="it hung"):
        figure_of(
            entry(
                checks=(Check.at_most("device_faults", 1, 0, "faults"),),
                findings=(Finding(code="device_fault", text="it hung"),),
            ),
            budget,
        )
    with pytest.raises(UnsupportedError, match="flash_kib"):
        figure_of(entry(checks=(Check.at_most("flash_kib", 3000, 2048, "KiB"),)), budget)
    with pytest.raises(InputError, match="did not find out instructions"):
        figure_of(entry(), budget)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-instructions", "60e6"], "needs --device NAME; without one there is --max-macs"),
        (["--max-instructions", "60e6", "--device", "host"], "host does not find out instructions"),
        (["--max-macs", "-1"], "give a number above 0"),
        (["--max-macs", "1e3"], "nothing fits: the smallest, "),
        (["--max-macs", "1e6", "--family", "alexnet"], "alexnet has no scaling rules"),
    ],
)
def test_budgets_that_cannot_be(capfd, words, said):
    assert main(["scale", "fit", "--family", FAMILY, *words]) == 2
    assert said in capfd.readouterr().err


def test_a_model_that_no_memory_holds_does_not_fit(monkeypatch, capfd):
    monkeypatch.setattr("edgecnn.allocator.os.sysconf", lambda name: 2**10)  # 1 MiB
    words = ["--family", FAMILY, "--device", "cortex-a72", "--max-instructions", "1e9"]
    assert main(["scale", "fit", *words]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "nothing fits: not even the smallest, resnet20_" in said
    assert "needs at least 0.0 GiB of memory; there are 0.0" in said


def test_the_classes_are_those_of_the_data(capfd):
    phi, few = candidates("mobilenet_v2", RULE, 16)[0]
    assert few.num_classes == 16
    words = ["scale", "fit", "--family", "mobilenet_v2", "--max-macs", str(size_of(few).macs)]
    assert main([*words, "--classes", "16", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["chosen"]["phi"] == phi
    assert main(words) == 2
    assert "nothing fits" in capfd.readouterr().err
