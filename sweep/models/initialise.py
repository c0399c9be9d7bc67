"""The first weights of a network, drawn from torch's current random state, module by module in their order.

In: a network whose weights are unset. Out: the same network. Norms come with ones and zeros. The three ways:

* he: convolutions N(0, 2 / fan-out) after He et al. 2015, the classifier N(0, 0.01²), so that training starts from
  even odds; hidden linear layers N(0, 2 / fan-in), because a perceptron without norm must keep the scale of its signals
  on the way forward, and a skip's projection, which no activation follows, N(0, 1 / fan-in). Biases are zero.
* zero_last_norm: as he, then each residual branch begins as zero (Goyal et al. 2017): see `zero_branch`.
* xavier: as d2l.ai: weights of every convolution and linear layer uniform after Glorot & Bengio 2010, biases as torch
  draws them, uniform within 1 / √fan-in.

Transformers have one way: linear layers and positions from a truncated N(0, 0.02²), patches from a truncated
N(0, 1 / fan-in), biases zero, the classifier as above.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import nn

from sweep.models.layers import Classifier, Conv2d, Linear, PatchEmbedding


def initialise(network: nn.Module, initialisation: str) -> None:
    """`initialisation` is a word of sweep.spaces.parts, or "transformer"."""
    draw = _WAYS[initialisation]
    for module in network.modules():
        if isinstance(module, Conv2d | PatchEmbedding | Linear):
            draw(module)


@torch.no_grad()
def zero_branch(last_conv: nn.Module, last_norm: nn.Module, activation_order: str) -> None:
    """The residual branch that ends with these answers zero until it is trained, so that its block adds nothing.

    The scale of its last norm becomes zero, or, where the branch ends with a convolution (order "pre"), that one's
    weights. A branch of order "post" needs a norm; the shift and the bias are zero from the start.
    """
    last = last_norm if activation_order == "post" else last_conv
    assert isinstance(last, nn.BatchNorm2d | nn.GroupNorm | nn.Conv2d)
    for parameter in (last.weight, last.bias):
        if parameter is not None:
            parameter.zero_()


def _he(module: nn.Module) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    if isinstance(module, Classifier):
        nn.init.normal_(module.weight, std=0.01)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module.bias is None else "relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _xavier(module: nn.Module) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    nn.init.xavier_uniform_(module.weight)
    if module.bias is not None:
        bound = 1 / sqrt(module.weight[0].numel())
        nn.init.uniform_(module.bias, -bound, bound)


def _transformer(module: nn.Module) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    if isinstance(module, Classifier):
        nn.init.normal_(module.weight, std=0.01)
    else:
        std = 1 / sqrt(module.weight[0].numel()) if isinstance(module, nn.Conv2d) else 0.02
        nn.init.trunc_normal_(module.weight, std=std)
    assert module.bias is not None
    nn.init.zeros_(module.bias)


_WAYS: dict[str, Callable[[nn.Module], None]] = {
    "he": _he,
    "zero_last_norm": _he,
    "xavier": _xavier,
    "transformer": _transformer,
}
