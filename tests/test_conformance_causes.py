"""conformance/causes: the mistake that gives a number, and the one that explains most."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from xent.conformance import causes, draws, flaws
from xent.conformance.draws import Case


def test_a_mistake_is_found_by_its_number(rng: np.random.Generator) -> None:
    (case,) = draws.plain(rng, ((4, 3),))
    # No three of these weights add up to the number of rows, where that mistake would not show.
    case = draws.ignoring(replace(case, weight=np.array([0.3, 1.7, 2.9])), rng)
    loss, gradient = flaws.answer(case, flaws.FLAWS["divided_by_rows"][1])
    found = causes.matching(case, {"loss": loss, "dlogits": gradient}, ["loss", "dlogits"])
    assert found[0] == "divided_by_rows"
    right = flaws.answer(case, flaws.Way())[0]
    backward = causes.matching(case, {"loss": right, "dlogits": gradient}, ["dlogits"])
    assert "gradient_of_n_rows" in backward
    assert "divided_by_rows" not in backward


def test_an_unstable_formula_is_found_by_its_infinity() -> None:
    case = Case(np.array([[0.0, 800.0]]), np.array([0]), reduction="none")
    exact = {"loss": np.array([800.0])}
    found = causes.matching(case, {"loss": np.array([np.inf])}, ["loss"], exact)
    assert "log_of_softmax" in found
    assert not causes.matching(case, {"loss": np.array([3.25])}, ["loss"], exact)


@dataclass
class Failure:
    """What `ranked` looks at."""

    name: str
    flaws: tuple[str, ...] = ()
    tier: str = "agrees with torch"
    severity: int = 1
    hint: str = "a hint"


def test_the_cause_of_most_comes_first() -> None:
    found = causes.ranked(
        [
            Failure("a", ("sign", "bits")),
            Failure("b", ("bits",)),
            Failure("c", ("log_one_plus",), "better than torch"),
            Failure("d", severity=3),
        ]
    )
    assert [(c.name, c.checks) for c in found] == [
        ("bits", ("a", "b")),
        ("d", ("d",)),
        ("log_one_plus", ("c",)),
    ]
    assert found[1].text == "a hint"


@pytest.mark.parametrize("name", [*flaws.FLAWS, *causes.BEHAVIOUR])
def test_every_cause_has_words(name: str) -> None:
    assert causes.text_of(name)


def test_backward_alone_is_said() -> None:
    assert str(causes.text_of("bits/backward")).startswith("in backward: you took log2")
    assert causes.text_of("unknown") is None
