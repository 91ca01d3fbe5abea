"""What is told of an evaluation or a comparison: tables of text, and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xent.evaluation.paired import Comparison, Mean
    from xent.evaluation.single import Evaluation

MOST_CLASSES = 20  # told one by one where nobody asks for them


@dataclass(frozen=True)
class Section:
    """A table: its title, the names of its columns (none for names and values), its rows."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def number(value: float) -> str:
    """Six digits."""
    return f"{value:.6g}"


def percent(value: float) -> str:
    """A share in percent."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def evaluation_text(told: Evaluation) -> str:
    """The report of an evaluation in plain text."""
    return "\n\n".join(map(plain, evaluation_sections(told, len(told.per_class) <= MOST_CLASSES)))


def comparison_text(told: Comparison) -> str:
    """The report of a comparison in plain text: llama.cpp's table after what it does not tell."""
    return "\n\n".join([*map(plain, comparison_sections(told)), llama_table(told)])


def evaluation_sections(told: Evaluation, per_class: bool) -> list[Section]:
    """The tables of an evaluation."""
    found = [Section("", (), _what(told)), Section("Loss", (), _loss(told))]
    found.append(Section("Likeliest classes and confidence", (), _classes(told)))
    bins = [
        (
            f"{b.lower:.3f} - {b.upper:.3f}",
            percent(b.share),
            percent(b.confidence),
            percent(b.accuracy),
        )
        for b in told.bins
        if b.share
    ]
    found.append(Section("Calibration", ("confidence", "rows", "mean", "accuracy"), bins))
    if told.worst:
        rows = [
            (str(w["row"]), str(w["target"]), str(w["predicted"]), number(w["loss"]))
            for w in told.worst
        ]
        header = "row", "target", "likeliest", f"loss ({told.unit})"
        found.append(Section("Worst rows", header, rows))
    if per_class:
        rows = [
            (
                str(c["class"]),
                f"{c['rows']:,}",
                number(c["loss"]) if c["rows"] else "-",
                percent(c["accuracy"]),
                f"{c['predicted']:,}",
            )
            for c in told.per_class
        ]
        header = "class", "rows", f"loss ({told.unit})", "accuracy", "times likeliest"
        found.append(Section("Classes", header, rows))
    if told.bad:
        shown = f" (the first {len(told.bad)})" if told.skipped > len(told.bad) else ""
        found.append(Section(f"Broken rows, left out{shown}", (), [(line,) for line in told.bad]))
    return found


def _what(told: Evaluation) -> list[tuple[str, ...]]:
    how = "told from the sums of rows" if told.kind_detected else "as asked"
    rows = [
        ("predictions", told.predictions),
        ("targets", told.target),
        ("kind", f"{told.kind} ({how}), {told.dtype}, {told.classes:,} classes"),
        ("rows", f"{told.rows:,}"),
        ("ignored rows", f"{told.ignored:,}"),
    ]
    return rows + ([("broken rows", f"{told.skipped:,} left out")] if told.skipped else [])


def _loss(told: Evaluation) -> list[tuple[str, ...]]:
    unit = told.unit
    low, high = told.interval
    rows = [
        ("mean loss", f"{number(told.loss)} {unit}"),
        ("standard error", f"{number(told.standard_error)} {unit} (of {told.error_of})"),
        ("95 % interval", f"{number(low)} to {number(high)} {unit}"),
        ("in bits", number(told.bits)),
        ("perplexity", f"{number(told.perplexity)}, log {number(told.log_perplexity)}"),
        ("class-prior baseline", f"{number(told.baseline)} {unit}"),
        ("skill over it", percent(told.skill)),
    ]
    rows.append(("mean entropy", f"{number(told.entropy)} {unit}"))
    if told.infinite:
        rows.insert(1, ("rows of infinite loss", f"{told.infinite:,}"))
    fit = told.temperature
    if fit is not None:
        of = (
            "all rows"
            if fit.rows >= told.rows - told.ignored - told.skipped
            else (f"{fit.rows:,} rows, evenly spaced")
        )
        if fit.temperature is None:
            rows.append(("best temperature", f"none: the loss has no minimum (of {of})"))
        else:
            change = f"{number(fit.before)} -> {number(fit.after)} {unit} (of {of})"
            rows.append(("best temperature", f"{number(fit.temperature)}; loss {change}"))
    return rows


