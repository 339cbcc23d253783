"""What is loaded is loaded by name, and whole or not at all: a table of (what differs) x (where it is loaded)."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pcgraph
from pcgraph.checkpoints import generators_state
from pcgraph.data import Images
from pcgraph.errors import CheckpointError
from pcgraph.serialization import encode
from pcgraph.testing.strategies import digraphs

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR), torch.arange(24) % 3


def declared(
    hidden: str = "abc", keys: str = "pq", nodes: dict[str, Any] | None = None, edges: dict[str, Any] | None = None
) -> nx.MultiDiGraph:
    """x -> a, b, c -> y, and two parallel edges a -> c, with hidden nodes and keys declared in an order."""
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=4)
    for node in hidden:
        graph.add_node(node, **{"shape": 5, "activation": "tanh", **(nodes or {})})
    graph.add_node("y", shape=3)
    for node in sorted(hidden):
        graph.add_edge("x", node, key="in", **(edges or {}))
        graph.add_edge(node, "y", key="out")
    for key in keys:
        graph.add_edge("a", "c", key=key)
    return graph


def memory(net: pcgraph.PCNetwork, **changed: Any) -> pcgraph.Memory:
    """A memory of two of the three hidden nodes; the third is swept."""
    chosen = {"nodes": ["a", "b"], "patterns": 4, "heads": 1, "embed_dim": 6, "beta": 2.0}
    return pcgraph.Memory(net, **chosen | changed)


class Counting(pcgraph.learning.Standard):
    """A rule with something to keep."""

    def __init__(self) -> None:
        object.__setattr__(self, "seen", 0)

    def __call__(self, step: Any) -> Any:
        object.__setattr__(self, "seen", self.seen + 1)
        return super().__call__(step)

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        object.__setattr__(self, "seen", state["seen"])


Init = Callable[[pcgraph.PCNetwork], pcgraph.Initializer]


@dataclass
class Run:
    """All that a run is made of, and that a checkpoint is loaded into."""

    graph: Callable[[], nx.DiGraph] = declared
    init: Init = lambda net: pcgraph.Null(first=pcgraph.Zero())
    optimizer: Callable[[list[Any]], Any] = lambda held: torch.optim.AdamW(held, lr=0.01)
    held: Callable[[list[Any]], list[Any]] = lambda held: held
    scheduler: Callable[[Any], Any] | None = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1)
    loader: Callable[[], Any] = lambda: Images(X, LABELS).batches(6, seed=3)
    dtype: torch.dtype = torch.float32
    rule: Callable[[], Any] = Counting
    parts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        net = pcgraph.PCNetwork(self.graph(), seed=random.randrange(10**6), dtype=self.dtype)
        init = self.init(net)
        optimizer = self.optimizer(self.held([*net.parameters(), *init.parameters()]))
        self.parts = {"net": net, "initializer": init, "optimizer": optimizer, "loader": self.loader()}
        if self.scheduler is not None:
            self.parts["scheduler"] = self.scheduler(optimizer)
        self.the_rule = self.rule()

    def fit(self, **more: Any) -> None:
        parts = self.parts
        pcgraph.fit(
            parts["net"], parts["loader"], init=parts["initializer"], steps=2, optimizer=parts["optimizer"],
            state_optimizer=pcgraph.SGD(lr=0.05), scheduler=parts.get("scheduler", ()), progress=False,
            rule=self.the_rule, **more,
        )  # fmt: skip

    def everything(self) -> Any:
        """All that loading could change, as plain data: states, modes and the dice."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        more = {"rule": self.the_rule.state_dict() if isinstance(self.the_rule, Counting) else None}
        modes = [module.training for module in self.parts["net"].modules()]
        kept = [vars(part).get("_fitted") for part in self.parts["initializer"].modules()]
        return encode([states, more, modes, kept, generators_state(), self.parts["net"].graph.graph])


def checkpoint_of(run: Run, folder: Path, kind: str, only: tuple[str, ...] | None = None) -> None:
    """Train a little, and save as `kind` says."""
    if kind == "fit":
        run.fit(epochs=1, checkpoint=folder)
        return
    run.fit(epochs=1)
    parts = run.parts if only is None else {name: part for name, part in run.parts.items() if name in ("net", *only)}
    pcgraph.save(folder, **parts)


