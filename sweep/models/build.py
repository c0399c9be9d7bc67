"""From a network as data to a torch module.

In: a network of any family, and what it sees. Out: an `nn.Module` from images x_BCHW to logits of shape (B, classes).
"""

from torch import nn

from sweep.models.anynet import AnyNet
from sweep.models.mlp import Perceptron
from sweep.models.vit import VisionTransformer
from sweep.spaces import Architecture, Mlp, Network, Vit


def build(network: Network, *, resolution: int = 224, channels: int = 3, classes: int = 1000) -> nn.Module:
    """The network on torch's current default device, with weights drawn from its current random state.

    For images of `channels` × `resolution` × `resolution` pixels, as `complexity` has them; AnyNet takes any.
    Raises ValueError where the network cannot take such images.
    """
    if isinstance(network, Architecture):
        return AnyNet(network, channels=channels, classes=classes)
    if isinstance(network, Mlp):
        return Perceptron(network, resolution=resolution, channels=channels, classes=classes)
    assert isinstance(network, Vit)
    return VisionTransformer(network, resolution=resolution, channels=channels, classes=classes)
