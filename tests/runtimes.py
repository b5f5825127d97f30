"""Helpers of tests of several runtimes: the writers, what files hold, and how far a session is from the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from golden_files import golden
from int8_builder import random_images

from edgecnn.artifact import write_artifact
from edgecnn.graph.ir import Metadata, Quantized
from edgecnn.graph.oracle import run
from edgecnn_converters.registry import converter, targets_of_all
from edgecnn_targets.devices import device
from edgecnn_targets.registry import open_session
from edgecnn_targets.runtimes.saturation import instruction_set, onednn_has_vnni

WRITERS = {target: converter(target) for target in targets_of_all()}
SCALE_STEP = 3e-7  # OpenVINO's FakeQuantize holds the ends of a grid, not its scale: one float32 step


CPUS = {
    "vnni": "x86 with VNNI: only such a CPU shows it, for QEMU 7.2 emulates none",
    "avx2": "x86 without VNNI: `pytest -m slow tests/targets/test_other_cpus.py` shows it under QEMU, and of OpenVINO "
    "`ONEDNN_MAX_CPU_ISA=AVX2 pytest tests/converters/test_networks.py`",
    "other": "other CPUs: `pytest -m slow tests/targets/test_qemu_real.py` shows LiteRT's on Arm under QEMU",
}
"""Tables of ``[parity]`` in ``golden/targets.toml`` to where their claims are shown."""


def limits():
    """Arithmetic to the LSB that its runtime may be away from the oracle on this CPU."""
    return golden("targets")["parity"][instruction_set()]


def integers_in(target, converted):
    """The quantized tensors that the files of a converted model hold."""
    return converter(target).integers(*converted.files.values())


def assert_integers_are_the_graphs(graph, target, converted):
    """Every quantized tensor of the graph is in the files: grid and integers."""
    quantized = {k: t for k, t in graph.tensors.items() if isinstance(t, Quantized)}
    found = integers_in(target, converted)
    assert set(found) == set(quantized)
    for name, (quant, values) in found.items():
        want = quantized[name].quant
        np.testing.assert_allclose(quant.scale, want.scale, rtol=SCALE_STEP if target == "openvino" else 0)
        np.testing.assert_array_equal(quant.zero_point, want.zero_point)
        assert (quant.dtype, quant.axis) == (want.dtype, want.axis), name
        if values is not None:
            np.testing.assert_array_equal(values.reshape(quantized[name].shape), quantized[name].integers)


def opened(target, converted, folder, kernels=None):
    """A session of a converted model, on this machine."""
    return open_session(device("host"), write_artifact(folder, "net", converted, Metadata()), kernels=kernels)


def unsaturated(graph):
    """The graph, with weights of 7 bits where the fastest kernels of this CPU would saturate with 8."""
    return graph if onednn_has_vnni() else seven_bits(graph)


def seven_bits(graph):
    """The graph, with weights of 7 bits."""
    weights = [graph.tensors[n.inputs[1]] for n in graph if n.op in ("conv2d", "fully_connected")]
    halved = [(w, (w.integers // 2).astype(np.int8)) for w in weights]
    return graph.with_tensors(*(replace(w, integers=i, value=w.quant.dequantize(i)) for w, i in halved))


def distances(graph, session, images):
    """LSB between a session's outputs and the oracle's, which rounds as the session's kernels do."""
    into, out = (graph.tensors[n].quant for n in (graph.inputs[0], graph.outputs[0]))
    real = session.output.decode(session.run(session.input.encode(into.dequantize(images))))
    want = run(graph, images, arithmetic=session.arithmetic)[graph.outputs[0]].astype(int)
    return np.abs(out.quantize(real).reshape(want.shape).astype(int) - want)


def held_by_openvino(graph, folder, images):
    """Assert that the plugin computes a graph in integers, 0 LSB from the oracle; return the session.

    Args:
        images: how many random ones, or the images.
    """
    used = unsaturated(graph)
    converted = WRITERS["openvino"].convert(used, precision="int8")
    assert_integers_are_the_graphs(used, "openvino", converted)
    session = opened("openvino", converted, folder)
    fed = images if isinstance(images, np.ndarray) else random_images(used, images)
    assert int(distances(used, session, fed).max()) == 0
    assert [str(op) for op in session.ops if op.is_float] == []
    return session
