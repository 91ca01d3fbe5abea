"""A vocabulary, or rows, split over processes: the losses of xent on torch.distributed alone."""

from xent.parallel.functions import (
    cross_entropy,
    linear_cross_entropy,
    linear_token_statistics,
    token_statistics,
)
from xent.parallel.shard import Shard, balanced, equal
from xent.parallel.styles import VocabParallel

__all__ = [
    "Shard",
    "VocabParallel",
    "balanced",
    "cross_entropy",
    "equal",
    "linear_cross_entropy",
    "linear_token_statistics",
    "token_statistics",
]
