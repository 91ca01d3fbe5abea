"""What the tests of DTensors, of the parallel style and of FSDP2 run on four processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from parallel_calls import raised
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module

import xent.nn
import xent.parallel as parallel

MESHES: dict[str, DeviceMesh] = {}


def mesh_of(shape: tuple[int, ...]) -> DeviceMesh:
    """A mesh of all four processes, made once."""
    if str(shape) not in MESHES:
        MESHES[str(shape)] = init_device_mesh(torch.get_default_device().type, shape)
    return MESHES[str(shape)]


PLACES = {
    "classes": ((4,), [Shard(1)]),
    "rows": ((4,), [Shard(0)]),
    "rows and classes": ((2, 2), [Shard(0), Shard(1)]),
    "classes and rows": ((2, 2), [Shard(1), Shard(0)]),
    "replicated and classes": ((2, 2), [Replicate(), Shard(1)]),
    "replicated": ((4,), [Replicate()]),
    "rows twice": ((2, 2), [Shard(0), Shard(0)]),
}


def logits(group: Any, arrays: dict, options: dict, name: str, soft: bool) -> dict:
    """Loss, gradients and statistics of DTensor logits, each in full."""
    shape, places = PLACES[name]
    mesh = mesh_of(shape)
    x = distribute_tensor(torch.tensor(arrays["logits"]), mesh, places).requires_grad_()
    weight = torch.tensor(arrays["weight"])
    target = torch.tensor(arrays["probabilities" if soft else "target"])
    if soft:
        weight = distribute_tensor(weight, mesh, [Replicate()] * mesh.ndim).requires_grad_()
    loss: Any = parallel.cross_entropy(x, target, weight, **options)
    assert isinstance(loss, DTensor)
    upstream = torch.tensor(np.asarray(arrays["upstream"]))
    if loss.ndim:
        rows = [Shard(0) if p == Shard(0) else Replicate() for p in places]
        assert list(loss.placements) == rows
        upstream = distribute_tensor(upstream, mesh, rows)
        loss.backward(upstream)
    else:
        loss.backward(DTensor.from_local(upstream, mesh, [Replicate()] * mesh.ndim))
    assert list(x.grad.placements) == list(places)
    found = {
        "loss": loss.full_tensor().detach().numpy(force=True),
        "logits": x.grad.full_tensor().numpy(force=True),
    }
    if soft:
        found["weight"] = weight.grad.full_tensor().numpy(force=True)
    else:
        told = parallel.token_statistics(x, target, ignore_index=-5)
        found["entropy"] = told.entropy.full_tensor().detach().numpy(force=True)
        found["argmax"] = told.argmax.full_tensor().numpy(force=True)
    return found


HEADS = {
    "classes": ((4,), [Replicate()], [Shard(0)]),
    "classes, sequence gathered": ((4,), [Shard(0)], [Shard(0)]),
    "rows": ((4,), [Shard(0)], [Replicate()]),
    "rows and classes": ((2, 2), [Shard(0), Replicate()], [Replicate(), Shard(0)]),
    "rows, classes and sequence": ((2, 2), [Shard(0), Shard(0)], [Replicate(), Shard(0)]),
}


def head(group: Any, arrays: dict, options: dict, name: str) -> dict:
    """Loss and gradients of a DTensor head, each in full."""
    shape, of_hidden, of_weight = HEADS[name]
    mesh = mesh_of(shape)
    h = distribute_tensor(torch.tensor(arrays["hidden"]), mesh, of_hidden).requires_grad_()
    w = distribute_tensor(torch.tensor(arrays["linear_weight"]), mesh, of_weight)
    b = distribute_tensor(torch.tensor(arrays["linear_bias"]), mesh, of_weight)
    w.requires_grad_()
    b.requires_grad_()
    target = torch.tensor(arrays["target"])
    loss: Any = parallel.linear_cross_entropy(h, w, target, linear_bias=b, **options)
    loss.sum().backward()
    assert list(h.grad.placements) == of_hidden
    leaves = {"hidden": h, "linear_weight": w, "linear_bias": b}
    found = {n: leaf.grad.full_tensor().numpy(force=True) for n, leaf in leaves.items()}
    return found | {"loss": loss.full_tensor().detach().numpy(force=True)}


def refused(group: Any) -> list[str]:
    mesh = mesh_of((4,))
    t = torch.arange(4)
    wide = DTensor.from_local(torch.zeros(4, 2), mesh, [Shard(1)])
    sums = DTensor.from_local(torch.zeros(4, 2), mesh, [Partial()])
    weight = DTensor.from_local(torch.zeros(2, 8), mesh, [Shard(0)])
    return [
        raised(lambda: parallel.linear_cross_entropy(wide, weight, t)),
        raised(lambda: parallel.cross_entropy(sums, t)),
        raised(lambda: parallel.linear_cross_entropy(wide, sums, t)),
    ]


def styled(group: Any, arrays: dict, layout: Any) -> dict:
    """A module under the parallel style."""
    mesh = mesh_of((4,))
    module = xent.nn.LinearCrossEntropyLoss(5, 11, bias=True, z_loss=0.01, dtype=torch.float64)
    with torch.no_grad():
        module.linear.weight.copy_(torch.tensor(arrays["linear_weight"]))
        module.linear.bias.copy_(torch.tensor(arrays["linear_bias"]))
    parallelize_module(module, mesh, parallel.VocabParallel(input_layouts=layout))
    hidden = torch.tensor(arrays["hidden"])
    if layout == Shard(0):
        hidden = hidden.chunk(4)[group.rank()]
    h = hidden.clone().requires_grad_()
    loss = module(h, torch.tensor(arrays["target"]))
    loss.backward()
    weight = module.linear.weight.grad.full_tensor()
    text = raised(lambda: parallelize_module(torch.nn.ReLU(), mesh, parallel.VocabParallel()))
    return {
        "loss": loss.item(),
        "hidden": h.grad.numpy(force=True),
        "weight": weight.numpy(force=True),
        "text": text,
    }


def sharded_head(group: Any, arrays: dict, reshard: Any, tensor_parallel: bool) -> tuple:
    """A head under FSDP2, alone or with its classes split over the other axis of a mesh."""
    mesh = mesh_of((2, 2)) if tensor_parallel else mesh_of((4,))
    module = xent.nn.LinearCrossEntropyLoss(5, 11, bias=True, dtype=torch.float64)
    with torch.no_grad():
        module.linear.weight.copy_(torch.tensor(arrays["linear_weight"]))
        module.linear.bias.copy_(torch.tensor(arrays["linear_bias"]))
    of_data = mesh
    if tensor_parallel:
        parts = DeviceMesh("cpu", mesh.mesh, mesh_dim_names=("data", "classes"))
        of_data = parts["data"]
        parallelize_module(module, parts["classes"], parallel.VocabParallel())
    fully_shard(module, mesh=of_data, reshard_after_forward=reshard)
    at, size = of_data.get_local_rank(), of_data.size()
    h = torch.tensor(arrays["hidden"][at::size]).requires_grad_()
    found = []
    for _ in range(2):
        module.zero_grad()
        loss = module(h, torch.tensor(arrays["target"][at::size]))
        loss.backward()
        found.append(module.linear.weight.grad.full_tensor().numpy(force=True))
    total = loss.detach().clone()
    dist.all_reduce(total, group=of_data.get_group())
    return total.item() / size, *found
