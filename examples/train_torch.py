"""Training in torch with xent.nn.CrossEntropyLoss where torch.nn.CrossEntropyLoss would be.

A network that guesses the next letter from the three before it. Lines of different lengths share a
batch; what pads the short ones takes no part in the loss.
"""

import torch

import xent
import xent.nn

LINES = ["the cat sat on the mat", "a rat sat on a cat", "the mat had a hat", "that is that"]
PADDING = -100
CONTEXT = 3

letters = sorted(set("".join(LINES)))
longest = max(map(len, LINES))
codes = torch.full((len(LINES), longest), PADDING)
for row, line in zip(codes, LINES, strict=True):
    row[: len(line)] = torch.tensor([letters.index(letter) for letter in line])
before, target = codes.unfold(1, CONTEXT, 1)[:, :-1].clamp(min=0), codes[:, CONTEXT:]

torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Embedding(len(letters), 8),
    torch.nn.Flatten(start_dim=2),
    torch.nn.Linear(CONTEXT * 8, 32),
    torch.nn.Tanh(),
    torch.nn.Linear(32, len(letters)),
)
criterion = xent.nn.CrossEntropyLoss(ignore_index=PADDING, axis=-1)
optimizer = torch.optim.Adam(network.parameters(), lr=0.02)

for step in range(101):
    loss = criterion(network(before), target)  # (4, 19, 13) logits: their last axis is the letters
    if step % 25 == 0:
        bits = float(xent.info.to_bits(loss.detach()))
        print(f"step {step:3}: {loss:.4f} nats, {bits:.4f} bits a letter")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

logits = network(before)
torchs = torch.nn.functional.cross_entropy(logits.mT, target, ignore_index=PADDING)
print(f"torch's loss of these logits: {torchs:.4f}, xent's: {criterion(logits, target):.4f}")
