"""DTensors in, DTensors out: where their rows and classes lie says which processes exchange what.

A mesh axis over which classes are sharded is the group of a `Shard`; those over which rows are
sharded are the groups that a sum or a mean is over. All else is replicated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate
from torch.distributed.tensor import Shard as Along

from xent.parallel import checks
from xent.parallel.shard import Shard, equal


@dataclass(frozen=True)
class Layout:
    """How rows and classes lie on a mesh."""

    function: str
    mesh: DeviceMesh
    rows: tuple[Placement, ...]  # of an array with the axes of rows alone, on each mesh axis
    split: int | None  # the mesh axis over which classes are sharded
    classes: int

    @property
    def shard(self) -> Shard | None:
        """The classes here; None where every process has all."""
        if self.split is None:
            return None
        group, size = self.mesh.get_group(self.split), self.mesh.size(self.split)
        here = equal(self.classes, size)[self.mesh.get_local_rank(self.split)]
        return Shard(group, here.start, self.classes)

    @property
    def over(self) -> tuple[ProcessGroup, ...]:
        """The groups that rows are split over."""
        axes = enumerate(self.rows)
        return tuple(self.mesh.get_group(i) for i, p in axes if isinstance(p, Along))

    def by_class(self, axis: int | None = None) -> tuple[Placement, ...]:
        """Placements of an array with an axis of classes and with those of rows, or with it alone
        (None)."""
        found: list[Placement] = []
        for i, place in enumerate(self.rows):
            if i == self.split:
                found.append(Along(axis or 0))
            elif axis is None or not isinstance(place, Along):
                found.append(Replicate())
            else:
                found.append(Along(place.dim + (place.dim >= axis)))
        return tuple(found)

    def local(self, array: Any, placements: tuple[Placement, ...], summed: bool = False) -> Any:
        """The part of an array here: of a DTensor, or of a tensor that all processes have whole.

        `summed` says that the gradient is a sum over the processes that rows are split over.
        """
        if array is None:
            return None
        if not isinstance(array, DTensor):
            every = [Replicate()] * self.mesh.ndim
            array = DTensor.from_local(array, self.mesh, every, run_check=False)
        if array.placements != placements:
            array = array.redistribute(self.mesh, placements)
        pairs = zip(placements, self.rows, strict=True)
        gradient = [Partial() if summed and isinstance(r, Along) else p for p, r in pairs]
        return array.to_local(grad_placements=gradient)

    def whole(self, value: Tensor, shape: tuple[int, ...]) -> DTensor:
        """A result, of rows or 0-d, as a DTensor."""
        places = self.rows if shape else (Replicate(),) * self.mesh.ndim
        strides = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            value, self.mesh, places, run_check=False, shape=torch.Size(shape), stride=strides
        )


def of_logits(function: str, logits: DTensor, axis: int) -> Layout:
    """The layout of logits with classes along an axis."""
    rows: list[Placement] = []
    split = None
    for i, place in enumerate(logits.placements):
        if not isinstance(place, (Along, Replicate)) or (_on(place, axis) and split is not None):
            _refuse(function, "logits", logits)
        if isinstance(place, Along) and not _on(place, axis):
            rows.append(Along(place.dim - (place.dim > axis)))
            continue
        rows.append(Replicate())
        split = i if _on(place, axis) else split
    mesh = logits.device_mesh
    return Layout(function, mesh, tuple(rows), split, logits.shape[axis])


def of_head(function: str, hidden: Any, linear_weight: DTensor) -> Layout:
    """The layout of the logits of a head: hidden states that are sharded as the classes are, by
    rows, are gathered."""
    mesh, every = linear_weight.device_mesh, [Replicate()] * linear_weight.device_mesh.ndim
    given = hidden.placements if isinstance(hidden, DTensor) else every
    rows: list[Placement] = []
    split = None
    for i, (place, of_hidden) in enumerate(zip(linear_weight.placements, given, strict=True)):
        if _on(place, 0) and split is None:
            split = i
            rows.append(Replicate())
        elif not isinstance(place, Replicate):
            _refuse(function, "linear_weight", linear_weight)
        else:
            rows.append(of_hidden)
        wide = isinstance(of_hidden, Along) and of_hidden.dim == hidden.ndim - 1
        if wide or not isinstance(of_hidden, (Along, Replicate)):
            _refuse(function, "hidden", hidden)
    return Layout(function, mesh, tuple(rows), split, linear_weight.shape[0])


def _on(place: Placement, axis: int) -> bool:
    return isinstance(place, Along) and place.dim == axis


def _refuse(function: str, name: str, array: DTensor) -> None:
    expected = "Replicate or Shard, the classes on one axis of the mesh, the width on none"
    checks.placements(function, name, tuple(array.placements), expected)
