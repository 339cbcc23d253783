"""The classifier of the paper's Figures 2, 5, 6 and Tables 1, 3: its data, its training, and what is noted of a run.

The network is 784-512-512-512-512-10 with a linear output (AlexNet on CIFAR10), the target is one-hot, and all methods
see the same stream-aligned batches of 200 in the same order. After every epoch the accuracy is measured on the test set
and on the validation set, which is cut from the training set before a fraction of what is left is taken; a run may do
without one. Seconds are those of training alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from common import Clock, Store, versions
from grid import Setting
from torch import Tensor

import pcgraph
from pcgraph import SGD, Average, Forward, Normal, Null, PCNetwork, Zero, data
from pcgraph.initializers import Initializer

__all__ = ["BATCH", "WIDTH", "Records", "Run", "make", "sets", "train", "update_of", "work"]

WIDTH = 512
BATCH = 200


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes
    ----------
    setting : Setting
    seed : int
        Of the first weights, and of the order of the batches.
    epochs : int
    fraction : float
        Of the training set without the validation set.
    validation : int
        Images that are kept from training; 0 for none, as in the paper.
    dataset : str
    width, batch : int
        Neurons in a hidden layer; images in a batch.
    normalize : str
        Of the pixels: "unit" leaves them in [0, 1], "standard" gives them mean 0 and deviation 1. The paper says
        nothing of it.
    """

    setting: Setting
    seed: int
    epochs: int = 16
    fraction: float = 1.0
    validation: int = 2000
    dataset: str = "fashion-mnist"
    width: int = WIDTH
    batch: int = BATCH
    normalize: str = "unit"

    @property
    def columns(self) -> dict[str, object]:
        """All of it, as the columns of a row."""
        rest = {k: v for k, v in asdict(self).items() if k != "setting"}
        return asdict(self.setting) | rest

    @property
    def name(self) -> str:
        """A short name that depends on all of it."""
        return sha256(repr(sorted(self.columns.items())).encode()).hexdigest()[:12]


@cache
def _whole(dataset: str, part: str, normalize: str) -> data.Images:
    return data.load(dataset, part, normalize=normalize)


def sets(run: Run) -> tuple[data.Images, data.Images | None, data.Images]:
    """Training, validation and test set. Fractions are class-balanced, and the smaller are parts of the larger."""
    train, validation = _whole(run.dataset, "train", run.normalize), None
    if run.validation:
        train, validation = train.split(run.validation, seed=0)
    if run.fraction < 1:
        train = train.split(round((1 - run.fraction) * len(train)), seed=1)[0]
    return train, validation, _whole(run.dataset, "test", run.normalize)


def initializer(setting: Setting, seed: int) -> Initializer:
    """The initializer that a setting names."""
    return {
        "Forward": lambda: Forward(),
        "Average": lambda: Average(by="y", forward_depth=setting.depth),
        "Zero": lambda: Zero(),
        "Normal": lambda: Normal(std=0.1, seed=seed),
        "Null": lambda: Null(first=Forward()),
    }[setting.method]()


def make(run: Run, images: data.Images) -> PCNetwork:
    """The network for a set of images with its first weights, PyTorch's default: AlexNet for colours, else a chain."""
    shape, classes = images.shape, len(images.classes)
    if len(shape) == 3:
        graph = pcgraph.graphs.alexnet(classes, input_shape=shape, activation=run.setting.activation)
    else:
        graph = pcgraph.graphs.chain([*shape, *[run.width] * 4, classes], activation=run.setting.activation)
    return PCNetwork(graph, seed=run.seed)


def update_of(net: PCNetwork, run: Run) -> Callable[[Tensor, Tensor], None]:
    """What updates the weights by a batch of images and one-hot labels."""
    setting, init = run.setting, None
    if setting.method != "backprop":
        init = initializer(setting, run.seed)
    states = SGD(lr=setting.alpha) if init is not None else None
    weights = torch.optim.AdamW(net.parameters(), lr=setting.lr, fused=True)

    def update(x: Tensor, y: Tensor) -> None:
        weights.zero_grad()
        if init is None:
            pcgraph.learning.backprop(net, {"x": x}, {"y": y})
        else:
            net.infer({"x": x, "y": y}, init=init, steps=setting.steps, optimizer=states).backward()
        weights.step()

    return update