def load_into(run: Run, folder: Path, kind: str) -> None:
    if kind == "fit":
        run.fit(epochs=2, checkpoint=folder, resume=folder)
    elif kind == "restore":
        pcgraph.load(folder).restore(**run.parts, generators=True)
    else:
        names = {"net": ("net",), "net and optimizer": ("net", "optimizer"), "optimizer": ("optimizer",)}[kind]
        pcgraph.load(folder).restore(**{name: run.parts[name] for name in names})


def twins() -> nx.DiGraph:
    """The two parallel edges in two tensors of one shape."""
    graph = declared()
    graph.edges["a", "c", "p"]["activation"] = "relu"
    return graph


def swapped(held: list[Any]) -> list[Any]:
    """Parameters in an order in which two of one shape have changed places."""
    pairs = itertools.combinations(range(len(held)), 2)
    i, j = next((i, j) for i, j in pairs if held[i].shape == held[j].shape)
    held[i], held[j] = held[j], held[i]
    return held


def labelled() -> Any:
    return Images(X, LABELS).batches(6, seed=3, labels=True)


def other(order: Callable[[list[Any]], list[Any]]) -> dict[str, Any]:
    return {"held": order}


#: What differs -> (how the saved run was made, how the one that is loaded into is made).
DIFFERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nodes in another order": ({}, {"graph": lambda: declared("bac")}),
    "keys in another order": ({}, {"graph": lambda: declared(keys="qp")}),
    "nodes in another order, in a graph with a function": (
        {"graph": lambda: declared(nodes={"activation": torch.sin})},
        {"graph": lambda: declared("bac", nodes={"activation": torch.sin})},
    ),
    "another function": (
        {"graph": lambda: declared(nodes={"activation": torch.sin})},
        {"graph": lambda: declared(nodes={"activation": torch.cos})},
    ),
    "other activations": ({}, {"graph": lambda: declared(nodes={"activation": "relu"})}),
    "other shapes": ({}, {"graph": lambda: declared(nodes={"shape": 6})}),
    "another precision": ({}, {"graph": lambda: declared(nodes={"precision": 2.0})}),
    "frozen edges": ({}, {"graph": lambda: declared(edges={"trainable": False})}),
    "a node more": ({}, {"graph": lambda: declared("abcd")}),
    "a node less": ({"graph": lambda: declared("abcd")}, {}),
    "another dtype": ({}, {"dtype": torch.float64}),
    "another optimizer": ({}, {"optimizer": lambda held: torch.optim.SGD(held, lr=0.01)}),
    "parameters of the optimizer in another order": ({}, other(lambda held: held[::-1])),
    "parameters of one shape in another order": ({"graph": twins}, {"graph": twins, "held": swapped}),
    "fewer parameters": ({}, other(lambda held: held[:-1])),
    "another initializer": ({}, {"init": lambda net: pcgraph.Forward(fallback=pcgraph.Zero())}),
    "another first initializer": ({}, {"init": lambda net: pcgraph.Null(first=pcgraph.Normal())}),
    "another size of the memory": ({"init": memory}, {"init": lambda net: memory(net, patterns=5)}),
    "other heads of the memory": ({"init": memory}, {"init": lambda net: memory(net, nodes=["b", "a"])}),
    "another assignment of initializers": (
        {"init": lambda net: pcgraph.PerNode({"a": pcgraph.Normal(seed=1)}, default=pcgraph.Zero())},
        {"init": lambda net: pcgraph.PerNode({"b": pcgraph.Normal(seed=1)}, default=pcgraph.Zero())},
    ),
    "means of another node": (
        {"init": lambda net: pcgraph.Average(by="y"), "loader": labelled},
        {"init": lambda net: pcgraph.Average(by=None, classes=3), "loader": labelled},
    ),
    "another scheduler": ({}, {"scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)}),
    "other samples": ({}, {"loader": lambda: Images(X[:18], LABELS[:18]).batches(6, seed=3)}),
    "another batch size": ({}, {"loader": lambda: Images(X, LABELS).batches(4, seed=3)}),
}  # fmt: skip
#: What each way of loading does not look at.
BLIND = {
    "restore": (),
    "fit": (),
    "net": ("optimizer", "fewer", "parameters", "initializer", "memory", "means", "scheduler", "samples", "batch"),
    "net and optimizer": ("initializer", "memory", "means", "scheduler", "samples", "batch size"),
}


@pytest.mark.filterwarnings("ignore:the graph is not in the checkpoint")
@pytest.mark.filterwarnings("ignore:the optimizer does not hold")
@pytest.mark.parametrize(
    ("what", "way"),
    [(what, way) for what in DIFFERS for way, blind in BLIND.items() if not any(word in what for word in blind)],
)
def test_what_differs_is_refused_and_nothing_has_changed(tmp_path: Path, what: str, way: str) -> None:
    """Half of a checkpoint, or all of it in the wrong places, is worse than none: nothing shows it."""
    saved, found = DIFFERS[what]
    checkpoint_of(Run(**saved), tmp_path, "fit" if way == "fit" else "save")
    run = Run(**found)
    run.fit(epochs=1)
    before = run.everything()
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError):
        load_into(run, tmp_path, way)
    assert run.everything() == before
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("missing", ["optimizer", "initializer", "scheduler", "loader"])
def test_what_was_not_saved_is_refused_and_nothing_has_changed(tmp_path: Path, missing: str) -> None:
    kept = tuple(name for name in ("optimizer", "initializer", "scheduler", "loader") if name != missing)
    checkpoint_of(Run(), tmp_path, "save", kept)
    run = Run()
    before = run.everything()
    with pytest.raises(CheckpointError, match=f"has no {missing}"):
        load_into(run, tmp_path, "restore")
    assert run.everything() == before


