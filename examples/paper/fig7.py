"""Figure 7: the error of reconstructions over T_train and T_eval, for each initialization of the decoder.

    python examples/paper/fig7.py --full              # resumes where it was stopped
    python examples/paper/fig7.py --full --report     # tables and picture of what is there; trains nothing
    python examples/paper/fig7.py --quick             # digits and a narrow network, for the tests

Rates are chosen first, for the two cells of the paper's claim, by the validation error after the last epoch of trials
with one seed, one coordinate after the other. At T_train = 3, three epochs on all of the training set: activation,
state rate, learning rate; shorter trials prefer rates at which longer runs fall over. At T_train = 20, four epochs on
an eighth: the state rate alone. All cells at T_train = 3 and 5 have the rates of the first, those at 10 and 20 of the
second, so that within a T_train nothing differs but the initialization. Normal draws have the standard deviation 0.1.
The state rate in evaluation is chosen on the validation images for each run and T_eval. No choice looks at a test
image.

"Four layers" may mean four maps of weights, or four groups of neurons and three maps. At the paper's smallest T the
difference is one of kind: an error moves one map a step, so that with four maps it does not come to ``h0`` within three
steps. Both are trained, with the same rates, which were chosen with four.

The rates of Zero at T_train = 20 come from short trials, and its longer runs fall over. So that Memory is not compared
with a badly set rival, Zero is trained for all 16 epochs with smaller rates, too, with three maps and one seed.

Then every cell is trained with three seeds, in the order of :meth:`Plan.jobs`: the claim, the ablation, the rest, each
to 2 epochs before any but the claim goes on to 4, 8 and the paper's 16. Each run goes on from its checkpoint; the
network that counts is that of its best epoch on the validation images. Checkpoints are in runs/, which is not
committed: without them a run starts again, and its rows stay.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from common import MISSING, ROOT, Store, arguments, save, table, versions
from decoder import ALPHAS, METHODS, STABLE, STEPS, Problem, Setting, Trained, errors, make, train
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pcgraph import SGD
from pcgraph.drawing.style import DASHES, INK, look

__all__ = [
    "FULL", "QUICK", "Cell", "Plan", "Records", "claim_table", "draw", "grid_table", "rate_table", "rival_table", "run",
]  # fmt: skip

ACTIVATIONS = ("gelu", "tanh", "leaky_relu")
LRS = (5e-4, 3e-4, 1e-4)
MEMORY = "Forward(roots=Memory)"
ABLATION = (MEMORY, "Forward(roots=Zero)", "Forward(roots=Normal)")
EVERYWHERE = ("Zero", "Normal", MEMORY)
"""Methods that are trained at every T_train, the paper's three; the others at the smallest and the largest."""
LIMIT = 0.14
"""Of the pictures: half as much again as the error of the mean image."""
CHECKPOINTS = ROOT / "runs" / "paper" / "fig7"
LOOKS = {method: look(k) for k, method in enumerate(METHODS)}
"""A method has a colour and a mark; the dashes are those of T_train."""


@dataclass(frozen=True)
class Cell:
    """A cell of the figure, trained with every seed; the attributes are those of :class:`decoder.Setting`."""

    method: str
    t_train: int
    maps: int = 4

    @property
    def key(self) -> dict[str, Any]:
        """What its rows have."""
        return asdict(self)

    def folder(self, folder: Path, seed: int) -> Path:
        """Where the checkpoints of a run lie."""
        name = f"{self.method} T{self.t_train} maps{self.maps} seed{seed}"
        return folder / "".join(c if c.isalnum() else "-" for c in name)


@dataclass(frozen=True)
class Trials:
    """How rates are chosen: (name of a rate, its values) in the order of work, the part of the images, and epochs."""

    coordinates: tuple[tuple[str, tuple[Any, ...]], ...]
    fraction: float
    epochs: int


