"""What a module costs, counted by watching a forward pass: the independent check of the closed form.

In: any module of convolutions, linear layers and our attention, and the size of its images. Out: a `Complexity`,
counted as pycls counts (see sweep.spaces.cost). The pass runs on torch's meta device: shapes only, no arithmetic, no
memory, and the module stays as it was.
"""

from itertools import chain
from typing import Any

import torch
from torch import nn

from sweep.models.vit import SelfAttention
from sweep.spaces.cost import Complexity

_COUNTED = (nn.Conv2d, nn.Linear, nn.MaxPool2d, SelfAttention)


def count(module: nn.Module, resolution: int, channels: int) -> Complexity:
    """Multiply-adds, parameters and activations for one image of `channels` × `resolution` × `resolution` pixels."""
    totals = {"flops": 0, "activations": 0}

    def watch(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        num_outputs = output[0].numel()
        if isinstance(layer, SelfAttention):  # queries times keys, and that times values; its linear layers tell theirs
            totals["flops"] += 2 * output.shape[1] * num_outputs
            return
        totals["activations"] += num_outputs
        if isinstance(layer, nn.Conv2d | nn.Linear):
            per_output = layer.weight[0].numel() + (layer.bias is not None)
            totals["flops"] += num_outputs * per_output

    watched = [layer for layer in module.modules() if isinstance(layer, _COUNTED)]
    handles = [layer.register_forward_hook(watch) for layer in watched]
    state = {name: tensor.to("meta") for name, tensor in chain(module.named_parameters(), module.named_buffers())}
    # Two images: batch norm in training mode refuses a single one at 1×1 pixels.
    images = torch.empty(2, channels, resolution, resolution, device="meta")
    try:
        with torch.no_grad():
            torch.func.functional_call(module, state, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return Complexity(params=sum(p.numel() for p in module.parameters()), **totals)
