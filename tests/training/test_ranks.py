"""Training and evaluating on several processes equal one process with the same batches, in float64."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import SGD, PCNetwork, learning
from tests.builders import Learned, double
from tests.ranks import Ranks

pytestmark = pytest.mark.filterwarnings("ignore::pcgraph.errors.PCGraphWarning")

#: How near several processes must come to one.
NEAR = {"rtol": 1e-12, "atol": 1e-14}
#: Where rounding is scaled up: the curvature is a difference of gradients over 1e-5, and Anderson solves a system.
ROUNDED = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with Ranks(4) as started:
        yield started


# -- what is trained --------------------------------------------------------------------------------------------------


def batches(*sizes: int, inputs: int = 5, classes: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(double(n, inputs, seed=i), (torch.arange(n) + i) % classes) for i, n in enumerate(sizes)]


#: On four ranks parts of 3, 3, 2 and 2 samples, and at last of one, one, one and none.
SIZES = (10, 10, 3)


def chained() -> PCNetwork:
    return PCNetwork(pcgraph.graphs.chain([5, 7, 7, 3], activation="tanh"), seed=0, dtype=torch.float64)


def cyclic() -> PCNetwork:
    graph = pcgraph.graphs.chain([5, 6, 6, 3], activation="tanh")
    graph.add_edge("h2", "h1")
    return PCNetwork(graph, seed=0, dtype=torch.float64)


def run(
    group: Any, make: Callable[[], PCNetwork] = chained, init: Callable[[PCNetwork], Any] | None = None,
    sizes: tuple[int, ...] = SIZES, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train for two epochs, and return all that there is to compare."""
    net = make()
    start = pcgraph.Forward() if init is None else init(net)
    loader = batches(*sizes)
    own = [] if start is None else [*start.parameters()]
    how = {"init": start, "steps": 4, "state_optimizer": SGD(lr=0.1), "curvature_every": 0, **settings}
    if settings.get("rule") is not None and not getattr(settings["rule"], "infers", True):
        how = {"rule": settings["rule"]}
    torch.manual_seed(0)
    history = pcgraph.fit(
        net, loader, optimizer=torch.optim.SGD([*net.parameters(), *own], lr=0.05, momentum=0.9), epochs=2,
        progress=False, measure_every=1, group=group, **how,
    )  # fmt: skip
    try:
        judged = pcgraph.evaluate(net, loader, group=group).as_dict()
    except pcgraph.InvalidInitializer:
        judged = pcgraph.evaluate(
            net, loader, init=pcgraph.Normal(seed=3), steps=5, optimizer=SGD(lr=0.1), group=group
        ).as_dict()  # fmt: skip
    return {
        "weights": {name: p.detach() for name, p in net.named_parameters()},
        "initializer": {} if start is None else start.state_dict(),
        "steps": [(r.samples, r.energy, r.accuracy) for r in history.steps],
        "curvature": [(r.curvature, r.reach) for r in history.steps],
        "epochs": [(r.samples, r.energy, r.accuracy) for r in history.epochs],
        "warnings": history.warnings, "judged": judged,
    }  # fmt: skip


def memory(net: PCNetwork) -> pcgraph.Memory:
    return pcgraph.Memory(net, patterns=4, heads=2, embed_dim=4, beta=2.0)


def masked_rule(step: Any) -> Any:
    """Learn from a part of the input alone, so that clamps are partial."""
    mask = torch.arange(5) < 3
    step.clamps["x"] = pcgraph.Masked(step.clamps["x"], mask)
    return learning.Standard()(step)


def signs(step: Any) -> Any:
    """Learn from the signs of the whole batch's gradients."""
    result = step.infer()
    result.backward()
    step.average()
    for parameter in step.net.parameters():
        parameter.grad.sign_()
    return result


def precise() -> PCNetwork:
    """Build a network whose energies learn a precision of their own."""
    graph = pcgraph.graphs.chain([5, 7, 3], activation="tanh")
    graph.nodes["h1"]["energy"] = Learned()
    return PCNetwork(graph, seed=0, dtype=torch.float64)


def convolved() -> PCNetwork:
    graph = pcgraph.graphs.chain([5, 6, 3], activation="tanh")
    graph.edges["x", "h1"]["transform"] = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6)).double()
    return PCNetwork(graph, seed=0, dtype=torch.float64)


