"""A budgeted search in the paper's grid: successive halving on a validation split, for each method of Table 1.

    python examples/paper/search.py --full --processes 2       # resumes where it was stopped
    python examples/paper/search.py --quick                    # digits and a small network, for the tests

The paper tries the whole grid with three seeds, for each fraction of the data, and takes what is best on the test set.
Here each method gets the same number of settings, drawn at random from a part of the grid that was named beforehand,
beside two leads from first trials. All are trained on a quarter of the data. The best on the validation images start
again on each fraction, with one seed, and beside them settings that join there; the best six of these get three
seeds, and the best on the validation images, over the seeds, is the method's in Table 1. All rungs have the paper's 16
epochs, since the settings that are ahead after a few of them are those that fall over later. No choice looks at a test
image.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from classifier import Records, Run, work
from common import MISSING, arguments, save, table
from grid import ALEXNET, METHODS, MLP, Grid, Setting

__all__ = ["FULL", "QUICK", "Rung", "Search", "choice_table", "chosen", "search_for", "trial_table"]

REGIONS: dict[str, Grid] = {
    "backprop": MLP.only(lrs=(1e-4, 3e-4, 5e-4, 1e-3)),
    "Forward": MLP.only(
        activations=("gelu", "leaky_relu", "relu"), lrs=(1e-4, 3e-4, 5e-4), alphas=(0.01, 0.03, 0.05, 0.1),
        steps=(4, 5, 6, 7),
    ),
    "Average": MLP.only(
        activations=("leaky_relu", "relu"), lrs=(3e-4, 5e-4, 1e-3), alphas=(0.003, 0.005, 0.01, 0.03),
        steps=(4, 5, 6, 7), depths=(3,),
    ),
}  # fmt: skip
"""Where settings of the multi-layer perceptron are drawn. Outside, first trials were well below, or fell over: they are
rows of classifier_runs.csv with 4 and 8 epochs, those of Average with gelu, and with state rates from 0.05 on."""
LEADS: dict[str, tuple[Setting, ...]] = {
    "backprop": (Setting("backprop", "relu", 3e-4), Setting("backprop", "leaky_relu", 5e-4)),
    "Forward": (Setting("Forward", "leaky_relu", 3e-4, 0.03, 7), Setting("Forward", "leaky_relu", 3e-4, 0.05, 6)),
    "Average": (Setting("Average", "relu", 5e-4, 0.01, 7, 3), Setting("Average", "leaky_relu", 5e-4, 0.01, 7, 3)),
}
"""The best two of first trials."""


@dataclass(frozen=True)
class Rung:
    """How many settings are trained, and how far.

    Attributes
    ----------
    settings, epochs : int
    validation : int
        Images to choose by. A smaller set is a part of a larger one.
    fraction : float or None
        Of the training data; None for that of the search.
    seeds : tuple of int
        Each setting is trained with all of them.
    """

    settings: int
    epochs: int
    validation: int
    fraction: float | None = None
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Search:
    """Successive halving.

    Attributes
    ----------
    rungs : tuple of Rung
    joining : tuple of Setting
        What joins at the second rung.
    fraction : float
        Of the training data, for which settings are chosen.
    seed : int
        Of the draw of settings.
    dataset : str
    width, batch : int
    """

    rungs: tuple[Rung, ...]
    joining: tuple[Setting, ...] = ()
    fraction: float = 1.0
    seed: int = 0
    dataset: str = "fashion-mnist"
    width: int = 512
    batch: int = 200

    def runs(self, setting: Setting, rung: Rung, seeds: tuple[int, ...] | None = None) -> list[Run]:
        """A setting's trainings at a rung, by its seeds or others."""
        fraction = self.fraction if rung.fraction is None else rung.fraction
        more = (rung.epochs, fraction, rung.validation, self.dataset, self.width, self.batch)
        return [Run(setting, seed, *more) for seed in (rung.seeds if seeds is None else seeds)]

    def first(self, method: str) -> list[Setting]:
        """The settings of the first rung: the leads, then a random sample; for AlexNet a sample of the whole grid."""
        count = self.rungs[0].settings
        if self.dataset == "cifar10":
            return ALEXNET.sample(method, count, self.seed)
        drawn = REGIONS[method].sample(method, count + len(LEADS[method]), self.seed)
        return list(dict.fromkeys([*LEADS[method], *drawn]))[:count]

    def admitted(self, k: int, method: str, ranked: list[Setting]) -> list[Setting]:
        """What is trained at the rung `k`, of the settings of the one before, best first."""
        more = [s for s in self.joining if s.method == method] if k == 1 else []
        return list(dict.fromkeys([*ranked[: self.rungs[k].settings], *more]))

    def ranked(self, settings: list[Setting], rung: Rung, records: Records) -> list[Setting]:
        """Those that are finished at a rung, the best on the validation images first; diverged ones are left out.

        What counts is the mean of the last two epochs, over the seeds: a run that is about to collapse should not go on
        for the one good epoch before, and two have less noise than one.
        """
        found = {s: [records.curve(run) for run in self.runs(s, rung)] for s in settings}
        whole = {s: curves for s, curves in found.items() if all(len(c) == rung.epochs for c in curves)}
        return sorted(whole, key=lambda s: -_last(whole[s]))

    def ladder(self, method: str, records: Records) -> Iterator[tuple[Rung, list[Setting]]]:
        """Each rung with its settings, which depend on what is finished of the rung before when it is asked for."""
        settings = self.first(method)
        for k, rung in enumerate(self.rungs):
            settings = self.admitted(k, method, settings)
            yield rung, settings
            settings = self.ranked(settings, rung, records)

    def go(self, method: str, records: Records, processes: int = 1) -> None:
        """Train what is missing."""
        for rung, settings in self.ladder(method, records):
            work((run for s in settings for run in self.runs(s, rung)), records, processes)

    def reached(self, method: str, records: Records) -> tuple[int, list[Setting]]:
        """The last rung that is complete, and its settings, best first, without training anything; -1 for none."""
        at, best = -1, self.first(method)
        for k, (rung, settings) in enumerate(self.ladder(method, records)):
            if any(records.row(run) is None for s in settings for run in self.runs(s, rung)):
                break
            at, best = k, self.ranked(settings, rung, records)
        return at, best


