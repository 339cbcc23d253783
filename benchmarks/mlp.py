"""One training step of the paper's network: pcgraph, torch backpropagation, and the limit.

The limit is the products that the step really needs, back to back as plain ``torch.mm`` into tensors that exist, plus
the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import pcgraph
from pcgraph import SGD, Duals, Errors, Forward, PCNetwork
from pcgraph.plan.operations import Propagate


def data(sizes: list[int], batch: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of noise with one-hot targets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, sizes[0], generator=generator)
    y = torch.nn.functional.one_hot(torch.arange(batch) % sizes[-1], sizes[-1]).float()
    return x.to(device), y.to(device)


INFERENCE = {"states": {}, "errors": {"coordinates": Errors()}, "duals": {"duals": Duals(0.5)}}


def ours(
    sizes: list[int], batch: int, steps: int, activation: str = "gelu", device: str = "cpu", inference: str = "states"
) -> Callable[[], object]:
    """pcgraph's training step, by the public calls: by states, by error coordinates or with duals."""
    net = PCNetwork(pcgraph.graphs.chain(sizes, activation=activation), device=device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    x, y = data(sizes, batch, device)
    start, states, settings = Forward(), SGD(lr=0.1), INFERENCE[inference]

    def step() -> None:
        optimizer.zero_grad()
        net.infer({"x": x, "y": y}, init=start, steps=steps, optimizer=states, **settings).backward()
        optimizer.step()

    return step


def backprop(sizes: list[int], batch: int, activation: str = "gelu", device: str = "cpu") -> Callable[[], object]:
    """The same network in plain torch, eager, with the same optimizer; a step gives the loss."""
    layers: list[torch.nn.Module] = []
    kind = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[activation]
    for a, b in zip(sizes, sizes[1:]):
        layers += [torch.nn.Linear(a, b), kind()]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x, y = data(sizes, batch, device)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (0.5 * (model(x) - y).square().sum(1)).mean()

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        found = loss(x, y)
        found.backward()
        optimizer.step()
        return found

    return step


def limit(sizes: list[int], batch: int, steps: int, device: str = "cpu") -> Callable[[], object]:
    """The plan's products alone, as ``torch.mm``, and the optimizer's step."""
    net = PCNetwork(pcgraph.graphs.chain(sizes), device=device)
    plan = net.plan({"x", "y"}, init=Forward(), steps=steps)
    s, products = plan.structure, []
    stages = [plan.stage(t) for t in range(steps)]
    forward = [op.edges for op in (*plan.prologue, plan.begin) if isinstance(op, Propagate)]
    forward += [stage.propagate.edges for stage in (*stages, plan.final)]
    back = [stage.pull.edges for stage in stages]
    for kind, calls in (("forward", forward), ("pull", back), ("w", [plan.learn.edges])):
        for e in (int(e) for edges in calls for e in edges):
            bucket = s.buckets[int(s.bucket_of[e])]
            a, z = s.groups[bucket.source_group].size, s.groups[bucket.target_group].size
            left, right = {
                "forward": (torch.randn(batch, a), torch.randn(z, a).t()),
                "pull": (torch.randn(batch, z), torch.randn(z, a)),
                "w": (torch.randn(batch, z).t(), torch.randn(batch, a)),
            }[kind]
            left, right = left.to(device), right.to(device)
            products.append((left, right, torch.empty(left.shape[0], right.shape[1], device=device)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)

    def step() -> None:
        for left, right, out in products:
            torch.mm(left, right, out=out)
        optimizer.step()

    return step
