"""Classes that have a name in a declaration: made from the name and arguments, and named again to be saved."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from pcgraph.errors import GraphError, unknown_name

__all__ = ["Named", "no_arguments"]

T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True)
class Named(Generic[T]):
    """The classes of one kind by name.

    Attributes
    ----------
    what : str
        What they are, for messages.
    place : str
        Where users find `known`, to add their own classes.
    known : dict
        Name -> class.
    """

    what: str
    place: str
    known: dict[str, type[T]]

    def kind(self, name: str) -> type[T]:
        """The class of that name.

        Raises
        ------
        GraphError
            There is none; the nearest is offered.
        """
        if name not in self.known:
            raise GraphError(unknown_name(self.what, name, self.known), found=name)
        return self.known[name]

    def make(self, name: str, config: Mapping[str, Any]) -> T:
        """An instance, from its name and arguments.

        Raises
        ------
        GraphError
            An unknown name, or arguments that the class does not take.
        """
        kind = self.kind(name)
        try:
            return kind(**config)
        except TypeError as error:
            takes = inspect.signature(kind) if kind.__init__ is not nn.Module.__init__ else "()"
            raise GraphError(
                f"the {self.what} {name!r} is made with {takes} (found {dict(config)!r}: {error})", found=dict(config)
            ) from error

    def name_of(self, instance: T) -> str:
        """The name of an instance's class.

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


def no_arguments(instance: nn.Module) -> dict[str, Any]:
    """The config of an instance whose class takes no arguments.

    Raises
    ------
    GraphError
        It takes some.
    """
    if inspect.signature(type(instance).__init__).parameters.keys() - {"self", "args", "kwargs"}:
        raise GraphError(
            f"{type(instance).__name__} cannot be saved: it takes arguments and defines no config() that returns them",
            found=instance,
        )
    return {}
