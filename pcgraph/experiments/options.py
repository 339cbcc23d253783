"""Collect the options of ``pcgraph train``: defaults, a TOML file over them, the command line over both."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcgraph.data.sources import canonical
from pcgraph.errors import ConfigError, unknown_name
from pcgraph.experiments.machine import require_device
from pcgraph.experiments.rules import infers, make_rule
from pcgraph.experiments.text import LARGEST

__all__ = [
    "Options",
    "flag",
    "idle",
    "options_from",
    "plain_settings",
    "read_config",
    "read_toml",
    "sizes_of",
    "stored",
    "write_config",
]


@dataclass(frozen=True)
class Options:
    """Holds what one training run was asked to do.

    Attributes
    ----------
    data : str
        The images: one of :data:`pcgraph.data.names`.
    fraction : float
        The part of the training set that is used, class-balanced.
    graph : str
        Sizes such as ``784-512x4-10``, ``alexnet``, ``vgg5``, or a graph file.
    input, target : str
        The nodes that images and one-hot labels are clamped to.
    activation : str
        Of the hidden groups, where the graph comes from no file.
    rule : str
        The learning rule, ``NAME:option=value,…``: standard, incremental, nudged or backprop. The last has no
        inference, and takes no `init`, `steps` or `state_lr`.
    init : str
        Where the states start, ``NAME:option=value,…``.
    steps : int
        Inference steps T a batch.
    epochs : int
    batch_size : int
    stream_aligned : bool
        As many of each class in each batch, in class order, as the paper has it for Average and Null.
    lr : float
        The rate of the weights (AdamW).
    eps : float
        AdamW's ε. Gradients of the first layers are of the order of state_lr to the power of the distance from the
        target; below ε those layers hardly move. A smaller ε scales them up to full steps, which need not be better:
        Fashion-MNIST with the settings below reached 87.9 % within five epochs, and 80.2 % with ε = 1e-15 (seed 0).
    state_lr : float
        The rate of the states (SGD), the paper's α.
    validation : float
        The part of the training set on which the epochs are judged; 0: they are judged on the test set.
    test_init : str
        Where the states start at test time, for graphs that no sweep answers; empty: by a sweep.
    test_steps : int
        Inference steps at test time; used with `test_init`.
    seed : int
        For weights, order of batches and draws.
    device : str
    out : str
        The folder for checkpoint, log, settings and learning curve; empty: nothing is written.
    """

    data: str = "digits"
    fraction: float = 1.0
    graph: str = "64-128x2-10"
    input: str = "x"
    target: str = "y"
    activation: str = "relu"
    rule: str = "standard"
    init: str = "forward"
    steps: int = 5
    epochs: int = 10
    batch_size: int = 50
    stream_aligned: bool = False
    lr: float = 1e-3
    eps: float = 1e-8
    state_lr: float = 0.01
    validation: float = 0.0
    test_init: str = ""
    test_steps: int = 20
    seed: int = 0
    device: str = "cpu"
    out: str = ""


PAPER: Mapping[str, Any] = {"graph": "784-512x4-10", "batch_size": 200, "epochs": 5}
BY_DATA: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "mnist": PAPER,
    "fashion-mnist": PAPER,
    "kmnist": PAPER,
    "cifar10": {**PAPER, "graph": "alexnet", "steps": 7, "lr": 3e-4, "epochs": 24},
}
"""A data set has these defaults of its own."""

RATES = (1e-37, 1e30)
"""Rates, and what is added to a denominator, lie between; beyond float32 has none, or what is made of them is none."""

FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def options_from(given: Mapping[str, Any], config: Path | None = None) -> Options:
    """Take the defaults for the data set, then what the file says, then what is given (None: not given).

    Raises
    ------
    ConfigError
        An unknown key, with the nearest one, or a value that a setting cannot have.

    Examples
    --------
    >>> options_from({"data": "fashion-mnist", "lr": None}).graph
    '784-512x4-10'
    """
    chosen = read_config(config) if config is not None else {}
    chosen |= {key: value for key, value in given.items() if value is not None}
    data = canonical(str(chosen.get("data", Options.data)))
    made = Options(**{**BY_DATA[data], **chosen, "data": data})
    _check(made)
    unused = [key for key in idle(made) if key in chosen]
    if unused:
        raise ConfigError(
            f"--rule {made.rule} has no inference (found {', '.join(map(flag, unused))}): leave that out", key=unused[0]
        )
    if given.get("test_steps") is not None and not made.test_init:
        raise ConfigError(
            "--test-steps is for inference at test time, and without --test-init a sweep answers: give both, or leave "
            "it out",
            key="test_steps",
        )
    return made


def idle(made: Options) -> tuple[str, ...]:
    """Name the options that the rule has no use for."""
    if infers(make_rule(made.rule)):
        return ()
    return ("init", "steps") if made.test_init else ("init", "steps", "state_lr")


def stored(made: Options) -> dict[str, Any]:
    """Select what a file of settings holds: not where the run lies, and nothing that its rule has no use for."""
    return {key: value for key, value in dataclasses.asdict(made).items() if key not in ("out", *idle(made))}


def write_config(path: Path, made: Options) -> None:
    """Write the settings of a run as TOML, in a form that :func:`read_config` reads.

    Raises
    ------
    OSError
    """
    # JSON's strings are TOML's but for the one control character that JSON leaves as it is.
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in stored(made).items())
    path.write_text("".join(lines).replace("\x7f", "\\u007f"), encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings in a TOML file; hyphens and underscores in keys mean the same.

    Raises
    ------
    ConfigError
        The file cannot be read, has an unknown key (the nearest is offered) or a value of another kind.
    """
    return plain_settings(path, read_toml(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    ConfigError
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"cannot read the settings in {path}: {problem.strerror}", key="config") from problem
    except (ValueError, RecursionError) as problem:  # TOML's and UTF-8's errors are ValueErrors, a NUL in the path too
        raise ConfigError(f"{path} is not TOML: {problem}", key="config") from problem


def plain_settings(path: str | Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Read settings, of a file or of what `path` says, by their names; hyphens and underscores in keys mean the same.

    Raises
    ------
    ConfigError
        A key is unknown, stands twice, or has a value of another kind.
    """
    chosen: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in FIELDS:
            known = [field.replace("_", "-") for field in FIELDS]
            raise ConfigError(f"{path}: {unknown_name('setting', key, known)}", key=key)
        if name in chosen:
            raise ConfigError(f"{path}: {key!r} stands twice, once with hyphens", key=key)
        chosen[name] = _of_kind(path, key, value, str(FIELDS[name].type))
    return chosen


def _of_kind(path: str | Path, key: str, value: Any, kind: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value) if isinstance(value, float) or abs(value) <= LARGEST else math.inf
    if type(value).__name__ != kind:
        needed = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
        raise ConfigError(f"{path}: {key} is {needed} (found {value!r})", key=key)
    return value


def _check(made: Options) -> None:
    """Refuse what no training can have, before anything is read or made."""
    for key, field in FIELDS.items():
        if field.type == "str":
            _check_text(key, getattr(made, key))
        elif field.type == "int":
            least = 1 if key in ("epochs", "batch_size") else 0
            _check_whole(key, getattr(made, key), least)
    for key in ("lr", "state_lr", "eps"):
        if not RATES[0] <= getattr(made, key) <= RATES[1]:
            raise ConfigError(
                f"{flag(key)} is a positive number, from {RATES[0]} to {RATES[1]} (found {getattr(made, key)})", key=key
            )
    if not 0 < made.fraction <= 1:
        raise ConfigError(f"--fraction is above 0 and at most 1 (found {made.fraction})", key="fraction")
    if not 0 <= made.validation < 1:
        raise ConfigError(f"--validation is at least 0 and below 1 (found {made.validation})", key="validation")
    require_device(made.device)
    if made.input == made.target:
        raise ConfigError(f"--input and --target are two nodes (found {made.input!r} twice)", key="target")


def _check_text(key: str, value: str) -> None:
    """Refuse text that no path and no file of settings can hold."""
    if re.search("[\0\ud800-\udfff]", value):
        raise ConfigError(f"{flag(key)} is text that UTF-8 can hold, without a NUL (found {value!r})", key=key)


def _check_whole(key: str, value: int, least: int) -> None:
    if value < least:
        needed = "is not negative" if least == 0 else f"is at least {least}"
        raise ConfigError(f"{flag(key)} {needed} (found {value})", key=key)
    if value > LARGEST:
        raise ConfigError(f"{flag(key)} is at most {LARGEST} (found {value})", key=key)


def flag(key: str) -> str:
    """Write an option as it stands on the command line."""
    return "--" + key.replace("_", "-")


MOST_GROUPS = 100_000
"""Layer sizes declare no more groups than this; a file can."""


def sizes_of(text: str) -> list[int] | None:
    """Read layer sizes such as ``784-512x4-10``; return None where `text` is something else.

    Raises
    ------
    ConfigError
        It is more groups than one would write so, or a number that no tensor can have for its size.

    Examples
    --------
    >>> sizes_of("784-512x4-10")
    [784, 512, 512, 512, 512, 10]
    >>> sizes_of("graph.json") is None
    True
    """
    if not re.fullmatch(r"[0-9]+(x[0-9]+)?(-[0-9]+(x[0-9]+)?)+", text):
        return None
    if max(map(len, re.findall("[0-9]+", text))) > len(str(LARGEST)) - 1:
        raise ConfigError(f"--graph has sizes of up to {len(str(LARGEST)) - 1} digits (found {text[:60]})", key="graph")
    parts = [(int(size), int(times or 1)) for size, times in re.findall(r"([0-9]+)(?:x([0-9]+))?", text)]
    if sum(times for _, times in parts) > MOST_GROUPS:
        raise ConfigError(
            f"--graph declares at most {MOST_GROUPS:,} groups by sizes (found {sum(t for _, t in parts):,}): take "
            "fewer, or write the graph to a file",
            key="graph",
        )
    return [size for size, times in parts for _ in range(times)]
