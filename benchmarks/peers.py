"""What others wrote for the same work: per-sample gradients by Opacus and BackPACK, verdicts by torch and JAX.

The optimisers of torch and optax, and scikit-learn's regressor, stand with the loops `by_hand`. As there, each function
prepares, and returns what is to be timed; a framework that is not installed is named, with the way out.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gdcompare as gdc
from gdcompare.case import Case
from gdcompare.timing.contender import Contender, Judgement
from gdcompare.timing.work import Work

from .checked import GradientCase, judge_of

Answer = dict[str, Any]
Convert = Callable[[Answer], Answer]

EXTRA = {"opacus": "peers", "backpack": "peers", "optax": "test", "sklearn": "data", "torch": "torch", "jax": "jax"}
"""What brings each peer: `pip install 'gdcompare[peers]'`."""


class MissingPeerError(ImportError):
    """A peer is not installed."""


def peer(name: str) -> Any:
    """Return a peer's module. Raises MissingPeerError with the line that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        whole = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != whole:
            raise  # it is there, and lacks something itself
        raise MissingPeerError(f"{whole} is not installed: pip install 'gdcompare[{EXTRA[whole]}]'") from None


# Per-sample gradients: of a module whose loss is a sum, so that no 1/n is to be taken out of them


class Network:
    """A problem as a torch module: its layers, their parameters in our names, and its data as the module takes them."""

    def __init__(self, layers: list[Any], inputs: Any, targets: Any, convert: Convert) -> None:
        torch = peer("torch")
        self.module = torch.nn.Sequential(*layers)
        self.inputs, self.targets, self.convert = inputs, targets[:, None], convert

    def put(self, values: list[NDArray[Any]]) -> None:
        """Set the parameters, in the order of the layers."""
        torch = peer("torch")
        with torch.no_grad():
            for parameter, value in zip(self.module.parameters(), values, strict=True):
                parameter.copy_(torch.tensor(value).reshape(parameter.shape))


def linear(case: GradientCase) -> Network:
    """The linear regression as a layer: weight (1, d), bias (1,)."""
    torch = peer("torch")

    def convert(rows: Answer) -> Answer:
        return {"theta_0": rows["0.bias"][:, 0], "theta_1": rows["0.weight"][:, 0]}

    layer = torch.nn.Linear(case.d, 1, dtype=torch.float64)
    found = Network([layer], torch.tensor(case.data.features), torch.tensor(case.data.targets), convert)
    found.put([case.params["theta_1"], case.params["theta_0"]])
    return found


def convolution(work: Work) -> Network:
    """The convolution network: Conv1d, tanh, the mean over all places, Linear."""
    torch = peer("torch")
    nn, params = torch.nn, work.case.params
    width, channels = params["kernels"].shape
    features = torch.tensor(work.case.features)

    def convert(rows: Answer) -> Answer:
        kernels = rows["0.weight"][:, :, 0].transpose(0, 2, 1)  # (n, width, channels)
        return {
            "kernels": kernels,
            "biases": rows["0.bias"],
            "weights": rows["4.weight"][:, 0],
            "shift": rows["4.bias"][:, 0],
        }

    layers = [
        nn.Conv1d(1, channels, width, dtype=torch.float64),
        nn.Tanh(),
        nn.AvgPool1d(features.shape[1] - width + 1),
        nn.Flatten(),
        nn.Linear(channels, 1, dtype=torch.float64),
    ]
    found = Network(layers, features[:, None], torch.tensor(work.case.targets), convert)
    found.put([params["kernels"].T, params["biases"], params["weights"], params["shift"]])
    return found


def opacus(network: Network, mode: str) -> Callable[[], Answer]:
    """Opacus, by hooks ("hooks") or by torch's ExpandedWeights ("ew")."""
    peer("opacus")
    grad_sample, torch = peer("opacus.grad_sample"), peer("torch")
    _quiet()
    module = grad_sample.wrap_model(network.module, grad_sample_mode=mode, loss_reduction="sum")
    loss, parameters = torch.nn.MSELoss(reduction="sum"), list(network.module.named_parameters())

    def run() -> Answer:
        for _, parameter in parameters:
            parameter.grad = parameter.grad_sample = None
        loss(module(network.inputs), network.targets).backward()
        return {name: parameter.grad_sample for name, parameter in parameters}

    return run


def backpack(network: Network) -> Callable[[], Answer]:
    """BackPACK's BatchGrad."""
    package, torch = peer("backpack"), peer("torch")
    extensions = peer("backpack.extensions")
    _quiet()
    module = package.extend(network.module)
    loss, parameters = package.extend(torch.nn.MSELoss(reduction="sum")), list(network.module.named_parameters())

    def run() -> Answer:
        for _, parameter in parameters:
            parameter.grad = None
        with package.backpack(extensions.BatchGrad()):
            loss(module(network.inputs), network.targets).backward()
        return {name: parameter.grad_batch for name, parameter in parameters}

    return run


