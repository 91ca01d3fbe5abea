"""The plausible mistakes: each a right computation with one thing wrong, and its name in words.

A number that is wrong is compared with what every mistake here gives on the same input; the one
that gives just that number is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from xent.conformance.ways import Slope, Way
from xent.conformance.ways import answer as answer

MEAN = "divide by the weight of the rows that are kept"
FLAWS: dict[str, tuple[str, Way]] = {
    # of an option that is passed; without it they give what is right, and are no cause
    "z_loss_not_used": ("you dropped z_loss", Way(z_loss="none")),
    "z_loss_not_squared": ("you added z_loss * lse: square lse", Way(z_loss="lse")),
    "z_loss_unweighted": (
        "the z-loss lacks its row's class weight: with it a weighted mean is one of whole losses",
        Way(z_loss="unweighted"),
    ),
    "z_loss_half_slope": ("backward of z_loss * lse^2 lacks the 2", Slope(of_square=False)),
    "softcap_not_used": ("you dropped softcap", Way(softcap="none")),
    "softcap_before_scale": (
        "you capped the logits and then scaled them: softcap * tanh(logit_scale * x / softcap)",
        Way(softcap="before"),
    ),
    "softcap_slope": (
        "backward lacks the softcap's own slope, 1 - tanh(x / softcap)^2",
        Slope(of_cap=False),
    ),
    "scale_not_used": ("you dropped logit_scale", Way(logit_scale="none")),
    "scale_divides": ("you divided by logit_scale: it is a factor", Way(logit_scale="divisor")),
    "scale_slope": ("backward lacks the factor logit_scale", Slope(of_scale=False)),
    "normalizer_not_used": (
        "you dropped normalizer: it stands in place of the mean's own divisor",
        Way(normalizer="none"),
    ),
    "normalizer_on_top": (
        "you divided by normalizer and by the mean's own divisor: by normalizer alone",
        Way(normalizer="on top"),
    ),
    "sign": ("the sign is flipped: the loss is minus log p", Way(sign=-1.0)),
    "bits": ("you took log2; the loss is in nats, the natural logarithm", Way(base=np.log(2))),
    "log10": ("you took log10; the loss is in nats, the natural logarithm", Way(base=np.log(10))),
    "no_log": ("you returned -p; take its logarithm", Way(accuracy=True)),
    "softmax_twice": (
        "you applied softmax twice: pass logits to the log-softmax, not probabilities",
        Way(twice=True),
    ),
    "sigmoid": ("you used a sigmoid per class; take a softmax over the classes", Way(sigmoid=True)),
    "probabilities_expected": (
        "you took the logits for probabilities: apply log-softmax first",
        Way(probabilities=True),
    ),
    "softmax_over_last": (
        "you normalised over the last axis; the classes are axis 1 of (N, V, ...)",
        Way(softmax="last"),
    ),
    "softmax_over_rows": (
        "you normalised over the rows; softmax sums over the classes, axis 1",
        Way(softmax="rows"),
    ),
    "softmax_over_all": (
        "you normalised over the whole batch; softmax sums over the classes of one row",
        Way(softmax="all"),
    ),
    "labels_from_one": ("you shifted the labels by one: classes count from 0", Way(shift=-1)),
    "labels_plus_one": ("you looked up target + 1: classes count from 0", Way(shift=1)),
    "divided_by_rows": (f"you divided by N; {MEAN}", Way(divisor="rows")),
    "divided_by_kept_rows": (
        f"you divided by the number of rows kept, not by their class weights; {MEAN}",
        Way(divisor="kept"),
    ),
    "divided_by_all_weights": (
        f"you divided by the weight of all rows, the ignored among them; {MEAN}",
        Way(divisor="all weight"),
    ),
    "divided_by_class_weights": (
        f"you divided by the sum of the class weights; {MEAN}",
        Way(divisor="weights"),
    ),
    "divided_by_entries": (
        "you averaged over N x V entries; average over the rows",
        Way(divisor="entries"),
    ),
    "divided_by_first_axis": (
        "you divided by the length of axis 0; a mean of (N, V, d) is over all N d positions",
        Way(divisor="first axis"),
    ),
    "divided_by_classes": ("you divided by the number of classes, not of rows", Way(divisor="V")),
    "sum_for_mean": ("you returned the sum where the mean was asked for", Way(divisor="one")),
    "mean_for_sum": ("you returned the mean where the sum was asked for", Way(divisor="always")),
    "soft_mean_by_weight": (
        "you divided the mean of class probabilities by a weight; torch divides it by N",
        Way(divisor="soft weight"),
    ),
    "smoothed_mean_by_mass": (
        "with smoothing you divided by the smoothed weights; divide by the targets' weights",
        Way(divisor="mass"),
    ),
    "weight_not_used": ("you dropped the class weights", Way(weight="none")),
    "weight_by_row": (
        "you multiplied by weight[row]; the weight of a row is weight[target[row]]",
        Way(weight="row"),
    ),
    "weight_twice": ("you applied the class weights twice", Way(weight="twice")),
    "weight_squared_mean": (
        "you applied the class weights in the loss twice, and in the mean once",
        Way(weight="twice", divisor="kept weight"),
    ),
    "smoothing_over_others": (
        "you gave label_smoothing / (V - 1) to the other classes; every class, the target too, "
        "gets label_smoothing / V",
        Way(smoothing="others"),
    ),
    "smoothing_without_target": (
        "the target kept 1 - label_smoothing alone; it gets label_smoothing / V too",
        Way(smoothing="target"),
    ),
    "smoothing_on_top": (
        "you added label_smoothing / V and took nothing off the target: "
        "it keeps 1 - label_smoothing",
        Way(smoothing="kept"),
    ),
    "smoothing_not_used": ("you dropped label_smoothing", Way(smoothing="none")),
    "smoothing_weight_of_target": (
        "you weighted the smoothed row by the target's weight; weight each class by its own",
        Way(smoothed_weight="target"),
    ),
    "ignored_rows_counted": (
        "you computed the loss of ignored rows: leave them out, of the mean's divisor too",
        Way(ignored="kept"),
    ),
    "ignored_wraps": (
        "a negative label wrapped round to a class from the end; an ignored row contributes 0",
        Way(ignored="wrapped"),
    ),
    "mass_of_one": (
        "you computed lse - sum(t x) for a target that does not add up to 1: lse goes with "
        "sum(t), and so does softmax in the gradient",
        Way(mass="one"),
    ),
    "argmax_of_target": (
        "you took the likeliest class of the target probabilities: use all of them",
        Way(argmax=True),
    ),
    "gradient_of_n_rows": (
        f"backward divided by N; {MEAN}, as forward does",
        Slope(divisor="rows"),
    ),
    "gradient_by_kept_rows": (
        f"backward divided by the number of rows, not by their class weights; {MEAN}",
        Slope(divisor="kept"),
    ),
    "upstream_ignored": (
        "backward did not multiply by its upstream: it is not always 1",
        Slope(upstream="ignored"),
    ),
    "upstream_columns": (
        "the upstream of row i multiplied column i: (N,) * (N, V) broadcasts along the classes; "
        "multiply by upstream[:, None]",
        Slope(upstream="columns"),
    ),
    "upstream_averaged": (
        "backward used the mean of the upstream; each row has its own",
        Slope(upstream="averaged"),
    ),
    "upstream_twice": ("backward multiplied by its upstream twice", Slope(upstream="twice")),
    "ignored_column": (
        "you zeroed the column of class ignore_index; zero the rows whose target it is",
        Slope(column=True),
    ),
    "gradient_of_ignored_rows": (
        "ignored rows have a gradient: it is 0",
        Slope(ignored="kept", divisor="only kept"),
    ),
    "one_hot_undivided": (
        "softmax is divided by N, the one-hot target is not: divide their difference",
        Slope(undivided=True),
    ),
    "gradient_without_weight": ("backward drops the class weights", Slope(weight="none")),
    "gradient_without_smoothing": ("backward drops label_smoothing", Slope(smoothing="none")),
    "gradient_mass_of_one": (
        "backward has softmax - target for a target of another mass: "
        "sum(target) * softmax - target",
        Slope(mass="one"),
    ),
    "one_hot_of_present": (
        "one_hot counted the classes by the largest label: pass the number of classes",
        Slope(hot="present"),
    ),
    "no_softmax_in_gradient": (
        "the gradient is minus the one-hot target: softmax was treated as constant",
        Slope(hot="constant"),
    ),
    "gradient_sum": (
        "the gradient is the sum's: divide it as the loss is divided",
        Slope(factor="rows"),
    ),
    "gradient_divided_twice": (
        "the gradient is divided twice by the mean's divisor",
        Slope(factor="1/rows"),
    ),
    "gradient_sign": ("the gradient's sign is flipped: softmax - target", Slope(factor="minus")),
    "gradient_zero": ("the gradient is 0: the graph was cut", Slope(factor="zero")),
    "gradient_half": ("the gradient is half of what it should be", Slope(factor="half")),
    "gradient_double": ("the gradient is counted twice", Slope(factor="double")),
}


VARIANTS: tuple[tuple[str, Way], ...] = (  # other forms of a mistake
    ("ignored_rows_counted", Way(ignored="first")),
    ("gradient_of_ignored_rows", Slope(ignored="first", divisor="only kept")),
)


def ways() -> Iterator[tuple[str, Way]]:
    """The mistakes: those of the whole loss, those of backward, and the first in backward alone."""
    yield from ((name, way) for name, (_, way) in FLAWS.items())
    yield from VARIANTS
    for name, (_, way) in FLAWS.items():
        if not isinstance(way, Slope):
            same = {f.name: getattr(way, f.name) for f in fields(Way)}
            yield name, replace(Slope(), **same)