def _last(curves: list[list[dict[str, str]]]) -> float:
    """The mean validation accuracy of the last two epochs."""
    return statistics.mean(float(point["validation"]) for curve in curves for point in curve[-2:])


JOINING = (
    *(s for leads in LEADS.values() for s in leads),
    *(Setting("Average", "leaky_relu", lr, 0.005, 7, 3) for lr in (3e-4, 5e-4)),
    *(Setting("Average", "leaky_relu", 3e-4, 0.01, steps, 3) for steps in (5, 7)),
    *(Setting("Average", "leaky_relu", 1e-4, alpha, steps, 3) for alpha, steps in ((0.03, 5), (0.03, 7), (0.05, 5))),
    *(Setting("Average", "relu", lr, alpha, 7, 3) for lr, alpha in ((3e-4, 0.01), (1e-4, 0.03))),
    *(Setting("Forward", "leaky_relu", 3e-4, alpha, 4) for alpha in (0.03, 0.05)),
    Setting("Forward", "leaky_relu", 1e-4, 0.1, 4), Setting("Forward", "relu", 3e-4, 0.05, 4),
)  # fmt: skip
"""On all of the data there are four times as many updates, and what is ahead on a quarter falls over: the best four of
Average's first rung, but for a lead, are at 57 to 87 % on the validation images in the end. So the leads go on in any
case, and settings with smaller rates join them; for Forward those with four steps, the fewest at which an error comes
to every weight, since it is best there on a quarter."""
FULL = Search((Rung(16, 16, 5000, 0.25), Rung(4, 16, 2000), Rung(6, 16, 2000, seeds=(0, 1, 2))), JOINING)
QUICK = Search((Rung(3, 4, 200, 0.5), Rung(2, 12, 100, seeds=(0, 1))), dataset="digits", width=32, batch=50)


