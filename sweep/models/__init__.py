"""Networks as torch modules: `build` makes one from its description, `count` weighs any module by hooks."""

from sweep.models.anynet import AnyNet
from sweep.models.build import build
from sweep.models.count import count

__all__ = ["AnyNet", "build", "count"]
