"""PyTorch: the backend, and modules and functions of yours as native models."""

from gdcompare_torch.backend import TorchBackend
from gdcompare_torch.models import TorchModule, from_autograd_function, from_module

__all__ = ["TorchBackend", "TorchModule", "from_autograd_function", "from_module"]
