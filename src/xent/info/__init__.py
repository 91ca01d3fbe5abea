"""Information measures of distributions, in nats unless `base` says otherwise.

Discrete distributions are NumPy arrays, torch tensors (differentiable) or arrays of any array-API
library. Half types and float32 are computed in float64 and rounded once to the dtype given; float64
has a relative error below 1e-15, for divergences of near distributions too, unless one is given by
probabilities and the other by logits. What is not a distribution raises an error that names the row
and its sum; nothing is ever renormalised. Continuous distributions are families with closed forms,
or any density by quadrature.
"""

from xent.info.continuous import Beta as Beta
from xent.info.continuous import Exponential as Exponential
from xent.info.continuous import Gamma as Gamma
from xent.info.continuous import Laplace as Laplace
from xent.info.continuous import MultivariateNormal as MultivariateNormal
from xent.info.continuous import Normal as Normal
from xent.info.continuous import Uniform as Uniform
from xent.info.discrete import cross_entropy as cross_entropy
from xent.info.discrete import entropy as entropy
from xent.info.discrete import information as information
from xent.info.discrete import js_distance as js_distance
from xent.info.discrete import js_divergence as js_divergence
from xent.info.discrete import kl_divergence as kl_divergence
from xent.info.joint import conditional_entropy as conditional_entropy
from xent.info.joint import joint_entropy as joint_entropy
from xent.info.joint import mutual_information as mutual_information
from xent.info.quadrature import differential_cross_entropy as differential_cross_entropy
from xent.info.quadrature import differential_entropy as differential_entropy
from xent.info.quadrature import differential_kl_divergence as differential_kl_divergence
from xent.info.units import bits_per_byte as bits_per_byte
from xent.info.units import perplexity as perplexity
from xent.info.units import to_bits as to_bits
from xent.info.units import to_nats as to_nats
