"""A budgeted search in the paper's grid: successive halving on a validation split, for each method of Table 1.

    python examples/paper/search.py --full --processes 2       # resumes where it was stopped
    python examples/paper/search.py --quick                    # digits and a small network, for the tests

The paper tries the whole grid with three seeds and takes what is best on the test set. Here each method gets the same
number of settings, drawn at random from a part of the grid that was named beforehand, beside a few leads from first
trials. All are trained on a quarter of the data; the best on the validation images start again on all of it, and the
best of those is the method's in Table 1. Both rungs have the paper's 16 epochs, since the settings that are ahead after
a few of them are those that fall over later. No choice looks at a test image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from classifier import Records, Run, work
from common import MISSING, arguments, save, table
from grid import ALEXNET, METHODS, MLP, Grid, Setting

__all__ = ["FULL", "QUICK", "Rung", "Search", "choice_table", "chosen", "search_for", "trial_table"]

REGIONS: dict[str, Grid] = {
    "backprop": MLP.only(lrs=(3e-4, 5e-4, 1e-3), activations=("gelu", "leaky_relu", "relu")),
    "Forward": MLP.only(
        activations=("gelu", "leaky_relu", "relu"), lrs=(1e-4, 3e-4, 5e-4), alphas=(0.01, 0.03, 0.05), steps=(5, 6, 7)
    ),
    "Average": MLP.only(
        activations=("gelu", "leaky_relu", "relu"), lrs=(3e-4, 5e-4, 1e-3), alphas=(0.005, 0.01, 0.03),
        steps=(5, 6, 7), depths=(3,),
    ),
}  # fmt: skip
"""Where settings of the multi-layer perceptron are drawn. Outside, first trials were well below, or fell over: they are
the rows with 4 and 8 epochs, and those of Average with state rates of 0.05 and more, of classifier_runs.csv."""
LEADS: dict[str, tuple[Setting, ...]] = {
    "backprop": (Setting("backprop", "relu", 5e-4),),
    "Forward": (Setting("Forward", "relu", 5e-4, 0.01, 7), Setting("Forward", "leaky_relu", 3e-4, 0.03, 7)),
    "Average": (Setting("Average", "relu", 5e-4, 0.01, 7, 3), Setting("Average", "leaky_relu", 5e-4, 0.01, 7, 3)),
}
"""The best of first trials."""


@dataclass(frozen=True)
class Rung:
    """How many settings are trained, and how far.

    Attributes
    ----------
    settings, epochs : int
    fraction : float
        Of the training data.
    validation : int
        Images to choose by. A smaller set is a part of a larger one.
    """

    settings: int
    epochs: int
    fraction: float
    validation: int


@dataclass(frozen=True)
class Search:
    """Successive halving.

    Attributes
    ----------
    rungs : tuple of Rung
    seed : int
        Of the draw of settings, and of all runs.
    dataset : str
    width, batch : int
    """

    rungs: tuple[Rung, ...]
    seed: int = 0
    dataset: str = "fashion-mnist"
    width: int = 512
    batch: int = 200

    def run(self, setting: Setting, rung: Rung) -> Run:
        """A setting's training at a rung."""
        return Run(
            setting, self.seed, rung.epochs, rung.fraction, rung.validation, self.dataset, self.width, self.batch
        )

    def first(self, method: str) -> list[Setting]:
        """The settings of the first rung: the leads, then a random sample; for AlexNet a sample of the whole grid."""
        count = self.rungs[0].settings
        if self.dataset == "cifar10":
            return ALEXNET.sample(method, count, self.seed)
        drawn = REGIONS[method].sample(method, count + len(LEADS[method]), self.seed)
        return list(dict.fromkeys([*LEADS[method], *drawn]))[:count]

    def ranked(self, settings: list[Setting], rung: Rung, records: Records) -> list[Setting]:
        """Those that are finished at a rung, the best on the validation images first; diverged ones are left out.

        What counts is the mean of the last two epochs: a run that is about to collapse should not go on for the one
        good epoch before, and two have less noise than one.
        """
        found = {s: records.curve(self.run(s, rung)) for s in settings}
        whole = {s: curve for s, curve in found.items() if len(curve) == rung.epochs}
        return sorted(whole, key=lambda s: -sum(float(point["validation"]) for point in whole[s][-2:]))

    def go(self, method: str, records: Records, processes: int = 1, stop: int | None = None) -> list[Setting]:
        """Train what is missing, up to a rung; the settings of the last one, best first."""
        settings = self.first(method)
        for rung in self.rungs[:stop]:
            settings = settings[: rung.settings]
            work((self.run(s, rung) for s in settings), records, processes)
            settings = self.ranked(settings, rung, records)
        return settings

    def reached(self, method: str, records: Records) -> tuple[int, list[Setting]]:
        """The last rung that is complete, and its settings, best first, without training anything; -1 for none."""
        at, settings = -1, self.first(method)
        for k, rung in enumerate(self.rungs):
            settings = settings[: rung.settings]
            if any(records.row(self.run(s, rung)) is None for s in settings):
                break
            at, settings = k, self.ranked(settings, rung, records)
        return at, settings


