"""Models as people write them, in torch and in JAX: `{name: a function that returns (native, (features, targets))}`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Data = tuple[Any, Any]
Case = Callable[[], tuple[Any, Data]]


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).round(2)


def labels(n: int, classes: int, *more: int) -> Any:
    return np.random.default_rng(1).integers(0, classes, (n, *more))


def torch_zoo() -> dict[str, Case]:
    import torch
    from gdcompare_torch import from_module

    nn: Any = torch.nn
    F: Any = torch.nn.functional  # noqa: N806 - its usual name

    class Block(nn.Module):  # type: ignore[misc]  # torch comes without types here
        """A causal transformer block with a finite mask, or one of -inf, or torch's own attention."""

        def __init__(self, width: int = 8, heads: int = 2, mask: str = "-inf") -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
            self.heads, self.mask = heads, mask

        def forward(self, x: Any) -> Any:
            n, t, d = x.shape
            q, k, v = (
                each.reshape(n, t, self.heads, d // self.heads).transpose(1, 2)
                for each in self.qkv(self.first(x)).chunk(3, dim=-1)
            )
            if self.mask == "own":
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                scores = q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5
                above = torch.ones(t, t, dtype=torch.bool).triu(1)
                least = float("-inf") if self.mask == "-inf" else torch.finfo(x.dtype).min
                mixed = scores.masked_fill(above, least).softmax(-1) @ v
            x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
            return x + self.outer(F.gelu(self.inner(self.second(x)), approximate="tanh"))

    class Spectral(nn.Module):  # type: ignore[misc]
        """A layer of a Fourier neural operator, whose weights are complex, after a rotary embedding."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.complex(*torch.from_numpy(numbers(2, 3, 2, 2) / 2)))

        def forward(self, x: Any) -> Any:
            turns = torch.polar(torch.ones(3, dtype=x.dtype), torch.arange(3, dtype=x.dtype))
            x = torch.view_as_real(torch.view_as_complex(x.reshape(len(x), -1, 3, 2)) * turns).reshape(x.shape)
            found = torch.fft.rfft(x)
            kept = torch.zeros_like(found)
            kept[..., :3] = torch.einsum("bit,tio->bot", found[..., :3], self.weight)
            return torch.fft.irfft(kept, n=x.shape[-1])

    class Last(nn.Module):  # type: ignore[misc]
        """The last state of a recurrent network, and a line of it."""

        def __init__(self, cell: Any, width: int = 0) -> None:
            super().__init__()
            self.cell, self.line = cell, nn.Linear(width or cell.hidden_size, 1)

        def forward(self, x: Any) -> Any:
            return self.line(self.cell(x)[0][:, -1])[:, 0]

    class Masked(nn.Module):  # type: ignore[misc]
        """An encoder layer whose tokens see none after them, and of which the last of the last row is padding."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any) -> Any:
            padding = torch.zeros(x.shape[:2], dtype=torch.bool)
            padding[-1, -1] = True
            above = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            return self.layer(x, src_mask=above, src_key_padding_mask=padding)

    def net(*layers: Any) -> Any:
        return nn.Sequential(*layers)

    def mse(outputs: Any, targets: Any) -> Any:
        return F.mse_loss(outputs.reshape(len(outputs), -1), targets.reshape(len(outputs), -1))

    def case(make: Callable[[], Any], loss: Any, features: Any, targets: Any, train: bool = True) -> Case:
        def made() -> tuple[Any, Data]:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                module = make().double().train(train)
            return from_module(module, loss, name="model"), (features, targets)

        return made

    tokens, rows, images = labels(4, 7, 5), numbers(6, 3), numbers(4, 2, 6, 6)
    sequence = numbers(3, 5, 8)

    def line() -> Any:
        return nn.Linear(3, 4)

    def between(layer: Any) -> Any:
        return net(line(), layer, nn.Linear(2 if isinstance(layer, nn.GLU) else 4, 1))

    zoo = {
        "mlp": case(lambda: net(line(), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)), mse,
                    rows, numbers(6)),
        "block, mask -inf": case(lambda: Block(mask="-inf"), mse, sequence, numbers(3, 5, 8, seed=1)),
        "block, finite mask": case(lambda: Block(mask="finite"), mse, sequence, numbers(3, 5, 8, seed=1)),
        "block, own attention": case(lambda: Block(mask="own"), mse, sequence, numbers(3, 5, 8, seed=1)),
        "encoder layer": case(lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True), mse,
                              sequence, numbers(3, 5, 8, seed=1)),
        "cnn": case(lambda: net(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3, stride=2),
                                nn.Flatten(), nn.Linear(2, 3)), F.cross_entropy, images, labels(4, 3)),
        "average pooling": case(lambda: net(nn.Conv1d(2, 3, 3, dilation=2, bias=False), nn.AvgPool1d(2), nn.Flatten(),
                                            nn.Linear(3, 1)), mse, numbers(4, 2, 7), numbers(4)),
        "transposed convolution": case(lambda: net(nn.ConvTranspose2d(2, 3, 3, stride=2), nn.Flatten()), mse,
                                       numbers(2, 2, 3, 3), numbers(2, 147)),
        "batch norm, eval": case(lambda: net(line(), nn.BatchNorm1d(4), nn.Linear(4, 1)), mse, rows, numbers(6),
                                 train=False),
        "batch norm, training": case(lambda: net(line(), nn.BatchNorm1d(4), nn.Linear(4, 1)), mse, rows, numbers(6)),
        "group norm": case(lambda: net(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(12, 1)), mse, numbers(3, 4, 3),
                           numbers(3)),
        "RMS norm": case(lambda: net(line(), nn.RMSNorm(4), nn.Linear(4, 1)), mse, rows, numbers(6)),
        "spectral layer": case(Spectral, mse, numbers(3, 2, 6), numbers(3, 2, 6, seed=1)),
        "embedding": case(lambda: net(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(15, 4)), F.cross_entropy, tokens,
                          labels(4, 4)),
        "lstm": case(lambda: Last(nn.LSTM(3, 4, batch_first=True)), mse, numbers(3, 4, 3), numbers(3)),
        "gru": case(lambda: Last(nn.GRU(3, 4, batch_first=True)), mse, numbers(3, 4, 3), numbers(3)),
        "upsampling": case(lambda: net(nn.Conv2d(2, 1, 1), nn.Upsample(scale_factor=2), nn.Flatten()), mse,
                           numbers(2, 2, 3, 3), numbers(2, 36)),
        "bicubic upsampling": case(
            lambda: net(nn.Conv2d(2, 1, 1), nn.Upsample(scale_factor=2, mode="bicubic"), nn.Flatten()), mse,
            numbers(2, 2, 3, 3), numbers(2, 36)),
        "encoder layer, masked": case(lambda: Masked(nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True)), mse,
                                      sequence, numbers(3, 5, 8, seed=1)),
        "bidirectional lstm": case(lambda: Last(nn.LSTM(3, 4, batch_first=True, num_layers=2, bidirectional=True), 8),
                                   mse, numbers(3, 4, 3), numbers(3)),
        "every pooling": case(
            lambda: net(nn.Conv2d(2, 2, 1), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                        nn.AvgPool2d(2, 1, 1, count_include_pad=False), nn.AdaptiveAvgPool2d((3, 2)),
                        nn.AdaptiveMaxPool2d(2), nn.LPPool2d(2, 2), nn.Flatten()), mse,
            images, numbers(4, 2)),
        "embedding bag": case(lambda: net(nn.EmbeddingBag(7, 3, mode="max"), nn.Linear(3, 4)), F.cross_entropy, tokens,
                              labels(4, 4)),
        "instance and local norms": case(lambda: net(nn.Conv2d(2, 2, 1), nn.InstanceNorm2d(2, affine=True),
                                                     nn.LocalResponseNorm(2), nn.Flatten()), mse,
                                         images, numbers(4, 72)),
        "bilinear upsampling": case(
            lambda: net(nn.Conv2d(2, 1, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Flatten()), mse,
            numbers(2, 2, 3, 3), numbers(2, 36)),
    }  # fmt: skip
    activations: list[Any] = [
        nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Softplus(), nn.ELU(), nn.SELU(), nn.LeakyReLU(), nn.Mish(),
        nn.Hardswish(), nn.LogSigmoid(), nn.GLU(), nn.Softmax(-1), nn.LogSoftmax(-1), nn.Hardtanh(), nn.Softsign(),
        nn.Tanhshrink(),
    ]  # fmt: skip
    for each in activations:
        zoo[type(each).__name__] = case(partial(between, each), mse, rows, numbers(6))
    positive, signs = np.abs(numbers(6, 4, seed=2)) + 0.1, np.sign(numbers(6, 4, seed=2))
    losses: dict[str, tuple[Any, Any]] = {
        "l1": (F.l1_loss, numbers(6, 4, seed=2)),
        "huber": (F.huber_loss, numbers(6, 4, seed=2)),
        "smooth l1": (F.smooth_l1_loss, numbers(6, 4, seed=2)),
        "binary cross entropy": (F.binary_cross_entropy_with_logits, np.float64(signs > 0)),
        "binary cross entropy of shares": (lambda o, t: F.binary_cross_entropy(o.sigmoid(), t), np.float64(signs > 0)),
        "cross entropy, smoothed": (lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1), labels(6, 4)),
        "nll": (lambda o, t: F.nll_loss(o.log_softmax(-1), t), labels(6, 4)),
        "kl": (lambda o, t: F.kl_div(o.log_softmax(-1), t.softmax(-1), reduction="batchmean"), positive),
        "poisson": (F.poisson_nll_loss, np.rint(positive)),
        "gaussian": (lambda o, t: F.gaussian_nll_loss(o, t, o.exp()), numbers(6, 4, seed=2)),
        "soft margin": (F.soft_margin_loss, signs),
        "multi margin": (F.multi_margin_loss, labels(6, 4)),
        "cosine": (lambda o, t: (1 - F.cosine_similarity(o, t)).mean(), numbers(6, 4, seed=2)),
        "mse": (F.mse_loss, numbers(6, 4, seed=2)),
        "hinge embedding": (F.hinge_embedding_loss, signs),
        "margin ranking": (lambda o, t: F.margin_ranking_loss(o[:, 0], o[:, 1], t[:, 0]), signs),
        "cosine embedding": (lambda o, t: F.cosine_embedding_loss(o, t.flip(0) + 0.5, t[:, 0]), signs),
        "multi label soft margin": (F.multilabel_soft_margin_loss, np.float64(signs > 0)),
        "multi label margin": (F.multilabel_margin_loss, np.array([[0, 2, -1, 1]] * 6)),
        "triplet margin": (lambda o, t: F.triplet_margin_loss(o, t, t.flip(0)), numbers(6, 4, seed=2)),
        "triplet margin with distance": (
            lambda o, t: F.triplet_margin_with_distance_loss(o, t, t.flip(0), swap=True),
            numbers(6, 4, seed=2),
        ),
        "ctc": (
            lambda o, t: F.ctc_loss(o.log_softmax(-1)[:, None], t[None, :3], (len(o),), (3,)),
            np.array([1, 1, 2, 2, 1, 1]),
        ),
        "logsumexp": (lambda o, t: (o.logsumexp(-1) - t[:, 0]) ** 2, numbers(6, 4, seed=2)),
        "norms": (lambda o, t: (o - t).norm(dim=-1) + o.std(-1) + o.prod(-1), numbers(6, 4, seed=2)),
        "sort": (lambda o, t: (o.sort(-1)[0].cumsum(-1) * t).sum(-1), numbers(6, 4, seed=2)),
        "written in place": (_in_place, numbers(6, 4, seed=2)),
    }
    for name, (loss, targets) in losses.items():
        zoo[name] = case(lambda: net(line()), loss, rows, targets)
    return zoo