@dataclass(frozen=True)
class Plan:
    """Which cells are trained, and how far.

    Attributes
    ----------
    steps : tuple of int
        T_train and T_eval, ascending.
    stages : tuple of int
        Epochs after which every run is evaluated, ascending.
    trials : tuple of Trials
        How rates are chosen at the smallest and at the largest T_train.
    rivals : tuple of (state rate, learning rate)
        With which Zero is trained at the largest T_train, too.
    """

    steps: tuple[int, ...]
    stages: tuple[int, ...]
    trials: tuple[Trials, Trials]
    rivals: tuple[tuple[float, float], ...]

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest T_train, where rates are chosen."""
        return self.steps[0], self.steps[-1]

    def headline(self, maps: int) -> list[Cell]:
        """The two cells of the paper's claim."""
        return [Cell(m, t, maps) for m, t in zip((MEMORY, "Zero"), self.ends, strict=True)]

    def at(self, steps: int, maps: int) -> list[Cell]:
        """The cells of one T_train, in the order of work."""
        first = (*ABLATION, "Zero", "Normal") if steps in self.ends else EVERYWHERE
        return [Cell(m, steps, maps) for m in first]

    def grid(self, maps: int) -> list[Cell]:
        """All cells of the figure."""
        return [*(c for t in self.steps for c in self.at(t, maps)), *(Cell("Memory", t, maps) for t in self.ends)]

    def jobs(self, seeds: tuple[int, ...]) -> Iterator[tuple[Cell, int, int]]:
        """(cell, seed, epochs) in the order of work."""
        low, high = self.ends
        first, *later = self.stages
        order: list[tuple[list[Cell], Sequence[int]]] = [
            (self.headline(4), [first]), (self.at(low, 4), [first]), (self.headline(3), [first]),
            (self.at(low, 3), [first]), (self.at(high, 3), [first]), (self.headline(3), later),
            (self.grid(3), [first]), (self.at(high, 4), [first]), (self.grid(4), [first]),
            (self.headline(4), later), (self.grid(3), later), (self.grid(4), later),
        ]  # fmt: skip
        for cells, stages in order:
            for epochs in stages:
                yield from ((cell, seed, epochs) for cell in cells for seed in seeds)


_AT_LOW = (("activation", ACTIVATIONS), ("alpha", STABLE), ("lr", LRS))
FULL = Plan(
    STEPS, (2, 4, 8, 16), (Trials(_AT_LOW, 1.0, 3), Trials((("alpha", ALPHAS),), 0.125, 4)),
    ((0.1, 3e-4), (0.1, 1e-4), (0.05, 3e-4)),
)  # fmt: skip
QUICK = Plan((3, 20), (1, 2), (Trials(_AT_LOW, 0.5, 1), Trials((("alpha", ALPHAS),), 0.5, 1)), ((0.1, 3e-4),))


class Records:
    """The rows of a folder: what was tried for rates, every run's errors, curves, and milliseconds of an update."""

    def __init__(self, folder: Path) -> None:
        cell = ["method", "t_train", "maps"]
        self.rates = Store(folder / "fig7_rates.csv", ["method", "t_train", "activation", "alpha", "lr"])
        self.errors = Store(folder / "fig7_errors.csv", [*cell, "seed", "epochs", "t_eval"])
        self.curves = Store(folder / "fig7_curves.csv", [*cell, "seed", "epoch"])
        self.updates = Store(folder / "fig7_updates.csv", cell)
        self.known = Store(folder / "fig7_known.csv", ["what"])
        self.rivals = Store(folder / "fig7_rivals.csv", ["alpha", "lr"])


# -- the choice of rates ----------------------------------------------------------------------------------------------


def candidates(base: Setting, trials: Trials, found: dict[Setting, float]) -> Iterator[Setting]:
    """The settings to try, one coordinate at a time; `found` is to have the error of each before the next is asked."""
    best = base
    for key, values in trials.coordinates:
        settings = [replace(best, **{key: value}) for value in values]
        yield from (s for s in settings if s not in found)
        best = min(settings, key=lambda s: found[s])


def setting_of(row: dict[str, str], cell: Cell) -> Setting:
    """The setting of a cell with the rates of a row."""
    return Setting(cell.method, cell.t_train, cell.maps, row["activation"], float(row["alpha"]), lr=float(row["lr"]))


