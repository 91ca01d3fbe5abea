"""A language model's head in float32, against the same with bfloat16 and int8 weights.

The model is that of tiny_language_model.py, trained briefly. Its logits on text are saved for each
form of the head's weights, and what the rounding of the weights changed is told from the files.
int8 weights have a scale for each entry of the vocabulary.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import xent
import xent.nn
from xent.evaluation.report import llama_table

sys.path.insert(0, str(Path(__file__).parent))
import tiny_language_model as language

ENTRIES, WIDTH, TOKENS = 2000, 32, 512


def in_bfloat16(weight):
    return weight.bfloat16().float()


def in_int8(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


def main():
    parser = argparse.ArgumentParser(description="Compare forms of a language model's head.")
    parser.add_argument("--steps", type=int, default=100, help="of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the start and of the batches")
    asked = parser.parse_args()
    pieces = language.pieces_of("\n\n".join(language.topics.values()))
    codes = language.encoded(pieces, language.vocabulary(pieces, ENTRIES))
    drawn = language.batches(codes, asked.steps + 8, TOKENS, asked.seed)
    models = {"xent": language.models(WIDTH, ENTRIES, asked.seed)["xent"]}
    language.train(models, drawn[: asked.steps])
    model = models["xent"]

    judged = drawn[asked.steps :].flatten(0, 1)
    with torch.no_grad(), TemporaryDirectory() as folder:
        hidden = model.gru(model.embedding(judged[:, :-1]))[0].flatten(0, 1)
        target = judged[:, 1:].flatten().numpy()
        weight = model.embedding.weight
        files = {}
        for name, form in (
            ("float32", weight),
            ("bfloat16", in_bfloat16(weight)),
            (
                "int8",
                in_int8(weight),
            ),
        ):
            files[name] = Path(folder, f"{name}.npy")
            np.save(files[name], (hidden @ form.T).numpy())
        for name in ("bfloat16", "int8"):
            told = xent.compare(files["float32"], files[name], target)
            low, high = told.interval
            print(f"\n{name} against float32, {told.rows} tokens:")
            print(
                f"loss {told.base_loss.mean:.4f} -> {told.new_loss.mean:.4f} nats, "
                f"difference {low:.1e} to {high:.1e} (95 %)"
            )
            print(f"mean KL divergence {told.kl.mean:.2e} nats")
            print(llama_table(told))


if __name__ == "__main__":
    main()
