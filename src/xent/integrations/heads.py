"""The linear heads of a language model: which modules they are, and what they multiply by."""

from __future__ import annotations

from typing import Any

import torch

from xent.errors import bad
from xent.inputs_linear import LowRank

Module = torch.nn.Module
PLAIN = (torch.Tensor, torch.nn.Parameter)


def language_model(model: Any) -> Any:
    """The transformers model with a head that is or is inside `model`: in a PeftModel, or DDP."""
    from transformers import PreTrainedModel

    if not isinstance(model, Module):
        has = f"type {type(model).__name__}"
        raise bad(TypeError, "patch", "model", has, "a torch module that has a transformers model")
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and _head(module) is not None:
            return module
    has = f"type {type(model).__name__}, without output embeddings"
    raise bad(ValueError, "patch", "model", has, "a causal, masked or sequence-to-sequence one")


def linear_heads(model: Any) -> list[Module]:
    """The modules that make its logits, each of which can be patched.

    There are several where peft keeps a trained copy beside the original.
    """
    if (getattr(model, "tp_size", None) or 1) > 1:
        raise _not_patched(model, "tensor-parallel layers", "whole rows of logits")
    head = _head(model)
    found = [head]
    if hasattr(head, "modules_to_save") and hasattr(head, "original_module"):
        found = [head.original_module, *head.modules_to_save.values()]
    for one in found:
        reason = why_not(one, at_rest=True)
        if reason:
            raise _not_patched(model, f"a head that {reason}", "a torch.nn.Linear, or LoRA of one")
    return found


def why_not(head: Any, at_rest: bool = False) -> str | None:
    """Why logits of this head cannot be lazy; None if they can.

    At rest, between calls, FSDP2 may have sharded its weight.
    """
    if _is_lora(head):
        reason = _why_not_lora(head)
        if reason:
            return reason
        head = head.base_layer
    if not isinstance(head, torch.nn.Linear) or type(head).forward is not torch.nn.Linear.forward:
        return f"is a {type(head).__module__}.{type(head).__qualname__}"
    kind = type(head.weight)
    if kind not in PLAIN and not (at_rest and kind.__name__ == "DTensor"):
        return f"has a weight of type {kind.__name__}"
    return None


def weights(head: Any) -> tuple[Any, torch.Tensor | None]:
    """linear_weight and linear_bias of `linear_cross_entropy` for a head that `why_not` allows."""
    reason = why_not(head)
    if reason:
        wanted = "what it was when it was called: a loss belongs into the model's forward"
        raise bad(ValueError, "LazyLogits", "head", f"changed: it {reason}", wanted)
    if not _is_lora(head):
        return head.weight, head.bias
    base = head.base_layer
    names = [] if head.disable_adapters or head.merged else _adapters(head)
    if not names:
        return base.weight, base.bias
    scales = [head.scaling[name] for name in names]
    a = [head.lora_A[name].weight for name in names]
    b = [head.lora_B[name].weight for name in names]
    if len(names) == 1:
        return LowRank(base.weight, a[0], b[0], float(scales[0])), base.bias
    scaled = [part * scale for part, scale in zip(b, scales, strict=True)]
    return LowRank(base.weight, torch.cat(a), torch.cat(scaled, dim=1)), base.bias


def classes(head: Any) -> int:
    """V."""
    return (head.base_layer if _is_lora(head) else head).weight.shape[0]


def _head(model: Any) -> Any:
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def _is_lora(head: Any) -> bool:
    """Whether it is peft's LoRA of a linear layer, which then need not be imported."""
    kind = type(head)
    return kind.__module__ == "peft.tuners.lora.layer" and kind.__name__.endswith("Linear")


def _adapters(head: Any) -> list[str]:
    return [name for name in head.active_adapters if name in head.lora_A]


def _why_not_lora(head: Any) -> str | None:
    names = _adapters(head)
    if any(name in head.lora_variant for name in names):
        return "has a variant of LoRA"
    if any(getattr(head.lora_dropout[name], "p", 0.0) > 0 for name in names):
        return "has LoRA with dropout"
    if any(head.lora_B[name].bias is not None for name in names):
        return "has LoRA with a bias"
    if head.disable_adapters and head.merged:
        return "has LoRA to be unmerged"
    return None


def _not_patched(model: Any, has: str, expected: str) -> ValueError:
    return bad(ValueError, "patch", "model", f"type {type(model).__name__} and {has}", expected)
