"""A small language model with a head of 32,000 entries, trained with torch's loss and with xent's.

The text is the help on the Python language that comes with Python. An entry of the vocabulary is a
character, or a word or a run of marks with the space before it, the most frequent first; what finds
no room is spelt in characters, and rows of the head that are left over belong to no entry. The
model is an embedding, a GRU and a head that is the embedding's own matrix, in float32.

torch's loss is F.cross_entropy of all logits, hidden @ weight.T; xent's stores none of them. Both
models start from the same parameters, see the same batches and take turns, so that whatever else
the machine does slows both. The peak of memory varies, by some 16 MiB at the sizes below, with what
the C library keeps of freed memory: less with glibc's MALLOC_MMAP_THRESHOLD_=131072.
"""

import argparse
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median

import torch
from matplotlib.figure import Figure

import xent.nn
from xent.bench.memory import extra_bytes
from xent.plots import training_curves
from xent.plots.axes import BLUE, VERMILION

CONTEXT = 32  # tokens of a line, each guessed from those before it
LEARNING_RATE = 1e-2
MIB = 2**20
TORCH, XENT = "torch", "xent"


class AllLogits(torch.nn.Module):
    """torch's loss of a linear head."""

    def __init__(self, width, entries):
        super().__init__()
        self.linear = torch.nn.Linear(width, entries, bias=False)

    def forward(self, hidden, target):
        logits = self.linear(hidden)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())


class LanguageModel(torch.nn.Module):
    """Guesses each token from those before it; its output is the loss, in nats per token."""

    def __init__(self, width, entries, loss):
        super().__init__()
        self.embedding = torch.nn.Embedding(entries, width)
        self.gru = torch.nn.GRU(width, width, batch_first=True)
        self.loss = loss
        loss.linear.weight = self.embedding.weight
        torch.nn.init.normal_(self.embedding.weight, std=width**-0.5)  # a guess among all at first

    def forward(self, codes):
        hidden, _ = self.gru(self.embedding(codes[:, :-1]))
        return self.loss(hidden, codes[:, 1:])


