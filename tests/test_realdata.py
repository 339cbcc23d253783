"""The whole trip on real images: what the paper's network learns in five epochs, and a small one on digits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from pcgraph import SGD, Forward, PCNetwork, data
from pcgraph.errors import DataError
from pcgraph.graphs import chain
from pcgraph.training import EpochRecord, evaluate, fit

pytestmark = [
    pytest.mark.realdata,
    # At these rates the gradients of the first layers stay below AdamW's eps, which fit says. A smaller eps lets them
    # through, scaled up to full steps, and the network learns less by it.
    pytest.mark.filterwarnings("ignore:gradients are below the optimizer's eps"),
]


def accuracies(name: str, hidden: Sequence[int], *, batch: int, epochs: int, enough: float) -> list[float]:
    """Test accuracies, epoch by epoch, by the documented rates; training ends early once one is `enough`."""
    try:
        train, test = data.load(name), data.load(name, "test")
    except DataError as absent:
        pytest.skip(f"{name} is not at hand: {str(absent).splitlines()[0]}")
    net = PCNetwork(chain([*train.shape, *hidden, len(train.classes)], activation="relu"), seed=0)
    unseen = test.batches(1000, shuffle=False)

    def is_enough(record: object) -> bool:
        return isinstance(record, EpochRecord) and record.validation["accuracy"] >= enough

    history = fit(
        net, train.batches(batch, seed=0), init=Forward(), steps=5, state_optimizer=SGD(lr=0.01),
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), epochs=epochs,
        validate=lambda net: evaluate(net, unseen), callbacks=is_enough, progress=False,
    )  # fmt: skip
    return history.values("accuracy")


def test_the_papers_network_on_fashion_mnist() -> None:
    """784-512x4-10, forward initialization, five inference steps: the best of five epochs is right for 86 % at least.

    The run ends with the first epoch that is, so the test is quick where all is well.
    """
    found = accuracies("fashion-mnist", [512] * 4, batch=200, epochs=5, enough=0.86)
    assert max(found) >= 0.86, found


def test_digits() -> None:
    """A small network tells digits apart within seconds; nearest to what a newcomer runs first."""
    found = accuracies("digits", [128, 128], batch=50, epochs=10, enough=1.0)
    assert max(found) >= 0.95, found
    assert found[-1] >= 0.95, found
