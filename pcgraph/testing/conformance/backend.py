"""Check a backend: everything that a program can be asked, on every kind of network, against the slow reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from pcgraph import energies, graphs, transforms
from pcgraph.backends import Backend, Motion, Program, get
from pcgraph.clamps import Clamps, Masked
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ConfigError
from pcgraph.initializers import Context, Equilibrium, Forward, Initializer, Normal, Null, Zero
from pcgraph.learning import nudged
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD, Adam, StateOptimizer
from pcgraph.testing import reference
from pcgraph.testing.conformance.promises import Draws, broken, far
from pcgraph.topology import check

__all__ = ["check_backend"]


@dataclass(frozen=True, eq=False)
class _Case:
    """A case is a kind of network, and how it is run."""

    name: str
    graph: Callable[[], nx.DiGraph]
    init: Callable[[], Initializer] = Zero
    optimizer: StateOptimizer = field(default_factory=lambda: SGD(lr=0.05))
    steps: int = 3
    masked: tuple[str, ...] = ()
    coordinates: Errors | None = None
    tolerance: float | None = None
    precision: reference.Precisions | None = None
    duals: Duals | None = None


def check_backend(
    backend: str | Backend | type[Backend], *, batch: int = 3, seed: int = 0,
    device: torch.device | str | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Test a backend on small networks in float64: states, errors, energies and gradients equal the reference's.

    Parameters
    ----------
    backend : str, Backend or subclass of it
        A name of :data:`pcgraph.backends.BACKENDS`, a backend, or its class.
    batch : int
        Samples.
    seed : int
        For the weights and values that are drawn.
    device : torch.device or str, optional
        Where all is computed; torch's default device if None.

    Returns
    -------
    tuple of str
        The kinds of networks that the backend refuses, which it may do before it runs: with a ``ConfigError``.

    Raises
    ------
    BrokenPromise
        With the kind of network and what differs.

    Examples
    --------
    >>> check_backend("torch")
    ()
    """
    if isinstance(backend, type):
        if not issubclass(backend, Backend):
            raise broken(
                backend.__name__, "to be a Backend", "another class", "derive it from pcgraph.backends.Backend"
            )
        backend = backend()
    made = get(backend)
    refused = []
    for case in _cases():
        with torch.device("cpu"):
            graph = case.graph()
        net = Draws(seed, device).network(graph, backend=made)
        try:
            _check(made, case, net, batch, seed)
        except ConfigError:
            refused.append(case.name)
    if "chain" in refused:
        raise broken(made, "to compute some networks", "that it refuses a plain chain", "lower at least linear edges")
    return tuple(refused)