@dataclass
class Training:
    """Of every step the loss in nats per token and the seconds; the most bytes that one takes."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    extra: int | None = None  # None where the system does not tell


def pieces_of(text):
    """Words and runs of marks, each with the space before it, and other white space: all of it."""
    return re.findall(r" ?\w+| ?[^\w\s]+|\s+", text)


def vocabulary(pieces, size):
    """The code of each entry: every character, then the most frequent pieces that find room."""
    characters = sorted(set(chain.from_iterable(pieces)))
    longer = (piece for piece, _ in Counter(pieces).most_common() if len(piece) > 1)
    return {entry: code for code, entry in enumerate(islice(chain(characters, longer), size))}


def encoded(pieces, entries):
    """A code for each piece, or one for each character of it."""
    spelt = ([piece] if piece in entries else piece for piece in pieces)
    return torch.tensor([entries[entry] for entry in chain.from_iterable(spelt)])


def batches(codes, steps, tokens, seed):
    """Lines from anywhere in the text: (steps, tokens / CONTEXT, CONTEXT + 1) codes."""
    generator = torch.Generator().manual_seed(seed)
    lines = codes.unfold(0, CONTEXT + 1, 1)
    shape = steps, tokens // CONTEXT
    return lines[torch.randint(len(lines), shape, generator=generator)]


def models(width, entries, seed):
    """One for each loss, with the same parameters."""
    torch.manual_seed(seed)
    theirs = LanguageModel(width, entries, AllLogits(width, entries))
    ours = LanguageModel(width, entries, xent.nn.LinearCrossEntropyLoss(width, entries))
    ours.load_state_dict(theirs.state_dict())
    return {TORCH: theirs, XENT: ours}


def train(models, batches):
    """A Training for each model; a step is forward, backward and Adam."""
    trainings = {name: Training() for name in models}
    optimizers = {
        name: torch.optim.Adam(model.parameters(), LEARNING_RATE) for name, model in models.items()
    }
    print("loss in nats per token:", *models)
    for step, batch in enumerate(batches):
        for name, model in models.items():
            begin = time.perf_counter()
            loss = model(batch)
            loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            trainings[name].seconds.append(time.perf_counter() - begin)
            trainings[name].losses.append(loss.item())
        if step % 25 == 0:
            print(f"step {step:3}:", *(f"{t.losses[-1]:.4f}" for t in trainings.values()))
    for name, model in models.items():
        trainings[name].extra = extra_bytes(lambda model=model: model(batches[-1]).backward())
        optimizers[name].zero_grad()
    return trainings


def largest_difference(trainings):
    """Between the two curves, in nats per token, and the step at which it is."""
    curves = zip(*(training.losses for training in trainings.values()), strict=True)
    gaps = [abs(theirs - ours) for theirs, ours in curves]
    return max(gaps), gaps.index(max(gaps))


def told(extra):
    return "not told" if extra is None else f"{extra / MIB:.1f}"


def report(trainings):
    """Print the table, and what its columns are."""
    print(f"\n{'':5} {'first loss':>10} {'last loss':>10} {'ms per step':>12} {'extra MiB':>10}")
    for name, training in trainings.items():
        losses = f"{training.losses[0]:10.6f} {training.losses[-1]:10.6f}"
        milliseconds = 1000 * median(training.seconds)
        print(f"{name:5} {losses} {milliseconds:12.1f} {told(training.extra):>10}")
    gap, step = largest_difference(trainings)
    print(f"largest difference between the curves: {gap:.1e} nats per token, at step {step}")
    print("ms per step: the median of forward, backward and Adam, of the whole model")
    print("extra MiB: the peak of one forward and backward above what was held, with gradients")


def draw(trainings, file):
    """The curves over each other, then what a step takes in time and in memory."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curves, time_ax, memory_ax = figure.subplots(1, 3, width_ratios=(3, 1, 1))
    training_curves({name: training.losses for name, training in trainings.items()}, curves)
    gap, step = largest_difference(trainings)
    curves.set(ylabel="loss (nats per token)")
    curves.locator_params(axis="x", integer=True)
    curves.set_title(f"Training loss; largest difference {gap:.1e} nats, at step {step}")
    milliseconds = [1000 * median(training.seconds) for training in trainings.values()]
    drawn = time_ax.bar(list(trainings), milliseconds, color=(BLUE, VERMILION))
    time_ax.bar_label(drawn, fmt="{:.0f}")
    time_ax.set(ylabel="median of the steps (ms)", title="Time")
    extra = [training.extra for training in trainings.values()]
    mebibytes = [(peak or 0) / MIB for peak in extra]
    drawn = memory_ax.bar(list(trainings), mebibytes, color=(BLUE, VERMILION))
    memory_ax.bar_label(drawn, map(told, extra))
    memory_ax.set(ylabel="peak of a forward and backward (MiB)", title="Extra memory")
    for ax in (time_ax, memory_ax):
        ax.margins(y=0.1)  # room for the numbers
    figure.savefig(file, dpi=150)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.description = "Train one language model with torch's loss and with xent's."
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="entries of the head")
    parser.add_argument("--tokens", type=int, default=512, help=f"of a step, {CONTEXT} in a line")
    parser.add_argument("--width", type=int, default=64, help="of embedding and hidden state")
    parser.add_argument("--seed", type=int, default=0, help="of the start and of the batches")
    figure = "tiny_language_model.png"
    parser.add_argument("--figure", type=Path, default=figure, help="curves, time and memory")
    asked = parser.parse_args()

    text = "\n\n".join(topics.values())
    pieces = pieces_of(text)
    if asked.vocabulary < len(set(text)):
        parser.error(f"the text has {len(set(text))} characters, each of them an entry")
    if asked.steps < 1 or asked.tokens < 1 or asked.tokens % CONTEXT:
        parser.error(f"expected 1 step or more, of a multiple of {CONTEXT} tokens")
    if not asked.figure.absolute().parent.is_dir():
        parser.error(f"{asked.figure.parent} is not a folder")
    codes = encoded(pieces, vocabulary(pieces, asked.vocabulary))
    print(f"text: {len(text):,} characters, {len(codes):,} tokens")
    print(f"head: {asked.vocabulary:,} entries, of which {len(codes.unique()):,} occur in the text")

    drawn = batches(codes, asked.steps, asked.tokens, asked.seed)
    trainings = train(models(asked.width, asked.vocabulary, asked.seed), drawn)
    report(trainings)
    draw(trainings, asked.figure)
    print(f"picture: {asked.figure}")


if __name__ == "__main__":
    main()
