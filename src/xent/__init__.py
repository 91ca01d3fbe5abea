"""Cross entropy: exact, with derivatives of every order, on NumPy arrays and torch tensors."""

from xent import info as info
from xent import manual as manual
from xent.evaluation import compare as compare
from xent.evaluation import evaluate as evaluate
from xent.explanation import explain as explain
from xent.functional import TokenStatistics as TokenStatistics
from xent.functional import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from xent.functional import cross_entropy as cross_entropy
from xent.functional import cross_entropy_vjp as cross_entropy_vjp
from xent.functional import log_softmax as log_softmax
from xent.functional import logsumexp as logsumexp
from xent.functional import nll_loss as nll_loss
from xent.functional import softmax as softmax
from xent.functional import token_statistics as token_statistics
from xent.functional_linear import linear_cross_entropy as linear_cross_entropy
from xent.functional_linear import linear_cross_entropy_vjp as linear_cross_entropy_vjp
from xent.functional_linear import linear_token_statistics as linear_token_statistics
from xent.inputs_linear import LowRank as LowRank
from xent.spec import Plan as Plan

__version__ = "0.1.0"
__all__ = [
    "LowRank",
    "Plan",
    "TokenStatistics",
    "binary_cross_entropy_with_logits",
    "compare",
    "cross_entropy",
    "cross_entropy_vjp",
    "evaluate",
    "explain",
    "info",
    "linear_cross_entropy",
    "linear_cross_entropy_vjp",
    "linear_token_statistics",
    "log_softmax",
    "logsumexp",
    "manual",
    "nll_loss",
    "softmax",
    "token_statistics",
]
