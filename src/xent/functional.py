"""The public functions: signature, documentation, and the way in: options, arrays, run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from xent import inputs
from xent.backends import backend_of, run, run_vjp
from xent.ops import binary, nll
from xent.ops import cross_entropy as ce
from xent.ops.softmax import Softmax
from xent.ops.stats import RowStats
from xent.spec import Plan, Spec

Array = Any


def cross_entropy(logits, target, weight=None, *, ignore_index=-100, reduction="mean",
    label_smoothing=0.0, z_loss=0.0, softcap=None, logit_scale=1.0, normalizer=None, axis=None, plan=None):
    spec = Spec(ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing, z_loss=z_loss,
      softcap=softcap, logit_scale=logit_scale, normalizer=normalizer, axis=axis)
    return run(ce, inputs.class_rows(logits, target, weight, spec), spec, plan)

def cross_entropy_vjp(logits, target, weight=None, *, ignore_index=-100, reduction="mean",
    label_smoothing=0.0, z_loss=0.0, softcap=None, logit_scale=1.0, normalizer=None, axis=None, plan=None):
    spec = Spec(ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing, z_loss=z_loss,
      softcap=softcap, logit_scale=logit_scale, normalizer=normalizer, axis=axis)
    return run_vjp(ce, inputs.class_rows(logits, target, weight, spec), spec, plan)