def chosen(problem: Problem, plan: Plan, store: Store, cell: Cell) -> Setting:
    """The cell with the best rates of the cell of the claim that stands for its T_train; tried for if need be."""
    which = 0 if cell.t_train <= 5 else 1
    model, trials = plan.headline(4)[which], plan.trials[which]
    found = {
        setting_of(r, model): float(r["validation"])
        for r in store.where(method=model.method, t_train=model.t_train)
    }  # fmt: skip
    part = problem.part(trials.fraction)
    for setting in candidates(Setting(model.method, model.t_train), trials, found):
        begun, trained = time.perf_counter(), train(setting, part, 0, trials.epochs)
        found[setting] = trained.curve[-1] if trained.outcome == "ok" else math.inf
        store.add({
            "method": model.method, "t_train": model.t_train, "activation": setting.activation,
            "alpha": setting.alpha, "lr": setting.lr, "epochs": trials.epochs, "images": len(part.train), "seed": 0,
            "validation": f"{found[setting]:.6f}", "curve": " ".join(f"{v:.4f}" for v in trained.curve),
            "outcome": trained.outcome, "wall": f"{time.perf_counter() - begun:.1f}",
        } | versions())  # fmt: skip
    best = min(found, key=lambda s: found[s])
    return replace(best, method=cell.method, steps=cell.t_train, maps=cell.maps)


# -- the runs ---------------------------------------------------------------------------------------------------------


def run(problem: Problem, plan: Plan, seeds: tuple[int, ...], records: Records, folder: Path) -> None:
    """Train and evaluate what is missing."""
    for cell, seed, epochs in plan.jobs(seeds):
        key = cell.key | {"seed": seed}
        if len(records.errors.where(**key, epochs=epochs)) == len(plan.steps):
            continue
        setting = chosen(problem, plan, records.rates, cell)
        trained = train(setting, problem, seed, epochs, cell.folder(folder, seed))
        curve = trained.curve
        records.curves.add(*(key | {"epoch": k, "validation": f"{value:.6f}"} for k, value in enumerate(curve, 1)))
        best = curve.index(min(curve)) + 1 if curve else ""
        more = {
            "activation": setting.activation, "alpha": setting.alpha, "lr": setting.lr,
            "wall": f"{trained.seconds:.1f}",
        } | versions()  # fmt: skip
        rows = evaluate(trained, problem, plan.steps)
        records.errors.add(*(key | {"epochs": epochs, "best_epoch": best} | row | more for row in rows))
        print(time.strftime("%H:%M"), *cell.key.values(), seed, epochs, *(row["test"] for row in rows), flush=True)


def rivals(problem: Problem, plan: Plan, records: Records) -> None:
    """Train and evaluate Zero at the largest T_train with the rates of :attr:`Plan.rivals`."""
    cell, epochs = plan.headline(3)[1], plan.stages[-1]
    for alpha, lr in plan.rivals:
        if records.rivals.find(alpha=alpha, lr=lr) is not None:
            continue
        setting = replace(chosen(problem, plan, records.rates, cell), alpha=alpha, lr=lr)
        with tempfile.TemporaryDirectory() as folder:
            trained = train(setting, problem, 0, epochs, Path(folder) / "run")
        (row,) = evaluate(trained, problem, (cell.t_train,))
        best = trained.curve.index(min(trained.curve)) + 1 if trained.curve else ""
        curve = " ".join(f"{v:.4f}" for v in trained.curve)
        records.rivals.add(
            cell.key | {"activation": setting.activation, "alpha": alpha, "lr": lr, "seed": 0, "epochs": epochs}
            | {"best_epoch": best, "curve": curve, "wall": f"{trained.seconds:.1f}"} | row | versions()
        )  # fmt: skip
        print(time.strftime("%H:%M"), *cell.key.values(), alpha, lr, row["test"], flush=True)


