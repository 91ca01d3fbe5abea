"""An explanation as numbers and lists, and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xent.explanation.record import Explanation

TEXTS = ("name", "part", "title", "formula", "latex", "text")


def as_dict(told: Explanation) -> dict[str, Any]:
    """Everything that is shown, and the arrays of every step as lists."""
    steps = []
    for step in told.steps:
        found: dict[str, Any] = {name: getattr(step, name) for name in TEXTS}
        found["worked"], found["notes"] = list(step.worked), list(step.notes)
        found["values"] = {name: _listed(value) for name, value in step.values.items()}
        steps.append(found)
    return {
        "heading": told.heading,
        "lang": told.lang,
        "unit": "nats",
        "loss": _listed(told.loss),
        "rows": told.rows.tolist(),
        "steps": steps,
    }


def as_json(told: Explanation) -> str:
    """The same as JSON; "nan", "inf" and "-inf" are texts, as JSON has no such numbers."""
    return json.dumps(as_dict(told), indent=2, allow_nan=False, ensure_ascii=False)


def _listed(value: Any) -> Any:
    """Lists of an array, in which a number that is not finite is its name."""
    array = np.asarray(value)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    named = array.astype(object)
    wrong = ~np.isfinite(array)
    named[wrong] = [str(float(v)) for v in array[wrong]]
    return named.tolist()
