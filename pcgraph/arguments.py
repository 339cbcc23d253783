"""What a public call was given is checked here: numbers, choices, and objects of a class.

One function for each kind of argument, so that a kind is refused in the same words everywhere, and taken everywhere:
NumPy's numbers and tensors of no dimensions are numbers as Python's own are, and a bool is none.

>>> require_count(np.int64(5), "steps")
5
>>> require_count(2.5, "steps", least=1)
Traceback (most recent call last):
...
pcgraph.errors.ConfigError: steps must be a positive integer (found 2.5)
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
import reprlib
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pcgraph.errors import ConfigError, nearest, said_by

__all__ = [
    "LARGEST",
    "count_vertices",
    "did_you_mean",
    "gibibytes",
    "is_integer",
    "is_key",
    "is_number",
    "memory_of",
    "read_edge_index",
    "read_names",
    "read_numbers",
    "require_choice",
    "require_count",
    "require_flag",
    "require_instance",
    "require_number",
    "require_path",
    "require_room",
    "require_seed",
    "require_shape",
    "require_taking",
    "require_text",
    "shown",
    "tensor_of",
]

T = TypeVar("T")
Refuse = Callable[[str], Exception]

#: The largest count that is taken: no loop over more ends, and every index type holds it.
MOST = 2**31 - 1
#: What torch's generators take.
SEEDS = (-(2**63), 2**64 - 1)
#: No tensor is as large as this in any dimension.
LARGEST = 2**128
WIDTH = 80
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, WIDTH, WIDTH


def shown(value: Any) -> str:
    """Show a value in an error: its ``repr``, shortened, or what it is where that says more.

    Examples
    --------
    >>> shown(10**10000), shown([0] * 100), shown(torch.zeros(2, 3)), shown(Path)
    ('an integer of 33220 bits', '[0, 0, 0, 0, 0, 0, ...]', 'a Tensor of shape (2, 3)', 'the class Path')
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * WIDTH:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return " ".join(_SHORT.repr(value).split())


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """Name the known name that is most like an unknown one, as the end of a sentence; nothing if none is alike.

    Examples
    --------
    >>> did_you_mean("hiden", ["x", "hidden"]), did_you_mean("q", ["x", 3])
    ("; did you mean 'hidden'?", '')
    """
    guess = nearest(name, [each for each in known if isinstance(each, str)]) if isinstance(name, str) else None
    return f"; did you mean {guess!r}?" if guess else ""


def is_integer(value: Any) -> bool:
    """Say whether this is a whole number by type: of Python, of NumPy, or a tensor or array of no dimensions.

    Examples
    --------
    >>> [is_integer(v) for v in (1, np.int8(1), torch.tensor(1), True, np.True_, 1.0, "1", torch.ones(1))]
    [True, True, True, False, False, False, False, False]
    """
    if isinstance(value, torch.Tensor):
        plain = value.dim() == 0 and value.layout == torch.strided and value.device.type != "meta"
        return plain and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Say whether this is a real number by type, NaN and infinity included.

    Examples
    --------
    >>> [is_number(v) for v in (1, 0.5, np.float32(1), torch.tensor(0.5), True, 1j, "1", None)]
    [True, True, True, True, False, False, False, False]
    """
    if type(value) in (int, float) or is_integer(value):
        return True
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and value.layout == torch.strided and value.is_floating_point() and not value.is_meta
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and np.issubdtype(value.dtype, np.floating)
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def require_count(value: Any, key: str, *, least: int = 0, most: int = MOST, refuse: Refuse | None = None) -> int:
    """Read a whole number from `least` to `most`.

    Parameters
    ----------
    value : object
    key : str
        What the argument is called.
    least, most : int
    refuse : callable, optional
        Makes the error of a message; the default is a :class:`~pcgraph.errors.ConfigError` with the key.

    Raises
    ------
    ConfigError
        It is no integer, or another one. A bool is none, and neither is 2.0.
    """
    if is_integer(value):
        number = int(value)
        if least <= number <= most:
            return number
    kind = {0: "an integer that is not negative", 1: "a positive integer"}.get(least, f"an integer of at least {least}")
    above = f", at most {most}" if is_integer(value) and value > most else ""
    raise _error(refuse, key, f"{key} must be {kind}{above} (found {shown(value)})")


def require_seed(value: Any, key: str = "seed", *, refuse: Refuse | None = None) -> int:
    """Read a seed: a whole number that torch's generators take, from -2**63 to 2**64 - 1.

    Raises
    ------
    ConfigError
    """
    if is_integer(value) and SEEDS[0] <= int(value) <= SEEDS[1]:
        return int(value)
    raise _error(refuse, key, f"{key} must be an integer from -2**63 to 2**64 - 1 (found {shown(value)})")


def require_number(
    value: Any, key: str, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf,
    below: float = math.inf, refuse: Refuse | None = None,
) -> float:  # fmt: skip
    """Read a finite real number within bounds.

    Parameters
    ----------
    value : object
    key : str
    least, most : float
        Bounds that are taken themselves.
    above, below : float
        Bounds that are not.
    refuse : callable, optional
        As for :func:`require_count`.

    Raises
    ------
    ConfigError
        It is no number, or not finite, or out of bounds.
    """
    if is_number(value):
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond all floats
            number = math.inf
        if math.isfinite(number) and least <= number <= most and above < number < below:
            return number
    raise _error(refuse, key, f"{key} must be {_range(least, above, most, below)} (found {shown(value)})")


def _range(least: float, above: float, most: float, below: float) -> str:
    """Say in words which numbers are taken."""
    top = most < math.inf or below < math.inf
    if not top:
        plain = {(0, -math.inf): "a finite number that is not negative", (-math.inf, 0): "a positive number"}
        bound = f"a number above {above:g}" if above > -math.inf else f"a number of at least {least:g}"
        return plain.get((least, above), bound if max(least, above) > -math.inf else "a finite number")
    begin = f"({above:g}" if above > -math.inf else f"[{least:g}"
    return f"in {begin}, {most:g}]" if most < math.inf else f"in {begin}, {below:g})"


def require_shape(value: Any, key: str, *, refuse: Refuse | None = None) -> tuple[int, ...]:
    """Read a shape, without the batch: a positive whole number, or several as a tuple or list.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> require_shape(np.int64(3), "shape"), require_shape([2, 3], "shape")
    ((3,), (2, 3))
    """
    sizes = value if isinstance(value, tuple | list) else (value,)
    if sizes and all(is_integer(size) and 0 < int(size) < LARGEST for size in sizes):
        return tuple(int(size) for size in sizes)
    raise _error(refuse, key, f"{key} must be a positive integer or a tuple of them (found {shown(value)})")


def require_taking(function: Callable[..., Any], key: str, given: str, count: int) -> None:
    """Look whether a function can be called with `count` arguments, which `given` names, as far as it says.

    Raises
    ------
    ConfigError
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # it does not say
        return
    try:
        signature.bind(*[object()] * count)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise ConfigError(f"{key}= is called with {given}, and {name} takes {signature}: {error}", key=key) from None


