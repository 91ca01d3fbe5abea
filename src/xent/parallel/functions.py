"""The public functions of a vocabulary, or of rows, split over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.distributed import ProcessGroup

from xent.functional import TokenStatistics
from xent.inputs_linear import LowRank
from xent.parallel import calls
from xent.parallel.shard import Shard
from xent.spec import Plan, Spec


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    shard: Shard | None = None,
    rows: ProcessGroup | Sequence[ProcessGroup] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    axis: int | None = None,
    plan: Plan | None = None,
) -> Tensor:
    """`xent.cross_entropy` of logits whose classes, or rows, are split over processes, in nats.

    Every process makes the same call on its part, and gets the loss of the whole, the same bits on
    each; backward, with the same upstream on each, gives the gradient by its part. Classes take one
    collective, of 24 bytes a row with class indices, and none backward.

    Args:
        logits: (N, C), (N, C, d1, ..., dk) or (C,), the classes here; or a DTensor of all, sharded
            by classes, by rows or both.
        target: class indices of all classes, the same on each process of the shard's group; or
            probabilities of the classes here. With a DTensor: a DTensor, or a tensor that every
            process has whole.
        weight: the weight of each class, (C,) of those here or (V,) of all.
        shard: which classes these are; with a DTensor none is given.
        rows: the groups that rows are split over: a sum or a mean is that of all rows, and the
            denominator that of all. With a DTensor none is given.
        ignore_index: the class index of rows that take no part.
        reduction: "mean", "sum" or "none".
        label_smoothing: e in [0, 1]; V of e / V is the number of all classes.
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        axis: the class axis. None is torch's rule: 1, or 0 for a single row.
        plan: how to compute; see `xent.Plan`.

    Returns:
        The loss, or that of each row, as `xent.cross_entropy` gives it; a DTensor for DTensors,
        0-d ones replicated. First derivatives in reverse mode only: others raise.

    Raises:
        TypeError: as `xent.cross_entropy`, and for a shard or a group that is none.
        ValueError: as `xent.cross_entropy`; on every process, calls that differ between processes,
            and shards that are not all classes in the order of ranks.
        IndexError: as `xent.cross_entropy`.
        RuntimeError: a process did not make the call within the group's timeout, or died, or has
            other class indices.

    >>> import torch, torch.distributed as dist
    >>> from xent.parallel import Shard, cross_entropy
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> shard = Shard(dist.group.WORLD, first=0, classes=3)
    >>> cross_entropy(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([0]), shard=shard)
    tensor(0.4170)
    >>> dist.destroy_process_group()
    """
    spec = Spec(
        function="parallel.cross_entropy",
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        logit_scale=logit_scale,
        normalizer=normalizer,
        axis=axis,
    )
    call = calls.of_logits(logits, target, weight, shard, rows, spec)
    return calls.loss_of_logits(call, spec, plan)


def linear_cross_entropy(
    hidden: Tensor,
    linear_weight: Tensor | LowRank,
    target: Tensor,
    *,
    shard: Shard | None = None,
    rows: ProcessGroup | Sequence[ProcessGroup] | None = None,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    shift: int = 0,
    plan: Plan | None = None,
) -> Tensor:
    """`xent.linear_cross_entropy` of a head whose classes, or rows, are split over processes.

    As `cross_entropy` here: the same loss on every process, in nats, and no logits stored. Classes
    take one collective forward, and one backward where the gradient of hidden states is wanted:
    their sum over processes, of N D numbers in the dtype of products, while the gradient by the
    weights is computed.

    Args:
        hidden: (..., D), the same on each process of the shard's group; or a DTensor, replicated or
            sharded by rows.
        linear_weight: (C, D), or a `LowRank` of which `a` is whole and `weight` and `b` are those
            of the classes here; or a DTensor (V, D), sharded by classes or replicated.
        target: class indices of all classes, the same on each process of the shard's group; or
            probabilities (..., C) of the classes here.
        shard: which classes these are; with a DTensor none is given.
        rows: the groups that rows are split over.
        linear_bias: (C,).
        weight: the weight of each class, (C,) of those here or (V,) of all.
        ignore_index: the class index of rows that take no part.
        reduction: "mean", "sum" or "none".
        label_smoothing: e in [0, 1].
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        shift: how many places later a hidden state's target is, for sequences that are whole here.
        plan: how to compute; see `xent.Plan`.

    Returns:
        The loss, or that of each row; a DTensor where linear_weight is one. First derivatives in
        reverse mode only.

    Raises:
        TypeError: as `cross_entropy`.
        ValueError: as `cross_entropy`.
        IndexError: as `cross_entropy`.
        RuntimeError: as `cross_entropy`.

    >>> import torch, torch.distributed as dist
    >>> from xent.parallel import Shard, linear_cross_entropy
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> shard = Shard(dist.group.WORLD, first=0, classes=2)
    >>> linear_cross_entropy(torch.ones(1, 2), torch.eye(2), torch.tensor([0]), shard=shard)
    tensor(0.6931)
    >>> dist.destroy_process_group()
    """
    spec = Spec(
        function="parallel.linear_cross_entropy",
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        logit_scale=logit_scale,
        normalizer=normalizer,
    )
    arrays = hidden, linear_weight, target, linear_bias, weight
    call = calls.of_head(arrays, shard, rows, spec, shift)
    return calls.loss_of_head(call, spec, shift, plan)


def token_statistics(
    logits: Tensor,
    target: Tensor,
    *,
    shard: Shard | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    axis: int | None = None,
    plan: Plan | None = None,
) -> TokenStatistics:
    """`xent.token_statistics` of logits whose classes are split over processes.

    Args:
        logits: as for `cross_entropy`.
        target: class indices of all classes, the same on each process of the shard's group.
        shard: which classes these are; with a DTensor none is given.
        ignore_index: the class index of rows that take no part: all their statistics are 0.
        softcap: c in c tanh(logits / c), applied to the scaled logits.
        logit_scale: factor of the logits.
        axis: the class axis. None is torch's rule: 1, or 0 for a single row.
        plan: how to compute; see `xent.Plan`.

    Returns:
        The log-probability of the target, entropy, log-sum-exp and argmax of each row over all
        classes, the same bits on every process.

    Raises:
        TypeError: as `cross_entropy`.
        ValueError: as `cross_entropy`.
        IndexError: as `cross_entropy`.
        RuntimeError: as `cross_entropy`.

    >>> import torch, torch.distributed as dist
    >>> from xent.parallel import Shard, token_statistics
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> shard = Shard(dist.group.WORLD, first=0, classes=2)
    >>> token_statistics(torch.zeros(1, 2), torch.tensor([0]), shard=shard).entropy
    tensor([0.6931])
    >>> dist.destroy_process_group()
    """
    spec = Spec(
        function="parallel.token_statistics",
        ignore_index=ignore_index,
        softcap=softcap,
        logit_scale=logit_scale,
        axis=axis,
    )
    call = calls.of_logits(logits, target, None, shard, None, spec)
    return calls.told_of_logits(call, spec, plan)


def linear_token_statistics(
    hidden: Tensor,
    linear_weight: Tensor | LowRank,
    target: Tensor,
    *,
    shard: Shard | None = None,
    linear_bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    shift: int = 0,
    plan: Plan | None = None,
) -> TokenStatistics:
    """`xent.linear_token_statistics` of a head whose classes are split over processes.

    Args:
        hidden: as for `linear_cross_entropy`, like all that follow.
        linear_weight: (C, D), a `LowRank` or a DTensor.
        target: class indices of all classes.
        shard: which classes these are; with a DTensor none is given.
        linear_bias: (C,).
        ignore_index: the class index of rows that take no part: all their statistics are 0.
        softcap: c in c tanh(logits / c), applied to the scaled logits.
        logit_scale: factor of the logits.
        shift: how many places later a hidden state's target is, for sequences that are whole here.
        plan: how to compute; see `xent.Plan`.

    Returns:
        As `token_statistics`.

    Raises:
        TypeError: as `cross_entropy`.
        ValueError: as `cross_entropy`.
        IndexError: as `cross_entropy`.
        RuntimeError: as `cross_entropy`.

    >>> import torch, torch.distributed as dist
    >>> from xent.parallel import Shard, linear_token_statistics
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> shard = Shard(dist.group.WORLD, first=0, classes=2)
    >>> hidden, target = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    >>> linear_token_statistics(hidden, torch.eye(2), target, shard=shard).argmax
    tensor([1])
    >>> dist.destroy_process_group()
    """
    spec = Spec(
        function="parallel.linear_token_statistics",
        ignore_index=ignore_index,
        softcap=softcap,
        logit_scale=logit_scale,
    )
    arrays = hidden, linear_weight, target, linear_bias, None
    call = calls.of_head(arrays, shard, None, spec, shift)
    return calls.told_of_head(call, spec, shift, plan)
