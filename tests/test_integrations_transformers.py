"""xent.integrations.transformers: patched models have the loss and gradients of their own."""

from __future__ import annotations

import copy
import io
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
import tiny_models as tiny
import transformers
from transformers.loss import loss_utils

import xent
from xent.integrations import transformers as patching
from xent.integrations.lazy_logits import LazyLogits
from xent.integrations.transformers import (
    LogitsWarning,
    Patched,
    causal_loss,
    masked_loss,
    patch,
    unpatch,
)

MAPPING = dict(loss_utils.LOSS_MAPPING)
F = torch.nn.functional
ENABLE = "activation_checkpointing_enable"  # its name since transformers 5.23
if not hasattr(transformers.PreTrainedModel, ENABLE):
    ENABLE = "gradient_checkpointing_enable"


class Largest(TorchDispatchMode):
    """The most numbers that one piece of memory has held since."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                held = one.untyped_storage().nbytes() // one.element_size()
                self.found = max(self.found, held)
        return made


@pytest.mark.parametrize("name", tiny.MODELS)
def test_a_patched_model_has_the_loss_and_the_gradients_of_its_own(name, seed):
    own, patched = tiny.twins(name, seed)
    exact = copy.deepcopy(own).double()
    kinds = {"bert": "masked", "roberta": "masked"}
    assert patch(patched).loss == kinds.get(name, "causal")
    given = tiny.batch(seed)
    labels = given["labels"]
    (theirs, their_gradients), (ours, our_gradients) = (
        tiny.stepped(m, given) for m in (own, patched)
    )
    logits = exact(**given).logits  # its own loss would be float32
    if name not in ("bert", "roberta", "t5", "bart"):
        logits, labels = logits[:, :-1], labels[:, 1:]
    true = F.cross_entropy(logits.reshape(-1, tiny.V), labels.reshape(-1))
    true.backward()
    true_gradients = tiny.gradients(exact)
    assert isinstance(ours.logits, LazyLogits)
    assert ours.loss.dtype == torch.float32
    assert abs(ours.loss.item() - theirs.loss.item()) <= 4e-7 * theirs.loss.item()
    assert abs(ours.loss.item() - true.item()) <= 1e-6 * true.item()
    assert tiny.apart(our_gradients, their_gradients) < 1e-5
    assert tiny.apart(our_gradients, true_gradients) < 1e-5
    torch.testing.assert_close(ours.logits.tensor(), theirs.logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "gpt2", "bert", "t5"])
def test_bfloat16_is_no_further_from_float64_than_the_models_own(name, seed):
    own, patched = (m.bfloat16() for m in tiny.twins(name, seed))
    exact = copy.deepcopy(own).double()
    patch(patched)
    given = tiny.batch(seed, rows=4, length=24)
    (theirs, their_gradients), (ours, our_gradients) = (
        tiny.stepped(m, given) for m in (own, patched)
    )
    true, true_gradients = tiny.stepped(exact, given)
    norms = [
        (g - true_gradients).norm() / true_gradients.norm()
        for g in (our_gradients, their_gradients)
    ]
    # Both have the layers' rounding; the head's own is never more.
    assert norms[0] <= 1.15 * norms[1] + 2e-3
    assert abs(ours.loss.item() / true.loss.item() - 1) <= 2e-2
    assert abs(ours.loss.item() / theirs.loss.item() - 1) <= 2e-2


@pytest.mark.parametrize("name", ["llama", "gemma2", "bert"])
def test_autocast_and_gradient_checkpointing(name, seed):
    given = tiny.batch(seed)
    own, patched = tiny.twins(name, seed)
    for one in (own, patched):
        getattr(one, ENABLE)({"use_reentrant": False})
    patch(patched)
    theirs, ours = (tiny.stepped(m, given) for m in (own, patched))
    assert abs(ours[0].loss.item() / theirs[0].loss.item() - 1) < 1e-6
    assert tiny.apart(ours[1], theirs[1]) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = (tiny.stepped(m, given) for m in (own, patched))
    assert ours[0].logits.dtype == torch.bfloat16
    assert abs(ours[0].loss.item() / theirs[0].loss.item() - 1) < 2e-2
    assert (ours[1] - theirs[1]).norm() < 5e-2 * theirs[1].norm()
    assert ours[0].logits.tensor().dtype == torch.bfloat16  # as they were in autocast


@pytest.mark.parametrize("name", ["gemma2", "t5"])
def test_no_logits_are_made_in_training(name, seed):
    # A weight has a quarter of the logits' numbers, and a tile of logits is a few rows.
    own, patched = tiny.twins(name, seed)
    patch(patched, plan=xent.Plan(chunk_bytes=8 * tiny.V))
    given = tiny.batch(seed, rows=4, length=16)
    found = []
    for one in (own, patched):
        with Largest() as watched:
            one(**given).loss.backward()
        found.append(watched.found)
    assert found[0] >= 4 * 16 * tiny.V
    assert found[1] < 2 * tiny.V * 16  # a gradient of the weight, beside some rows


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_number_of_items_comes_in_every_form(name, seed):
    own, patched = tiny.twins(name, seed)
    patch(patched)
    given = tiny.batch(seed)
    shifted = F.pad(given["labels"], (0, 1), value=-100)[..., 1:].contiguous()
    forms = [None, 5, 5.5, torch.tensor(5), torch.tensor(5.0), torch.tensor([5])]
    for items in forms:
        for more in ({}, {"shift_labels": shifted}):
            told = {**given, "num_items_in_batch": items, **more}
            theirs, ours = (m(**told).loss for m in (own, patched))
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert len({m(**given, num_items_in_batch=n).loss.item() for n in (5, 6) for m in [own]}) == 2


def test_labels_that_are_all_ignored(seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)
    given = tiny.batch(seed)
    given["labels"][:] = -100
    for m in (own, patched):
        assert math.isnan(m(**given).loss.item())
        outputs, found = tiny.stepped(m, {**given, "num_items_in_batch": 5})
        assert outputs.loss.item() == 0
        assert not found.any()


def test_a_label_out_of_range_is_told(seed):
    patched = tiny.model("llama", seed)
    patch(patched)
    given = tiny.batch(seed)
    given["labels"][1, 2] = tiny.V
    with pytest.raises(IndexError, match=f"value {tiny.V} at"):
        patched(**given)


@pytest.mark.parametrize("loss", [causal_loss, masked_loss])
def test_the_losses_take_ordinary_logits_too(loss, seed):
    torch.manual_seed(seed)
    logits, given = torch.randn(2, 7, tiny.V), tiny.batch(seed)
    theirs = {causal_loss: MAPPING["ForCausalLM"], masked_loss: MAPPING["ForMaskedLM"]}[loss]
    for items in (None, 3):
        told = {"vocab_size": tiny.V, "num_items_in_batch": items}
        expected = theirs(logits, given["labels"], **told)
        torch.testing.assert_close(loss(logits, given["labels"], **told), expected)


def test_in_evaluation_logits_are_made_when_asked_for(seed):
    own, patched = (m.eval() for m in tiny.twins("gemma2", seed))
    patch(patched)
    given = tiny.batch(seed)
    with torch.no_grad():
        theirs, ours = own(**given), patched(**given)
        assert isinstance(ours.logits, LazyLogits)
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=0)
        assert torch.equal(ours.logits.argmax(-1), theirs.logits.argmax(-1))  # and no warning
        plain = patched(given["input_ids"]).logits  # no labels: ordinary logits
        assert type(plain) is torch.Tensor
        assert torch.equal(plain, theirs.logits)
        a, b = (m.generate(given["input_ids"], max_new_tokens=3) for m in (own, patched))
        assert torch.equal(a, b)


def test_logits_that_are_made_in_training_are_told_once(seed):
    own, patched = tiny.twins("llama", seed)
    patch(patched)
    given = tiny.batch(seed)
    logits = patched(**given).logits
    text = r"LlamaForCausalLM: argmax made the logits \(2, 7, 97\) of a patched head in training"
    with pytest.warns(LogitsWarning, match=text):
        best = logits.argmax(-1)
    assert torch.equal(best, own(**given).logits.argmax(-1))
    patched(**given).logits.argmax(-1)  # warnings are errors: no second


def test_a_loss_outside_of_the_model(seed):
    # As Trainer(compute_loss_func=...) has it: labels are not given to the model.
    own, patched = tiny.twins("gemma2", seed)
    patch(patched)
    given = tiny.batch(seed)
    labels = given.pop("labels")
    found = []
    for m in (own, patched):
        logits = m(**given).logits[..., :-1, :].contiguous()
        shifted = labels[..., 1:].contiguous()
        loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        value = loss(logits.view(-1, logits.size(-1)), shifted.view(-1))
        value.backward()
        found.append((value.item(), tiny.gradients(m)))
    assert abs(found[0][0] / found[1][0] - 1) < 1e-6
    assert tiny.apart(found[1][1], found[0][1]) < 1e-5


def test_unpatch_gives_all_back(seed):
    own, patched = tiny.twins("gpt2", seed)
    before = {name: dict(vars(m)) for name, m in patched.named_modules()}
    report = patch(patched)
    assert report == Patched("GPT2LMHeadModel", ("lm_head",), "causal")
    assert patch(patched) is report
    assert patched.loss_function is causal_loss
    assert dict(loss_utils.LOSS_MAPPING) == MAPPING
    assert patched.state_dict().keys() == own.state_dict().keys()
    unpatch(patched)
    unpatch(patched)
    after = {name: dict(vars(m)) for name, m in patched.named_modules()}
    assert {n: v.keys() for n, v in after.items()} == {n: v.keys() for n, v in before.items()}
    assert not patched._forward_hooks
    assert not patched._forward_pre_hooks
    assert not patched._forward_hooks_always_called
    given = tiny.batch(seed)
    outputs = patched(**given)
    assert type(outputs.logits) is torch.Tensor
    assert torch.equal(outputs.loss, own(**given).loss)
    assert patch(patched) is not report


def test_a_copy_is_patched_and_independent(seed):
    patched = tiny.model("llama", seed)
    patch(patched)
    twin = copy.deepcopy(patched)
    given = tiny.batch(seed)
    with torch.no_grad():
        twin.lm_head.weight.zero_()
    assert abs(twin(**given).loss.item() - math.log(tiny.V)) < 1e-5
    assert abs(patched(**given).loss.item() - math.log(tiny.V)) > 1e-3
    unpatch(patched)
    assert isinstance(twin(**given).logits, LazyLogits)
    kept = io.BytesIO()
    torch.save(twin.state_dict(), kept)


def test_a_loss_that_someone_set_is_left(seed):
    patched = tiny.model("llama", seed)

    def mine(logits, labels, **kwargs):
        return 2 * F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))

    patched.loss_function = mine
    assert patch(patched).loss == "own"
    given = tiny.batch(seed)
    outputs = patched(**given)
    expected = 2 * F.cross_entropy(outputs.logits.tensor().flatten(0, 1), given["labels"].flatten())
    torch.testing.assert_close(outputs.loss, expected, rtol=1e-6, atol=0)
    unpatch(patched)
    assert patched.loss_function is mine


def test_what_cannot_be_patched_is_told_and_left(seed):
    from transformers import BertForSequenceClassification

    with pytest.raises(TypeError, match="patch: model has type int, expected a torch module"):
        patch(3)
    with pytest.raises(ValueError, match="patch: model has type Linear, without output embeddings"):
        patch(torch.nn.Linear(2, 3))
    classifier = BertForSequenceClassification(tiny.model("bert", seed).config)
    with pytest.raises(ValueError, match="BertForSequenceClassification, without output emb"):
        patch(classifier)

    class Odd(torch.nn.Linear):
        def forward(self, input):
            return super().forward(2 * input)

    own = tiny.model("llama", seed)
    own.lm_head = Odd(16, tiny.V, bias=False)
    before = dict(vars(own.lm_head))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM and a head that is a .*Odd, expected"):
        patch(own)
    assert vars(own.lm_head) == before
    assert type(own(**tiny.batch(seed)).logits) is torch.Tensor


def test_a_model_inside_another_is_found(seed):
    own, patched = tiny.twins("llama", seed)
    outer = torch.nn.Sequential(patched)
    assert patch(outer).heads == ("lm_head",)
    given = tiny.batch(seed)
    torch.testing.assert_close(patched(**given).loss, own(**given).loss, rtol=1e-6, atol=0)
    unpatch(outer)
    assert patching.RECORD not in vars(patched)


def test_a_device_map(seed):
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_submodules

    given = tiny.batch(seed)
    own = tiny.model("llama", seed)
    theirs, expected = tiny.stepped(own, given)
    for early in (True, False):
        patched = copy.deepcopy(own)
        if early:
            patch(patched)
        places = {"model": "cpu", "lm_head": "cpu"}
        dispatch_model(patched, places, main_device="cpu", force_hooks=True)
        assert hasattr(patched.lm_head, "_hf_hook")
        if not early:
            patch(patched)
        ours, found = tiny.stepped(patched, given)
        assert isinstance(ours.logits, LazyLogits)
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=0)
        assert tiny.apart(found, expected) < 1e-5
        unpatch(patched)
        assert type(patched(**given).logits) is torch.Tensor
        remove_hook_from_submodules(patched)
        assert type(patched(**given).logits) is torch.Tensor


def test_a_head_that_is_offloaded_in_evaluation(seed):
    from accelerate import cpu_offload

    own, patched = (m.eval() for m in tiny.twins("llama", seed))
    cpu_offload(patched.lm_head, torch.device("cpu"))
    assert patched.lm_head.weight.device.type == "meta"
    patch(patched)
    given = tiny.batch(seed)
    with torch.no_grad():
        ours, theirs = patched(**given), own(**given)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.logits.tensor(), theirs.logits)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
@pytest.mark.parametrize("name", ["gemma2", "bert"])
def test_compiled_models_are_patched_too(name, seed):
    own, patched = tiny.twins(name, seed, num_hidden_layers=1)
    patch(patched)
    given = tiny.batch(seed)
    compiled = torch.compile(patched, backend="aot_eager")
    (theirs, expected), (ours, found) = tiny.stepped(own, given), tiny.stepped(compiled, given)
    assert isinstance(ours.logits, LazyLogits)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=0)
    assert tiny.apart(found, expected) < 1e-5
