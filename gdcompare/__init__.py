"""One gradient-descent algorithm, three ways to differentiate it, and the proof that they agree."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "Comparison",
    "Dataset",
    "Descent",
    "Entry",
    "Native",
    "Operation",
    "Problem",
    "Report",
    "Training",
    "backend_names",
    "check_batch_laws",
    "compare",
    "compare_training",
    "datasets",
    "descend",
    "from_functions",
    "hessian",
    "hvp",
    "jvp",
    "load_backend",
    "load_problem",
    "per_sample_grad",
    "problem_names",
    "rules",
    "value_and_grad",
    "verify",
]

if TYPE_CHECKING:
    from gdcompare import datasets, rules
    from gdcompare.backend import Backend
    from gdcompare.comparison import Comparison, Training, compare, compare_training
    from gdcompare.descent import Descent, descend
    from gdcompare.gradients import hessian, hvp, jvp, per_sample_grad, value_and_grad
    from gdcompare.laws import check_batch_laws
    from gdcompare.native import Native, from_functions
    from gdcompare.operation import Operation
    from gdcompare.problem import Dataset, Problem
    from gdcompare.referee.verdict import Entry, Report
    from gdcompare.referee.verify import verify
    from gdcompare.registry import BackendUnavailableError, backend_names, load_backend, load_problem, problem_names
else:
    # The same names, imported when first asked for (PEP 562): every pytest run here loads the plugin, and so this file.
    _HOMES = {
        "backend": ["Backend"],
        "comparison": ["Comparison", "Training", "compare", "compare_training"],
        "descent": ["Descent", "descend"],
        "gradients": ["hessian", "hvp", "jvp", "per_sample_grad", "value_and_grad"],
        "laws": ["check_batch_laws"],
        "native": ["Native", "from_functions"],
        "operation": ["Operation"],
        "problem": ["Dataset", "Problem"],
        "referee.verdict": ["Entry", "Report"],
        "referee.verify": ["verify"],
        "registry": ["BackendUnavailableError", "backend_names", "load_backend", "load_problem", "problem_names"],
    }
    _HOME = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name not in _HOME:
            return import_module(f"{__name__}.{name}")
        globals()[name] = found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
