"""The decoder of the paper's Figures 7 and 8: its model, its training, and what a reconstruction is.

The graph is ``h0 -> h1 -> h2 -> h3 -> x`` (64-256-256-256-784; x is linear). Only the image at ``x`` is known, so that
``h0`` is a free root. A reconstruction follows Appendix C.2: clamp an image at ``x``, infer for ``T_eval`` steps from
the initializer, then forward the value of ``h0`` through the network. Errors are squared errors a pixel, on images in
[0, 1]. Beside it stands the error of ``mu_x``, the prediction from ``h3`` where inference ended: it is smaller, since
the error of the image reaches ``h3`` in the first step, and it does not say what ``h0`` knows of the image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import pcgraph
from pcgraph import SGD, Forward, Memory, Normal, PCNetwork, Zero, data
from pcgraph.initializers import Initializer

__all__ = [
    "ALPHAS", "METHODS", "STABLE", "STEPS", "Problem", "Setting", "Trained", "errors", "make", "reconstruct", "train",
]  # fmt: skip

STEPS = (3, 5, 10, 20)
"""The paper's T_train and T_eval."""
ALPHAS = (0.05, 0.1, 0.5)
"""The paper's state rates, for training and for evaluation."""
STABLE = ALPHAS[:2]
"""Those that are used in training, and to follow it."""
BATCH = 500
"""Images that are evaluated together. Nothing but the draws of Normal, which each batch repeats, depends on it."""


def _memory(net: PCNetwork, seed: int, nodes: tuple[str, ...] | None) -> Memory:
    return Memory(net, nodes, observed=["x"], patterns=24, heads=16, embed_dim=128, beta=200.0, seed=seed)


METHODS: dict[str, Callable[[PCNetwork, int, float], Initializer]] = {
    "Zero": lambda net, seed, std: Zero(),
    "Normal": lambda net, seed, std: Normal(std=std, seed=seed),
    "Forward(roots=Memory)": lambda net, seed, std: Forward(roots=_memory(net, seed, ("h0",))),
    "Forward(roots=Zero)": lambda net, seed, std: Forward(roots=Zero()),
    "Forward(roots=Normal)": lambda net, seed, std: Forward(roots=Normal(std=std, seed=seed)),
    "Memory": lambda net, seed, std: _memory(net, seed, None),
}
"""By name: network, seed and standard deviation -> initializer. The paper's PC-mem is Forward(roots=Memory), by its
Appendix C.2; Memory alone has one for every free node, by its Section 4.2."""


@dataclass(frozen=True)
class Setting:
    """What a training run is made of, but for its seed and length.

    Attributes
    ----------
    method : str
        One of :data:`METHODS`.
    steps : int
        T_train.
    maps : int
        Weight maps from ``h0`` to ``x``; the paper's "four layers" is read as four.
    std : float
        Of the normal draws, for methods that draw.
    """

    method: str
    steps: int
    maps: int = 4
    activation: str = "gelu"
    alpha: float = 0.05
    std: float = 0.1
    lr: float = 5e-4


@dataclass(frozen=True)
class Problem:
    """Images and sizes.

    Attributes
    ----------
    train, validation, test : pcgraph.data.Images
        In [0, 1]; validation is a part of the training split that is not trained on.
    latent, width, batch : int
        Neurons of ``h0``, of every hidden group; images in a training batch.
    """

    train: data.Images
    validation: data.Images
    test: data.Images
    latent: int = 64
    width: int = 256
    batch: int = 200

    @classmethod
    def fashion(cls) -> Problem:
        """Fashion-MNIST, 2,000 of its training images kept for validation."""
        train, validation = data.load("fashion-mnist", normalize="unit").split(2000, seed=0)
        return cls(train, validation, data.load("fashion-mnist", "test", normalize="unit"))

    @classmethod
    def digits(cls) -> Problem:
        """Small enough for the tests: 8 x 8 digits and a narrow network."""
        train, validation = data.load("digits", normalize="unit").split(137, seed=0)
        return cls(train, validation, data.load("digits", "test", normalize="unit"), latent=8, width=32, batch=100)

    def part(self, fraction: float) -> Problem:
        """The same with a part of the training images, always the same one."""
        return self if fraction == 1 else replace(self, train=self.train.split(fraction, seed=1)[1])


