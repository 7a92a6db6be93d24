"""Which products of torch round their factors to TF32: on CUDA devices, where torch's switches let them."""

from __future__ import annotations

from typing import Any

import torch

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot"}
CONVOLUTIONS = {"convolution", "convolution_backward"}


def rounds_factors(name: str, given: list[torch.Tensor]) -> bool:
    """Whether an operation may round the numbers that it multiplies."""
    if name not in PRODUCTS | CONVOLUTIONS or not any(on_cuda(each) and each.dtype == torch.float32 for each in given):
        return False
    switch: Any = torch.backends.cudnn if name in CONVOLUTIONS else torch.backends.cuda.matmul
    return bool(switch.allow_tf32)


def on_cuda(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies on a device that has such cores."""
    return bool(tensor.is_cuda)
