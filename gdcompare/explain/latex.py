"""Formulas in LaTeX, whatever the names in them are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import sympy

from gdcompare.arithmetic.symbols import Condition
from gdcompare.explain.decision import Domain, cases

MOST_CASES = 6
"""A formula with more is written with brackets that are 0 or 1."""

_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
}  # fmt: skip
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "^": r"\textasciicircum{}", "#": r"\#", "$": r"\$",
    "%": r"\%", "&": r"\&", "~": r"\textasciitilde{}",
}  # fmt: skip


def escaped(name: str) -> str:
    r"""Return a name as text in a formula, every character of it itself.

    >>> print(escaped("50%_{x}"))
    \text{50\%\_\{x\}}
    """
    return rf"\text{{{''.join(_SPECIAL.get(each, each) for each in name)}}}"


def symbol(name: str) -> str:
    r"""Return the LaTeX of a symbol that is named as an element of an array: Greek and single letters as such.

    >>> print(symbol("theta_1[0]"), symbol("x[2,1]"), symbol("rate"), symbol("log_diagonals[0,1]"))
    \theta_{1,0} x_{2,1} \mathit{rate} \mathit{log\_diagonals}_{0,1}
    """
    root, _, index = name.partition("[")
    word, _, number = root.partition("_")
    subscripts = index.removesuffix("]").split(",") if index else []
    if (word in _GREEK or re.fullmatch("[A-Za-z]", word)) and re.fullmatch("[0-9]*", number):
        written, subscripts = rf"\{word}" if word in _GREEK else word, [*([number] if number else []), *subscripts]
    elif re.fullmatch("[A-Za-z]+(_[A-Za-z0-9]+)*", root):
        written = rf"\mathit{{{root.replace('_', chr(92) + '_')}}}"
    else:
        written = escaped(root)
    return written + (f"_{{{','.join(subscripts)}}}" if subscripts else "")


def formula(x: Any, domain: Domain | None = None) -> str:
    r"""Return an expression in LaTeX: on either side of its kinks, or if there are many, with c_1, c_2, ... for them.

    >>> theta = sympy.Symbol("theta_0", real=True)
    >>> print(formula(sympy.log(1 + sympy.exp(theta)) / 2))
    \frac{\log{\left(e^{\theta_{0}} + 1 \right)}}{2}
    """
    conditions = domain.conditions if domain else {}
    parts = cases(x, domain, MOST_CASES) if domain and x.free_symbols & set(conditions) else None
    if not parts:
        return _plain(x, conditions)
    lines = (rf"{_plain(part, {})} & {_sides(sizes)}" for sizes, part in parts)
    return r"\begin{cases} " + r" \\ ".join(lines) + r" \end{cases}"


def brackets(written: str, domain: Domain) -> list[tuple[str, str]]:
    """Return what the c_1, c_2, ... in formulas mean, those that occur, as lines: Iverson's brackets, 1 or 0."""
    told = [(f"c_{{{i}}}", c) for i, c in enumerate(domain.conditions, start=1)]
    meant = {name: (domain.conditions[c].size, _relation(c)) for name, c in told}
    lines: dict[str, str] = {}
    todo = [name for name in meant if name in written]
    for name in todo:
        size, relation = meant[name]
        lines[name] = rf"\left[{_plain(size, domain.conditions)} {relation} 0\right]"
        todo += [other for other in meant if other in lines[name] and other not in todo]
    return list(lines.items())


def _sides(sizes: Iterable[tuple[Any, str]]) -> str:
    return r",\ ".join(f"{_plain(size, {})} {relation} 0" for size, relation in sizes)


def _plain(x: Any, conditions: Mapping[Any, Condition]) -> str:
    x = x.replace(lambda each: each.is_Pow and each.base in conditions and each.exp.is_Integer, lambda each: each.base)
    names = {each: symbol(each.name) for each in x.free_symbols}
    names |= {c: f"c_{{{i}}}" for i, c in enumerate(conditions, start=1)}
    return str(sympy.latex(x, symbol_names=names))


def _relation(c: Any) -> str:
    return str(c.name.removesuffix(" 0]").rpartition(" ")[2].replace(">=", r"\ge"))


def aligned(lines: Iterable[tuple[str, str]]) -> str:
    """Return `left = right` lines as an `align*` environment."""
    body = " \\\\\n".join(f"  {left} &= {right}" for left, right in lines)
    return f"\\begin{{align*}}\n{body}\n\\end{{align*}}"
