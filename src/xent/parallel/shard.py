"""Which classes a process has: `Shard`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch.distributed import ProcessGroup

from xent.parallel import checks


@dataclass(frozen=True)
class Shard:
    """The classes that a process has of a vocabulary split over a process group.

    Classes lie in the order of the group's ranks; a process may have any number of them, or none.
    How many it has, its logits or weights say.

    Attributes:
        group: the processes that have all classes together.
        first: the first class of this process.
        classes: the number of classes on all processes.

    >>> import torch.distributed as dist
    >>> from xent.parallel import Shard
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> Shard(dist.group.WORLD, 0, 50257).first
    0
    >>> dist.destroy_process_group()
    """

    group: ProcessGroup
    first: int
    classes: int

    def __post_init__(self) -> None:
        checks.kind("Shard", "group", self.group, ProcessGroup)
        checks.place(self.first, self.classes)


def balanced(classes: int, size: int) -> list[slice]:
    """The classes of each of `size` processes, numbers that differ by at most one.

    >>> balanced(10, 4)
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None), slice(8, 10, None)]
    """
    ends = [0]
    for r in range(size):
        ends.append(ends[-1] + classes // size + (r < classes % size))
    return [slice(a, b) for a, b in pairwise(ends)]


def equal(classes: int, size: int) -> list[slice]:
    """The classes of each of `size` processes, all the same number but for the last: DTensor's way.

    >>> equal(10, 4)
    [slice(0, 3, None), slice(3, 6, None), slice(6, 9, None), slice(9, 10, None)]
    """
    step = -(-classes // size)
    return [slice(min(r * step, classes), min((r + 1) * step, classes)) for r in range(size)]
