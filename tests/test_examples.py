"""Every example runs as it stands, and what it prints is so."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def printed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    """What the example that the test is named after prints."""
    name = request.function.__name__.removeprefix("test_")
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert err == ""
    return out


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_every_example_has_a_test_here() -> None:
    names = {f"test_{file.stem}" for file in EXAMPLES.glob("*.py")}
    assert len(names) == 4
    assert names <= globals().keys()


def test_hand_written_layers(printed: str) -> None:
    lines = printed.splitlines()
    losses, accuracies = zip(*map(numbers, lines), strict=True)
    assert [line.partition(":")[0] for line in lines][-1] == "step 500"
    assert 0.8 < losses[0] < 1.6, "near log 3, a guess among three"
    assert list(losses) == sorted(losses, reverse=True)
    assert losses[-1] < 0.03
    assert accuracies[-1] == 100


def test_check_my_backward(printed: str) -> None:
    _, mine, mean, softmax, *_ = lines = printed.splitlines()
    assert re.match(r"my_backward +right +\d\.\de-1[6-9] +\d\.\de-(09|1\d)$", mine)
    # Of 5 rows, 5 times the gradient is 4 of it too much, and no entry of it is above 1 / 5.
    name, verdict, *gaps = mean.split()
    assert (name, verdict) == ("without_the_mean", "WRONG")
    assert all(0.1 < float(gap) < 0.8 for gap in gaps)
    assert re.match(r"without_softmax +WRONG +\d\.\de\+00 +\d\.\de\+00$", softmax)
    assert lines[-2:] == ["my_backward: [[nan -1.]]", "xent:        [[ 1. -1.]]"]


def test_train_torch(printed: str) -> None:
    *steps, last = printed.splitlines()
    for line in steps:
        nats, bits = numbers(line)
        assert bits == pytest.approx(nats / math.log(2), abs=2e-4)
    assert [numbers(line)[0] for line in (steps[0], steps[-1])] == [
        pytest.approx(math.log(13), abs=0.4),  # a guess among 13 letters
        pytest.approx(0.27, abs=0.05),
    ]
    torchs, xents = numbers(last)
    assert torchs == xents


def test_measures(printed: str) -> None:
    surprise, entropy, cross, divergence, shannon, kinds, umbrella, normal = printed.splitlines()
    assert surprise.endswith(": [1. 2. 2.]")
    assert numbers(entropy) == [1.5]  # 1/2 * 1 + 1/4 * 2 + 1/4 * 2
    assert numbers(cross) == [1.75]  # 1/2 * 2 + 1/4 * 2 + 1/4 * 1
    assert numbers(divergence) == [0.25]
    assert numbers(kinds) == [round(2**1.5, 3)]

    p, q = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5)
    halfway = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    js = sum(
        a * math.log2(a / m) / 2 for pair in (p, q) for a, m in zip(pair, halfway, strict=True)
    )
    assert numbers(shannon) == [round(js, 3)]

    met = ((0.45, 0.05), (0.15, 0.10), (0.02, 0.23))
    taken = [sum(column) for column in zip(*met, strict=True)]
    tells = sum(
        share * math.log2(share / (sum(row) * whole))
        for row in met
        for share, whole in zip(row, taken, strict=True)
    )
    assert numbers(umbrella) == [round(tells, 3)]
    assert numbers(normal) == [round(math.log(4 * math.sqrt(2 * math.pi * math.e)), 4)]
