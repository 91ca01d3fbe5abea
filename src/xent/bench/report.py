"""A Report in words: tables for a terminal and for a page, and what is slower than a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from xent.bench.cases import BOTH, FORWARD, QUANTITIES
from xent.bench.peers import OURS_IN_PLACE, OURS_NUMPY, PEERS
from xent.bench.records import OURS, Check, Measurement, Report, Spread

FLOORS = ("sum", "copy", "clone", "product", "three products")
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
WAITED = 0.05  # of the time; what is more is told
TIMES = (
    "xent's time; it over that of each floor (/ sum, for example); and the time of each peer "
    "over xent's. Median of the rounds, and below it the least and the largest. Below 1, xent is "
    "slower."
)
MEMORY = "Peak memory of forward and backward above what lay there before, in units of the logits."
ERRORS = "Largest error of an entry of the gradient, relative to it; xent's beside torch."
FIRST = "Seconds of the first forward and of the first forward and backward: compiling."


class Cell(NamedTuple):
    """Text, a second line of it that matters less, and whether xent is the slower one here."""

    text: str
    detail: str = ""
    slower: bool = False


@dataclass(frozen=True)
class Table:
    """A title, what the numbers are, and they."""

    title: str
    about: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


def tables(report: Report) -> list[Table]:
    """Those of the report that have a row."""
    times = [
        _times(report, quantity, threads)
        for threads in report.settings["threads"]
        for quantity in QUANTITIES
    ]
    times = [table for table in times if table.rows]
    times[:1] = [replace(table, about=TIMES) for table in times[:1]]  # once is enough
    others = _memory(report), _errors(report), _first(report)
    return times + [table for table in others if table.rows]


def about(report: Report) -> list[tuple[str, str]]:
    """The machine and the settings, line by line."""
    machine, software, allocator = report.machine, report.software, report.allocator
    memory = machine["memory_bytes"]
    threads = report.settings["threads"]
    parts = [f"{machine['cores']} cores", *(f"{k} {v}" for k, v in machine["caches"].items())]
    if memory:
        parts.append(f"{memory / 2**30:.0f} GiB")
    if machine["virtual"]:
        parts.append("a virtual machine")
    versions = [f"{name} {v}" for name, v in software["libraries"].items() if v]
    kernels = [f"{name}: {kernel}" for name, kernel in software["kernels"].items()]
    settings = [f"{name}={value}" for name, value in allocator["environment"].items()]
    pages = allocator["huge_pages"]
    return [
        ("date", report.date),
        ("processor", f"{machine['processor']}, {', '.join(parts)}"),
        ("instructions", " ".join(machine["instructions"]) or "-"),
        ("system", f"{machine['system']} {machine['kernel']}, Python {software['python']}"),
        ("libraries", ", ".join(versions)),
        ("xent", f"{software['xent']}, commit {software['commit']}"),
        ("xent's kernels", ", ".join(kernels)),
        ("threads", ", ".join(map(str, threads))),
        ("allocator", ", ".join([*filter(None, [allocator["libc"]]), *allocator["preloaded"]])),
        ("its settings", ", ".join(settings) or "none"),
        ("transparent huge pages", str(pages)),
        ("load before, after", ", ".join(f"{v[0]:.2f}" for v in report.load.values() if v)),
    ]


def shown(found: list[Measurement]) -> dict[str, Measurement]:
    """The one of each case whose floors are shown: beside xent on torch where there is one."""
    first: dict[str, Measurement] = {}
    for m in sorted(found, key=lambda m: PEERS[m.peer].ours != OURS):
        first.setdefault(m.case, m)
    return first


def slower(report: Report) -> list[str]:
    """The peers that xent is slower than, a line for each case and quantity."""
    lines: dict[tuple, list[str]] = {}
    for m in report.measurements:
        if m.ratio.median < 1:
            key = (m.threads, m.quantity, m.case)
            lines.setdefault(key, []).append(f"{m.peer} {digits(m.ratio.median)}")
    return [
        f"{counted(threads)}, {quantity}, {case}: {', '.join(peers)}"
        for (threads, quantity, case), peers in lines.items()
    ]


def disturbed(report: Report) -> list[str]:
    """Where other processes took the processor for long."""
    return [
        f"{counted(m.threads)}, {m.quantity}, {m.case}, {m.peer}: a thread waited {m.waited:.0%}"
        for m in report.measurements
        if m.waited is not None and m.waited > WAITED
    ]


def troubles(report: Report) -> list[str]:
    """What is not in the tables, and why."""
    lines = []
    for o in report.omissions:
        where = [o.peer, o.case or "", counted(o.threads) if o.threads else ""]
        lines.append(f"{', '.join(filter(None, where))}: {'failed: ' * o.failed}{o.reason}")
    for c in report.checks:
        if not c.passed:
            error = ", ".join(f"{n} {scientific(e)}" for n, e in _both_errors(c).items())
            where = f"{c.peer}, {c.case}, {c.quantity}, {counted(c.threads)}"
            lines.append(f"{where}: failed: {c.subject} is wrong by {error}, not timed")
    return lines


def markdown(report: Report) -> str:
    """The whole report for a page."""
    parts = ["\n".join(f"- {name}: {text}" for name, text in about(report))]
    for table in tables(report):
        parts += filter(None, [f"### {table.title}", table.about, _grid(table)])
    below = sum(m.ratio.median < 1 for m in report.measurements)
    loud = f"{len(disturbed(report))} of {len(report.measurements)} measurements"
    parts += [
        "### Slower than a peer",
        f"{below} of {len(report.measurements)} ratios are below 1.",
    ]
    parts += _list(slower(report))
    parts += ["### Disturbed", f"In {loud} a thread waited for a processor for over {WAITED:.0%}."]
    parts += _list(disturbed(report))
    if missing := troubles(report):
        parts += ["### Not measured", *_list(missing)]
    return "\n\n".join(parts)


def marks(name: str = "xent bench") -> tuple[str, str]:
    """The lines of a page between which the text of a name is."""
    return f"<!-- begin: {name} -->", f"<!-- end: {name} -->"


def placed(page: str, text: str, name: str = "xent bench") -> str | None:
    """The page with the text between the marks of a name; None where it has none."""
    first, last = marks(name)
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    return f"{before}{begin}\n\n{text}\n\n{end}{after}" if begin and end else None


def digits(value: float) -> str:
    """Three digits, or two below 1.

    >>> digits(1234.5), digits(12.345), digits(0.01234)
    ('1,234', '12.3', '0.012')
    """
    if value < 1:
        return f"{value:#.2g}" if value >= 1e-4 else f"{value:.1e}"
    return f"{value:,.{max(0, 2 - (value >= 9.995) - (value >= 99.95))}f}"


def duration(seconds: float) -> str:
    """With its unit.

    >>> duration(0.0123)
    '12.3 ms'
    """
    unit, name = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{digits(seconds / unit)} {name}"


def scientific(error: float | None) -> str:
    """An error; what is no number is said to be none."""
    return "no number" if error is None else f"{error:.1e}"


def counted(threads: int) -> str:
    """As in a title."""
    return f"{threads} thread{'s' * (threads != 1)}"


def _times(report: Report, quantity: str, threads: int) -> Table:
    """One row for each case: xent's time, the floors and the peers."""
    asked = [m for m in report.measurements if (m.quantity, m.threads) == (quantity, threads)]
    found, of_floors = {(m.case, m.peer): m for m in asked}, shown(asked)
    failed = {
        (c.case, c.peer)
        for c in report.checks
        if not c.passed and (c.quantity, c.threads) == (quantity, threads)
    }
    peers = [name for name in PEERS if any(name == peer for _, peer in (*found, *failed))]
    own = [name for name in (OURS, OURS_NUMPY) if any(PEERS[p].ours == name for p in peers)]
    floors = [name for name in FLOORS if any(name in m.floors for m in found.values())]
    rows = []
    for case in dict.fromkeys(case for case, _ in (*found, *failed)):
        beside = [found[case, peer] for peer in peers if (case, peer) in found]
        cells = [_named(case)]
        for name in own:
            # Beside several peers xent was timed several times: the first one's is shown.
            first = next((m for m in beside if PEERS[m.peer].ours == name), None)
            cells.append(Cell(duration(first.seconds[OURS].median) if first else "-"))
        over = of_floors[case].floors if beside else {}
        cells += [_spread(over[name]) if name in over else Cell("-") for name in floors]
        for peer in peers:
            if (case, peer) in found:
                ratio = found[case, peer].ratio
                cells.append(_spread(ratio)._replace(slower=ratio.median < 1))
            else:
                cells.append(Cell("failed" if (case, peer) in failed else "-"))
        rows.append(tuple(cells))
    header = ("case", *own, *(f"/ {name}" for name in floors), *peers)
    title = f"{quantity[0].upper()}{quantity[1:]}, {counted(threads)}"
    return Table(title, "", header, rows)


