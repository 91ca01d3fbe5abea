"""A network of your own layers in NumPy; the loss and where its backward starts are xent's.

Three spiral arms in the plane, one class each; 2 inputs, 32 hidden units with tanh, 3 classes.
"""

import numpy as np

import xent


class Linear:
    def __init__(self, inputs, outputs, rng):
        self.weight = rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        self.bias = np.zeros(outputs)

    def forward(self, values):
        self.values = values
        return values @ self.weight + self.bias

    def backward(self, upstream):
        self.dweight = self.values.T @ upstream
        self.dbias = upstream.sum(axis=0)
        return upstream @ self.weight.T

    def descend(self, rate):
        self.weight -= rate * self.dweight
        self.bias -= rate * self.dbias


class Tanh:
    def forward(self, values):
        self.result = np.tanh(values)
        return self.result

    def backward(self, upstream):
        return upstream * (1 - self.result**2)

    def descend(self, rate):
        pass  # nothing to learn


def spirals(rng, arms=3, points=100):
    """(arms * points, 2) points and the arm of each."""
    arm = np.repeat(np.arange(arms), points)
    radius = np.tile(np.linspace(0.1, 1, points), arms)
    angle = 4 * radius + 2 * np.pi / arms * arm + rng.normal(0, 0.15, arms * points)
    return 3 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), arm


rng = np.random.default_rng(0)
points, target = spirals(rng)
layers = [Linear(2, 32, rng), Tanh(), Linear(32, 3, rng)]
criterion = xent.manual.CrossEntropyLoss()

for step in range(501):
    values = points
    for layer in layers:
        values = layer.forward(values)
    loss = criterion.forward(values, target)  # values are the logits, (300, 3)

    if step % 100 == 0:
        accuracy = (values.argmax(axis=1) == target).mean()
        print(f"step {step:3}: loss {loss:.4f} nats, accuracy {accuracy:.1%}")

    upstream = criterion.backward()  # (softmax(logits) - one_hot(target)) / 300
    for layer in reversed(layers):
        upstream = layer.backward(upstream)
    for layer in layers:
        layer.descend(rate=0.5)
