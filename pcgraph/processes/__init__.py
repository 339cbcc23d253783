"""Ranks of ``torch.distributed`` share batches or graphs; what they tell each other goes through a :class:`Group`."""

from pcgraph.processes.group import Group, at_hand, initialised, read_group, started, started_by_torchrun, telling
from pcgraph.processes.part import Part

__all__ = ["Group", "Part", "at_hand", "initialised", "read_group", "started", "started_by_torchrun", "telling"]
