"""Every example runs as it stands, and what it prints is so."""

from __future__ import annotations

import math
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import image

import xent.nn

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


def test_every_example_has_a_test() -> None:
    names = {file.stem for file in EXAMPLES.glob("*.py")}
    assert len(names) == 9
    tests = Path(__file__).parent.glob("test_examples*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in tests)
    assert all(re.search(rf"^def test_\w*{name}\b", text, re.M) for name in names)


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def language_model(*options: object) -> dict[str, Any]:
    """What the example defines; run with these options, or only loaded where there are none."""
    file = str(EXAMPLES / "tiny_language_model.py")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [file, *map(str, options)])
        return runpy.run_path(file, run_name="__main__" if options else "loaded")


def test_tiny_language_model(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        return call

    functional, ours = torch.nn.functional, xent.nn.LinearCrossEntropyLoss
    monkeypatch.setattr(functional, "cross_entropy", watched("torch", functional.cross_entropy))
    monkeypatch.setattr(ours, "forward", watched("xent", ours.forward))
    picture = tmp_path / "picture.png"
    sizes = "--vocabulary", 1000, "--tokens", 256, "--width", 16
    with one_thread():
        language_model("--steps", 15, *sizes, "--seed", seed, "--figure", picture)
    out, err = capsys.readouterr()
    assert err == ""
    assert calls == ["torch", "xent"] * 16, "15 steps, and one whose memory is measured"

    assert re.search(r"head: 1,000 entries, of which 9\d\d occur", out)
    rows = [line for line in out.splitlines() if line.startswith(("torch ", "xent "))]
    theirs, mine = map(numbers, rows)
    assert theirs[0] == pytest.approx(math.log(1000), abs=0.3)
    assert theirs[1] < theirs[0] - 0.5
    assert mine[:2] == pytest.approx(theirs[:2], abs=1e-4)
    (gap,) = re.findall(r"between the curves: (\d\.\de[-+]\d+) nats per token", out)
    assert float(gap) < 1e-4, "measured: 1e-6"
    assert min(theirs[2], mine[2]) > 0, "milliseconds"
    assert all(re.search(r" (\d+\.\d|not told)$", row) for row in rows), "mebibytes"
    assert image.imread(picture).std() > 0
    assert out.splitlines()[-1] == f"picture: {picture}"


def test_the_language_model_learns_all_of_its_text() -> None:
    example = language_model()
    text = "\n\n".join(example["topics"].values())
    pieces = example["pieces_of"](text)
    assert "".join(pieces) == text
    for size in (len(set(text)), 2000, 32_000):  # characters alone; some words; room for all
        entries = example["vocabulary"](pieces, size)
        assert list(entries.values()) == list(range(len(entries)))
        assert len(entries) <= size
        spelt = list(entries)
        codes = example["encoded"](pieces, entries).tolist()
        assert "".join(spelt[code] for code in codes) == text


def test_the_language_models_start_the_same_and_tie_their_heads(seed: int) -> None:
    theirs, ours = language_model()["models"](8, 100, seed).values()
    assert theirs.loss.linear.weight is theirs.embedding.weight
    assert ours.loss.linear.weight is ours.embedding.weight
    assert ours.embedding.weight is not theirs.embedding.weight
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--vocabulary", 20), "characters, each of them an entry"),
        (("--tokens", 31), "expected 1 step or more, of a multiple of 32 tokens"),
        (("--steps", 0), "expected 1 step or more, of a multiple of 32 tokens"),
        (("--figure", "no/such/folder.png"), "no/such is not a folder"),
    ],
)
def test_the_language_model_refuses_sizes_that_cannot_be(
    options: tuple[object, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        language_model(*options)
    assert told in capsys.readouterr().err


def test_calibrated_digits(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(EXAMPLES / "calibrated_digits.py")
    monkeypatch.setattr(sys, "argv", [file, "--seed", str(seed), "--figures", str(tmp_path)])
    runpy.run_path(file, run_name="__main__")
    before, after, last = map(numbers, capsys.readouterr().out.splitlines())
    assert before[2] == after[2] > 80, "a temperature moves no class"
    assert after[0] < before[0] - 0.02, "nats"
    assert after[3] < before[3], "percent of calibration error"
    assert last[0] > 1.2
    for name in ("before", "after"):
        assert image.imread(tmp_path / f"evaluate-digits-{name}.png").std() > 0


def test_quantized_head(
    seed: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(EXAMPLES / "quantized_head.py")
    monkeypatch.setattr(sys, "argv", [file, "--steps", "10", "--seed", str(seed)])
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with one_thread():
        runpy.run_path(file, run_name="__main__")
    out = capsys.readouterr().out
    divergences = [float(x) for x in re.findall(r"mean KL divergence (\S+) nats", out)]
    assert 0 < divergences[0] < divergences[1] < 1e-2, "bfloat16, then int8"
    same = [float(x) for x in re.findall(r"Same top p +: +(\S+)", out)]
    assert min(same) > 90
    assert len(re.findall("====== KL divergence statistics ======", out)) == 2
