"""What a loss and its gradient are when computed one way or another, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xent.conformance.draws import Array, Case, one_hot


@dataclass(frozen=True)
class Way:
    """How a loss and its gradient are computed, the right way where nothing else is said."""

    base: float = 1.0  # losses are divided by it
    sign: float = 1.0
    softmax: str = "classes"  # or "last", "rows", "all": what it sums over
    twice: bool = False  # softmax of softmax
    sigmoid: bool = False  # each class on its own
    probabilities: bool = False  # logits are taken for probabilities
    accuracy: bool = False  # minus the probability, no logarithm
    divisor: str = "kept weight"  # or "kept", "rows", "entries", "first axis", "one", ...
    weight: str = "target"  # or "none", "row", "twice"
    smoothing: str = "all"  # or "others", "target", "none", "kept"
    smoothed_weight: str = "class"  # or "target"
    ignored: str = "rows"  # or "kept", "wrapped", "first": taken for class 0
    shift: int = 0  # of the labels
    mass: str = "sum"  # or "one": of a soft target, in lse
    argmax: bool = False  # a soft target is taken for its likeliest class
    z_loss: str = "squared"  # or "none", "lse", "unweighted": what is added of lse
    softcap: str = "scaled"  # or "none", "before": capped, then scaled
    logit_scale: str = "factor"  # or "none", "divisor"
    normalizer: str = "used"  # or "none", "on top": of the mean's own divisor


@dataclass(frozen=True)
class Slope(Way):
    """A gradient that is wrong where the loss is right."""

    factor: str = ""  # "rows", "1/rows", "double", "minus", "zero", "half"
    upstream: str = "used"  # or "ignored", "columns", "averaged", "twice"
    column: bool = False  # the ignored class's column is zeroed, instead of the ignored rows
    undivided: bool = False  # probabilities are divided by N, the one-hot target is not
    hot: str = "batch"  # "present": classes counted by the largest label; "constant": no softmax
    of_cap: bool = True  # the softcap's own slope
    of_scale: bool = True  # the factor logit_scale
    of_square: bool = True  # the 2 of lse^2


def answer(case: Case, way: Way) -> tuple[Array, Array]:
    """The loss and the gradient of a case when computed this way, in float64."""
    with np.errstate(all="ignore"):
        given, target = _rows(case)
        logits, slope = _transformed(case, way, given)
        rows, classes = logits.shape
        kept = np.ones(rows, bool)
        if not case.soft:
            ignore = -100 if case.ignore_index is None else case.ignore_index
            kept = target != ignore
        q, w_row = _measure(case, way, target, kept, classes)
        weight = np.ones(classes) if case.weight is None else case.weight
        t = q * _class_weight(case, way, weight, w_row, rows)
        p, log_p = _softmax(case, way, logits)
        mass = np.ones(rows) if way.mass == "one" and case.soft else t.sum(1)
        losses = -np.sum(np.where(t == 0, 0.0, t * log_p), 1)
        if way.mass == "one" and case.soft:
            losses = np.log(np.exp(logits).sum(1)) - (t * logits).sum(1)
        if way.accuracy:
            losses = -np.sum(t * p, 1)
        square, pull = _z_loss(case, way, logits, w_row)
        losses = way.sign * losses / way.base + square
        counts = kept if way.ignored == "rows" else np.ones(rows, bool)
        losses, share = np.where(counts, losses, 0.0), np.where(counts, w_row, 0.0)
        divisor = _divisor(case, way, share, counts, kept, w_row, t)
        loss = losses.sum() / divisor if case.reduction != "none" else losses
        gradient = way.sign * (mass[:, None] * p - t) / way.base
        if way.accuracy:
            gradient = way.sign * (p * ((t * p).sum(1) / 1.0)[:, None] - t * p)
        gradient = gradient + pull[:, None] * p
        if isinstance(way, Slope):
            gradient = _sloped(case, way, gradient, p, t, divisor, target)
        gradient = gradient * slope
        gradient = np.where(counts[:, None], gradient, 0.0)
        gradient = gradient * _scale(case, way, divisor, rows, classes)
        return _shaped(case, loss), _unrowed(case, gradient)


def _rows(case: Case) -> tuple[Array, Array]:
    logits = case.logits if case.logits.ndim > 1 else case.logits[None]
    moved = np.moveaxis(logits, 1, -1)
    classes = moved.shape[-1]
    if not case.soft:
        return moved.reshape(-1, classes), case.target.reshape(-1)
    target = case.target if case.logits.ndim > 1 else case.target[None]
    return moved.reshape(-1, classes), np.moveaxis(target, 1, -1).reshape(-1, classes)


def _transformed(case: Case, way: Way, x: Array) -> tuple[Array, Array]:
    """The logits scaled and capped, and the derivative of that."""
    scale = 1.0 if case.logit_scale is None else case.logit_scale
    scale = {"none": 1.0, "divisor": 1 / scale}.get(way.logit_scale, scale)
    factor = scale if not isinstance(way, Slope) or way.of_scale else 1.0
    if case.softcap is None or way.softcap == "none":
        return scale * x, factor * np.ones_like(x)
    before = way.softcap == "before"
    bent = np.tanh(x * (1.0 if before else scale) / case.softcap)
    capped = case.softcap * bent * (scale if before else 1.0)
    slope = 1 - bent**2 if not isinstance(way, Slope) or way.of_cap else np.ones_like(x)
    return capped, factor * slope


def _z_loss(case: Case, way: Way, x: Array, w_row: Array) -> tuple[Array, Array]:
    """What z-loss adds to the rows' losses, and its derivative by lse."""
    if case.z_loss is None or way.z_loss == "none":
        return np.zeros(len(x)), np.zeros(len(x))
    top = x.max(1, initial=-np.inf)
    lse = top + np.log(np.exp(x - top[:, None]).sum(1))
    factor = case.z_loss * (1.0 if way.z_loss == "unweighted" else w_row)
    if way.z_loss == "lse":
        return factor * lse, factor * np.ones(len(x))
    two = 2.0 if not isinstance(way, Slope) or way.of_square else 1.0
    return factor * lse**2, two * factor * lse


