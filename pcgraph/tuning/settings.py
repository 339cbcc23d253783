"""Settings of ``pcgraph train`` are searched for, as a TOML file or a mapping of the same form says."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pcgraph.arguments import require_text
from pcgraph.data import Images
from pcgraph.errors import ConfigError, PCGraphWarning, unknown_name
from pcgraph.experiments.experiment import Experiment, load_splits, prepare, rehearse
from pcgraph.experiments.options import Options, idle, options_from, plain_settings, read_toml
from pcgraph.model import PCNetwork
from pcgraph.training import Evaluation, History, evaluate, fit
from pcgraph.tuning.report import Progress
from pcgraph.tuning.space import read_space

__all__ = ["Settings"]

HELD_BACK = 0.2
"""The part of the training set that judges trials, unless the file says otherwise."""
FIXED = ("epochs", "seed", "validation", "out", "device")
"""Settings that no space varies: other keys say them, or trials with others could not be compared."""
KEYS = ("trials", "epochs", "finalists", "seeds", "storage", "name", "timeout")


@dataclasses.dataclass(frozen=True)
class Settings:
    """This is what is asked for: settings that are fixed, a space over others, and how to search.

    Attributes
    ----------
    base : mapping
        Settings of ``pcgraph train``; of finalists, as far as epochs go.
    space : mapping
        As :func:`pcgraph.search` takes it.
    search : mapping
        Arguments of that by their names.
    """

    base: Mapping[str, Any]
    space: Mapping[str, Any]
    search: Mapping[str, Any]

    @classmethod
    def read(cls, config: str | Path | Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
        """Read a file or a mapping, and try every value that the space names, before anything is trained.

        Parameters
        ----------
        config : str, Path or mapping
            A TOML file, or what is in one: settings of train, a table "space", and one, "search".
        given : mapping
            What goes over the table "search"; None goes over nothing.

        Raises
        ------
        PCGraphError
            Of the kind that says what is wrong.
        """
        path = "the settings" if isinstance(config, Mapping) else Path(config)
        found = read_toml(path) if isinstance(path, Path) else dict(config)  # type: ignore[arg-type]
        space, search = found.pop("space", None), found.pop("search", {})
        if not isinstance(space, Mapping) or not isinstance(search, Mapping):
            raise ConfigError(f"{path} needs a table [space], and may have a table [search]", key="space")
        for key in [*found, *space, *search]:
            require_text(key, f"{path}: a setting")
        if "out" in found:
            raise ConfigError(f"{path}: out is of one run; a search writes where --out of the command says", key="out")
        space = _by_name(path, space)
        for key in space:
            if key in FIXED:
                raise ConfigError(
                    f"{path}: {key} is not searched for: it stands beside the space, or in [search]", key=key
                )
        known = [field.name for field in dataclasses.fields(Options)]
        for key, names in (*((key, known) for key in space), *((key, KEYS) for key in search)):
            if key not in names:
                raise ConfigError(f"{path}: {unknown_name('setting', key, names)}", key=key)
        base = {"validation": HELD_BACK, **plain_settings(path, found)}
        both = next((key for key in space if key in base), None)
        if both is not None:
            raise ConfigError(f"{path}: {both} stands in [space] and outside of it", key=both)
        if not base["validation"]:
            raise ConfigError(
                f"{path}: validation = 0 would choose by the test set, which then tells nothing: leave it out, or hold "
                f"back a part of the training set, as in validation = {HELD_BACK}",
                key="validation",
            )
        chosen = {key: value for key, value in given.items() if value is not None}
        made = cls(base, space, {**search, **chosen})
        return made._tried(path)

    def _tried(self, path: str | Path) -> Settings:
        """Prepare what is fixed with the first value of each entry, and with each other value of one at a time."""
        values = {key: _ends(path, key, each) for key, each in read_space(self.space).items()}
        first = {key: each[0] for key, each in values.items()}
        for key, each in values.items():
            for value in each:
                prepare(self.options({**first, key: value}))
        base = self.options(first)
        rehearse(prepare(base))
        for name in values.get("data", [base.data]):  # where they cannot be read, no trial has any
            load_splits(prepare(self.options({**first, "data": name})))
        epochs = {"epochs": base.epochs}
        return dataclasses.replace(self, base={**self.base, **epochs}, search={**epochs, **self.search})

    def options(self, settings: Mapping[str, Any]) -> Options:
        """Make the options of one run; what a rule of the space has no use for is left out."""
        chosen = {**self.base, **settings}
        unused = idle(Options(rule=str(chosen.get("rule", Options.rule)), test_init=str(chosen.get("test_init", ""))))
        return options_from({key: value for key, value in chosen.items() if key not in unused or key not in self.space})

    def train(self, settings: dict[str, Any], progress: Progress) -> History:
        """Train with some settings; only runs of finalists look at the test set, of which the report tells."""
        o = self.options(settings)
        experiment = prepare(o)
        splits = load_splits(experiment)
        loader = splits.train.batches(o.batch_size, seed=o.seed, stream_aligned=o.stream_aligned)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PCGraphWarning)  # of trials that go badly there are many
            history = fit(
                experiment.net, loader, **experiment.in_training, epochs=o.epochs, callbacks=progress, progress=False,
                validate=partial(_judged, experiment, splits.judge),
            )  # fmt: skip
        if progress.final:
            progress.note("test_accuracy", _judged(experiment, splits.test, experiment.net)["accuracy"])
        return history


def _by_name(path: str | Path, space: Mapping[str, Any]) -> dict[str, Any]:
    """Take hyphens and underscores in the names of settings for the same, and refuse one that so stands twice."""
    found: dict[str, Any] = {}
    for key, entry in space.items():
        name = key.replace("-", "_")
        if name in found:
            raise ConfigError(f"{path}: {key!r} stands twice in [space], once with hyphens", key=key)
        found[name] = entry
    return found


def _ends(path: str | Path, key: str, distribution: Any) -> list[Any]:
    """List the values that are to be tried of one setting, of the kind that it has: all choices, or both ends."""
    choices = getattr(distribution, "choices", None)
    values = list(choices) if choices is not None else [distribution.low, distribution.high]
    return [plain_settings(path, {key: value})[key] for value in values]


def _judged(experiment: Experiment, images: Images, net: PCNetwork) -> dict[str, float]:
    found: Evaluation = evaluate(net, images.batches(1000, shuffle=False), **experiment.at_test)
    assert found.accuracy is not None  # targets are one-hot rows
    return {"accuracy": found.accuracy}
