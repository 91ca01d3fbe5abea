"""Hugging Face transformers: language models whose logits are not made in training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch

from xent.integrations.heads import classes, language_model, linear_heads, weights, why_not
from xent.integrations.lazy_logits import EvaluationLogits, LazyLogits
from xent.integrations.recorded import Request
from xent.spec import Plan

Tensor = torch.Tensor
RECORD = "_xent_patch"  # the attribute of a patched model and of its heads


class LogitsWarning(UserWarning):
    """A patched head made its logits in training, so that their memory is not saved."""


@dataclass(frozen=True)
class Patched:
    """What `patch` did.

    Attributes:
        model: the class of the model that was patched.
        heads: the names of its modules that return lazy logits.
        loss: "causal" or "masked", the loss that was set; "own" where the model's is left, as
            lazy logits serve any loss that calls `torch.nn.functional.cross_entropy`.
    """

    model: str
    heads: tuple[str, ...]
    loss: str


@dataclass(eq=False)
class _Patch:
    """What is kept with a patched model and its heads."""

    plan: Plan | None
    name: str
    labelled: bool = False  # whether the call that runs has labels
    told: set[str] = field(default_factory=set)
    report: Patched | None = None
    hooks: list[Any] = field(default_factory=list)

    def made(self, by: str, shape: tuple[int, ...]) -> None:
        """Tell once that logits are made in training."""
        self.tell(f"{by} made the logits {shape} of a patched head")

    def tell(self, what: str) -> None:
        """Tell once."""
        if what.split("(")[0] not in self.told:
            self.told.add(what.split("(")[0])
            text = f"{self.name}: {what} in training: their memory is not saved"
            warnings.warn(text, LogitsWarning, stacklevel=2)


@dataclass(eq=False)
class _Head:
    """What is kept with a patched head."""

    patch: _Patch
    forward: Any  # as it was
    slot: str  # the attribute that was replaced
    own: bool  # whether the head itself had it


def patch(model: torch.nn.Module, *, plan: Plan | None = None) -> Patched:
    """Train a causal, masked or sequence-to-sequence model without ever storing its logits.

    In training, and in evaluation where labels are given, the head returns `LazyLogits`; the loss
    is `xent.linear_cross_entropy` of its hidden states, with the scale, softcap and bias that the
    model gives its logits. They are made when anything else is asked of them.

    `model.loss_function` is set on the model, with the meaning of the one before: the mean, or the
    sum divided by `num_items_in_batch`, in nats. Parameters, classes and `LOSS_MAPPING` are left as
    they are. To be called after peft has added its adapters; before or after FSDP2 or accelerate.

    Args:
        model: a transformers model with output embeddings, or a module that has one inside.
        plan: how the loss is computed; see `xent.Plan`.

    Returns:
        What was done; what was done before, where the model is patched already.

    Raises:
        TypeError: no torch module.
        ValueError: a model that cannot be patched, which is left as it was: without output
            embeddings; whose head is no `torch.nn.Linear`, nor LoRA of one without dropout, bias
            and variants; or with tensor-parallel layers.

    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from xent.integrations.transformers import patch
    >>> small = dict(vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **small))
    >>> patch(model)
    Patched(model='LlamaForCausalLM', heads=('lm_head',), loss='causal')
    >>> tokens = torch.tensor([[1, 2, 3, 4]])
    >>> model.train()(input_ids=tokens, labels=tokens).logits
    LazyLogits((1, 4, 50), torch.float32)
    """
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss, ForMaskedLMLoss

    base = language_model(model)
    if RECORD in vars(base):
        return vars(base)[RECORD].report
    heads = linear_heads(base)
    state = _Patch(plan, type(base).__name__)
    for head in heads:
        slot = "_old_forward" if "_old_forward" in vars(head) else "forward"  # accelerate's hook
        kept = _Head(state, getattr(head, slot), slot, slot in vars(head))
        vars(head)[RECORD] = kept
        vars(head)[slot] = MethodType(_forward, head)
    known = {ForCausalLMLoss: ("causal", causal_loss), ForMaskedLMLoss: ("masked", masked_loss)}
    theirs = LOSS_MAPPING.get(getattr(base, "loss_type", None) or "", ForCausalLMLoss)
    name, loss = known.get(theirs, ("own", None))
    if loss is None or "_loss_function" in vars(base):
        name = "own"
    else:
        base.loss_function = loss
    for module in {id(m): m for m in (model, base)}.values():
        state.hooks.append(module.register_forward_pre_hook(_Before(state), with_kwargs=True))
        state.hooks.append(module.register_forward_hook(_After(state), always_call=True))
    names = {id(module): name for name, module in base.named_modules()}
    state.report = Patched(state.name, tuple(names[id(head)] for head in heads), name)
    vars(base)[RECORD] = state
    return state.report


def unpatch(model: torch.nn.Module) -> None:
    """Give a patched model its own head and loss again; one that is not patched is left alone.

    Args:
        model: what was given to `patch`, or a module that has it inside.

    >>> import torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from xent.integrations.transformers import patch, unpatch
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2))
    >>> report = patch(model)
    >>> unpatch(model)
    >>> type(model.train()(torch.tensor([[1, 2]])).logits).__name__
    'Tensor'
    """
    base = language_model(model)
    state = vars(base).pop(RECORD, None)
    if state is None:
        return
    for hook in state.hooks:
        hook.remove()
    if vars(base).get("_loss_function") in (causal_loss, masked_loss):
        del base._loss_function
    for head in base.modules():
        kept = vars(head).pop(RECORD, None)
        if kept is None:
            continue
        for slot in ("forward", "_old_forward"):  # a hook of accelerate's may have come since
            if getattr(vars(head).get(slot), "__func__", None) is _forward:
                vars(head)[slot] = kept.forward
                if slot == "forward" and not kept.own:
                    del vars(head)[slot]


def causal_loss(
    logits: Any,
    labels: Tensor,
    vocab_size: int | None = None,
    num_items_in_batch: Tensor | float | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """transformers' `ForCausalLMLoss` of logits that may be lazy: each with the label after it.

    Args:
        logits: (..., T, V), lazy or not.
        labels: (..., T) class indices on any device.
        vocab_size: V; that of the logits is taken.
        num_items_in_batch: what the sum is divided by, on any device; None for a mean over the
            labels that are not ignored.
        ignore_index: the label that takes no part.
        shift_labels: (..., T) labels that are shifted already.
        **kwargs: not read, as transformers does not.

    Returns:
        The loss in nats, at least float32.

    >>> import torch
    >>> from xent.integrations.transformers import causal_loss
    >>> causal_loss(torch.zeros(1, 3, 8), torch.tensor([[0, 1, 2]]))
    tensor(2.0794)
    """
    if shift_labels is None:
        padded = torch.nn.functional.pad(labels, (0, 1), value=ignore_index)
        shift_labels = padded[..., 1:]
    return masked_loss(logits, shift_labels, vocab_size, num_items_in_batch, ignore_index)


def masked_loss(
    logits: Any,
    labels: Tensor,
    vocab_size: int | None = None,
    num_items_in_batch: Tensor | float | None = None,
    ignore_index: int = -100,
    **kwargs: Any,
) -> Tensor:
    """transformers' `ForMaskedLMLoss` of logits that may be lazy: each with its own label.

    Args:
        logits: (..., V), lazy or not.
        labels: (...) class indices on any device.
        vocab_size: V; that of the logits is taken.
        num_items_in_batch: what the sum is divided by, on any device; None for a mean over the
            labels that are not ignored.
        ignore_index: the label that takes no part.
        **kwargs: not read, as transformers does not.

    Returns:
        The loss in nats, at least float32.

    >>> import torch
    >>> from xent.integrations.transformers import masked_loss
    >>> masked_loss(torch.zeros(1, 2, 8), torch.tensor([[0, -100]]), num_items_in_batch=2)
    tensor(1.0397)
    """
    logits = logits.float().reshape(-1, logits.shape[-1])
    labels = labels.reshape(-1).to(logits.device)
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = torch.nn.functional.cross_entropy(
        logits, labels, ignore_index=ignore_index, reduction=reduction
    )
    if num_items_in_batch is None:
        return loss
    if isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(loss.device)
    return loss / num_items_in_batch


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """The forward of a patched head."""
    kept = vars(self)[RECORD]
    if len(args) == 2 and isinstance(args[1], Request):
        hidden, request = args
        if request.of is None:
            return kept.forward(hidden)
        return request.of(hidden, *weights(self))  # an error where FSDP has sharded them again
    wanted = self.training or kept.patch.labelled
    if not wanted or kwargs or len(args) != 1:
        return kept.forward(*args, **kwargs)
    reason = why_not(self)
    if reason:
        kept.patch.tell(f"logits were made, as the head {reason},")
        return kept.forward(*args)
    kind = LazyLogits if self.training else EvaluationLogits
    told = kept.patch.made if self.training else _untold
    return kind(self, args[0], classes(self), kept.patch.plan, told)


def _untold(by: str, shape: tuple[int, ...]) -> None:
    """Logits are for the asking in evaluation."""


@dataclass(eq=False)
class _Before:
    """Notes whether a call has labels."""

    state: _Patch

    def __call__(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        self.state.labelled = self.state.labelled or kwargs.get("labels") is not None


@dataclass(eq=False)
class _After:
    """Forgets it."""

    state: _Patch

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        self.state.labelled = False
