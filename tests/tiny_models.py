"""Tiny random language models made of their configs, and what is compared of them."""

from __future__ import annotations

import copy
import os
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched

import torch
import transformers
from transformers import logging
from transformers.utils import generic

logging.set_verbosity_error()
generic._is_mlx_available = False  # it may be here without the library that it wants

V = 97
LLAMA = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
NARROW = {**LLAMA, "num_key_value_heads": 1, "head_dim": 8}
BERT = {**LLAMA, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2 = {"vocab_size": V, "n_embd": 16, "n_layer": 2, "n_head": 2}
GPT2 |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
T5 = {"vocab_size": V, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
T5 |= {"dropout_rate": 0.0, "decoder_start_token_id": 0, "pad_token_id": 0}
BART = {"vocab_size": V, "d_model": 16, "max_position_embeddings": 32, "dropout": 0.0}
BART |= {f"{side}_layers": 1 for side in ("encoder", "decoder")}
BART |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
BART |= {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", NARROW),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**NARROW, "final_logit_softcapping": 0.5}),
    "granite": ("GraniteForCausalLM", "GraniteConfig", {**LLAMA, "logits_scaling": 0.3}),
    "cohere": ("CohereForCausalLM", "CohereConfig", {**LLAMA, "logit_scale": 2.5}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "bert": ("BertForMaskedLM", "BertConfig", BERT),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", {**BERT, "max_position_embeddings": 32}),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
}


def model(name: str, seed: int, **changes: Any) -> Any:
    """A random model in training, with logits large enough for a softcap to matter."""
    kind, config, options = MODELS[name]
    torch.manual_seed(seed)
    made = getattr(transformers, kind)(getattr(transformers, config)(**{**options, **changes}))
    with torch.no_grad():
        for key, value in (*made.named_parameters(), *made.named_buffers()):
            if "bias" in key and value.is_floating_point():  # they begin at 0
                value.copy_(torch.randn_like(value) / 4)
        made.get_output_embeddings().weight.mul_(8)
    return made.train()


def twins(name: str, seed: int, **changes: Any) -> tuple[Any, Any]:
    """The same model twice."""
    one = model(name, seed, **changes)
    return one, copy.deepcopy(one)


def batch(seed: int, rows: int = 2, length: int = 7, **more: Any) -> dict[str, Any]:
    """Tokens, and labels of which some are ignored."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, V, (rows, length), generator=draw)
    labels = torch.randint(0, V, (rows, length), generator=draw)
    labels[0, : length // 2] = -100
    return {"input_ids": tokens, "labels": labels, **more}


def gradients(trained: Any) -> torch.Tensor:
    """All in one row, in float64."""
    found = [p.grad for p in trained.parameters() if p.grad is not None]
    return torch.cat([g.detach().double().reshape(-1) for g in found])


def stepped(trained: Any, given: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """What a model returns, and the gradients of its loss."""
    trained.zero_grad()
    outputs = trained(**given)
    outputs.loss.backward()
    return outputs, gradients(trained)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference over the largest entry."""
    return float((a - b).abs().max() / b.abs().max())
