"""An import is compared with the runtime of its file; what float32 rounds away is no fault of it."""

from __future__ import annotations

import pytest

from edgecnn.errors import InputError
from edgecnn.graph.builder import Builder
from edgecnn.graph.importers import Imported
from edgecnn.graph.ir import Metadata
from edgecnn.import_check import check_import


def cancelling() -> tuple[str, Imported]:
    """``(x + 1e5) - 1e5``, of which float32 keeps three digits; the reference has them all."""
    builder = Builder(channels_last=True)
    x = builder.input("x", (1, 50))
    made = builder.binary("add", builder.binary("add", x, 1e5), -1e5)
    graph = builder.graph([made], Metadata())
    (name,) = graph.outputs
    return name, Imported(graph=graph, reference=lambda values: {name: values["x"]})


def test_what_float32_rounds_away_is_no_difference():
    _, imported = cancelling()
    checked = check_import(imported, imported.graph)
    assert checked.text.endswith("; the network is that sensitive to float32 rounding")


def test_what_rounding_does_not_explain_is_one():
    name, imported = cancelling()
    wrong = Imported(graph=imported.graph, reference=lambda values: {name: values["x"] * 1.05})
    with pytest.raises(InputError, match="differs from the original runtime by"):
        check_import(wrong, wrong.graph)