def _cases() -> Iterator[_Case]:
    def chain() -> nx.DiGraph:
        return graphs.chain([4, 3, 3, 3, 2], activation="tanh")

    yield _Case("chain", chain, Forward)
    yield _Case("chain, no steps", chain, Forward, steps=0)
    yield _Case("chain, many steps", chain, Forward, steps=9)
    yield _Case("chain from a draw", chain, lambda: Normal(std=0.3))
    yield _Case("momentum", chain, Forward, SGD(lr=0.05, momentum=0.8), 4)
    yield _Case("Adam", chain, lambda: Normal(std=0.3), Adam(lr=0.02, eps=1e-3), 4)
    yield _Case("a rate for each node", chain, Normal, SGD({"h1": 0.1, "h2": 0.02, None: 0.05}))
    yield _Case("cycle", lambda: _cyclic(nx.DiGraph()), lambda: Forward(fallback=Zero()))
    yield _Case("parallel edges", lambda: _cyclic(nx.MultiDiGraph()), lambda: Forward(fallback=Normal(std=0.2)))
    yield _Case("relaxed first", lambda: _cyclic(nx.DiGraph()), lambda: Equilibrium(release="y", steps=20))
    yield _Case("kept states", chain, lambda: Null(first=Zero()))
    yield _Case("partial clamps", lambda: _cyclic(nx.DiGraph()), Zero, masked=("b", "x"))
    yield _Case("partial clamps and a decaying optimizer", chain, Zero, _Decay(lr=0.05), masked=("h2",))
    yield _Case("single neurons", _neurons, Zero)
    yield _Case("kinds of nodes", _kinds_of_nodes, lambda: Normal(std=0.3))
    yield _Case("shared and frozen weights", _shared)
    yield _Case("transposed weights", _transposed)
    yield _Case("transposed weights from a draw", _transposed, lambda: Normal(std=0.3), SGD(lr=0.05, momentum=0.5), 5)
    yield _Case("edge activations and identities", _edge_activations, lambda: Normal(std=0.3))
    yield _Case("stored entries", _entries, lambda: Normal(std=0.3))
    yield _Case("modules", _modules, lambda: Normal(std=0.3))
    yield _Case("joint predictions", _joint, lambda: Normal(std=0.3))
    yield _Case("joint predictions from a sweep", _joint, lambda: Forward(fallback=Zero()), SGD(lr=0.05, momentum=0.5))
    yield _Case("error coordinates", _kinds_of_nodes_that_are_smooth, lambda: Normal(std=0.3), coordinates=Errors())
    yield _Case("error coordinates on a cycle", lambda: _cyclic(nx.DiGraph()), Zero, coordinates=Errors("repair"))
    yield _Case("slots", _slots, Forward, SGD(lr=0.05, momentum=0.5))
    yield _Case("slots from a draw", _slots, lambda: Normal(std=0.3), Adam(lr=0.02, eps=1e-3), 5)
    yield _Case("slots and a partial clamp", _slots, lambda: Forward(roots=Zero()), masked=("x", "b"))
    yield _Case("slots and error coordinates", _slots, Forward, coordinates=Errors())
    yield _Case("precisions of one run", _slots, Zero, precision={("a", "down"): 2.0, "b": 0.5, ("x", "down"): 0.1})
    schedule: reference.Precisions = {
        "b": (0.2, 1.0, 0.4, 2.0),
        ("a", "down"): (0.1, 0.1, 2.0, 0.5),
        "y": (1.0, 3.0, 1.0, 0.3),
    }
    yield _Case("precisions of each step", _slots, Zero, precision=schedule)
    yield _Case(
        "precisions of each step and error coordinates", _slots, Forward, coordinates=Errors(), precision=schedule
    )
    spiking: reference.Precisions = {
        "h3": (1.0, 0.01, 0.01, 1.0),
        "h2": (0.01, 1.0, 0.01, 1.0),
        "h1": (0.01, 0.01, 1.0, 1.0),
    }
    yield _Case("precisions of each step from a sweep", chain, Forward, SGD(lr=0.05, momentum=0.8), precision=spiking)
    yield _Case("dual variables", _kinds_of_nodes_that_are_smooth, lambda: Normal(std=0.3), duals=Duals(0.1))
    yield _Case("duals that stop", chain, Forward, SGD(lr=0.2), 9, duals=Duals(0.5, stop=0.7))
    yield _Case("a tolerance", chain, Forward, SGD(lr=0.2), 5, tolerance=1e-9)
    for name, graph in (("neurons", _neurons), ("weights", _shared), ("identities", _edge_activations),
                        ("entries", _entries), ("modules", _modules), ("transposed", _transposed)):  # fmt: skip
        yield _Case(f"scaled {name}", lambda graph=graph: _scaled(graph()), lambda: Normal(std=0.3))  # type: ignore[misc]


class _Decay(StateOptimizer):
    """Moves states without a gradient, and promises nothing."""

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        state.mul_(0.95).sub_(grad * memory["lr"])


def _nodes(graph: nx.DiGraph, **shapes: Any) -> nx.DiGraph:
    for name, shape in shapes.items():
        graph.add_node(name, shape=shape, activation="identity" if name == "y" else "tanh")
    return graph


def _cyclic(graph: nx.DiGraph) -> nx.DiGraph:
    """Declare a loop, a self-loop, a skip and a root that is not clamped."""
    _nodes(graph, x=3, a=4, b=4, c=4, y=2, r=2)
    edges = [("x", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("b", "b"), ("x", "c"), ("c", "y"), ("r", "b")]
    graph.add_edges_from(edges + ([("a", "b"), ("b", "b")] if graph.is_multigraph() else []))
    return graph


def _neurons() -> nx.DiGraph:
    graph = nx.gnm_random_graph(12, 50, seed=1, directed=True)
    graph = nx.relabel_nodes(graph, {0: "x", 11: "y"})
    nx.set_node_attributes(graph, 1, "shape")
    nx.set_node_attributes(graph, "tanh", "activation")
    graph.add_edge("x", "y")
    return graph


def _kinds_of_nodes() -> nx.DiGraph:
    """Declare energies, precisions, priors, nodes without a bias, an activation that mixes neurons, other shapes."""
    graph = _nodes(nx.DiGraph(), x=3, a=4, b=4, c=(2, 2), d=4, y=3)
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "c"), ("a", "d"), ("d", "c"), ("c", "y"), ("p", "b")])
    graph.add_node("p", shape=2, prior=0.3)
    graph.nodes["a"].update(precision=0.4, bias=False)
    graph.nodes["b"].update(energy=energies.Laplace())
    graph.nodes["c"].update(activation=nn.Softmax(dim=-1))
    graph.nodes["d"].update(energy=energies.LearnedPrecision(4), activation="gelu")
    graph.nodes["y"].update(energy=energies.Gaussian(2.0))
    return graph


