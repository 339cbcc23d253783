"""What a user writes who checks types strictly: every public object in use has the types that the pages promise."""

from collections.abc import Iterator
from pathlib import Path

import networkx as nx  # type: ignore[import-untyped]
import torch
from torch import Tensor

import pcgraph
from pcgraph import data, drawing, energies, initializers, optimizers, topology, transforms, tuning
from pcgraph.training import Evaluation, History


class Halved(transforms.Transform):
    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class Absolute(energies.Energy):
    zero_at_prediction = True

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return (h - mu).abs().flatten(1).sum(1)


class Ones(initializers.Initializer):
    def requirement(self, report: topology.Report) -> topology.Verdict:
        return report.verdicts["zero"]

    def init(self, block: initializers.Block, out: Tensor, context: initializers.Context) -> None:
        out.fill_(1.0)


class Signs(optimizers.StateOptimizer):
    def step(self, state: Tensor, grad: Tensor, memory: dict[str, object]) -> None:
        state.sub_(grad.sign() * 0.01)


def declare() -> nx.DiGraph:
    graph = pcgraph.graphs.chain([4, 5, 3], activation="tanh")
    graph.add_edge("x", "y", transform=transforms.Linear())
    return graph


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.zeros(6, 4), torch.eye(3)[torch.arange(6) % 3]


def watched(net: pcgraph.PCNetwork, x: Tensor) -> Tensor:
    trace = pcgraph.Trace(["h1"], every=2)
    states = pcgraph.SGD(lr=pcgraph.Following(0.1))
    result = net.infer({"x": x}, init=pcgraph.Forward(), steps=4, optimizer=states, trace=trace)
    assert result.state_trace is not None
    kept: Tensor = result.state_trace["h1"]
    return kept


def joint() -> Tensor:
    graph = nx.DiGraph()
    graph.add_nodes_from(["x", "z"], shape=4)
    graph.add_node("y", shape=4, combine="gate", slots={"decay": {"prior": 0.0, "precision": 0.1}})
    graph.add_edge("x", "y", role="gate")
    graph.add_edge("z", "y", role="value", transform=torch.nn.Linear(4, 4, bias=False))
    net = pcgraph.PCNetwork(graph)
    combined: torch.nn.Module = net.combine("y")
    module: torch.nn.Module = net.as_module(["x", "z"], "y")
    return net.predict({"x": torch.ones(2, 4), "z": torch.ones(2, 4)}, "y") * len(list(combined.parameters())) + len(
        list(module.parameters())
    )


def handled(net: pcgraph.PCNetwork) -> torch.optim.Optimizer:
    edge = net.edge("x", "h1")
    edge.freeze()
    weight: Tensor = edge.weight
    edge.unfreeze()
    groups = net.parameter_groups({("x", "h1"): {"lr": 1e-3}, net.node("h1"): {"weight_decay": 0.0}})
    print(weight.shape, net.load_from(pcgraph.PCNetwork(declare())), net.summary())
    return torch.optim.AdamW(groups, lr=1e-2)


def objective(settings: dict[str, object], progress: tuning.Progress) -> float:
    return float(str(settings["lr"]))


def searched() -> dict[str, object]:
    found = pcgraph.search(objective, {"lr": [0.1, 0.2]}, trials=2, progress=False)
    return dict(found.best)


def parts(net: pcgraph.PCNetwork) -> list[int]:
    cut: pcgraph.Partition = pcgraph.partition(net.graph, 2, balance="memory")
    return [cut[v] for v in net.graph]


def main(folder: Path) -> float:
    graph = declare()
    own = (Halved(), Absolute(), Ones(), Signs(lr=0.1))
    report = pcgraph.check(graph, clamped={"x", "y"})
    order: tuple[object, ...] | None = report.order
    net = pcgraph.PCNetwork(graph, seed=0)
    x, y = next(batches())
    states = pcgraph.SGD(lr=0.1)
    result = net.infer({"x": x, "y": y}, init=pcgraph.Forward(), steps=3, optimizer=states, trace="nodes")
    error: Tensor = result.errors["h1"]
    result.backward()
    plan: pcgraph.Plan = net.plan({"x", "y"}, init=pcgraph.Forward(), steps=3)
    answer: Tensor = net.predict({"x": x}, "y")
    history: History = pcgraph.fit(
        net, list(batches()), clamp=("x", "y"), init=pcgraph.Forward(), steps=3, state_optimizer=states, epochs=1,
        optimizer=torch.optim.Adam(net.parameters()), progress=False,
    )  # fmt: skip
    measured: Evaluation = pcgraph.evaluate(net, list(batches()), given="x", predict="y")
    picture: drawing.Svg = drawing.svg(net, result=result)
    pcgraph.save(folder / "network", net)
    again: pcgraph.PCNetwork | None = pcgraph.load(folder / "network").net
    try:
        net.infer({"x": x}, init=pcgraph.Forward(), steps=1, optimizer=pcgraph.Adam(lr=0.1))
    except pcgraph.InvalidInitializer as refused:
        print(refused.verdict)
    images: data.Images = data.load("digits")
    print(watched(net, x).shape, joint().shape, handled(net), searched(), parts(net))
    print(own, order, error.shape, plan.smm.paper, answer.shape, history.epochs, str(picture)[:4], again, len(images))
    return measured.accuracy or 0.0
