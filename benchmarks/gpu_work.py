"""What is measured on a GPU: training steps of pcgraph and of backpropagation, each as one CUDA graph."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

import pcgraph
from pcgraph import SGD, Average, Forward, PCNetwork, Zero
from pcgraph.data import Images
from pcgraph.inference import Recorder
from pcgraph.initializers import Initializer
from pcgraph.plan import Plan
from pcgraph.plan.operations import Compare, Learn, Move, Propagate, Pull
from pcgraph.training import FusedAdamW
from pcgraph.transforms import SparseLinear

Step = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How large everything is, and where."""

    device: str
    chain: tuple[int, ...] = (784, 512, 512, 512, 512, 10)
    batch: int = 200
    layers: int = 32
    deep: int = 512
    wide: int = 2048
    wide_batch: int = 512
    groups: tuple[int, ...] = (128, 1024, 8192)
    neurons: tuple[int, int] = (100_000, 1_000_000)
    large: tuple[int, int] = (1_000_000, 10_000_000)
    images: tuple[int, int] = (60_000, 10_000)
    epochs: int = 16
    blocks: int = 5

    @classmethod
    def dry(cls, device: str) -> Size:
        """Small enough for a test."""
        return cls(device, (6, 5, 5, 5, 5, 10), 20, 3, 6, 7, 8, (8, 9, 10), (50, 300), (200, 800), (100, 40), 2, 1)

    @property
    def records(self) -> bool:
        """Whether steps are replayed as CUDA graphs."""
        return self.device != "cpu"


def forward() -> Initializer:
    return Forward()


def average() -> Initializer:
    return Average()


def average_3() -> Initializer:
    return Average(forward_depth=3)


def adamw(z: Size, parameters: Any, lr: float = 1e-3, own: bool = True) -> torch.optim.AdamW:
    """AdamW as pcgraph has it in one launch, or torch's fused one."""
    if own:
        return FusedAdamW(parameters, lr=lr)
    return torch.optim.AdamW(parameters, lr=lr, fused=True, capturable=z.records)


def batch_of(z: Size, sizes: Sequence[int], batch: int) -> tuple[Tensor, Tensor]:
    """Noise with one-hot targets, never zeros: a product of zeros can be faster."""
    x = torch.rand(batch, sizes[0], generator=torch.Generator().manual_seed(0))
    y = torch.nn.functional.one_hot(torch.arange(batch) % sizes[-1], sizes[-1]).float()
    return x.to(z.device), y.to(z.device)


def forget(z: Size) -> None:
    """Free what a piece of work has left, so that the next has the memory to itself."""
    gc.collect()
    if z.device != "cpu":
        torch.cuda.empty_cache()


# -- pcgraph ----------------------------------------------------------------------------------------------------------


def learner(
    z: Size, net: PCNetwork, init: Initializer, steps: int, lr: float = 0.1, own: bool = True
) -> Callable[[Mapping[Any, Tensor]], object]:  # fmt: skip
    """A whole training step of a batch, recorded where there is a GPU."""
    optimizer, states = adamw(z, net.parameters(), own=own), SGD(lr=lr)

    def learn(clamps: Mapping[Any, Tensor]) -> object:
        optimizer.zero_grad()
        result = net.infer(clamps, init=init, steps=steps, optimizer=states, check=False)
        result.backward()
        optimizer.step()
        return result

    return Recorder(learn) if z.records else learn


def ready(step: Step) -> Step:
    """The step, past the calls that come before the recording."""
    for _ in range(Recorder.WARM + 2):
        step()
    return step


def chain(
    z: Size, sizes: Sequence[int], batch: int, init: Callable[[], Initializer], steps: int,
    activation: str = "gelu", own: bool = True,
) -> tuple[Step, float]:  # fmt: skip
    """A training step of a chain, and what the model says of it."""
    net = PCNetwork(pcgraph.graphs.chain(list(sizes), activation=activation), device=z.device)
    start, (x, y) = init(), batch_of(z, sizes, batch)
    learn = learner(z, net, start, steps, own=own)
    step = ready(lambda: learn({"x": x, "y": y}))
    return step, modelled(net.plan({"x": x, "y": y}, init=start, steps=steps), net, batch)


def groups(z: Size, count: int, batch: int = 64, steps: int = 20) -> tuple[Step, float, float]:
    """Random groups: a training step, the model of it, and the seconds from graph to first step."""
    graph, init = pcgraph.graphs.random_groups(count, 32, 4, seed=0), Forward(fallback=Zero())
    x, y = (torch.randn(batch, 32, generator=torch.Generator().manual_seed(i)).to(z.device) for i in range(2))
    begun = time.perf_counter()
    net = PCNetwork(graph, device=z.device)
    learn = learner(z, net, init, steps, lr=0.05)
    learn({"x": x, "y": y})
    finish(z)
    first = time.perf_counter() - begun
    step = ready(lambda: learn({"x": x, "y": y}))
    return step, modelled(net.plan({"x", "y"}, init=init, steps=steps), net, batch), first


