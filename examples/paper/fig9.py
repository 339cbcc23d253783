"""Figure 9: both graphs, checked, drawn, and the appendix's argument run with numbers.

    python examples/paper/fig9.py --full
    python examples/paper/fig9.py --quick        # fewer draws of weights and fewer steps, for the tests

The input is 1, at node 0. For the upper graph and the lower one, and for several weights:

* **Sweep.** Of all 120 orders in which the five other nodes can be given a value once, from the values given so far
  (zero where there is none yet), how many leave no error anywhere?
* **Laps.** The appendix pushes the value of node 1 once round the cycle and finds another value. How far off is it, and
  what do further laps do: does the value settle?
* **Inference.** What energy is left after many inference steps of the engine?

Where the energy goes to zero, a state without error exists, and none of the sweeps has found it. With all weights 1 and
relu none exists: the four errors on the cycle add up to the 2 that the input brings, so that the energy is at least
4 (1/2)^2 / 2 = 1/2. All draws of weights are components of one graph, which the engine runs at once.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch
from common import Store, arguments, save, table, versions
from numpy.typing import NDArray

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, Zero, drawing
from pcgraph.drawing.style import SMALL, look
from pcgraph.graphs import figure_9

Array = NDArray[np.float64]
Weights = dict[tuple[int, int], Array]
LAP = (1, 2, 4, 3)
"""The cycle of the lower graph."""
LAPS = 200
SETTLED = 1e-9
"""A value that a lap changes by less has settled; an energy below counts as none."""
ALPHA = 0.1
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh, "identity": lambda a: a, "relu": lambda a: np.maximum(a, 0),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A graph with weights: drawn from a standard normal distribution, or all the same."""

    which: str
    activation: str
    weight: float | None = None

    @property
    def graph(self) -> nx.DiGraph:
        """The graph, without biases."""
        graph = figure_9(self.which, activation=self.activation)
        nx.set_node_attributes(graph, {v: {"bias": False} for v in graph})
        return graph

    def weights(self, draws: int) -> Weights:
        """Edge -> (draws,); one draw where all weights are the same."""
        if self.weight is not None:
            return {edge: np.full(1, self.weight) for edge in self.graph.edges}
        generator = np.random.default_rng(0)
        return {edge: generator.normal(size=draws) for edge in self.graph.edges}


CASES = (
    Case("top", "tanh"), Case("top", "identity"), Case("bottom", "tanh"), Case("bottom", "identity"),
    Case("bottom", "relu"), Case("bottom", "identity", 0.5), Case("bottom", "relu", 1.0),
)  # fmt: skip


# -- by the definition, without the engine ----------------------------------------------------------------------------


def prediction(case: Case, weights: Weights, states: dict[int, Array], node: int) -> Array:
    """Mu of one node for every draw: sigma of the weighted sum of its parents."""
    total = sum(weights[u, node] * states[u] for u in case.graph.predecessors(node))
    return ACTIVATIONS[case.activation](np.asarray(total))


def begin(weights: Weights) -> dict[int, Array]:
    """The input 1 at node 0, and nothing yet elsewhere."""
    draws = len(next(iter(weights.values())))
    return {v: np.full(draws, float(v == 0)) for v in range(6)}


def sweeps(case: Case, weights: Weights) -> NDArray[np.bool_]:
    """Which of the 120 orders of one-pass assignments leave no error at any node, shape (120, draws)."""
    good = []
    for order in itertools.permutations(range(1, 6)):
        states = begin(weights)
        for v in order:
            states[v] = prediction(case, weights, states, v)
        good.append(np.all([states[v] == prediction(case, weights, states, v) for v in order], axis=0))
    return np.array(good)


def laps(case: Case, weights: Weights, count: int = LAPS) -> Array:
    """The value of node 1 before the first lap and after each, shape (count + 1, draws)."""
    states = begin(weights)
    states[1] = ACTIVATIONS[case.activation](weights[0, 1] * states[0])
    seen = [states[1]]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(count):
            for v in (*LAP[1:], LAP[0]):
                states[v] = prediction(case, weights, states, v)
            seen.append(states[1])
    return np.stack(seen)


