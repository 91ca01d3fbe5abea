"""Units of information, and a mean loss told as perplexity or as bits per byte."""

from __future__ import annotations

import math
from typing import Any

from xent.info import checks
from xent.info.arrays import Array
from xent.info.layout import rounded, widest
from xent.info.terms import quiet


def perplexity(nll: Any, *, base: float | None = None) -> Array:
    """The perplexity base ** nll of a mean negative log-likelihood, cross entropy or entropy.

    Of an entropy it is the number of equally likely classes that would be as uncertain:
    `perplexity(entropy(p))`. It grows beyond every format: above 709 nats in float64 and 88 in
    float32 it is inf, so compare large losses as they are, which are log perplexities.

    Args:
        nll: (...) floating, >= 0. Means per event.
        base: in which nll was measured, > 1; None is e, for nats; 2 is for bits.

    Returns:
        (...) in the dtype of nll, >= 1.

    Raises:
        ValueError: nll has a value below 0, as a log-likelihood of the wrong sign would, or base
            is not > 1.
        TypeError: nll is not real floating.

    Source: Jelinek, Mercer, Bahl and Baker, Perplexity - a measure of the difficulty of speech
    recognition tasks (1977).

    >>> perplexity(3.0, base=2)
    np.float64(8.0)
    """
    checks.log_base("perplexity", base, above=1.0)
    xp, (given,) = checks.arrays("perplexity", nll=nll)
    values = widest(xp, given)
    checks.entries("perplexity", "nll", xp, values, 0.0, math.inf)
    with quiet(values):
        result = xp.exp(values) if base is None else float(base) ** values
        return rounded(xp, result, given.dtype)


def bits_per_byte(nll_sum: Any, n_bytes: Any) -> Array:
    """Bits per byte of text: a summed negative log-likelihood over a length in bytes.

    Unlike a loss per token it compares models of different vocabularies.

    Args:
        nll_sum: (...) floating, >= 0, in nats. Sums over all tokens of a text.
        n_bytes: an integer, or integers (...). The length of the text in bytes, in UTF-8 as a rule.

    Returns:
        (...) in the dtype of nll_sum.

    Raises:
        ValueError: nll_sum has a value below 0, or n_bytes one below 1.
        TypeError: nll_sum is not real floating, or n_bytes not integer.

    >>> bits_per_byte(6931.471805599453, 5000)
    np.float64(2.0)
    """
    xp, (given,) = checks.arrays("bits_per_byte", nll_sum=nll_sum)
    values = widest(xp, given)
    checks.entries("bits_per_byte", "nll_sum", xp, values, 0.0, math.inf)
    counts = checks.counts("bits_per_byte", "n_bytes", xp, n_bytes, values)
    return rounded(xp, values / math.log(2) / counts, given.dtype)


def to_bits(nats: Any) -> Array:
    """Nats as bits: nats / log 2.

    Args:
        nats: (...) floating.

    Returns:
        (...) in the dtype of nats.

    Raises:
        TypeError: nats is not real floating.

    >>> to_bits(0.6931471805599453)
    np.float64(1.0)
    """
    xp, (given,) = checks.arrays("to_bits", nats=nats)
    return rounded(xp, widest(xp, given) / math.log(2), given.dtype)


def to_nats(bits: Any) -> Array:
    """Bits as nats: bits * log 2.

    Args:
        bits: (...) floating.

    Returns:
        (...) in the dtype of bits.

    Raises:
        TypeError: bits is not real floating.

    >>> to_nats(1.0)
    np.float64(0.6931471805599453)
    """
    xp, (given,) = checks.arrays("to_nats", bits=bits)
    return rounded(xp, widest(xp, given) * math.log(2), given.dtype)
