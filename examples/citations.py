"""Node classification by predictive coding on a citation graph of documents that ship: modules that import each other.

Run ``python examples/citations.py [--quick] [--out FOLDER]``; it downloads nothing and takes some minutes on one core.

SymPy comes with torch. Its modules are documents: their words are the identifiers in them, the modules that they import
are what they cite, and the subpackage that they lie in is their class. Import lines and the names of subpackages are
left out of the words, so that no document says its class by name. The set-up is the one that predictive coding on graph
neural networks was published with: two layers of GCN, SAGE or GAT as edges x -> h -> y, transductive, a split with
twenty known documents a class as in Planetoid, and the same layers with the same first weights by backprop beside it.
Published numbers are on Cora and its like, which are not here, so that these cannot be compared with them.

References: B. Byiringiro, T. Salvatori, T. Lukasiewicz, "Robust Graph Representation Learning via Predictive Coding",
2022, with code at github.com/bbyiringiro/pc-graphgym; Z. Yang, W. Cohen, R. Salakhutdinov, "Revisiting Semi-Supervised
Learning with Graph Embeddings", 2016.
"""

import argparse
import ast
import copy
import csv
import keyword
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import networkx as nx
import sympy
import torch
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

import pcgraph
from pcgraph.pyg import KnownRows, accuracy, clamps
from pcgraph.transforms import GraphLayer

CLASSES, KNOWN, JUDGED, WORDS, HIDDEN = 7, 20, 100, 1000, 16
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


def split(data: Data, number: int) -> Data:
    """The same graph with masks: twenty documents a class are known, a hundred judge, the rest is the test."""
    generator = torch.Generator().manual_seed(number)
    order = torch.randperm(data.num_nodes, generator=generator)
    known = torch.cat([order[data.y[order] == c][:KNOWN] for c in range(CLASSES)])
    others = order[~torch.isin(order, known)]
    found = copy.copy(data)
    for name, rows in (("train_mask", known), ("val_mask", others[:JUDGED]), ("test_mask", others[JUDGED:])):
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
    known = clamps(data, mask="train_mask", classes=CLASSES)
    found: list[dict[str, float]] = []

    def judge(net: pcgraph.PCNetwork) -> dict[str, float]:
        answer = net.predict({"x": known["x"]}, "y")
        found.append({name: accuracy(answer, data, f"{name}_mask") for name in ("val", "test")})
        return found[-1]

    pcgraph.fit(
        net, [known], init=pcgraph.Forward(), steps=10, state_optimizer=pcgraph.SGD(lr=0.05), epochs=epochs,
        optimizer=torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=5e-4), validate=judge, progress=False,
    )  # fmt: skip
    return max(found, key=lambda each: each["val"])["test"]


def backprop(parts: list[nn.Module], data: Data, epochs: int) -> float:
    """The same by torch_geometric and autograd alone."""
    first, second = parts
    weights = torch.optim.AdamW([*first.parameters(), *second.parameters()], lr=0.01, weight_decay=5e-4)
    wanted, found = torch.eye(CLASSES)[data.y], []
    for _ in range(epochs):
        weights.zero_grad()
        answer = second(first(data.x, data.edge_index).relu(), data.edge_index)
        (0.5 * (answer - wanted)[data.train_mask].square().sum()).backward()
        weights.step()
        with torch.no_grad():
            answer = second(first(data.x, data.edge_index).relu(), data.edge_index)[None]
        found.append({name: accuracy(answer, data, f"{name}_mask") for name in ("val", "test")})
    return max(found, key=lambda each: each["val"])["test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one split and ten epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/citations"), help="where the rows go")
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
    with (options.out / "citations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))


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