def epochs(net: PCNetwork, run: Run, batches: Iterable) -> Iterator[None]:
    """Train; yields after every epoch."""
    update = update_of(net, run)
    for _ in range(run.epochs):
        for x, y in batches:
            update(x, y)
        yield


def accuracy(net: PCNetwork, images: data.Images) -> float:
    """In percent, by a forward sweep."""
    right = [
        net.predict({"x": x}, "y").argmax(1) == y
        for x, y in zip(images.images.split(2000), images.labels.split(2000), strict=True)
    ]
    return 100 * float(torch.cat(right).float().mean())


def train(run: Run) -> tuple[dict, list[dict]]:
    """Train, and note the accuracies after every epoch.

    Returns
    -------
    row : dict
        The settings, the outcome ("ok" or "diverged": a state or weight that is not finite), the best epoch by
        validation and by test with its test accuracy, seconds and versions.
    curve : list of dict
        Epoch, validation and test accuracy (percent; empty without a validation set), wall and processor seconds of
        training until then.
    """
    train_set, validation, test = sets(run)
    net = make(run, train_set)
    curve: list[dict] = []
    outcome, clock = "ok", Clock()
    try:
        for _ in epochs(net, run, train_set.batches(run.batch, seed=run.seed, stream_aligned=True)):
            clock.stop()
            curve.append({
                "run": run.name, "epoch": len(curve) + 1,
                "validation": f"{accuracy(net, validation):.2f}" if validation is not None else "",
                "test": f"{accuracy(net, test):.2f}", "wall": f"{clock.wall:.2f}",
                "processor": f"{clock.processor:.2f}",
            })  # fmt: skip
            clock.start()
    except pcgraph.Diverged:
        clock.stop()
        outcome = "diverged"
    row = {"run": run.name} | run.columns | {"images": len(train_set), "outcome": outcome} | best(curve)
    return row | {"wall": f"{clock.wall:.1f}", "processor": f"{clock.processor:.1f}"} | versions(), curve


def best(curve: list[dict]) -> dict[str, object]:
    """The epochs best on the validation images, if there are any, and on the test images, the first among equals."""
    found: dict[str, object] = {}
    for by in ("validation", "test"):
        top = max((point for point in curve if point[by] != ""), key=lambda point: float(point[by]), default=None)
        for column, value in (("epoch", "epoch"), ("validation", "validation"), ("test", "test")):
            found[f"{column}_by_{by}"] = top[value] if top else ""
    return found


class Records:
    """The rows of finished runs and their curves, in two files of a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.runs = Store(folder / f"{name}_runs.csv", ["run"])
        self.curves = Store(folder / f"{name}_curves.csv", ["run", "epoch"])

    def row(self, run: Run) -> dict[str, str] | None:
        """The row of a finished run."""
        return self.runs.find(run=run.name)

    def finished(self, runs: Iterable[Run]) -> list[dict[str, str]]:
        """The rows of those that are finished."""
        return [row for run in runs if (row := self.row(run)) is not None]

    def curve(self, run: Run | str) -> list[dict[str, str]]:
        """The curve of a finished run, or of its name."""
        return self.curves.where(run=run if isinstance(run, str) else run.name)

    def add(self, row: dict, curve: list[dict]) -> None:
        """Keep a finished run. The curve goes first, so that a run with a row has one."""
        self.curves.add(*curve)
        self.runs.add(row)


def work(runs: Iterable[Run], records: Records, processes: int = 1) -> None:
    """Train what is missing, each in a process of its own if there are several; rows are kept as they come."""
    missing = [run for run in dict.fromkeys(runs) if records.row(run) is None]
    if processes > 1 and len(missing) > 1:
        with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = pool.map(train, missing)
            for row, curve in found:
                _keep(records, row, curve)
        return
    for run in missing:
        _keep(records, *train(run))


def _keep(records: Records, row: dict, curve: list[dict]) -> None:
    records.add(row, curve)
    shown = ("method", "activation", "lr", "alpha", "steps", "depth", "fraction", "epochs", "seed", "outcome")
    print(*(row[k] for k in (*shown, "test_by_validation", "test_by_test", "epoch_by_test", "wall")), flush=True)
