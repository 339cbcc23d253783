"""A declaration becomes a structure, validated and frozen, and a network is that structure with its parameters."""

from pcgraph.network.carrying import Carried
from pcgraph.network.cut import Cut, Partition
from pcgraph.network.ghosts import Ghosts
from pcgraph.network.handled import HandledNetwork
from pcgraph.network.handles import EdgeHandle, NodeHandle
from pcgraph.network.inits import INITS
from pcgraph.network.loading import LoadedWhole, kept
from pcgraph.network.network import Network
from pcgraph.network.own import Piece, make_part
from pcgraph.network.packed import ParameterView, every_parameter
from pcgraph.network.parts import Bucket, Group, Segment
from pcgraph.network.places import Place, places, require_as_made, whole_parameters
from pcgraph.network.slots import MAIN, Slot
from pcgraph.network.structure import Structure
from pcgraph.network.summary import Summary

__all__ = [
    "INITS", "MAIN", "Bucket", "Carried", "Cut", "EdgeHandle", "Ghosts", "Group", "HandledNetwork", "LoadedWhole",
    "Network", "NodeHandle", "ParameterView", "Partition", "Piece", "Place", "Segment", "Slot", "Structure", "Summary",
    "every_parameter", "kept", "make_part", "places", "require_as_made", "whole_parameters",
]  # fmt: skip
