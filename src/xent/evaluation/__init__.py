"""Saved predictions, read a piece at a time: how good they are, and how far two sets differ.

The numbers of a row come from one pass of the compiled kernel (`rows.py`); everything else is a sum
over rows, taken over blocks whose size depends on the number of classes alone and added up exactly
enough that neither the size of a piece nor the number of threads or processes changes a digit.
What does the work is imported when it is called for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xent.evaluation.paired import Comparison
    from xent.evaluation.single import Evaluation


def evaluate(
    predictions: Any,
    target: Any,
    *,
    kind: str = "auto",
    axis: int = -1,
    ignore_index: int = -100,
    weight: Any = None,
    row_weight: Any = None,
    label_smoothing: float = 0.0,
    base: int | None = None,
    indices: Any = None,
    classes: int | None = None,
    group: Any = None,
    bootstrap: int = 0,
    seed: int = 0,
    top: int = 5,
    bins: int = 15,
    worst: int = 10,
    temperature: str = "sample",
    skip_bad: bool = False,
    chunk_mb: float = 64.0,
    tick: Callable[[int, int, int], object] | None = None,
) -> Evaluation:
    """How good saved predictions are: loss and its error, accuracy, calibration, the worst rows.

    Files are read a piece at a time and may be larger than memory; the numbers are the same for
    every size of a piece and any number of threads or processes. Under torchrun the processes share
    the rows, and each is told everything.

    Args:
        predictions: (N, V), or with more axes, as an array or a file: .npy, .npz:KEY,
            .safetensors:KEY, .csv, .tsv, .parquet:COLUMN, .arrow:COLUMN, or "-" for .csv on stdin.
        target: (N,) class indices, an array or a file.
        kind: "logits", "probabilities", "log-probabilities", "top-k", or "auto" to tell the first
            three apart by their sums.
        axis: the class axis of the predictions.
        ignore_index: the target of rows that take no part.
        weight: (V,) weight of each class in the loss, as torch's.
        row_weight: (N,) weight of each row in every mean.
        label_smoothing: e in [0, 1].
        base: 2 for bits in place of nats.
        indices: (N, k) classes of the log-probabilities (N, k) in `predictions`, for "top-k"; what
            they leave of a row's probability is shared by the other classes.
        classes: V, for "top-k".
        group: (N,) labels, numbers or texts, of groups within which rows vary together, such as
            documents.
        bootstrap: how many means to draw for the interval; 0 for the normal's.
        seed: of these draws.
        top: k of the top-k accuracy.
        bins: how many bins of confidence there are, all of one width.
        worst: how many of the rows of largest loss to list.
        temperature: "sample" fits it to at most 2^14 rows and 2^22 logits, evenly spaced, "all" to
            all rows in some five more passes, "none" leaves it out.
        skip_bad: count and list broken rows in place of raising.
        chunk_mb: MiB of memory that the predictions may take.
        tick: called with rows done, rows in all and bytes of a row.

    Returns:
        An `Evaluation`: a record of numbers, whose `str` is the report of `xent evaluate`.

    Raises:
        FileNotFoundError: a file is not there.
        TypeError: numbers of the wrong dtype.
        ValueError: a file, shape or option that is wrong, or a row that is no prediction.
        IndexError: a target that is no class.

    >>> import numpy as np, xent
    >>> told = xent.evaluate(np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), np.array([1, 1]))
    >>> round(told.loss, 4), told.accuracy, told.kind
    (1.0685, 0.5, 'logits')
    """
    asked = {name: value for name, value in locals().items() if name != "tick"}
    from xent.evaluation.single import evaluation

    return evaluation(asked, tick)


def compare(
    base: Any,
    new: Any,
    target: Any,
    *,
    kind: str = "auto",
    axis: int = -1,
    ignore_index: int = -100,
    unit_base: int | None = None,
    group: Any = None,
    skip_bad: bool = False,
    chunk_mb: float = 64.0,
    tick: Callable[[int, int, int], object] | None = None,
) -> Comparison:
    """How far new predictions are from those they are to replace: a quantized model's, say.

    KL divergence of the new distribution from the base's, the change of the target's probability,
    how often the likeliest class is the same, and the paired difference of the losses. A row's
    divergence is computed in float64 as a sum of terms that are not negative, so that a small one
    keeps its digits. 24 bytes are kept for each row, for the percentiles; of the predictions no
    more than `chunk_mb`.

    Args:
        base: (N, V), an array or a file as for `evaluate`.
        new: the same of the predictions to judge, of that shape.
        target: (N,) class indices, an array or a file.
        kind: "logits", "probabilities", "log-probabilities", or "auto"; each set for itself.
        axis: the class axis.
        ignore_index: the target of rows that take no part.
        unit_base: 2 for bits in place of nats.
        group: (N,) labels, numbers or texts, of groups within which rows vary together.
        skip_bad: count and list broken rows in place of raising.
        chunk_mb: MiB of memory that the predictions may take.
        tick: called with rows done, rows in all and bytes of a row.

    Returns:
        A `Comparison`: a record of numbers, whose `str` is the report of `xent compare`.

    Raises:
        FileNotFoundError: a file is not there.
        TypeError: numbers of the wrong dtype.
        ValueError: a file, shape or option that is wrong, or a row that is no prediction.
        IndexError: a target that is no class.

    >>> import numpy as np, xent
    >>> logits, target = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), np.array([0, 1])
    >>> told = xent.compare(logits, logits / 2, target)
    >>> round(told.kl.mean, 4), told.same_top.mean
    (0.048, 1.0)
    """
    asked = {name: value for name, value in locals().items() if name != "tick"}
    from xent.evaluation.paired import comparison

    return comparison(asked, tick)