def neurons(z: Size, batch: int = 32) -> tuple[Step, Step, int, Step, float]:
    """Single neurons: two lengths of inference, the steps between them, two products, seconds to the first step."""
    count, edges = z.neurons
    rng, graph = np.random.default_rng(0), nx.DiGraph()
    graph.add_nodes_from(range(count), shape=1, activation="tanh")
    graph.add_edges_from(zip(rng.integers(0, count, edges).tolist(), rng.integers(0, count, edges).tolist()))
    clamps = {v: torch.randn(batch, 1, generator=torch.Generator().manual_seed(v)).to(z.device) for v in range(5)}
    states, init = SGD(lr=0.05), Zero()
    begun = time.perf_counter()
    net = PCNetwork(graph, device=z.device)
    learner(z, net, init, 10, lr=0.05)(clamps)
    finish(z)
    first = time.perf_counter() - begun

    def infer(steps: int) -> Step:
        mode = "auto" if z.records else False
        return ready(
            lambda: net.infer(clamps, init=init, steps=steps, optimizer=states, check=False, capture=mode)  # type: ignore[arg-type]
        )

    pairs = torch.tensor(list(graph.edges())).t().flip(0)
    entries = torch.randn(pairs.shape[1], generator=torch.Generator().manual_seed(0))
    matrix = torch.sparse_coo_tensor(pairs, entries, (count, count), check_invariants=False).coalesce()
    there, back = (m.to_sparse_csr().to(z.device) for m in (matrix, matrix.t().coalesce()))
    h = torch.randn(count, batch, generator=torch.Generator().manual_seed(1)).to(z.device)
    return infer(10), infer(30), 20, lambda: (there @ h, back @ h), first


