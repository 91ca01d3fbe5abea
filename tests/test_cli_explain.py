"""cli.explain: the command, what it prints where, and its errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from command import COLOUR, call, on_a_terminal
from explained import LOGITS, TARGET

pytestmark = pytest.mark.usefixtures("own_folder")
ROWS = "--logits", "2,1,0.1; 0.1,2,1.9", "--target", "1,0"


def test_it_prints_what_the_function_tells() -> None:
    result = call("explain", *ROWS)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{xent.explain(LOGITS, TARGET)}\n"
    result = call("explain", "--logits", "2,1,0.1", "--target", "1", "--lang", "ko")
    assert result.stdout == f"{xent.explain(LOGITS[0], 1, lang='ko')}\n"


def test_every_option_is_passed_on() -> None:
    asked = ["--weight", "1,2,3", "--ignore-index", "-1", "--label-smoothing", "0.1"]
    asked += ["--z-loss", "0.01", "--softcap", "30", "--logit-scale", "0.5", "--normalizer", "4"]
    asked += ["--axis", "1", "--rows", "1", "--classes", "2"]
    result = call("explain", "--logits", "2 1 0.1; 0.1 2 -1.9; 1 1 1", "--target", "1,0,-1", *asked)
    told = xent.explain(
        np.array([[2.0, 1.0, 0.1], [0.1, 2.0, -1.9], [1.0, 1.0, 1.0]]),
        np.array([1, 0, -1]),
        np.array([1.0, 2.0, 3.0]),
        ignore_index=-1,
        label_smoothing=0.1,
        z_loss=0.01,
        softcap=30.0,
        logit_scale=0.5,
        normalizer=4.0,
        axis=1,
        rows=1,
        classes=2,
    )
    assert result.stdout == f"{told}\n"
    summed = json.loads(call("explain", *ROWS, "--reduction", "sum", "--json").stdout)
    assert summed["loss"] == float(xent.cross_entropy(LOGITS, TARGET, reduction="sum"))


def test_a_target_of_probabilities() -> None:
    rows = "--logits", "2,1,0.1;0.1,2,1.9", "--target", "0.5,0.5,0;0,0,1.0"
    told = json.loads(call("explain", *rows, "--json").stdout)
    soft = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert told["loss"] == float(xent.cross_entropy(LOGITS, soft))


def test_files_and_a_page(own_folder: Path, rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((300, 7)).astype(np.float32), rng.integers(0, 7, 300)
    np.save("x.npy", logits)
    np.savez("both.npz", x=logits, t=target)
    np.save("t.npy", target)
    result = call("explain", "--file", "x.npy", "--targets", "t.npy", "--html", "page.html")
    assert (result.exit_code, result.stdout) == (0, "Page: page.html\n")
    told = xent.explain(logits, target)
    assert (own_folder / "page.html").read_text(encoding="utf-8") == told.html()
    result = call("explain", "--file", "both.npz:x", "--targets", "both.npz:t")
    assert result.stdout == f"{told}\n"
    np.savetxt("x.csv", logits, delimiter=",", fmt="%.17g")
    np.savetxt("t.csv", target, fmt="%d")
    result = call("explain", "--file", "x.csv", "--targets", "t.csv", "--json")
    assert json.loads(result.stdout)["loss"] == pytest.approx(float(told.loss), rel=1e-14)
    result = call("explain", "--file", "x.npy", "--target", ",".join(map(str, target)), "--json")
    assert json.loads(result.stdout)["loss"] == float(told.loss)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--target", "1"), "Error: give one of --logits and --file"),
        (("--logits", "1,2"), "Error: give one of --target and --targets"),
        (("--logits", "1,2", "--file", "x.npy", "--target", "1"), "give only one of --logits and"),
        (("--logits", "1,x", "--target", "1"), "--logits '1,x': could not convert string to float"),
        (
            ("--logits", "1,2;3", "--target", "1"),
            "--logits '1,2;3': rows of 2, 1 numbers, expected as many each",
        ),
        (
            ("--logits", "1,2;3,4", "--target", "1,2"),
            "Error: explain: target has value 2 at row 1, expected a class in [0, 2) or "
            "ignore_index -100",
        ),
        (
            ("--logits", "1,2", "--target", "1,0"),
            "Error: explain: target has dtype int64 and the shape of the logits (2,), expected",
        ),
        (("--logits", "1,2", "--target", "1", "--softcap", "-1"), "softcap has value -1.0"),
        (("--logits", "1,2", "--target", "1", "--lang", "fr"), "'fr' is not one of 'en', 'ko'"),
        (("--file", "no.npy", "--target", "1"), "Error: explain: no.npy has no file of its name"),
        (("--logits", "1,2", "--target", "1", "--html", "no/x.html"), "no is not a folder"),
        (("--logits", "", "--target", "1"), "--logits '': no numbers"),
    ],
)
def test_the_exit_status_is_2_where_something_is_wrong(
    arguments: tuple[str, ...], told: str
) -> None:
    result = call("explain", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        stdout, _ = on_a_terminal(patched, "explain", *ROWS)
    assert COLOUR.search(stdout)
    assert "──" in stdout
    monkeypatch.setenv("NO_COLOR", "1")
    with monkeypatch.context() as patched:
        stdout, _ = on_a_terminal(patched, "explain", *ROWS)
    assert not COLOUR.search(stdout)
    assert not COLOUR.search(call("explain", *ROWS).stdout)
