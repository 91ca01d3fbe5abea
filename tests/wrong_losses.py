"""Losses that are wrong on purpose, one for each known mistake, and right ones beside them.

`cross_entropy` is right: float64 arithmetic on torch tensors, rounded once. A wrong loss is that
with one step replaced. `WRONG` has them all, each with the check written for its mistake and the
cause that the report has to lead with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def log_softmax(x: Tensor) -> Tensor:
    """Axis 1, the largest term left out of the sum, and its derivative out of the others'."""
    k = x.detach().argmax(1, keepdim=True)
    at_k = torch.zeros_like(x, dtype=torch.bool).scatter(1, k, True)
    top = x.gather(1, k)
    z = torch.where(at_k, 0.0, x - top)
    log_p = z - torch.log1p(torch.where(at_k, -torch.inf, z).exp().sum(1, keepdim=True))
    return log_p + (top - top).detach()  # nan, where the largest is infinite


def check(x: Tensor, y: Tensor, w: Tensor | None, ignore_index: int, smoothing: float) -> None:
    classes = x.shape[0 if x.ndim == 1 else 1]
    if y.is_floating_point():
        if y.shape != x.shape:
            raise ValueError("probabilities have the shape of the logits")
        if ignore_index >= 0:
            raise ValueError("probabilities ignore no class")
    elif y.shape != x.shape[:1] * (x.ndim > 1) + x.shape[2:]:
        raise ValueError("one target for each row")
    else:
        off = (y != ignore_index) & ((y < 0) | (y >= classes))
        if off.any():
            row = int(off.reshape(-1).nonzero()[0])
            raise IndexError(f"target {int(y.reshape(-1)[row])} in row {row}")
    if w is not None and w.shape != (classes,):
        raise ValueError("one weight for each class")
    if not 0 <= smoothing <= 1:
        raise ValueError("label_smoothing in [0, 1]")


def hot(y: Tensor, classes: int) -> Tensor:
    return F.one_hot(y, classes).double()


def uniform(q: Tensor, smoothing: float) -> Tensor:
    return (1 - smoothing) * q + smoothing / q.shape[1]


def product(t: Tensor, log_p: Tensor) -> Tensor:
    return -torch.where(t == 0, 0.0, t * log_p).sum(1)


def divided(total: Tensor, weights: Tensor, rows: int, soft: bool) -> Tensor:
    return total / (rows if soft else weights.sum())


def result_dtype(logits: Tensor) -> torch.dtype:
    """That of the logits; float32 where autocast is on."""
    half = logits.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half and torch.is_autocast_enabled("cpu") else logits.dtype


@dataclass(frozen=True)
class Steps:
    """What a loss is made of; a mistake replaces one of them."""

    check: Callable[..., None] = check
    cast: Callable[[Tensor], Tensor] = Tensor.double
    labels: Callable[[Tensor], Tensor] = lambda y: y
    kept: Callable[[Tensor, int], Tensor] = lambda y, ignore: y != ignore
    log_softmax: Callable[[Tensor], Tensor] = log_softmax
    smooth: Callable[[Tensor, float], Tensor] = uniform
    weighted: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda q, w, row: q * w
    row: Callable[[Tensor, Tensor], Tensor] = product
    ignore: Callable[[Tensor, Tensor], Tensor] = lambda loss, kept: torch.where(kept, loss, 0.0)
    mean: Callable[[Tensor, Tensor, int, bool], Tensor] = divided
    reductions: tuple[str, ...] = ("none", "sum", "mean")
    out: Callable[[Tensor], Tensor] = lambda loss: loss
    moved: Callable[[Tensor], Tensor] = lambda x: x.movedim(1, -1).reshape(-1, x.shape[1])


