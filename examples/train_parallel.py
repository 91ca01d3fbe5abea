"""A language model whose head is split by classes and whose parameters are split by FSDP2.

    torchrun --nproc-per-node 4 examples/train_parallel.py

2 processes split the classes of the head; of 4, two and two do, each pair with half of the lines.
The same model is trained by one process alone: the curves are the same to the last digits, since
the loss of a split head is that of the whole, and the mean over lines that of all. They are drawn
into train_parallel.png.
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import parallelize_module

import xent.nn
from xent.parallel import VocabParallel

STEPS, LINES, LENGTH, WIDTH = 40, 8, 32, 24
TEXT = "the cat sat on the mat, a rat sat on a cat, the mat had a hat and that is that. " * 40
letters = sorted(set(TEXT))
codes = torch.tensor([letters.index(letter) for letter in TEXT])
VOCABULARY = len(letters) + 1000  # most of it never comes: as in a real one, and no multiple of 2


class Model(torch.nn.Module):
    """Letters to hidden states, and the loss of what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.recurrent = torch.nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.loss = xent.nn.LinearCrossEntropyLoss(WIDTH, VOCABULARY, z_loss=1e-4)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        hidden = self.recurrent(self.embedding(lines[:, :-1]))[0]
        return self.loss(hidden, lines[:, 1:])


def train(part: slice, split=None) -> list[float]:
    """The losses of a training on some of the lines of each batch, by a model split or whole."""
    torch.manual_seed(0)
    model = Model().double()
    if split is not None:
        split(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    draw, losses = torch.Generator().manual_seed(1), []
    for _ in range(STEPS):
        starts = torch.randint(len(codes) - LENGTH, (LINES,), generator=draw)[part]
        loss = model(torch.stack([codes[s : s + LENGTH] for s in starts]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def main() -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("data", "classes"))
    data, classes = mesh["data"], mesh["classes"]

    def split(model: Model) -> None:
        parallelize_module(model.loss, classes, VocabParallel())
        fully_shard(model.loss, mesh=data)
        fully_shard(model, mesh=data)

    each = LINES // data.size()
    first = data.get_local_rank() * each
    losses = torch.stack(train(slice(first, first + each), split))
    dist.all_reduce(losses, group=data.get_group())
    together = (losses / data.size()).tolist()
    if rank == 0:
        alone = torch.stack(train(slice(LINES))).tolist()
        show(alone, together, size)
    dist.barrier()
    dist.destroy_process_group()


def show(alone: list[float], together: list[float], size: int) -> None:
    print(f"step  1 process  {size} processes  difference")
    for step in (0, 1, 10, 20, STEPS - 1):
        one, many = alone[step], together[step]
        print(f"{step:4}  {one:9.6f}  {many:11.6f}  {abs(one - many):10.1e}")
    from matplotlib.figure import Figure

    from xent.plots import training_curves

    figure = Figure(figsize=(6, 4))
    curves = {"1 process": alone, f"{size} processes": together}
    training_curves(curves, figure.add_subplot())
    figure.savefig("train_parallel.png")
    apart = max(abs(a - b) for a, b in zip(alone, together, strict=True))
    print(f"train_parallel.png: both curves, at most {apart:.1e} nats apart")


if __name__ == "__main__":
    main()