@pytest.mark.parametrize("scheduler", [None, lambda o: torch.optim.lr_scheduler.StepLR(o, 2)])
def test_the_same_is_taken(tmp_path: Path, scheduler: Any) -> None:
    """The table would be no use if everything were refused."""
    for way in ("restore", "fit", "net", "net and optimizer"):
        one, two = Run(scheduler=scheduler), Run(scheduler=scheduler)
        checkpoint_of(one, tmp_path / way, "fit" if way == "fit" else "save")
        shutil.copytree(tmp_path / way, tmp_path / f"{way} again")
        load_into(two, tmp_path / way, way)
        if way == "fit":
            load_into(one, tmp_path / f"{way} again", way)
            assert two.everything() == one.everything()
        assert same(by_name(one.parts["net"]), by_name(two.parts["net"]))


@pytest.mark.parametrize("stage", ["optimizer", "initializer", "loader", "scheduler", "generators"])
def test_an_error_in_the_last_part_puts_all_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Whatever breaks, and wherever: by then the network had been loaded."""
    checkpoint_of(Run(), tmp_path, "save")
    run = Run()
    run.fit(epochs=1)
    before = run.everything()

    def fails(*arguments: Any, **more: Any) -> None:
        raise ZeroDivisionError("lost")

    if stage == "generators":
        monkeypatch.setattr("pcgraph.checkpoints.checkpoint.set_generators", _once(fails))
    else:
        monkeypatch.setattr(type(run.parts[stage]), "load_state_dict", fails)
    with pytest.raises(CheckpointError, match="lost"):
        pcgraph.load(tmp_path).restore(**run.parts, generators=True)
    monkeypatch.undo()
    assert run.everything() == before


def _once(fails: Callable[..., None]) -> Callable[..., None]:
    """Fail at the first call, and do nothing later: what puts all back calls it again."""
    calls = iter([fails])
    return lambda *arguments, **more: next(calls, lambda *a, **k: None)(*arguments, **more)


def test_an_interrupt_in_the_middle_puts_all_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_of(Run(), tmp_path, "save")
    run = Run()
    before = run.everything()

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", interrupted)
    monkeypatch.setattr("pcgraph.checkpoints.fits._try_step", lambda *arguments: None)
    with pytest.raises(KeyboardInterrupt):
        pcgraph.load(tmp_path).restore(**run.parts)
    monkeypatch.undo()
    assert run.everything() == before


def test_a_checkpoint_is_restored_as_often_as_one_likes(tmp_path: Path) -> None:
    """What trains on does not write into the checkpoint that was read."""
    checkpoint_of(Run(), tmp_path, "save")
    checkpoint, found = pcgraph.load(tmp_path), []
    for _ in range(2):
        run = Run()
        checkpoint.restore(**run.parts, generators=True)
        run.parts["loader"] = Images(X, LABELS).batches(6, seed=3)
        run.fit(epochs=2)
        found.append(encode([run.parts[name].state_dict() for name in ("net", "optimizer", "initializer")]))
    assert found[0] == found[1]


# -- by name ----------------------------------------------------------------------------------------------------------


def by_name(net: pcgraph.PCNetwork) -> dict[Any, Tensor]:
    """Every weight and bias under the names that it belongs to."""
    found = {}
    for i in range(len(net.structure.source)):
        edge = net.structure.edge(i)
        if net.structure.buckets[int(net.structure.bucket_of[i])].kind in ("linear", "sparse"):
            found[edge] = net.weight(*edge).clone()
    for node in net.structure.nodes:
        if net.bias_place(node) is not None:
            found[node] = net.bias(node).clone()
    return found


def redeclared(graph: nx.DiGraph, dice: random.Random) -> nx.DiGraph:
    """The same graph, declared in another order."""
    twin = type(graph)()
    nodes, edges = list(graph.nodes(data=True)), list(graph.edges(keys=True, data=True) if graph.is_multigraph()
                                                       else graph.edges(data=True))  # fmt: skip
    dice.shuffle(nodes)
    dice.shuffle(edges)
    twin.add_nodes_from((node, dict(data)) for node, data in nodes)
    twin.add_edges_from((*edge[:-1], dict(edge[-1])) for edge in edges)
    return twin


def same(one: dict[Any, Tensor], two: dict[Any, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@settings(max_examples=60, deadline=None)
@given(graph=digraphs(max_nodes=6, max_size=2, parallel=True, priors=True), seed=st.integers(0, 999))
def test_any_order_of_declaration_is_loaded_by_name_or_refused(
    tmp_path_factory: Any, graph: nx.DiGraph, seed: int
) -> None:
    """Whichever of the two: no weight lands on an edge of another name."""
    folder = tmp_path_factory.mktemp("c")
    one = pcgraph.PCNetwork(graph, seed=1)
    two = pcgraph.PCNetwork(redeclared(graph, random.Random(seed)), seed=2)
    before, after = by_name(one), by_name(two)
    pcgraph.save(folder, one)
    try:
        pcgraph.load(folder).restore(net=two)
    except CheckpointError:
        assert same(by_name(two), after)
    else:
        assert same(by_name(two), before)
    assert same(by_name(pcgraph.load(folder).net), before)


def test_an_order_that_makes_no_difference_is_taken(tmp_path: Path) -> None:
    """A chain is the same network whichever of its nodes was named first."""
    chain = pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh")
    one = pcgraph.PCNetwork(chain, seed=1)
    pcgraph.save(tmp_path, one)
    for seed in range(8):
        two = pcgraph.PCNetwork(redeclared(chain, random.Random(seed)), seed=2)
        pcgraph.load(tmp_path).restore(net=two)
        assert same(by_name(one), by_name(two))


def test_the_refusal_names_what_stands_elsewhere(tmp_path: Path) -> None:
    pcgraph.save(tmp_path, pcgraph.PCNetwork(declared()))
    says = r'another order \(the node "b" where the node "a" was\), so that the rows of .* belong to others; declare'
    with pytest.raises(CheckpointError, match=says):
        pcgraph.load(tmp_path).restore(net=pcgraph.PCNetwork(declared("bac")))


@pytest.mark.parametrize("names", [(1, 2, 3), (("a", 1), ("a", 2), ("b", 1)), (1.5, 2, "x"), ("\ud800", "ö", "a\nb")])
def test_names_of_every_kind_are_told_apart(tmp_path: Path, names: tuple[Any, ...]) -> None:
    """In a graph that can be saved and in one that cannot."""
    for sigma in ("tanh", torch.sin):
        nets = []
        for order in itertools.permutations(names):
            graph = nx.DiGraph()
            graph.add_nodes_from(order, shape=2, activation=sigma)
            graph.add_node("in", shape=2)
            graph.add_edges_from(("in", node) for node in order)
            nets.append(pcgraph.PCNetwork(graph, seed=len(nets)))
        folder = tmp_path / str(sigma)[:4]
        if sigma == "tanh":
            pcgraph.save(folder, nets[0])
        else:
            with pytest.warns(pcgraph.errors.PCGraphWarning):
                pcgraph.save(folder, nets[0])
        pcgraph.load(folder).restore(net=nets[0])
        for net in nets[1:]:
            with pytest.raises(CheckpointError):
                pcgraph.load(folder).restore(net=net)


def test_numpy_generators_are_put_back(tmp_path: Path) -> None:
    pcgraph.save(tmp_path, pcgraph.PCNetwork(declared()))
    drawn = (torch.rand(3), np.random.random(3), random.random())
    pcgraph.load(tmp_path).restore(generators=True)
    again = (torch.rand(3), np.random.random(3), random.random())
    assert all((a == b).all() if hasattr(a, "all") else a == b for a, b in zip(drawn, again))
