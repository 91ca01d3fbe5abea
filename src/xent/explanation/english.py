"""The texts in English; korean.py has the same keys."""

from __future__ import annotations

TEXTS = {
    "heading.one": "Cross entropy: {loss} nats",
    "heading.rows": "Cross entropy of each row",
    "part.batch": "The batch",
    "part.forward": "Forward",
    "part.backward": "Backward",
    "part.numerics": "Numerics",
    # names of columns and rows
    "row": "row",
    "row.class": "row / class",
    "class": "class {c}",
    "target": "target",
    "ignored": "ignored",
    "weight": "weight",
    "mass": "mass m",
    "loss": "loss",
    "share": "share",
    "rank": "rank",
    "likeliest": "likeliest",
    "p.target": "p of target",
    "p.likeliest": "p of likeliest",
    "margin": "margin",
    "rows": "rows",
    "quantile": "quantile",
    "scale": "∂L / ∂loss",
    "shown.rows": "Rows shown: the {shown} of the largest loss, of {rows}.",
    "shown.classes": "Classes shown: {shown} of {classes}, the targets and the likeliest.",
    "starred": "* marks the target.",
    # the batch
    "summary.title": "How the losses are distributed",
    "summary.text": "Of {rows} rows {kept} take part and {ignored} are ignored. The likeliest "
    "class is the target in {accuracy} of those that take part. The {worst} worst rows make "
    "{share} of the sum of the losses.",
    "summary.soft": "Of {rows} rows all take part. The {worst} worst rows make {share} of the "
    "sum of the losses.",
    "summary.broken": "Rows whose loss is infinite: {infinite}; not a number: {nan}.",
    "worst.title": "The worst rows, and why",
    "worst.text": "The margin is by how much the likeliest class's logit is above the target's; "
    "the rank is the target's place among {classes} classes.",
    "worst.soft": "A target of probabilities has an entropy H(t), which no prediction can go "
    "below. The rest of the loss is the divergence from the target.",
    "why.nan": "the logits hold NaN in {count} of {classes} classes, first in class {c}",
    "why.inf": "the logit of class {c} is inf: inf - inf is NaN",
    "why.nothing": "all logits are -inf: no class is possible",
    "why.masked": "the target's logit is -inf: its probability is 0, and the loss infinite",
    "why.zero": "a class with target probability has a logit of -inf, and the loss is infinite",
    "why.sure": "sure of class {k}, which has {p_k}; target {y} has {p_y}: "
    "a hard row, or a wrong label",
    "why.close": "a close call: class {k} ({p_k}) is ahead of target {y} ({p_y}) by {margin} nats",
    "why.spread": "undecided: {p_k} is the most that a class has, the entropy is {entropy} of at "
    "most {most} nats; target {y} has {p_y}",
    "why.other": "class {k} ({p_k}) is likelier than target {y} ({p_y})",
    "why.right": "the target {y} is the likeliest class, with {p_y}",
    "why.soft": "H(t) = {entropy}, divergence {divergence} nats; class {k} has the most, {p_k}, "
    "and the target gives it {t_k}",
    "why.weight": "; its weight {weight} makes {loss} of {plain} nats",
    "why.z": "; {z} nats of it are z-loss",
    # forward
    "input.title": "Logits and target",
    "input.indices": "{rows} × {classes} logits (rows × classes), {dtype}, and class indices. "
    "What follows is computed in float64 from the numbers as they are given.",
    "input.probabilities": "{rows} × {classes} logits (rows × classes), {dtype}, and class "
    "probabilities. What follows is computed in float64 from the numbers as they are given.",
    "transform.title": "Scale and softcap",
    "transform.scale": "The logits are multiplied by s = {scale} (a temperature of {temperature}).",
    "transform.softcap": "The logits are scaled by s = {scale} and kept between -{cap} and {cap}.",
    "shift.title": "Shift by the maximum",
    "shift.text": "The row's largest logit becomes 0 and no exponential can overflow. The result "
    "stays the same: see the last part.",
    "exponentials.title": "Exponentials",
    "exponentials.text": "All lie in [0, 1], and the largest is 1.",
    "sum.title": "Sum",
    "sum.rest": "The last term is the sum over {others} classes that are not shown.",
    "sum.text": "Between 1 and the number of classes.",
    "lse.title": "Log-sum-exp",
    "lse.text": "The logarithm of the normalizing sum; the maximum is put back.",
    "log_probabilities.title": "Log-probabilities",
    "log_probabilities.text": "A difference of two numbers that are known, and no logarithm of a "
    "probability, which may have become 0.",
    "probabilities.title": "Probabilities",
    "probabilities.text": "Softmax: every row sums to 1.",
    "measure.title": "Target measure",
    "measure.index": "One-hot: all mass is on the target's class.",
    "measure.soft": "The given probabilities.",
    "measure.smoothing": "Label smoothing ε = {smoothing} gives every class {part}.",
    "measure.weight": "Class weights w are factors of t, so the mass m need not be 1.",
    "row_loss.title": "Loss of each row",
    "row_loss.text": "The cross entropy of the target measure relative to softmax, in nats.",
    "row_loss.z": "ζ = {z} times the square of lse is added.",
    "row_loss.ignored": "ignored: 0",
    "denominator.title": "Weights and denominator",
    "denominator.mean": "The mean divides by the weight of the rows that take part: that of the "
    "target's class, and 0 where the target is ignore_index {ignore_index}.",
    "denominator.soft": "With probabilities the mean divides by the number of rows.",
    "denominator.given": "The normalizer is given and takes the place of the rows' weight.",
    "denominator.none": "Nothing is divided by.",
    "denominator.zero": "No row has any weight: 0 / 0 is NaN, as in torch.",
    "denominator.ignored": "Ignored rows: {ignored} of {rows}.",
    "loss.title": "Loss",
    "loss.mean": "The sum of the rows' losses over the denominator; {bits} bits.",
    "loss.sum": "The sum of the rows' losses; {bits} bits.",
    "loss.none": "The losses are not reduced.",
    # backward
    "row_gradient.title": "Softmax minus target",
    "row_gradient.text": "Positive where a logit is too high. A gradient step lowers those and "
    "raises the target's.",
    "row_gradient.sums": "Each row sums to 0.",
    "gradient.title": "Gradient",
    "gradient.mean": "Every row is divided by D.",
    "gradient.sum": "Every row counts fully.",
    "gradient.ignored": "Ignored rows get 0.",
    "jacobian.title": "Jacobian of softmax",
    "jacobian.text": "Of row {row}. It is symmetric and its rows sum to 0. Its product with "
    "∂loss / ∂p = -t / p is the row of the gradient above: (m p - t).",
    "jacobian.product": "J (-t / p)",
    # numerics
    "shift_is_safe.title": "Why the shift is safe",
    "shift_is_safe.text": "exp(a) is a factor of both sides of the quotient. With a = -max nothing "
    "overflows, whereas the formula without a shift fails at large logits (row {row}, computed "
    "naively in float64).",
    "naive.title": "What naive formulas give in three formats",
    "naive.text": "Loss of row {row}, every operation rounded to the format. What xent gives for "
    "the logits that the format holds is beside it.",
    "naive.limits": "exp overflows above 11.09 in float16 and 88.72 in bfloat16 and float32.",
    "naive.given": "as given",
    "naive.raised": "u + {by}",
    "naive.lowered": "u - {by}",
    "naive.stretched": "{by} u",
    "naive.ahead": "u_y: +{by}",
    "naive.ahead.text": "u_y: +{by} puts the target's logit {by} above the others: the loss is "
    "small, and not 0.",
    "format": "format",
    "logits": "logits",
    "softmax.plain": "exp without a shift",
    "softmax.log": "log Σ exp - u_c",
    "softmax.shift": "shifted softmax, then log",
}
