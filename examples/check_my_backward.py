"""Is my cross entropy backward right? Check it against xent's, and both against differences."""

import numpy as np

import xent


def softmax(logits):
    exp = np.exp(logits)
    return exp / exp.sum(axis=1, keepdims=True)


def my_backward(logits, target):
    """The derivative of the mean over the rows by the logits: (softmax - one_hot) / N."""
    one_hot = np.eye(logits.shape[1])[target]
    return (softmax(logits) - one_hot) / len(target)


def without_the_mean(logits, target):
    """The mistake that training hides in its learning rate: right for a sum, N times too large."""
    return my_backward(logits, target) * len(target)


def without_softmax(logits, target):
    """The derivative by the probabilities, handed back as if it were that by the logits."""
    one_hot = np.eye(logits.shape[1])[target]
    return -one_hot / softmax(logits) / len(target)


def central_differences(logits, target, step=1e-5):
    """The derivative from losses alone, with an error of about step**2."""
    derivative = np.empty_like(logits)
    for index in np.ndindex(*logits.shape):
        move = np.zeros_like(logits)
        move[index] = step
        above = xent.cross_entropy(logits + move, target)
        below = xent.cross_entropy(logits - move, target)
        derivative[index] = (above - below) / (2 * step)
    return derivative


rng = np.random.default_rng(0)
logits, target = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
_, vjp = xent.cross_entropy_vjp(logits, target)
dlogits = vjp(1.0)

print("largest difference from     xent     central differences")
numeric = central_differences(logits, target)
for backward in (my_backward, without_the_mean, without_softmax):
    mine = backward(logits, target)
    from_xent, from_numeric = np.abs(mine - dlogits).max(), np.abs(mine - numeric).max()
    verdict = "right" if from_xent < 1e-12 and from_numeric < 1e-8 else "WRONG"
    print(f"{backward.__name__:17} {verdict}   {from_xent:.1e}   {from_numeric:.1e}")

print()
print("One row of logits (1000, 0), target 1:")
extreme, its_target = np.array([[1000.0, 0.0]]), np.array([1])
with np.errstate(over="ignore", invalid="ignore"):  # exp(1000) is more than a float64 holds
    print("my_backward:", my_backward(extreme, its_target))
_, vjp = xent.cross_entropy_vjp(extreme, its_target)
print("xent:       ", vjp(1.0))
