"""The C writer: what it computes when it is compiled, what it says of itself, and that it needs nobody."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace

import numpy as np
import pytest
from golden_files import golden
from graphs import BODY, MORE_PIECES, PIECES, piece_graph, random_graph
from int8_builder import Int8Builder, float_graph, random_images

from edgecnn.artifact import graph_path, write_artifact
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import FIXED
from edgecnn.graph.ir import Metadata, Quantized
from edgecnn.graph.ops import OPS
from edgecnn.graph.oracle import run
from edgecnn.graph.summary import layers as graph_layers
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.preprocess import Preprocess
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe
from edgecnn_converters.c import convert, describe, integers, layers, unsupported
from edgecnn_converters.c.arena import allocate
from edgecnn_converters.c.bounds import MAX_CLASSES
from edgecnn_converters.c.format import identifier, members
from edgecnn_converters.c.lowering import LOWERINGS
from edgecnn_targets.devices import device
from edgecnn_targets.registry import open_session
from edgecnn_targets.runtimes.c import compile_shared, host_compiler

LIMITS = golden("targets")["c"]
STRICT = ("-O0", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
SANITIZED = (*STRICT, "-O1", "-fsanitize=undefined", "-fno-sanitize-recover")
needs_compiler = pytest.mark.skipif(host_compiler() is None, reason="no C compiler here")


def outputs_of_all(graphs, images, folder, options=STRICT):
    """The integers that each graph's C makes of its images; all graphs in one library."""
    sources = []
    for name, graph in graphs.items():
        sources.append(folder / f"{name}.c")
        for suffix, data in convert(graph, precision="int8", name=name).files.items():
            (folder / f"{name}{suffix}").write_bytes(data)
    compile_shared(sources, folder / "all.so", options)
    library = ctypes.CDLL(str(folder / "all.so"))
    made = {}
    for name, graph in graphs.items():
        x = images[name]
        ends = (("input", graph.inputs), ("output", graph.outputs))
        own_input, own_output = (
            library[f"{identifier(name)}_{side}_{member}"] for side, names in ends for member in members(names).values()
        )
        own_input.restype = own_output.restype = ctypes.c_void_p

        def invoke(*places, prefix=identifier(name)):  # noqa: B008  # of this turn
            library[f"{prefix}_invoke"](*(ctypes.byref((ctypes.c_void_p * 1)(place)) for place in places))

        made[name] = np.zeros((len(x), *graph.tensors[graph.outputs[0]].shape[1:]), np.int8)
        for k, (image, output) in enumerate(zip(x, made[name], strict=True)):
            places = [ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(output.ctypes.data)]
            if k % 3 == 1:  # both in the arena
                ctypes.memmove(own_input(), places[0], image.nbytes)
                invoke(own_input(), own_output())
                ctypes.memmove(places[1], own_output(), output.nbytes)
                continue
            before = image.copy()
            invoke(image.ctypes.data, output.ctypes.data)
            assert np.array_equal(image, before), f"{name} wrote over its caller's input"
    return made


def assert_equal_the_oracle(graphs, folder, options=STRICT):
    images = {name: random_images(graph, 3) for name, graph in graphs.items()}
    for name, got in outputs_of_all(graphs, images, folder, options).items():
        want = run(graphs[name], images[name])[graphs[name].outputs[0]]
        apart = np.abs(got.astype(int) - want)
        assert apart.max() == 0, f"{name}: {np.count_nonzero(apart)} of {apart.size} differ, by up to {apart.max()} LSB"


@needs_compiler
def test_every_op_equals_the_oracle_bit_for_bit(tmp_path):
    assert_equal_the_oracle(
        {f"{piece}_{seed}": piece_graph(piece, seed) for piece in (*PIECES, *MORE_PIECES) for seed in (0, 1)}, tmp_path
    )


@needs_compiler
def test_random_networks_equal_the_oracle_bit_for_bit(tmp_path):
    assert_equal_the_oracle({f"random_{seed}": random_graph(seed, 1 + seed % 7) for seed in range(12)}, tmp_path)


@pytest.mark.slow
@needs_compiler
def test_many_networks_equal_the_oracle_and_compute_nothing_undefined(tmp_path):
    graphs = {f"{piece}_{seed}": piece_graph(piece, seed) for piece in (*PIECES, *MORE_PIECES) for seed in range(2, 4)}
    graphs |= {f"random_{seed}": random_graph(seed, 1 + seed % 8) for seed in range(100, 140)}
    graphs |= {f"any_{seed}": random_graph(seed, 1 + seed % 8, (*BODY, *MORE_PIECES)) for seed in range(20)}
    assert_equal_the_oracle(graphs, tmp_path, SANITIZED)


