"""Node classification by predictive coding on a citation graph of documents that ship: modules that import each other.

Run ``python examples/citations.py [--quick] [--out FOLDER]``; it downloads nothing and takes some minutes on one core.

SymPy comes with torch. Its modules are documents: their words are the identifiers in them, the modules that they import
are what they cite, and the subpackage that they lie in is their class. Import lines and the names of subpackages are
left out of the words, so that no document says its class by name. The set-up is the one that predictive coding on graph
neural networks was published with: two layers of GCN, SAGE or GAT as edges x -> h -> y, transductive, a split with
twenty known documents a class as in Planetoid, and the same layers with the same first weights by backprop beside it.
Published numbers are on Cora and its like, which are not here, so that these cannot be compared with them.

Then comes the network of the authors' code with its settings (:func:`published`), on its split and on this one, and the
two layers on that split, so that each can be told from the other; and the authors' network once more, with states that
move at a tenth of their rate.

References: B. Byiringiro, T. Salvatori, T. Lukasiewicz, "Robust Graph Representation Learning via Predictive Coding",
2022, with code at github.com/bbyiringiro/pc-graphgym; Z. Yang, W. Cohen, R. Salakhutdinov, "Revisiting Semi-Supervised
Learning with Graph Embeddings", 2016.
"""

import argparse
import ast
import copy
import csv
import functools
import keyword
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import sympy
import torch
from rows import Store, spread
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

import pcgraph
from pcgraph.drawing import style
from pcgraph.pyg import KnownRows, accuracy, clamps
from pcgraph.transforms import GraphLayer

CLASSES, KNOWN, JUDGED, WORDS, HIDDEN = 7, 20, 100, 1000, 16
WIDE = 64
LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "GCNConv": layers.GCNConv,
    "SAGEConv": layers.SAGEConv,
    "GATConv": layers.GATConv,
}


def documents() -> tuple[dict[str, Path], list[str]]:
    """Modules by their dotted names, of the largest subpackages; and these subpackages."""
    root = Path(sympy.__file__).parent
    paths = (p for p in sorted(root.rglob("*.py")) if "tests" not in p.parts and p.name != "__init__.py")
    named = {".".join(p.relative_to(root.parent).with_suffix("").parts): p for p in paths}
    inside = {name: path for name, path in named.items() if name.count(".") >= 2}
    largest = [part for part, _ in Counter(name.split(".")[1] for name in inside).most_common(CLASSES)]
    return {name: path for name, path in inside.items() if name.split(".")[1] in largest}, sorted(largest)


