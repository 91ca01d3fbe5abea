"""The pictures: curves of one quantity, bars of distributions, the gradient of a batch.

Every function draws on the Axes it is given and returns it. Without one it draws on pyplot's
current axes, as seaborn does: `plt.figure()` before it starts a new figure, `plt.show()` after it
shows the figure, and neither is called here. No style and no other global setting is changed; the
colours are Okabe and Ito's, which people with any kind of colour vision can tell apart. Needs
matplotlib (`pip install "xent[plot]"`).
"""

from xent.plots.batches import gradient_map, reliability
from xent.plots.curves import information, loss_curve, normal_entropy, training_curves
from xent.plots.distributions import entropy_bar, temperatures

__all__ = [
    "entropy_bar",
    "gradient_map",
    "information",
    "loss_curve",
    "normal_entropy",
    "reliability",
    "temperatures",
    "training_curves",
]
