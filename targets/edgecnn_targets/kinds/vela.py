"""Devices of kind ``vela``: an Arm Ethos-U as its compiler Vela sees it: it compiles, computes and executes nothing.

The compiled artifact is kept beside the original as ``NAME.DEVICE.tflite``, with a manifest. Cycles and milliseconds
are Vela's estimate for the memories and the clock of its system configuration (``Arm/vela.ini``, which Vela brings).
Accuracy is not among its figures: what the same integers score on another device is the nearest there is.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from edgecnn.artifact import ConvertedModel, read_manifest, write_artifact
from edgecnn.errors import DeviceFault, UnsupportedError
from edgecnn.files import scratch
from edgecnn.graph.ir import Metadata
from edgecnn.process import run
from edgecnn.report.evidence import LayerCost
from edgecnn.report.record import Resources
from edgecnn_targets.interface import Arrays, Description, Device, Kind, Op, Runtime, Session, Usage
from edgecnn_targets.runtimes import litert

VELA = (sys.executable, "-m", "ethosu.vela")
TIMEOUT_S = 300.0
CONFIGURATION = "Arm/vela.ini"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options that Vela is given.

    Attributes:
        accelerator: the NPU with its number of multiply-accumulate units, ``ethos-u55-128``.
        system_config: clock and memories, a section of ``Arm/vela.ini``.
        memory_mode: which memory holds what, a section of the same.
    """

    accelerator: str
    system_config: str
    memory_mode: str


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """The result of Vela's compilation of an artifact.

    Attributes:
        layers: Vela's rows, in execution order, without those that it fused into the one before.
        on_cpu: tensor name of each op that stays on the CPU, to Vela's reason.
        clock_mhz: of the system configuration.
        has_flash: whether weights are in flash there; else they are in DRAM.
    """

    data: bytes
    resources: Resources
    layers: tuple[LayerCost, ...]
    on_cpu: Mapping[str, str]
    clock_mhz: float
    has_flash: bool