# -- by the engine ----------------------------------------------------------------------------------------------------


def energies(case: Case, weights: Weights, marks: tuple[int, ...]) -> Array:
    """The energy of each draw after so many inference steps from zero, shape (marks, draws), in float64."""
    draws = len(next(iter(weights.values())))
    joined = nx.union_all([nx.relabel_nodes(case.graph, {v: (d, v) for v in range(6)}) for d in range(draws)])
    net = PCNetwork(joined, dtype=torch.float64)
    with torch.no_grad():
        for (u, v), values in weights.items():
            for d in range(draws):
                net.weight((d, u), (d, v)).fill_(float(values[d]))
    clamps = {(d, 0): torch.ones(1, 1, dtype=torch.float64) for d in range(draws)}
    seen, done, init = [], 0, Zero()
    for mark in marks:
        result = net.infer(clamps, init=init, steps=mark - done, optimizer=SGD(lr=ALPHA))
        energy = result.node_energy
        seen.append([sum(float(energy[d, v]) for v in range(1, 6)) for d in range(draws)])
        init, done = net.carry_on({node: result.states[node].clone() for node in result.free_nodes}), mark
    return np.array(seen)


def checks() -> list[dict[str, object]]:
    """What the checker says of both graphs, of the upper one with the input at node 1, and what a sweep leaves."""
    rows = []
    for which, clamped in (("top", 0), ("bottom", 0), ("top", 1)):
        graph = figure_9(which)
        report = pcgraph.check(graph, {clamped})
        net, x = PCNetwork(graph, seed=0, dtype=torch.float64), {clamped: torch.ones(1, 1, dtype=torch.float64)}
        try:
            result = net.infer(x, init=Forward(), steps=0)
            left = f"{max(float(result.errors[v].abs().max()) for v in report.free):g}"
        except pcgraph.InvalidInitializer:
            left = "refused"
        rows.append({
            "graph": which, "input": clamped, "proposition_3_2": report.proposition_3_2,
            "theorem_1": report.theorem_1, "order": names(report.order), "cycle": names(report.cycle),
            "free_roots": names(report.free_roots), "repair": names(sorted(report.repair)), "forward_error": left,
        })  # fmt: skip
    return rows


def names(nodes: Iterable[object] | None) -> str:
    """Nodes as text; nothing where there are none."""
    return " ".join(map(str, nodes or ()))


def numbers(case: Case, draws: int, steps: int) -> dict[str, object]:
    """One row: sweeps, laps and inference for a case."""
    weights = case.weights(draws)
    energy, good = energies(case, weights, (steps,)), sweeps(case, weights)
    row = {
        "graph": case.which, "activation": case.activation, "weights": "drawn" if case.weight is None else case.weight,
        "draws": energy.shape[1], "sweeps": int(good.all(1).sum()), "orders": len(good),
        "draws_with_a_sweep": int(good.any(0).sum()), "first_lap": "", "unmoved": "",
        "settled": "", "steps": steps, "energy": f"{np.median(energy[-1]):.3g}",
        "zero": int((energy[-1] < SETTLED).sum()),
    }  # fmt: skip
    if case.which == "bottom":
        values = laps(case, weights)
        moved = np.abs(values[1] - values[0])
        with np.errstate(invalid="ignore"):
            settled = np.abs(values[-1] - values[-2]) < SETTLED
        row |= {
            "first_lap": f"{np.median(moved):.6g}", "unmoved": int((moved == 0).sum()), "settled": int(settled.sum()),
        }  # fmt: skip
    return row


# -- the tables and the picture ---------------------------------------------------------------------------------------


def check_table(rows: list[dict[str, str]]) -> str:
    """What the checker says."""
    header = [
        "graph", "input at", "Proposition 3.2", "Theorem 1", "order of the sweep", "free cycle", "root without a value",
        "repair: give a value to", "largest free error after Forward()",
    ]  # fmt: skip
    found = []
    for r in rows:
        yes = ("holds" if r[key] == "True" else "does not hold" for key in ("proposition_3_2", "theorem_1"))
        cells = [r["graph"], r["input"], *yes, r["order"], r["cycle"], r["free_roots"], r["repair"], r["forward_error"]]
        found.append([c or "–" for c in cells])
    return table(header, found)


