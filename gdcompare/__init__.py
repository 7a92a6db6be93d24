"""One gradient-descent algorithm, three ways to differentiate it, and the proof that they agree."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "Blocks",
    "Comparison",
    "Dataset",
    "Descent",
    "Entry",
    "Explanation",
    "Native",
    "Operation",
    "Problem",
    "Proof",
    "Report",
    "Training",
    "attainable_digits",
    "backend_names",
    "check_backend",
    "check_batch_laws",
    "compare",
    "compare_training",
    "datasets",
    "descend",
    "distributed",
    "from_backward",
    "from_functions",
    "hessian",
    "hvp",
    "jvp",
    "load_backend",
    "load_problem",
    "per_sample_grad",
    "pictures",
    "problem_names",
    "prove",
    "report_page",
    "rules",
    "value_and_grad",
    "variant_names",
    "verify",
    "verify_rule",
    "walk_through",
    "with_formula",
]

if TYPE_CHECKING:
    from gdcompare import data as datasets
    from gdcompare import distributed
    from gdcompare.authoring.conformance import check_backend
    from gdcompare.backend import Backend, BackendUnavailableError
    from gdcompare.data.blocks import Blocks
    from gdcompare.descent import rules
    from gdcompare.descent.loop import descend
    from gdcompare.descent.record import Descent
    from gdcompare.explain.proof import Proof, prove
    from gdcompare.explain.walk import Explanation, walk_through
    from gdcompare.gradients import hessian, hvp, jvp, per_sample_grad, value_and_grad
    from gdcompare.models.compare import compare
    from gdcompare.models.comparison import Comparison, Training
    from gdcompare.models.functions import from_backward, from_functions
    from gdcompare.models.native import Native
    from gdcompare.models.training import compare_training
    from gdcompare.problem import Dataset, Problem
    from gdcompare.problems.operation import Operation
    from gdcompare.referee.attainable import attainable_digits
    from gdcompare.referee.formula import with_formula
    from gdcompare.referee.laws import check_batch_laws
    from gdcompare.referee.update_rules import verify_rule
    from gdcompare.referee.verdict import Entry, Report
    from gdcompare.referee.verify import verify
    from gdcompare.registry import backend_names, load_backend, load_problem, problem_names, variant_names
    from gdcompare.report import pictures
    from gdcompare.report.page import report_page
else:
    # The same names, imported when first asked for (PEP 562): every pytest run here loads the plugin, and so this file.
    _MODULES = {
        "datasets": "data",
        "distributed": "distributed",
        "pictures": "report.pictures",
        "rules": "descent.rules",
    }
    _HOMES = {
        "authoring.conformance": ["check_backend"],
        "backend": ["Backend", "BackendUnavailableError"],
        "data.blocks": ["Blocks"],
        "descent.loop": ["descend"],
        "descent.record": ["Descent"],
        "explain.proof": ["Proof", "prove"],
        "explain.walk": ["Explanation", "walk_through"],
        "gradients": ["hessian", "hvp", "jvp", "per_sample_grad", "value_and_grad"],
        "models.compare": ["compare"],
        "models.comparison": ["Comparison", "Training"],
        "models.functions": ["from_backward", "from_functions"],
        "models.native": ["Native"],
        "models.training": ["compare_training"],
        "problem": ["Dataset", "Problem"],
        "problems.operation": ["Operation"],
        "referee.attainable": ["attainable_digits"],
        "referee.formula": ["with_formula"],
        "referee.laws": ["check_batch_laws"],
        "referee.update_rules": ["verify_rule"],
        "referee.verdict": ["Entry", "Report"],
        "referee.verify": ["verify"],
        "registry": [
            "backend_names",
            "load_backend",
            "load_problem",
            "problem_names",
            "variant_names",
        ],
        "report.page": ["report_page"],
    }
    _HOME = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _MODULES:
            found = import_module(f"{__name__}.{_MODULES[name]}")
        else:
            found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *__all__})

    class _Moved(ModuleType):
        """What programs import by the path that it had in 0.1: its names are those of the module's new home."""

        def __getattr__(self, name):
            return getattr(import_module(f"{__package__}.{_MOVED[self.__name__.rpartition('.')[2]]}"), name)

    _MOVED = {
        "conformance": "authoring.conformance",
        "datasets": "data",
        "formula_check": "arithmetic.formula_check",
        "rules": "descent.rules",
    }
    sys.modules.update({f"{__name__}.{old}": _Moved(f"{__name__}.{old}") for old in _MOVED})
