"""Which values are read at all."""

from __future__ import annotations

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from xent.info.arrays import readable


def test_values_are_read_where_they_can_be():
    tensor = torch.tensor([0.5, 0.5])
    assert readable(np.ones(2))
    assert readable(tensor)
    assert readable(torch.nn.Parameter(tensor))
    assert not readable(tensor.to("meta"))
    with FakeTensorMode():
        assert not readable(torch.ones(2))
    seen = []
    for transform in (torch.func.vmap, torch.func.grad):
        transform(lambda x: (seen.append(readable(x)), x.sum())[1])(tensor)
    assert seen == [False, False]
    compiled = torch.compile(lambda x: x + readable(x), fullgraph=True, backend="eager")
    assert compiled(tensor).tolist() == [0.5, 0.5]
