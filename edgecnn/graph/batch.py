"""A batch of samples: for each input of a network one array, in the graph's layout, the batch first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold samples; ``len`` is how many.

    Attributes:
        arrays: input name to ``(samples, ...)``.

    Raises:
        InputError: the arrays hold different numbers of samples.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({len(array) for array in self.arrays.values()}) > 1:
            counts = ", ".join(f"{len(array)} of {name!r}" for name, array in self.arrays.items())
            raise InputError(f"inputs differ in their number of samples: {counts}; give one of each")

    @classmethod
    def of(cls, names: Sequence[str], given: Fed) -> Batch:
        """Return what is given as a batch for the inputs of that name, in their order.

        Args:
            names: of a graph's inputs.
            given: a batch, arrays by name, or the array of the only input.

        Raises:
            InputError: an input is missing, another is given, or there is one array for several inputs.
        """
        if isinstance(given, np.ndarray):
            if len(names) != 1:
                raise InputError(f"the network has inputs {', '.join(names)}; give a mapping from name to array")
            return cls({names[0]: given})
        arrays = given.arrays if isinstance(given, Batch) else given
        if arrays and set(arrays) != set(names):
            raise InputError(f"the network has inputs {', '.join(names)}; got {', '.join(arrays)}")
        return cls({name: arrays[name] for name in names if name in arrays})

    @classmethod
    def joined(cls, parts: Iterable[Batch]) -> Batch:
        """Return the samples of several batches, one after another."""
        listed = list(parts)
        names = listed[0].arrays if listed else ()
        return cls({name: np.concatenate([part.arrays[name] for part in listed]) for name in names})

    def renamed(self, names: Sequence[str]) -> Batch:
        """Return the samples under other names, in the order of the inputs; as they are where they have them.

        Raises:
            InputError: there are more inputs, or fewer.
        """
        if set(names) == set(self.arrays):
            return self
        if len(names) != len(self.arrays):
            raise InputError(f"inputs {', '.join(self.arrays)} are given for {', '.join(names)}; give one for each")
        return Batch(dict(zip(names, self.arrays.values(), strict=True)))

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()))) if self.arrays else 0

    def __getitem__(self, rows: slice | NDArray[Any]) -> Batch:
        """Return some of the samples."""
        return Batch({name: array[rows] for name, array in self.arrays.items()})

    def __iter__(self) -> Iterator[Batch]:
        """Yield the samples, each a batch of one."""
        return self.chunks(1)

    def chunks(self, size: int) -> Iterator[Batch]:
        """Yield the samples, at most ``size`` at a time."""
        return (self[at : at + size] for at in range(0, len(self), size))


Fed = Batch | Mapping[str, NDArray[Any]] | NDArray[Any]
"""What inputs are given as: by name, or, for a network of one input, as its array."""
