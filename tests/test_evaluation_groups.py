"""evaluation.groups: labels that are numbers or texts, in every kind of file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xent
from xent.evaluation.groups import groups
from xent.evaluation.predictions import predictions

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn

LABELS = ["b.txt", "a.txt", "b.txt", "ü.txt", "a.txt", "c"]
OF = [1, 0, 1, 3, 0, 2]


@pytest.fixture
def like(rng: np.random.Generator) -> Any:
    return predictions("evaluate", rng.standard_normal((6, 3)), -1, "logits")


def written(folder: Path, kind: str) -> Any:
    """The labels in a file of a kind, or as an array."""
    if kind in ("array", "list"):
        return np.array(LABELS) if kind == "array" else LABELS
    name = str(folder / f"labels.{kind.partition(' ')[0]}")
    if kind == "npy":
        np.save(name, np.array(LABELS))
    elif kind.startswith("npz"):
        (np.savez_compressed if "compressed" in kind else np.savez)(name, g=np.array(LABELS))
        name += ":g"
    elif kind.startswith(("csv", "tsv")):
        head = ["name"] * ("named" in kind)
        lines = [*head, *LABELS]
        if "columns" in kind:
            lines = [f"{i}\t{line}" for i, line in enumerate(["name", *LABELS])]
        Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        name += ":name" if "columns" in kind else ""
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"name": LABELS, "n": range(6)}), name)
        name += ":name"
    return name


KINDS = ["array", "list", "npy", "npz stored", "npz compressed"]
KINDS += ["csv", "csv named", "tsv columns", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_groups(kind: str, like: Any, own_folder: Path) -> None:
    found = groups("evaluate", written(own_folder, kind), like)
    assert found is not None
    assert (found.of.tolist(), found.size) == (OF, 4)


def test_numbers_are_in_their_order(like: Any, own_folder: Path) -> None:
    file = own_folder / "g.csv"
    file.write_text("10\n9\n10\n-1\n9\n1e3\n", encoding="utf-8")
    for given in (file, np.array([10, 9, 10, -1, 9, 1000])):
        found = groups("evaluate", given, like)
        assert found is not None
        assert found.of.tolist() == [2, 1, 2, 0, 1, 3]
    assert groups("evaluate", None, like) is None


def test_texts_give_the_error_of_numbers(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 300, 5)
    number = rng.integers(0, 40, 300)
    text = np.array([f"document {n:02d}" for n in number])
    for draws in (0, 30):
        one, other = (
            xent.evaluate(logits, target, group=g, bootstrap=draws) for g in (number, text)
        )
        assert (one.standard_error, one.interval) == (other.standard_error, other.interval)
    new = logits + rng.standard_normal(logits.shape).astype(np.float32)
    one, other = (xent.compare(logits, new, target, group=g) for g in (number, text))
    assert one.difference == other.difference


@pytest.mark.parametrize(
    ("text", "key", "told"),
    [
        ("a\nb\n", "", r"g\.csv has shape \(2,\), expected \(6,\), a row for each of array"),
        ("a\n" * 5 + "a,b\n", "", "has 2 columns at row 5, expected one, or the name of one after"),
        ("x,y\n" + "a,b\n" * 6, ":z", r"has no column 'z', expected one of x, y"),
        ("x,y\n" + "a,b\n" * 5 + "a\n", ":y", "has 1 columns at row 5, expected one"),
    ],
)
def test_what_is_wrong_is_told(text: str, key: str, told: str, like: Any, own_folder: Path) -> None:
    (own_folder / "g.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        groups("evaluate", f"g.csv{key}", like)


def test_texts_are_no_predictions(like: Any) -> None:
    for call in (
        lambda: xent.evaluate(np.array([["a", "b"]]), [0]),
        lambda: xent.evaluate(np.zeros((2, 2)), np.array(["a", "b"])),
        lambda: xent.evaluate(np.zeros((2, 2)), [0, 1], weight=np.array(["a", "b"])),
    ):
        with pytest.raises(TypeError, match=r"dtype <U1, expected (one )?numbers?"):
            call()