EVEN = (10, 10, 10)
CASES: dict[str, dict[str, Any]] = {
    "standard": {"curvature_every": 2},
    "fewer samples than ranks": {"sizes": (2, 1, 3)},
    "zero": {"init": lambda net: pcgraph.Zero()},
    "states": {"init": lambda net: pcgraph.States({v: double(10, 7, seed=k) for k, v in enumerate(("h1", "h2"))}),
               "sizes": EVEN},
    "amortized": {"init": lambda net: pcgraph.Amortized(net, "x")},
    "normal": {"init": lambda net: pcgraph.Normal(seed=7)},
    "null": {"init": lambda net: pcgraph.Null(), "sizes": EVEN},
    "average": {"init": lambda net: pcgraph.Average()},
    "average with classes unseen": {"init": lambda net: pcgraph.Average(), "sizes": (1, 2, 3)},
    "average swept in part": {"init": lambda net: pcgraph.Average(forward_depth=1)},
    "memory": {"init": memory},
    "equilibrium": {"init": lambda net: pcgraph.Equilibrium(release=["y"], steps=20)},
    "equilibrium on a cycle": {"make": cyclic, "init": lambda net: pcgraph.Equilibrium(release=["y"], steps=20)},
    "per node": {"init": lambda net: pcgraph.PerNode({"h1": pcgraph.Normal(), "h2": pcgraph.Null()}, pcgraph.Zero()),
                 "sizes": EVEN},
    "cycle": {"make": cyclic, "init": lambda net: pcgraph.Zero()},
    "incremental": {"rule": learning.Incremental()},
    "nudged": {"rule": learning.Nudged()},
    "backprop": {"rule": learning.Backprop(), "init": lambda net: None},
    "forward update": {"rule": learning.ForwardUpdate()},
    "z-il": {"rule": learning.ZIL(), "init": lambda net: None},
    "fixed predictions": {"rule": learning.FixedPredictions()},
    "a rule of one's own": {"rule": signs},
    "partial clamps": {"rule": masked_rule, "init": lambda net: pcgraph.Zero()},
    "errors": {"coordinates": pcgraph.Errors()},
    "errors on a cycle": {"make": cyclic, "coordinates": pcgraph.Errors(keep="repair"),
                          "init": lambda net: pcgraph.Forward(fallback=pcgraph.Zero())},
    "adam": {"state_optimizer": pcgraph.Adam(lr=0.02)},
    "momentum": {"state_optimizer": SGD(lr=0.05, momentum=0.5)},
    "anderson": {"state_optimizer": pcgraph.Anderson(lr=0.1)},
    "the solver with momentum": {"state_optimizer": pcgraph.Momentum(lr=0.05)},
    "lbfgs": {"state_optimizer": pcgraph.LBFGS()},
    "langevin": {"state_optimizer": pcgraph.Langevin(lr=0.05, temperature=0.1)},
    "following": {"state_optimizer": SGD(lr=pcgraph.Following(0.5, every=2, samples=4))},
    "tolerance": {"tolerance": 0.05, "steps": 30},
    "duals": {"duals": pcgraph.Duals(rate=0.1)},
    "precision": {"precision": {"h1": 0.5, "y": [1.0, 1.0, 2.0, 2.0, 3.0]}},
    "an energy that learns": {"make": precise},
    "a module": {"make": convolved},
    "a scheduler and early stopping": {"early_stopping": pcgraph.training.EarlyStopping(1, "energy", change=100.0)},
}  # fmt: skip


def named(kind: type) -> set[type]:
    """Give the classes of a kind that users find under the library's names."""
    rooms = (pcgraph, learning, pcgraph.initializers, pcgraph.optimizers)
    classes = {found for room in rooms for found in vars(room).values() if isinstance(found, type)}
    return {found for found in classes if issubclass(found, kind) and not inspect.isabstract(found)} - {kind}


def called(kind: type) -> bool:
    """Say whether instances of a class are called, as rules are."""
    return any("__call__" in vars(base) for base in kind.__mro__)


def used(case: dict[str, Any]) -> set[type]:
    """Give the classes of all that one case trains with, inside of others too."""
    start = case.get("init", lambda net: pcgraph.Forward())(case.get("make", chained)())
    inits = [] if start is None else [m for m in start.modules() if isinstance(m, pcgraph.Initializer)]
    moves, rule = case.get("state_optimizer", SGD(lr=0.1)), case.get("rule", learning.Standard())
    given = (rule, moves, getattr(moves, "lr", None), case.get("coordinates"), case.get("duals"))
    return {type(each) for each in (*given, *inits) if each is not None}


def test_every_rule_initializer_coordinate_and_solver_has_a_case() -> None:
    """If it fails, something was added that nobody has trained on several processes."""
    known = set().union(*map(used, CASES.values()))
    kinds = (pcgraph.Initializer, pcgraph.optimizers.StateOptimizer, pcgraph.solvers.Solver)
    rules = {found for name in learning.__all__ if isinstance(found := getattr(learning, name), type) and called(found)}
    assert len(rules) > 6
    missing = set().union(*map(named, kinds), rules, {pcgraph.Errors, pcgraph.Duals, pcgraph.Following}) - known
    assert not missing, f"without a case in CASES: {sorted(each.__name__ for each in missing)}"


def several(name: str, count: int) -> dict[str, Any] | None:
    """Train on the first `count` ranks."""
    rank, group = torch.distributed.get_rank(), first(count)
    return run(group, **CASES[name]) if rank < count else None


@functools.cache
def first(count: int) -> Any:
    """Make a group of the first ranks."""
    return torch.distributed.new_group(list(range(count)))


def close(found: Any, expected: Any, where: str) -> None:
    near = ROUNDED if "anderson" in where or "curvature" in where else NEAR
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            close(found[key], expected[key], f"{where}: {key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for i, (one, two) in enumerate(zip(found, expected)):
            close(one, two, f"{where}[{i}]")
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, **near, msg=lambda m: f"{where}: {m}")
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, **near, err_msg=where)
    else:
        assert found == expected, where


def identical(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(identical(found[key], expected[key]) for key in expected)
    return torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


#: On four ranks these are enough, where parts are uneven or empty, and what is remembered is of all of them.
ON_FOUR = (
    "standard",
    "fewer samples than ranks",
    "normal",
    "null",
    "average with classes unseen",
    "memory",
    "following",
)


@pytest.mark.parametrize(
    ("count", "names"),
    [(2, tuple(CASES)), (4, ON_FOUR), pytest.param(4, tuple(CASES), marks=pytest.mark.slow)],
    ids=["2-all", "4-some", "4-all"],
)
def test_several_processes_learn_what_one_does(ranks: Ranks, count: int, names: tuple[str, ...]) -> None:
    """If it fails, what a user trains depends on how many processes there are."""
    wrong = []
    for name in names:
        case = CASES[name]
        alone, (first, *others) = run(False, **case), ranks.run(several, name, count)
        try:
            close(first, alone, name)
            assert all(identical(other, first) for other in others[: count - 1]), f"{name}: the ranks differ"
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n\n".join(wrong)
