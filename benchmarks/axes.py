"""What other ways of inference cost: a training step by each, beside one of plain states and one of backpropagation.

    python -m benchmarks.axes

The chain is the paper's, 784-512x4-10 with gelu, at batch 200, on one thread, with AdamW; backpropagation is plain
torch. All take turns in blocks of a few steps, and medians of the blocks count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import pcgraph
from pcgraph import SGD, Duals, Errors, Forward

SIZES, BATCH, STEPS, BLOCK, ROUNDS = (784, 512, 512, 512, 512, 10), 200, (2, 5, 10), 4, 7
#: Each way by its name: what `infer` is given beside.
WAYS: dict[str, dict[str, Any]] = {
    "states": {}, "error coordinates": {"coordinates": Errors()}, "PC-ALM": {"duals": Duals(0.5)},
}  # fmt: skip


def batch_of() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(BATCH, SIZES[0], generator=torch.Generator().manual_seed(0))
    return x, torch.eye(SIZES[-1])[torch.arange(BATCH) % SIZES[-1]]


def learner(steps: int, **way: Any) -> Callable[[], None]:
    net = pcgraph.PCNetwork(pcgraph.graphs.chain(list(SIZES), activation="gelu"), seed=0)
    optimizer, (x, y) = torch.optim.AdamW(net.parameters(), lr=1e-4), batch_of()

    def learn() -> None:
        optimizer.zero_grad()
        net.infer({"x": x, "y": y}, init=Forward(), steps=steps, optimizer=SGD(lr=0.01), check=False, **way).backward()
        optimizer.step()

    return learn


def backprop() -> Callable[[], None]:
    layers: list[torch.nn.Module] = []
    for a, b in zip(SIZES, SIZES[1:]):
        layers += [torch.nn.Linear(a, b), torch.nn.GELU()]
    model, (x, y) = torch.nn.Sequential(*layers[:-1]), batch_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def learn() -> None:
        optimizer.zero_grad()
        (0.5 * (model(x) - y).square().sum(1)).mean().backward()
        optimizer.step()

    return learn


def measured() -> dict[str, float]:
    """Seconds of a step of each way, named "way, T", and of backpropagation."""
    learners = {"backpropagation": backprop()}
    learners |= {f"{name}, {steps}": learner(steps, **way) for steps in STEPS for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(ROUNDS):
        for name, learn in learners.items():
            learn()  # the caches hold what the one before has left
            began = time.perf_counter()
            for _ in range(BLOCK):
                learn()
            times[name].append((time.perf_counter() - began) / BLOCK)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    torch.set_num_threads(1)
    found = measured()
    for steps in STEPS:
        errors = found[f"error coordinates, {steps}"] / found["backpropagation"]
        duals = found[f"PC-ALM, {steps}"] / found[f"states, {steps}"]
        print(
            f"T = {steps}: error coordinates {errors:.2f} of one of backpropagation (asked: at most {steps + 1.2:.1f})"
            f", PC-ALM {duals:.2f} of one of plain states (1.25)"
        )


if __name__ == "__main__":
    main()
