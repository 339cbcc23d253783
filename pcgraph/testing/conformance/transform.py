"""Check a transform."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from pcgraph import transforms
from pcgraph.errors import GraphError
from pcgraph.testing.conformance.promises import BATCH, Draws, broken, derivative, far, in_network, unmoved
from pcgraph.transforms import Transform
from pcgraph.transforms.base import vjp

__all__ = ["check_transform"]


def check_transform(
    transform: Transform | nn.Module | str,
    input_shape: int | tuple[int, ...],
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> None:
    """Test a transform, or any module that is to be an edge.

    Parameters
    ----------
    transform : Transform, nn.Module or str
        A copy is tested, in float64.
    input_shape : int or tuple
        A shape of a source's state that it takes.
    seed : int
        Of the values drawn.
    device : torch.device or str, optional
        Where all is computed; torch's default device if None.

    Raises
    ------
    BrokenPromise

    Examples
    --------
    >>> check_transform(transforms.Conv2d(2, 3, 3), (2, 6, 6))
    """
    shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    draw = Draws(seed, device)
    tested = copy.deepcopy(transforms.get(transform)).double().to(draw.device)
    if isinstance(tested, transforms.Linear):
        return
    x = draw((BATCH, *shape))
    with torch.no_grad():
        out = _transform_shape(tested, shape, x)
        _transform_samples(tested, x)
    g = draw((BATCH, *out))
    _transform_derivatives(tested, x, g, draw)
    _transform_entries(tested, x[:1], shape, out)
    _transform_reset(tested, shape)
    _transform_config(tested, x)
    in_network(tested, _edge_graph(tested, shape, out), draw)


def _transform_shape(tested: Transform, shape: tuple[int, ...], x: Tensor) -> tuple[int, ...]:
    out = tested.output_shape(shape)
    if not (isinstance(out, tuple) and len(out) > 0 and all(isinstance(i, int) and i > 0 for i in out)):
        raise broken(
            tested, "that output_shape returns a tuple of positive ints", repr(out),
            "return the shape without the batch, as in (10,)",
        )  # fmt: skip
    kept = x.clone()
    y = unmoved(tested, "forward", lambda: tested(x))
    if not isinstance(y, Tensor) or tuple(y.shape) != (BATCH, *out):
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise broken(
            tested, f"an output of shape {(BATCH, *out)} for an input of {tuple(x.shape)}", str(found),
            "let output_shape and forward agree, the batch first",
        )  # fmt: skip
    if not torch.equal(x, kept):
        raise broken(tested, "to leave its input as it is", "that forward changed it", "avoid operations in place")
    return out


def _transform_samples(tested: Transform, x: Tensor) -> None:
    y = tested(x)
    if not torch.equal(y, tested(x)):
        raise broken(
            tested, "the same result for the same input", "two different ones",
            "remove what draws or counts: an edge is evaluated in every inference step",
        )  # fmt: skip
    for i in range(BATCH):
        if far(tested(x[i : i + 1]), y[i : i + 1]):
            raise broken(
                tested, "to transform each sample by itself", f"another result of sample {i} alone than in a batch",
                "use no statistics over the batch (GroupNorm or LayerNorm in the place of BatchNorm)",
            )  # fmt: skip


def _transform_derivatives(tested: Transform, x: Tensor, g: Tensor, draw: Draws) -> None:
    back, grads = vjp(tested, g, x)
    remedy = "use differentiable operations, without detach() or .data; or compare at points without a kink"

    def value() -> Tensor:
        product: Tensor = tested(x) * g
        return product.sum()

    derivative(tested, "that autograd gives the derivative by its input", value, x, back, draw, remedy)
    named = dict(tested.named_parameters())
    for name, parameter in named.items():
        if parameter.requires_grad:
            what = f"that autograd gives the derivative by {name}"
            derivative(tested, what, value, parameter, grads[name], draw, remedy)
    kept = x.clone(), g.clone()
    own: Any = tested
    if callable(getattr(own, "pullback", None)):
        given = own.pullback(g, x)
        if not isinstance(given, Tensor) or far(given, back):
            raise broken(
                tested, "that pullback(g, x) is the vector-Jacobian product by the input", "another than autograd's",
                "compute J(x)^T g in the shape of x, or leave pullback out",
            )  # fmt: skip
    if callable(getattr(own, "weight_grad", None)):
        given = own.weight_grad(g, x)
        if not isinstance(given, Mapping) or set(given) != set(named):
            found = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise broken(
                tested, f"that weight_grad(g, x) is a dict with the keys {sorted(named)}", str(found),
                "name the parameters as named_parameters() does",
            )  # fmt: skip
        for name in named:
            if far(given[name], grads[name]):
                raise broken(
                    tested, f"that weight_grad(g, x)[{name!r}] is the gradient of (g * forward(x)).sum()",
                    "another than autograd's", "sum over the batch, keep the parameter's shape; or leave it out",
                )  # fmt: skip
    if not (torch.equal(x, kept[0]) and torch.equal(g, kept[1])):
        raise broken(tested, "to leave g and x as they are", "that one was changed", "avoid operations in place")


def _transform_entries(tested: Transform, x: Tensor, shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    entries = tested.entries(shape, out)
    a, z = math.prod(shape), math.prod(out)
    if entries is None or a * z > 10**6:
        return
    inside = entries.dim() == 2 and entries.shape[0] == 2 and not entries.is_floating_point()
    if not inside or (entries < 0).any() or (entries[0] >= a).any() or (entries[1] >= z).any():
        raise broken(
            tested, f"entries of shape (2, n), sources below {a} and targets below {z}", str(tuple(entries.shape)),
            "return (source neuron, target neuron) in columns",
        )  # fmt: skip
    jacobian: Tensor = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        lambda t: tested(t).flatten(), x
    ).reshape(z, a)
    outside = jacobian.new_ones(z, a, dtype=torch.bool)
    outside[entries[1], entries[0]] = False
    if bool((jacobian[outside] != 0).any()):
        raise broken(
            tested, "that no neuron outside entries() depends on another", "a derivative that is not zero there",
            "list every pair of neurons that is connected, or return None",
        )  # fmt: skip


def _transform_reset(tested: Transform, shape: tuple[int, ...]) -> None:
    fan = tested.fan_in(shape)
    if not isinstance(fan, int) or fan < 0:
        raise broken(
            tested, "that fan_in is a count", repr(fan), "return how many neurons reach one target neuron, or 0"
        )
    drawn = []
    for seed in (0, 0):
        twin = copy.deepcopy(tested)
        fresh = torch.Generator().manual_seed(seed)

        def reset(twin: Transform = twin, fresh: torch.Generator = fresh) -> None:
            twin.reset_parameters(fresh, fan or None)

        try:
            unmoved(tested, "reset_parameters", reset)
        except TypeError as error:
            raise broken(
                tested, "a method reset_parameters(generator, fan_in)", f"that it cannot be called so: {error}",
                "take both arguments; a class that also derives from a torch layer must define it",
            ) from error  # fmt: skip
        drawn.append([p.detach() for p in twin.parameters()])
    if not all(torch.equal(p, q) for p, q in zip(*drawn)):
        raise broken(
            tested, "the same parameters for the same seed", "different ones", "draw from the generator that is given"
        )


def _transform_config(tested: Transform, x: Tensor) -> None:
    if type(tested) not in transforms.TRANSFORMS.values():
        return
    try:
        name, config = transforms.name_of(tested), tested.config()
        twin = transforms.from_config(name, config).to(x)
    except GraphError as error:
        raise broken(
            tested, "to be made again from its config()", str(error), "return the constructor's arguments by name"
        ) from error
    twin.load_state_dict(tested.state_dict())
    with torch.no_grad():
        if far(twin(x), tested(x)):
            raise broken(
                tested, "to be made again from its config()", "that the twin computes another result",
                "return every argument of the constructor from config()",
            )  # fmt: skip


def _edge_graph(tested: Transform, shape: tuple[int, ...], out: tuple[int, ...]) -> nx.DiGraph:
    """Declare x -> a -> [the transform] -> b -> y, with a and b free."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=2)
    graph.add_node("a", shape=shape, activation="tanh")
    graph.add_node("b", shape=out, activation="tanh")
    graph.add_node("y", shape=2)
    nx.add_path(graph, ["x", "a", "b", "y"])
    graph.edges["a", "b"].update(transform=tested, activation="sigmoid")
    return graph
