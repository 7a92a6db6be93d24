"""PyTorch: the backend, and modules and functions of yours as native models."""

from gdcompare_torch.backend import TorchBackend
from gdcompare_torch.models import TorchFunction, TorchModule, from_autograd_function, from_function, from_module
from gdcompare_torch.optimizers import from_optimizer

__all__ = [
    "TorchBackend",
    "TorchFunction",
    "TorchModule",
    "from_autograd_function",
    "from_function",
    "from_module",
    "from_optimizer",
]
