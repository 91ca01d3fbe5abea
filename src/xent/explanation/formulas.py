"""The formulas of the steps, for people (plain) and for TeX, and what they depend on.

x are logits, u logits after scale and softcap, y the target's class, q target probabilities, w
class weights, e the label smoothing, zeta the factor of the z-loss, D the denominator.
"""

from __future__ import annotations

from typing import NamedTuple

from xent import reduction
from xent.explanation.batch import Batch


class Formula(NamedTuple):
    """One formula, written twice."""

    plain: str
    latex: str


SCALE = Formula("u_c = s x_c", r"u_c = s\,x_c")
SOFTCAP = Formula("u_c = k tanh(s x_c / k)", r"u_c = k \tanh\left(\frac{s\,x_c}{k}\right)")
SHIFT = Formula("z_c = u_c - max_k u_k", r"z_c = u_c - \max_k u_k")
EXPONENTIALS = Formula("e_c = exp(z_c)", r"e_c = \exp(z_c)")
SUM = Formula("S = Σ_c e_c", r"S = \sum_c e_c")
LSE = Formula(
    "lse = log Σ_c exp(u_c) = max_c u_c + log S",
    r"\mathrm{lse} = \log \sum_c \exp(u_c) = \max_c u_c + \log S",
)
LOG_PROBABILITIES = Formula(
    "log p_c = z_c - log S = u_c - lse", r"\log p_c = z_c - \log S = u_c - \mathrm{lse}"
)
PROBABILITIES = Formula(
    "p_c = softmax(u)_c = exp(u_c) / Σ_k exp(u_k) = e_c / S",
    r"p_c = \mathrm{softmax}(u)_c = \frac{\exp(u_c)}{\sum_k \exp(u_k)} = \frac{e_c}{S}",
)
JACOBIAN = Formula(
    "∂p_i / ∂u_j = p_i ([i = j] - p_j),  J = diag(p) - p pᵀ",
    r"\frac{\partial p_i}{\partial u_j} = p_i \left([i = j] - p_j\right), \quad "
    r"J = \mathrm{diag}(p) - p\,p^{\top}",
)
SHIFT_IS_SAFE = Formula(
    "softmax(u + a)_c = exp(a) exp(u_c) / (exp(a) Σ_k exp(u_k)) = softmax(u)_c",
    r"\mathrm{softmax}(u + a)_c = \frac{\exp(a) \exp(u_c)}{\exp(a) \sum_k \exp(u_k)}"
    r" = \mathrm{softmax}(u)_c",
)
NAIVE = Formula(
    "-log(exp(u_c) / Σ_k exp(u_k)),  log Σ_k exp(u_k) - u_c,  -log(softmax(u)_c)",
    r"-\log\frac{\exp(u_c)}{\sum_k \exp(u_k)}, \quad \log \sum_k \exp(u_k) - u_c, \quad "
    r"-\log\left(\mathrm{softmax}(u)_c\right)",
)
SHARE = Formula(
    "share_n = loss_n / Σ_k loss_k",
    r"\mathrm{share}_n = \frac{\mathrm{loss}_n}{\sum_k \mathrm{loss}_k}",
)


def logits(batch: Batch) -> Formula:
    """What is given."""
    n, v = batch.count, batch.classes
    space, rows = f"ℝ^{v}", ("", "")
    tex = rf"\mathbb{{R}}^{{{v}}}"
    if n > 1:
        space, rows = f"ℝ^({n} × {v})", (f"^{n}", f"^{{{n}}}")
        tex = rf"\mathbb{{R}}^{{{n} \times {v}}}"
    if batch.codes is None:
        return Formula(f"x, q ∈ {space}", rf"x, q \in {tex}")
    return Formula(
        f"x ∈ {space},  y ∈ {{0, ..., {v - 1}}}{rows[0]}",
        rf"x \in {tex}, \quad y \in \{{0, \dots, {v - 1}\}}{rows[1]}",
    )


def target(batch: Batch) -> Formula:
    """The target measure and its mass."""
    q = ("[c = y]", "[c = y]") if batch.codes is not None else ("q_c", "q_c")
    if batch.spec.label_smoothing:
        q = (f"(1 - ε) {q[0]} + ε / V", rf"(1 - \varepsilon)\,{q[1]} + \frac{{\varepsilon}}{{V}}")
        if batch.weight is not None:
            q = (f"w_c ({q[0]})", rf"w_c \left({q[1]}\right)")
    elif batch.weight is not None:
        q = (f"w_c {q[0]}", rf"w_c\,{q[1]}")
    return Formula(f"t_c = {q[0]},  m = Σ_c t_c", rf"t_c = {q[1]}, \quad m = \sum_c t_c")


def row_loss(batch: Batch) -> Formula:
    """The loss of a row."""
    more = (" + ζ w lse²", r" + \zeta\,w\,\mathrm{lse}^2") if batch.spec.z_loss else ("", "")
    return Formula(
        f"loss = -Σ_c t_c log p_c{more[0]} = m lse - Σ_c t_c u_c{more[0]}",
        rf"\mathrm{{loss}} = -\sum_c t_c \log p_c{more[1]}"
        rf" = m\,\mathrm{{lse}} - \sum_c t_c\,u_c{more[1]}",
    )


def denominator(batch: Batch) -> Formula:
    """What the sum is divided by."""
    if not reduction.divides(batch.spec.reduction):
        return Formula("D = 1", "D = 1")
    if batch.normalizer is not None:
        return Formula("D = normalizer", r"D = \mathrm{normalizer}")
    if batch.codes is None:
        return Formula("D = N", "D = N")
    return Formula("D = Σ_n w_n", r"D = \sum_n w_n")


def loss(batch: Batch) -> Formula:
    """The result."""
    if reduction.keeps_rows(batch.spec.reduction):
        return Formula("L_n = loss_n", r"L_n = \mathrm{loss}_n")
    if not reduction.divides(batch.spec.reduction):
        return Formula("L = Σ_n loss_n", r"L = \sum_n \mathrm{loss}_n")
    return Formula("L = (1 / D) Σ_n loss_n", r"L = \frac{1}{D} \sum_n \mathrm{loss}_n")


def row_gradient(batch: Batch) -> Formula:
    """The derivative of a row's loss by its transformed logits."""
    more = ("", "")
    if batch.spec.z_loss:
        more = (" + 2 ζ w lse p_c", r" + 2\,\zeta\,w\,\mathrm{lse}\,p_c")
    return Formula(
        f"∂loss / ∂u_c = m p_c - t_c{more[0]}",
        rf"\frac{{\partial\,\mathrm{{loss}}}}{{\partial u_c}} = m\,p_c - t_c{more[1]}",
    )


def gradient(batch: Batch) -> Formula:
    """The derivative of the result by the logits."""
    divides = reduction.divides(batch.spec.reduction)
    over = ("(1 / D) ", r"\frac{1}{D}\,") if divides else ("", "")
    if batch.spec.softcap is not None:
        slope = ("s (1 - tanh²(s x_c / k)) ", r"s\left(1 - \tanh^2\frac{s\,x_c}{k}\right)")
    elif batch.spec.logit_scale != 1:
        slope = ("s ", r"s\,")
    else:
        slope = ("", "")
    return Formula(
        f"∂L / ∂x_c = {over[0]}{slope[0]}∂loss / ∂u_c",
        rf"\frac{{\partial L}}{{\partial x_c}} = {over[1]}{slope[1]}"
        r"\frac{\partial\,\mathrm{loss}}{\partial u_c}",
    )
