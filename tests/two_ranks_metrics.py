"""What test_integrations_torchmetrics runs: metrics of two gloo ranks with unequal batches."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from xent.integrations.torchmetrics import BitsPerByte, CrossEntropy, Perplexity


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    target = torch.randint(0, 11, (40,))
    target[::7] = -100
    return 30 * torch.randn(40, 11), target


def main(rank: int, folder: str, seed: int) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    logits, target = drawn(seed)
    mine = slice(0, 31) if rank == 0 else slice(31, 40)
    told = []
    for metric in (CrossEntropy(), Perplexity(), BitsPerByte()):
        for part in zip(logits[mine].split(8), target[mine].split(8), strict=True):
            more = (1 + 10 * rank,) if isinstance(metric, BitsPerByte) else ()
            metric.update(*part, *more)
        told.append(metric.compute().item())
    (Path(folder) / f"told{rank}.json").write_text(json.dumps(told), encoding="utf-8")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
