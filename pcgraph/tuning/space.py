"""A space says, for each setting, which values may be tried; it is read into Optuna's distributions."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pcgraph.arguments import is_integer, is_number, require_path, shown
from pcgraph.errors import ConfigError, PCGraphError, said_by, unknown_name

__all__ = ["optuna", "patiently", "read_space", "read_storage", "require_storable", "space_text", "suggest"]

RANGE = ("low", "high", "log", "step")
OWN = ("epochs", "seed")
INFINITE = (math.inf, -math.inf)
MOST = 1e300  # beyond, the distance of two ends is no float
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds
LOCKS_BY_OPENING = os.name == "nt"
"""Optuna guards a journal by a symbolic link, which Windows grants to administrators alone, or by a file."""
DATABASES, JOURNALS = (".db", ".sqlite", ".sqlite3"), (".journal", ".log", ".jsonl")


def optuna() -> Any:
    """Return Optuna, or raise an error that says how to install it."""
    try:
        import optuna
    except ImportError as error:
        raise PCGraphError("a search needs optuna (not found): pip install pcgraph[search]") from error
    return optuna


def read_space(space: Any) -> dict[str, Any]:
    """Read a space: setting -> Optuna's distribution.

    Parameters
    ----------
    space : mapping
        Setting -> a list of values to choose from; or a mapping with ``low`` and ``high``, and if need be ``log=True``
        or a ``step``, whole numbers if both ends are; or a distribution of Optuna.

    Raises
    ------
    ConfigError
        The space is empty, or an entry is none of these.

    Examples
    --------
    >>> list(read_space({"rate": {"low": 1e-4, "high": 1e-2, "log": True}, "rule": ["standard", "nudged"]}))
    ['rate', 'rule']
    """
    if not isinstance(space, Mapping) or not space:
        raise ConfigError(
            "a space maps settings to what may be tried, as in {'lr': {'low': 1e-4, 'high': 1e-2, 'log': True}, "
            f"'steps': [3, 5, 10]}} (found {shown(space)})",
            key="space",
        )
    for name in space:
        if not isinstance(name, str) or name in OWN:
            hint = "; epochs= and seeds= say it" if isinstance(name, str) else ""
            raise ConfigError(f"a setting of a space has a name, and is not {' or '.join(OWN)} (found {shown(name)})"
                              + hint, key="space")  # fmt: skip
        require_storable(name, "a setting of a space", "space")
    return {name: _distribution(name, entry) for name, entry in space.items()}


def _distribution(name: str, entry: Any) -> Any:
    d = optuna().distributions
    if isinstance(entry, d.BaseDistribution):
        return entry
    if isinstance(entry, list | tuple):
        return d.CategoricalDistribution(_choices(name, list(entry)))
    if not isinstance(entry, Mapping):
        raise _wrong(name, f"found {shown(entry)}")
    for key in entry:
        if key not in RANGE:
            raise ConfigError(f"{name} in the space: {unknown_name('entry', key, RANGE)}", key="space")
    parts: list[Any] = [plain(entry.get(key)) for key in RANGE]
    low, high, log, step = parts
    if not (_in_reach(low) and _in_reach(high) and low <= high):
        raise _wrong(name, f"found low {shown(low)} and high {shown(high)}")
    if not isinstance(log, bool | None) or (log and (low <= 0 or step is not None)):
        raise _wrong(name, "log is true or false, and if true low is above 0 and there is no step")
    if step is not None and not (_in_reach(step) and step > 0):
        raise _wrong(name, f"a step is a positive number (found {shown(step)})")
    whole = all(isinstance(number, int) for number in (low, high, 1 if step is None else step))
    if whole:
        return d.IntDistribution(int(low), int(high), log=bool(log), step=1 if step is None else int(step))
    return d.FloatDistribution(float(low), float(high), log=bool(log), step=None if step is None else float(step))


def plain(value: Any) -> Any:
    """Make a number or flag of NumPy's, or of a tensor of no dimensions, one of Python's, which every storage keeps."""
    if isinstance(value, np.bool_):
        return bool(value)
    if is_integer(value):
        return int(value)
    return float(value) if is_number(value) and not isinstance(value, float) else value


def _in_reach(value: Any) -> bool:
    """Say whether this is a finite number, small enough to be drawn between."""
    return is_number(value) and abs(value) <= MOST


def _choices(name: str, values: list[Any]) -> list[Any]:
    values = list(map(plain, values))
    kinds = all(isinstance(value, bool | str | None) or value in INFINITE or _in_reach(value) for value in values)
    if not values or not kinds or len({(type(v), v) for v in values}) < len(values):
        raise _wrong(name, f"found {shown(values)}")
    for value in values:
        if isinstance(value, str):
            require_storable(value, f"a value of {name}", "space")
    return values


def require_storable(text: str, what: str, key: str) -> str:
    """Refuse a text that no database and no file can hold.

    Raises
    ------
    ConfigError
    """
    if re.search("[\0\ud800-\udfff]", text):
        raise ConfigError(f"{what} is text that UTF-8 can hold, without a NUL (found {text!r})", key=key)
    return text


def _wrong(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{name} in the space is a list of plain values, none twice, or has low and high, low not above high ({why})",
        key="space",
    )


def suggest(trial: Any, name: str, distribution: Any) -> None:
    """Let a trial draw one setting."""
    d = optuna().distributions
    if isinstance(distribution, d.CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
        return
    draw = trial.suggest_int if isinstance(distribution, d.IntDistribution) else trial.suggest_float
    draw(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def space_text(distributions: Mapping[str, Any]) -> str:
    """Write a space as text, the same for the same space, by which a search is recognised when it goes on."""
    d = optuna().distributions
    return json.dumps({name: json.loads(d.distribution_to_json(each)) for name, each in sorted(distributions.items())})


def read_storage(storage: Any) -> Any:
    """Read where trials are kept: a storage of Optuna.

    Parameters
    ----------
    storage : str, Path, optuna.storages.BaseStorage or None
        A file ending in .db or .sqlite is a database of SQLite, for the processes of one machine; one ending in
        .journal or .log is a journal, which machines share through a network file system; a URL such as
        ``postgresql://…`` is a server's database; None keeps trials in memory.

    Raises
    ------
    ConfigError
        It is none of these, or cannot be opened.
    """
    storages = optuna().storages
    if storage is None:
        return storages.InMemoryStorage()
    if isinstance(storage, storages.BaseStorage):
        return storage
    try:
        if isinstance(storage, str) and "://" in storage:
            return storages.RDBStorage(storage)
        path = require_path(storage, "storage").absolute()
        if path.suffix not in (*DATABASES, *JOURNALS):
            raise ConfigError(
                f"storage= is a file ending in {', '.join(DATABASES)} (SQLite) or {', '.join(JOURNALS)} (a journal), "
                f"or a URL (found {path.name})",
                key="storage",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        return _opened(storages, path)
    except PCGraphError:
        raise
    except Exception as error:  # whatever the database's own driver raises
        text = said_by(error)
        raise ConfigError(f"the storage {storage} cannot be opened: {text[:300]}", key="storage") from error


def _opened(storages: Any, path: Path) -> Any:
    if path.suffix in JOURNALS:
        from optuna.storages import journal

        lock = journal.JournalFileOpenLock(str(path)) if LOCKS_BY_OPENING else None  # else by a symbolic link
        return storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(path)).render_as_string()  # in which "?" and "%" of a folder are no signs
    waits = {"connect_args": {"timeout": 60.0}}  # for another process that is writing
    return patiently(lambda: storages.RDBStorage(url, engine_kwargs=waits))


def patiently(make: Callable[[], Any]) -> Any:
    """Do what fails where another process does the same at the same moment, such as making one table twice."""
    for pause in PAUSES:
        try:
            return make()
        except Exception as error:  # SQLAlchemy's, which only an installation with Optuna has
            if not type(error).__module__.startswith(("sqlalchemy", "optuna")):
                raise
            time.sleep(pause)
    return make()