@functools.cache
def read(path: Path, name: str) -> tuple[Counter[str], set[str]]:
    """The words of a module, and the names that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    cited: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            cited |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            cited |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    used = (
        n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute)
    )
    words = Counter(part for word in used for part in re.findall(r"[a-z]{3,}", word.lower()))
    return words, cited


def citation_graph() -> Data:
    """x: binary bags of words, rows of sum 1; y: subpackages; edges both ways, from whoever imports to what it does."""
    paths, classes = documents()
    names = list(paths)
    texts = {name: read(path, name) for name, path in paths.items()}
    said = {*classes, *(c.rstrip("s") for c in classes), *keyword.kwlist}
    frequency = Counter(word for words, _ in texts.values() for word in words if word not in said)
    vocabulary = {word: i for i, (word, _) in enumerate(frequency.most_common(WORDS))}
    x = torch.zeros(len(names), len(vocabulary))
    place = {name: i for i, name in enumerate(names)}
    edges = []
    for i, name in enumerate(names):
        words, cited = texts[name]
        x[i, [vocabulary[word] for word in words if word in vocabulary]] = 1
        edges += [(i, place[other]) for other in cited if other in place and other != name]
    y = torch.tensor([classes.index(name.split(".")[1]) for name in names])
    both_ways = to_undirected(torch.tensor(edges).t())
    return Data(x=x / x.sum(1, keepdim=True).clamp(min=1), y=y, edge_index=both_ways, words=list(vocabulary))


def split(data: Data, number: int, most: bool = False) -> Data:
    """The same graph with masks: twenty documents a class are known, a hundred judge, the rest is the test.

    With `most`, eight in ten are known, one in ten judges, and one in ten is the test.
    """
    generator = torch.Generator().manual_seed(number)
    order = torch.randperm(data.num_nodes, generator=generator)
    known = torch.cat([order[data.y[order] == c][:KNOWN] for c in range(CLASSES)])
    judged = JUDGED
    if most:
        known, judged = order[: round(0.8 * len(order))], round(0.1 * len(order))
    others = order[~torch.isin(order, known)]
    found = copy.copy(data)
    for name, rows in (("train_mask", known), ("val_mask", others[:judged]), ("test_mask", others[judged:])):
        found[name] = torch.zeros(data.num_nodes, dtype=torch.bool)
        found[name][rows] = True
    return found


def predictive_coding(parts: list[nn.Module], data: Data, epochs: int) -> float:
    """Test accuracy at the epoch that judges best."""
    vertices, words = data.x.shape
    graph = nx.DiGraph()
    graph.add_node("x", shape=(vertices, words))
    graph.add_node("h", shape=(vertices, HIDDEN), activation="relu", bias=False)
    graph.add_node("y", shape=(vertices, CLASSES), bias=False, energy=KnownRows())
    graph.add_edge("x", "h", transform=GraphLayer(parts[0], data.edge_index))
    graph.add_edge("h", "y", transform=GraphLayer(parts[1], data.edge_index))
    net = pcgraph.PCNetwork(graph)
    weights = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=5e-4)
    return infer_and_learn(net, data, epochs, weights, steps=10, state_optimizer=pcgraph.SGD(lr=0.05))


def infer_and_learn(
    net: pcgraph.PCNetwork, data: Data, epochs: int, weights: torch.optim.Optimizer, **inference: Any
) -> float:
    """Test accuracy at the epoch that judges best."""
    known = clamps(data, mask="train_mask", classes=CLASSES)
    found: list[dict[str, float]] = []

    def judge(net: pcgraph.PCNetwork) -> dict[str, float]:
        answer = net.predict({"x": known["x"]}, "y")
        found.append({name: accuracy(answer, data, f"{name}_mask") for name in ("val", "test")})
        return found[-1]

    pcgraph.fit(
        net,
        [known],
        init=pcgraph.Forward(),
        epochs=epochs,
        optimizer=weights,
        validate=judge,
        progress=False,
        **inference,
    )
    return max(found, key=lambda each: each["val"])["test"]


def backprop(parts: list[nn.Module], data: Data, epochs: int) -> float:
    """The same by torch_geometric and autograd alone."""
    first, second = parts
    weights = torch.optim.AdamW([*first.parameters(), *second.parameters()], lr=0.01, weight_decay=5e-4)
    return descend(lambda: second(first(data.x, data.edge_index).relu(), data.edge_index), data, epochs, weights)


def descend(answer: Callable[[], Tensor], data: Data, epochs: int, weights: torch.optim.Optimizer) -> float:
    """Test accuracy at the epoch that judges best."""
    wanted, found = torch.eye(CLASSES)[data.y], []
    for _ in range(epochs):
        weights.zero_grad()
        (0.5 * (answer() - wanted)[data.train_mask].square().sum()).backward()
        weights.step()
        with torch.no_grad():
            told = answer()[None]
        found.append({name: accuracy(told, data, f"{name}_mask") for name in ("val", "test")})
    return max(found, key=lambda each: each["val"])["test"]


# -- the network of the authors' code ---------------------------------------------------------------------------------


class Encode(nn.Module):
    """A dense layer of each vertex's own features, before any messages."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.dense, self.activation = nn.Linear(words, WIDE), nn.PReLU()
        nn.init.xavier_uniform_(self.dense.weight, nn.init.calculate_gain("relu"))
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.activation(self.dense(x)), dim=-1)


class Messages(nn.Module):
    """A combine: the sum of all that went before, each of length one, is passed along the edges."""

    def __init__(self, edge_index: Tensor) -> None:
        super().__init__()
        self.layer, self.activation, self.edge_index = layers.GCNConv(WIDE, WIDE), nn.PReLU(), edge_index

    def forward(self, x: Tensor, p1: Tensor | None = None, p2: Tensor | None = None) -> Tensor:
        return self.activation(self.layer(added(x, p1, p2), self.edge_index))


class Tell(nn.Module):
    """A combine: the class, from the same sum."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDE, CLASSES)
        nn.init.xavier_uniform_(self.dense.weight, nn.init.calculate_gain("relu"))
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor, p1: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
        return self.dense(F.normalize(added(x, p1, p2, p3), dim=-1))


def added(x: Tensor, *parts: Tensor | None) -> Tensor:
    for part in parts:
        if part is not None:
            x = x + F.normalize(part, dim=-1)
    return x


def published(data: Data) -> list[nn.Module]:
    """The parts of the authors' network: dense, three layers of messages whose results go by them, dense."""
    return [Encode(data.x.shape[1]), *(Messages(data.edge_index) for _ in range(3)), Tell()]


def published_network(parts: list[nn.Module], data: Data) -> pcgraph.PCNetwork:
    """States are p1, p2 and p3, what the layers of messages find."""
    encode, *messages, tell = parts
    vertices, words = data.x.shape
    graph = nx.DiGraph()
    graph.add_node("x", shape=(vertices, words))
    for i, part in enumerate(messages, 1):
        graph.add_node(f"p{i}", shape=(vertices, WIDE), bias=False, combine=part)
    graph.add_node("y", shape=(vertices, CLASSES), bias=False, combine=tell, energy=KnownRows())
    names = ["p1", "p2", "p3", "y"]
    for i, name in enumerate(names):
        graph.add_edge("x", name, role="x", transform=encode)  # one module, and one weight
        graph.add_edges_from((before, name, {"role": before}) for before in names[:i])
    return pcgraph.PCNetwork(graph)


