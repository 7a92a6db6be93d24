"""PyTorch: the backend, and modules and functions of yours as native models."""

from gdcompare_torch.backend import TorchBackend
from gdcompare_torch.models import TorchFunction, TorchModule, from_autograd_function, from_function, from_module

__all__ = ["TorchBackend", "TorchFunction", "TorchModule", "from_autograd_function", "from_function", "from_module"]
