"""The steps of a batch of many rows: how its losses are distributed, the worst rows, and why."""

from __future__ import annotations

import numpy as np

from xent import info
from xent.backends import numpy as reference
from xent.explanation import formulas
from xent.explanation.batch import Array, Batch
from xent.explanation.digits import computed, given, percent
from xent.explanation.forward import make
from xent.explanation.record import Step, Table
from xent.explanation.told import Told
from xent.explanation.words import Words

QUANTILES = (0, 25, 50, 75, 95, 99, 100)  # per cent
SURE, CLOSE, SPREAD = 0.9, 1.0, 0.7  # a probability, nats, a share of log V


def steps(batch: Batch, told: Told, words: Words) -> list[Step]:
    """The distribution and the worst rows where there are more than are shown, or broken ones."""
    broken = not np.isfinite(batch.losses).all()
    found = []
    if len(told.row) and len(told.index) < batch.count:
        found.append(_distribution(batch, told, words))
    if len(told.row) and (broken or found):
        found.append(_worst(batch, told, words))
    return found


def _distribution(batch: Batch, told: Told, words: Words) -> Step:
    losses = batch.losses[batch.kept]
    finite = losses[np.isfinite(losses)]
    at = np.percentile(finite, QUANTILES) if len(finite) else np.full(len(QUANTILES), np.nan)
    shares = _shares(batch, told.loss)
    counts = {"rows": f"{batch.count:,}", "worst": len(told.row)}
    share = percent(float(np.nansum(shares)))
    if batch.codes is None:
        text = words("summary.soft", **counts, share=share)
    else:
        kept = int(batch.kept.sum())
        hit = percent(float((batch.likeliest == batch.codes)[batch.kept].mean()))
        more = {"kept": f"{kept:,}", "ignored": f"{batch.count - kept:,}", "accuracy": hit}
        text = words("summary.text", **counts, **more, share=share)
    infinite, nan = int(np.isinf(losses).sum()), int(np.isnan(losses).sum())
    if infinite or nan:
        text += " " + words("summary.broken", infinite=f"{infinite:,}", nan=f"{nan:,}")
    header = (words("quantile"), *(f"{q} %" for q in QUANTILES))
    table = Table(header, ((words("loss"), *(computed(v) for v in at)),))
    values = {"quantiles": np.array(QUANTILES) / 100, "losses": at, "share": shares}
    return make("summary", words, formulas.SHARE, values, text, table=table, part="batch")


def _shares(batch: Batch, losses: Array) -> Array:
    """Of the sum of the finite losses; NaN for a loss that is not."""
    with reference.quiet():
        finite = np.where(np.isfinite(batch.losses), batch.losses, 0.0)
        share = losses / reference.total(finite)
    return np.where(np.isfinite(losses), share, np.nan)


def _worst(batch: Batch, told: Told, words: Words) -> Step:
    shares = _shares(batch, told.loss)
    soft = batch.codes is None
    names = ("loss", "share", "likeliest", "p.likeliest")
    if not soft:
        names = ("target", *names, "p.target", "rank", "margin")
    lines, notes = [], []
    values: dict[str, list[float]] = {"rank": [], "margin": []}
    for r, row in enumerate(told.row):
        k = _likeliest(told, r)
        cells = [computed(told.loss[r]), percent(shares[r]), str(k), percent(told.p[r, k])]
        if told.codes is not None:
            y = int(told.codes[r])
            rank, margin = _rank(told, r, y), _margin(told, r, k, y)
            values["rank"].append(rank)
            values["margin"].append(margin)
            cells = [str(y), *cells, percent(told.p[r, y]), _or_dash(rank), _or_dash(margin)]
        label = batch.label(int(row))
        lines.append((label, *cells))
        notes.append(f"[{label}] {why(batch, told, r, words)}")
    table = Table((words("row"), *(words(n) for n in names)), tuple(lines))
    text = words("worst.soft") if soft else words("worst.text", classes=f"{batch.classes:,}")
    arrays = {"row": told.row, "loss": told.loss, "share": shares}
    arrays |= {name: np.array(found) for name, found in values.items() if found}
    return make(
        "worst", words, formulas.SHARE, arrays, text, table=table, notes=tuple(notes), part="batch"
    )


def why(batch: Batch, told: Told, r: int, words: Words) -> str:
    """Why the loss of a row is as large as it is."""
    found = _broken(batch, told, r, words)
    if found is not None:
        return found
    k, p = _likeliest(told, r), told.p[r]
    if told.codes is None:
        said = _soft(told, r, k, words)
    else:
        y = int(told.codes[r])
        entropy = float(info.entropy(p))
        most = float(np.log(batch.classes))
        margin = _margin(told, r, k, y)
        shares = {"k": k, "p_k": percent(p[k]), "y": y, "p_y": percent(p[y])}
        if margin == 0:
            key = "why.right"
        elif p[k] >= SURE:
            key = "why.sure"
        elif entropy > SPREAD * most and batch.classes > 2:
            key = "why.spread"
        else:
            key = "why.close" if margin < CLOSE else "why.other"
        said = words(
            key, **shares, margin=computed(margin), entropy=computed(entropy), most=computed(most)
        )
    z = batch.spec.z_loss * told.weight[r] * told.lse[r] ** 2
    if z > told.loss[r] / 2:
        said += words("why.z", z=computed(z))
    weight = float(told.weight[r])
    if told.codes is not None and weight > 1:
        plain = float(batch.unweighted(told.x[r], told.codes[r]))
        loss = computed(told.loss[r])
        said += words("why.weight", weight=given(weight), loss=loss, plain=computed(plain))
    return said


def _broken(batch: Batch, told: Told, r: int, words: Words) -> str | None:
    """What is wrong with logits whose loss is infinite or no number."""
    if np.isfinite(told.loss[r]):
        return None
    x = told.x[r]
    nan = np.isnan(x)
    if nan.any():
        first, count = int(nan.argmax()), int(nan.sum())
        return words("why.nan", count=count, classes=batch.classes, c=first)
    if np.isposinf(x).any():
        return words("why.inf", c=int(np.isposinf(x).argmax()))
    if np.isneginf(x).all():
        return words("why.nothing")
    if told.codes is not None and np.isneginf(x[int(told.codes[r])]):
        return words("why.masked")
    return words("why.zero")


def _soft(told: Told, r: int, k: int, words: Words) -> str:
    t = told.t[r] / told.mass[r]
    log_t = np.log(np.where(t > 0, t, 1.0))
    divergence = float((t * np.where(t > 0, log_t - told.log_p[r], 0.0)).sum())
    return words(
        "why.soft",
        entropy=computed(float(info.entropy(t))),
        divergence=computed(divergence),
        k=k,
        p_k=percent(told.p[r, k]),
        t_k=percent(t[k]),
    )


def _likeliest(told: Told, r: int) -> int:
    return int(np.argmax(np.where(np.isnan(told.x[r]), -np.inf, told.x[r])))


def _rank(told: Told, r: int, y: int) -> float:
    """The place of the target's logit among those of its row; NaN where there is no order."""
    u = told.u[r]
    return float("nan") if np.isnan(u).any() else 1.0 + int((u > u[y]).sum())


def _margin(told: Told, r: int, k: int, y: int) -> float:
    """By how much the logit of class k is above the target's."""
    with np.errstate(invalid="ignore"):
        return float(told.u[r, k] - told.u[r, y])


def _or_dash(value: float) -> str:
    return "-" if np.isnan(value) else computed(value)
