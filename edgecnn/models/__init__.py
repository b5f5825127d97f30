"""Models: typed rows, their blocks, and the weights people have. What lists them needs no torch; building does.

Each entry point of ``edgecnn.models`` names a ``Table`` of families; what ships with edgecnn is found the same way.
"""

from __future__ import annotations

from edgecnn.models.spec import Family, ModelSpec, Table, families, resolve

__all__ = ["Family", "ModelSpec", "Table", "families", "resolve"]
