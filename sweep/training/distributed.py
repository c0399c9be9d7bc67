"""Several workers train one network as if they were one: what each contributes to a batch.

In: a worker's rank, and a process group that is open already (gloo on CPUs, nccl on GPUs). Out: its part of each
global batch, the weight of its loss, and a network whose gradients and batch statistics are those of the global batch.

The rule: the global batch is that of the recipe whatever the number of workers, so the learning rate is too. Order,
flips and shifts are drawn for the whole batch, the same on every worker, and then sliced: W workers see the very
images that one worker sees, and differ from it by rounding alone.
"""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Share:
    """Worker `rank` of `num_workers`. Alone, every method answers what it was given."""

    rank: int = 0
    num_workers: int = 1

    def part(self, batch_size: int) -> slice:
        """This worker's part of a global batch; sizes differ by at most one image."""
        bounds = [worker * batch_size // self.num_workers for worker in (self.rank, self.rank + 1)]
        return slice(*bounds)

    def weight(self, batch_size: int) -> float:
        """What this worker's mean loss counts. Gradients are averaged over workers: with this weight their average
        is the gradient of the mean over the global batch, also where the parts are unequal."""
        part = self.part(batch_size)
        return (part.stop - part.start) * self.num_workers / batch_size

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over workers, without its gradient."""
        value = value.detach()
        if self.num_workers == 1:
            return value
        return _of_all_workers(value).mean(0)

    def synchronised(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with batch norms over the global batch; parameters and their names stay what they are."""
        if self.num_workers == 1:
            return network
        if device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)
        _replace_norms(network)
        return network

    def replica(self, network: nn.Module, device: torch.device) -> nn.Module:
        """What to call in training: the network itself, or one that averages gradients over the workers."""
        if self.num_workers == 1:
            return network
        cards = [device] if device.type == "cuda" else None
        # Buffers need no broadcast: synchronised batch norms compute the same running statistics everywhere.
        renamed = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # in newer versions of torch
        without: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        return DistributedDataParallel(network, device_ids=cards, **without)

    def agree(self, value: int, what: str) -> None:
        """Raises `RuntimeError` unless all workers have the same value: they would wait for each other for ever."""
        if self.num_workers == 1:
            return
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        values = _of_all_workers(torch.tensor(value, device=device)).tolist()
        if len(set(values)) > 1:
            raise RuntimeError(f"workers disagree on {what}: {', '.join(map(str, values))}")


ALONE = Share()


def _of_all_workers(value: Tensor) -> Tensor:
    """What each worker has, stacked in the order of ranks. For small tensors: gloo gathers them in a third of the time
    of its sum, and what is computed from them is the same on every worker to the last bit."""
    gathered = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, value)
    return torch.stack(gathered)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all workers, on a CPU (torch's `SyncBatchNorm` wants a GPU)."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        mean_C, var_C, num = _global_statistics(x_BCHW.to(self.weight.dtype))
        with torch.no_grad():
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(var_C * num / (num - 1), self.momentum)
            self.num_batches_tracked += 1
        return _Normalise.apply(x_BCHW, self.weight, self.bias, mean_C, var_C, num, self.eps)  # type: ignore[no-any-return]


class GlobalBatchNorm1d(GlobalBatchNorm2d):
    """The same of features (B, C): an image of one pixel each."""

    def forward(self, x_BC: Tensor) -> Tensor:
        return super().forward(x_BC[:, :, None, None])[:, :, 0, 0]


@torch.no_grad()
def _global_statistics(x_BCHW: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and variance over all workers, and the number of values that they are of.

    Merged from each worker's own mean and variance: sums of squares would lose digits.
    """
    var_C, mean_C = torch.var_mean(x_BCHW, dim=(0, 2, 3), correction=0)
    own = torch.cat([mean_C, var_C, mean_C.new_tensor([x_BCHW.numel() / len(mean_C)])])
    means_WC, vars_WC, nums_W1 = _of_all_workers(own).split([len(mean_C), len(mean_C), 1], dim=1)
    shares_W1 = nums_W1 / nums_W1.sum()
    global_mean_C = (shares_W1 * means_WC).sum(0)
    global_var_C = (shares_W1 * (vars_WC + (means_WC - global_mean_C) ** 2)).sum(0)
    return global_mean_C, global_var_C, nums_W1.sum().item()


class _Normalise(torch.autograd.Function):
    """Batch norm by given statistics, with the gradient that also flows through them, on every worker's images."""

    @staticmethod
    def forward(ctx, x_BCHW, weight_C, bias_C, mean_C, var_C, num, eps) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x_BCHW, weight_C, mean_C, torch.rsqrt(var_C + eps))
        ctx.num = num
        return functional.batch_norm(x_BCHW, mean_C, var_C, weight_C, bias_C, training=False, eps=eps)

    @staticmethod
    def backward(ctx, gradient_BCHW):  # type: ignore[override]
        x_BCHW, weight_C, mean_C, inverse_std_C = ctx.saved_tensors
        gradient_BCHW = gradient_BCHW.to(mean_C.dtype)
        normal_BCHW = (x_BCHW.to(mean_C.dtype) - mean_C[:, None, None]) * inverse_std_C[:, None, None]
        own_2C = torch.stack([gradient_BCHW.sum((0, 2, 3)), (gradient_BCHW * normal_BCHW).sum((0, 2, 3))])
        mean_2C = _of_all_workers(own_2C).sum(0) / ctx.num
        centred_BCHW = gradient_BCHW - mean_2C[0, :, None, None] - normal_BCHW * mean_2C[1, :, None, None]
        to_x_BCHW = centred_BCHW * (weight_C * inverse_std_C)[:, None, None]
        return to_x_BCHW.to(x_BCHW.dtype), own_2C[1], own_2C[0], None, None, None, None


def _replace_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            kind = GlobalBatchNorm1d if isinstance(child, nn.BatchNorm1d) else GlobalBatchNorm2d
            norm = kind(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            norm.to(child.weight.device, child.weight.dtype).load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            _replace_norms(child)
