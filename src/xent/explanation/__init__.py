"""A cross entropy told step by step: every formula with its numbers, forward and backward.

The numbers are those of xent's own functions, in float64; here they are only chosen (`batch.py`,
`told.py`), put into steps (`forward.py`, `backward.py`, `numerics.py`, `summary.py`) and shown
(`plain.py`, `terminal.py`, `html.py`, `latex.py`, `markdown.py`). What does the work is imported
when it is called for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xent.explanation.record import Explanation


def explain(
    logits: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    axis: int | None = None,
    rows: int = 6,
    classes: int = 6,
    lang: str = "en",
) -> Explanation:
    """How a cross entropy comes about: each step with its formula and its numbers, in nats.

    Forward from the shift by the maximum to the denominator of the mean, backward to the gradient
    of every entry, why the shift is safe, and what naive formulas give in float16, bfloat16 and
    float32. Of a batch of more rows than `rows` it tells how the losses are distributed, which rows
    are the worst and why, and the steps for these. A large batch is read once, a block at a time.

    Args:
        logits: (N, V), (N, V, d1, ..., dk) or (V,), as for `cross_entropy`, like all that follows.
        target: class indices or class probabilities.
        weight: (V,) weight of each class.
        ignore_index: the class index of rows that take no part.
        reduction: "mean", "sum" or "none".
        label_smoothing: e in [0, 1].
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        axis: the class axis.
        rows: how many rows to show, the worst where there are more.
        classes: how many classes to show: targets and the likeliest where there are more.
        lang: "en" for English, "ko" for Korean.

    Returns:
        An `Explanation`: its `steps` as data, `loss` and `gradient`. It prints as plain text, in
        colour by rich, and as HTML, LaTeX or Markdown in a notebook.

    Raises:
        TypeError: as `cross_entropy`.
        ValueError: as `cross_entropy`; no rows or classes, or a language that is not known.
        IndexError: as `cross_entropy`.

    >>> import numpy as np, xent
    >>> told = xent.explain(np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), [1, 0])
    >>> print(told["denominator"].worked[0])
    D = 1 + 1 = 2
    >>> print(told["loss"].worked[0])
    L = (1.4170 + 2.6200) / 2 = 2.0185
    """
    asked = dict(locals())
    from xent.explanation.record import explanation

    return explanation(asked)
