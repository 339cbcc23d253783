"""Settings are searched for in two stages: many for a few epochs, then the best again, longer and with several seeds.

All that is known lies in the storage. Each process that calls :func:`search` with it draws trials of its own, from what
all have found so far, until there are enough; then the runs of the finalists wait in a second study, from which each
process takes one after the other. So a search goes on wherever it was stopped, and on as many machines as share it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pcgraph.arguments import require_count, require_flag, require_number, require_taking, require_text, shown
from pcgraph.errors import ConfigError, Diverged, PCGraphError
from pcgraph.training import History
from pcgraph.training.records import is_larger_better
from pcgraph.tuning.report import Progress, value_of
from pcgraph.tuning.results import Finalist, SearchResult, Trial, written
from pcgraph.tuning.space import optuna, patiently, read_space, read_storage, require_storable, space_text, suggest

__all__ = ["search"]

Train = Callable[[dict[str, Any], Progress], float | History]
#: What is not said, neither here nor in a table of settings.
DEFAULTS = {"trials": 20, "epochs": 1, "finalists": 0, "seeds": 3, "storage": None, "name": "search", "timeout": None}
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "running"}
#: What is wrong with these is wrong in every trial.
OF_THE_SEARCH = ("metric", "train")
REFUSED, WHY, JOB, NOTED = "refused", "why", "job", "measured"


def search(
    train: Train | str | Path | Mapping[str, Any], space: Mapping[str, Any] | None = None, *, trials: int | None = None,
    metric: str = "accuracy", largest: bool | None = None, epochs: int | None = None, finalists: int | None = None,
    seeds: int | None = None, final_epochs: int | None = None, seed: int = 0, storage: Any = None,
    name: str | None = None, sampler: Any = None, pruner: Any = None, timeout: float | None = None,
    retry: bool = False, progress: bool = True,
) -> SearchResult:  # fmt: skip
    """Search for the settings with which training goes best, on Optuna (the extra ``search``).

    Parameters
    ----------
    train : callable, str, Path or mapping
        Settings of ``pcgraph train`` with a table "space" and one "search", in a TOML file or as a mapping: what
        ``pcgraph search`` takes. What is given here goes over its table "search". Or a function, called as
        ``train(settings, progress)``: `settings` has a value for each name of `space`, and beside them ``"epochs"`` and
        ``"seed"``. It returns the number that counts, or what :func:`pcgraph.fit` returned, whose last epoch counts.
        Given to ``fit`` as ``callbacks=progress``, `progress` tells of each epoch, so that trials that go badly are
        pruned.
    space : mapping, optional
        Of a function: setting -> a list of values; or ``{"low": …, "high": …}``, with ``"log": True`` or a ``"step"``,
        of whole numbers if both ends are; or one of ``optuna.distributions``.
    trials : int, optional
        Of the first stage, in all (20 by default), those that were pruned, diverged or were refused and those of other
        processes included. Each process ends the trial that it is in, so that several may run some more.
    metric : str
        What counts: a name of validation's numbers, or ``"energy"`` or ``"accuracy"`` of training.
    largest : bool, optional
        Whether larger is better; by default for accuracies alone.
    epochs, final_epochs : int, optional
        ``settings["epochs"]`` in the first stage (1 by default) and for finalists, where it is the same by default; of
        settings of ``pcgraph train`` finalists have their epochs.
    finalists, seeds : int, optional
        So many of the best settings are run again with so many seeds (3 by default), other ones than the first
        stage's: the best of many trials is partly the luckiest. 0 finalists, the default: there is no second stage.
    seed : int
        ``settings["seed"]`` of the first stage; finalists get the next ones. The sampler's draws follow from it.
    storage : str, Path or optuna.storages.BaseStorage, optional
        A file ending in .db (SQLite, for processes of one machine) or .journal (a journal, also for machines with a
        common file system), or a URL. With the same one and the same `name`, the search goes on. None: in memory.
    name : str, optional
        Of the search in its storage; "search" by default.
    sampler : optuna.samplers.BaseSampler, optional
        What draws settings; TPE by default.
    pruner : optuna.pruners.BasePruner, optional
        What ends trials. By default those below the median of the others at the same epoch, from the fifth trial and
        the second epoch on; ``optuna.pruners.NopPruner()`` ends none.
    timeout : float, optional
        Seconds after which no further trial and no further run is begun.
    retry : bool
        Run those runs of finalists again that are marked as under way: for when no other process is at work.
    progress : bool
        Print a line for each trial.

    Returns
    -------
    SearchResult
        ``.best`` settings, ``.value``, ``.trials``, ``.finalists``; ``print`` shows the report, and
        :func:`pcgraph.drawing.search` draws it.

    Raises
    ------
    ConfigError
        An argument is not as it has to be; or the storage holds another search under this name.
    PCGraphError
        Optuna is not installed; `train` returns something else, or does not measure the metric; or no trial was
        complete: the error is then that of the last one.

    Notes
    -----
    A trial that diverges is pruned, and one whose settings pcgraph refuses fails; both count, and the report says why.
    Any other error ends the search, and leaves the trial as failed.

    References
    ----------
    T. Akiba, S. Sano, T. Yanase, T. Ohta, M. Koyama, "Optuna: A Next-generation Hyperparameter Optimization
    Framework", KDD 2019.

    Examples
    --------
    >>> found = search(lambda s, progress: -((s["x"] - 2) ** 2), {"x": [0, 1, 2, 3]}, trials=12, progress=False)
    >>> found.best, found.value
    ({'x': 2}, 0.0)
    """
    given = {"trials": trials, "epochs": epochs, "finalists": finalists, "seeds": seeds, "storage": storage}
    given = {key: v for key, v in {**given, "name": name, "timeout": timeout}.items() if v is not None}
    if not callable(train) or isinstance(train, type):
        train, space, final, more = _of_settings(train, space)
        given, final_epochs = {**more, **given}, final if final_epochs is None else final_epochs
    else:
        require_taking(train, "train", "settings and a progress", 2)
    if space is None:
        raise ConfigError("a function needs a space, as in {'lr': [1e-3, 1e-2]} (found none)", key="space")
    trials, epochs, finalists, seeds, storage, name, timeout = ({**DEFAULTS, **given}[key] for key in DEFAULTS)
    distributions = read_space(space)
    trials = require_count(trials, "trials", least=1)
    metric = require_text(metric, "metric")
    largest = is_larger_better(metric) if largest is None else require_flag(largest, "largest")
    epochs = require_count(epochs, "epochs", least=1)
    final_epochs = epochs if final_epochs is None else require_count(final_epochs, "final_epochs", least=1)
    finalists, seeds = require_count(finalists, "finalists"), require_count(seeds, "seeds", least=1)
    seed = require_count(seed, "seed")
    limit = None if timeout is None else require_number(timeout, "timeout", above=0)
    name = require_storable(require_text(name, "name"), "name", "name")
    retry, progress = require_flag(retry, "retry"), require_flag(progress, "progress")
    sampler, pruner = _of(sampler, "sampler", "samplers", "BaseSampler"), _of(pruner, "pruner", "pruners", "BasePruner")
    run = _Search(train, distributions, metric, largest, read_storage(storage), name, progress, limit)
    with _quiet():
        run.first(trials, epochs, seed, sampler, pruner)
        if finalists:
            run.second(finalists, [seed + 1 + i for i in range(seeds)], final_epochs, retry)
        return run.result()


def _of_settings(train: Any, space: Any) -> tuple[Train, Mapping[str, Any], int, Mapping[str, Any]]:
    """Read settings of ``pcgraph train``: how to train, the space, epochs of finalists, and the table of the search."""
    from pcgraph.tuning.settings import Settings

    if not isinstance(train, str | Path | Mapping):
        raise ConfigError(
            "train is called as train(settings, progress), or is a TOML file or a mapping of settings of pcgraph train "
            f"(found {shown(train)})",
            key="train",
        )
    if space is not None:
        raise ConfigError("the space stands in the settings: leave space= out, or give a function", key="space")
    read = Settings.read(train, {})
    return read.train, read.space, int(read.base["epochs"]), read.search


def _of(given: Any, key: str, module: str, base: str) -> Any:
    kind = getattr(getattr(optuna(), module), base)
    if given is not None and not isinstance(given, kind):
        raise ConfigError(f"{key}= is one of optuna.{module} (found {shown(given)})", key=key)
    return given


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of each trial, too."""
    logs = optuna().logging
    before = logs.get_verbosity()
    logs.set_verbosity(logs.WARNING)
    try:
        yield
    finally:
        logs.set_verbosity(before)


