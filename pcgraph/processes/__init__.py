"""Ranks of ``torch.distributed`` share batches or graphs; what they tell each other goes through a :class:`Group`."""

from pcgraph.processes.group import Group, initialised, started_by_torchrun
from pcgraph.processes.mesh import Mesh, is_mesh
from pcgraph.processes.part import Part
from pcgraph.processes.runs import asked, at_hand, read_group, started, telling

__all__ = [
    "Group", "Mesh", "Part", "asked", "at_hand", "initialised", "is_mesh", "read_group", "started",
    "started_by_torchrun", "telling",
]  # fmt: skip
