"""Ranks in two dimensions: those of a row hold a network together, and those of a column share its batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pcgraph.errors import ConfigError
from pcgraph.processes.group import TIMEOUT, Group, initialised

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Mesh", "is_mesh"]

#: What the axes of a mesh are called; without names they come in this order.
AXES = ("data", "partition")


def is_mesh(value: Any) -> bool:
    """Say whether this is a DeviceMesh of torch."""
    if not initialised():
        return False
    from torch.distributed.device_mesh import DeviceMesh

    return isinstance(value, DeviceMesh)


class Mesh:
    """A mesh is all ranks of a run in rows and columns, as one of them sees it.

    Parameters
    ----------
    mesh : torch.distributed.device_mesh.DeviceMesh
        Of two dimensions, which are called "data" and "partition", or have no names and come in this order.
    timeout : float
        As for :class:`Group`.

    Attributes
    ----------
    whole : Group
        All ranks.
    partition : Group
        Those that hold one network together.
    data : Group or None
        Those that hold the same part of it, and share batches; None where there is one alone.

    Raises
    ------
    ConfigError
        It has other dimensions, or is not of all processes.
    """

    def __init__(self, mesh: DeviceMesh, *, timeout: float = TIMEOUT) -> None:
        names = mesh.mesh_dim_names
        wrong = mesh.ndim != 2 or (names is not None and set(names) != set(AXES))
        self.whole = Group(timeout=timeout)
        if wrong or mesh.size() != self.whole.size:
            raise ConfigError(
                'a network over a mesh needs a DeviceMesh of two dimensions, "data" and "partition", over all '
                f'{self.whole.size} processes (found {self.told(mesh)}): make it by init_device_mesh("cpu", (2, '
                f'{max(1, self.whole.size // 2)}), mesh_dim_names=("data", "partition"))',
                key="group",
            )
        self.device_mesh = mesh
        data, partition = (
            Group(mesh.get_group(AXES.index(axis) if names is None else axis), timeout=timeout, within=self.whole)
            for axis in AXES
        )
        self.data = data if data.size > 1 else None
        self.partition = partition

    @staticmethod
    def told(mesh: DeviceMesh) -> str:
        """Say in words what a mesh is."""
        sizes, names = " x ".join(map(str, mesh.shape)), mesh.mesh_dim_names
        called = "without names" if names is None else f"called {', '.join(map(repr, names))}"
        return f"{mesh.ndim} of {sizes} processes, {called}"
