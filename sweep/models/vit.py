"""A small vision transformer in torch (Dosovitskiy et al. 2021, without class token as in Beyer et al. 2022).

In: a `Vit`, the size and channels of the images, the number of classes. Out: an `nn.Module` from images x_BCHW to
logits of shape (B, classes). Dropout, as there, after the positions and after every linear layer but that of queries,
keys and values. Weights are those of initialise.py.

Shapes: B batch, N patches, D width, H heads, W width of a head.
"""

import torch
from torch import nn
from torch.nn import functional

from sweep.models.initialise import initialise
from sweep.models.layers import Classifier, Linear, PatchEmbedding, dropout
from sweep.spaces.vit import Vit


class SelfAttention(nn.Module):
    """Every patch looks at all of them, with `num_heads` views of the same width."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.queries_keys_values = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        B, N, D = x_BND.shape
        split_BN3HW = self.queries_keys_values(x_BND).view(B, N, 3, self.num_heads, D // self.num_heads)
        queries_BHNW, keys_BHNW, values_BHNW = split_BN3HW.permute(2, 0, 3, 1, 4)
        seen_BHNW = functional.scaled_dot_product_attention(queries_BHNW, keys_BHNW, values_BHNW)
        return self.output(seen_BHNW.transpose(1, 2).reshape(B, N, D))


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and beside a skip connection."""

    def __init__(self, network: Vit):
        super().__init__()
        width, inner = network.width, network.mlp_ratio * network.width
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, network.num_heads)
        self.dropout = dropout(network.dropout)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            Linear(width, inner), nn.GELU(), dropout(network.dropout), Linear(inner, width), dropout(network.dropout)
        )

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        x_BND = x_BND + self.dropout(self.attention(self.norm1(x_BND)))
        return x_BND + self.perceptron(self.norm2(x_BND))


class VisionTransformer(nn.Module):
    """`stem` and `positions`, `blocks` and `head`, as the rows of `layer_table` have them."""

    def __init__(self, network: Vit, *, resolution: int, channels: int, classes: int):
        super().__init__()
        width = network.width
        self.stem = PatchEmbedding(channels, width, network.patch)
        self.positions = nn.Parameter(torch.empty(1, network.num_patches(resolution), width))
        self.dropout = dropout(network.dropout)
        self.blocks = nn.Sequential(*(TransformerBlock(network) for _ in range(network.num_blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = Classifier(width, classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        initialise(self, "transformer")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        patches_BND = self.stem(x_BCHW).flatten(2).transpose(1, 2)
        x_BND = self.blocks(self.dropout(patches_BND + self.positions))
        return self.head(self.norm(x_BND).mean(1))