def number_table(rows: list[dict[str, str]]) -> str:
    """Sweeps, laps and inference."""
    header = [
        "graph", "activation", "weights", "orders without error in every draw", "draws with an order without error",
        "change of node 1 by a lap", "unmoved by a lap", f"settled after {LAPS} laps", "steps of inference",
        "energy after it", f"below {SETTLED:g}",
    ]  # fmt: skip
    found = []
    for r in rows:
        draws = r["draws"]
        around = [r["first_lap"], *(f"{r[key]} of {draws}" for key in ("unmoved", "settled"))]
        found.append([
            r["graph"], r["activation"], f"{draws} draws" if r["weights"] == "drawn" else f"all {r['weights']}",
            f"{r['sweeps']} of {r['orders']}", f"{r['draws_with_a_sweep']} of {draws}",
            *(around if r["graph"] == "bottom" else ["–"] * 3), r["steps"], r["energy"], f"{r['zero']} of {draws}",
        ])  # fmt: skip
    return table(header, found)


def picture(path: Path) -> None:
    """Both graphs as the checker sees them, some laps round the cycle, and the energy while the engine infers."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained", height_ratios=(2.4, 3.5))
    for ax, which in zip(axes[0], ("top", "bottom"), strict=True):
        drawing.graph(figure_9(which), {0}, ax=ax)
        ax.set_title(ax.get_title().replace(": ", ":\n"))
    marks = (0, *np.unique(np.geomspace(1, 3000, 25).astype(int)).tolist())
    shown = {
        "identity, all weights ½": Case("bottom", "identity", 0.5),
        "tanh, drawn": Case("bottom", "tanh"),
        "relu, all weights 1: no state without error": Case("bottom", "relu", 1.0),
    }
    for k, (label, case) in enumerate(shown.items()):
        weights = case.weights(5)
        for i, values in enumerate(laps(case, weights, 12).T):
            axes[1, 0].plot(values, **look(k), markersize=4, linewidth=1, label=None if i else label)
        for i, energy in enumerate(energies(case, weights, marks).T):
            line = np.maximum(energy, 1e-17)
            axes[1, 1].plot(
                np.maximum(marks, 0.7), line, **look(k) | {"marker": None}, linewidth=1, label=None if i else label
            )
    axes[1, 0].set(xlabel="laps round the cycle", ylabel="value of node 1", title="pushed round the cycle")
    axes[1, 0].set_ylim(-2, 6)
    axes[1, 1].set(xlabel="inference steps", ylabel="energy", title="inference", xscale="log", yscale="log")
    axes[1, 1].set_ylim(1e-17, 10)
    axes[1, 0].legend(frameon=False, fontsize=SMALL)
    for ax in axes[1]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Check, sweep, push and infer; write the tables and the picture."""
    args = arguments(__doc__, "fig9")
    draws, steps = (20, 300) if args.quick else (200, 30000)
    checked = Store(args.out / "fig9_checks.csv", ["graph", "input"])
    counted = Store(args.out / "fig9_numbers.csv", ["graph", "activation", "weights", "steps"])
    checked.add(*(row | versions() for row in checks()))
    for case in CASES:
        if not counted.find(graph=case.which, activation=case.activation, weights=case.weight or "drawn", steps=steps):
            begun = time.perf_counter()
            row = numbers(case, draws, steps)
            counted.add(row | {"seed": 0, "alpha": ALPHA, "wall": f"{time.perf_counter() - begun:.1f}"} | versions())
    save(args.out, "fig9_checks", check_table(checked.rows), checked.rows)
    save(args.out, "fig9_numbers", number_table(counted.rows), counted.rows)
    picture(args.out / "fig9.png")


if __name__ == "__main__":
    main()
