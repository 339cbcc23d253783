"""A declaration becomes a structure, validated and frozen, and a network is that structure with its parameters."""

from pcgraph.network.cut import Cut, Partition
from pcgraph.network.inits import INITS
from pcgraph.network.network import Network
from pcgraph.network.own import Piece, make_part
from pcgraph.network.parts import Bucket, Group, Segment
from pcgraph.network.slots import MAIN, Slot
from pcgraph.network.structure import Structure

__all__ = [
    "INITS",
    "MAIN",
    "Bucket",
    "Cut",
    "Group",
    "Network",
    "Partition",
    "Piece",
    "Segment",
    "Slot",
    "Structure",
    "make_part",
]
