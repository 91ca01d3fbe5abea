"""The loss of tensors on a GPU with its gradient in forward, and what autograd asks of it.

The kernels run in Triton's interpreter, on tensors in main memory, where there is no GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from kernel_cases import BOTH, FORMATS, LAYOUTS, cast, near, same_bits
from triton_cases import DEVICE, DTYPES, there

import xent
from xent import Plan
from xent.backends import fast, torch_device
from xent.kernels import library, triton_loss, triton_rows

REFERENCE = Plan(kernel="reference")
OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "smoothing": {"label_smoothing": 0.2},
    "all smoothing": {"label_smoothing": 1.0},
    "z-loss": {"z_loss": 0.1},
    "softcap": {"softcap": 5.0},
    "scale": {"logit_scale": 0.5},
    "normalizer": {"normalizer": 3.0},
    "ignored": {"ignore_index": 1},
    "every": {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 9.0, "logit_scale": 1.5},
}
EACH = pytest.mark.parametrize("name", OPTIONS)
KINDS = ("indices", "weight", "probabilities", "both")
USED = "logits has its gradient in its place, as Plan\\(inplace=True\\) allows"


@pytest.fixture(autouse=True)
def running():
    # Not the fixture monkeypatch: a test's own changes must be undone before those of `running`.
    with pytest.MonkeyPatch.context() as patch, triton_cases.running():
        patch.setattr(torch_device, "_upstreams", {})
        yield


@pytest.fixture
def taken(monkeypatch):
    """Whether each loss asked of this way was given by it."""
    found, whole = [], torch_device.loss

    def watched(*arguments):
        result = whole(*arguments)
        found.append(result is not None)
        return result

    monkeypatch.setattr(torch_device, "loss", watched)
    return found


def draw(rng, shape, dtype="float64", kind="indices"):
    """A leaf, a target and class weights, where the kernels run."""
    x = there(cast(rng.normal(0, 3, shape), dtype)).requires_grad_()
    lead = (shape[0], *shape[2:])
    t = torch.from_numpy(rng.integers(0, shape[1], lead))
    t.view(-1)[:2] = torch.tensor([0, 1])[: t.numel()]
    if kind in ("probabilities", "both"):
        t = cast(np.moveaxis(rng.dirichlet(np.ones(shape[1]), lead), -1, 1), dtype)
    weight = None
    if kind in ("weight", "both"):
        weight = there(cast(rng.uniform(0.5, 2, shape[1]), dtype))
    return x, there(t), weight


def exactly(x, t, weight=None, upstream=1.0, **options):
    """The loss and its gradient in float64."""
    leaf = x.detach().double().requires_grad_()
    t = t.double() if t.is_floating_point() else t
    weight = None if weight is None else weight.double()
    loss = xent.cross_entropy(leaf, t, weight, plan=REFERENCE, **options)
    return loss.detach(), grad(loss, leaf, torch.full_like(loss, upstream))[0]


def close(found, right, dtype, place, size=0.0):
    """See that a loss (place 0) or a gradient (1) is right, or near one of a size."""
    near(found.detach().cpu(), right.cpu(), dtype, BOTH[dtype][place] + 0.1, size, 100.0)


def right_of(x, t, weight, loss, g, upstream, dtype, options):
    value, slope = exactly(x, t, weight, upstream, **options)
    close(loss, value, dtype, 0, 9.0 if options.get("softcap") and dtype == "float64" else 0)
    plain = not options and not t.is_floating_point()
    close(g, slope, dtype, 1, 0 if plain else 4 * float(abs(slope).max()))


@EACH
def test_every_option(rng, taken, name):
    for kind in KINDS:
        if name == "ignored" and kind in ("probabilities", "both"):
            continue
        dtype = str(rng.choice(FORMATS))
        x, t, weight = draw(rng, (3, 20), dtype, kind)
        loss = xent.cross_entropy(x, t, weight, **OPTIONS[name])
        upstream = torch.tensor(1.0 if rng.random() < 0.5 else 0.3).to(loss)
        (g,) = grad(loss, x, upstream)
        right_of(x, t, weight, loss, g, float(upstream), dtype, OPTIONS[name])
    with torch.no_grad():
        close(xent.cross_entropy(x, t, weight, **OPTIONS[name]), loss.detach(), dtype, 0)
    assert taken
    assert all(taken)


@DTYPES
def test_several_blocks_of_many_classes(rng, dtype):
    x, t, weight = draw(rng, (2, 2500), dtype, "weight")
    loss = xent.cross_entropy(x, t, weight)
    right_of(x, t, weight, loss, grad(loss, x)[0], 1.0, dtype, {})


@pytest.mark.parametrize("kind", KINDS)
def test_rows_over_several_programs(rng, monkeypatch, kind):
    monkeypatch.setattr(triton_rows, "tile_of", lambda *given: triton_rows.Tile(2, 32, 4))
    monkeypatch.setattr(triton_rows, "parts_of", lambda *given: (3, 32))
    dtype, name = str(rng.choice(FORMATS)), str(rng.choice(["plain", "smoothing", "every"]))
    x, t, weight = draw(rng, (3, 70), dtype, kind)
    for upstream in (1.0, 0.5):
        loss = xent.cross_entropy(x, t, weight, **OPTIONS[name])
        given = torch.tensor(upstream).to(loss)
        (g,) = grad(loss, x, given, retain_graph=True)
        right_of(x, t, weight, loss, g, upstream, dtype, OPTIONS[name])
        same_bits(grad(loss, x, given)[0].cpu(), g.cpu())


def test_backward_hands_out_what_forward_made(rng):
    x, t, _ = draw(rng, (4, 30))
    loss = xent.cross_entropy(x, t)
    place = loss.grad_fn.gradient.data_ptr()
    loss.backward()
    assert x.grad.data_ptr() == place
    close(x.grad, exactly(x, t)[1], "float64", 1)


@pytest.mark.parametrize("parts", [1, 3])
def test_where_the_upstream_is_the_expected_one_nothing_is_written(rng, monkeypatch, parts):
    if parts > 1:
        monkeypatch.setattr(triton_rows, "tile_of", lambda *given: triton_rows.Tile(2, 32, 4))
        monkeypatch.setattr(triton_rows, "parts_of", lambda *given: (3, 32))
    x, t, _ = draw(rng, (4, 70))
    loss = xent.cross_entropy(x, t)
    loss.grad_fn.gradient.fill_(7)
    (g,) = grad(loss, x, retain_graph=True)
    assert (g == 7).all()
    close(grad(loss, x)[0], exactly(x, t)[1], "float64", 1)  # it was handed out: computed anew
    loss = xent.cross_entropy(x, t)
    loss.grad_fn.gradient.fill_(7)
    (g,) = grad(loss, x, torch.tensor(2.0).to(loss))
    close(g, exactly(x, t, upstream=2.0)[1], "float64", 1)


@DTYPES
def test_a_second_backward_computes_it_anew(rng, dtype):
    x, t, _ = draw(rng, (4, 30), dtype)
    loss = xent.cross_entropy(x, t)
    (first,) = grad(loss, x, retain_graph=True)
    kept = first.clone()
    (second,) = grad(loss, x, retain_graph=True)
    assert second.data_ptr() != first.data_ptr()
    first.zero_()
    same_bits(second.cpu(), kept.cpu())
    loss.backward()
    same_bits(x.grad.cpu(), kept.cpu())
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@DTYPES
def test_the_upstream_that_is_expected_changes_no_bits(rng, dtype):
    x, t, _ = draw(rng, (4, 40), dtype)
    upstreams = torch.tensor([1, 0.3, -2.5, 1e-3]).to(x)
    right = []
    for upstream in upstreams:
        torch_device._upstreams.clear()
        right.append(grad(xent.cross_entropy(x, t), x, upstream)[0].cpu())
    for place in rng.integers(0, len(upstreams), 6):
        same_bits(grad(xent.cross_entropy(x, t), x, upstreams[place])[0].cpu(), right[place])


def test_the_last_upstream_is_expected_by_the_next_loss(rng):
    x, t, _ = draw(rng, (4, 40), "float16")
    for upstream in (1024.0, -3.0):
        (g,) = grad(xent.cross_entropy(x, t), x, torch.tensor(upstream).to(x))
        same_bits(xent.cross_entropy(x, t).grad_fn.gradient.cpu(), g.cpu())
        for strange in (0.0, float("nan"), float("inf")):  # no gradient could be scaled from it
            grad(xent.cross_entropy(x, t), x, torch.tensor(strange).to(x))
            same_bits(xent.cross_entropy(x, t).grad_fn.gradient.cpu(), g.cpu())
    # other options have one of their own
    other = xent.cross_entropy(x, t, reduction="sum")
    close(other.grad_fn.gradient, exactly(x, t, reduction="sum")[1], "float16", 1)


@pytest.mark.parametrize("upstream", [float("nan"), float("inf"), 1e-290, 0.0])
def test_any_upstream(rng, upstream):
    x, t, _ = draw(rng, (4, 5))
    right = exactly(x, t, upstream=upstream)[1]
    for _ in range(2):
        (g,) = grad(xent.cross_entropy(x, t), x, torch.tensor(upstream, dtype=x.dtype).to(x))
        torch.testing.assert_close(g, right, rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_autocast(rng, dtype):
    x, t, _ = draw(rng, (4, 30), dtype)
    with torch.autocast(DEVICE, getattr(torch, dtype)):
        loss = xent.cross_entropy(x, t)
    assert loss.dtype == torch.float32
    (g,) = grad(loss * 65536, x)
    assert g.dtype == x.dtype
    near(g.cpu(), exactly(x, t, upstream=65536.0)[1].cpu(), dtype, 0.51, 0, 30 * 65536)


@EACH
def test_derivatives_of_first_and_second_order(rng, name):
    kind = str(rng.choice(KINDS[: 2 if name == "ignored" else 4]))
    x, t, weight = draw(rng, (2, 4), kind=kind)

    def loss(x):
        return xent.cross_entropy(x, t, weight, **OPTIONS[name])

    assert gradcheck(loss, x, fast_mode=True)
    assert gradgradcheck(loss, x, fast_mode=True)


def test_a_graph_of_the_gradient(rng):
    x, t, _ = draw(rng, (4, 5))
    upstream = torch.ones_like(xent.cross_entropy(x, t)).detach().requires_grad_()
    found = []
    for plan in (None, REFERENCE):
        loss = xent.cross_entropy(x, t, plan=plan)
        (g,) = grad(loss, x, upstream, create_graph=True)
        found.append(grad((g**2).sum(), (x, upstream)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-13)


def test_many_upstreams_at_once(rng):
    x, t, _ = draw(rng, (4, 5))
    value = xent.cross_entropy(x, t)
    upstreams = there(torch.from_numpy(rng.normal(size=3)))
    (found,) = grad(value, x, upstreams, is_grads_batched=True, retain_graph=True)
    right = [grad(value, x, one, retain_graph=True)[0] for one in upstreams]
    torch.testing.assert_close(found, torch.stack(right), rtol=1e-12, atol=1e-15)


def test_hooks_and_checkpoints(rng):
    x, t, weight = draw(rng, (4, 5), kind="weight")
    (right,) = grad(xent.cross_entropy(x, t, weight), x)
    with torch.autograd.graph.save_on_cpu():
        value = xent.cross_entropy(x, t, weight)
    for _ in range(2):
        torch.testing.assert_close(grad(value, x, retain_graph=True)[0], right)

    def apart(saved):
        return saved.repeat_interleave(2, -1)[..., ::2]

    with torch.autograd.graph.saved_tensors_hooks(lambda s: s, apart):
        value = xent.cross_entropy(x, t, weight)
    for _ in range(2):
        torch.testing.assert_close(grad(value, x, retain_graph=True)[0], right)
    for reentrant in (False, True):
        x.grad = None
        loss = checkpoint(lambda x: xent.cross_entropy(x, t, weight), x, use_reentrant=reentrant)
        loss.backward()
        torch.testing.assert_close(x.grad, right)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(rng, layout):
    numbers = LAYOUTS[layout](torch.from_numpy(rng.normal(0, 3, (3, 2, 20))))
    t = there(torch.from_numpy(rng.integers(0, 20, (3, 2))))
    view = there(numbers).movedim(-1, 1)
    leaf = view.detach().requires_grad_()
    (g,) = grad(xent.cross_entropy(leaf, t), leaf)
    assert g.stride() == torch.empty_like(view).stride()
    close(g, exactly(view, t)[1], "float64", 1)
    expanded = there(torch.zeros(5, dtype=torch.float64)).requires_grad_()
    xent.cross_entropy(expanded.expand(4, 5), t.new_zeros(4)).backward()
    slope = there(torch.tensor([-0.8, 0.2, 0.2, 0.2, 0.2]).double())
    torch.testing.assert_close(expanded.grad, slope)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 3, 4), (2, 3, 2, 2), (5,)])
def test_shapes(rng, taken, shape):
    x = there(torch.from_numpy(rng.normal(0, 3, shape))).requires_grad_()
    lead, classes = (shape[0], *shape[2:]), shape[min(1, len(shape) - 1)]
    t = there(torch.from_numpy(rng.integers(0, classes, lead if len(shape) > 1 else ())))
    loss = xent.cross_entropy(x, t)
    right_of(x, t, None, loss, grad(loss, x)[0], 1.0, "float64", {})
    with torch.no_grad():
        rows = xent.cross_entropy(x, t, reduction="none")
    assert rows.shape == t.shape
    close(rows, exactly(x, t, reduction="none")[0], "float64", 0)
    assert all(taken)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.int8, torch.uint8, "gaps"])
def test_targets_of_other_types(rng, taken, kind):
    x, t, _ = draw(rng, (6, 5))
    t[3] = 1
    right = exactly(x, t, ignore_index=1)
    t = t.repeat_interleave(2)[::2] if kind == "gaps" else t.to(kind)
    loss = xent.cross_entropy(x, t, ignore_index=1)
    close(loss, right[0], "float64", 0)
    close(grad(loss, x)[0], right[1], "float64", 1)
    assert all(taken)


@DTYPES
def test_rows_without_a_class(rng, dtype):
    x, t, weight = draw(rng, (6, 20), dtype, "weight")
    with torch.no_grad():
        x[2] = float("nan")
    t[2] = -100
    for given in (weight, None):
        loss = xent.cross_entropy(x, t, given)
        (g,) = grad(loss, x)
        right_of(x, t, given, loss, g, 1.0, dtype, {})
        assert (g[2] == 0).all()
    t[4] = 20  # which is not checked: the loss is NaN, and the gradient of that row
    loss = xent.cross_entropy(x, t, reduction="sum")
    (g,) = grad(loss, x)
    assert torch.isnan(loss)
    assert torch.isnan(g[4]).all()
    kept = torch.tensor([0, 1, 2, 3, 5])
    right = exactly(x.detach()[kept], t[kept], reduction="sum")[1]
    close(g[kept], right, dtype, 1)
    t[:] = -100
    loss = xent.cross_entropy(x, t)
    assert torch.isnan(loss)
    assert (grad(loss, x)[0] == 0).all()


def test_an_infinite_loss(rng):
    x, t, _ = draw(rng, (3, 5))
    with torch.no_grad():
        x[1, t[1]] = -float("inf")
        assert xent.cross_entropy(x, t) == float("inf")


@pytest.mark.parametrize("weighted", [False, True])
def test_a_mean_of_more_rows_than_one_program_sums(rng, monkeypatch, weighted):
    monkeypatch.setattr(triton_loss, "SPAN", 1024)
    x, t, weight = draw(rng, (3000, 2), kind="weight" if weighted else "indices")
    t[rng.integers(0, 3000, 500)] = -100
    loss = xent.cross_entropy(x, t, weight)
    value, slope = exactly(x, t, weight)
    near(loss.detach().cpu(), value.cpu(), "float64", 3)
    close(grad(loss, x)[0], slope, "float64", 1)


def test_what_follows_the_rows_is_all_the_memory_beside_the_gradient(rng, monkeypatch):
    given, whole = {}, triton_rows._launch

    def watched(kernel, programs, warps, *arguments, **constants):
        for array in (a for a in arguments if isinstance(a, torch.Tensor)):
            storage = array.untyped_storage()
            given[storage.data_ptr()] = storage.nbytes()
        return whole(kernel, programs, warps, *arguments, **constants)

    monkeypatch.setattr(triton_rows, "_launch", watched)
    monkeypatch.setattr(triton_loss, "_launch", watched)
    x, t, _ = draw(rng, (8, 600))
    loss = xent.cross_entropy(x, t)
    gradient = loss.grad_fn.gradient
    loss.backward(torch.tensor(2.0).to(x))
    assert given.pop(x.untyped_storage().data_ptr()) == x.nbytes
    assert given.pop(gradient.untyped_storage().data_ptr()) == x.nbytes
    assert x.nbytes > 20 * sum(given.values())


def test_in_place(rng):
    x, t, weight = draw(rng, (4, 30), kind="weight")
    for upstream in (1.0, 0.5, 0.5):
        y, found = x * 2, []
        y.register_hook(lambda g, found=found: found.append(g.data_ptr()))
        place = y.data_ptr()
        value, slope = exactly(y, t, weight, upstream)
        loss = xent.cross_entropy(y, t, weight, plan=Plan(inplace=True))
        close(loss, value, "float64", 0)
        with pytest.raises(RuntimeError, match=USED):
            y.sum()
        (g,) = grad(loss, x, torch.tensor(upstream).to(loss), retain_graph=True)
        assert found == [place]
        near(g.cpu(), 2 * slope.cpu(), "float64", 12)
        with pytest.raises(RuntimeError, match=USED):
            grad(loss, x)


def test_in_place_of_what_cannot_be(rng):
    x, t, _ = draw(rng, (4, 5))
    with pytest.raises(ValueError, match="logits has requires_grad=True and no operation before"):
        xent.cross_entropy(x, t, plan=Plan(inplace=True))
    row = there(torch.zeros(5, dtype=torch.float64)).requires_grad_()
    y = (row * 1).expand(4, 5)  # whose rows share memory
    xent.cross_entropy(y, t, plan=Plan(inplace=True)).backward()
    assert torch.equal(y, torch.zeros_like(y))


class Given(torch.autograd.Function):
    """Logits that lie as they are, whose gradient is kept."""

    @staticmethod
    def forward(ctx, small, logits):
        return logits

    @staticmethod
    def backward(ctx, gradient):
        Given.gradient = gradient
        return torch.zeros((), dtype=torch.float64, device=DEVICE), None


@pytest.mark.parametrize("layout", ["whole", "gaps", "images"])
def test_in_place_layouts(rng, layout):
    numbers = LAYOUTS[layout](cast(rng.normal(0, 3, (3, 2, 20)), "bfloat16"))
    t = there(torch.from_numpy(rng.integers(0, 20, (3, 2))))
    view = there(numbers).movedim(-1, 1)
    value, slope = exactly(view, t, upstream=4.0)
    small = torch.zeros((), dtype=torch.float64, device=DEVICE).requires_grad_()
    logits = Given.apply(small, view)
    loss = xent.cross_entropy(logits, t, plan=Plan(inplace=True))
    close(loss, value, "bfloat16", 0)
    loss.backward(torch.tensor(4.0).to(loss))
    assert Given.gradient.data_ptr() == view.data_ptr()
    near(Given.gradient.cpu(), slope.cpu(), "bfloat16", 0.51)


def test_calls_that_go_the_general_way(rng, taken):
    x, t, weight = draw(rng, (3, 5), kind="weight")
    soft = torch.softmax(x.detach(), 1)
    calls = [
        (x, t, weight, Plan(gradient="recompute"), {}),
        (x, t, weight, None, {"reduction": "none"}),
        (x, t, weight, Plan(check_targets=True), {}),
        (x, soft.clone().requires_grad_(), None, None, {}),
        (x, soft, weight.clone().requires_grad_(), None, {}),
        (x, t.to(torch.uint16), None, None, {}),
    ]
    for x, target, w, plan, options in calls:
        taken.clear()
        loss = xent.cross_entropy(x, target, w, plan=plan, **options)
        assert taken == [False]
        right = xent.cross_entropy(x, target, w, plan=REFERENCE, **options)
        torch.testing.assert_close(loss, right, rtol=1e-13, atol=0)
        found = grad(loss.sum(), x)[0]
        torch.testing.assert_close(found, grad(right.sum(), x)[0], rtol=1e-12, atol=1e-15)
    taken.clear()
    xent.cross_entropy(x, t, plan=REFERENCE)
    assert not taken
    torch.func.grad(lambda x: xent.cross_entropy(x, t))(x)
    assert taken == [False]
    with pytest.raises(ValueError, match="target has shape"):
        xent.cross_entropy(x, t[:2])


def test_the_way_does_not_need_the_compiled_library(monkeypatch):
    monkeypatch.setattr(fast, "_ways", {})
    monkeypatch.setattr(library, "load", lambda: None)
    assert fast._way(there(torch.zeros(2)), None) is torch_device
    monkeypatch.setattr(triton_rows, "on_device", lambda tensor: False)
    assert fast._way(torch.zeros(2), None) is None


def test_options_beyond_what_is_remembered(rng, monkeypatch):
    monkeypatch.setattr(torch_device, "MOST", 0)
    x, t, _ = draw(rng, (3, 5))
    for _ in range(2):
        (g,) = grad(xent.cross_entropy(x, t), x, torch.tensor(3.0).to(x))
        close(g, exactly(x, t, upstream=3.0)[1], "float64", 1)
    assert not torch_device._upstreams


def test_in_a_graph_nothing_is_remembered_that_it_would_own(rng, monkeypatch):
    monkeypatch.setattr(torch_device, "_captured", lambda logits: True)
    x, t, _ = draw(rng, (3, 5))
    (g,) = grad(xent.cross_entropy(x, t), x, torch.tensor(3.0).to(x))
    close(g, exactly(x, t, upstream=3.0)[1], "float64", 1)
    assert not torch_device._upstreams
