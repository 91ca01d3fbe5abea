"""A classifier of digits that is too sure of itself, and what one number does about it.

Logistic regression that is hardly held back fits its few images to the last, and is sure where it
is wrong. Half of the other images are used to find the temperature that its logits are divided by,
the rest to tell what is gained.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import xent


def predictions(seed):
    """Logits and targets of images to calibrate on, and of images to judge by."""
    images, target = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(target))
    fit, calibrate, judge = np.split(order, (200, 1000))
    model = LogisticRegression(C=100, max_iter=5000).fit(images[fit], target[fit])
    logits = model.decision_function(images)
    return (logits[calibrate], target[calibrate]), (logits[judge], target[judge])


def main():
    parser = argparse.ArgumentParser(description="Calibrate a classifier of digits.")
    parser.add_argument("--seed", type=int, default=0, help="of what is trained on")
    parser.add_argument("--figures", type=Path, help="a folder for reliability diagrams")
    asked = parser.parse_args()
    calibrate, (logits, target) = predictions(asked.seed)
    temperature = xent.evaluate(*calibrate).temperature.temperature
    with TemporaryDirectory() as folder:
        for name, scale in ("before", 1.0), ("after", 1 / temperature):
            file = Path(folder, f"{name}.npy")
            np.save(file, logits * scale)
            told = xent.evaluate(file, target, worst=3)
            print(
                f"{name}: loss {told.loss:.4f} ± {told.standard_error:.4f} nats, "
                f"accuracy {told.accuracy:.2%}, ECE {told.ece:.2%}, Brier {told.brier:.4f}, "
                f"skill {told.skill:.2%}"
            )
            if asked.figures:
                from xent.evaluation.figure import draw

                draw(told, asked.figures / f"evaluate-digits-{name}.png")
    print(f"temperature: {temperature:.3f}, from {len(calibrate[1])} other images")


if __name__ == "__main__":
    main()