def loss_of(steps: Steps) -> Callable[..., Tensor]:
    """The loss that is made of these steps."""

    def cross_entropy(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        steps.check(logits, target, weight, ignore_index, label_smoothing)
        if reduction not in steps.reductions:
            raise ValueError(f"reduction {reduction!r}")
        if not logits.is_floating_point():
            raise TypeError("logits are floating")
        single = logits.ndim == 1
        x = steps.cast(logits[None] if single else logits)
        soft = target.is_floating_point()
        shape = x.shape[:1] + x.shape[2:]
        rows = steps.moved(x)
        if not rows.shape[1]:
            return rows.sum() / (0 if soft and reduction == "mean" else 1)
        w = torch.ones(rows.shape[1], dtype=x.dtype) if weight is None else weight.to(x.dtype)
        if soft:
            y = target[None] if single else target
            q, kept = y.double().movedim(1, -1).reshape(rows.shape), rows.new_ones(len(rows)) > 0
            row_weight = rows.new_ones(len(rows))
        else:
            y = target.reshape(-1).long()
            kept = steps.kept(y, ignore_index)
            y = steps.labels(torch.where(kept, y, 0))
            q, row_weight = hot(y, rows.shape[1]), torch.where(kept, w[y], 0.0)
        rows = torch.where(kept[:, None], rows, 0.0)
        q = steps.smooth(q, label_smoothing) if label_smoothing else q
        t = steps.weighted(q, w, row_weight[:, None]) if weight is not None else q
        loss = steps.ignore(steps.row(t, steps.log_softmax(rows)), kept)
        if reduction == "none":
            loss = loss.reshape(() if single else shape)
        elif reduction == "sum":
            loss = loss.sum()
        else:
            loss = steps.mean(loss.sum(), row_weight, len(rows), soft)
        return steps.out(loss).to(result_dtype(logits))

    return cross_entropy


cross_entropy = loss_of(Steps())


@dataclass(frozen=True)
class Wrong:
    """A wrong loss, the check written for its mistake, and the cause that it must lead with."""

    name: str
    loss: Any
    check: str
    cause: str
    adapter: str | None = None

    def __repr__(self) -> str:
        return self.name


WRONG: list[Wrong] = []


def step(name: str, by: str, cause: str, **steps: Any) -> None:
    WRONG.append(Wrong(name, loss_of(replace(Steps(), **steps)), by, cause))


def wrong(check: str, cause: str, adapter: str | None = None) -> Callable[[Any], Any]:
    def add(loss: Any) -> Any:
        WRONG.append(Wrong(loss.__name__, loss, check, cause, adapter))
        return loss

    return add


# What is added up, and what it is divided by
step("sign", "value.rows", "sign", row=lambda t, lp: (t * lp).sum(1))
step("bits", "value.rows", "bits", out=lambda loss: loss / np.log(2.0))
step("decades", "value.rows", "log10", out=lambda loss: loss / np.log(10.0))
step("no_log", "value.rows", "no_log", row=lambda t, lp: -(t * lp.exp()).sum(1))
step("rows", "value.ignore_mean", "divided_by_rows", mean=lambda s, w, n, soft: s / n)
step(
    "kept_rows",
    "value.weight_mean",
    "divided_by_kept_rows",
    mean=lambda s, w, n, soft: s / (n if soft else (w > 0).sum()),
)
step("sum_as_mean", "value.mean", "sum_for_mean", mean=lambda s, w, n, soft: s)

# The softmax
step(
    "twice", "value.rows", "softmax_twice", log_softmax=lambda x: log_softmax(log_softmax(x).exp())
)
step("over_rows", "value.rows", "softmax_over_rows", log_softmax=lambda x: x.log_softmax(0))
step(
    "over_all",
    "value.rows",
    "softmax_over_all",
    log_softmax=lambda x: x - x.flatten().logsumexp(0),
)
step("sigmoid", "value.rows", "sigmoid", log_softmax=F.logsigmoid)

# Class weights
step("no_weight", "value.weight_rows", "weight_not_used", weighted=lambda q, w, row: q)
step("weight_twice", "value.weight_rows", "weight_twice", weighted=lambda q, w, row: q * w * w)
step(
    "weight_of_row",
    "value.weight_rows",
    "weight_by_row",
    weighted=lambda q, w, row: q * torch.from_numpy(np.resize(w.numpy(), len(q)))[:, None],
)

# Label smoothing
step(
    "others",
    "value.smoothing",
    "smoothing_over_others",
    smooth=lambda q, s: (1 - s) * q + (1 - q) * s / (q.shape[1] - 1),
)
step(
    "target_alone",
    "value.smoothing",
    "smoothing_without_target",
    smooth=lambda q, s: (1 - s) * q + (1 - q) * s / q.shape[1],
)
step("on_top", "value.smoothing", "smoothing_on_top", smooth=lambda q, s: q + s / q.shape[1])
step("no_smoothing", "value.smoothing", "smoothing_not_used", smooth=lambda q, s: q)
step(
    "target_weight",
    "value.smoothing_weight",
    "smoothing_weight_of_target",
    weighted=lambda q, w, row: torch.where((q.sum(1) > 0)[:, None] & (row > 0), q * row, q * w),
)


# Stability, in the logits' own format
def shifted(x: Tensor) -> Tensor:
    return x - x.detach().amax(1, keepdim=True)


step(
    "unshifted",
    "stable.overflow",
    "exp_unshifted",
    log_softmax=lambda x: x - x.exp().sum(1, keepdim=True).log(),
)
step(
    "log_of_softmax", "stable.underflow", "log_of_softmax", log_softmax=lambda x: x.softmax(1).log()
)
step(
    "epsilon",
    "stable.underflow",
    "epsilon_in_log",
    log_softmax=lambda x: (x.softmax(1) + 1e-12).log(),
)
step(
    "batch_maximum",
    "stable.rows_apart",
    "shift_of_the_batch",
    log_softmax=lambda x: (x - x.max()) - (x - x.max()).exp().sum(1, keepdim=True).log(),
)
step("zero_times", "stable.masked_class", "zero_times_infinity", row=lambda t, lp: -(t * lp).sum(1))
step(
    "log_one_plus",
    "accuracy.tiny_loss_float64",
    "log_one_plus",
    log_softmax=lambda x: shifted(x) - shifted(x).exp().sum(1, keepdim=True).log(),
)


def others_alone(x: Tensor) -> Tensor:
    """The largest is taken for 0 away from itself, an infinite one too."""
    k = x.detach().argmax(1, keepdim=True)
    at_k = torch.zeros_like(x, dtype=torch.bool).scatter(1, k, True)
    z = torch.where(at_k, 0.0, x - x.gather(1, k))
    return z - torch.log1p(torch.where(at_k, -torch.inf, z).exp().sum(1, keepdim=True))


step("hides_infinity", "stable.infinite", "hides_nan", log_softmax=others_alone)


@wrong("dtype.float64", "float32_inside")
def float32_inside(logits, target, reduction="mean"):
    return cross_entropy(logits.float(), target, reduction=reduction).to(logits.dtype)


@wrong("stable.shift_float32", "lse_minus_target")
def lse_minus_target(logits, target):
    check(logits, target, None, -100, 0.0)
    return (logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]).mean()


