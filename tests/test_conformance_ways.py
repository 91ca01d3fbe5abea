"""conformance/ways: known numbers of known mistakes."""

from __future__ import annotations

import numpy as np

from xent.conformance.draws import Case
from xent.conformance.ways import Slope, Way, answer

CASE = Case(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), np.array([2, -1]), ignore_index=-1)


def test_the_numbers_of_the_sources() -> None:
    loss, gradient = answer(CASE, Way())
    np.testing.assert_allclose(loss, 0.40760596444438)
    np.testing.assert_allclose(gradient[0], [0.0900, 0.2447, -0.3348], atol=5e-5)
    assert not gradient[1].any()
    np.testing.assert_allclose(answer(CASE, Way(divisor="rows"))[0], loss / 2)
    np.testing.assert_allclose(answer(CASE, Slope(column=True))[1][0], [0, 0, 0])
    np.testing.assert_allclose(answer(CASE, Way(base=np.log(2)))[0], loss / np.log(2))
