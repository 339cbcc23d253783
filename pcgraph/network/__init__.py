"""The validated, frozen structure of a network, and its parameters."""

from pcgraph.network.network import Network
from pcgraph.network.structure import Bucket, Group, Segment, Structure

__all__ = ["Bucket", "Group", "Network", "Segment", "Structure"]