def _shaped(case: Case, loss: Array) -> Array:
    if case.reduction != "none":
        return np.asarray(loss)
    shape = case.logits.shape[:1] + case.logits.shape[2:] if case.logits.ndim > 1 else ()
    return np.asarray(loss).reshape(shape)


def _unrowed(case: Case, gradient: Array) -> Array:
    if case.logits.ndim == 1:
        return gradient[0]
    shape = np.moveaxis(case.logits, 1, -1).shape
    return np.moveaxis(gradient.reshape(shape), -1, 1)


def _measure(case: Case, way: Way, target: Array, kept: Array, classes: int) -> tuple[Array, Array]:
    weight = np.ones(classes) if case.weight is None else case.weight
    if case.soft:
        given = one_hot(target.argmax(1), classes) if way.argmax else target
        row_weight = np.ones(len(target))
        if way.divisor == "soft weight":
            row_weight = (target * weight).sum(1)
    else:
        wraps = way.ignored not in ("rows", "first")
        labels = np.where(kept, target, target % classes if wraps else 0)
        labels = (labels + way.shift) % classes
        given, row_weight = one_hot(labels, classes), weight[labels]
    smoothing = case.label_smoothing or 0.0
    if way.smoothing == "none" or not smoothing:
        return given, row_weight
    if way.smoothing == "others":
        return (1 - smoothing) * given + (1 - given) * smoothing / max(classes - 1, 1), row_weight
    if way.smoothing == "target":
        return (1 - smoothing) * given + (1 - given) * smoothing / classes, row_weight
    if way.smoothing == "kept":
        return given + smoothing / classes, row_weight
    return (1 - smoothing) * given + smoothing / classes, row_weight