class _Clock:
    """Say whether there is time for another trial."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def goes_on(self) -> bool:
        """Say whether the time is not up."""
        return self._end is None or time.monotonic() < self._end


class _Search:
    """This is one process of a search: its two studies, and the loop over trials."""

    def __init__(
        self, train: Train, space: dict[str, Any], metric: str, largest: bool, storage: Any, name: str, tells: bool,
        timeout: float | None,
    ) -> None:  # fmt: skip
        self.train, self.space, self.metric, self.largest = train, space, metric, largest
        self.storage, self.name, self.tells = storage, name, tells
        self.final: Any = None
        self.error: PCGraphError | None = None
        self._clock = _Clock(timeout)

    # -- the first stage ----------------------------------------------------------------------------------------------

    def first(self, trials: int, epochs: int, seed: int, sampler: Any, pruner: Any) -> None:
        """Draw settings and try them, until there are enough trials."""
        o = optuna()
        pruner = o.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1) if pruner is None else pruner
        self.study = self._opened(self.name, None, pruner)
        if sampler is not None:
            self.study.sampler = sampler
        while self._finished() < trials and self._clock.goes_on():
            trial = self._drawn(seed) if sampler is None else self.study.ask(self.space)
            self._try(self.study, trial, {**trial.params, "epochs": epochs, "seed": seed}, final=False)
        if self.error is not None and not self._complete(self.study):
            raise self.error

    def _drawn(self, seed: int) -> Any:
        """Draw settings by TPE, whose numbers follow from the seed and that of the trial, in whatever process it is."""
        trial = self.study.ask()
        number = random.Random(f"{seed} {trial.number}").randrange(2**32)
        self.study.sampler = optuna().samplers.TPESampler(seed=number, constant_liar=True)
        for name, each in self.space.items():
            suggest(trial, name, each)
        return trial

    def _opened(self, name: str, sampler: Any, pruner: Any) -> Any:
        """Open a study, or begin it; one of another space or metric is refused."""
        direction = "maximize" if self.largest else "minimize"
        study = patiently(
            lambda: optuna().create_study(
                storage=self.storage,
                study_name=name,
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
                direction=direction,
            )
        )
        own = {"space": space_text(self.space), "metric": self.metric, "direction": direction}
        for key, value in own.items():
            before = study.user_attrs.get(key)
            if before is None:
                patiently(partial(study.set_user_attr, key, value))
            elif before != value:
                raise ConfigError(
                    f"the storage holds a search {name!r} with another {key} ({before}, and now {value}): give it "
                    "another name=, or go on with what it was begun with",
                    key="name",
                )
        return study

    def _finished(self) -> int:
        """Count the trials that are over, but not those that an error of the user's own ended."""
        found = self.study.get_trials(deepcopy=False)
        return sum(t.state.name in ("COMPLETE", "PRUNED") or REFUSED in t.user_attrs for t in found)

    @staticmethod
    def _complete(study: Any) -> list[Any]:
        return [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]

    def _try(self, study: Any, trial: Any, settings: dict[str, Any], *, final: bool) -> None:
        """Train with some settings, and tell the study what came of it."""
        state = optuna().trial.TrialState
        progress = Progress(self.metric, partial(self._told, trial, None if final else settings["epochs"]), final=final)
        try:
            value = value_of(self.train(settings, progress), self.metric)
            if progress.measured:
                self._mark(trial, NOTED, progress.measured)
            if progress.pruned or value != value:
                self._mark(trial, WHY, "" if progress.pruned else "not a number")
                self._tell(study, trial, state=state.PRUNED)
            else:
                self._tell(study, trial, value)
        except Diverged:
            self._mark(trial, WHY, "diverged")
            self._tell(study, trial, state=state.PRUNED)
        except PCGraphError as error:
            if isinstance(error, ConfigError) and error.key in OF_THE_SEARCH:
                self._tell(study, trial, state=state.FAIL)
                raise
            self.error = error
            for key, text in ((REFUSED, True), (WHY, f"{type(error).__name__}: {error}")):
                self._mark(trial, key, text)
            self._tell(study, trial, state=state.FAIL)
        except optuna().exceptions.UpdateFinishedTrialError:
            return  # a storage may hand one run to two processes, and the other one has told it
        except BaseException:
            self._tell(study, trial, state=state.FAIL)
            raise
        self._say(study, trial.number, settings)

    @staticmethod
    def _tell(study: Any, trial: Any, value: float | None = None, state: Any = None) -> None:
        """Tell the study of a trial, unless another process has told it already."""
        try:
            study.tell(trial.number, value, state=state)
        except (optuna().exceptions.UpdateFinishedTrialError, ValueError):
            if not study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                raise

    @staticmethod
    def _mark(trial: Any, key: str, value: Any) -> None:
        """Write something beside a trial, unless another process has told it already."""
        with suppress(optuna().exceptions.UpdateFinishedTrialError):
            trial.set_user_attr(key, value)

    @staticmethod
    def _told(trial: Any, last: int | None, value: float, epoch: int) -> bool:
        """Report a value; returns whether to prune, which a run in its last epoch, or of a finalist, never is."""
        trial.report(value, epoch)
        return last is not None and epoch < last and bool(trial.should_prune())

    def _say(self, study: Any, number: int, settings: Mapping[str, Any]) -> None:
        if self.tells:
            trial = study.trials[number]
            state = STATES[trial.state.name]
            value = trial.value if state == "complete" else trial.user_attrs.get(WHY) or state
            known = ", ".join(f"{key} {written(each)}" for key, each in settings.items())
            print(f"{study.study_name} {number}: {self.metric} {written(value)} ({known})", flush=True)

    # -- the second stage ---------------------------------------------------------------------------------------------

    def second(self, finalists: int, seeds: list[int], epochs: int, retry: bool) -> None:
        """Run the best settings again with each seed, beside the other processes that do."""
        self.final = self._opened(f"{self.name}, finalists over {epochs} epochs", None, optuna().pruners.NopPruner())
        state = optuna().trial.TrialState
        if retry:
            for trial in self.final.get_trials(deepcopy=False, states=(state.RUNNING,)):
                self._tell(self.final, trial, state=state.FAIL)
        known = {_key(t.user_attrs[JOB]) for t in self._jobs() if t.state != state.FAIL or REFUSED in t.user_attrs}
        for settings in self._best(finalists):
            for seed in seeds:
                job = {"settings": settings, "seed": seed}
                if _key(job) not in known:
                    self.final.enqueue_trial({"seed": seed}, user_attrs={JOB: job})
        while self._clock.goes_on() and any(t.state == state.WAITING for t in self._jobs()):
            trial = self.final.ask()
            job = trial.user_attrs.get(JOB)
            if job is None or self._is_taken(trial.number, job):  # another process was quicker
                self._tell(self.final, trial, state=state.FAIL)
            else:
                self._try(self.final, trial, {**job["settings"], "epochs": epochs, "seed": job["seed"]}, final=True)

    def _jobs(self) -> list[Any]:
        return [t for t in self.final.get_trials(deepcopy=False) if JOB in t.user_attrs]

    def _is_taken(self, number: int, job: Any) -> bool:
        """Say whether an earlier trial is the same run: two processes may have asked for it at once."""
        others = (t for t in self._jobs() if t.number < number and _key(t.user_attrs[JOB]) == _key(job))
        return any(t.state.name != "FAIL" for t in others)

    def _best(self, count: int) -> list[dict[str, Any]]:
        """List the settings of the best complete trials, none twice."""
        sign = -1.0 if self.largest else 1.0
        ranked = sorted(self._complete(self.study), key=lambda t: sign * t.value)
        distinct = {_key(t.params): dict(t.params) for t in reversed(ranked)}
        return list(reversed(distinct.values()))[:count]

    # -- what came of it ----------------------------------------------------------------------------------------------

    def result(self) -> SearchResult:
        """Read both studies."""
        found = [
            Trial(
                t.number, dict(t.params), t.value if t.state.name == "COMPLETE" else None, STATES[t.state.name],
                dict(t.intermediate_values), t.user_attrs.get(WHY, ""),
            )
            for t in self.study.get_trials(deepcopy=False)
        ]  # fmt: skip
        finalists, unfinished = ([], 0) if self.final is None else self._finalists()
        return SearchResult(self.name, self.metric, self.largest, tuple(found), tuple(finalists), unfinished)

    def _finalists(self) -> tuple[list[Finalist], int]:
        runs: dict[str, list[Any]] = {}
        for trial in self._jobs():
            runs.setdefault(_key(trial.user_attrs[JOB]["settings"]), []).append(trial)
        found, unfinished = [], 0
        for each in runs.values():
            over = [t for t in each if t.state.name in ("COMPLETE", "PRUNED") or REFUSED in t.user_attrs]
            done = {t.user_attrs[JOB]["seed"]: t for t in reversed(over)}
            waiting = {t.user_attrs[JOB]["seed"] for t in each} - done.keys()
            unfinished += len(waiting)
            if not waiting:
                done = dict(sorted(done.items()))
                noted = {seed: t.user_attrs.get(NOTED, {}) for seed, t in done.items()}
                values = {seed: t.value if t.state.name == "COMPLETE" else None for seed, t in done.items()}
                found.append(Finalist(each[0].user_attrs[JOB]["settings"], values, noted))
        sign = -1.0 if self.largest else 1.0
        return sorted(found, key=lambda f: (f.mean != f.mean, sign * f.mean)), unfinished


def _key(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True)