@needs_compiler
def test_what_shares_memory_equals_the_oracle(tmp_path):
    """Reshapes, the caller's memory, an output that is read again, operands that broadcast, both operands the same."""
    graphs = {}
    b = Int8Builder((1, 4, 4, 2), 1)
    graphs["only_reshape"] = b.graph(b.op("reshape", b.input, shape=(1, 32)))
    b = Int8Builder((1, 4, 4, 2), 2)
    middle = b.op("relu", b.input)
    b.op("add", middle, b.op("relu6", middle))
    graphs["output_is_read_again"] = b.graph(middle)
    b = Int8Builder((1, 5, 3, 4), 3)
    graphs["same_twice"] = b.graph(b.op("mul", b.input, b.input))
    b = Int8Builder((1, 5, 3, 4), 4)
    wide = b.op("relu", b.input)
    graphs["column"] = b.graph(b.op("add", b.constant((1, 5, 1, 4)), b.op("mul", wide, b.constant((3, 1)))))
    b = Int8Builder((1, 6, 6, 3), 5)
    flat = b.op("reshape", b.op("relu", b.input), shape=(1, 108))
    graphs["reshape_between"] = b.graph(b.weighted("fully_connected", flat, (7, 108)))
    b = Int8Builder((1, 3, 3, 4), 6)
    graphs["concat_rows"] = b.graph(b.op("concat", b.input, b.op("max_pool2d", b.input, kernel=(1, 1)), axis=1))
    b = Int8Builder((1, 7, 7, 4), 7)
    graphs["wide_softmax"] = b.graph(b.op("softmax", b.input))
    b = Int8Builder((1, 1500), 8)
    graphs["flat_softmax"] = b.graph(b.op("softmax", b.op("mul", b.input, b.constant((1,), b.grid(1e-4)), out=FIXED)))
    assert_equal_the_oracle(graphs, tmp_path)


@pytest.fixture(scope="module")
def mobilenet():
    module, source = random_weights(resolve("mobilenet_v2_0.35_96"))
    metadata = Metadata(model="m", preprocess=source.preprocess, labels=("*/ä", "/*b"))
    graph = capture(module, (3, 96, 96), metadata)
    images = np.random.default_rng(0).normal(0, 0.5, (4, 96, 96, 3)).astype(np.float32)
    return quantize(graph, calibrate(graph, [images]), recipe("minmax")).graph


@pytest.fixture(scope="module")
def files(mobilenet):
    return convert(mobilenet, precision="int8", name="v2").files


def test_the_arena_is_small(mobilenet):
    """TFLM's for the same network stands in the golden file, and `edgecnn validate --device mcu-tflm` prints it."""
    arena = allocate(mobilenet).size
    largest = max(int(np.prod(t.shape)) for t in mobilenet.activations())
    assert largest <= arena <= LIMITS["arena_mobilenet_v2_0_35_96"]


def test_the_header_says_what_an_application_needs(mobilenet):
    converted = convert(mobilenet, precision="int8", name="v2-0.35")
    header = converted.files[".h"].decode()
    macros = dict(re.findall(r"#define V2_0_35_(\w+) ([-\w.]+)", header))
    source, result = converted.input.name.upper(), converted.output.name.upper().replace(".", "_")
    assert macros[f"INPUT_{source}_SIZE"] == str(96 * 96 * 3)
    assert macros[f"OUTPUT_{result}_SIZE"] == "1000"
    assert np.float32(macros[f"INPUT_{source}_SCALE"].rstrip("f")) == np.float32(converted.input.scale)
    assert int(macros[f"OUTPUT_{result}_ZERO_POINT"]) == converted.output.zero_point
    assert int(macros["ARENA_BYTES"]) == allocate(mobilenet).size
    assert f"struct v2_0_35_inputs {{ const int8_t *{converted.input.name}; }};" in header
    assert "void v2_0_35_invoke(const struct v2_0_35_inputs *inputs, const struct v2_0_35_outputs *outputs);" in header


def test_it_includes_nothing_but_stdint(files):
    included = {name for data in files.values() for name in re.findall(r"#include (\S+)", data.decode())}
    assert included == {"<stdint.h>", "<arm_mve.h>", '"v2.h"', '"v2_weights.h"'}
    assert (
        b"#ifdef __ARM_FEATURE_MVE\n#include <arm_mve.h>\n#endif" in files[".c"]
    )  # the compiler's own, on such a core


def test_only_the_kernels_used_are_in_it():
    source = convert(piece_graph("relu", 0), precision="int8").files[".c"].decode()
    assert re.findall(r"^static (?:inline )?\w+ \*?(\w+)\(", source, re.MULTILINE) == ["table"]


