"""A loss with its linear head in a plan of tensor parallelism: `VocabParallel`."""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, distribute_tensor
from torch.distributed.tensor import Shard as Along
from torch.distributed.tensor.parallel import ParallelStyle

from xent.nn import LinearCrossEntropyLoss
from xent.parallel import checks
from xent.parallel.functions import linear_cross_entropy


class VocabParallel(ParallelStyle):
    """Splits the classes of a `xent.nn.LinearCrossEntropyLoss` over the processes of a mesh.

    For `torch.distributed.tensor.parallel.parallelize_module`; weight and bias become DTensors
    sharded by classes, and the module's forward is `xent.parallel.linear_cross_entropy`.

    Args:
        input_layouts: how the hidden states lie that the module is given: `Replicate()`, or
            `Shard(1)` for sequences that are split over the same processes.
        use_local_output: whether the loss is a tensor, and no DTensor.

    >>> import torch.distributed as dist, xent.nn
    >>> from torch.distributed.device_mesh import init_device_mesh
    >>> from torch.distributed.tensor.parallel import parallelize_module
    >>> from xent.parallel import VocabParallel
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> mesh, loss = init_device_mesh("cpu", (1,)), xent.nn.LinearCrossEntropyLoss(4, 1000)
    >>> parallelize_module(loss, mesh, VocabParallel()).linear.weight.placements
    (Shard(dim=0),)
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, *, input_layouts: Placement | None = None, use_local_output: bool = True
    ) -> None:
        super().__init__()
        self.input_layouts = (input_layouts or Replicate(),)
        self.use_local_output = use_local_output

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, LinearCrossEntropyLoss):
            return checks.not_a_head("VocabParallel", module)
        for name, parameter in list(module.linear.named_parameters()):
            split = distribute_tensor(
                parameter, device_mesh, [Along(0)], src_data_rank=self.src_data_rank
            )
            module.linear.register_parameter(name, nn.Parameter(split, parameter.requires_grad))
        layouts, to_local = self.input_layouts, self.use_local_output

        def forward(self: LinearCrossEntropyLoss, input: Tensor, target: Tensor) -> Any:
            """The loss of hidden states (..., D), in nats."""
            if not isinstance(input, DTensor):
                input = DTensor.from_local(input, device_mesh, layouts, run_check=False)
            loss: Any = linear_cross_entropy(
                input,
                self.linear.weight,
                target,
                linear_bias=self.linear.bias,
                weight=self.weight,
                shift=self.shift,
                plan=self.plan,
                **self._options(),
            )
            # FSDP2 warns of outputs that are views.
            return loss.to_local().clone() if to_local else loss

        module.forward = MethodType(forward, module)
        return module