@wrong("stable.nan", "hides_nan")
def hides_nan(logits, target, reduction="mean"):
    return cross_entropy(logits, target, reduction=reduction).nan_to_num(0.0)


# Labels and shapes
@wrong("value.rows", "labels_plus_one")
def off_by_one(logits, target, reduction="mean"):
    return cross_entropy(logits, (target + 1) % logits.shape[1], reduction=reduction)


@wrong("bad.target_negative", "label_wraps")
def wraps(logits, target):
    check(logits, target.clamp(min=0), None, -100, 0.0)
    if logits.ndim != 2:
        raise ValueError("logits (N, V)")
    log_p = log_softmax(logits.double())
    return -log_p[torch.arange(len(logits)), target].mean().to(logits.dtype)


@wrong("bad.stray_ignored", "stray_label")
def stray(logits, target, ignore_index=-100):
    y = torch.where(target < 0, ignore_index, target) if not target.is_floating_point() else target
    return cross_entropy(logits, y, ignore_index=ignore_index)


@wrong("bad.target_column", "broadcasts")
def broadcasts(logits, target):
    at_target = target.reshape(-1, 1) == torch.arange(logits.shape[1])
    picked = torch.where(at_target, log_softmax(logits.double()), 0.0)
    if len(target) != len(logits):
        raise ValueError("one target for each row")
    check(logits, target.reshape(-1), None, -100, 0.0)
    return -picked.sum(1).mean().to(logits.dtype)


@wrong("bad.float_labels", "truncates_labels")
def truncates(logits, target):
    return cross_entropy(logits, target.long())


@wrong("bad.reduction", "unknown_reduction")
def any_reduction(logits, target, reduction="mean"):
    known = reduction if reduction in ("mean", "sum") else "none"
    return cross_entropy(logits, target, reduction=known)


