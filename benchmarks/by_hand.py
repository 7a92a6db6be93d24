"""The same gradients and descents as a person would write them in each framework: what the suite is measured against.

Each function prepares (converts the data, compiles) and returns what is to be timed. Of a descent that is its whole
work: drawing the rows, the steps, the history of losses and parameters, and bringing that back to NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from .checked import DescentCase, GradientCase

Array: TypeAlias = NDArray[Any]
Path: TypeAlias = dict[str, Array]
"""`losses` (steps,), `theta_0` (steps + 1,) and `theta_1` (steps + 1, d) of a descent."""


# Descents with NumPy


def numpy_as_usual(case: DescentCase) -> Callable[[], Path]:
    """The loop that most people would write."""
    features, targets = case.data.features, case.data.targets

    def run() -> Path:
        rows, path = case.rows(), _empty_path(case)
        theta_0, theta_1 = np.float64(0), np.zeros(case.d)
        x, y = features, targets
        for step in range(case.steps):
            if rows is not None:
                x, y = features[rows[step]], targets[rows[step]]
            residuals = theta_0 + x @ theta_1 - y
            path["losses"][step] = np.mean(residuals * residuals)
            theta_0 = theta_0 - case.rate * 2 * np.mean(residuals)
            theta_1 = theta_1 - case.rate * (2 * x.T @ residuals / len(y))
            path["theta_0"][step + 1] = theta_0
            path["theta_1"][step + 1] = theta_1
        return path

    return run


def numpy_tight(case: DescentCase) -> Callable[[], Path]:
    """The fewest and cheapest NumPy calls that we know of."""
    features, targets = case.data.features, case.data.targets

    def run() -> Path:
        rows, path = case.rows(), _empty_path(case)
        losses, theta_0s, theta_1s = path.values()
        theta_0, theta_1 = 0.0, np.zeros(case.d)
        x, y = features, targets
        n = case.batch_size or case.n
        rate = 2 * case.rate / n
        for step in range(case.steps):
            if rows is not None:
                x, y = features.take(rows[step], axis=0), targets.take(rows[step])
            residuals = x @ theta_1
            residuals += theta_0
            residuals -= y
            losses[step] = residuals @ residuals / n
            theta_0s[step + 1] = theta_0 = theta_0 - rate * np.add.reduce(residuals)
            theta_1s[step + 1] = theta_1 = theta_1 - rate * (residuals @ x)
        return path

    return run


# Descents with PyTorch


def torch_autograd(case: DescentCase) -> Callable[[], Path]:
    """`torch.autograd.grad` and the update by hand."""
    torch = _framework("torch")
    features, targets = torch.tensor(case.data.features), torch.tensor(case.data.targets)

    def run() -> Path:
        rows = None if (drawn := case.rows()) is None else torch.tensor(drawn)
        theta_0 = torch.zeros((), dtype=torch.float64, requires_grad=True)
        theta_1 = torch.zeros(case.d, dtype=torch.float64, requires_grad=True)
        losses, theta_0s, theta_1s = [], [theta_0.detach()], [theta_1.detach()]
        x, y = features, targets
        for step in range(case.steps):
            if rows is not None:
                x, y = features[rows[step]], targets[rows[step]]
            residuals = theta_0 + x @ theta_1 - y
            loss = (residuals * residuals).mean()
            gradient_0, gradient_1 = torch.autograd.grad(loss, (theta_0, theta_1))
            with torch.no_grad():
                theta_0 = (theta_0 - case.rate * gradient_0).requires_grad_()
                theta_1 = (theta_1 - case.rate * gradient_1).requires_grad_()
            losses.append(loss.detach())
            theta_0s.append(theta_0.detach())
            theta_1s.append(theta_1.detach())
        return _named(*(torch.stack(each).numpy() for each in (losses, theta_0s, theta_1s)))

    return run


def torch_optimizer(case: DescentCase) -> Callable[[], Path]:
    """`torch.optim.SGD`, as its documentation shows."""
    torch = _framework("torch")
    features, targets = torch.tensor(case.data.features), torch.tensor(case.data.targets)

    def run() -> Path:
        rows = None if (drawn := case.rows()) is None else torch.tensor(drawn)
        theta_0 = torch.zeros((), dtype=torch.float64, requires_grad=True)
        theta_1 = torch.zeros(case.d, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([theta_0, theta_1], lr=case.rate)
        losses, theta_0s, theta_1s = [], [theta_0.detach().clone()], [theta_1.detach().clone()]
        x, y = features, targets
        for step in range(case.steps):
            if rows is not None:
                x, y = features[rows[step]], targets[rows[step]]
            optimizer.zero_grad()
            residuals = theta_0 + x @ theta_1 - y
            loss = (residuals * residuals).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            theta_0s.append(theta_0.detach().clone())
            theta_1s.append(theta_1.detach().clone())
        return _named(*(torch.stack(each).numpy() for each in (losses, theta_0s, theta_1s)))

    return run


# Descents with JAX


def optax_jitted_step(case: DescentCase) -> Callable[[], Path]:
    """optax with a compiled step in a Python loop, as its documentation shows."""
    jax, optax = _framework("jax"), _framework("optax")
    optimizer = optax.sgd(case.rate)

    @jax.jit  # type: ignore[untyped-decorator]  # JAX is optional: mypy does not look at it
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, gradient = jax.value_and_grad(_mean_squared_error)(params, x, y)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    with jax.enable_x64(True):
        on_device = jax.numpy.asarray(case.data.features), jax.numpy.asarray(case.data.targets)

    def run() -> Path:
        with jax.enable_x64(True):
            rows = case.rows()
            params = {"theta_0": jax.numpy.zeros(()), "theta_1": jax.numpy.zeros(case.d)}
            state = optimizer.init(params)
            losses, points = [], [params]
            x, y = on_device
            for number in range(case.steps):
                if rows is not None:  # NumPy slices: indexing a JAX array would cost a dispatch of its own
                    x, y = case.data.features[rows[number]], case.data.targets[rows[number]]
                params, state, loss = step(params, state, x, y)
                losses.append(loss)
                points.append(params)
            losses, points = jax.device_get((losses, points))
            theta_0s, theta_1s = (np.array([point[name] for point in points]) for name in ("theta_0", "theta_1"))
            return _named(np.array(losses), theta_0s, theta_1s)

    return run


def bare_scan(case: DescentCase) -> Callable[[], Path]:
    """The whole descent as one compiled `lax.scan`."""
    jax = _framework("jax")

    @jax.jit  # type: ignore[untyped-decorator]  # as above
    def descend(params: Any, features: Any, targets: Any, rows: Any) -> Any:
        def step(params: Any, batch: Any) -> Any:
            x, y = (features, targets) if batch is None else (features[batch], targets[batch])
            loss, gradient = jax.value_and_grad(_mean_squared_error)(params, x, y)
            params = jax.tree.map(lambda value, slope: value - case.rate * slope, params, gradient)
            return params, (loss, params)

        return jax.lax.scan(step, params, rows, length=case.steps)[1]

    with jax.enable_x64(True):
        features, targets = jax.numpy.asarray(case.data.features), jax.numpy.asarray(case.data.targets)

    def run() -> Path:
        with jax.enable_x64(True):
            start = {"theta_0": np.zeros(()), "theta_1": np.zeros(case.d)}
            losses, points = jax.device_get(descend(start, features, targets, case.rows()))
            return _named(losses, *(np.concatenate([start[name][None], points[name]]) for name in start))

    return run


def _mean_squared_error(params: Any, x: Any, y: Any) -> Any:
    residuals = params["theta_0"] + x @ params["theta_1"] - y
    return (residuals * residuals).mean()


# Stochastic descents with scikit-learn, which keeps no history


def sklearn_defaults(case: DescentCase) -> Callable[[], Any]:
    """`SGDRegressor` as it comes: a penalty, a falling learning rate, its own shuffling."""
    linear_model = _framework("sklearn.linear_model")
    return lambda: linear_model.SGDRegressor(max_iter=case.epochs, tol=None, random_state=case.seed).fit(
        case.data.features, case.data.targets
    )


def sklearn_same_steps(case: DescentCase) -> Callable[[], Any]:
    """`SGDRegressor` with our steps, on rows shuffled by itself."""
    regressor = _plain_regressor(case)
    return lambda: regressor(max_iter=case.epochs, random_state=case.seed).fit(case.data.features, case.data.targets)


def sklearn_same_rows(case: DescentCase) -> Callable[[], Any]:
    """`SGDRegressor` with our steps on our rows: one unshuffled pass over the drawn rows of all epochs."""
    regressor = _plain_regressor(case)

    def run() -> Any:
        rows = case.rows()
        assert rows is not None
        drawn = rows[:, 0]
        return regressor(max_iter=1, shuffle=False).fit(case.data.features[drawn], case.data.targets[drawn])

    return run


def _plain_regressor(case: DescentCase) -> Callable[..., Any]:
    """Make `SGDRegressor`s without a penalty; its loss has a 1/2 that ours has not, hence twice the rate."""
    regressor = _framework("sklearn.linear_model").SGDRegressor
    return lambda **settings: regressor(
        penalty=None, learning_rate="constant", eta0=2 * case.rate, tol=None, **settings
    )


# Gradients of the linear regression


def numpy_gradient(case: GradientCase, dtype: str) -> Callable[[], Any]:
    """Loss and gradient by hand."""
    theta_0, theta_1, features, targets = (each.astype(dtype) for each in _gradient_inputs(case))

    def run() -> Any:
        residuals = theta_0 + features @ theta_1 - targets
        return (
            np.mean(residuals * residuals),
            {"theta_0": 2 * np.mean(residuals), "theta_1": 2 * features.T @ residuals / len(targets)},
        )

    return run


def torch_gradient(case: GradientCase, dtype: str) -> Callable[[], Any]:
    """One forward pass and one `torch.autograd.grad`."""
    torch = _framework("torch")
    inputs = (torch.tensor(each, dtype=getattr(torch, dtype)) for each in _gradient_inputs(case))
    theta_0, theta_1, features, targets = inputs
    theta_0.requires_grad_()
    theta_1.requires_grad_()

    def run() -> Any:
        residuals = theta_0 + features @ theta_1 - targets
        loss = (residuals * residuals).mean()
        gradient_0, gradient_1 = torch.autograd.grad(loss, (theta_0, theta_1))
        return loss.detach(), {"theta_0": gradient_0, "theta_1": gradient_1}

    return run


def jax_gradient(case: GradientCase, dtype: str) -> Callable[[], Any]:
    """`jit(value_and_grad)`, in the precision of the moment, which is set around each call."""
    jax = _framework("jax")
    function = jax.jit(jax.value_and_grad(_mean_squared_error))
    wide = dtype == "float64"
    with jax.enable_x64(wide):
        theta_0, theta_1, features, targets = (jax.numpy.asarray(each, dtype) for each in _gradient_inputs(case))
    params = {"theta_0": theta_0, "theta_1": theta_1}

    def run() -> Any:
        with jax.enable_x64(wide):
            return function(params, features, targets)

    return run


# Per-sample gradients of the linear regression


def numpy_per_sample(case: GradientCase) -> Callable[[], Any]:
    """The closed form: 2 r and 2 r x."""
    theta_0, theta_1, features, targets = _gradient_inputs(case)

    def run() -> Any:
        slopes = 2 * (theta_0 + features @ theta_1 - targets)
        return {"theta_0": slopes, "theta_1": slopes[:, None] * features}

    return run


def torch_per_sample(case: GradientCase) -> Callable[[], Any]:
    """`vmap(grad)`, as the documentation of `torch.func` shows."""
    torch = _framework("torch")
    theta_0, theta_1, features, targets = map(torch.tensor, _gradient_inputs(case))
    params = {"theta_0": theta_0, "theta_1": theta_1}
    function = torch.func.vmap(torch.func.grad(_mean_squared_error), in_dims=(None, 0, 0))
    return lambda: function(params, features, targets)


def jax_per_sample(case: GradientCase) -> Callable[[], Any]:
    """`jit(vmap(grad))`, in float64."""
    jax = _framework("jax")
    function = jax.jit(jax.vmap(jax.grad(_mean_squared_error), in_axes=(None, 0, 0)))
    with jax.enable_x64(True):
        theta_0, theta_1, features, targets = map(jax.numpy.asarray, _gradient_inputs(case))
    params = {"theta_0": theta_0, "theta_1": theta_1}

    def run() -> Any:
        with jax.enable_x64(True):
            return function(params, features, targets)

    return run


def one_read(case: GradientCase) -> Callable[[], Any]:
    """Add up all numbers of the data: what memory alone allows."""
    numbers = case.data.features.reshape(-1)
    return lambda: np.add.reduce(numbers)


def _gradient_inputs(case: GradientCase) -> tuple[Array, Array, Array, Array]:
    return case.params["theta_0"], case.params["theta_1"], case.data.features, case.data.targets


def _empty_path(case: DescentCase) -> Path:
    path = _named(np.empty(case.steps), np.empty(case.steps + 1), np.empty((case.steps + 1, case.d)))
    path["theta_0"][0] = 0
    path["theta_1"][0] = 0
    return path


def _named(losses: Array, theta_0s: Array, theta_1s: Array) -> Path:
    return {"losses": losses, "theta_0": theta_0s, "theta_1": theta_1s}


def _framework(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed", exc_type=ModuleNotFoundError)
