"""Families of continuous distributions whose entropies and divergences have closed forms.

H and KL are those of Cover and Thomas, Elements of Information Theory (2006), table 17.1, and of
Gil, Alajaji and Linder, Rényi divergence measures for commonly used univariate continuous
distributions (2013), rearranged so that near distributions lose no digits: with r = log(a / b),
`_excess(u)` = u - log(1 + u) is >= 0 and 0 only at u = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from xent.info import checks, terms
from xent.info.gamma import log_gamma_excess, stirling

LOG_2PI = math.log(2 * math.pi)


class Family:
    """What every family does: its methods take and return numbers or NumPy arrays.

    Parameters are numbers or arrays that broadcast, one distribution for each entry.
    """

    def log_density(self, points: Any) -> Any:
        """The logarithm of the density at points; -inf outside the support."""
        with terms.quiet(np):
            return self._log_density(checks.numpy_array(f"{type(self).__name__}.log_density", "points", points))[()]
