"""Labels and preprocessing stand where other programs look for them: the readers here follow the published schemas."""

from __future__ import annotations

import io
import zipfile
from xml.etree import ElementTree

import pytest
from int8_builder import Int8Builder, float_graph

from edgecnn.graph.ir import Metadata
from edgecnn.preprocess import Preprocess
from edgecnn_converters.metadata import logit_labels
from edgecnn_converters.registry import converter

LABELS = ("tabby cat", "dog", "café")
FED = Preprocess(resize=(9,), crop=(8, 8), interpolation="bicubic", mean=(1.0, 2.0, 3.5), std=(4.0, 5.0, 6.0))
STRING, NUMBERS, TABLE, TABLES, BYTE = "string", "numbers", "table", "tables", "byte"


def classifier(outputs=3, labels=LABELS, offset=0, preprocess=FED):
    b = Int8Builder((1, 8, 8, 3))
    x = b.op("mean", b.input, keepdims=False)
    x = b.weighted("fully_connected", x, (outputs, 3))
    metadata = Metadata(model="net", preprocess=preprocess, labels=labels, label_offset=offset)
    return float_graph(b.graph(x, metadata))


def file_of(graph, target):
    return next(iter(converter(target).convert(graph, precision="fp32").files.values()))


class Reader:
    """A table of a flatbuffer, read by slot; `metadata_schema.fbs` of tflite-support says what stands there."""

    def __init__(self, table):
        self.table = table

    @classmethod
    def root(cls, data):
        from flatbuffers import encode, packer, table

        assert data[4:8] == b"M001"
        return cls(table.Table(data, encode.Get(packer.uoffset, data, 0)))

    def __call__(self, slot, kind):
        from flatbuffers import number_types, table

        offset = self.table.Offset(4 + 2 * slot)
        if not offset:
            return None
        if kind == BYTE:
            return self.table.Get(number_types.Uint8Flags, offset + self.table.Pos)
        if kind == STRING:
            return self.table.String(offset + self.table.Pos).decode()
        if kind == TABLE:
            return Reader(table.Table(self.table.Bytes, self.table.Indirect(offset + self.table.Pos)))
        places = [self.table.Vector(offset) + 4 * i for i in range(self.table.VectorLen(offset))]
        if kind == NUMBERS:
            return [self.table.Get(number_types.Float32Flags, place) for place in places]
        return [Reader(table.Table(self.table.Bytes, self.table.Indirect(place))) for place in places]


def task_metadata(data):
    from edgecnn_converters.tflite.format import load_schema

    model = load_schema().ModelT.InitFromPackedBuf(data)
    (buffer,) = [m.buffer for m in model.metadata if m.name == b"TFLITE_METADATA"]
    return Reader.root(bytes(model.buffers[buffer].data))


def test_a_tflite_file_has_the_metadata_of_the_task_library():
    data = file_of(classifier(), "tflite")
    model = task_metadata(data)
    assert (model(0, STRING), model(7, STRING)) == ("net", "1.0.0")
    (subgraph,) = model(3, TABLES)
    (image,), (scores,) = subgraph(2, TABLES), subgraph(3, TABLES)
    content = image(3, TABLE)
    assert (content(0, BYTE), content(1, TABLE)(0, BYTE)) == (2, 1)  # an image, RGB
    (unit,) = image(4, TABLES)
    assert unit(0, BYTE) == 1  # normalization
    assert (unit(1, TABLE)(0, NUMBERS), unit(1, TABLE)(1, NUMBERS)) == ([1.0, 2.0, 3.5], [4.0, 5.0, 6.0])
    stats = image(5, TABLE)
    assert stats(0, NUMBERS) == pytest.approx([254 / 4, 253 / 5, 251.5 / 6])
    assert stats(1, NUMBERS) == pytest.approx([-1 / 4, -2 / 5, -3.5 / 6])
    (file,) = scores(6, TABLES)
    assert (file(0, STRING), file(2, BYTE)) == ("labels.txt", 2)  # labels of an axis
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt").decode() == "tabby cat\ndog\ncafé\n"
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED


def test_without_labels_there_is_no_label_file_and_without_preprocessing_no_normalization():
    data = file_of(classifier(labels=None, preprocess=None), "tflite")
    assert not zipfile.is_zipfile(io.BytesIO(data))
    (subgraph,) = task_metadata(data)(3, TABLES)
    (given,), (made,) = subgraph(2, TABLES), subgraph(3, TABLES)
    assert given(4, TABLES) is None
    assert made(6, TABLES) is None


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_the_same_graph_gives_the_same_bytes_and_its_own_record_is_read_back(target):
    data = file_of(classifier(), target)
    assert data == file_of(classifier(), target)
    assert converter(target).describe(data)[1].labels == LABELS


def model_info(graph, target):
    data = file_of(graph, target)
    if target == "onnx":
        import onnx

        said = {p.key: p.value for p in onnx.load_from_string(data).metadata_props}
        return {key.removeprefix("model_info "): value for key, value in said.items() if key != "edgecnn"}
    found = ElementTree.fromstring(data).find("rt_info/model_info")
    return {} if found is None else {element.tag: element.get("value") for element in found}


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_onnx_and_openvino_say_what_openvinos_model_api_reads(target):
    assert model_info(classifier(), target) == {
        "model_type": "Classification",
        "labels": "tabby_cat dog café",
        "mean_values": "1 2 3.5",
        "scale_values": "4 5 6",
        "resize_type": "crop",
        "interpolation_mode": "CUBIC",
        "reverse_input_channels": "True",
    }
    unknown = model_info(classifier(labels=None, preprocess=Preprocess(resize=(8, 8))), target)
    assert unknown["resize_type"] == "standard"
    assert "labels" not in unknown
    assert "model_type" not in unknown
    assert model_info(classifier(preprocess=None), target) == {}


def test_every_logit_has_a_label_or_none_has():
    assert logit_labels(classifier()) == LABELS
    assert logit_labels(classifier(outputs=4, offset=1)) == ("background", *LABELS)
    assert logit_labels(classifier(outputs=3, offset=1)) == LABELS
    assert logit_labels(classifier(outputs=5)) is None
    assert logit_labels(classifier(labels=None)) is None