@wrong("shape.extra_axes", "softmax_over_last")
def last_axis(logits, target):
    if logits.ndim == 2:
        return cross_entropy(logits, target)
    log_p = logits.double().log_softmax(-1)
    return -log_p.gather(1, target[:, None]).mean().to(logits.dtype)


@wrong("shape.result", "not_a_scalar")
def a_column(logits, target):
    return cross_entropy(logits, target).reshape(1)


@wrong("value.all_ignored", "empty_mean")
def zero_for_empty(logits, target, ignore_index=-100):
    loss = cross_entropy(logits, target, ignore_index=ignore_index)
    return loss.nan_to_num(0.0) if len(target) and (target == ignore_index).all() else loss


@wrong("value.soft_mass", "mass_of_one")
def one_lse(logits, target, reduction="mean"):
    if not target.is_floating_point():
        return cross_entropy(logits, target, reduction=reduction)
    rows = logits.double().logsumexp(1) - (target * logits).sum(1)
    return {"none": rows, "sum": rows.sum(), "mean": rows.mean()}[reduction].to(logits.dtype)


@wrong("value.soft_target", "argmax_of_target")
def likeliest(logits, target, reduction="mean"):
    y = target.argmax(1) if target.is_floating_point() else target
    return cross_entropy(logits, y, reduction=reduction)


