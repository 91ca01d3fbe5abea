"""page/state.js, run in Node: an address holds a state, and none can break the page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from page_modules import batches, javascript


def states(rng: np.random.Generator, count: int) -> list[dict]:
    for state in (found := batches(rng, count)):
        K = int(rng.integers(2, 7))
        state |= {
            "rate": float(rng.uniform(0.1, 10)),
            "row": int(rng.integers(3)),
            "scale": float(rng.uniform(0, 4)),
            "shift": float(rng.uniform(-200, 200)),
            "p": rng.multinomial(1000, np.ones(K) / K).tolist(),
            "q": rng.multinomial(1000, np.ones(K) / K).tolist(),
            "unit": str(rng.choice(["bits", "nats"])),
            "language": str(rng.choice(["en", "ko"])),
        }
    return found


def test_an_address_gives_back_its_state(rng: Any, tmp_path: Path) -> None:
    cases = [
        {"state": state, "start": start}
        for state, start in zip(states(rng, 40), states(rng, 40), strict=True)
    ]
    body = """
    const plain = write(state), moved = write(state, start);
    return [read(`#${plain}`), read(moved, start), write(start, start), plain];
    """
    told = javascript(tmp_path, "state.js", "read, write", body, cases)
    for case, (plain, moved, empty, text) in zip(cases, told, strict=True):
        assert plain == moved == case["state"]
        assert empty == ""
        assert text.isascii()
        assert " " not in text


GOOD = "logits=1,2,3,4;5,6,7,8;1,1,1,1&target=3,0,1&ignored=0,1,0&weight=1,2,3,4&temperature=2"
UNREADABLE = [
    "logits=1,2;3,4;5,6",
    "logits=1,2,3;1,2,3",
    "logits=1,2,3;1,2,3;1,2",
    "logits=1,2,3;1,x,3;1,2,3",
    "logits=1,2,3;1,,3;1,2,3",
    "logits=1,2,3;1,Infinity,3;1,2,3",
    "logits=1,2,3;1,1e9,3;1,2,3",
    "target=0,1",
    "target=0,1,4",
    "target=0,1,0.5",
    "ignored=0,1,2",
    "weight=1,2,3",
    "weight=1,2,3,-1",
    "temperature=0",
    "temperature=",
    "temperature=NaN",
    "smoothing=1.1",
    "zLoss=-1",
    "reduction=median",
    "rate=0",
    "row=3",
    "row=0.5",
    "p=500,501",
    "p=1000",
    "p=333,333,334",
    "q=1100,-100",
    "unit=bans",
    "language=fr",
    "%",
    "=",
    "&&",
    "p=%E0%A4%A",
    "__proto__=1",
    "constructor=1",
]


def test_what_cannot_be_read_is_left_as_it_was(tmp_path: Path) -> None:
    cases = [{"good": GOOD, "part": part} for part in UNREADABLE]
    body = """
    const [name] = part.split("=");
    const rest = good.split("&").filter((each) => !each.startsWith(`${name}=`)).join("&");
    return [read(rest), read(`${rest}&${part}`), example()];
    """
    told = javascript(tmp_path, "state.js", "read, write, example", body, cases)
    for part, (expected, found, usual) in zip(UNREADABLE, told, strict=True):
        assert found == expected, part
        assert found != usual, part


def test_shares_stay_whole_and_keep_their_proportions(rng: Any, tmp_path: Path) -> None:
    cases = []
    for _ in range(200):
        K = int(rng.integers(2, 7))
        shares = rng.multinomial(1000, rng.dirichlet(np.ones(K))).tolist()
        value = int(rng.choice([0, 1000, int(rng.integers(1001))]))
        cases.append({"shares": shares, "index": int(rng.integers(K)), "value": value})
    cases.append({"shares": [1000, 0, 0], "index": 0, "value": 1})
    body = "return withShare(shares, index, value);"
    told = javascript(tmp_path, "state.js", "withShare", body, cases)
    for case, found in zip(cases, told, strict=True):
        assert sum(found) == 1000
        assert min(found) >= 0
        assert found[case["index"]] == case["value"]
        others = np.delete(case["shares"], case["index"])
        if others.sum():
            ideal = others * (1000 - case["value"]) / others.sum()
            assert np.all(np.abs(np.delete(found, case["index"]) - ideal) < 1)
    assert told[-1] == [1, 500, 499]


def test_classes_come_and_go(rng: Any, tmp_path: Path) -> None:
    cases = [{"state": state, "n": int(rng.integers(3, 7))} for state in states(rng, 40)]
    body = "return withClasses(state, n);"
    for case, found in zip(
        cases, javascript(tmp_path, "state.js", "withClasses", body, cases), strict=True
    ):
        state, n = case["state"], case["n"]
        kept = min(n, len(state["weight"]))
        assert found["weight"] == state["weight"][:kept] + [1] * (n - kept)
        assert found["logits"] == [row[:kept] + [0] * (n - kept) for row in state["logits"]]
        assert found["target"] == [min(c, n - 1) for c in state["target"]]
