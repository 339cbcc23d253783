"""A transform is what an edge does to its source: ``f_uv`` in ``mu_v = sigma_v(b_v + sum_u f_uv(phi_uv(h_u)))``.

The weights of :class:`Linear` edges are not kept here: the network packs those of like edges into one tensor (see
:mod:`pcgraph.network`), and the class only says what kind of edge it is. Any other transform is an ``nn.Module`` that
keeps its own parameters and is computed on its edge alone, with the transform's own ``pullback`` and ``weight_grad``
where it defines them and by autograd where it does not.

Parameters of the transforms in this package are drawn from the network's seed, whatever they were when the graph was
declared; an ``nn.Module`` of the user's keeps the values it came with.
"""

from pcgraph.transforms.base import Identity, Linear, Shape, Transform
from pcgraph.transforms.embedding import Embedding, RowLinear
from pcgraph.transforms.images import AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d, Upsample
from pcgraph.transforms.masked import MaskedLinear
from pcgraph.transforms.modules import GraphLayer, Module
from pcgraph.transforms.registry import TRANSFORMS, from_config, get, name_of
from pcgraph.transforms.sequence import Sequence
from pcgraph.transforms.shapes import Activate, Flatten, Reshape
from pcgraph.transforms.sparse import SparseLinear

TRANSFORMS["sequence"] = Sequence

__all__ = [
    "TRANSFORMS",
    "Activate",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "Embedding",
    "Flatten",
    "GraphLayer",
    "Identity",
    "Linear",
    "MaskedLinear",
    "MaxPool2d",
    "Module",
    "Reshape",
    "RowLinear",
    "Sequence",
    "Shape",
    "SparseLinear",
    "Transform",
    "Upsample",
    "from_config",
    "get",
    "name_of",
]