def _kinds_of_nodes_that_are_smooth() -> nx.DiGraph:
    graph = _kinds_of_nodes()
    graph.nodes["b"]["energy"] = energies.Gaussian(0.7)
    return graph


def _shared() -> nx.DiGraph:
    graph = _nodes(nx.DiGraph(), x=3, a=3, b=3, c=3, y=2)
    for u, v in (("x", "a"), ("a", "b"), ("b", "c"), ("c", "b")):
        graph.add_edge(u, v, share="one")
    graph.add_edge("x", "c", trainable=False)
    graph.add_edge("c", "y", trainable=False)
    return graph


def _transposed() -> nx.DiGraph:
    """Declare feedback through transposed weights: one, several, one weight twice, of a slot, and a frozen one."""
    graph = _nodes(nx.DiGraph(), x=3, a=4, b=4, c=4, d=4, y=2)
    graph.nodes["x"]["slots"] = {"down": {}}
    for k, (u, v) in enumerate((("x", "a"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "y"))):
        graph.add_edge(u, v, share=k)
        graph.add_edge(v, u, share=k, transpose=True, activation="tanh" if u == "d" else None)
    graph.edges["c", "d"]["share"] = graph.edges["d", "c"]["share"] = 1
    graph.edges["a", "x"]["slot"] = "down"
    graph.edges["y", "d"]["trainable"] = graph.edges["d", "y"]["trainable"] = False
    return graph


def _edge_activations() -> nx.DiGraph:
    graph = _nodes(nx.DiGraph(), x=3, a=3, b=3, y=3)
    graph.add_edge("x", "a", activation="gelu")
    graph.add_edge("a", "b", transform="identity")
    graph.add_edge("x", "b", transform="identity", activation="sigmoid")
    graph.add_edge("b", "y", activation=torch.sin)
    graph.add_edge("a", "y", transform="identity", activation="tanh")
    return graph


def _entries() -> nx.DiGraph:
    graph = _nodes(nx.DiGraph(), x=4, a=6, y=3)
    graph.add_edge("x", "a", transform=transforms.SparseLinear(density=0.4))
    graph.add_edge("a", "a", transform=transforms.SparseLinear(density=0.3), activation="tanh")
    graph.add_edge("a", "y")
    return graph


def _modules() -> nx.DiGraph:
    graph = _nodes(nx.DiGraph(), x=(1, 4, 4), a=(2, 3, 3), b=5, y=2)
    graph.add_edge("x", "a", transform=transforms.Conv2d(1, 2, 2))
    graph.add_edge("a", "b", transform=nn.Sequential(nn.Flatten(), nn.Linear(18, 5, bias=False)), activation="tanh")
    graph.add_edge("b", "y")
    return graph


def _joint() -> nx.DiGraph:
    """Declare an attention over three parents in a cycle, and a gate of one parent in both of its roles."""
    graph = _nodes(nx.DiGraph(), x=3, q=(2, 4), k=(2, 4), v=(2, 4), a=(2, 4), g=(2, 4), y=2)
    graph.nodes["a"]["combine"], graph.nodes["g"]["combine"] = "attention", "gate"
    graph.add_edges_from([("x", "q"), ("x", "k"), ("x", "v"), ("g", "y"), ("a", "q")])
    graph.add_edge("q", "a", role="query", transform=nn.Linear(4, 4, bias=False))
    graph.add_edge("k", "a", role="key", scale=0.5)
    graph.add_edge("v", "a", role="value", activation="sigmoid")
    graph.add_edge("a", "g", role=("gate", "value"))
    return graph


def _scaled(graph: nx.DiGraph) -> nx.DiGraph:
    """Declare the same with factors on the edges; edges that share a weight share a factor."""
    for i, (_, _, data) in enumerate(graph.edges(data=True)):
        data["scale"] = -0.5 if "share" in data else (0.5, -1.5, 1.0)[i % 3]
    return graph


