"""The metrics against float64 sums, torchmetrics' own perplexity, and on two processes."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchmetrics")
sys.path.insert(0, str(Path(__file__).parent))
from ranks import two_ranks
from torchmetrics import MetricCollection
from torchmetrics import text as theirs
from two_ranks_metrics import drawn

from xent.integrations.torchmetrics import BitsPerByte, CrossEntropy, Perplexity

F = torch.nn.functional


def fed(metric, logits, target, *more, size=8):
    for x, y in zip(logits.split(size), target.split(size), strict=True):
        metric.update(x, y, *more)
    return metric


def total(logits, target):
    return F.cross_entropy(logits.double(), target, reduction="sum").item()


def test_the_mean_is_over_rows_and_not_over_batches(seed):
    logits, target = drawn(seed)
    kept = (target != -100).sum().item()
    mean = total(logits, target) / kept
    metric = fed(CrossEntropy(), logits, target)
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(mean, rel=1e-6)
    assert fed(Perplexity(), logits, target).compute().item() == pytest.approx(
        math.exp(mean), rel=1e-5
    )
    bits = total(logits, target) / math.log(2) / 10
    assert fed(BitsPerByte(), logits, target, 2).compute().item() == pytest.approx(bits, rel=1e-6)
    metric.reset()
    assert metric(logits.view(5, 8, 11), target.view(5, 8)).item() == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("nats", [60.5, 300.25, 700.0])
def test_perplexity_is_right_far_out(nats):
    logits = torch.tensor([[nats, 0.0]]).repeat(4, 1)
    target = torch.ones(4, dtype=torch.int64)
    assert fed(Perplexity(), logits, target).compute().item() == pytest.approx(
        math.exp(nats), rel=1e-12
    )
    assert fed(theirs.Perplexity(), logits[None], target[None]).compute().isinf() or nats < 88
    assert fed(CrossEntropy(), 1e6 * logits, target).compute().item() == pytest.approx(1e6 * nats)


def test_near_certainty_has_its_digits():
    logits, target = torch.tensor([[40.0, 0.0]]), torch.tensor([0])
    exact = math.log1p(math.exp(-40))
    assert fed(CrossEntropy(), logits, target).compute().item() == pytest.approx(exact, rel=1e-6)


def test_many_small_losses_are_not_lost_in_a_large_sum():
    metric = CrossEntropy()
    metric.update(torch.tensor([[1e8, 0.0]]), torch.tensor([1]))
    for _ in range(50):
        metric.update(torch.zeros(1, 2), torch.tensor([0]))
    assert metric.compute().item() * 51 - 1e8 == pytest.approx(50 * math.log(2), rel=1e-5)


def test_half_precision_logits_are_summed_as_they_are(seed):
    logits, target = drawn(seed)
    logits = logits.bfloat16()
    expected = total(logits, target) / (target != -100).sum().item()
    assert fed(CrossEntropy(), logits, target).compute().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float"])
def test_a_cast_leaves_the_sums_in_float64(cast, seed):
    logits, target = drawn(seed)
    metric = fed(CrossEntropy(), logits, target)
    before = metric.compute().item()
    outer = torch.nn.Sequential(metric)
    getattr(outer, cast)()
    outer.to(torch.float16)
    metric._computed = None
    assert metric.compute().item() == before
    metric.reset()
    assert metric.total.dtype == torch.float64


def test_another_ignored_index_and_nothing_at_all():
    metric = CrossEntropy(ignore_index=0)
    metric.update(torch.zeros(2, 3), torch.tensor([0, 0]))
    assert metric.compute().isnan()
    metric.update(torch.zeros(2, 3), torch.tensor([1, 0]))
    assert metric.compute().item() == pytest.approx(math.log(3))
    for one, more in ((Perplexity(), ()), (BitsPerByte(), (0,))):
        one.update(torch.zeros(1, 3), torch.tensor([-100]), *more)
        assert one.compute().isnan()


def test_what_torchmetrics_does_with_a_metric(seed):
    logits, target = drawn(seed)
    both = MetricCollection([CrossEntropy(), Perplexity()])
    both.update(logits, target)
    told = both.compute()
    assert told["Perplexity"].item() == pytest.approx(math.exp(told["CrossEntropy"].item()))
    metric = fed(BitsPerByte(), logits, target, 2)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert twin.compute() == metric.compute()
    figure, axes = metric.plot()
    assert axes.get_title() or figure.axes
    logits.requires_grad_()
    CrossEntropy()(logits, target).backward()
    kept = (target != -100).sum()
    expected = torch.softmax(logits, -1) - F.one_hot(target.clamp(min=0), 11)
    expected[target == -100] = 0
    torch.testing.assert_close(logits.grad, expected / kept, rtol=1e-4, atol=1e-6)


def test_lazy_logits_are_not_made(seed):
    pytest.importorskip("transformers")
    import tiny_models as tiny

    from xent.integrations.transformers import patch

    own, patched = (m.eval() for m in tiny.twins("gemma2", seed))
    patch(patched)
    given = tiny.batch(seed)
    labels = given["labels"][:, 1:]
    found = []
    for m in (own, patched):
        metric = Perplexity()
        with torch.no_grad():
            logits = m(**given).logits[:, :-1]
            metric.update(logits, labels)
        found.append(metric.compute().item())
    assert logits._made is None
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_two_ranks_have_the_sums_of_all_rows(tmp_path, seed):
    logits, target = drawn(seed)
    summed, kept = total(logits, target), (target != -100).sum().item()
    expected = [summed / kept, math.exp(summed / kept), summed / math.log(2) / (4 * 1 + 2 * 11)]
    for told in two_ranks("two_ranks_metrics.py", tmp_path, seed):
        assert told == pytest.approx(expected, rel=1e-5)
