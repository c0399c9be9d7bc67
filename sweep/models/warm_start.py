"""A larger AnyNet that starts from the weights of a smaller one.

In: two architectures with the same parts, the second at least as deep and wide in each stage, and the weights of the
first. Out: weights for the second, and how many of its tensors were taken over.

The larger network is drawn afresh from torch's current random state; then

* the small one's values fill the leading channels of every tensor that both have. In a grouped convolution two channels
  that are connected in both networks keep their connection, also where groups become wider;
* what only the larger one has stays as drawn: new channels, a projection that the small one did not need;
* the blocks that a stage has more than the small one's begin as zero beside their skip connection (`Block.zero`). With
  pre-activation, or with ReLU, which does not change what is positive already, such a block hands on just what it is
  given: a network that is only deeper begins with the very logits of the small one. Otherwise deepening is refused;
* the head is fresh where the classes differ, and what sees the image where its channels do.

A wider network only begins near the small one: old channels see new ones, which are fresh.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sweep.models.anynet import AnyNet
from sweep.models.fitting import check_state, num_classes, shapes_of
from sweep.spaces import Architecture
from sweep.spaces.checks import refusal

_FREE_PARTS = ("stem_width", "dropout", "stochastic_depth", "initialisation")


@dataclass(frozen=True)
class WarmStart:
    """`state` is a state dict of the larger network. The counts are of its tensors: equal to the small one's, in part
    so, and left as they were drawn.
    """

    state: dict[str, Tensor]
    num_whole: int
    num_part: int
    num_fresh: int


@torch.no_grad()
def widen_or_deepen(
    small: Architecture, state: Mapping[str, Tensor], large: Architecture, *, channels: int = 3, classes: int = 1000
) -> WarmStart:
    """`state` is that of `small`, whatever its channels and classes; `channels` and `classes` are the new network's.

    Raises ValueError naming the field in which `large` is not `small` made larger, or the tensor that does not fit.
    """
    _check_larger(small, large)
    own = _own_shapes(small, state)
    check_state(state, own)
    wanted = shapes_of(small, channels=channels, classes=classes)
    network = AnyNet(large, channels=channels, classes=classes)
    _begin_as_identity(network, small)
    fresh = network.state_dict()
    num_whole = num_part = 0
    for name, tensor in fresh.items():
        if name not in state or own[name] != wanted[name]:
            continue
        _take(tensor, state[name], grouped=small.block == "bottleneck" and name.endswith(".conv2.weight"))
        whole = tensor.shape == state[name].shape
        num_whole, num_part = num_whole + whole, num_part + (not whole)
    return WarmStart(dict(fresh), num_whole, num_part, len(fresh) - num_whole - num_part)


def _check_larger(small: Architecture, large: Architecture) -> None:
    theirs = large.parts()
    for part, value in small.parts().items():
        if part not in _FREE_PARTS and theirs[part] != value:
            raise refusal(part, theirs[part], f"is not the small network's {value!r}", "keep what is no width or depth")
    if len(large.stages) != len(small.stages):
        raise refusal(
            "stages", len(large.stages), f"is not the small network's {len(small.stages)}", "keep their number"
        )
    sizes = [("stem_width", small.stem_width, large.stem_width)]
    for index, (old, new) in enumerate(zip(small.stages, large.stages)):
        for field in ("depth", "width", "bottleneck_width"):
            sizes.append((f"stages[{index}]: {field}", getattr(old, field), getattr(new, field)))
    for field, before, after in sizes:
        if after < before:
            raise refusal(field, after, f"is less than the small network's {before}", "make it that or more")
    _check_deeper(small, large)


def _check_deeper(small: Architecture, large: Architecture) -> None:
    if large.depths == small.depths or small.activation_order == "pre":
        return
    if small.activation != "relu":
        raise refusal(
            "activation", small.activation, "changes what an added block hands on", "use relu, or keep the depths"
        )
    if small.norm == "none":
        raise refusal(
            "norm", small.norm, "leaves no scale to begin an added block at zero", "use one, or keep the depths"
        )


def _own_shapes(small: Architecture, state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Those that the small network's state must have, for its own channels and classes."""
    first = state.get("stem.0.weight" if small.stem_order == "post" else "stem.2.weight")
    channels = first.shape[1] if first is not None and first.dim() == 4 else 1
    return shapes_of(small, channels=channels, classes=num_classes(state, "head.2.bias"))


def _begin_as_identity(network: AnyNet, small: Architecture) -> None:
    for depth, blocks in zip(small.depths, network.blocks()):
        for block in blocks[depth:]:
            block.zero()


def _take(tensor: Tensor, source: Tensor, *, grouped: bool) -> None:
    """Write the overlap into `tensor`."""
    if not grouped:
        tensor[tuple(slice(size) for size in source.shape)] = source
        return
    group_width, source_width = tensor.shape[1], source.shape[1]
    for channel in range(len(source)):
        # The input channels that this output channel sees, here and there.
        start, source_start = channel // group_width * group_width, channel // source_width * source_width
        low, high = max(start, source_start), min(start + group_width, source_start + source_width)
        tensor[channel, low - start : high - start] = source[channel, low - source_start : high - source_start]