# Backward
def backward(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss whose backward is softmax - one_hot, changed."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, target, ignore_index, reduction):
            ctx.save_for_backward(logits, target)
            ctx.options = ignore_index, reduction
            return cross_entropy(
                logits.detach(), target, ignore_index=ignore_index, reduction=reduction
            )

        @staticmethod
        def backward(ctx, upstream):
            logits, target = ctx.saved_tensors
            ignore_index, reduction = ctx.options
            kept = target != ignore_index
            y = hot(torch.where(kept, target, 0).long(), logits.shape[1])
            p = logits.double().softmax(1)
            n = kept.sum().clamp(min=1) if reduction == "mean" else 1
            found = change(p, y, kept[:, None], n, upstream, ignore_index)
            return found.to(logits.dtype), None, None, None

    def loss(logits, target, ignore_index=-100, reduction="mean"):
        if logits.ndim != 2:
            raise ValueError("logits (N, V)")
        return Loss.apply(logits, target, ignore_index, reduction)

    return loss


def up(upstream: Tensor) -> Tensor:
    return upstream[:, None] if upstream.ndim else upstream


BACKWARD: dict[str, tuple[str, str, Callable[..., Tensor]]] = {
    "gradient_of_sum": (
        "gradient.mean",
        "gradient_sum",
        lambda p, y, k, n, u, i: up(u) * (p - y) * k,
    ),
    "minus_gradient": (
        "gradient.mean",
        "gradient_sign",
        lambda p, y, k, n, u, i: up(u) * (y - p) * k / n,
    ),
    "no_upstream": (
        "gradient.upstream",
        "upstream_ignored",
        lambda p, y, k, n, u, i: (p - y) * k / n,
    ),
    "columns": (
        "gradient.square_batch",
        "upstream_columns",
        lambda p, y, k, n, u, i: (
            (u if u.ndim and len(u) == p.shape[1] else up(u)) * (p - y) * k / n
        ),
    ),
    "averaged": (
        "gradient.upstream_rows",
        "upstream_averaged",
        lambda p, y, k, n, u, i: u.mean() * (p - y) * k / n,
    ),
    "half_divided": (
        "gradient.mean",
        "one_hot_undivided",
        lambda p, y, k, n, u, i: up(u) * (p / n - y) * k,
    ),
    "column_zeroed": (
        "gradient.ignored_column",
        "ignored_column",
        lambda p, y, k, n, u, i: up(u) * zeroed(p, y, i) * k / n,
    ),
    "by_all_rows": (
        "gradient.ignore",
        "gradient_of_n_rows",
        lambda p, y, k, n, u, i: up(u) * (p - y) * k / (len(p) if torch.is_tensor(n) else 1),
    ),
    "ignored_trained": (
        "gradient.ignore",
        "gradient_of_ignored_rows",
        lambda p, y, k, n, u, i: up(u) * (p - y) / n,
    ),
    "constant_softmax": (
        "gradient.mean",
        "no_softmax_in_gradient",
        lambda p, y, k, n, u, i: -up(u) * y * k / n,
    ),
}


def zeroed(p: Tensor, y: Tensor, column: int) -> Tensor:
    y = y.clone()
    if -y.shape[1] <= column < y.shape[1]:
        y[:, column] = 0
    return y.sum(1, keepdim=True) * p - y


for _name, (_check, _cause, _change) in BACKWARD.items():
    WRONG.append(Wrong(_name, backward(_change), _check, _cause))


# Options that torch has not
def scaled_and_capped(x: Tensor, scale: float, cap: float | None) -> Tensor:
    return scale * x if cap is None else cap * torch.tanh(scale * x / cap)


def squared(lse: Tensor, row_weight: Tensor) -> Tensor:
    return row_weight * lse**2


def given_or_own(normalizer: float | None, own: Any) -> Any:
    return own if normalizer is None else normalizer


def with_options(
    bent: Callable[..., Tensor] = scaled_and_capped,
    added: Callable[..., Tensor] = squared,
    divisor: Callable[..., Any] = given_or_own,
) -> Callable[..., Tensor]:
    """A right loss with z-loss, softcap, scale and a given divisor, or with one of them changed."""

    def loss(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        reduction: str = "mean",
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        normalizer: float | None = None,
    ) -> Tensor:
        if normalizer is not None and reduction != "mean":
            raise ValueError(f"normalizer with reduction {reduction!r}")
        if not logits.is_floating_point():
            raise TypeError(f"logits are {logits.dtype}")
        x = bent(logits.double(), logit_scale, softcap)
        rows = cross_entropy(x, target, weight, reduction="none")
        w = torch.ones(x.shape[1]).double() if weight is None else weight.double()
        row_weight = torch.ones_like(rows) if target.is_floating_point() else w[target]
        rows = rows + z_loss * added(x.logsumexp(1), row_weight)
        if reduction == "mean":
            return (rows.sum() / divisor(normalizer, row_weight.sum())).to(logits.dtype)
        return {"none": rows, "sum": rows.sum()}[reduction].to(logits.dtype)

    return loss


def straight(value: Tensor, x: Tensor) -> Tensor:
    """The value, with the derivative of x."""
    return x + torch.where(x.isfinite(), value - x, 0.0).detach()


right_options = with_options()
for _name, _check, _cause, _change in (
    ("no_z_loss", "options.z_loss", "z_loss_not_used", {"added": lambda lse, w: 0 * lse}),
    ("lse_unsquared", "options.z_loss", "z_loss_not_squared", {"added": lambda lse, w: w * lse}),
    (
        "half_square",
        "options.z_loss_gradient",
        "z_loss_half_slope",
        {"added": lambda lse, w: w * lse * lse.detach()},
    ),
    (
        "z_unweighted",
        "options.z_loss_weight",
        "z_loss_unweighted",
        {"added": lambda lse, w: lse**2},
    ),
    ("no_softcap", "options.softcap", "softcap_not_used", {"bent": lambda x, s, c: s * x}),
    (
        "cap_then_scale",
        "options.capped_scale",
        "softcap_before_scale",
        {"bent": lambda x, s, c: s * scaled_and_capped(x, 1.0, c)},
    ),
    (
        "cap_without_slope",
        "options.softcap_gradient",
        "softcap_slope",
        {"bent": lambda x, s, c: straight(scaled_and_capped(x, s, c), s * x)},
    ),
    (
        "no_scale",
        "options.logit_scale",
        "scale_not_used",
        {"bent": lambda x, s, c: scaled_and_capped(x, 1.0, c)},
    ),
    (
        "temperature",
        "options.logit_scale",
        "scale_divides",
        {"bent": lambda x, s, c: scaled_and_capped(x, 1 / s, c)},
    ),
    (
        "scale_without_slope",
        "options.logit_scale_gradient",
        "scale_slope",
        {"bent": lambda x, s, c: straight(scaled_and_capped(x, s, c), x)},
    ),
    ("no_normalizer", "options.normalizer", "normalizer_not_used", {"divisor": lambda n, own: own}),
    (
        "both_divisors",
        "options.normalizer",
        "normalizer_on_top",
        {"divisor": lambda n, own: (n or 1) * own},
    ),
):
    WRONG.append(Wrong(_name, with_options(**_change), _check, _cause))


# Calls and derivatives
@wrong("calls.keeps_logits", "mutates_logits")
def in_place(logits, target):
    result = cross_entropy(logits, target)
    logits.data.sub_(logits.data.amax(-1, keepdim=True))
    return result


@wrong("calls.keeps_upstream", "mutates_upstream")
def upstream_in_place(logits, target):
    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, upstream):
            return (
                upstream.mul_(1.0)
                if upstream.numel() == 1 and upstream == 1
                else upstream.add_(0.5) - 0.5
            )

    return Times.apply(cross_entropy(logits, target))


