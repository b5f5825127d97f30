"""One result as a card: what it is, its figures, its checks, what to know, and the command that makes sense now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from edgecnn.report.record import SQNR_CEILING_DB, Check, ReportEntry

OWN = ("drop", "top1", "agreement", "sqnr_db")
"""Names of figures that a card writes in words of its own."""


def title(entry: ReportEntry) -> str:
    """Return what the entry is about: model, format, precision, device."""
    return "  ".join(filter(None, (entry.model, f"{entry.target} {entry.precision}", entry.device)))


def verdict(entry: ReportEntry) -> str:
    """Return ``passed``, how many failures there are, or ``not checked``."""
    failed = len(entry.failures)
    return f"{failed} failed" if failed else "passed" if entry.checks else "not checked"


def lines(entry: ReportEntry) -> Iterator[tuple[str, str]]:
    """Yield label and text of every figure that is known; a label may come several times."""
    if entry.artifact:
        yield "file", f"{entry.artifact}, {entry.size_bytes / 1e6:.2f} MB"
    yield from _accuracy(entry)
    if entry.parity.max_lsb is not None:
        yield "oracle", f"{entry.parity.max_lsb} LSB away, rounding of {entry.parity.arithmetic}"
    if entry.beside_host.n:
        away = "" if entry.beside_host.max_lsb is None else f"{entry.beside_host.max_lsb} LSB away"
        same = "" if entry.beside_host.agreement is None else f"agreement {entry.beside_host.agreement:.2f} %"
        yield "host", ", ".join(filter(None, (away, same, f"on {entry.beside_host.n:,} images")))
    yield from _cost(entry)


def _accuracy(entry: ReportEntry) -> Iterator[tuple[str, str]]:
    a = entry.accuracy
    if not a.n:
        return
    if a.top1 is not None:
        beside = "" if a.fp32_top1 is None else f", fp32 {a.fp32_top1:.2f} %"
        yield "accuracy", f"top-1 {a.top1:.2f} %{beside}"
    if a.drop is not None:
        low_high = "" if a.drop_ci95 is None else f" (95 %: {a.drop_ci95[0]:+.2f} to {a.drop_ci95[1]:+.2f})"
        yield "accuracy", f"drop {a.drop:+.2f} points{low_high}"
    near = [] if a.agreement is None else [f"agreement {a.agreement:.2f} %"]
    if a.sqnr_db is not None:
        near.append("outputs equal" if a.sqnr_db >= SQNR_CEILING_DB else f"SQNR {a.sqnr_db:.1f} dB")
    if near:
        yield "accuracy", f"{', '.join(near)} beside fp32"
    yield "accuracy", f"on {a.n:,} images"
    for name, value in a.metrics.items():
        if not name.startswith("fp32_"):
            exact = a.metrics.get(f"fp32_{name}")
            yield "metrics", f"{name} {value:.4g}" + ("" if exact is None else f", fp32 {exact:.4g}")


def _cost(entry: ReportEntry) -> Iterator[tuple[str, str]]:
    time, taken = entry.latency, entry.resources
    if time.median_ms is not None:
        slow = "" if time.p90_ms is None else f", p90 {time.p90_ms:.2f} ms"
        threads = "" if time.threads is None else f", {time.threads} thread{'s' if time.threads != 1 else ''}"
        yield "latency", f"{time.median_ms:.2f} ms{slow}{threads}"
    counted = [] if time.instructions is None else [f"{time.instructions / 1e6:,.1f} M instructions"]
    counted += [] if taken.cycles is None else [f"{taken.cycles / 1e6:,.2f} M cycles"]
    counted += [] if taken.estimated_ms is None else [f"{taken.estimated_ms:.2f} ms estimated"]
    if counted:
        yield "count", ", ".join(counted)
    memory = [
        f"{name} {value:,.1f} KiB"
        for name, value in (("SRAM", taken.sram_kib), ("flash", taken.flash_kib), ("heap", taken.heap_kib))
        if value is not None
    ]
    if taken.arena_bytes is not None:
        memory.append(f"arena {taken.arena_bytes:,} B")
    if memory:
        yield "memory", ", ".join(memory)
    if taken.npu_coverage is not None:
        yield "NPU", f"{taken.npu_coverage:.1f} % of the ops"


def more(entry: ReportEntry) -> Iterator[tuple[str, str]]:
    """Yield label and text of what only a person who asked for details wants."""
    for output in entry.outputs:
        sqnr = "" if output.sqnr_db is None else f"SQNR {output.sqnr_db:.2f} dB"
        away = "" if output.max_lsb is None else f"{output.max_lsb} LSB at most, {output.mean_lsb:.3g} in the mean"
        yield "output", f"{output.name}: {', '.join(filter(None, (sqnr, away)))}"
    for label, counts in (("mix", entry.resources.instruction_mix), ("misses", entry.resources.cache_misses)):
        for name, count in (counts or {}).items():
            yield label, f"{name} {count:,}"
    for name in entry.float_ops:
        yield "float op", name
    for step, seconds in entry.seconds.items():
        yield "seconds", f"{step} {seconds:.2f}"


def checks(entry: ReportEntry) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, figure, limit and verdict of every check."""
    for check in entry.checks:
        yield (
            check.name,
            _figure(check),
            f"{'<=' if check.bound == 'max' else '>='} {check.limit:g}",
            ("passed" if check.passed else "FAILED"),
        )


def _figure(check: Check) -> str:
    return "not measured" if check.value is None else f"{check.value:.4g} {check.unit}".rstrip()


def following(entry: ReportEntry, command: str) -> str:
    """Return the command that makes sense after this result."""
    artifact, codes = shlex.quote(entry.artifact or ""), {finding.code for finding in entry.findings}
    if not entry.artifact:
        return ""
    lost = "quantization_loss" in codes or any(c.name in OWN for c in entry.checks if not c.passed)
    if entry.failures and lost and entry.precision != "fp32":
        return f"edgecnn export {shlex.quote(entry.model)} --target {entry.target} --recipe best ..."
    if entry.failures:
        return ""
    if not entry.accuracy.n:
        return f"edgecnn validate {artifact} --data DIR --max-drop 1"
    if not entry.checks:
        limit = "--max-drop 1" if entry.accuracy.top1 is not None else "--min-sqnr 20"
        return f"edgecnn validate {artifact} --data DIR {limit}"
    device = {"c": "cortex-m7", "tflite": "cortex-a72", "onnx": "cortex-a72"}.get(entry.target)
    if command == "export" and entry.device == "host" and device:
        return f"edgecnn validate {artifact} --data DIR --device {device}"
    return ""
