"""A declaration becomes a structure, validated and frozen, and a network is that structure with its parameters."""

from pcgraph.network.network import Network
from pcgraph.network.slots import MAIN, Slot
from pcgraph.network.structure import Bucket, Group, Segment, Structure

__all__ = ["MAIN", "Bucket", "Group", "Network", "Segment", "Slot", "Structure"]