def _class_weight(case: Case, way: Way, weight: Array, w_row: Array, rows: int) -> Array:
    if way.weight == "none" or case.weight is None:
        return np.ones(len(weight))
    if way.weight == "row":
        return np.resize(weight, rows)[:, None]
    if way.weight == "twice":
        return weight**2
    return w_row[:, None] if way.smoothed_weight == "target" else weight


def _softmax(case: Case, way: Way, x: Array) -> tuple[Array, Array]:
    if way.sigmoid:
        return 1 / (1 + np.exp(-x)), -np.log1p(np.exp(-x))
    if way.probabilities:
        return x, np.log(x)
    if way.softmax in ("rows", "all"):
        axis = 0 if way.softmax == "rows" else None
    elif way.softmax == "last" and case.logits.ndim > 2:
        moved = np.moveaxis(case.logits, 1, -1).shape
        cube = x.reshape(moved)
        log_p = cube - np.log(np.exp(cube).sum(-2, keepdims=True))
        return np.exp(log_p).reshape(x.shape), log_p.reshape(x.shape)
    else:
        axis = 1
    log_p = x
    for _ in range(2 if way.twice else 1):
        top = x.max(axis, keepdims=True, initial=-np.inf)
        log_p = x - top - np.log(np.exp(x - top).sum(axis, keepdims=True))
        x = np.exp(log_p)
    return np.exp(log_p), log_p


def _divisor(
    case: Case, way: Way, share: Array, counts: Array, kept: Array, w_row: Array, t: Array
) -> float:
    if case.reduction == "none" and way.divisor != "always":
        return 1.0
    if case.reduction == "sum" and way.divisor != "always":
        return 1.0
    if case.normalizer is not None and way.normalizer == "used" and way.divisor == "kept weight":
        return case.normalizer
    weight = np.ones(t.shape[1]) if case.weight is None else case.weight
    found = {
        "rows": len(counts),
        "kept": counts.sum(),
        "only kept": np.where(kept, w_row, 0.0).sum(),
        "all weight": w_row.sum(),
        "weights": weight.sum(),
        "entries": t.size,
        "V": t.shape[1],
        "one": 1.0,
        "first axis": len(case.logits),
        "mass": np.where(counts, t.sum(1), 0.0).sum(),
    }
    own = float(found.get(way.divisor, share.sum()))
    both = case.normalizer is not None and way.normalizer == "on top"
    return own * float(case.normalizer or 1.0) if both else own


def _scale(case: Case, way: Way, divisor: float, rows: int, classes: int) -> Array:
    upstream = np.asarray(1.0 if case.upstream is None else case.upstream, float)
    choice = way.upstream if isinstance(way, Slope) else "used"
    if choice == "ignored":
        upstream = np.ones(())
    elif choice == "averaged":
        upstream = np.asarray(upstream.mean())
    elif choice == "twice":
        upstream = upstream**2
    elif choice == "columns" and upstream.size == classes:
        return upstream.reshape(1, -1) / divisor
    return (
        np.broadcast_to(upstream.reshape(-1) if upstream.ndim else upstream, (rows,))[:, None]
        / divisor
    )


def _sloped(
    case: Case, way: Slope, g: Array, p: Array, t: Array, divisor: float, target: Array
) -> Array:
    classes = g.shape[1]
    mean = case.reduction == "mean"
    factors = {"rows": divisor, "1/rows": 1 / divisor} if mean else {}
    factors |= {"minus": -1.0, "zero": 0.0, "half": 0.5, "double": 2.0}
    g = g * factors.get(way.factor, 1.0)
    if way.column and not case.soft:
        column = -100 if case.ignore_index is None else case.ignore_index
        if -classes <= column < classes:
            hot = t.copy()
            hot[:, column] = 0.0
            g = hot.sum(1, keepdims=True) * p - hot
    if way.undivided and mean:
        g = p - t * divisor
    if way.hot == "constant":
        g = -t
    if way.hot == "present" and not case.soft and (target == 0).all():
        g = p - np.ones_like(p)  # one_hot has one column, which broadcasts
    return g
