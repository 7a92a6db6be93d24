"""One gradient-descent algorithm, three ways to differentiate it, and the proof that they agree."""

from gdcompare.backend import Backend
from gdcompare.gradients import per_sample_grad, value_and_grad
from gdcompare.problem import Dataset, Problem
from gdcompare.registry import BackendUnavailableError, backend_names, load_backend, load_problem, problem_names

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "Dataset",
    "Problem",
    "backend_names",
    "load_backend",
    "load_problem",
    "per_sample_grad",
    "problem_names",
    "value_and_grad",
]