class VelaSession(Session):
    """A compiled artifact; see ``Session``. It cannot be run."""

    def __init__(self, description: Description, compilation: Compilation) -> None:
        super().__init__(description)
        self.compilation = compilation

    def execute(self, batch: Arrays) -> Arrays:
        """Raise ``UnsupportedError``: nothing is executed."""
        raise UnsupportedError(
            "Vela computes what an NPU takes; it does not run images: validate on another device too"
        )


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> VelaSession:
    """Compile an artifact and write the result beside it.

    Raises:
        InputError: the artifact is not a TFLite file, or the place cannot be written.
    """
    original = litert.LiteRtSession(artifact, kernels="reference")
    made = _compile(device, artifact, original.ops)
    write(device, artifact, made, original)
    ops = tuple(replace(op, requested_kernels=op.name not in made.on_cpu) for op in original.ops)
    return VelaSession(replace(original.description, ops=ops, findings=_findings(device, made, ops)), made)


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs Vela, or ``None`` when it is there."""
    return None if find_spec("ethosu") and runtime.missing() is None else "pip install 'edgecnn[npu]'"


def measure(device: Device, session: VelaSession) -> Usage:
    """Return what Vela computed when it compiled."""
    return Usage(resources=session.compilation.resources)


def layers(device: Device, runtime: Runtime, artifact: Path) -> list[LayerCost]:
    """Return what each op costs and what runs it; raises as ``open_session`` does."""
    return list(_compile(device, artifact, litert.LiteRtSession(artifact, kernels="reference").ops).layers)


def write(device: Device, artifact: Path, made: Compilation, original: litert.LiteRtSession) -> Path:
    """Write the compiled artifact, ``NAME.DEVICE.tflite``, and its manifest beside the original; return its path.

    Raises:
        InputError: the place cannot be written, or the original's manifest is not its own.
    """
    manifest = read_manifest(artifact, "tflite")
    precision = manifest.precision if manifest else "int8" if original.inputs[0].scale is not None else "fp32"
    emission = ConvertedModel(
        target="tflite",
        precision=precision,
        files={".tflite": made.data},
        inputs=original.inputs,
        outputs=original.outputs,
    )
    about = manifest.metadata if manifest else Metadata(model=artifact.stem)
    made_by = ("edgecnn", "ethos-u-vela")
    return write_artifact(artifact.parent, f"{artifact.stem}.{device.name}", emission, about, made_by)


def _compile(device: Device, artifact: Path, ops: Sequence[Op]) -> Compilation:
    settings: Settings = device.settings
    with scratch() as folder:
        chip = ("--accelerator-config", settings.accelerator, "--config", CONFIGURATION)
        memory = ("--system-config", settings.system_config, "--memory-mode", settings.memory_mode)
        words = (*VELA, artifact.absolute(), *chip, *memory, "--output-dir", folder, "--verbose-performance")
        said = run(words, timeout_s=TIMEOUT_S, cwd=Path(folder))
        stem = folder / artifact.stem
        try:
            data = Path(f"{stem}_vela.tflite").read_bytes()
            summary = _rows(f"{stem}_summary_{settings.system_config}.csv")[0]
            table = _rows(f"{stem}_per-layer.csv")
            return _compilation(data, summary, table, said, ops)
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise DeviceFault(f"Vela ended well but left other files than it should ({error!r})") from None


def _compilation(
    data: bytes, summary: Mapping[str, str], table: Sequence[Mapping[str, str]], said: str, ops: Sequence[Op]
) -> Compilation:
    kinds = {op.name: op.kind for op in ops}
    reasons = dict(re.findall(r"^Warning .*ofm: '(.*)'\nReason: (.*)$", said, re.MULTILINE))
    on_cpu = {row["Name"]: reasons.get(row["Name"], "Vela does not say why") for row in table if row["Target"] == "CPU"}
    outside = sum(op.name in on_cpu for op in ops)
    has_flash = "Flash" in summary["weights_storage_area"]
    holding = ("on_chip_flash", "off_chip_flash") if has_flash else ("dram",)
    coverage = 100 * (len(ops) - outside) / len(ops)
    resources = Resources(npu_coverage=coverage)
    if coverage:  # else Vela's figures are all 0
        resources = Resources(
            cycles=int(float(summary["cycles_total"])),
            sram_kib=float(summary["sram_memory_used"]),
            flash_kib=sum(float(summary[f"{place}_memory_used"]) for place in holding),
            npu_coverage=coverage,
            estimated_ms=1000 * float(summary["inference_time"]),
        )
    rows = tuple(
        LayerCost(
            op=kinds.get(row["Name"], row["Original Operator"]),
            name=row["Name"],
            cycles=int(row["Op Cycles"]) if row["Target"] == "NPU" else None,
            place=row["Target"],
        )
        for row in table
        if not _fused(row)
    )
    mhz = float(summary["core_clock"]) / 1e6
    return Compilation(data=data, resources=resources, layers=rows, on_cpu=on_cpu, clock_mhz=mhz, has_flash=has_flash)


def _fused(row: Mapping[str, str]) -> bool:
    """Return whether Vela made this op (``Relu6``) a part of the one before."""
    return row["Target"] == "NPU" and row["NNG Operator"] != row["Original Operator"] and int(row["Op Cycles"]) == 0


def _rows(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text("utf-8").splitlines()))


def _findings(device: Device, made: Compilation, ops: Sequence[Op]) -> tuple[str, ...]:
    settings: Settings = device.settings
    said = [
        f"cycles and milliseconds are Vela's estimate for {settings.system_config}, {settings.memory_mode}, "
        f"{made.clock_mhz:g} MHz; accuracy is not measured there: validate the same integers on host"
    ]
    if not made.has_flash:
        said.append(f"{settings.system_config} has no flash: flash_kib is its DRAM, which holds the weights")
    outside = [op for op in ops if op.name in made.on_cpu]
    if outside:
        why = "; ".join(f"{op}: {made.on_cpu[op.name]}" for op in outside[:3])
        more = f"; and {len(outside) - 3} more" if len(outside) > 3 else ""
        said.append(f"the CPU runs {len(outside)} of {len(ops)} ops, which no cycle here counts ({why}{more})")
    return tuple(said)


KIND = Kind(
    figures=("cycles", "sram_kib", "flash_kib", "npu_coverage"),
    open_session=open_session,
    missing=missing,
    measure=measure,
    layers=layers,
    settings=Settings,
    start_s=1.0,
    slowdown=0.0,
)