def _slots() -> nx.DiGraph:
    """Declare feedback apart from what is fed forward: into an input, a node with two slots, beside a parallel edge."""
    graph = _nodes(nx.MultiDiGraph(), x=3, a=4, b=4, y=2)
    graph.nodes["x"]["slots"] = {"down": {"precision": 0.5}}
    graph.nodes["a"]["slots"] = {"down": {"activation": "tanh", "bias": False}, "self": {"precision": 0.3}}
    graph.nodes["b"]["slots"] = {"down": {"energy": "learned_precision"}}
    for v, said in (("x", {"prior": [0.1, 0.2, -0.3]}), ("a", {"prior": 0.0, "precision": 0.1}),
                    ("b", {"prior": 1.0, "energy": "huber"})):  # fmt: skip
        graph.nodes[v]["slots"]["prior"] = said
    nx.add_path(graph, ["x", "a", "b", "y"])
    for u, v, slot in (("a", "x", "down"), ("b", "a", "down"), ("y", "a", "down"), ("a", "a", "self"),
                       ("y", "b", "down"), ("a", "b", "down")):  # fmt: skip
        graph.add_edge(u, v, slot=slot)
    return graph


# -- one case ---------------------------------------------------------------------------------------------------------


def _clamps(net: PCNetwork, case: _Case, batch: int, seed: int) -> dict[Any, Tensor | Masked]:
    draw = Draws(seed, net.device)
    clamps: dict[Any, Tensor | Masked] = {}
    for v in dict.fromkeys(("x", "y", *case.masked)):
        values = draw((batch, *net.structure.shape(v)))
        clamps[v] = Masked(values, draw(tuple(values.shape)) > 0) if v in case.masked else values
    if case.tolerance is not None:  # one sample has nothing to do, and rests while the others move
        x, y = clamps["x"], clamps["y"]
        assert isinstance(x, Tensor)
        assert isinstance(y, Tensor)
        y[0] = net.predict({"x": x}, "y")[0]
    return clamps


def _check(backend: Backend, case: _Case, net: PCNetwork, batch: int, seed: int) -> None:
    """Run two batches of different size, one result kept alive beside the other, and compare all that can be read."""
    init, first = case.init(), _clamps(net, case, batch, seed)
    kw: dict[str, Any] = {
        "init": init, "optimizer": case.optimizer, "coordinates": case.coordinates, "duals": case.duals,
    }  # fmt: skip
    if case.tolerance is not None:
        kw["tolerance"] = case.tolerance
    if case.precision is not None:
        kw["precision"] = case.precision
    longer = _longer(case.precision)
    start = {v: h.clone() for v, h in net.infer(first, init=init, steps=0).states.items()}
    kept = net.infer(first, steps=case.steps, trace=True, **kw)
    other = _clamps(net, case, batch + 2, seed + 1)
    fresh = kw | {"init": case.init()}
    net.infer(other, steps=case.steps + 1, **fresh | longer).accumulate()
    net.infer(_clamps(net, case, batch, seed + 2), steps=case.steps, **fresh).accumulate()
    net.zero_grad()
    order: tuple[Any, ...] = ()
    if case.coordinates is not None:
        order = check(net.graph, first).error_coordinates(case.coordinates.keep).witness.order
    step, duals = _step(case.optimizer, batch), case.duals
    rate, stop = (None, None) if duals is None else (duals.rate, duals.stop)
    expected = reference.infer(net, first, start, case.steps, step, order, case.precision, dual_rate=rate, stop=stop)
    _compare(backend, case, net, kept, expected)
    _compare_parts(backend, case, net, first, start)
    if not case.masked and case.name != "kept states" and case.coordinates is None and case.duals is None:
        _compare_nudged(backend, case, net, batch, seed)


def _longer(precision: reference.Precisions | None) -> dict[str, Any]:
    """Give a schedule one step more, with the precision of its first."""
    if precision is None:
        return {}
    return {"precision": {v: (p[0], *p) if isinstance(p, Sequence) else p for v, p in precision.items()}}


def _step(optimizer: StateOptimizer, batch: int) -> Callable[[Any, Tensor, Tensor, int], Tensor]:
    memories: dict[Any, dict[str, Any]] = {}

    def step(v: Any, h: Tensor, gradient: Tensor, t: int) -> Tensor:
        memory = memories.setdefault(v, {"lr": optimizer.rate(v)})
        memory["step"] = t
        moved = h.clone().reshape(1, batch, -1)
        optimizer.step(moved, gradient.clone().reshape(1, batch, -1), memory)
        return moved.reshape(h.shape)

    return step