def _classes(told: Evaluation) -> list[tuple[str, ...]]:
    return [
        ("accuracy", percent(told.accuracy)),
        (f"top-{told.top} accuracy", percent(told.top_accuracy)),
        ("Brier score", number(told.brier)),
        ("ECE", f"{percent(told.ece)} ({len(told.bins)} bins of one width)"),
        ("MCE", percent(told.mce)),
    ]


def comparison_sections(told: Comparison) -> list[Section]:
    """The tables of a comparison, but for llama.cpp's."""
    unit, (low, high) = told.unit, told.interval
    kinds = " and ".join(dict.fromkeys(told.kinds))
    what = [
        ("base", told.base),
        ("new", told.new),
        ("targets", told.target),
        ("kind", f"{kinds}, {told.classes:,} classes"),
        ("rows", f"{told.rows:,}"),
        ("ignored rows", f"{told.ignored:,}"),
    ]
    if told.skipped:
        what.append(("broken rows", f"{told.skipped:,} left out"))
    loss = [
        ("base", _mean(told.base_loss), percent(told.base_accuracy)),
        ("new", _mean(told.new_loss), percent(told.new_accuracy)),
        (
            "new - base",
            _mean(told.difference),
            percent(told.new_accuracy - told.base_accuracy),
        ),
    ]
    paired = [
        ("KL divergence of new from base", f"{_mean(told.kl)} {unit}"),
        ("95 % interval", f"{number(low)} to {number(high)} {unit}, paired, of {told.error_of}"),
    ]
    found = [
        Section("", (), what),
        Section("Loss", ("", f"mean ({unit})", "accuracy"), loss),
        Section("", (), paired),
    ]
    if told.bad:
        found.append(Section("Broken rows, left out", (), [(line,) for line in told.bad]))
    return found


def _mean(mean: Mean) -> str:
    return f"{number(mean.mean)} ± {number(mean.error)}"


def llama_table(told: Comparison) -> str:
    """The table that llama.cpp's perplexity tool prints, in nats or in bits as asked."""

    def line(name: str, mean: Any, after: str = "", by: float = 1.0, digits: int = 6) -> str:
        if isinstance(mean, float):
            return f"{name:<30}: {by * mean:10.{digits}f}{after}"
        return f"{name:<30}: {by * mean.mean:10.{digits}f} ± {by * mean.error:10.{digits}f}{after}"

    def quantiles(of: str, at: dict[float, float], **how: Any) -> list[str]:
        names: dict[float, str] = {100: "Maximum", 50: "Median ", 0: "Minimum"}
        return [line(f"{names.get(q, f'{q:5.1f}% ')} {of}", v, **how) for q, v in at.items()]

    share = {"after": " %", "by": 100.0, "digits": 3}
    of = "" if told.unit == "nats" else f" ({told.unit})"
    return "\n".join(
        [
            "====== Perplexity statistics ======",
            line("Mean PPL(Q)", told.new_perplexity),
            line("Mean PPL(base)", told.base_perplexity),
            line("Cor(ln(PPL(Q)), ln(PPL(base)))", told.correlation, " %", 100.0, 2),
            line("Mean PPL(Q)/PPL(base)", told.ratio),
            line("Mean PPL(Q)-PPL(base)", told.perplexity_difference),
            "",
            f"====== KL divergence statistics{of} ======",
            line("Mean    KLD", told.kl),
            *quantiles("KLD", told.kl_at),
            "",
            "====== Token probability statistics ======",
            line("Mean    Δp", told.change, **share),
            *quantiles("Δp", told.change_at, **share),
            line("RMS Δp", told.change_rms, **share),
            line("Same top p", told.same_top, **share),
        ]
    )


def plain(section: Section) -> str:
    """A table in plain text, its columns two spaces apart, numbers to the right."""
    rows = [section.header, *section.rows] if section.header else section.rows
    count = max(map(len, rows), default=0)
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(count)]
    lines = [section.title] if section.title else []
    for row in rows:
        if section.header:
            cells = [row[0].ljust(widths[0])]
            cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        else:
            cells = [c.ljust(w) for c, w in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_json(told: Evaluation | Comparison) -> str:
    """All numbers as JSON; null for what is not a finite number."""
    return json.dumps(_finite(told.as_dict()), indent=2, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