FULL = Search((Rung(5, 16, 0.25, 5000), Rung(2, 16, 1.0, 2000)))
QUICK = Search((Rung(3, 4, 0.5, 200), Rung(2, 12, 1.0, 100)), dataset="digits", width=32, batch=50)


def search_for(dataset: str) -> Search:
    """The full search for a data set; AlexNet's last rung has the paper's 24 epochs."""
    if dataset == "cifar10":
        return replace(FULL, rungs=(*FULL.rungs[:-1], replace(FULL.rungs[-1], epochs=ALEXNET.epochs)), dataset=dataset)
    return replace(FULL, dataset=dataset)


def chosen(search: Search, method: str, records: Records) -> Setting | None:
    """The best setting of the last complete rung; None where no rung is complete."""
    at, settings = search.reached(method, records)
    return settings[0] if at >= 0 and settings else None


def trial_table(search: Search, records: Records) -> str:
    """Every trial: the mean validation accuracy of the last two epochs at each rung."""
    header = ["method", "activation", "lr", "α", "T", "m"]
    header += [f"{r.epochs} epochs, {r.fraction:.0%}" for r in search.rungs]
    rows = []
    for method in METHODS:
        for s in search.first(method):
            cells = [_shown(search.run(s, rung), records) for rung in search.rungs]
            if any(cell != "" for cell in cells):
                rows.append((method, s.activation, f"{s.lr:g}", *_pc(s), *cells))
    return table(header, rows)


def _pc(s: Setting) -> tuple[object, object, object]:
    """The state rate, T and m, where a method has them."""
    return (f"{s.alpha:g}" if s.steps else "–", s.steps or "–", s.depth or "–")


def _shown(run: Run, records: Records) -> str:
    """The mean of the last two epochs; empty where there is no such run."""
    row, curve = records.row(run), records.curve(run)
    if row is None:
        return ""
    if row["outcome"] != "ok":
        return f"{row['outcome']} in epoch {len(curve) + 1}"
    last = [float(point["validation"]) for point in curve[-2:]]
    return f"{sum(last) / len(last):.2f}"


def choice_table(search: Search, records: Records) -> str:
    """What was chosen, and at which rung."""
    rows = []
    for method in METHODS:
        at, settings = search.reached(method, records)
        if at < 0 or not settings:
            rows.append((method, *[MISSING] * 6))
            continue
        s = settings[0]
        rows.append((method, s.activation, f"{s.lr:g}", *_pc(s), f"{at + 1} of {len(search.rungs)}"))
    return table(["method", "activation", "lr", "α", "T", "m", "rung"], rows)


def main() -> None:
    """Search, and write the tables."""
    args = arguments(__doc__, "search", processes={"type": int, "default": 1, "help": "trainings at once"})
    search = replace(QUICK if args.quick else FULL, seed=args.seeds[0])
    records = Records(Path(args.out), "classifier")
    for method in reversed(METHODS):
        search.go(method, records, args.processes)
    save(args.out, "search_choice", choice_table(search, records))
    save(args.out, "search", trial_table(search, records))


if __name__ == "__main__":
    main()