def _memory(report: Report) -> Table:
    peaks = {(m.case, m.subject): m.logits for m in report.memory}
    quantities = {(m.case, m.subject): m.quantity for m in report.memory}
    forward = {s for (_, s), q in quantities.items() if q == FORWARD}

    def cell(value: float | None) -> str:
        return "not told" if value is None else f"{value:.2f}"

    title, header, rows = "Memory", *_crossed(peaks, cell)
    named = tuple(f"{name}, forward" if name in forward else name for name in header)
    return Table(title, MEMORY, named, rows)


def _errors(report: Report) -> Table:
    errors: dict[tuple[str, str], Any] = {}
    for c in report.checks:
        if c.quantity == BOTH:
            subject = PEERS[c.peer].ours if c.subject == OURS else c.subject
            errors.setdefault((c.case, subject), c.gradient)
    return Table("Errors of the gradient", ERRORS, *_crossed(errors, scientific))


def _first(report: Report) -> Table:
    first: dict[tuple[str, str], list[float]] = {}
    for c in report.checks:
        if c.subject == c.peer and PEERS[c.peer].compiles and c.quantity in (FORWARD, BOTH):
            first.setdefault((c.case, c.peer), []).append(c.first_seconds)

    def cell(seconds: list[float]) -> str:
        return " + ".join(map(digits, seconds[:2]))

    return Table("Until the first result", FIRST, *_crossed(first, cell))