def evaluate(trained: Trained, problem: Problem, steps: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each T_eval, at the state rate that is best on the validation images; empty where training diverged."""
    if trained.outcome != "ok":
        nothing = {"alpha_eval": "", "validation": "", "test": "", "test_mu_x": "", "outcome": trained.outcome}
        return [{"t_eval": t} | nothing for t in steps]
    seen = errors(trained.net, trained.init, problem.validation.images, steps, ALPHAS)
    best = {t: min(ALPHAS, key=lambda alpha: seen[t, alpha][0]) for t in steps}
    found: dict[tuple[int, float], tuple[float, float]] = {}
    for alpha in sorted(set(best.values())):
        some = tuple(t for t in steps if best[t] == alpha)
        found |= errors(trained.net, trained.init, problem.test.images, some, (alpha,))
    return [
        {
            "t_eval": t, "alpha_eval": best[t], "validation": f"{seen[t, best[t]][0]:.6f}",
            "test": f"{found[t, best[t]][0]:.6f}", "test_mu_x": f"{found[t, best[t]][1]:.6f}", "outcome": "ok",
        }
        for t in steps
    ]  # fmt: skip


def known(problem: Problem) -> list[dict[str, Any]]:
    """Test errors without a network: of the mean training image, and of as many components as h0 has neurons."""
    train_images, x = problem.train.images.double(), problem.test.images.double()
    mean = train_images.mean(0)
    components = torch.linalg.eigh((train_images - mean).T @ (train_images - mean))[1][:, -problem.latent :]
    rest = x - mean
    found = {
        "the mean training image": rest,
        f"{problem.latent} principal components": rest - rest @ components @ components.T,
    }  # fmt: skip
    return [{"what": what, "test": f"{float(left.square().mean()):.6f}"} | versions() for what, left in found.items()]


def time_updates(problem: Problem, plan: Plan, records: Records, count: int = 40) -> None:
    """Milliseconds of an update and its SMMs, for all cells; medians, the first three not counted."""
    batches = [batch[0] for _, batch in zip(range(count), problem.train.batches(problem.batch, seed=0), strict=False)]
    for cell in (*plan.grid(3), *plan.grid(4)):
        setting = chosen(problem, plan, records.rates, cell)
        net, init, optimizer = make(setting, problem, 0)
        taken = []
        for x in batches:
            begun = time.perf_counter()
            optimizer.zero_grad()
            result = net.infer({"x": x}, init=init, steps=setting.steps, optimizer=SGD(lr=setting.alpha))
            result.backward()
            optimizer.step()
            taken.append(1e3 * (time.perf_counter() - begun))
        records.updates.add(cell.key | {
            "ms": f"{statistics.median(taken[3:]):.2f}", "smm": result.plan.smm.paper, "updates": len(taken),
            "threads": torch.get_num_threads(),
        } | versions())  # fmt: skip


# -- the tables and the picture ---------------------------------------------------------------------------------------


def values(store: Store, column: str, **key: object) -> list[float]:
    """A column of the rows with these values, one for each seed; inf where training diverged."""
    return [float(r[column]) if r["outcome"] == "ok" else math.inf for r in store.where(**key)]


def shown(found: list[float], seeds: int, digits: int = 4) -> str:
    """Mean ± standard deviation over the seeds; says how many seeds there are where some are missing."""
    if not found:
        return MISSING
    if not all(map(math.isfinite, found)):
        return f"diverged ({sum(map(math.isinf, found))} of {len(found)})"
    spread = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    part = f" ({len(found)} of {seeds} seeds)" if len(found) < seeds else ""
    return f"{statistics.mean(found):.{digits}f}{spread}{part}"


def claim_table(records: Records, plan: Plan, seeds: int = 3) -> str:
    """Memory at the smallest T against Zero at the largest, T_eval = T_train, after every stage."""
    header = [
        "method", "weight maps", "T", "SMMs", "ms", "epochs", "best epochs",
        "state rate in training; in evaluation", "test error",
    ]  # fmt: skip
    rows = []
    for cell in (*plan.headline(3), *plan.headline(4)):
        update = records.updates.find(**cell.key) or {"smm": "–", "ms": "–"}
        for epochs in plan.stages:
            key = cell.key | {"t_eval": cell.t_train, "epochs": epochs}
            if found := records.errors.where(**key):
                best = ", ".join(r["best_epoch"] for r in found)
                rates = f"{found[0]['alpha']}; " + ", ".join(r["alpha_eval"] for r in found)
                first = [cell.method, cell.maps, cell.t_train, update["smm"], update["ms"], epochs, best, rates]
                rows.append([*first, shown(values(records.errors, "test", **key), seeds)])
    return table(header, rows)


def rival_table(records: Records) -> str:
    """Zero with other rates."""
    header = [
        "method", "weight maps", "T", "state rate in training", "learning rate", "epochs", "best epoch", "test error",
    ]  # fmt: skip
    return table(header, (
        [r["method"], r["maps"], r["t_train"], r["alpha"], r["lr"], r["epochs"], r["best_epoch"],
         f"{float(r['test']):.4f}" if r["outcome"] == "ok" else r["outcome"]]
        for r in records.rivals.rows
    ))  # fmt: skip


def grid_table(records: Records, plan: Plan, maps: int, seeds: int = 3) -> str:
    """Every method and T_train against every T_eval, after the first stage."""
    rows, lacking = [], []
    for cell in sorted(plan.grid(maps), key=lambda c: (list(METHODS).index(c.method), c.t_train)):
        key = cell.key | {"epochs": plan.stages[0]}
        found = [values(records.errors, "test", **key, t_eval=t) for t in plan.steps]
        if any(found):
            rows.append([cell.method, cell.t_train, *(shown(each, seeds) for each in found)])
        else:
            lacking.append(f"{cell.method} {cell.t_train}")
    header = [f"{maps} maps, {plan.stages[0]} epochs", "T_train", *(f"T_eval = {t}" for t in plan.steps)]
    return table(header, rows) + (f"\n\nNot trained yet: {', '.join(lacking)}." if lacking else "")


def rate_table(records: Records) -> str:
    """All that was tried."""
    header = ["method", "T_train", "images", "activation", "state rate", "learning rate", "validation error by epoch"]
    return table(header, (
        [r["method"], r["t_train"], r["images"], r["activation"], r["alpha"], r["lr"], r["curve"] or r["outcome"]]
        for r in records.rates.rows
    ))  # fmt: skip


def known_table(records: Records) -> str:
    """What needs no network."""
    rows = ([r["what"], f"{float(r['test']):.4f}"] for r in records.known.rows)
    return table(["without a network", "test error"], rows)


def update_table(records: Records) -> str:
    """SMMs and milliseconds of one update."""
    rows = [[r["method"], r["maps"], r["t_train"], r["smm"], r["ms"]] for r in records.updates.rows]
    return table(["method", "weight maps", "T_train", "SMMs", "ms"], rows)


def own(cell: Cell, plan: Plan) -> dict[str, Any]:
    """What the line of a cell looks like; the largest T_train is drawn through."""
    dash = DASHES[(len(plan.steps) - 1 - plan.steps.index(cell.t_train)) % len(DASHES)]
    return LOOKS[cell.method] | {"linestyle": dash, "ms": 4, "lw": 1.2}


def draw_over_t_eval(ax: Axes, records: Records, plan: Plan, cells: list[Cell]) -> None:
    """Test errors after the first stage."""
    for cell in cells:
        key = cell.key | {"epochs": plan.stages[0]}
        found = [values(records.errors, "test", **key, t_eval=t) for t in plan.steps]
        if all(found) and all(math.isfinite(v) for each in found for v in each):
            spread = [statistics.stdev(each) if len(each) > 1 else 0 for each in found]
            ax.errorbar(
                plan.steps, [statistics.mean(each) for each in found], spread, **own(cell, plan), capsize=2
            )  # fmt: skip
    ax.set(xlabel="T_eval", xscale="log", ylim=(0, LIMIT))
    ax.set_xticks(plan.steps, [str(t) for t in plan.steps])
    ax.minorticks_off()


def draw_over_epochs(ax: Axes, records: Records, plan: Plan, cells: list[Cell], seeds: int) -> None:
    """Validation errors with T_eval = T_train after every epoch that all seeds have had."""
    for cell in cells:
        by_epoch: dict[int, list[float]] = {}
        for r in records.curves.where(**cell.key):
            by_epoch.setdefault(int(r["epoch"]), []).append(float(r["validation"]))
        full = {e: statistics.mean(v) for e, v in sorted(by_epoch.items()) if len(v) == seeds}
        if not full:
            continue
        ax.plot(list(full), list(full.values()), **own(cell, plan))
    ax.set(xlabel="epoch", ylim=(0, LIMIT))
    ax.xaxis.get_major_locator().set_params(integer=True)


def draw(path: Path, records: Records, plan: Plan, seeds: int = 3) -> None:
    """The paper's three methods and the ablation over T_eval, and curves over epochs; a column for each reading."""
    figure, axes = plt.subplots(3, 2, figsize=(9, 11), layout="constrained")
    titles = (f"the paper's three, {plan.stages[0]} epochs", "the root's start", "T_eval = T_train")
    for column, maps in zip(axes.T, (3, 4), strict=True):
        cells = plan.grid(maps)
        draw_over_t_eval(column[0], records, plan, [c for c in cells if c.method in EVERYWHERE])
        ablation = [c for c in cells if c.method in ABLATION and c.t_train in plan.ends]
        draw_over_t_eval(column[1], records, plan, ablation)
        ends = [c for c in cells if c.method in EVERYWHERE and c.t_train in plan.ends]
        draw_over_epochs(column[2], records, plan, ends, seeds)
        for ax, title, judged in zip(column, titles, ("test", "test", "validation"), strict=True):
            ax.set(title=f"{maps} weight maps: {title}", ylabel=f"{judged} error a pixel")
            ax.grid(alpha=0.25)
    shown = [m for m in METHODS if m in {*EVERYWHERE, *ABLATION}]
    signs = [(method, LOOKS[method] | {"linestyle": "none"}) for method in shown]
    signs += [(f"T_train = {t}", own(Cell(MEMORY, t), plan) | {"color": INK, "marker": None}) for t in plan.steps]
    handles = [Line2D([], [], label=label, **look) for label, look in signs]
    figure.legend(handles=handles, frameon=False, ncols=3, handlelength=3.5, loc="outside lower center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def trainings(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """One row for each training, that of most epochs, whose seconds are those of all of them."""
    longest = sorted(rows, key=lambda r: int(r["epochs"]))
    return list({(r["method"], r["t_train"], r["maps"], r["seed"]): r for r in longest}.values())


def report(folder: Path, records: Records, plan: Plan, seeds: int) -> None:
    """All tables and the picture, of the rows that are there."""
    claimed = [row for maps in (3, 4) for cell in plan.headline(maps) for row in records.errors.where(**cell.key)]
    save(folder, "fig7_claim", claim_table(records, plan, seeds), trainings(claimed))
    save(folder, "fig7_rivals", rival_table(records), records.rivals.rows)
    for maps in (3, 4):
        rows = trainings(records.errors.where(maps=maps, epochs=plan.stages[0]))
        save(folder, f"fig7_grid_{maps}", grid_table(records, plan, maps, seeds), rows)
    save(folder, "fig7_known", known_table(records), records.known.rows)
    save(folder, "fig7_rates", rate_table(records), records.rates.rows)
    save(folder, "fig7_updates", update_table(records), records.updates.rows)
    draw(folder / "fig7.png", records, plan, seeds)


def main() -> None:
    """Train what is missing, write the tables and the picture."""
    flag = {"action": "store_true"}
    args = arguments(
        __doc__, "fig7", report=flag | {"help": "train nothing"},
        timing=flag | {"help": "measure updates on an idle machine; train nothing"},
    )  # fmt: skip
    plan, problem = (QUICK, Problem.digits()) if args.quick else (FULL, Problem.fashion())
    records = Records(args.out)
    checkpoints = args.out / "checkpoints" if args.quick else CHECKPOINTS
    if args.timing:
        time_updates(problem, plan, records)
    elif not args.report:
        records.known.add(*known(problem))
        rivals(problem, plan, records)
        run(problem, plan, args.seeds, records, checkpoints)
    report(args.out, records, plan, len(args.seeds))


if __name__ == "__main__":
    main()
