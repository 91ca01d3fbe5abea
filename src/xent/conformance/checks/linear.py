"""linear: losses of hidden @ linear_weight.T, whose logits need never be stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.head import (
    Head,
    call,
    drawn,
    exact,
    keywords,
    reduction_of,
    right,
    run,
    torch_of,
)
from xent.conformance.checks.memory import MIB, peak
from xent.conformance.checks.record import BETTER, check
from xent.conformance.draws import shown
from xent.conformance.expect import near, raised
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

HEAD = "The head is the largest matrix of a language model: it is trained by this gradient alone."
HALF = "Heads are trained in bfloat16: what a chunk rounds away, no optimizer brings back."


def linear(name: str, severity: int, why: str, hint: str, tier: str = "") -> Callable:
    return check(f"linear.{name}", severity, why, hint, tier or "agrees with torch", linear=True)


@linear("value", 1, HEAD, "logits are hidden @ linear_weight.T")
def value(subject: Subject, rng: Any) -> None:
    for n, d, v in ((2, 3, 4), (7, 5, 11), (65, 17, 130)):
        right(subject, drawn(rng, n, d, v, reduction=reduction_of(subject)), ("loss",))


@linear("tail", 1, "The last chunk of a batch is shorter.", "rows beyond the last full chunk")
def tail(subject: Subject, rng: Any) -> None:
    for n, v in ((1, 5), (127, 257), (129, 1025), (1000, 300)):
        head = drawn(rng, n, 8, v, reduction=reduction_of(subject))
        right(subject, head, ("loss", "hidden", "weight"), ("tail_dropped",))


@linear("hidden_gradient", 1, HEAD, "dlogits @ linear_weight")
def hidden_gradient(subject: Subject, rng: Any) -> None:
    right(subject, drawn(rng, 9, 5, 7, reduction=reduction_of(subject)), ("hidden",))


@linear("weight_gradient", 1, HEAD, "dlogits.T @ hidden")
def weight_gradient(subject: Subject, rng: Any) -> None:
    right(subject, drawn(rng, 9, 5, 7, reduction=reduction_of(subject)), ("weight",))


@linear("bias", 2, HEAD, "logits + bias, once")
def bias(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 9, 5, 7, bias=True, reduction=reduction_of(subject))
    right(subject, head, ("loss", "hidden", "weight", "bias"))


@linear(
    "bias_wide",
    1,
    "Blocks of the width each add the bias: right in every small test.",
    "add the bias after the last block of the width",
)
def bias_wide(subject: Subject, rng: Any) -> None:
    for d in (300, 512, 1100):
        head = drawn(rng, 5, d, 9, bias=True, reduction=reduction_of(subject))
        right(subject, head, ("loss", "bias"))


@linear("upstream", 1, "A loss scaler's factor must reach both gradients.", "times the upstream")
def upstream(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 9, 5, 7, reduction=reduction_of(subject), upstream=2.5)
    right(subject, head, ("hidden", "weight"))


@linear(
    "upstream_rows",
    1,
    "Advantages and token weights are an upstream for each row.",
    "a gradient made in forward cannot be scaled row by row: recompute it",
)
def upstream_rows(subject: Subject, rng: Any) -> None:
    subject.need("reduction")
    up = np.arange(9) * 0.75 - 2.5
    right(subject, drawn(rng, 9, 5, 7, reduction="none", upstream=up), ("hidden", "weight"))


@linear(
    "second_backward",
    1,
    "retain_graph: the second gradient is upstream times too large.",
    "the gradient stored in forward is multiplied in place",
)
def second_backward(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 9, 5, 7, reduction=reduction_of(subject))
    torch = torch_of(subject)
    loss, leaves = call(subject, head)
    up, found = torch.full_like(loss, 3.0), []
    try:
        for _ in range(2):
            got = torch.autograd.grad(loss, list(leaves.values()), up, retain_graph=True)
            found.append([g.clone() for g in got])
    except RuntimeError as error:
        raise NotOffered(f"a second backward ({raised(error)})") from error
    for name, one, two in zip(leaves, *found, strict=True):
        if not torch.allclose(one, two, rtol=1e-5, atol=1e-7):
            told = f"upstream 3, twice: {head.told()}"
            raise Fault(
                told,
                f"the same gradient of {name}",
                shown(subject.library.values(two)),
                ("scaled_again",),
            )


@linear(
    "frozen_hidden",
    1,
    "Training the head alone silently does nothing.",
    "weight.grad must not depend on hidden.requires_grad",
)
def frozen_hidden(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 9, 5, 7, reduction=reduction_of(subject))
    right(subject, head, ("weight",), ("frozen_hidden",), frozen=("hidden",))


@linear(
    "frozen_weight",
    1,
    "Adapters train below a frozen head.",
    "hidden.grad must not depend on weight.requires_grad",
)
def frozen_weight(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 9, 5, 7, reduction=reduction_of(subject))
    right(subject, head, ("hidden",), ("frozen_weight",), frozen=("weight",))


@linear(
    "ignored",
    1,
    "Prompts are ignored: half of every fine-tuning batch.",
    "ignored rows are left out of both gradients, and of the mean",
)
def ignored(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for value in (-100, 2):
        head = drawn(rng, 12, 5, 7, reduction=reduction_of(subject))
        target = np.where(
            np.arange(12) % 3 == 0, value, np.where(head.target == value, 3, head.target)
        )
        head = Head(**{**vars(head), "target": target, "options": (("ignore_index", value),)})
        right(subject, head, ("loss", "hidden", "weight"))


@linear(
    "all_ignored",
    1,
    "A batch of prompts alone: torch's gradient is 0, not nan.",
    "0 / 0 in the stored gradients",
)
def all_ignored(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    head = drawn(rng, 6, 5, 7, reduction=reduction_of(subject))
    head = Head(**{**vars(head), "target": np.full(6, -100), "options": (("ignore_index", -100),)})
    right(subject, head, ("hidden", "weight"), ("empty_gradient",))


@linear("all_ignored_loss", 3, "torch's mean of no rows is nan.", "0 hides an empty batch")
def all_ignored_loss(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    head = drawn(rng, 6, 5, 7, reduction=reduction_of(subject))
    head = Head(**{**vars(head), "target": np.full(6, -100), "options": (("ignore_index", -100),)})
    right(subject, head, ("loss",), ("empty_mean",))


@linear("class_weight", 2, HEAD, "the mean is over the weights used")
def class_weight(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    options = (("weight", draws.weights(rng, 7)),)
    head = drawn(rng, 12, 5, 7, reduction=reduction_of(subject), options=options)
    right(subject, head, ("loss", "hidden", "weight"))


@linear("smoothing", 2, HEAD, "the smoothed part is the mean of the logits")
def smoothing(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    options = (("label_smoothing", 0.125),)
    head = drawn(rng, 12, 5, 7, reduction=reduction_of(subject), options=options)
    right(subject, head, ("loss", "hidden", "weight"))


@linear(
    "confident",
    2,
    "Late in training nearly all rows are confident; skipping them is a bias.",
    "blocks of small dlogits are skipped",
)
def confident(subject: Subject, rng: Any) -> None:
    """Every entry of dlogits is below 1e-4, and is still the gradient."""
    hidden = draws.rounded(np.eye(8) * 11.0 + 0.01 * rng.standard_normal((8, 8)), "float32")
    head = Head(hidden, np.eye(8), np.arange(8), reduction=reduction_of(subject))
    right(subject, head, ("hidden", "weight"), ("filtered",), tolerance=(2e-2, 2e-2))


@linear("keeps_hidden", 1, "The hidden states are used by other heads.", "written over in place")
def keeps_hidden(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 9, 5, 7, reduction=reduction_of(subject))
    loss, leaves = call(subject, head)
    loss.sum().backward()
    for name, before in (("hidden", head.hidden), ("weight", head.weight)):
        after = subject.library.values(leaves[name])
        if not np.array_equal(after, before):
            raise Fault(head.told(), f"{name} as it was", shown(after), ("mutates_logits",))


def error_in_norm(got: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(got - true) / np.linalg.norm(true))


def _in_format(subject: Subject, rng: Any, dtype: str, most: float, n: int, flaw: str) -> None:
    head = drawn(rng, n, 32, 512, dtype=dtype, reduction=reduction_of(subject))
    try:
        got = run(subject, head)
    except Fault as refused:
        raise NotOffered(f"{dtype} ({refused.obtained})") from refused
    true = exact(head)
    for name in ("hidden", "weight"):
        best = error_in_norm(draws.rounded(true[name], dtype), true[name])
        error = error_in_norm(got[name], true[name])
        if not error <= most * best:
            told = f"an error of the gradient of {name} of at most {most:g} x {best:.2g}"
            raise Fault(head.told(), told, f"{error:.2g}, {error / best:.1f} x", (flaw,))


@linear("bfloat16_gradient", 3, HALF, "sum the weights' gradient over chunks in float32", BETTER)
def bfloat16_gradient(subject: Subject, rng: Any) -> None:
    _in_format(subject, rng, "bfloat16", 1.25, 1024, "bf16_accumulated")


@linear(
    "float16_gradient",
    3,
    "1 / N times a probability underflows in float16.",
    "scale by 1 / N after the product, in float32",
    BETTER,
)
def float16_gradient(subject: Subject, rng: Any) -> None:
    _in_format(subject, rng, "float16", 2.0, 4096, "folded_mean")


@linear(
    "bfloat16_loss",
    2,
    "torch's chunked loss is up to 0.26 nats off in bfloat16.",
    "sum the losses of chunks in float32",
    BETTER,
)
def bfloat16_loss(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 2048, 32, 512, dtype="bfloat16", reduction=reduction_of(subject))
    try:
        got = run(subject, head)["loss"]
    except Fault as refused:
        raise NotOffered(f"bfloat16 ({refused.obtained})") from refused
    true = exact(head)["loss"]
    if not near(got, true, (2.0**-8, 0.0)):
        raise Fault(
            head.told(), f"a loss of {shown(true)} within 1 ULP", shown(got), ("bf16_accumulated",)
        )


@linear(
    "no_logits",
    2,
    "The logits of 8,192 tokens of 8,192 classes are 256 MiB; of 131,072, 4 GiB.",
    "compute logits for a chunk of rows or classes at a time",
    BETTER,
)
def no_logits(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 8192, 16, 8192, reduction=reduction_of(subject))
    small = drawn(rng, 8, 16, 16, reduction=reduction_of(subject))

    def work() -> Any:
        loss, leaves = call(subject, head)
        loss.sum().backward()
        return leaves

    run(subject, small)
    grown, whole = peak(work), 8192 * 8192 * 4
    if grown > 0.75 * whole:
        told = f"less than three quarters of {whole / MIB:.0f} MiB"
        raise Fault(head.told(), told, f"{grown / MIB:.0f} MiB", ("whole_logits",))


@linear(
    "sequences", 4, "Hidden states are (batch, tokens, width).", "flatten the leading axes", BETTER
)
def sequences(subject: Subject, rng: Any) -> None:
    torch_of(subject)
    head = drawn(rng, 6, 5, 7, reduction=reduction_of(subject))
    function, array = subject.called(keywords(subject, head)), subject.library.array
    hidden, weight = array(head.hidden, head.dtype), array(head.weight, head.dtype)
    target = subject.library.index(head.target)
    try:
        loss = function(hidden.reshape(2, 3, 5), weight, target.reshape(2, 3))
    except Exception as error:
        raise NotOffered(f"hidden of shape (B, T, D) ({raised(error)})") from error
    got = subject.library.values(loss)
    if not near(got, exact(head)["loss"], expect.TOLERANCE["float32"]):
        raise Fault(head.told(), shown(exact(head)["loss"]), shown(got))
