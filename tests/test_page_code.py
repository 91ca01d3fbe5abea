"""page/code.js, run in Node: the code that it writes is run, and gives xent's numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xent

sys.path.insert(0, str(Path(__file__).parent))
from page_modules import batches, javascript

BODY = "return [numpy(batch), torch(batch)];"


def of_xent(batch: dict) -> tuple[Any, np.ndarray]:
    loss, vjp = xent.cross_entropy_vjp(
        np.array(batch["logits"]),
        np.where(batch["ignored"], -100, batch["target"]),
        np.array(batch["weight"], float),
        label_smoothing=batch["smoothing"],
        z_loss=batch["zLoss"],
        logit_scale=1 / batch["temperature"],
        reduction=batch["reduction"],
    )
    return loss, vjp(np.ones_like(loss))


def ran(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "pasted", "exec"), names)
    return names


def test_the_code_gives_the_numbers_of_xent(rng: np.random.Generator, tmp_path: Path) -> None:
    cases = [{"batch": batch} for batch in batches(rng, 40)]
    told = javascript(tmp_path, "code.js", "numpy, torch", BODY, cases)
    for case, (for_numpy, for_torch) in zip(cases, told, strict=True):
        loss, gradient = of_xent(case["batch"])
        near = {"rtol": 1e-11, "atol": 1e-12 * max(1, np.abs(gradient).max())}
        found = ran(for_numpy)
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-12)
        np.testing.assert_allclose(found["dlogits"], gradient, **near)
        found = ran(for_torch)
        np.testing.assert_allclose(found["loss"].detach().numpy(), loss, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found["logits"].grad.numpy(), gradient, **near)


def test_the_numpy_code_keeps_the_digits_of_a_confident_row(rng: Any, tmp_path: Path) -> None:
    usual = {"weight": [1, 1, 1], "temperature": 1, "smoothing": 0, "zLoss": 0}
    logits = np.eye(3) * rng.uniform(40, 600, (3, 1)) + rng.normal(0, 1, (3, 3))
    batch = {"logits": logits.tolist(), "target": [0, 1, 2], "ignored": [False] * 3, **usual}
    cases = [{"batch": batch | {"reduction": reduction}} for reduction in ("mean", "none")]
    for case, (for_numpy, _) in zip(
        cases, javascript(tmp_path, "code.js", "numpy, torch", BODY, cases), strict=True
    ):
        loss, gradient = of_xent(case["batch"])
        found = ran(for_numpy)
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-12)
        np.testing.assert_allclose(found["dlogits"], gradient, rtol=1e-12)


def test_a_batch_of_ignored_rows_has_loss_nan_and_gradient_0(rng: Any, tmp_path: Path) -> None:
    batch = batches(rng, 1)[0] | {"ignored": [True] * 3, "reduction": "mean", "zLoss": 0}
    ((for_numpy, for_torch),) = javascript(
        tmp_path, "code.js", "numpy, torch", BODY, [{"batch": batch}]
    )
    with np.errstate(invalid="ignore"):
        found = ran(for_numpy)
    assert np.isnan(found["loss"])
    assert np.all(found["dlogits"] == 0)
    found = ran(for_torch)
    assert torch.isnan(found["loss"])
    assert torch.all(found["logits"].grad == 0)


def test_numbers_are_floats_in_python(rng: Any, tmp_path: Path) -> None:
    values = [2.0, -3.0, 0.1, 1e-7, -2.5e-300, 1e20, 1e21]
    batch = batches(rng, 1)[0] | {"weight": [1, 2, 3], "target": [0, 1, 2]}
    cases = [{"batch": batch | {"logits": [[value, 0, 0]] * 3}} for value in values]
    told = javascript(tmp_path, "code.js", "numpy, torch", BODY, cases)
    for value, (for_numpy, for_torch) in zip(values, told, strict=True):
        for code in (for_numpy, for_torch):
            logits = ran(code.partition("target =")[0])["logits"]
            assert logits[0, 0].item() == value
            assert str(logits.dtype).endswith("float64")