def require_text(value: Any, key: str, *, refuse: Refuse | None = None) -> str:
    """Read a text.

    Raises
    ------
    ConfigError
    """
    if isinstance(value, str):
        return value
    raise _error(refuse, key, f"{key} must be a text, a str (found {shown(value)})")


def require_flag(value: Any, key: str, *, refuse: Refuse | None = None) -> bool:
    """Read True or False, NumPy's included.

    Raises
    ------
    ConfigError
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _error(refuse, key, f"{key} must be True or False (found {shown(value)})")


def require_choice(value: Any, key: str, choices: Iterable[T], *, refuse: Refuse | None = None) -> T:
    """Read one of a few values, by type and value: 1 is not True.

    Raises
    ------
    ConfigError
        It is none of them; the message names the nearest.
    """
    choices = tuple(choices)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    listed = [repr(choice) for choice in choices]
    either = " or ".join((", ".join(listed[:-1]), listed[-1])) if len(listed) > 1 else listed[0]
    raise _error(refuse, key, f"{key} must be {either} (found {shown(value)}){did_you_mean(value, choices)}")


def require_instance(value: Any, key: str, kind: type[T], example: str, *, refuse: Refuse | None = None) -> T:
    """Read an object of a class; its class in its place is the commonest slip, and told apart.

    Parameters
    ----------
    value : object
    key : str
    kind : type
    example : str
        How one is made, as in ``"pcgraph.Zero()"``.
    refuse : callable, optional
        As for :func:`require_count`.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> require_instance(Path, "folder", Path, "Path('runs')")
    Traceback (most recent call last):
    ...
    pcgraph.errors.ConfigError: folder must be a Path, as in folder=Path('runs') (found the class ...; write ...())
    """
    if isinstance(value, kind):
        return value
    made = f"; write {value.__name__}()" if isinstance(value, type) and issubclass(value, kind) else ""
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    what = f"{key} must be {article} {kind.__name__}, as in {key}={example}"
    raise _error(refuse, key, f"{what} (found {shown(value)}{made})")


def require_path(value: Any, key: str, *, refuse: Refuse | None = None) -> Path:
    """Read the path of a file or folder, a str or Path that a file system can hold.

    Raises
    ------
    ConfigError
    """
    if isinstance(value, str | Path) and str(value) and "\0" not in str(value):
        return Path(value)
    raise _error(refuse, key, f"{key} must be the path of a file or folder, a str or Path (found {shown(value)})")


def tensor_of(array: Any) -> torch.Tensor:
    """Make a tensor of a NumPy array of numbers, whatever its strides and byte order; it shares memory where it can.

    Raises
    ------
    TypeError
        Its entries are no numbers that torch has, or some of them are masked.

    Examples
    --------
    >>> tensor_of(np.arange(3, dtype=">i4")[::-1])
    tensor([2, 1, 0], dtype=torch.int32)
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("some of its entries are masked: fill them, or clamp in part by pcgraph.Masked(values, mask)")
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def is_key(value: Any) -> bool:
    """Whether a value can be looked up: it is hashable, and equal to itself, as NaN is not.

    Examples
    --------
    >>> is_key(("a", 3)), is_key(["a", 3]), is_key(float("nan"))
    (True, False, False)
    """
    try:
        hash(value)
    except TypeError:
        return False
    return bool(value == value)


