"""Networks as torch modules: `build` makes one from an `Architecture`, `count` weighs any module by hooks."""

from sweep.models.anynet import AnyNet, build
from sweep.models.count import count

__all__ = ["AnyNet", "build", "count"]
