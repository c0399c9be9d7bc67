"""AnyNet in evaluation once more, from the text of parts.py alone: plain functions over a state dict (import as
`models.reference`). What the modules answer is compared with it.
"""

import torch
from torch.nn import functional as F

_ACTIVATE = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Reference:
    def __init__(self, architecture, state):
        self.parts, self.stages, self.state = architecture, architecture.stages, state
        self.activate = _ACTIVATE[architecture.activation]

    def conv(self, name, x_BCHW, stride=1, groups=1):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return F.conv2d(x_BCHW, weight, bias, stride, weight.shape[2] // 2, groups=groups)

    def norm(self, name, x_BCHW):
        kind, channels = self.parts.norm, x_BCHW.shape[1]
        if kind == "none":
            return x_BCHW
        tensors = {key: self.state.get(f"{name}.{key}") for key in ("weight", "bias", "running_mean", "running_var")}
        if kind == "batch":
            return F.batch_norm(
                x_BCHW, tensors["running_mean"], tensors["running_var"], tensors["weight"], tensors["bias"]
            )
        divisors = [groups for groups in range(2, 33) if channels % groups == 0 and channels // groups >= 4]
        groups = max(divisors, default=1) if kind == "group" else 1
        return F.group_norm(x_BCHW, groups, tensors["weight"], tensors["bias"])

    def normed(self, name, x_BCHW):
        return self.activate(self.norm(name, x_BCHW))

    def gated(self, name, x_BCHW):
        if not self.parts.se_ratio:
            return x_BCHW
        squeezed = self.activate(self.conv(f"{name}.squeeze", x_BCHW.mean((2, 3), keepdim=True)))
        return x_BCHW * torch.sigmoid(self.conv(f"{name}.excite", squeezed))

    def block(self, name, x_BCHW, stage, stride):
        is_pre, is_basic = self.parts.activation_order == "pre", self.parts.block == "basic"
        given = [(stride, 1), (1, 1)] if is_basic else [(1, 1), (stride, stage.num_groups), (1, 1)]
        y_BCHW = activated = self.normed(f"{name}.norm1", x_BCHW) if is_pre else x_BCHW
        for number, (step, groups) in enumerate(given, start=1):
            is_last = number == len(given)
            if is_pre and number > 1:
                y_BCHW = self.normed(f"{name}.norm{number}", y_BCHW)
            if is_last:
                y_BCHW = self.gated(f"{name}.se", y_BCHW)
            y_BCHW = self.conv(f"{name}.conv{number}", y_BCHW, step, groups)
            if not is_pre:
                y_BCHW = self.norm(f"{name}.norm{number}", y_BCHW)
                y_BCHW = y_BCHW if is_last else self.activate(y_BCHW)
        if stride == 2 or x_BCHW.shape[1] != stage.width:
            x_BCHW = self.conv(f"{name}.skip.0", activated, stride)
            x_BCHW = x_BCHW if is_pre else self.norm(f"{name}.skip.1", x_BCHW)
        return x_BCHW + y_BCHW if is_pre else self.activate(x_BCHW + y_BCHW)

    def __call__(self, x_BCHW):
        stride = self.parts.stem_stride
        if self.parts.stem_order == "pre":
            x_BCHW = self.conv("stem.2", self.normed("stem.0", x_BCHW), stride)
        else:
            x_BCHW = self.normed("stem.1", self.conv("stem.0", x_BCHW, stride))
        if self.parts.stem_pool:
            x_BCHW = F.max_pool2d(x_BCHW, 3, 2, 1)
        pools = self.parts.downsampling == "pool"
        for index, stage in enumerate(self.stages):
            x_BCHW = F.max_pool2d(x_BCHW, 2, ceil_mode=True) if pools else x_BCHW
            for position in range(stage.depth):
                stride = 2 if position == 0 and not pools else 1
                x_BCHW = self.block(f"stages.{index}.blocks.{position}", x_BCHW, stage, stride)
        x_BCHW = self.normed("head.norm", x_BCHW) if self.parts.activation_order == "pre" else x_BCHW
        return F.linear(x_BCHW.mean((2, 3)), self.state["head.2.weight"], self.state["head.2.bias"])


@torch.no_grad()
def shaken(network):
    """The network with every norm's scale, shift and statistics drawn, so that none is like another."""
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5) if "var" in name or "weight" in name else tensor.uniform_(-0.5, 0.5)
    return network