def _crossed(
    found: dict[tuple[str, str], Any], told: Callable[[Any], str]
) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """A header and rows: cases downwards, subjects across."""
    cases = dict.fromkeys(case for case, _ in found)
    there = {subject for _, subject in found}
    subjects = [
        subject for subject in (OURS, OURS_NUMPY, OURS_IN_PLACE, *PEERS) if subject in there
    ]
    rows = [
        (
            _named(case),
            *(Cell(told(found[case, s]) if (case, s) in found else "-") for s in subjects),
        )
        for case in cases
    ]
    return ("case", *subjects), rows


def _both_errors(check: Check) -> dict[str, float | None]:
    """The loss's, and the gradient's where there is one."""
    forward = check.quantity == FORWARD
    return {"loss": check.loss} | ({} if forward else {"gradient": check.gradient})


def _named(case: str) -> Cell:
    shape, _, dtype = case.partition("-")
    return Cell(shape, dtype)


def _spread(found: Spread) -> Cell:
    return Cell(digits(found.median), f"{digits(found.min)}-{digits(found.max)}")


def _list(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _grid(table: Table) -> str:
    """In Markdown; where xent is slower, the ratio is bold."""
    rule = ("---", *("---:" for _ in table.header[1:]))
    rows = [[_marked(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (table.header, rule, *rows))


def _marked(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.slower else cell.text
    return f"{text}<br>{cell.detail}" if cell.detail else text
