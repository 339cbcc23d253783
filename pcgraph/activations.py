"""Activation functions σ have names and pullbacks here; any other callable is admitted too.

A node's prediction is ``mu = sigma(a)``. Inference needs one more thing of σ: the pullback
``sigma'(a) * g`` of an error ``g``. For the named activations it is one fused kernel of torch; for any other
callable it is one vector-Jacobian product by autograd, so that a callable which mixes the neurons of a node
(a softmax, say) is as exact as one that does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_number, require_text, shown
from pcgraph.errors import GraphError, unknown_name

__all__ = ["ACTIVATIONS", "Activation", "get"]

_aten = torch.ops.aten
SOFTPLUS_THRESHOLD = 20.0


@dataclass(frozen=True)
class Activation:
    """An activation function comes with its pullback, fused where torch has a kernel for it.

    Parameters
    ----------
    name : str
        How the activation is printed, and saved where it is one of the named ones.
    function : callable
        ``function(a) -> mu``, shapes preserved; the first dimension of ``a`` is the batch.
    fused_forward, fused_pullback : callable or None
        ``fused_forward(a, out)`` and ``fused_pullback(g, a, mu, out)`` write into a tensor that exists, the second
        with ``mu == function(a)`` at hand. Without them the function itself and autograd are used.
    at_zero : float or None
        ``function(0)``, where it is known; None means unknown.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    fused_forward: Callable[[Tensor, Tensor], Tensor] | None = None
    fused_pullback: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    at_zero: float | None = None

    def __post_init__(self) -> None:
        require_text(self.name, "the name of an activation", refuse=GraphError)
        for key in ("function", "fused_forward", "fused_pullback"):
            value = getattr(self, key)
            if not callable(value) and not (value is None and key != "function"):
                raise GraphError(f"the {key} of an activation is callable (found {shown(value)})", found=value)
        if self.at_zero is not None:
            require_number(self.at_zero, "at_zero", refuse=GraphError)

    @property
    def is_identity(self) -> bool:
        """This is the identity, for which neither direction needs any work."""
        return self.function is _identity

    @property
    def named(self) -> bool:
        """The name alone says which function this is."""
        return ACTIVATIONS.get(self.name) is self

    @property
    def label(self) -> str:
        """Its name, with brackets where the name alone does not say which function it is."""
        return self.name if self.named else f"{self.name}()"

    def __call__(self, a: Tensor, out: Tensor | None = None) -> Tensor:
        """Return σ(a), of the shape of `a`, written into `out` if that is given."""
        if out is None:
            return self.function(a)
        if self.fused_forward is not None:
            return self.fused_forward(a, out)
        return out.copy_(self.function(a))

    def pullback(self, g: Tensor, a: Tensor, out: Tensor | None = None, mu: Tensor | None = None) -> Tensor:
        """Return the vector-Jacobian product of `g` with σ at `a`; for an elementwise σ it is ``sigma'(a) * g``.

        Parameters
        ----------
        g, a : Tensor
            Of one shape, the batch first.
        out : Tensor, optional
            Where to write the result; it may be `g` itself.
        mu : Tensor, optional
            σ(a), where it is at hand already: some activations need it.
        """
        if self.fused_pullback is not None:
            return self.fused_pullback(g, a, self(a) if mu is None else mu, torch.empty_like(a) if out is None else out)
        with torch.enable_grad():
            leaf = a.detach().requires_grad_()
            value = self.function(leaf)
            if value.requires_grad:
                (result,) = torch.autograd.grad(value, leaf, g, allow_unused=True)
                result = torch.zeros_like(a) if result is None else result
            else:
                result = torch.zeros_like(a)
        return result if out is None else out.copy_(result)

    def derivative(self, a: Tensor) -> Tensor:
        """Return σ'(a), for an elementwise σ.

        Examples
        --------
        >>> get("tanh").derivative(torch.zeros(1))
        tensor([1.])
        """
        return self.pullback(torch.ones_like(a), a)

    def __deepcopy__(self, memo: object) -> Activation:
        """Return itself, since it never changes: a copy of a named one is still that one."""
        return self

    def __reduce__(self) -> Any:
        if self.named:
            return get, (self.name,)
        return Activation, (self.name, self.function, self.fused_forward, self.fused_pullback, self.at_zero)

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"


def _identity(a: Tensor) -> Tensor:
    return a