class OneAtATime(torch.nn.Module):
    """Backward needs what the last forward left in a global."""

    kept: Any = None

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, target):
            OneAtATime.kept = logits.double().softmax(1) - hot(target, logits.shape[1])
            return cross_entropy(logits.detach(), target)

        @staticmethod
        def backward(ctx, upstream):
            return (upstream * OneAtATime.kept / len(OneAtATime.kept)).to(upstream.dtype), None

    def forward(self, logits, target):
        return self.Loss.apply(logits, target)


WRONG.append(Wrong("one_at_a_time", OneAtATime, "calls.two_in_flight", "keeps_one_call"))


class SavedGradient(torch.autograd.Function):
    """The gradient is made in forward, for a mean that is backpropagated alone."""

    @staticmethod
    def forward(ctx, logits, target):
        if logits.ndim != 2:  # where V = d, hot would broadcast: another mistake
            raise ValueError("logits have more than two axes")
        p = logits.double().softmax(1) - hot(target, logits.shape[1])
        ctx.save_for_backward((p / len(p)).to(logits.dtype))
        return cross_entropy(logits.detach(), target)


class ScaledAgain(SavedGradient):
    """It is multiplied in place by each upstream."""

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        gradient.data.mul_(upstream)
        return gradient, None


@wrong("calls.second_backward", "scaled_again")
def scaled_again(logits, target):
    return ScaledAgain.apply(logits, target)


class SavedSoftmax(SavedGradient):
    """The derivative of the gradient is silently 0."""

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0], None


@wrong("compose.autocast", "another_dtype")
def half_under_autocast(logits, target):
    return cross_entropy(logits, target).to(logits.dtype)


@wrong("compose.double_backward", "gradient_detached")
def saved_softmax(logits, target):
    return SavedSoftmax.apply(logits, target)


@wrong("gradient.mean", "detached")
def cut(logits, target):
    return cross_entropy(logits.detach(), target)


@wrong("calls.deterministic", "unseeded")
def noisy(logits, target):
    return cross_entropy(logits, target) * (1 + 1e-14 * np.random.default_rng().standard_normal())


@wrong("calls.settings", "global_state")
def reseeds(logits, target):
    torch.manual_seed(0)
    return cross_entropy(logits, target)


@wrong("memory.square", "square")
def square(logits, target):
    check(logits, target, None, -100, 0.0)
    log_p = log_softmax(logits)
    return (
        -(torch.diag(torch.ones(len(logits), dtype=logits.dtype)) @ log_p)
        .gather(1, target[:, None])
        .mean()
    )


