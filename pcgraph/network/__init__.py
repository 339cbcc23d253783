"""A declaration becomes a structure, validated and frozen, and a network is that structure with its parameters."""

from pcgraph.network.inits import INITS
from pcgraph.network.network import Network
from pcgraph.network.structure import Bucket, Group, Segment, Structure

__all__ = ["INITS", "Bucket", "Group", "Network", "Segment", "Structure"]