def _named() -> dict[str, Activation]:
    functional = torch.nn.functional
    rows: list[Activation] = [
        Activation("identity", _identity, lambda a, out: out.copy_(a), lambda g, a, mu, out: out.copy_(g), 0.0),
        Activation(
            "relu", torch.relu,
            lambda a, out: _aten.relu.out(a, out=out),
            lambda g, a, mu, out: _aten.threshold_backward.grad_input(g, a, 0, grad_input=out),
            0.0,
        ),
        Activation(
            "leaky_relu", functional.leaky_relu,
            lambda a, out: _aten.leaky_relu.out(a, 0.01, out=out),
            lambda g, a, mu, out: _aten.leaky_relu_backward.grad_input(g, a, 0.01, False, grad_input=out),
            0.0,
        ),
        Activation(
            "tanh", torch.tanh,
            lambda a, out: torch.tanh(a, out=out),
            lambda g, a, mu, out: _aten.tanh_backward.grad_input(g, mu, grad_input=out),
            0.0,
        ),
        Activation(
            "sigmoid", torch.sigmoid,
            lambda a, out: torch.sigmoid(a, out=out),
            lambda g, a, mu, out: _aten.sigmoid_backward.grad_input(g, mu, grad_input=out),
            0.5,
        ),
        Activation(
            "gelu", functional.gelu,
            lambda a, out: _aten.gelu.out(a, out=out),
            lambda g, a, mu, out: _aten.gelu_backward.grad_input(g, a, grad_input=out),
            0.0,
        ),
        Activation(
            "gelu_tanh", partial(functional.gelu, approximate="tanh"),
            lambda a, out: _aten.gelu.out(a, approximate="tanh", out=out),
            lambda g, a, mu, out: _aten.gelu_backward.grad_input(g, a, approximate="tanh", grad_input=out),
            0.0,
        ),
        Activation(
            "elu", functional.elu,
            lambda a, out: _aten.elu.out(a, out=out),
            lambda g, a, mu, out: _aten.elu_backward.grad_input(g, 1, 1, 1, False, a, grad_input=out),
            0.0,
        ),
        Activation(
            "silu", functional.silu,
            lambda a, out: _aten.silu.out(a, out=out),
            lambda g, a, mu, out: _aten.silu_backward.grad_input(g, a, grad_input=out),
            0.0,
        ),
        Activation(
            "hardtanh", functional.hardtanh,
            lambda a, out: _aten.hardtanh.out(a, out=out),
            lambda g, a, mu, out: _aten.hardtanh_backward.grad_input(g, a, -1, 1, grad_input=out),
            0.0,
        ),
        Activation(
            "softplus", functional.softplus,
            lambda a, out: _aten.softplus.out(a, out=out),
            lambda g, a, mu, out: _aten.softplus_backward.grad_input(g, a, 1, SOFTPLUS_THRESHOLD, grad_input=out),
            None,
        ),
    ]  # fmt: skip
    return {row.name: row for row in rows}


#: The activations that have a name. ``"gelu"`` is the form with erf, torch's default, and ``"gelu_tanh"`` that with
#: tanh, which is JAX's.
ACTIVATIONS: dict[str, Activation] = _named()


def get(spec: str | Activation | Callable[[Tensor], Tensor] | None) -> Activation:
    """Return the activation that `spec` names or is.

    Parameters
    ----------
    spec : str, Activation, callable or None
        A name of :data:`ACTIVATIONS`; None is the identity; a callable must preserve shapes.

    Raises
    ------
    GraphError
        The name is unknown, or `spec` is neither a name nor callable.

    Examples
    --------
    >>> get("tanh")
    Activation('tanh')
    >>> get(torch.sin).name
    'sin'
    """
    if spec is None:
        return ACTIVATIONS["identity"]
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        if spec not in ACTIVATIONS:
            raise GraphError(unknown_name("activation", spec, ACTIVATIONS), found=spec)
        return ACTIVATIONS[spec]
    if isinstance(spec, torch.nn.Module) and next(spec.parameters(), None) is not None:
        raise GraphError(
            f"an activation has no parameters: nothing would train them (found {shown(spec)}); use it as a transform",
            found=spec,
        )
    if callable(spec):
        return Activation(getattr(spec, "__name__", type(spec).__name__), spec)
    raise GraphError(f"an activation is a name or a callable (found {shown(spec)})", found=spec)
