"""Cross entropy and a linear head in JAX, exact for small losses, with their derivatives by hand.

    pip install jax && python examples/jax_cross_entropy.py

xent has no functions for JAX under jit; these two are a recipe to copy. The largest logit of a row
is left out of its sum, so a loss of 1e-20 and its gradient keep their digits; the head makes the
logits of so many rows at a time.
"""

from functools import partial

import jax
import jax.numpy as jnp


def row_losses(logits, target):
    """(N, V) and (N,) -> loss of each row and its gradient (N, V), in nats.

    With k = argmax x and s = sum over c != k of exp(x_c - x_k): loss = log1p(s) + x_k - x_t, and
    the gradient is exp(x_c - x_k) / (1 + s), less 1 at the target: expm1(-loss) there.
    """
    row = jnp.arange(logits.shape[0])
    k = logits.argmax(axis=1)
    shifted = logits - logits[row, k][:, None]
    others = jnp.exp(shifted).at[row, k].set(0)
    s = others.sum(axis=1)
    loss = jnp.log1p(s) - shifted[row, target]
    gradient = others.at[row, k].set(1) / (1 + s)[:, None]
    return loss, gradient.at[row, target].set(jnp.expm1(-loss))


@jax.custom_vjp
def cross_entropy(logits, target):
    """The mean loss of logits (N, V) and class indices (N,)."""
    return row_losses(logits, target)[0].mean()


def _forward(logits, target):
    return cross_entropy(logits, target), (logits, target)


def _backward(saved, upstream):
    logits, target = saved
    return row_losses(logits, target)[1] * (upstream / logits.shape[0]), None


cross_entropy.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear_cross_entropy(hidden, linear_weight, target, rows):
    """The mean loss of hidden (N, D) @ linear_weight (V, D).T, `rows` rows of logits at a time.

    N is a multiple of `rows`. No array of N x V numbers is made, forward or backward.
    """
    return _head(hidden, linear_weight, target, rows)[0]


def _head(hidden, linear_weight, target, rows):
    def step(carried, part):
        total, dweight = carried
        h, t = part
        loss, dlogits = row_losses(h @ linear_weight.T, t)
        return (total + loss.sum(), dweight + dlogits.T @ h), dlogits @ linear_weight

    count, width = hidden.shape
    parts = hidden.reshape(-1, rows, width), target.reshape(-1, rows)
    start = jnp.zeros((), hidden.dtype), jnp.zeros_like(linear_weight)
    (total, dweight), dhidden = jax.lax.scan(step, start, parts)
    return total / count, (dhidden.reshape(count, width) / count, dweight / count)


def _head_backward(rows, gradients, upstream):
    return *(g * upstream for g in gradients), None


linear_cross_entropy.defvjp(_head, _head_backward)


def main():
    """A loss that softmax rounds to 0, and both gradients of a head."""
    confident = jnp.array([[40.0, 0.0]])
    loss, gradient = jax.value_and_grad(cross_entropy)(confident, jnp.array([0]))
    print(f"loss {loss:.6e}, gradient {gradient[0, 0]:.6e} and {gradient[0, 1]:.6e}")
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, weight = jax.random.normal(keys[0], (8, 4)), jax.random.normal(keys[1], (10, 4))
    target = jax.random.randint(keys[2], (8,), 0, 10)
    head = jax.jit(jax.grad(linear_cross_entropy, argnums=(0, 1)), static_argnums=3)
    dhidden, dweight = head(hidden, weight, target, 2)
    print(f"gradients of the head: {dhidden.shape} and {dweight.shape}")


if __name__ == "__main__":
    main()
