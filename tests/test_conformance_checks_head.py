"""conformance/checks/head: the head in float64 is right, and its mistakes are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xent.conformance.checks.head import Head, drawn, exact, mistakes


def of_torch(head: Head) -> dict[str, np.ndarray]:
    arrays = [torch.tensor(a, requires_grad=True) for a in (head.hidden, head.weight, head.bias)]
    logits = arrays[0] @ arrays[1].T + arrays[2]
    options = {k: torch.tensor(v) if k == "weight" else v for k, v in head.options}
    loss = torch.nn.functional.cross_entropy(
        logits, torch.tensor(head.target), reduction=head.reduction, **options
    )
    up = torch.ones_like(loss) * torch.tensor(1.0 if head.upstream is None else head.upstream)
    found = torch.autograd.grad(loss, arrays, up)
    names = ("loss", "hidden", "weight", "bias")
    return dict(zip(names, (a.detach().numpy() for a in (loss, *found)), strict=True))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_exact_is_torch_s(reduction: str, rng: np.random.Generator) -> None:
    options = (("weight", rng.uniform(0.5, 2, 7)), ("ignore_index", 3), ("label_smoothing", 0.125))
    up = rng.standard_normal(9) if reduction == "none" else 2.5
    head = drawn(rng, 9, 5, 7, bias=True, reduction=reduction, options=options, upstream=up)
    found = exact(head)
    for name, value in of_torch(head).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_bias_counted_twice_is_told(rng: np.random.Generator) -> None:
    head = drawn(rng, 9, 5, 7, bias=True)
    assert head.bias is not None
    twice = exact(Head(**{**vars(head), "bias": 2 * head.bias}))
    assert mistakes(head, "loss", twice["loss"]) == ("bias_again",)
    none = exact(Head(**{**vars(head), "bias": 0 * head.bias}))
    assert mistakes(head, "loss", none["loss"]) == ("bias_dropped",)
    assert not mistakes(head, "loss", exact(head)["loss"] + 7)
