"""One gradient-descent algorithm, three ways to differentiate it, and the proof that they agree."""

from gdcompare import datasets, rules
from gdcompare.backend import Backend
from gdcompare.descent import Descent, descend
from gdcompare.gradients import per_sample_grad, value_and_grad
from gdcompare.laws import check_batch_laws
from gdcompare.problem import Dataset, Problem
from gdcompare.referee.verdict import Entry, Report
from gdcompare.referee.verify import verify
from gdcompare.registry import BackendUnavailableError, backend_names, load_backend, load_problem, problem_names

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "Dataset",
    "Descent",
    "Entry",
    "Problem",
    "Report",
    "backend_names",
    "check_batch_laws",
    "datasets",
    "descend",
    "load_backend",
    "load_problem",
    "per_sample_grad",
    "problem_names",
    "rules",
    "value_and_grad",
    "verify",
]