def large(z: Size, batch: int = 8) -> tuple[Step, float]:
    """One group of very many neurons with stored entries: a training step, and the seconds to the first one."""
    size, entries = z.large
    graph = nx.DiGraph()
    graph.add_node("x", shape=max(10, size // 1000))
    graph.add_node("h", shape=size, activation="tanh")
    graph.add_edge("x", "h", transform=SparseLinear(density=1e-3 if size >= 1e6 else 0.1))
    graph.add_edge("h", "h", transform=SparseLinear(density=entries / size**2))
    x = torch.randn(batch, graph.nodes["x"]["shape"], generator=torch.Generator().manual_seed(0)).to(z.device)
    begun = time.perf_counter()
    net = PCNetwork(graph, device=z.device)
    learn = learner(z, net, Zero(), 3, lr=0.05)
    learn({"x": x})
    finish(z)
    first = time.perf_counter() - begun
    return ready(lambda: learn({"x": x})), first


def finish(z: Size) -> None:
    """Wait for the device."""
    if z.device != "cpu":
        torch.cuda.synchronize()


def images(z: Size) -> tuple[Images, Images, bool]:
    """Fashion-MNIST where its files are at hand, else drawn images of its size, and whether they are drawn."""
    try:
        if z.images[0] == 60_000:
            both = pcgraph.data.load("fashion-mnist"), pcgraph.data.load("fashion-mnist", "test")
            return both[0].to(z.device), both[1].to(z.device), False
    except Exception as error:
        print(f"no Fashion-MNIST ({str(error).splitlines()[0][:200]}): PCGRAPH_DATA names its folder")
    drawn = []
    for seed, count in enumerate(z.images):
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn(count, z.chain[0], generator=generator)
        labels = torch.arange(count) % z.chain[-1]
        drawn.append(Images(pixels, labels, [str(i) for i in range(z.chain[-1])]).to(z.device))
    return drawn[0], drawn[1], True


def fitted(z: Size, training: Images, testing: Images) -> tuple[float, pcgraph.training.History]:
    """Train as the paper does, with an evaluation after each epoch: the seconds, and the history."""
    net = PCNetwork(pcgraph.graphs.chain(list(z.chain), activation="leaky_relu"), device=z.device)
    finish(z)
    begun = time.perf_counter()
    history = pcgraph.fit(
        net, training.batches(z.batch, seed=0, stream_aligned=True), init=Average(forward_depth=3), steps=7,
        optimizer=adamw(z, net.parameters(), 5e-4), state_optimizer=SGD(lr=0.01), epochs=z.epochs, progress=False,
        capture="auto" if z.records else False, check=False, validate=testing.batches(z.batch * 10, shuffle=False),
    )  # fmt: skip
    finish(z)
    return time.perf_counter() - begun, history


# -- backpropagation --------------------------------------------------------------------------------------------------


def backprops(z: Size, sizes: Sequence[int], batch: int) -> dict[str, Step]:
    """The same chain in plain torch, eager and, on a GPU, compiled; each step as one CUDA graph there."""
    kinds = ("eager", "compiled") if z.records else ("eager",)
    return {kind: backprop(z, sizes, batch, compiled=kind == "compiled") for kind in kinds}


def backprop(z: Size, sizes: Sequence[int], batch: int, compiled: bool) -> Step:
    """A training step of a chain by autograd."""
    layers: list[torch.nn.Module] = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [torch.nn.Linear(a, b), torch.nn.GELU()]
    model = torch.nn.Sequential(*layers[:-1]).to(z.device)
    optimizer, (x, y) = adamw(z, model.parameters(), own=False), batch_of(z, sizes, batch)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return (0.5 * (model(x) - y).square().sum(1)).mean()

    function = torch.compile(loss) if compiled else loss

    def learn(batch: Mapping[str, Tensor]) -> object:
        optimizer.zero_grad()
        found = function(batch["x"], batch["y"])
        found.backward()
        optimizer.step()
        return found

    recorded = Recorder(learn) if z.records else learn
    return ready(lambda: recorded({"x": x, "y": y}))


def compile_all(z: Size) -> dict[str, Any]:
    """Compile backpropagation of every chain, and pcgraph's kernels, so that the caches have them when it counts."""
    torch.set_float32_matmul_precision("high")
    for init, steps, activation in ((forward, 3, "gelu"), (average_3, 7, "gelu"), (average_3, 7, "leaky_relu")):
        chain(z, z.chain, z.batch, init, steps, activation)
    chain(z, [z.deep] * 8 + [10], z.batch, average, 5)
    groups(z, z.groups[0])
    neurons(replace(z, neurons=(1000, 10_000)))
    large(replace(z, large=(20_000, 200_000)))
    few = images(replace(z, images=(z.batch, 10 * z.batch)))  # drawn
    fitted(replace(z, epochs=1), *few[:2])
    torch.set_float32_matmul_precision("highest")
    chain(z, z.chain, z.batch, forward, 3)
    for precision, sizes, batch in (
        ("high", z.chain, z.batch), ("highest", z.chain, z.batch), ("high", [z.deep] * z.layers + [10], z.batch),
        ("high", [z.wide] * z.layers + [10], z.wide_batch),
    ):  # fmt: skip
        torch.set_float32_matmul_precision(precision)
        backprop(z, sizes, batch, compiled=z.records)
        forget(z)
    return {}


# -- the model of the time --------------------------------------------------------------------------------------------

LAUNCH, BANDWIDTH, PRODUCTS = 2.5e-6, 3e12, 300e12


def modelled(plan: Plan, net: PCNetwork, batch: int) -> float:
    """Seconds of a training step with two launches an inference step: launches, bytes and products added up.

    A launch of predictions reads the sources' states, the weights and the nodes' own states, and writes errors and
    signals; a launch of moves reads signals and weights, and reads and writes states. A sweep takes one launch a layer,
    weight gradients one, and AdamW one that reads four numbers a parameter and writes three.
    """
    s, numbers, launches = plan.structure, 0, 2
    size = np.array([s.groups[int(g)].size for g in s.group_of])

    def weights(edges: Any) -> int:
        found = zip(*np.unique(s.bucket_of[edges], return_counts=True))
        return sum(s.buckets[int(b)].entries(s.groups) * int(n) for b, n in found)

    for t, phase, operation in plan.timeline(distinct=True):
        times = plan.repeats(t) if phase == "step" else 1
        if isinstance(operation, Propagate) and len(operation.edges):
            read = batch * int(size[np.unique(s.source[operation.edges])].sum())
            numbers += times * (weights(operation.edges) + read)
            launches += times if phase == "initialize" else 0
        elif isinstance(operation, Compare) and len(operation.nodes):
            numbers += times * 3 * batch * int(size[operation.nodes].sum())
            launches += times
        elif isinstance(operation, Pull) and len(operation.edges):
            read = batch * int(size[np.unique(s.target[operation.edges])].sum())
            numbers += times * (weights(operation.edges) + read)
        elif isinstance(operation, Move) and len(operation.nodes):
            numbers += times * 3 * batch * int(size[operation.nodes].sum())
            launches += times
        elif isinstance(operation, Learn) and len(operation.edges):
            ends = np.unique(np.r_[s.source[operation.edges], s.target[operation.edges]])
            numbers += weights(operation.edges) + batch * int(size[ends].sum())
    numbers += 7 * sum(p.numel() for p in net.parameters())
    return launches * LAUNCH + 4 * numbers / BANDWIDTH + plan.flops(batch) / PRODUCTS