def _in_place(outputs: Any, targets: Any) -> Any:
    found = outputs.new_zeros(outputs.shape)
    found[:, 1:] = outputs[:, :-1]
    found[:, 0] += outputs[:, 0]
    found.mul_(2)
    return (found - targets).square().sum(-1)


def jax_zoo() -> dict[str, Case]:
    import equinox
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen, nnx
    from gdcompare_jax import from_function

    def mse(outputs: Any, targets: Any) -> Any:
        return jnp.mean((outputs.reshape(len(outputs), -1) - targets.reshape(len(outputs), -1)) ** 2)

    def case(loss: Callable[..., Any], start: Callable[[], Any], features: Any, targets: Any) -> Case:
        def made() -> tuple[Any, Data]:
            with jax.enable_x64(True):
                return from_function(loss, start(), name="model"), (features, targets)

        return made

    def weights(**shapes: tuple[int, ...]) -> Callable[[], Any]:
        return lambda: {name: numbers(*shape, seed=i) / 2 for i, (name, shape) in enumerate(shapes.items())}

    def normal(x: Any) -> Any:
        apart = x - x.mean(-1, keepdims=True)
        return apart / jnp.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5)

    def block(least: Callable[[Any], float]) -> Callable[..., Any]:
        def loss(p: Any, x: Any, y: Any) -> Any:
            n, t, d = x.shape
            q, k, v = (
                each.reshape(n, t, 2, d // 2).swapaxes(1, 2) for each in jnp.split(normal(x) @ p["qkv"] + p["b"], 3, -1)
            )
            scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(d // 2)
            scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, least(x.dtype))
            mixed = jax.nn.softmax(scores, -1) @ v
            x = x + mixed.swapaxes(1, 2).reshape(n, t, d) @ p["out"]
            return mse(x + jax.nn.gelu(normal(x) @ p["inner"]) @ p["outer"], y)

        return loss

    shapes: Any = {"qkv": (8, 24), "b": (24,), "out": (8, 8), "inner": (8, 16), "outer": (16, 8)}
    rows, sequence, images = numbers(6, 3), numbers(3, 5, 8), numbers(3, 6, 6, 2)
    tokens, classes = labels(4, 7, 5), labels(6, 4)

    def convolved(p: Any, x: Any, y: Any) -> Any:
        h = jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = linen.max_pool(jax.nn.relu(h), (2, 2), (2, 2))
        return mse(linen.avg_pool(h, (3, 3)).reshape(len(x), -1) @ p["w"], y)

    def recurrent(cell: Any) -> Callable[..., Any]:
        def loss(model: Any, x: Any, y: Any) -> Any:
            def last(row: Any) -> Any:
                zero = jnp.zeros(4, row.dtype)
                start = (zero, zero) if isinstance(cell, str) and cell == "lstm" else zero
                end, _ = jax.lax.scan(lambda state, each: (model(each, state), None), start, row)
                return (end[0] if isinstance(end, tuple) else end).sum()

            return (jax.vmap(last)(x) - y) ** 2

        return loss

    class Net(nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.first, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.second = nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.second(nnx.gelu(self.norm(self.first(x))))

    def with_batch_norm(model: Any, x: Any, y: Any) -> Any:
        return mse(model(x), y)

    module = linen.Sequential([linen.Dense(4), linen.relu, linen.LayerNorm(), linen.Dense(1)])
    key = jax.random.key(0)
    zoo = {
        "mlp": case(lambda p, x, y: mse(jax.nn.relu(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"], y),
                    weights(a=(3, 4), b=(4, 4), c=(4, 1)), rows, numbers(6)),
        "block, mask -inf": case(block(lambda _: -jnp.inf), weights(**shapes), sequence, numbers(3, 5, 8, seed=1)),
        "block, finite mask": case(block(lambda dtype: jnp.finfo(dtype).min), weights(**shapes), sequence,
                                   numbers(3, 5, 8, seed=1)),
        "embedding": case(
            lambda p, x, y: optax.softmax_cross_entropy_with_integer_labels(p["e"][x].reshape(len(x), -1) @ p["w"], y),
            weights(e=(7, 3), w=(15, 4)), tokens, labels(4, 4)),
        "convolution": case(convolved, weights(k=(3, 3, 2, 3), w=(3, 1)), images, numbers(3)),
        "lstm": case(recurrent("lstm"), lambda: equinox.nn.LSTMCell(3, 4, key=key), numbers(3, 4, 3), numbers(3)),
        "gru": case(recurrent("gru"), lambda: equinox.nn.GRUCell(3, 4, key=key), numbers(3, 4, 3), numbers(3)),
        "equinox mlp": case(lambda m, x, y: (jax.vmap(m)(x) - y) ** 2,
                            lambda: equinox.nn.MLP(3, "scalar", 4, 2, key=key), rows, numbers(6)),
        "linen": case(lambda v, x, y: mse(module.apply(v, x), y), lambda: module.init(key, rows), rows, numbers(6)),
        "nnx, batch norm in training": case(with_batch_norm, lambda: Net(nnx.Rngs(0)), rows, numbers(6)),
        "sorted sums": case(lambda p, x, y: (jnp.cumsum(jnp.sort(x @ p["w"], -1), -1) * y).sum(-1), weights(w=(3, 4)),
                            rows, numbers(6, 4)),
        "rematerialised": case(lambda p, x, y: mse(jax.checkpoint(lambda h: jnp.sin(h) ** 3)(x @ p["w"]), y),
                               weights(w=(3, 1)), rows, numbers(6)),
        "spectral layer": case(
            lambda p, x, y: mse(jnp.fft.irfft(jnp.fft.rfft(x @ p["in"]) * jax.lax.complex(p["a"], p["b"]), n=6), y),
            weights(a=(4,), b=(4,), **{"in": (3, 6)}), rows, numbers(6, 6, seed=1),
        ),
        "a loop": case(lambda p, x, y: mse(jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["w"]) + i, x), y),
                       weights(w=(3, 3)), rows, numbers(6, 3)),
        "a branch": case(lambda p, x, y: mse(jax.lax.cond(p["w"].sum() > 0, jnp.sin, jnp.cos, x @ p["w"]), y),
                         weights(w=(3, 1)), rows, numbers(6)),
    }  # fmt: skip
    functions: dict[str, Any] = {
        "sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu, "softplus": jax.nn.softplus, "elu": jax.nn.elu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False), "leaky relu": jax.nn.leaky_relu, "selu": jax.nn.selu,
        "log softmax": jax.nn.log_softmax, "hard swish": jax.nn.hard_swish, "mish": jax.nn.mish,
        "logsumexp": lambda x: jax.nn.logsumexp(x, -1, keepdims=True),
        "standardize": lambda x: jax.nn.standardize(x) ** 3,
        "norm": lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True), "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    }  # fmt: skip
    for name, function in functions.items():
        zoo[name] = case(
            lambda p, x, y, f=function: ((f(x @ p["w"]) - y[:, None]) ** 2).sum(-1), weights(w=(3, 4)), rows, numbers(6)
        )
    losses: dict[str, tuple[Any, Any]] = {
        "huber": (lambda o, t: optax.huber_loss(o, t).mean(), numbers(6, 4, seed=2)),
        "binary cross entropy": (
            lambda o, t: optax.sigmoid_binary_cross_entropy(o, t).mean(-1),
            np.float64(numbers(6, 4) > 0),
        ),
        "cross entropy": (optax.softmax_cross_entropy_with_integer_labels, classes),
        "cosine": (optax.cosine_distance, numbers(6, 4, seed=2)),
        "kl": (lambda o, t: optax.kl_divergence(jax.nn.log_softmax(o), jax.nn.softmax(t)), numbers(6, 4, seed=2)),
    }
    for name, (loss, targets) in losses.items():
        zoo[name] = case(lambda p, x, y, f=loss: f(x @ p["w"], y), weights(w=(3, 4)), rows, targets)
    return zoo
