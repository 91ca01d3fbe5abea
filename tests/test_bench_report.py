"""bench/report.py: what the tables say, and the page of the committed measurements."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xent.bench import report
from xent.bench.records import read

sys.path.insert(0, str(Path(__file__).parent))
import bench_report

ROOT = Path(__file__).parents[1]


PAGES = {"cpu": "performance", "linear": "performance-linear"}


@pytest.mark.parametrize("results", PAGES)
def test_the_page_is_that_of_the_committed_measurements(results: str) -> None:
    file = ROOT / "benchmarks" / "results" / f"{results}.json"
    measured = read(file.read_text(encoding="utf-8"))
    assert measured is not None
    page = (ROOT / "docs" / f"{PAGES[results]}.md").read_text(encoding="utf-8")
    assert report.placed(page, report.markdown(measured)) == page


def test_the_tables_hold_the_numbers() -> None:
    forward, both, in_place, memory, errors, first = report.tables(bench_report.report())
    assert forward.title == "Forward, 2 threads"
    assert forward.header == ("case", "xent", "/ sum", "torch", "optax")
    C = report.Cell
    assert forward.rows == [
        (
            C("128x1000", "float32"),
            C("2.00 ms"),
            C("1.25", "0.62-5.00"),
            C("8.00", "4.00-32.0"),
            C("0.50", "0.25-2.00", slower=True),
        ),
        (
            C("6x11", "bfloat16"),
            C("2.00 ms"),
            C("3.00", "1.50-12.0"),
            C("16.0", "8.00-64.0"),
            C("-"),
        ),
    ]
    assert both.header == ("case", "xent", "xent on NumPy", "/ copy", "/ clone", "torch", "numpy")
    assert [cell.text for cell in both.rows[0]][1:4] == ["2.00 ms", "2.00 ms", "1.75"]
    assert [cell.text for cell in both.rows[1]] == ["6x11", *"---", "-", "failed", "-"]
    assert in_place.title == "In place, 2 threads"
    assert memory.header == ("case", "xent", "torch", "scipy, forward")
    assert [cell.text for cell in memory.rows[0]] == ["128x1000", "1.00", "3.00", "not told"]
    assert errors.header == ("case", "xent", "torch", "torch-compile")
    assert [cell.text for cell in errors.rows[1]] == ["6x11", "3.0e-03", "no number", "-"]
    assert first.rows[0][1] == report.Cell("0.25 + 0.25")


def test_a_report_of_nothing_has_no_tables() -> None:
    empty = bench_report.report()
    for kind in ("checks", "measurements", "memory", "omissions"):
        setattr(empty, kind, [])
    assert report.tables(empty) == report.slower(empty) == report.troubles(empty) == []
    assert "0 of 0 ratios are below 1." in report.markdown(empty)


def test_losses_and_troubles_are_told() -> None:
    made = bench_report.report()
    assert report.slower(made) == ["2 threads, forward, 128x1000-float32: optax 0.50"]
    assert report.disturbed(made) == [
        "2 threads, in place, 128x1000-float32, torch: a thread waited 40%"
    ]
    assert report.troubles(made) == [
        "optax: jax not installed",
        "torch-compile, 6x11-bfloat16, 2 threads: failed: InvalidCxxCompiler: none",
        "torch, 6x11-bfloat16, forward and backward, 2 threads: failed: torch is wrong by "
        "loss no number, gradient no number, not timed",
    ]


def test_the_markdown_is_whole() -> None:
    made = bench_report.report()
    text = report.markdown(made)
    for table in report.tables(made):
        about = f"{table.about}\n\n" if table.about else ""
        assert f"\n\n### {table.title}\n\n{about}| case | " in text
    assert "| 128x1000<br>float32 | 2.00 ms | 1.25<br>0.62-5.00 | 8.00<br>4.00-32.0 | " in text
    assert "| **0.50**<br>0.25-2.00 |" in text
    assert "1 of 6 ratios are below 1." in text
    assert "In 1 of 6 measurements a thread waited" in text
    for line in (*report.slower(made), *report.disturbed(made), *report.troubles(made)):
        assert f"- {line}" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| 128x1000<br>")}
    assert widths == {len(table.header) + 1 for table in report.tables(made)}


def test_the_machine_is_named() -> None:
    told = dict(report.about(bench_report.report()))
    assert told["processor"] == (
        "Some Processor, 2 cores, L2 unified 2048K, 16 GiB, a virtual machine"
    )
    assert told["its settings"] == "MALLOC_ARENA_MAX=1"
    assert told["allocator"] == "glibc 2.36, libjemalloc.so.2"
    assert told["xent's kernels"] == "numpy: reference, torch: reference"
    assert told["libraries"] == "numpy 2.4.6"
    assert told["load before, after"] == "0.50, 2.00"


def test_the_floors_are_those_beside_xent_on_torch() -> None:
    made = bench_report.report()
    on_torch, on_numpy = (m for m in made.measurements if m.quantity == "forward and backward")
    assert report.shown([on_numpy, on_torch]) == {bench_report.CASE: on_torch}
    assert report.shown([on_numpy]) == {bench_report.CASE: on_numpy}


def test_a_page_keeps_what_is_around_the_markers() -> None:
    begin, end = report.marks()
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    new = report.placed(page, "new")
    assert new == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert report.placed(new or "", "new") == new
    assert report.placed("no markers", "new") is None
    assert report.placed(begin, "new") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0e+00"),
        (0.00001234, "1.2e-05"),
        (0.01234, "0.012"),
        (0.5, "0.50"),
        (0.996, "1.0"),
        (1.0, "1.00"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (12345.6, "12,346"),
    ],
)
def test_numbers_have_three_digits_or_two(value: float, text: str) -> None:
    assert report.digits(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.50 s"),
        (0.0123, "12.3 ms"),
        (4.5e-5, "45.0 µs"),
        (3e-7, "300 ns"),
        (3e-10, "0.30 ns"),
    ],
)
def test_times_have_their_unit(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text
