"""conformance/flaws: the right way is right, and every mistake shows somewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xent.conformance import draws, expect, flaws
from xent.conformance.draws import Case


def cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for reduction in ("none", "sum", "mean"):
        for case in draws.plain(rng, draws.SIZES[1:], reduction=reduction):
            up = rng.standard_normal(len(case.target)) if reduction == "none" else 2.5
            case = replace(case, upstream=up)
            soft = replace(case, target=2 * draws.probabilities(rng, *case.logits.shape))
            weighted = draws.weighted(draws.ignoring(case, rng), rng)
            found += [case, soft, draws.weighted(soft, rng), weighted]
            found += [replace(weighted, label_smoothing=0.25), replace(soft, label_smoothing=0.25)]
            capped = replace(weighted, softcap=1.5, logit_scale=0.75)
            found += [replace(weighted, z_loss=0.25), capped, replace(capped, z_loss=0.25)]
            if reduction == "mean":
                found.append(replace(weighted, normalizer=5.5))
            found.append(replace(case, ignore_index=-1, target=np.full(len(case.target), 2 % 3)))
            found.append(replace(case, target=np.zeros(len(case.target), int)))
        places = rng.integers(0, 3, (2, 2))
        found.append(Case(draws.logits(rng, 2, 3, 2), places, reduction=reduction))
        square = Case(draws.logits(rng, 3, 3), rng.integers(0, 3, 3), reduction=reduction)
        found.append(replace(square, upstream=np.arange(3.0) if reduction == "none" else 2.5))
    return found


def test_the_right_way_is_right(rng: np.random.Generator) -> None:
    for case in cases(rng):
        exact = expect.expected(case, expect.BOTH)
        loss, gradient = flaws.answer(case, flaws.Way())
        np.testing.assert_allclose(loss, exact["loss"], rtol=1e-11, atol=1e-12, err_msg=case.told())
        np.testing.assert_allclose(gradient, exact["dlogits"], rtol=1e-9, atol=1e-12)


def test_every_mistake_shows(rng: np.random.Generator) -> None:
    drawn = cases(rng)
    right = [flaws.answer(case, flaws.Way()) for case in drawn]
    for name, way in flaws.ways():
        for case, answers in zip(drawn, right, strict=True):
            found = flaws.answer(case, way)
            if not all(map(np.allclose, found, answers)):
                break
        else:
            raise AssertionError(f"{name} gives the right answer everywhere")


def test_every_mistake_has_words() -> None:
    for name, (text, _) in flaws.FLAWS.items():
        assert len(text) > 15, name
        assert not text.endswith("."), name
