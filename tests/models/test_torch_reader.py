"""What the reader of torch's programs knows, what it refuses, and what would notice if it read wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gdcompare as gdc
from gdcompare.arithmetic.program import ProgramError

torch: Any = pytest.importorskip("torch", reason="reads the programs of torch")

import gdcompare_torch  # noqa: E402 - torch may be missing
from gdcompare_torch.aten import FORMULAS  # noqa: E402
from gdcompare_torch.program import read  # noqa: E402
from torch._decomp import decomposition_table  # noqa: E402

from tests.models.torch_coverage import (  # noqa: E402
    FAILED,
    KINK,
    READ,
    REFUSED,
    TORCH,
    WRONG,
    Coverage,
    Found,
    Sample,
    coverage,
    differentiable,
    found,
    summary,
)

F: Any = torch.nn.functional
GENERATOR = np.random.default_rng(0)


def sample(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Sample:
    """The sum of what a function gives, times fixed numbers."""
    leaves = {f"x{i}": torch.tensor(GENERATOR.normal(size=shape)).requires_grad_() for i, shape in enumerate(shapes)}

    def loss(given: dict[str, Any]) -> Any:
        result = function(*given.values())
        parts = [each for each in (result if isinstance(result, tuple) else (result,)) if each.is_floating_point()]
        weights = np.random.default_rng(1)
        return sum((each * torch.tensor(weights.normal(size=tuple(each.shape)))).sum() for each in parts)

    return Sample(loss, leaves)


INDEX = torch.tensor([2, 0, 2])
OPERATIONS: dict[str, tuple[Any, ...]] = {
    "as_strided": (lambda x: (2 * x).as_strided((2, 2), (1, 2), 1), (3, 3)),
    "a view written through": (lambda x: _written(x), (3, 3)),
    "detached memory": (lambda x: _written_behind(x), (3,)),
    "written over, unrecorded": (lambda x: _unrecorded(x), (3, 2)),
    "clamped, unrecorded": (lambda x, y: F.gaussian_nll_loss(x, torch.ones(3).double(), y**2 * 1e-7), (3,), (3,)),
    "index_put": (lambda x, y: x.index_put((INDEX,), y, accumulate=True), (3, 2), (3, 2)),
    "scatter_reduce": (lambda x, y: x.scatter_reduce(0, INDEX[:, None].expand(3, 2), y, "prod"), (3, 2), (3, 2)),
    "embedding_bag": (lambda x: F.embedding_bag(INDEX, x, torch.tensor([0, 1]), mode="max"), (3, 2)),
    "ceil_mode": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), (1, 1, 5, 5)),
    "padding not counted": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), (1, 1, 5, 5)),
    "adaptive": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), (1, 1, 5, 5)),
    "unpooled": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (1, 1, 4, 4)),
    "where the largest is": (lambda x: x.gather(1, (x**2).max(1, keepdim=True)[1]), (3, 4)),
    "where a mask holds": (lambda x: x[x > 0] * x[(x > 0).any(1), 1].sum() * x[torch.nonzero(x > 0)[0]].sum(), (3, 4)),
    "the different labels": (lambda x: sum((x[(x > 0).sum(1) == k] ** 2).sum() * (k + 1)
                                           for k in torch.unique((x > 0).sum(1))), (3, 4)),
    "masked by a column, selected": (lambda x: x[x[:, 0] > 0, 1:] * x.masked_select(x[0] > 0).sum(), (3, 4)),
    "written where a mask holds": (lambda x: _masked(x), (3, 4)),
    "a distribution": (lambda x, y: torch.distributions.Normal(x, y.exp()).log_prob(y), (3,), (3,)),
    "a distribution of vectors": (lambda x, a: _many_normals(x, a), (4, 3), (3, 3)),
    "counts": (lambda x: x.sum() / (x > 0).sum().item() * x[:, : int(x.argmax()) + 1].sum(), (3, 4)),
    "packed": (lambda x: _packed(x, torch.tensor([4, 2])), (2, 4, 3)),
    "packed by lengths that enter": (lambda x: _packed(x, (x[:, :, 0] > -1).sum(1)), (3, 4, 3)),
    "added where an index says that enters": (
        lambda x, y: y.index_add(0, x.argsort(0)[:, 0], x.sin()) * y.index_copy(0, x.argsort(0)[:, 1], x.cos()),
        (3, 3), (3, 3)),
    "reduced where an index says that enters": (
        lambda x, y: y.scatter_reduce(0, x.argsort(0)[:1].expand(3, 3), x, "mean").index_fill(0, x.argmin(0)[:1], 3.0),
        (3, 3), (3, 3)),
    "bits of whole numbers that enter": (
        lambda x: x[(x.argmax(0) ^ 1) % 3] * x[(~x.argmax(1) & 6) >> 1] * x[torch.bincount(x.argmax(1)) % 3].sum(),
        (3, 3)),
    "a constant taken apart": (lambda x: x @ torch.linalg.cholesky(2 * torch.eye(3).double() + 1), (2, 3)),
    "written into out": (lambda x: _into(x), (3,)),
    "of a single number": (lambda x: x.sum().cumsum(0) * x.sum().prod(0) + x.sum().cumprod(-1), (3,)),
    "median": (lambda x: x.median(0)[0] + x.kthvalue(2, 0)[0] + x.topk(2, 0)[0].sum(0), (4, 3)),
    "running": (lambda x: x.cummax(0)[0] + x.logcumsumexp(0) + x.cumprod(0), (4, 3)),
    "solve": (lambda a, b: torch.linalg.solve(a, b), (3, 3), (3, 2)),
    "det": (lambda a: torch.linalg.det(a) + torch.linalg.slogdet(a)[1], (3, 3)),
    "cholesky": (lambda a: torch.linalg.cholesky(a @ a.mT + torch.eye(3)), (3, 3)),
    "lu": (lambda a: torch.linalg.lu(a)[1:], (4, 3)),
    "qr": (lambda a: torch.linalg.qr(a), (3, 4)),
    "eigh": (lambda a: torch.linalg.eigvalsh(a + a.mT), (3, 3)),
    "svd": (lambda a: torch.linalg.svdvals(a) + torch.linalg.matrix_norm(a, "nuc"), (3, 4)),
    "pinv of less than full rank": (lambda a, b: torch.linalg.pinv(a @ b), (4, 2), (2, 3)),
    "matrix_exp": (lambda a: torch.linalg.matrix_exp(a), (3, 3)),
    "cdist": (lambda x, y: torch.cdist(x, y), (3, 2), (4, 2)),
    "cdist of rows from themselves": (lambda x, y: torch.cdist(x / y, x / y), (2, 4, 3), (3,)),
    "lgamma below 0": (lambda x: torch.lgamma(x - 3) + torch.polygamma(1, x - 3), (4,)),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=False),
                    (1, 1, 3, 3), (1, 2, 2, 2)),
    "volumes": (lambda x, g: F.grid_sample(x, g, align_corners=True), (1, 1, 3, 3, 3), (1, 2, 1, 2, 3)),
    "ctc": (lambda x: F.ctc_loss(x.log_softmax(-1), torch.tensor([[1, 1, 2]]), (6,), (3,)), (6, 1, 3)),
    "a gradient in the loss": (lambda x: _slope(x) * x, (3, 2)),
    "a gradient of a gradient in the loss": (lambda x: _slope(x, _slope) * x, (3, 2)),
    "a gradient of a convolution": (lambda x, w: _slopes(F.conv2d, x, w, x[0, 0, 0, :4], (2, 1), 1, (1, 2), 2),
                                    (2, 4, 6, 5), (4, 2, 3, 2)),
    "a gradient of a transposed convolution": (
        lambda x, w: _slopes(F.conv_transpose2d, x, w, w[0, 0, 0], (2, 1), 1, (1, 0), 2, (3, 2)),
        (2, 4, 3, 2), (4, 1, 3, 2)),
    "a gradient of a convolution of lines": (lambda x, w: _slopes(F.conv1d, x, w, None, 3), (2, 2, 9), (3, 2, 2)),
    "a gradient of points between": (lambda x, g: _slopes(F.grid_sample, x, g, "bilinear", "reflection", False),
                                     (1, 2, 3, 3), (1, 2, 2, 2)),
    "a gradient in the loss that is a constant": (lambda x: _slope(x, create_graph=False) * torch.tanh(x), (3, 2)),
    "numbers without their past": (lambda x: torch.tanh(x).data * torch.tanh(x), (3,)),
    "forward mode in the loss": (lambda x, v: torch.func.jvp(lambda x: x.abs() ** 2.5, (x,), (v,)), (3,), (3,)),
    "a Hessian in the loss": (lambda x: torch.func.hessian(lambda x: torch.sigmoid(x).prod())(x), (3,)),
    "sums of none": (lambda x: F.linear_cross_entropy(x, torch.eye(3).double(), INDEX, reduction="none")
                     if hasattr(F, "linear_cross_entropy") else x, (3, 3)),
}  # fmt: skip


def _written(x: Any) -> Any:
    whole = x * 1
    whole.diagonal().mul_(3)
    whole[1:].t()[0] = whole[0, :2] * 2
    return whole


def _slope(x: Any, of: Callable[[Any], Any] = torch.tanh, create_graph: bool = True) -> Any:
    return torch.autograd.grad((of(x) ** 2).sum(), x, create_graph=create_graph)[0]


def _slopes(of: Callable[..., Any], x: Any, kernel: Any, *more: Any) -> Any:
    found = torch.autograd.grad((of(x, kernel, *more) ** 2).sum(), (x, kernel), create_graph=True)
    return sum((each**2).sum() for each in found)


def _many_normals(x: Any, a: Any) -> Any:
    lower = torch.tril(a, -1) + torch.diag(a.diagonal().exp())
    return torch.distributions.MultivariateNormal(torch.zeros(3).double(), scale_tril=lower).log_prob(x)


def _masked(x: Any) -> Any:
    whole = x**2
    whole[x < 0] = 0.5
    return whole * x


def _unrecorded(x: Any) -> Any:
    whole = 2 * x
    with torch.no_grad():
        whole.clamp_(min=0.5)
        whole[0] = 5.0
    return whole * x


def _packed(x: Any, lengths: Any) -> Any:
    rnn = torch.nn.utils.rnn
    held = rnn.pack_padded_sequence(2 * x, lengths, batch_first=True, enforce_sorted=False)
    return rnn.pad_packed_sequence(held._replace(data=held.data**2), batch_first=True, total_length=4)[0] * x


def _into(x: Any) -> Any:
    room = torch.zeros(3, dtype=x.dtype)
    with torch.no_grad():
        torch.div(x, x.norm(), out=room)
        torch.nn.functional.normalize(room + 1, dim=0, out=room)
    return x**2 * room


def _written_behind(x: Any) -> Any:
    whole = x * 1
    seen = whole.detach()
    whole.mul_(x)
    return whole * seen


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch's own forward mode
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_the_gradient_of_what_is_read_is_torchs(operation: tuple[Any, ...]) -> None:
    assert found(sample(*operation)) == Found(READ)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: F.dropout(x), "draws random numbers"),
        (
            lambda x: _slopes(
                F.grid_sample, x[None, None, None], x.view(1, 3, 1, 1).expand(1, 3, 1, 2), "bicubic", "zeros", True
            ),
            "grid_sampler_2d_backward cannot be read so: the interpolation is cubic",
        ),
        (lambda x: x * torch.unique(x.detach()), "which floats there are has no derivative"),
        (lambda x: x.index_put((INDEX,), x), "nobody says which is the last"),
        (lambda x: torch.linalg.det(x[:, None] * torch.zeros(3, 3)), "singular"),
        (lambda x: torch.linalg.eigvalsh(x[:, None] * x + torch.ones(3, 3).triu(1)), "not symmetric"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line_and_the_way_out(function: Any, said: str) -> None:
    case = sample(function, (3,))

    with pytest.raises(ProgramError, match=said) as error:
        read(case.loss, case.leaves, {}, "float64", "mine")

    assert "test_torch_reader.py:" in str(error.value)
    assert "Write that part otherwise" in str(error.value) or ".eval()" in str(error.value)


def test_a_complex_or_sparse_parameter_is_refused() -> None:
    for leaf, kind in ((torch.ones(2, dtype=torch.complex128), "complex"), (torch.eye(2).to_sparse(), "sparse")):
        with pytest.raises(ProgramError, match=f"'w' is {kind}. Give it as a plain array of real numbers"):
            read(lambda leaves: leaves["w"].sum().real, {"w": leaf}, {}, "float64", "mine")


# What would notice.


def test_a_wrong_formula_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sample(lambda x: torch.sinh(x), (3,))
    assert found(case).what == READ

    monkeypatch.setitem(FORMULAS, "sinh", lambda xp, x: xp.cosh(x))
    assert found(case).what == WRONG

    monkeypatch.setitem(FORMULAS, "sinh", lambda xp, x: xp.stop_gradient(xp.sinh(x)))  # the value is right
    assert found(case).what == WRONG

    monkeypatch.setitem(FORMULAS, "sinh", lambda xp, x: x.nothing)
    assert found(case).what == REFUSED


def test_a_decomposition_that_gives_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sample(lambda x: torch.special.log_ndtr(x), (3,))
    assert found(case).what == READ

    monkeypatch.setitem(decomposition_table, torch.ops.aten.special_log_ndtr.default, torch.tanh)
    assert "taken apart into others, which give something else" in found(case).reason


def test_kinks_and_wrong_gradients_of_torch_are_told_apart() -> None:
    class Halved(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, cotangent: Any) -> Any:
            return cotangent

    at_0 = {"x": torch.zeros(2, dtype=torch.float64, requires_grad=True)}

    assert found(sample(Halved.apply, (3,))).what == TORCH
    assert found(Sample(lambda leaves: leaves["x"].norm() + leaves["x"].abs().max(), at_0)).what in (KINK, READ)


def test_the_summary_counts_what_is_read_and_names_what_is_not() -> None:
    results = [
        Coverage("a", [Found(READ), Found(REFUSED, "dropout draws random numbers")]),
        Coverage("b", [Found(READ), Found(REFUSED, "b makes complex numbers")]),
        Coverage("c", [Found(READ), Found(WRONG, "the gradient differs")]),
        Coverage("d", [Found(FAILED, "IndexError: 3")]),
        Coverage("e"),
    ]

    said = summary(results)

    assert [each.what for each in results] == [READ, REFUSED, WRONG, FAILED, ""]
    assert "1 of 4 operations are read (25.0%; 33.3% of those without complex numbers)" in said
    assert "the gradient differs\n      c" in said


@pytest.mark.thorough
def test_of_every_tenth_of_torchs_own_operations_nine_in_ten_are_read_and_none_wrongly() -> None:
    """All of them take minutes: `python -m tests.models.torch_coverage`."""
    pytest.importorskip("expecttest", reason="torch's samples need it")

    results = [coverage(each, most=2) for each in differentiable([])[::10]]

    some = [each for each in results if each.found]
    assert not [str(each) for each in some if each.what in (WRONG, FAILED)]
    assert sum(each.what in (READ, TORCH) for each in some) >= 0.9 * len(some), summary(results)


class Again(torch.nn.Module):  # type: ignore[misc]
    """A part that is computed anew on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(2, 1)

    def forward(self, x: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        return checkpoint(lambda rows: torch.tanh(self.line(rows)) ** 2, x, use_reentrant=False)[:, 0]


@pytest.mark.thorough
def test_what_is_computed_anew_on_the_way_back_meets_the_parameters_that_are_judged() -> None:
    native = gdcompare_torch.from_module(Again(), F.mse_loss)
    elsewhere = {"line.weight": np.array([[0.5, -0.25]]), "line.bias": np.array([1.0])}
    data = np.array([[1.0, 2.0], [-0.5, 0.75]]), np.array([0.5, 1.0])

    assert gdc.verify(native, data, elsewhere).verdict == "agree"
    assert gdc.verify(native, data, elsewhere, dtype="float32").verdict == "agree"


def test_buffers_that_a_call_changes_are_each_time_as_they_were() -> None:
    module = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 1)).train()
    native = gdcompare_torch.from_module(module, lambda found, due: (found[:, 0] - due) ** 2)
    data = np.array([[1.0, 2.0], [-0.5, 0.75]]), np.array([0.5, 1.0])

    report = gdc.verify(native, data, dtype="float32")

    assert report.verdict == "agree"


@pytest.mark.thorough
@pytest.mark.parametrize("equal", [0.0, 1.0])
@pytest.mark.parametrize(
    "order",
    [
        lambda w: w.sort()[0],
        lambda w: w.topk(2)[0],
        lambda w: w.median().reshape(1),
        lambda w: w.nanmedian().reshape(1),
        lambda w: w.cummax(0)[0],
        lambda w: w.kthvalue(2)[0].reshape(1),
    ],
    ids=["sort", "topk", "median", "nanmedian", "cummax", "kthvalue"],
)
def test_where_all_are_equal_whatever_order_torch_takes_is_right(order: Any, equal: float) -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        found = order(p["w"])
        return (x[:, : len(found)] * found).sum(1)

    native = gdcompare_torch.from_function(loss, {"w": np.full(5, equal)}, name="ordered")

    report = gdc.verify(native, (np.array([[1.0, 2.0, -3.0, 4.0, 5.0]]), np.zeros(1)))

    assert {each.verdict for each in report.entries} == {"agree"}
