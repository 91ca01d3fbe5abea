"""What test_integrations_transformers_fsdp runs: patched models under FSDP2 on two gloo ranks."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny_models as tiny
from torch import distributed
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from xent.integrations.lazy_logits import LazyLogits
from xent.integrations.transformers import patch

# name of the model, whether the head is a unit of its own, reshard_after_forward, when patched
SETTINGS = [
    ("llama", False, True, "late"),
    ("llama", True, True, "early"),
    ("gemma2", False, True, "early"),  # tied
]


def sharded(model: torch.nn.Module, apart: bool, reshard: bool, **options: object) -> None:
    for layer in model.model.layers:
        fully_shard(layer, reshard_after_forward=reshard, **options)
    if apart:
        fully_shard(model.lm_head, reshard_after_forward=reshard, **options)
    fully_shard(model, reshard_after_forward=reshard, **options)


def setting(rank: int, seed: int, name: str, apart: bool, reshard: bool, when: str) -> dict:
    """How far loss and gradients of two ranks are from the mean of both on one."""
    own, patched = tiny.twins(name, seed, num_hidden_layers=1)
    if when == "early":
        patch(patched)
    sharded(patched, apart, reshard)
    if when == "late":
        patch(patched)
    batches = [tiny.batch(seed + r) for r in range(2)]
    losses = [own(**given).loss for given in batches]
    (sum(losses) / 2).backward()
    for _ in range(2):  # the second finds what the first left
        patched.zero_grad()
        outputs = patched(**batches[rank])
        outputs.loss.backward()
    found = torch.cat([p.grad.full_tensor().double().reshape(-1) for p in patched.parameters()])
    return {
        "lazy": isinstance(outputs.logits, LazyLogits),
        "loss": abs(outputs.loss.item() / losses[rank].item() - 1),
        "gradients": tiny.apart(found, tiny.gradients(own)),
    }


def halves(rank: int, seed: int) -> float:
    """How far the loss is under a bfloat16 policy."""
    own, patched = tiny.twins("llama", seed, num_hidden_layers=1)
    patch(patched)
    sharded(patched, False, True, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    given = tiny.batch(seed + rank)
    loss = patched(**given).loss
    loss.backward()
    return abs(loss.item() / own(**given).loss.item() - 1)


def outside(rank: int, seed: int) -> str:
    """What a loss outside of the forward says of a head that is sharded again."""
    patched = copy.deepcopy(tiny.model("llama", seed))
    patch(patched)
    sharded(patched, False, True)
    given = tiny.batch(seed)
    logits = patched(given["input_ids"]).logits
    try:
        logits.cross_entropy(given["labels"])
    except ValueError as error:
        return str(error)
    return ""


def main(rank: int, folder: str, seed: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    told = {
        "settings": [setting(rank, seed, *one) for one in SETTINGS],
        "halves": halves(rank, seed),
        "outside": outside(rank, seed),
    }
    (Path(folder) / f"told{rank}.json").write_text(json.dumps(told), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
