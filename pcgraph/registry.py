"""A registry knows classes by name: it makes instances of what a declaration says, and names them to be saved."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from pcgraph.arguments import require_text, shown
from pcgraph.errors import GraphError, unknown_name

__all__ = ["Named", "Registry"]

T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The classes of one kind have names here, under which graphs declare them and files keep them.

    Attributes
    ----------
    what : str
        What they are, for messages.
    base : type
        The class that all of them extend.
    place : str
        Where users find `known`, to add their own classes.
    known : dict
        Name -> class.
    instances : str
        What else a declaration may hold, for messages.
    """

    what: str
    base: type[T]
    place: str
    known: dict[str, type[T]]
    instances: str

    def get(self, spec: Any) -> T:
        """Make what `spec` names, or return what it is.

        Parameters
        ----------
        spec : str, pair or instance
            A name, of a class that needs no arguments; ``(name, arguments)``; or an instance of `base`.

        Raises
        ------
        GraphError
            It is none of them, the name is unknown, or the arguments are not those of the class.
        """
        if isinstance(spec, str):
            return self._bare(spec)
        if isinstance(spec, tuple | list) and len(spec) == 2:
            name, config = spec
            if isinstance(name, str) and isinstance(config, Mapping):
                return self.make(name, config)
        if isinstance(spec, self.base):
            return spec
        article = "an" if self.what[0] in "aeiou" else "a"
        raise GraphError(
            f"{article} {self.what} is a name, a pair (name, arguments){self.instances} (found {shown(spec)})",
            found=spec,
        )

    def make(self, name: str, config: Mapping[str, Any]) -> T:
        """Make an instance from its name and arguments.

        Raises
        ------
        GraphError
            The name is unknown, or the class does not take these arguments.
        """
        kind = self._kind(name)
        if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
            raise GraphError(
                f"the arguments of a {self.what} are a mapping from their names (found {shown(config)})", found=config
            )
        try:
            return _made(kind, config)
        except TypeError as error:
            takes = inspect.signature(kind) if kind.__init__ is not nn.Module.__init__ else "()"
            raise GraphError(
                f"the {self.what} {name!r} is made with {takes} (found {shown(dict(config))}: {error})",
                found=dict(config),
            ) from error

    def name_of(self, instance: T) -> str:
        """Return the name of an instance's class.

        Raises
        ------
        GraphError
            It has none.
        """
        for name, kind in self.known.items():
            if type(instance) is kind:
                return name
        kind = type(instance)
        raise GraphError(
            f"the {self.what} {kind.__name__} has no name: register its class, as in "
            f"{self.place}['my_{self.what}'] = {kind.__name__}",
            found=instance,
        )

    def _kind(self, name: str) -> type[T]:
        require_text(name, f"the name of a {self.what}", refuse=lambda text: GraphError(text, found=name))
        if name not in self.known:
            raise GraphError(unknown_name(self.what, name, self.known), found=name)
        return self.known[name]

    def _bare(self, name: str) -> T:
        kind = self._kind(name)
        needed = [
            n for n, p in inspect.signature(kind.__init__).parameters.items()
            if n != "self" and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]  # fmt: skip
        if needed:
            raise GraphError(
                f"the {self.what} {name!r} needs {', '.join(needed)}: give an instance, as in "
                f"{self.what}={self.place.rpartition('.')[0]}.{kind.__name__}(...)",
                found=name,
            )
        return _made(kind, {})


def _made(kind: type[T], config: Mapping[str, Any]) -> T:
    """Make an instance on the CPU, as networks make all their parameters, whatever torch's default device is."""
    with torch.device("cpu"):
        return kind(**config)


class Named(nn.Module):
    """A class of these has a name in a registry; an instance is saved by that name, and by what it was made with."""

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as data that JSON can hold: ``type(t)(**t.config())`` is like `t`.

        Raises
        ------
        GraphError
            The class takes arguments and does not define this method.
        """
        if inspect.signature(type(self).__init__).parameters.keys() - {"self", "args", "kwargs"}:
            raise GraphError(
                f"{type(self).__name__} cannot be saved: it takes arguments and defines no config() that returns them",
                found=self,
            )
        return {}
