"""Heads with peft's adapters, and which heads are refused."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
import peft
import tiny_models as tiny

import xent
from xent.integrations.heads import classes, weights, why_not
from xent.integrations.lazy_logits import LazyLogits
from xent.integrations.transformers import LogitsWarning, patch, unpatch

# peft uses what transformers calls deprecated, and tells what it makes of tied weights.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]


def adapted(seed, tied=False, **options):
    """A model with LoRA on its head and elsewhere, its b not 0 as it begins."""
    model = tiny.model("llama", seed, tie_word_embeddings=tied)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "lm_head"], **options)
    made = peft.get_peft_model(model, config)
    return shaken(made)


def shaken(made):
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora_B" in name or "lora_A" in name:
                p.copy_(torch.randn_like(p) / 2)
    return made.train()


def same(own, patched, given):
    theirs, expected = tiny.stepped(own, given)
    ours, found = tiny.stepped(patched, given)
    assert isinstance(ours.logits, LazyLogits)
    assert abs(ours.loss.item() / theirs.loss.item() - 1) < 1e-6
    assert tiny.apart(found, expected) < 1e-5
    torch.testing.assert_close(ours.logits.tensor(), theirs.logits, rtol=1e-5, atol=1e-6)


def test_lora_on_the_head(seed):
    own = adapted(seed)
    patched = copy.deepcopy(own)
    report = patch(patched)
    assert report.model == "LlamaForCausalLM"
    assert report.heads == ("lm_head",)
    head = patched.get_base_model().lm_head
    assert isinstance(weights(head)[0], xent.LowRank)
    assert classes(head) == tiny.V
    given = tiny.batch(seed)
    same(own, patched, given)
    for m in (own, patched):
        m.eval()
    with torch.no_grad():  # labels are seen where the call goes round the base model's hooks
        assert isinstance(patched(**given).logits, LazyLogits)
    for m in (own, patched):
        m.train()
    with own.disable_adapter(), patched.disable_adapter():
        assert isinstance(weights(head)[0], torch.nn.Parameter)
        theirs, ours = own(**given), patched(**given)
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-6, atol=0)
    unpatch(patched)
    assert type(patched(**given).logits) is torch.Tensor


def test_two_adapters_at_once(seed):
    own = adapted(seed)
    own.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["lm_head"]))
    shaken(own)
    own.base_model.set_adapter(["default", "second"])
    patched = copy.deepcopy(own)
    patch(patched)
    assert tuple(weights(patched.get_base_model().lm_head)[0].a.shape) == (5, 16)
    same(own, patched, tiny.batch(seed))


def test_a_bfloat16_head_with_a_float32_adapter(seed):
    own = adapted(seed).bfloat16()
    for name, p in own.named_parameters():
        if "lora_" in name:
            p.data = p.data.float()  # as peft makes them for a bfloat16 model
    exact = copy.deepcopy(own).double()
    patched = copy.deepcopy(own)
    patch(patched)
    given = tiny.batch(seed, rows=4, length=24)
    outputs, true = tiny.stepped(exact, given)
    (_, expected), (ours, found) = (tiny.stepped(m, given) for m in (own, patched))
    assert isinstance(ours.logits, LazyLogits)
    assert abs(ours.loss.item() / outputs.loss.item() - 1) < 2e-2
    errors = [float((g - true).norm() / true.norm()) for g in (found, expected)]
    assert errors[0] <= 1.15 * errors[1] + 2e-3


def test_a_head_that_is_trained_beside_the_original(seed):
    model = tiny.model("llama", seed)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    own = shaken(peft.get_peft_model(model, config))
    patched = copy.deepcopy(own)
    names = ("lm_head.original_module", "lm_head.modules_to_save.default")
    assert patch(patched).heads == names
    same(own, patched, tiny.batch(seed))


def test_adapters_elsewhere_leave_the_head_as_it_is(seed):
    model = tiny.model("gpt2", seed)
    own = shaken(peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["c_fc"])))
    patched = copy.deepcopy(own)
    patch(patched)
    same(own, patched, tiny.batch(seed))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lora_dropout": 0.1}, "has LoRA with dropout"),
        ({"lora_bias": True}, "has LoRA with a bias"),
        ({"use_dora": True}, "has a variant of LoRA"),
    ],
)
def test_an_adapter_that_cannot_be_patched_is_told(options, reason, seed):
    own = adapted(seed, **options)
    head = own.get_base_model().lm_head
    before = dict(vars(head))
    assert why_not(head) == reason
    with pytest.raises(ValueError, match=f"LlamaForCausalLM and a head that {reason}, expected"):
        patch(own)
    assert vars(head) == before
    assert type(own(**tiny.batch(seed)).logits) is torch.Tensor


def test_a_head_that_is_changed_later_makes_its_logits_and_tells(seed):
    patched = adapted(seed)
    patch(patched)
    given = tiny.batch(seed)
    expected = patched(**given).loss.item()
    head = patched.get_base_model().lm_head
    kept = patched(**given).logits
    head.lora_dropout["default"] = torch.nn.Dropout(1e-12)
    with pytest.warns(LogitsWarning, match="logits were made, as the head has LoRA with dropout"):
        outputs = patched(**given)
    assert type(outputs.logits) is torch.Tensor
    assert abs(outputs.loss.item() / expected - 1) < 1e-6
    with pytest.raises(ValueError, match="LazyLogits: head has changed: it has LoRA with dropout"):
        kept.cross_entropy(given["labels"])


def test_a_head_of_another_kind_is_told():
    assert why_not(torch.nn.Conv1d(1, 1, 1)) == "is a torch.nn.modules.conv.Conv1d"
    assert why_not(torch.nn.Linear(1, 1)) is None

    class Packed(torch.nn.Parameter):
        pass

    head = torch.nn.Linear(2, 3)
    head.weight = Packed(torch.ones(3, 2))
    assert why_not(head) == "has a weight of type Packed"


def test_tensor_parallel_models_are_refused(seed):
    model = tiny.model("llama", seed)
    model._tp_size = 2
    with pytest.raises(ValueError, match="LlamaForCausalLM and tensor-parallel layers, expected"):
        patch(model)