def jax_convolution(work: Work) -> Callable[[], Answer]:
    """The convolution network's loss as one writes it in JAX: `jit(vmap(grad))`."""
    jax = peer("jax")
    jnp = jax.numpy

    def loss(params: Answer, row: Any, target: Any) -> Any:
        width = params["kernels"].shape[0]
        windows = jnp.stack([row[m : m + len(row) - width + 1] for m in range(width)])  # (width, T)
        pooled = jnp.tanh(params["kernels"].T @ windows + params["biases"][:, None]).mean(axis=1)
        return (pooled @ params["weights"] + params["shift"] - target) ** 2

    function = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))
    with jax.enable_x64(True):
        params = {name: jnp.asarray(value) for name, value in work.case.params.items()}
        features, targets = jnp.asarray(work.case.features), jnp.asarray(work.case.targets)

    def run() -> Answer:
        with jax.enable_x64(True):
            return function(params, features, targets)  # type: ignore[no-any-return]  # JAX is optional

    return run


def judged_linear(name: str, case: GradientCase, network: Network, call: Callable[[], Answer]) -> Contender:
    """The contender of a peer's rows of the linear regression."""
    read = partial(_converted, network.convert)
    return Contender(name, call, judge_of(read, case.per_sample_gradients, "float64"))


def judged_rows(name: str, work: Work, call: Callable[[], Answer], convert: Convert = lambda rows: rows) -> Contender:
    """The contender of a peer's rows of any work, judged by the referee."""

    def judge(answer: Answer) -> Judgement:
        return work.bench.rows(name, _converted(convert, answer), by_hand=False)

    return Contender(name, call, judge)


def _converted(convert: Convert, answer: Answer) -> Answer:
    return convert(
        {name: np.asarray(value.detach() if hasattr(value, "detach") else value) for name, value in answer.items()}
    )


def _quiet() -> None:
    """Hear nothing of hooks on modules whose inputs need no gradient, which is how both peers are meant to be used."""
    warnings.filterwarnings("ignore", message="Full backward hook is firing")


# Verdicts: on the same right gradient, at one point

NOTICED = "least relative error noticed"


def verdicts(case: GradientCase) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """Yield whoever says whether a gradient is right, torch's and JAX's, beside `gdc.verify` of the same.

    A right one must be called right. What the yes is worth is how small an error each notices: of a gradient that is
    1 + e times the right one, with e = 0.1, 0.01, ...
    """
    for name in ("torch", "jax", "numpy"):
        yield f"gdc.verify, {name}", partial(_verify, case, name)
    for name in ("torch", "jax"):
        for index, words in _NATIVE[name].items():
            yield words, partial(_native, case, name, index, words)


_NATIVE = {
    "torch": {0: "torch.autograd.gradcheck", 1: "torch.autograd.gradcheck, fast"},
    "jax": {-1: "jax.test_util.check_grads, reverse"},
}


def _verify(case: GradientCase, backend_name: str) -> Contender:
    backend = gdc.load_backend(backend_name)

    def refuses(wrong: Any) -> bool:
        return not gdc.verify(case.problem, case.data, case.params, backends=[], implementations={"it": wrong})

    noticed = cache(lambda: _noticed(case, refuses))

    def judge(report: Any) -> Judgement:
        return Judgement(bool(report), f"it is called {report.verdict}", {NOTICED: noticed()})

    def call() -> Any:
        return gdc.verify(case.problem, case.data, case.params, backends=[backend])

    return Contender(f"gdc.verify, {backend_name}", call, judge)


def _native(case: GradientCase, backend_name: str, index: int, words: str) -> Contender:
    peer(backend_name)
    backend: Any = gdc.load_backend(backend_name)
    point = case.problem, case.params, case.data.features, case.data.targets
    check = backend.native_checks(*point)[index]

    def call() -> bool:
        check.run()  # raises where it refuses
        return True

    def refuses(wrong: Any) -> bool:
        try:
            backend.native_checks(*point, implementation=wrong)[index].run()
        except Exception:  # it has no class of its own: gradcheck raises RuntimeError, check_grads AssertionError
            return True
        return False

    noticed = cache(lambda: _noticed(case, refuses))
    return Contender(words, call, lambda right: Judgement(right, "", {NOTICED: noticed()}))


def _noticed(case: GradientCase, refuses: Callable[[Any], bool]) -> float:
    """Return the least power of ten by which a gradient may be too large, relatively, and is still refused."""
    truth = Case.of(case.problem, case.data, case.params)
    noticed = math.inf
    for digits in range(1, 16):
        error = 10.0**-digits

        def wrong(params: Any, features: Any, targets: Any, error: float = error) -> Any:
            loss, gradient = truth.problem.value_and_gradient(np, params, features, targets)
            return loss, {name: value * (1 + error) for name, value in gradient.items()}

        if not refuses(wrong):
            break
        noticed = error
    return noticed