def test_the_same_graph_gives_the_same_bytes_and_says_what_it_is(mobilenet, files):
    assert convert(mobilenet, precision="int8", name="v2").files == files
    assert describe(files[".c"]) == ("int8", mobilenet.metadata)
    metadata = Metadata(model="m", preprocess=Preprocess(resize=(96, 96)), label_offset=1, weights_sha256="f" * 64)
    other = convert(replace(piece_graph("conv", 0), metadata=metadata), precision="int8").files[".c"]
    assert describe(other) == ("int8", metadata)


def test_integers_read_back_equal_the_graphs(mobilenet, files):
    written = [(mobilenet, files)]
    written += [(graph, convert(graph, precision="int8").files) for graph in map(random_graph, range(12))]
    for graph, made in written:
        found = integers(*made.values())
        quantized = {name: t for name, t in graph.tensors.items() if isinstance(t, Quantized)}
        used = {*graph.inputs, *(name for node in graph for name in (*node.inputs, node.output))}
        assert set(found) == set(quantized) & used
        for name, (quant, values) in found.items():
            assert quant.same_as(quantized[name].quant), name
            if values is not None:
                np.testing.assert_array_equal(values, quantized[name].integers)


def test_layers_are_the_graphs(mobilenet, files):
    assert layers(*files.values()) == graph_layers(mobilenet)


def test_every_op_of_the_table_has_a_row():
    assert set(LOWERINGS) == set(OPS)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_line(files, share):
    source, header, weights = files.values()
    cut, thin = source[: int(len(source) * share)], weights[: int(len(weights) * share)]
    for read in (lambda: describe(cut), lambda: layers(cut, header, weights), lambda: integers(cut, header, weights)):
        with pytest.raises(InputError, match="not a C network of edgecnn, or not all of it") as error:
            read()
        assert "\n" not in str(error.value)
    if share > 0.01:
        with pytest.raises(InputError, match="not a C network of edgecnn, or not all of it"):
            integers(source, header, thin)


def test_what_cannot_be_held_is_said_before():
    b = Int8Builder((1, 1, 1, 4096), 0)
    large = b.graph(b.weighted("conv2d", b.input, (1, 1, 1, 4096), out=b.grid(1e-9)))
    ((node, reason),) = unsupported(large, "int8")
    assert node == large.outputs[0]
    assert "beyond 32 bits" in reason
    with pytest.raises(UnsupportedError, match=f"C cannot hold {node}: its sums may reach"):
        convert(large, precision="int8")
    b = Int8Builder((1, MAX_CLASSES + 1), 0)
    assert f"at most {MAX_CLASSES}" in unsupported(b.graph(b.op("softmax", b.input)), "int8")[0][1]
    b = Int8Builder((1, 3, 3, 1), 0)
    empty = b.op("avg_pool2d", b.input, kernel=(2, 2), padding=(2, 0, 0, 0))
    assert "without a pixel to average" in unsupported(b.graph(empty), "int8")[0][1]
    with pytest.raises(InputError, match="this one is in fp32"):
        convert(float_graph(piece_graph("conv", 0)), precision="int8")
    with pytest.raises(InputError, match="unknown input and output type 'uint8'"):
        convert(piece_graph("conv", 0), precision="int8", io="uint8")


@needs_compiler
def test_an_artifact_is_a_folder_that_a_session_opens(tmp_path):
    graph = piece_graph("fully_connected", 3)
    converted = convert(graph, precision="int8", name="net")
    path = write_artifact(tmp_path, "net", converted, Metadata())
    assert path == tmp_path / "net_c" / "net.c"
    assert graph_path(path) == tmp_path / "net.edgecnn"
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.c", "net.c.json", "net.h", "net_weights.h"]
    session = open_session(device("host"), path)
    assert (session.input.shape, session.input.scale) == (converted.input.shape, converted.input.scale)
    assert [op.kind for op in session.ops] == [node.op for node in graph]
    images = random_images(graph, 4)
    np.testing.assert_array_equal(session.run(images), run(graph, images)[graph.outputs[0]])
    with pytest.raises(InputError, match="takes int8"):
        session.run(images.astype(np.float32))


@needs_compiler
@pytest.mark.parametrize("broken", ["net.c", "net.h", "net_weights.h"])
def test_a_folder_that_is_not_whole_is_one_line(broken, tmp_path):
    path = write_artifact(tmp_path, "net", convert(piece_graph("conv", 0), precision="int8", name="net"), Metadata())
    whole = (path.parent / broken).read_bytes()
    (path.parent / broken).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="export it again") as error:
        open_session(device("host"), path)
    assert "\n" not in str(error.value)
    (path.parent / broken).unlink()
    with pytest.raises(InputError, match="export"):
        open_session(device("host"), path)