def read_names(value: Any, key: str, *, refuse: Refuse | None = None) -> tuple[Hashable, ...]:
    """Read names of nodes: a collection of them, or one that is a text.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> read_names("x", "nodes"), read_names(["x", 3], "nodes")
    (('x',), ('x', 3))
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        names = tuple(value)
        if all(map(is_key, names)):
            return names
    raise _error(refuse, key, f"{key} must be names of nodes, as in {key}=['h1'] (found {shown(value)})")


def read_numbers(
    value: Any, key: str, *, dtype: torch.dtype | None = None, refuse: Refuse | None = None
) -> torch.Tensor:
    """Read a dense tensor of real numbers or flags: a tensor, an array, a number or nested lists of them.

    Python's numbers become those of `dtype`, and of torch's default type where it is None.

    Raises
    ------
    ConfigError
    """
    try:
        number = float(value) if isinstance(value, numbers.Rational) else value
        if isinstance(value, torch.Tensor):
            read = value
        else:
            read = (
                tensor_of(value)
                if isinstance(value, np.ndarray)
                else torch.as_tensor(number, dtype=dtype, device="cpu")
            )
        tensor = read.as_subclass(torch.Tensor)
        if tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_complex() or tensor.is_nested):
            return tensor
        problem = "is not dense, or holds no real numbers"
    except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError) as error:
        problem = said_by(error)
    raise _error(refuse, key, f"{key} must be a tensor or an array of numbers (found {shown(value)}: {problem})")


def read_edge_index(value: Any, *, refuse: Refuse | None = None) -> torch.Tensor:
    """Read the edges of a graph as torch_geometric writes them: vertex numbers from 0, shape (2, edges), int64.

    Raises
    ------
    ConfigError
    """
    index = read_numbers(value, "edge_index", refuse=refuse)
    whole = not (index.is_floating_point() or index.dtype == torch.bool)
    if index.dim() != 2 or index.shape[0] != 2 or not whole or bool((index < 0).any()):
        found = f"{index.dtype}, shape {tuple(index.shape)}"
        least = f", and {int(index.min())} in it" if whole and index.numel() and int(index.min()) < 0 else ""
        raise _error(
            refuse, "edge_index", f"an edge_index holds vertex numbers from 0, shape (2, edges) (found {found}{least})"
        )
    return index.long()


def count_vertices(data: Any, refuse: Refuse) -> int:
    """Count the vertices of a graph of torch_geometric, which looks for them in entries that may be of any kind."""
    try:
        found = data.num_nodes or 0
    except Exception as error:  # whatever an entry that is no tensor with rows leads to
        raise refuse(f"torch_geometric cannot count the vertices of the graph: {said_by(error)}") from error
    return require_count(found, "num_nodes", refuse=refuse, most=LARGEST)


def memory_of(device: torch.device | str) -> int | None:
    """Find how many bytes a device has; None where it does not say."""
    kind = torch.device(device).type
    if kind == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if kind == "cpu" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def require_room(
    needed: int, what: str, key: str, device: torch.device | str = "cpu", *, refuse: Refuse | None = None
) -> None:
    """Refuse what is larger than all the memory of a device, before any of it is made.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        What needs them, in words.
    key : str
    device : torch.device or str
    refuse : callable, optional
        As for :func:`require_count`.

    Raises
    ------
    ConfigError
    """
    memory = memory_of(device)
    if memory is not None and needed > memory:
        amounts = f"needs {gibibytes(needed)} GiB, and there are {memory / 2**30:.3g} GiB on {device}"
        raise _error(refuse, key, f"{what} {amounts}: take a smaller one")


def gibibytes(count: int) -> str:
    """Write a number of bytes in GiB, however large it is.

    Examples
    --------
    >>> gibibytes(3 * 2**29), gibibytes(2**5000)
    ('1.5', 'far more than 1e9')
    """
    return f"{count / 2**30:.3g}" if count < 2**1000 else "far more than 1e9"


def _error(refuse: Refuse | None, key: str, message: str) -> Exception:
    return ConfigError(message, key=key) if refuse is None else refuse(message)
