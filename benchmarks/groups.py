"""Groups, scattered neurons and large sparse groups: what no chain has."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
import torch

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, Zero
from pcgraph.transforms import SparseLinear

#: Named steps, and what is known already.
Served = tuple[dict[str, Callable[[], object]], dict[str, float]]
#: Inference steps of two runs, whose difference is so many steps and nothing else.
LENGTHS = (5, 15)


def trainer(net: PCNetwork, clamps: dict, steps: int, rate: float = 0.05, init: object = None) -> Callable[[], object]:
    """A whole training step with AdamW."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    start, states = init or Forward(fallback=Zero()), SGD(lr=rate)

    def step() -> None:
        optimizer.zero_grad()
        net.infer(clamps, init=start, steps=steps, optimizer=states).backward()
        optimizer.step()

    return step


def random_groups(count: int, size: int = 32, degree: int = 4, batch: int = 64, steps: int = 20) -> Served:
    """`count` groups of random wiring with cycles; ``first``: seconds from graph to the end of the first step."""
    graph = pcgraph.graphs.random_groups(count, size, degree, seed=0)
    generator = torch.Generator().manual_seed(1)
    clamps = {v: torch.randn(batch, size, generator=generator) for v in ("x", "y")}
    begun = time.perf_counter()
    step = trainer(PCNetwork(graph), clamps, steps)
    step()
    return {"step": step}, {"first": time.perf_counter() - begun, "peak_gb": peak()}


def peak() -> float:
    """The largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def against_dense(neurons: int = 2000, density: float = 0.01, batch: int = 64, steps: int = 20) -> Served:
    """Random edges between neurons, with cycles, and the same on a dense N x N matrix with a mask: a training step."""
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random((neurons, neurons)) < density)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(neurons), shape=1, activation="tanh")
    graph.add_edges_from((int(u), int(v)) for v, u in mask.nonzero().tolist())
    known = range(0, neurons, 20)
    clamps = {i: torch.randn(batch, 1) for i in known}
    sparse = trainer(PCNetwork(graph), clamps, steps, init=Zero())
    weight = torch.nn.Parameter(torch.randn(neurons, neurons) * 0.05 * mask)
    bias = torch.nn.Parameter(torch.zeros(neurons))
    optimizer = torch.optim.AdamW([weight, bias], lr=1e-3, fused=True)
    free = torch.ones(neurons)
    free[list(known)] = 0.0
    values = torch.randn(batch, neurons) * (1 - free)

    @torch.no_grad()
    def dense() -> None:
        w, h = weight * mask, values.clone()
        for _ in range(steps + 1):
            mu = torch.tanh(torch.addmm(bias, h, w.t()))
            e = h - mu
            s = e * (1 - mu * mu)
            if _ < steps:
                h = h - 0.05 * free * (e - s @ w)
        weight.grad = -(s.t() @ h) * mask / batch
        bias.grad = -s.mean(0)
        optimizer.step()

    return {"pcgraph": sparse, "dense": dense}, {}


def neurons(count: int = 100_000, edges: int = 1_000_000, batch: int = 32) -> Served:
    """An nx.DiGraph of single neurons: inferences of two lengths, and a CSR product of the same matrix.

    Told beside: seconds from the graph to the first run's end, and of runs with another T, the first and later ones.
    """
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, count, (int(edges * 1.01), 2)), axis=0)
    pairs = pairs[rng.permutation(len(pairs))[:edges]]
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count), shape=1, activation="tanh")
    graph.add_edges_from(map(tuple, pairs.tolist()))
    begun = time.perf_counter()
    net = PCNetwork(graph)
    clamps = {i: torch.randn(batch, 1) for i in range(0, count, 100)}
    init, states = Zero(), SGD(lr=0.05)
    runs = {f"T={t}": (lambda t=t: net.infer(clamps, init=init, steps=t, optimizer=states)) for t in LENGTHS}
    runs[f"T={LENGTHS[0]}"]()
    first, another = time.perf_counter() - begun, []
    for _ in range(4):  # the first of these has a number of steps that is new
        begun = time.perf_counter()
        net.infer(clamps, init=init, steps=LENGTHS[0] + 1, optimizer=states)
        another.append(time.perf_counter() - begun)
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    pointer = np.concatenate([[0], np.cumsum(np.bincount(pairs[:, 1], minlength=count))]).astype(np.int32)
    matrix = torch.sparse_csr_tensor(
        torch.from_numpy(pointer), torch.from_numpy(pairs[order, 0].astype(np.int32)), torch.randn(edges),
        size=(count, count),
    )  # fmt: skip
    h = torch.randn(count, batch)
    return {**runs, "product": lambda: torch.sparse.mm(matrix, h)}, {
        "first": first, "new": another[0], "again": statistics.median(another[1:]),
    }  # fmt: skip


def large(count: int = 1_000_000, entries: int = 10_000_000, batch: int = 8, steps: int = 3) -> Served:
    """A recurrent group of `count` neurons with stored entries: one training step, and the memory it took."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=1000)
    graph.add_node("h", shape=count, activation="tanh")
    graph.add_edge("x", "h", transform=SparseLinear(density=1e-3))
    graph.add_edge("h", "h", transform=SparseLinear(density=entries / count**2))
    begun = time.perf_counter()
    step = trainer(PCNetwork(graph), {"x": torch.randn(batch, 1000)}, steps)
    step()
    first = time.perf_counter() - begun
    step()
    return {"step": step}, {"first": first, "peak_gb": peak()}


def cold_plan(sizes: list[int]) -> float:
    """Seconds from a network that has no plan to the plan."""
    times = []
    for seed in range(15):
        net = PCNetwork(pcgraph.graphs.chain(sizes), seed=seed)
        begun = time.perf_counter()
        net.plan({"x", "y"}, init=Forward(), steps=5)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
