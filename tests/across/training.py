"""What the ranks of a test train, and a process alone with them: networks, settings, and how results are compared."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pcgraph
from pcgraph import SGD, PCNetwork, learning
from pcgraph.network import ParameterView, Place
from pcgraph.network.packed import whole
from tests.builders import Learned, double

#: How near several processes must come to one.
NEAR = {"rtol": 1e-12, "atol": 1e-14}
STEPS = 3


def chained() -> nx.DiGraph:
    return pcgraph.graphs.chain([5, 6, 6, 6, 3], activation="tanh")


def rich() -> nx.DiGraph:
    """A cycle, a skip edge, a slot, a module, shared weights, frozen ones, and an energy that learns."""
    graph = nx.MultiDiGraph(pcgraph.graphs.chain([5, 6, 6, 6, 6, 3], activation="tanh"))
    graph.add_edge("h3", "h2")
    with torch.random.fork_rng():  # a module brings its own weights, here the same in every process
        torch.manual_seed(0)
        graph.add_edge("h1", "h4", transform=nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)).double())
    graph.add_edge("x", "h2", trainable=False)
    graph.add_edge("h1", "h3", share="one")
    graph.add_edge("h2", "h3", share="one")
    graph.nodes["h1"]["slots"] = {"down": {"precision": 0.5}}
    graph.add_edge("h2", "h1", slot="down")
    graph.nodes["h4"]["energy"] = Learned()
    return graph


def long() -> nx.DiGraph:
    """Enough nodes for eight ranks."""
    return pcgraph.graphs.chain([5, *[6] * 8, 3], activation="tanh")


def dealt(graph: nx.DiGraph, parts: int) -> dict[str, int]:
    return {v: k % parts for k, v in enumerate(graph)}


#: Name -> graph, and its owners on each number of ranks; "x" of the first has a rank to itself, without weights.
GRAPHS: dict[str, tuple[Callable[[], nx.DiGraph], dict[int, dict[str, int]]]] = {
    "chain": (chained, {1: dict.fromkeys(("x", "h1", "h2", "h3", "y"), 0),
                        2: {"x": 0, "h1": 1, "h2": 0, "h3": 1, "y": 0},
                        4: {"x": 0, "h1": 3, "h2": 1, "h3": 2, "y": 1}}),
    "rich": (rich, {1: dict.fromkeys(("x", "h1", "h2", "h3", "h4", "y"), 0),
                    2: {"x": 0, "h1": 1, "h2": 0, "h3": 1, "h4": 1, "y": 0},
                    4: {"x": 0, "h1": 3, "h2": 1, "h3": 2, "h4": 0, "y": 3}}),
    "long": (long, {parts: dealt(long(), parts) for parts in (1, 2, 4, 8)}),
}  # fmt: skip

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "adafactor": functools.partial(torch.optim.Adafactor, lr=0.05),
    "muon": functools.partial(torch.optim.Muon, lr=0.05),
}

#: Settings of single edges and nodes of the chain; of the rich graph, of what has a module, a slot and a shared weight.
FEW = {("x", "h1"): {"lr": 0.02, "weight_decay": 0.0}, "h2": {"lr": 0.03}, ("h2", "h3"): {}}
MANY = {("h1", "h4", 0): {"lr": 0.02}, ("h1", "h3", 0): {"lr": 0.001}, ("h1", "down"): {"weight_decay": 0.5},
        "h4": {"lr": 0.03}, ("h3", "h2", 0): {"lr": 0.02}}  # fmt: skip
#: Name -> what the optimizer is made of, where it is not the parameters as they lie.
HELD: dict[str, Callable[[PCNetwork], list[Any]]] = {
    "few": lambda net: net.parameter_groups(FEW),
    "many": lambda net: net.parameter_groups(MANY),
    "separate": lambda net: net.parameter_groups(FEW, separate=True),
    "apart": lambda net: net.parameter_groups(separate=True),
    "many apart": lambda net: net.parameter_groups({k: v for k, v in MANY.items() if k != "h4"}, separate=True),
}


def matrices(net: PCNetwork) -> list[Any]:
    """Give the matrices alone, which Muon takes."""
    return [{"params": [net.edge(*edge).weight for edge in net.graph.edges if net.holds(edge[1])] or [net.nothing]}]


HELD["matrices"] = matrices


def frozen(net: PCNetwork) -> None:
    """Freeze an edge in the middle of others of its kind, a bias, and a whole kind."""
    for who in (net.edge("h1", "h2"), net.node("h3"), net.edge("x", "h1")):
        who.freeze()
        assert not who.here or who.frozen


def turning(net: PCNetwork) -> Callable[[Any], None]:
    """Let learn what was frozen from the second step on, freeze something else, and draw another anew."""

    def turn(record: Any) -> None:
        if record.kind == "step" and record.step == 2:
            net.edge("h1", "h2").unfreeze()
            net.edge("h2", "h3").freeze()
            net.edge("h3", "y").initialize("orthogonal", seed=5)
            net.node("h1").initialize("normal", seed=6)

    return turn


#: What is trained, and how. Batches have 8, 8, 8 and 5 samples, but where the initializer wants them alike.
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "adam": {"optimizer": "adam", "graph": "rich", "init": "zero"},
    "adamw, average": {"optimizer": "adamw", "init": "average"},
    "null": {"optimizer": "sgd", "init": "null", "sizes": (8, 8, 8, 8)},
    "clip": {"optimizer": "sgd", "graph": "rich", "init": "normal", "clip": 0.05},
    "accumulate": {"optimizer": "adamw", "accumulate": 3},
    "errors": {"optimizer": "adam", "coordinates": pcgraph.Errors()},
    "scheduler": {"optimizer": "adamw", "scheduler": True, "tolerance": 0.01},
    "memory": {"optimizer": "adam", "init": "memory", "clip": 0.5},
    "amortized": {"optimizer": "sgd", "init": "amortized"},
    "incremental": {"optimizer": "sgd", "rule": learning.Incremental()},
    "nudged": {"optimizer": "sgd", "rule": learning.Nudged()},
    "backprop": {"optimizer": "adam", "rule": learning.Backprop()},
    "following": {"optimizer": "sgd", "state": "following", "curvature_every": 2},
    "duals": {"optimizer": "sgd", "duals": pcgraph.Duals(rate=0.1)},
    "long": {"optimizer": "adamw", "graph": "long", "init": "average", "ema": True},
    "few": {"optimizer": "adamw", "held": "few", "clip": 0.05},
    "many": {"optimizer": "sgd", "held": "many", "graph": "rich", "init": "zero"},
    "separate": {"optimizer": "adam", "held": "separate", "scheduler": True, "accumulate": 2},
    "many apart": {"optimizer": "adam", "held": "many apart", "graph": "rich", "init": "zero"},
    "adafactor": {"optimizer": "adafactor", "held": "apart"},
    "muon": {"optimizer": "muon", "held": "matrices"},
    "average of the weights": {"optimizer": "adam", "ema": True},
    "average, rich": {"optimizer": "sgd", "ema": True, "graph": "rich", "init": "zero", "accumulate": 2},
    "frozen": {"optimizer": "adamw", "before": frozen},
    "frozen backprop": {"optimizer": "adam", "before": frozen, "rule": learning.Backprop()},
    "freezing": {"optimizer": "sgd", "before": frozen, "turning": turning, "held": "separate"},
}
#: What moves the states, where it is not SGD at 0.1.
STATES: dict[str, Callable[[], Any]] = {
    "sgd": lambda: SGD(lr=0.1), "following": lambda: SGD(lr=pcgraph.Following(0.5, every=2, samples=4)),
}  # fmt: skip
INITS: dict[str, Callable[[PCNetwork], pcgraph.Initializer]] = {
    "forward": lambda net: pcgraph.Forward(), "zero": lambda net: pcgraph.Zero(),
    "normal": lambda net: pcgraph.Normal(seed=3), "average": lambda net: pcgraph.Average(),
    "null": lambda net: pcgraph.Null(), "amortized": lambda net: pcgraph.Amortized(net, "x"),
    "memory": lambda net: pcgraph.Memory(net, patterns=4, heads=2, embed_dim=4, beta=2.0),
}  # fmt: skip


class Run:
    """All that a run consists of, made anew.

    Parameters
    ----------
    case : str
    parts : int
        Over so many ranks; 0 for a network of one process.
    group : Group, ProcessGroup, DeviceMesh, optional
    """

    def __init__(self, case: str, parts: int = 0, group: Any = None) -> None:
        how = dict(CASES[case])
        make, owners = GRAPHS[how.pop("graph", "chain")]
        over = {"partition": owners[parts], "group": group} if parts else {}
        self.net = PCNetwork(make(), seed=0, dtype=torch.float64, **over)
        self.init = INITS[how.pop("init", "forward")](self.net)
        how.pop("before", lambda net: None)(self.net)
        held = HELD.get(how.pop("held", ""), lambda net: [*net.parameters(), *self.init.parameters()])(self.net)
        self.optimizer = OPTIMIZERS[how.pop("optimizer")](held)
        if how.pop("ema", False):
            how["ema"] = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.7))
        if "turning" in how:
            how["callbacks"] = how.pop("turning")(self.net)
        sizes = how.pop("sizes", (8, 8, 8, 5))
        self.loader = [(double(n, 5, seed=i), (torch.arange(n) + i) % 3) for i, n in enumerate(sizes)]
        if how.pop("scheduler", False):
            how["scheduler"] = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, gamma=0.5)
        if getattr(how.get("rule"), "infers", True):
            how |= {"init": self.init, "steps": STEPS, "state_optimizer": STATES[how.pop("state", "sgd")]()}
        self.how = how

    def fit(self, epochs: int = 2, **more: Any) -> pcgraph.training.History:
        if "callbacks" in self.how and "callbacks" in more:
            more["callbacks"] = [self.how["callbacks"], more["callbacks"]]
        return pcgraph.fit(
            self.net, self.loader, optimizer=self.optimizer, epochs=epochs, measure_every=1, progress=False,
            **{"curvature_every": 0, **self.how, **more},
        )  # fmt: skip

    def told(self, history: pcgraph.training.History) -> dict[str, Any]:
        """Give what there is to compare: all in the names of the whole network."""
        steps = [(r.samples, r.energy, r.accuracy, r.curvature) for r in history.steps]
        found = {
            "steps": steps, "warnings": sorted(history.warnings), "rank": self.net.rank, "stopped": history.stopped,
            "tensors": self.tensors(),
        }  # fmt: skip
        return found

    def tensors(self) -> dict[str, tuple[Any, torch.Tensor]]:
        """Map each tensor that this process has, and what the optimizer keeps of it, to its rows and values."""
        found: dict[str, tuple[Any, torch.Tensor]] = {}
        places, names = self.net.places, {id(p): name for name, p in self.net.named_parameters()}
        names |= {id(p): f"init {name}" for name, p in self.init.named_parameters()}
        averaged = {"average": self.how["ema"].module} if "ema" in self.how else {}
        for what, net in {"": self.net, **averaged}.items():
            for name, tensor in net.state_dict().items():
                if places is None:
                    found[what + name] = (None, tensor.clone())
                elif name in places:
                    found[what + places[name].name] = (places[name].rows, tensor.clone())
        for parameter, kept in self.optimizer.state.items():
            found |= self.kept_of(parameter, names[id(whole(parameter))], kept)
        for name, value in self.init.state_dict().items():
            found[f"init {name}"] = (None, value.clone())
        return found

    def kept_of(self, parameter: Any, name: str, kept: dict[str, Any]) -> dict[str, tuple[Any, torch.Tensor]]:
        """Give what the optimizer keeps of a parameter; of a packed one, or a view, by the rows of the whole one."""
        places = self.net.places
        place = Place(name) if places is None else places.get(name, Place(name))
        tensors = {key: value for key, value in kept.items() if isinstance(value, torch.Tensor) and parameter.numel()}
        if place.name.partition(".")[0] not in ("weights", "biases"):
            return {f"{key} of {place.name}": (None, value.clone()) for key, value in tensors.items()}
        found: dict[str, tuple[Any, torch.Tensor]] = {}
        rows = parameter.rows if isinstance(parameter, ParameterView) else range(len(parameter))
        single = isinstance(parameter, ParameterView) and parameter.single
        for k, row in enumerate(rows):
            there = row if place.rows is None else int(place.rows[row])
            for key, value in tensors.items():
                each = value if single or not value.dim() else value[k]
                found[f"{key} of {place.name}[{there}]"] = (None, each.clone())
        return found


def groups(count: int) -> Any:
    """Make a group of the first ranks, the same one each time."""
    return _groups()[count]


@functools.cache
def _groups() -> dict[int, Any]:
    size = distributed.get_world_size()
    return {count: distributed.new_group(list(range(count))) for count in (2, 4, 8) if count <= size}


def trained(case: str, parts: int, folder: Path | None = None, stop: int | None = None, **more: Any) -> Any:
    """Train over the first `parts` ranks. With a folder, save in it, and go on from what is there."""
    groups(2)
    if distributed.get_rank() >= parts:
        return None
    run = Run(case, parts, groups(parts))
    history = run.fit(**kept(folder), **stopping(stop), **more)
    return run.told(history)


def alone(case: str, folder: Path | None = None, stop: int | None = None, parts: int = 0, **more: Any) -> Any:
    """Train in this process."""
    run = Run(case, parts)
    return run.told(run.fit(**kept(folder), **stopping(stop), group=False, **more))


def kept(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    return {"checkpoint": folder, "resume": folder if pcgraph.checkpoints.exists(folder) else None}


def stopping(step: int | None) -> dict[str, Any]:
    return {} if step is None else {"callbacks": lambda r: r.kind == "step" and r.step == step}


def compare(found: dict[str, Any], one: dict[str, Any], exact: bool = False) -> None:
    """Hold what a rank has against one process."""
    for key in ("stopped", "warnings"):
        assert found[key] == one[key], key
    assert len(found["steps"]) == len(one["steps"])
    for ours, theirs in zip(found["steps"], one["steps"]):
        assert ours[0] == theirs[0]
        torch.testing.assert_close(ours[1], theirs[1], rtol=0 if exact else 1e-12, atol=0 if exact else 1e-14)
        assert ours[2] == theirs[2]
        assert (ours[3] is None) == (theirs[3] is None)
        assert ours[3] is None or math.isclose(ours[3], theirs[3], rel_tol=0 if exact else 1e-7)
    for name, (rows, tensor) in found["tensors"].items():
        whole, expected = one["tensors"][name]
        if name.startswith("init group_"):  # each rank has its own nodes
            own = (tensor.flatten(1) != 0).any(1)
            tensor, expected = tensor[own], expected[own]
        expected = expected[rows] if rows is not None and whole is None else expected
        near = {"rtol": 0, "atol": 0} if exact else NEAR
        torch.testing.assert_close(tensor, expected, **near, msg=lambda m, name=name: f"{name}: {m}")


# -- two dimensions ---------------------------------------------------------------------------------------------------


@functools.cache
def mesh(*shape: int, names: tuple[str, ...] | None = ("data", "partition")) -> Any:
    """Make a mesh of all ranks."""
    return distributed.init_device_mesh("cpu", shape, mesh_dim_names=names)


def meshed(case: str, folder: Path | None = None, stop: int | None = None, given: str = "net") -> Any:
    """Train on two by two ranks, where ``fit`` is given the mesh, an axis of it, or nothing."""
    both = mesh(2, 2)
    run = Run(case, 2, both)
    group = {"net": None, "mesh": both, "data": both["data"]}[given]
    history = run.fit(**kept(folder), **stopping(stop), group=group)
    return run.told(history), judged(run, group)


def judged(run: Run, group: Any = None) -> dict[str, Any]:
    """Evaluate, with metrics of torchmetrics and one of one's own."""
    import torchmetrics  # it takes as long as all else, and few need it

    metrics = {
        "confusion": torchmetrics.ConfusionMatrix(task="multiclass", num_classes=3),
        "auroc": torchmetrics.AUROC(task="multiclass", num_classes=3),
        "seen": Seen(),
    }
    inference = {"init": pcgraph.Normal(seed=3), "steps": 5, "optimizer": SGD(lr=0.1)}
    how = inference if run.net.graph.is_multigraph() else {}  # which has a cycle, and no sweep
    found = pcgraph.evaluate(run.net, run.loader, metrics=metrics, group=group, **how)
    return {**found.as_dict(), "samples": found.samples, "confusion": found.metrics["confusion"]}