# Arrays of NumPy
def stable(x: np.ndarray) -> np.ndarray:
    z = x - x.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def read(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target as probabilities; 2-D alone."""
    if logits.ndim != 2 or logits.dtype.kind != "f":
        raise ValueError("floating logits (N, V)")
    if target.shape == logits.shape and target.dtype.kind == "f":
        return target
    if target.shape != logits.shape[:1] or target.dtype.kind not in "iu":
        raise ValueError("one class for each row")
    off = np.flatnonzero((target < 0) | (target >= logits.shape[1]))
    if len(off):
        raise IndexError(f"target {target[off[0]]} in row {off[0]}")
    return np.eye(logits.shape[1])[target]


def summed(log_p: np.ndarray, target: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return -np.where(target == 0, 0.0, target * log_p).sum() / len(target)


@wrong("calls.twice", "runs_once", "numpy-class")
class RunsOnce:
    """A result has the name of a method."""

    def softmax(self, x):
        return np.exp(stable(x.astype(float)))

    def forward(self, logits, target):
        self.target = read(logits, target)
        self.softmax = self.softmax(logits)
        return summed(stable(logits.astype(float)), self.target).astype(logits.dtype)

    def backward(self, upstream=1.0):
        return upstream * (self.softmax - self.target) / len(self.target)


@wrong("gradient.soft_mass", "gradient_mass_of_one", "numpy-class")
class SoftmaxMinusTarget:
    """softmax - target, whatever the target adds up to."""

    def forward(self, logits, target):
        self.target = read(logits, target)
        self.log_p = stable(logits.astype(float))
        return summed(self.log_p, self.target).astype(logits.dtype)

    def backward(self, upstream=1.0):
        return upstream * (np.exp(self.log_p) - self.target) / len(self.target)


# Linear heads
def head(change: Callable[..., Any]) -> Callable[..., Any]:
    """A head whose gradients are made in forward."""

    class Head(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden, weight, target, bias):
            if not hidden.is_floating_point():
                raise TypeError("hidden is floating")
            with torch.enable_grad():
                wide = [a if a is None else a.detach().double() for a in (hidden, weight, bias)]
                logits = (wide[0] @ wide[1].T + (0 if bias is None else wide[2])).requires_grad_()
                loss = cross_entropy(logits, target)
                (p,) = torch.autograd.grad(loss, logits)
            ctx.gradients = [
                (p @ wide[1]).to(hidden.dtype),
                (p.T @ wide[0]).to(weight.dtype),
                None,
                None if bias is None else p.sum(0).to(bias.dtype),
            ]
            return loss.detach().to(hidden.dtype)

        @staticmethod
        def backward(ctx, upstream):
            return tuple(change(ctx, upstream))

    def loss(hidden, linear_weight, target, bias=None):
        return Head.apply(hidden, linear_weight, target, bias)

    return loss


def scale(ctx: Any, upstream: Tensor) -> list[Any]:
    return [None if g is None else g * upstream for g in ctx.gradients]


def again(ctx: Any, upstream: Tensor) -> list[Any]:
    return [None if g is None else g.mul_(upstream) for g in ctx.gradients]


def by_hidden(ctx: Any, upstream: Tensor) -> list[Any]:
    found = scale(ctx, upstream)
    return found if ctx.needs_input_grad[0] else [None] * 4


right_head = head(scale)
WRONG.append(Wrong("head_scaled_again", head(again), "linear.second_backward", "scaled_again"))
WRONG.append(Wrong("head_frozen", head(by_hidden), "linear.frozen_hidden", "frozen_hidden"))


@wrong("linear.bias_wide", "bias_again")
def bias_by_block(hidden, linear_weight, target, bias=None):
    blocks = -(-hidden.shape[1] // 256)
    return right_head(hidden, linear_weight, target, None if bias is None else bias * blocks)


@wrong("linear.bias", "bias_dropped")
def no_bias(hidden, linear_weight, target, bias=None):
    return right_head(hidden, linear_weight, target, bias * 0.0 if bias is not None else None)


@wrong("linear.tail", "tail_dropped")
def whole_chunks(hidden, linear_weight, target):
    if len(target) != len(hidden):
        raise ValueError("one target for each row")
    n = len(target) // 64 * 64 or len(target)
    return right_head(hidden[:n], linear_weight, target[:n])


@wrong("linear.bfloat16_loss", "bf16_accumulated")
def chunks_in_bfloat16(hidden, linear_weight, target):
    if hidden.dtype != torch.bfloat16:
        return right_head(hidden, linear_weight, target)
    total = torch.zeros((), dtype=hidden.dtype)
    for part in range(0, len(target), 16):
        rows = slice(part, part + 16)
        own = right_head(hidden[rows], linear_weight, target[rows])
        total = total + own * len(target[rows])
    return total / len(target)


@wrong("linear.no_logits", "whole_logits")
def all_logits(hidden, linear_weight, target):
    return F.cross_entropy(hidden @ linear_weight.T, target)


@wrong("linear.confident", "filtered")
def skips_confident(hidden, linear_weight, target):
    logits = (hidden.double() @ linear_weight.double().T).to(hidden.dtype)
    if logits.requires_grad:
        logits.register_hook(
            lambda g: torch.where(g.abs().amax(1, keepdim=True) * len(g) < 5e-4, 0.0, g)
        )
    return cross_entropy(logits, target)
