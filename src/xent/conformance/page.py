"""A Report as one HTML page that needs nothing else: no script, no font, no picture."""

from __future__ import annotations

from html import escape

from xent.conformance.report import (
    FAILED,
    NOT_OFFERED,
    NOT_RUN,
    PASSED,
    SEVERITIES,
    TIERS,
    Record,
    Report,
    summary,
)

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bad: #c0392b; --good: #1e8449; }
@media (prefers-color-scheme: dark) { :root { --bad: #ef6f5f; --good: #55c184; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; }
li { margin-bottom: 0.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
code, pre { font: 0.86em/1.5 ui-monospace, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft);
      padding: 0.6rem 0.8rem; border-radius: 0.4rem; margin: 0.4rem 0; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
      padding: 0.25rem 0.9rem 0.25rem 0; border-bottom: 1px solid var(--line); }
.wide td:last-child { overflow-wrap: anywhere; }
.bar { height: 0.7rem; margin-top: 0.4rem; background: var(--bad);
      border-radius: 0.35rem; overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--good); }
.failed { color: var(--bad); } .passed { color: var(--good); } .muted { opacity: 0.7; }
.lead { border-left: 0.3rem solid var(--bad); padding: 0.2rem 0 0.2rem 0.9rem; }
details { margin: 0.5rem 0; } summary { cursor: pointer; }
dl { display: grid; grid-template-columns: 6rem 1fr; gap: 0.2rem 0.8rem; margin: 0.5rem 0 1rem; }
dt { opacity: 0.7; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.4rem; }
      td { padding-right: 0.5rem; } ol { padding-left: 1.4rem; }
      .wide tr { display: grid; grid-template-columns: 68% 32%; padding: 0.3rem 0;
            border-bottom: 1px solid var(--line); } .wide td { border: 0; padding: 0; }
      .wide td:nth-child(3) { opacity: 0.7; } .wide td:last-child { grid-column: 1 / 3; } }
"""


def html(report: Report) -> str:
    """The page: scores, causes, findings, and every check with what it found."""
    title = escape(f"Cross entropy graded: {report.target}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    parts = [f"<h1>{title}</h1>", f"<pre>{escape(chr(10).join(summary(report)[:4]))}</pre>"]
    if report.trouble:
        parts.append(f'<p class="lead">It could not be graded: {escape(report.trouble)}</p>')
    else:
        parts += [_scores(report), _causes(report), _findings(report), _all(report)]
    parts.append(f'<p class="muted">xent grade, {escape(report.date)}, {report.seconds:g} s</p>')
    body = "\n".join(part for part in parts if part)
    top = f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>'
    return f"{top}\n<body>\n{body}\n</body></html>\n"


def _scores(report: Report) -> str:
    rows = []
    for tier in TIERS:
        passed, of = report.score(tier)
        share = 100 * passed / of if of else 0
        bar = f'<div class="bar"><span style="width:{share:.1f}%"></span></div>'
        rows.append(f"<tr><td>{tier}</td><td>{passed} of {of}</td><td width=50%>{bar}</td></tr>")
    for status in (NOT_OFFERED, NOT_RUN):
        if report.of(status):
            rows.append(f"<tr><td>{status}</td><td>{len(report.of(status))}</td><td></td></tr>")
    return f"<h2>Scores</h2><table>{''.join(rows)}</table>"


def _causes(report: Report) -> str:
    if not report.causes:
        return ""
    told = []
    for place, cause in enumerate(report.causes):
        links = ", ".join(f'<a href="#{escape(n)}">{escape(n)}</a>' for n in cause.checks)
        style = ' class="lead"' if not place else ""
        told.append(f"<li{style}>{escape(cause.text)}<br><small>explains {links}</small></li>")
    return f"<h2>Causes</h2><p>The first explains most.</p><ol>{''.join(told)}</ol>"


def _findings(report: Report) -> str:
    found = sorted(report.of(FAILED), key=lambda r: (TIERS.index(r.tier), r.severity))
    if not found:
        return ""
    return "<h2>Findings</h2>" + "".join(_finding(record) for record in found)


def _finding(record: Record) -> str:
    note = f" ({record.note})" if record.note else ""
    rows = (
        ("input", f"<code>{escape(record.given)}</code>"),
        ("expected", f"<code>{escape(record.expected)}</code>"),
        ("obtained", f"<code>{escape(record.obtained)}</code>{escape(note)}"),
        ("why", escape(record.why)),
        ("hint", escape(record.hint)),
    )
    told = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    about = f"{SEVERITIES[record.severity]}; tier: {record.tier}"
    name = escape(record.name)
    shown = " open" if record.tier == TIERS[0] else ""
    return (
        f'<details id="{name}"{shown}><summary><b>{name}</b> <span class="muted">{about}</span>'
        f"</summary><dl>{told}</dl></details>"
    )


def _all(report: Report) -> str:
    rows = []
    for record in report.records:
        style = {PASSED: "passed", FAILED: "failed"}.get(record.status, "muted")
        note = record.note if record.status in (NOT_OFFERED, NOT_RUN) else ""
        rows.append(
            f'<tr><td>{escape(record.name)}</td><td class="{style}">{record.status}</td>'
            f"<td>{record.tier}</td><td>{escape(note)}</td></tr>"
        )
    return f"<h2>Every check</h2><table class='wide'>{''.join(rows)}</table>"