class Seen:
    """A metric of one's own: the sum of all predictions, each weighted by its place."""

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, predictions: torch.Tensor, targets: torch.Tensor) -> None:
        places = torch.arange(self.count, self.count + len(targets)).double() + 1
        self.total += float((places @ predictions.double()).sum())
        self.count += len(targets)

    def compute(self) -> float:
        return self.total / self.count


def evaluated(parts: int, shared: bool) -> Any:
    """Evaluate a network that is cut over ranks, or one that every rank has, of which they share the batches."""
    groups(2)
    if distributed.get_rank() >= parts:
        return None
    run = Run("sgd", 0 if shared else parts, None if shared else groups(parts))
    return judged(run, groups(parts) if shared else None)


def same_numbers(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert torch.equal(found["confusion"], expected["confusion"])
    for key, value in expected.items():
        if key != "confusion":
            assert math.isclose(found[key], value, rel_tol=1e-12), key


# -- what is refused --------------------------------------------------------------------------------------------------


def refused(what: str) -> str:
    """Try what no network over ranks takes, and return what is said of it."""
    graph, over = chained(), {"x": 0, "h1": 1, "h2": 0, "h3": 1, "y": 0}
    rank = distributed.get_rank()
    try:
        if what == "one dimension":
            PCNetwork(graph, partition=over, group=mesh(4, names=("partition",)))
        elif what == "three dimensions":
            PCNetwork(graph, partition=over, group=mesh(2, 2, 1, names=("data", "partition", "more")))
        elif what == "other names":
            PCNetwork(graph, partition=over, group=mesh(2, 2, names=("dp", "tp")))
        elif what == "another size":
            PCNetwork(graph, partition=over, group=mesh(1, 4))
        elif what == "without a partition":
            pcgraph.evaluate(PCNetwork(graph), [], group=mesh(2, 2))
        elif what == "another mesh":
            net = PCNetwork(graph, partition=over, group=mesh(2, 2))
            pcgraph.evaluate(net, [], group=mesh(2, 2, names=None))
        elif what in ("pcgraph", "torch"):
            module = {"pcgraph": pcgraph, "torch": torch}[what]
            real, module.__version__ = module.__version__, f"9.{rank // 2}"
            try:
                new = distributed.new_group(list(range(4)))
                PCNetwork(graph, partition={**over, "h2": 2, "h3": 3}, group=new)
            finally:
                module.__version__ = real
    except pcgraph.ConfigError as error:
        return str(error)
    return "nothing"