@dataclass(frozen=True)
class Trained:
    """A network with its initializer, and what became of its training.

    Attributes
    ----------
    net, init
        As they were after the best epoch, if the run has a folder; else after the last.
    curve : list of float
        The validation error of a reconstruction with T_eval = T_train after each epoch, at the better of
        :data:`STABLE`.
    seconds : float
        Of training, validation included.
    outcome : str
        ``"ok"``, or ``"diverged"``: the energy was no longer finite.
    """

    net: PCNetwork
    init: Initializer
    curve: list[float]
    seconds: float
    outcome: str


def make(setting: Setting, problem: Problem, seed: int) -> tuple[PCNetwork, Initializer, torch.optim.Optimizer]:
    """A fresh network, its initializer, and AdamW on the weights of both."""
    sizes = [problem.latent, *[problem.width] * (setting.maps - 1), math.prod(problem.train.shape)]
    net = PCNetwork(pcgraph.graphs.decoder(sizes, activation=setting.activation), seed=seed)
    init = METHODS[setting.method](net, seed, setting.std)
    return net, init, torch.optim.AdamW([*net.parameters(), *init.parameters()], lr=setting.lr)


def train(setting: Setting, problem: Problem, seed: int, epochs: int, folder: Path | None = None) -> Trained:
    """Train for `epochs` in all, going on from the last checkpoint in `folder`, if there is one.

    Runs may fall over late, so that the network is handed back as it was after its best epoch on the validation images;
    the paper truncates its curves there, on the test images. The order of the images depends on the seed, as the
    weights and the memory do.
    """
    net, init, optimizer = make(setting, problem, seed)

    def validation(net: PCNetwork) -> float:
        found = errors(net, init, problem.validation.images, (setting.steps,), STABLE)
        return min(both[0] for both in found.values())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pcgraph.errors.PCGraphWarning)
        try:
            history = pcgraph.fit(
                net, problem.train.batches(problem.batch, seed=seed), clamp=("x", None), init=init,
                steps=setting.steps, optimizer=optimizer, state_optimizer=SGD(lr=setting.alpha), epochs=epochs,
                validate=validation, checkpoint=folder, progress=False,
                resume=folder if folder is not None and pcgraph.checkpoints.exists(folder) else None,
            )  # fmt: skip
            outcome = "ok"
        except pcgraph.Diverged as error:
            history, outcome = error.history, "diverged"
    seconds = history.epochs[-1].seconds if history.epochs else 0.0
    curve = [next(iter(record.validation.values())) for record in history.epochs]
    if folder is not None and curve:
        pcgraph.checkpoints.load(folder / "best").restore(net=net, initializer=init)
    return Trained(net, init, curve, seconds, outcome)


def errors(
    net: PCNetwork, init: Initializer, images: Tensor, steps: tuple[int, ...], alphas: tuple[float, ...]
) -> dict[tuple[int, float], tuple[float, float]]:
    """(T_eval, alpha) -> mean squared error a pixel of (the reconstruction from ``h0``, ``mu_x``); inf if it diverged.

    A longer inference goes on where the shorter one ended, so that the longest is all that is computed.
    """
    totals = {(t, alpha): torch.zeros(2, dtype=torch.float64) for alpha in alphas for t in sorted(steps)}
    for x in images.split(BATCH):
        for alpha in alphas:
            for t, (forwarded, local) in reconstruct(net, init, x, steps, alpha).items():
                totals[t, alpha] += torch.stack([(y - x).double().square().sum() for y in (forwarded, local)])
    means = {key: (total / images.numel()).nan_to_num(nan=math.inf).tolist() for key, total in totals.items()}
    return {key: (mean[0], mean[1]) for key, mean in means.items()}


@torch.no_grad()
def reconstruct(
    net: PCNetwork, init: Initializer, x: Tensor, steps: tuple[int, ...], alpha: float
) -> dict[int, tuple[Tensor, Tensor]]:
    """T_eval -> (the image forwarded from ``h0``, ``mu_x``), each of the shape of `x`; nan from where it diverged."""
    nothing = torch.full_like(x, math.nan)
    found, done = dict.fromkeys(sorted(steps), (nothing, nothing)), 0
    try:
        for t in found:
            result = net.infer({"x": x}, init=init, steps=t - done, optimizer=SGD(lr=alpha))
            found[t] = net.predict({"h0": result.states["h0"]}, "x"), result.predictions["x"].clone()
            init, done = net.carry_on({v: result.states[v].clone() for v in net.graph if v != "x"}), t
    except (pcgraph.Diverged, pcgraph.ClampError):
        pass
    return found