def _compare(backend: Backend, case: _Case, net: PCNetwork, result: Any, expected: reference.Reference) -> None:
    def differ(what: str, remedy: str) -> Any:
        return broken(backend, f"the reference's {what} ({case.name})", "others", remedy)

    with torch.no_grad():
        predicted = reference.predictions(net, expected.states)
    for v in net.graph:
        h = expected.states[v]
        if far(result.states[v], h):
            raise differ(f"states of {v!r}", "compare one step with the operations of plan.stage(0), one by one")
        if far(result.predictions[v], predicted.get(v, h)):
            raise differ(
                f"predictions of {v!r}", "finish() compares at the final states; others are at their prediction"
            )
        if far(result.errors[v], h - predicted.get(v, h)):
            raise differ(f"errors of {v!r}", "an error is the state less the prediction")
    for slot in net.structure.slots:
        if far(result.predictions[slot], predicted[slot]):
            raise differ(
                f"predictions of the {slot}",
                "on an edge of structure.is_tie, propagate copies h, pull adds g",
            )
    if far(result.trace, torch.stack(expected.trace).detach()):
        raise differ("energy at every step", "evaluate(t) brings predictions up to date, and energy(t) follows it")
    if any(far(result.duals[v], expected.duals[v]) for v in result.duals):
        raise differ("duals", "a dual rises by rate * (h - mu) in every stage but the first, and shifts the error")
    if far(sum(result.node_energy.values()), result.energy):
        raise differ("sum of the nodes' energies", "node_energies yields each compared node once")
    for factor in (1, 2):
        result.accumulate()
        for name, parameter in net.named_parameters():
            if parameter.requires_grad and far(parameter.grad, factor * expected.gradients[name]):  # type: ignore[arg-type]
                raise differ(f"gradient of {name}", "gradients(scale) adds to .grad, or makes it where it is None")


def _compare_parts(
    backend: Backend, case: _Case, net: PCNetwork, clamps: Mapping[Any, Tensor | Masked], start: Mapping[Any, Tensor]
) -> None:
    """A step is its three parts, gradients of states can be read, and what somebody reads from is left alone."""
    plan = net.plan(
        {v for v, c in clamps.items() if isinstance(c, Tensor)}, masked=case.masked, init=net.carry_on(start), steps=2,
        optimizer=case.optimizer, coordinates=case.coordinates,
    )  # fmt: skip
    checked = Clamps.check(net, clamps)
    context = Context(checked.batch, {v: c for v, c in clamps.items() if isinstance(c, Tensor)}, None, net)
    context = Context(context.batch, context.clamps, None, net, (net.carry_on(start),))
    found: list[list[Tensor]] = []
    readers: list[Any] = []
    programs: list[Program] = []
    for whole in (True, False):
        program, motion = backend.lower(plan, net, checked.batch), Motion(case.optimizer)
        if program.taken or any(program is other for other in programs):
            raise broken(
                backend, "a program that nobody reads from", "one that is taken", "look at program.taken in lower"
            )
        program.start(checked, context)
        for t in range(2):
            if whole:
                program.step(t, motion)
                continue
            program.evaluate(t)
            program.pull(t, motion)
            residual = max(
                (float(program.read(int(i), "gradient").abs().max()) for i in plan.stage(t).move.nodes), default=0.0
            )
            if abs(residual - float(program.residual(t, checked).max())) > 1e-12:
                raise broken(
                    backend, f"residual(t): the largest gradient ({case.name})", "another", "leave it as it is"
                )
            program.move(t, motion)
        program.finish()
        readers.append(nn.Identity())
        program.lend(readers[-1])
        programs.append(program)
        found.append([program.read(i, "state").clone() for i in range(len(net.structure.nodes))])
    if any(far(one, other) for one, other in zip(*found)):
        raise broken(
            backend, f"that a step is its three parts ({case.name})", "other states", "compare step with its parts"
        )
    if not all(program.taken for program in programs):
        raise broken(backend, "taken, while a reader lives", "False", "keep lend and taken, or override both")


def _compare_nudged(backend: Backend, case: _Case, net: PCNetwork, batch: int, seed: int) -> None:
    """Nudges pull at free nodes: the same gradients as by the backend that comes with pcgraph."""
    clamps = _clamps(net, case, batch, seed)
    x, y = clamps["x"], clamps["y"]
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    gradients: list[list[Tensor]] = []
    twin = PCNetwork(net.graph, dtype=torch.float64, device=net.device)
    twin.load_state_dict(net.state_dict())
    for one in (net, twin):
        one.zero_grad()
        nudged(one, {"x": x}, {"y": y}, init=Normal(std=0.3), steps=max(case.steps, 1), optimizer=case.optimizer)
        gradients.append([p.grad for p in one.parameters() if p.grad is not None])
    if any(far(mine, theirs) for mine, theirs in zip(*gradients, strict=True)):
        raise broken(
            backend, f"the gradients of nudged phases ({case.name})", "others",
            "pull adds strength * (h - target) to the gradient of each node in motion.nudges",
        )  # fmt: skip