def search_for(dataset: str, fraction: float = 1.0) -> Search:
    """The full search for a data set and a fraction of it; AlexNet's later rungs have the paper's 24 epochs."""
    found = replace(FULL, dataset=dataset, fraction=fraction)
    if dataset != "cifar10":
        return found
    first, *later = FULL.rungs
    return replace(found, rungs=(first, *(replace(rung, epochs=ALEXNET.epochs) for rung in later)), joining=())


def chosen(search: Search, method: str, records: Records) -> Setting | None:
    """The best setting of the last complete rung; None where no rung is complete."""
    at, settings = search.reached(method, records)
    return settings[0] if at >= 0 and settings else None


def trials(search: Search, records: Records) -> list[dict[str, str]]:
    """The finished trainings of a search, over all fractions."""
    parts = [replace(search, fraction=f) for f in MLP.fractions]
    steps = [(part, *step) for part in parts for method in METHODS for step in part.ladder(method, records)]
    runs = [run for part, rung, settings in steps for s in settings for run in part.runs(s, rung)]
    return records.finished(dict.fromkeys(runs))


def trial_table(search: Search, records: Records) -> str:
    """Every trial: the mean validation accuracy of the last two epochs, at the first rung and for each fraction."""
    first, *later = search.rungs
    header = ["method", "activation", "lr", "α", "T", "m", f"first trial, {first.fraction:.0%}"]
    header += [f"{f:.0%}, {_seeds(rung)}" for f in MLP.fractions for rung in later]
    rows = []
    for method in METHODS:
        for s in dict.fromkeys([*search.first(method), *(s for s in search.joining if s.method == method)]):
            cells = [_shown(search.runs(s, first), records)]
            cells += [_shown(replace(search, fraction=f).runs(s, r), records) for f in MLP.fractions for r in later]
            if any(cell != "" for cell in cells):
                rows.append((method, s.activation, f"{s.lr:g}", *_pc(s), *cells))
    return table(header, rows)


def _seeds(rung: Rung) -> str:
    return "seed 0" if rung.seeds == (0,) else f"{len(rung.seeds)} seeds"


def _pc(s: Setting) -> tuple[object, object, object]:
    """The state rate, T and m, where a method has them."""
    return (f"{s.alpha:g}" if s.steps else "–", s.steps or "–", s.depth or "–")


def _shown(runs: list[Run], records: Records) -> str:
    """The mean of the last two epochs and of the seeds; empty where one is missing."""
    rows, curves = [records.row(run) for run in runs], [records.curve(run) for run in runs]
    if not all(rows):
        return ""
    for row, curve in zip(rows, curves, strict=True):
        if row is not None and row["outcome"] != "ok":
            return f"{row['outcome']} in epoch {len(curve) + 1}"
    return f"{_last(curves):.2f}"


def choice_table(search: Search, records: Records) -> str:
    """What was chosen for each fraction, and at which rung."""
    rows: list[tuple[object, ...]] = []
    for method in METHODS:
        for fraction in MLP.fractions:
            at, settings = replace(search, fraction=fraction).reached(method, records)
            if at < 0 or not settings:
                rows.append((method, f"{fraction:.0%}", *[MISSING] * 6))
                continue
            s = settings[0]
            where = f"{at + 1} of {len(search.rungs)}"
            rows.append((method, f"{fraction:.0%}", s.activation, f"{s.lr:g}", *_pc(s), where))
    return table(["method", "training data", "activation", "lr", "α", "T", "m", "rung"], rows)


def main() -> None:
    """Search, and write the tables."""
    args = arguments(__doc__, "search", processes={"type": int, "default": 1, "help": "trainings at once"})
    search, records = QUICK if args.quick else FULL, Records(Path(args.out), "classifier")
    for fraction in MLP.fractions:
        for method in reversed(METHODS):
            replace(search, fraction=fraction).go(method, records, args.processes)
    rows = trials(search, records)
    save(args.out, "search_choice", choice_table(search, records), rows)
    save(args.out, "search", trial_table(search, records), rows)


if __name__ == "__main__":
    main()