def published_predictive_coding(parts: list[nn.Module], data: Data, epochs: int, rate: float = 0.1) -> float:
    """Adam moves the states at `rate`, eleven times before the weights learn.

    The authors take twelve steps, and the gradient of the weights is that of the last, before its states move.
    """
    net = published_network(parts, data)
    weights = torch.optim.Adam(net.parameters(), lr=1e-3)
    return infer_and_learn(net, data, epochs, weights, steps=11, state_optimizer=pcgraph.Adam(lr=rate))


def published_backprop(parts: list[nn.Module], data: Data, epochs: int) -> float:
    """The same network without states."""
    weights = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-3)
    return descend(lambda: published_answer(parts, data), data, epochs, weights)


def published_answer(parts: list[nn.Module], data: Data) -> Tensor:
    """What the parts make of the features, one after the other."""
    encode, *messages, tell = parts
    found = [encode(data.x)]
    for part in messages:
        found.append(part(*found))
    return tell(*found)


def picture(data: Data, path: Path) -> None:
    """Draw the documents that hang together by what they cite, in the colours and marks of their classes."""
    whole = nx.Graph(data.edge_index.t().tolist())
    graph = whole.subgraph(max(nx.connected_components(whole), key=len))
    place = nx.spring_layout(graph, seed=0, k=0.2)
    figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
    nx.draw_networkx_edges(graph, place, ax=ax, edge_color=style.GREY, width=0.4, alpha=0.5)
    for k, name in enumerate(documents()[1]):
        across, up = zip(*(place[v] for v in graph if data.y[v] == k))
        ax.plot(across, up, **style.look(k) | {"linestyle": "none"}, markersize=5, label=name)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="subpackage")
    ax.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one split and ten epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/citations"), help="where rows and picture go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = citation_graph()
    print(f"{data.num_nodes} documents, {data.num_edges // 2} citations, {CLASSES} classes, {data.x.shape[1]} words")
    splits, epochs = (1, 10) if options.quick else (5, 100)
    rows = []
    for number in range(splits):
        cut = split(data, number)
        for name, make in LAYERS.items():
            torch.manual_seed(number)
            parts = [make(data.x.shape[1], HIDDEN), make(HIDDEN, CLASSES)]
            row = {"layer": name, "split": number}
            for learn in (predictive_coding, backprop):
                row[learn.__name__] = round(100 * learn(copy.deepcopy(parts), cut, epochs), 2)
            rows.append(row)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "citations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    picture(data, options.out / "citations.png")
    store = Store(options.out / "citations_published.csv", ["set-up", "known", "split"])
    for number in range(1 if options.quick else 3):
        compare(store, data, number, options.quick)
    print(published_table(store.rows))


def compare(store: Store, data: Data, number: int, quick: bool) -> None:
    """Add the rows of one split that are missing, with most known.

    They are of the authors' network, the same with states that move at a tenth of the rate, and two layers of GCN.
    """
    cut = split(data, number, most=True)
    calmer = functools.partial(published_predictive_coding, rate=0.01)
    for name, learned, epochs in (
        ("two layers", (predictive_coding, backprop), 100),
        ("the authors' code", (published_predictive_coding, published_backprop), 500),
        ("the authors' code, states at 0.01", (calmer, published_backprop), 500),
    ):
        row: dict[str, object] = {"set-up": name, "known": "80 %", "split": number}
        if store.find(**row) is not None:
            continue
        torch.manual_seed(number)
        two = [layers.GCNConv(data.x.shape[1], HIDDEN), layers.GCNConv(HIDDEN, CLASSES)]
        parts = two if name == "two layers" else published(data)
        for rule, learn in zip(("predictive_coding", "backprop"), learned):
            row[rule] = round(100 * learn(copy.deepcopy(parts), cut, 3 if quick else epochs), 2)
        store.add(row)
        print(row, flush=True)


def published_table(rows: list[dict[str, str]]) -> str:
    """Means over the splits, and their standard deviations, as Markdown."""
    lines = ["| set-up | known | predictive coding (%) | backprop (%) |", "|---|---|---|---|"]
    for name, known in dict.fromkeys((row["set-up"], row["known"]) for row in rows):
        those = [row for row in rows if row["set-up"] == name and row["known"] == known]
        cells = [spread([float(row[rule]) for row in those]) for rule in ("predictive_coding", "backprop")]
        lines.append(f"| {name} | {known} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    """Means over the splits, and their standard deviations, as Markdown."""
    lines = ["| layer | predictive coding (%) | backprop (%) |", "|---|---|---|"]
    for name in LAYERS:
        found = {
            rule: [float(row[rule]) for row in rows if row["layer"] == name]
            for rule in ("predictive_coding", "backprop")
        }
        cells = [f"{fmean(v):.1f}" + (f" ± {stdev(v):.1f}" if len(v) > 1 else "") for v in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
