"""A whole connectome becomes a predictive coding network with all of its cycles, on one process or on several.

    python examples/connectome.py --quick
    torchrun --nproc-per-node 2 examples/connectome.py

The graph is a file in the form that electron-microscopy atlases are given out in: a table of connections (CSV, or
Parquet where pandas and pyarrow are installed) with the columns

    pre, post     names of neurons, whole numbers from 0 on
    count         synapses of the connection, at least 1

and a second table with the columns ``neuron, region``. Without ``--read`` both are drawn: as many neurons, connections
and synapses as the fly's brain has, with log-normal degrees and counts, most connections within a region.

Each region is a node, each pair of regions with a connection between them a SparseLinear edge, and the neurons that no
free state is clamped for settle together: the graph has cycles everywhere, so that there is no sweep.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray

import pcgraph

Index = NDArray[np.int64]
#: Neurons, connections and synapses of the adult fly's central brain and optic lobes, rounded.
FLY = 140_000, 2_500_000, 50_000_000


def generate(neurons: int, connections: int, synapses: int, regions: int, seed: int = 0) -> tuple[Index, ...]:
    """Draw a connectome; return region (neurons,), and pre, post and count (connections,), each pair once.

    Regions have unequal sizes; degrees are log-normal with sigma 1, so are counts; four connections in five stay in
    their region.
    """
    draw = np.random.default_rng(seed)
    share = draw.dirichlet(np.full(regions, 5.0))
    region = np.concatenate([np.arange(regions), draw.choice(regions, neurons - regions, p=share)])
    out, into = draw.lognormal(0.0, 1.0, (2, neurons))
    members = [np.flatnonzero(region == r) for r in range(regions)]
    pairs = np.zeros(0, dtype=np.int64)
    while len(pairs) < connections:
        more = int(1.1 * (connections - len(pairs))) + 16
        pre = draw.choice(neurons, more, p=out / out.sum())
        where = np.where(draw.random(more) < 0.8, region[pre], draw.choice(regions, more, p=share))
        post = np.empty(more, dtype=np.int64)
        for r, own in enumerate(members):
            mine = where == r
            post[mine] = draw.choice(own, int(mine.sum()), p=into[own] / into[own].sum())
        pairs = np.unique(np.concatenate([pairs, pre * neurons + post]))
    pairs = np.sort(draw.permutation(pairs)[:connections])
    weight = draw.lognormal(0.0, 1.0, connections)
    count = 1 + draw.multinomial(synapses - connections, weight / weight.sum())
    return region, pairs // neurons, pairs % neurons, count


def write(folder: Path, region: Index, pre: Index, post: Index, count: Index) -> None:
    """Write both tables as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(
        folder / "connections.csv", np.stack([pre, post, count], 1), "%d", ",", header="pre,post,count", comments=""
    )
    neurons = np.stack([np.arange(len(region)), region], 1)
    np.savetxt(folder / "neurons.csv", neurons, "%d", ",", header="neuron,region", comments="")


def read(folder: Path) -> tuple[Index, ...]:
    """Read both tables, Parquet where there is such a file; connections that are listed twice are added up."""
    tables = []
    for name, columns in (("neurons", ["neuron", "region"]), ("connections", ["pre", "post", "count"])):
        if (folder / f"{name}.parquet").exists():
            import pandas

            tables.append(pandas.read_parquet(folder / f"{name}.parquet")[columns].to_numpy(np.int64))
            continue
        path = folder / f"{name}.csv"
        with open(path, encoding="utf-8") as stream:
            found = stream.readline().strip().split(",")
        if found != columns:
            raise SystemExit(f"{path} needs the columns {','.join(columns)} (found {','.join(found)})")
        tables.append(np.loadtxt(path, np.int64, delimiter=",", skiprows=1, ndmin=2))
    neurons, connections = tables
    region = np.empty(len(neurons), dtype=np.int64)
    region[neurons[:, 0]] = neurons[:, 1]
    pairs, inverse = np.unique(connections[:, 0] * len(region) + connections[:, 1], return_inverse=True)
    count = np.bincount(inverse, weights=connections[:, 2]).astype(np.int64)
    return region, pairs // len(region), pairs % len(region), count


def declare(region: Index, pre: Index, post: Index) -> nx.DiGraph:
    """Declare a node for each region, and an edge for each two between which there is a connection."""
    graph = nx.DiGraph()
    place = np.zeros(len(region), dtype=np.int64)
    for r in range(int(region.max()) + 1):
        members = np.flatnonzero(region == r)
        place[members] = np.arange(len(members))
        graph.add_node(f"region {r}", shape=len(members), activation="tanh")
    label = region[pre] * len(graph) + region[post]
    order = np.argsort(label, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        a, z = divmod(int(label[part[0]]), len(graph))
        entries = torch.from_numpy(np.stack([place[pre[part]], place[post[part]]]))
        graph.add_edge(f"region {a}", f"region {z}", transform=pcgraph.transforms.SparseLinear(entries))
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--read", type=Path, help="a folder with neurons.csv and connections.csv, or .parquet")
    parser.add_argument("--write", type=Path, help="write what was drawn into this folder")
    parser.add_argument("--regions", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="of inference")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the fly")
    args = parser.parse_args()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    leads = int(os.environ.get("RANK", "0")) == 0
    size = [n // 100 for n in FLY] if args.quick else list(FLY)
    region, pre, post, count = read(args.read) if args.read else generate(*size, args.regions)
    if args.write and leads:
        write(args.write, region, pre, post, count)
    graph = declare(region, pre, post)
    report = pcgraph.check(graph, {"region 0"}, repair=False)
    partition = pcgraph.partition(graph, ranks)
    net = pcgraph.PCNetwork(graph, seed=0, partition=partition if ranks > 1 else None)
    if leads:
        print(
            f"{len(region):,} neurons, {len(pre):,} connections, {count.sum():,} synapses; "
            f"{len(graph)} regions, {graph.number_of_edges()} edges; a sweep exists: {report.order is not None}"
        )
    settings = {"init": pcgraph.Zero(), "steps": args.steps, "optimizer": pcgraph.SGD(lr=0.05)}
    plan = net.plan({"region 0"}, **settings)
    if leads:
        print("\n".join(plan.explain(partition, batch=args.batch).splitlines()[-ranks - 4 :]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x = torch.rand(args.batch, *net.structure.shape("region 0"), generator=torch.Generator().manual_seed(0))
    for update in range(args.updates):
        began = time.perf_counter()
        optimizer.zero_grad()
        result = net.infer({"region 0": x}, **settings)
        result.backward()
        optimizer.step()
        if leads:
            took = time.perf_counter() - began
            print(f"update {update}: energy {result.energy.mean():.6f} in {took:.2f} s")
        del result
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"rank {net.rank} of {ranks}: at most {peak:.2f} GiB")


if __name__ == "__main__":
    with pcgraph.processes.started():
        main()
