"""AdamW whose step is one launch, for the weights of a network on a card."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from pcgraph.arguments import require_number, shown
from pcgraph.backends.triton.availability import unusable
from pcgraph.errors import ConfigError, said_by
from pcgraph.optimizers import require_betas

__all__ = ["FusedAdamW"]


class FusedAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, 2019) that moves all parameters of a group in one launch, where Triton has a card.

    It takes the steps of ``torch.optim.AdamW`` and keeps the same state under the same names, so that either loads the
    checkpoints of the other. torch's own ``fused=True`` cuts parameters into pieces of 65,536 numbers, of which a
    network of a million has too few to fill a card, and takes twice as long where gradients are zero, as those of first
    layers are after few inference steps. Where the launch cannot be (no card, no Triton, another dtype, parameters that
    are not contiguous, a gradient scaler, more than 32 of them in a recording whose gradients lie elsewhere than in the
    steps before it), torch's step is taken instead. It can be recorded: ``capturable`` is set where the parameters are
    on a card.

    Parameters
    ----------
    params : iterable
        What any optimizer of torch takes: ``net.parameters()``, or :meth:`pcgraph.PCNetwork.parameter_groups`.
    lr : float or Tensor
        The rate. A tensor on the device can be changed under a recording.
    betas : (float, float)
    eps : float
    weight_decay : float

    Raises
    ------
    ConfigError
        A number is out of its range, or `params` are none that an optimizer of torch takes.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3, 2]))
    >>> optimizer = pcgraph.training.FusedAdamW(net.parameters(), lr=1e-3)
    """

    #: Launches are kept for so many places of the gradients.
    KEPT = 8
    #: So many parameters have a launch each where there can be no table of them all.
    FEW = 32

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        rate = require_number(lr, "lr", least=0)
        rest = (
            require_betas(betas), require_number(eps, "eps", above=0),
            require_number(weight_decay, "weight_decay", least=0),
        )  # fmt: skip
        try:
            super().__init__(params, lr if isinstance(lr, Tensor) else rate, *rest, fused=True)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise ConfigError(
                f"params must be what an optimizer of torch takes, such as net.parameters() (found {shown(params)}): "
                f"{said_by(error)}",
                key="params",
            ) from error
        for p in (p for group in self.param_groups for p in group["params"]):
            if not p.is_floating_point():
                raise ConfigError(f"params must be of floating-point numbers (found one of {p.dtype})", key="params")
        on_card = all(p.is_cuda for group in self.param_groups for p in group["params"])
        self.defaults["capturable"] = on_card
        for group in self.param_groups:
            group["capturable"] = on_card

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step, and return what the closure returns, if there is one."""
        self._accelerator_graph_capture_health_check()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._move(group)
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        columns: list[list[Tensor]] = [[], [], [], [], []]
        parameters, gradients, means, squares, steps = columns
        largest: list[Tensor] = []
        has_complex = self._init_group(  # type: ignore[no-untyped-call]
            group, parameters, gradients, means, squares, largest, steps
        )
        launch = self._launch(group, columns) if parameters else None
        if launch is not None:
            torch._foreach_add_(steps, 1)
            launch(columns, group)
            return
        names = ("amsgrad", "lr", "weight_decay", "eps", "maximize", "foreach", "capturable", "differentiable", "fused")
        adam(
            parameters, gradients, means, squares, largest, steps, has_complex=has_complex, beta1=group["betas"][0],
            beta2=group["betas"][1], grad_scale=getattr(self, "grad_scale", None), decoupled_weight_decay=True,
            found_inf=getattr(self, "found_inf", None), **{name: group[name] for name in names},
        )  # fmt: skip

    def _launch(self, group: dict[str, Any], columns: list[list[Tensor]]) -> Callable[..., None] | None:
        """Return the launch for what lies so, or None where there can be none."""
        first, *rest = (t for column in columns[:4] for t in column)
        other = any(group[name] for name in ("amsgrad", "maximize", "differentiable"))
        exact = first.dtype == torch.float32 or (first.dtype == torch.float64 and not first.is_cuda)
        if other or not exact or unusable(first.device, first.dtype, asked=True) is not None:
            return None
        if getattr(self, "grad_scale", None) is not None or getattr(self, "found_inf", None) is not None:
            return None
        if isinstance(group["lr"], Tensor) and group["lr"].device != first.device:
            return None
        alike = all(t.device == first.device and t.dtype == first.dtype and t.is_contiguous() for t in (first, *rest))
        if not alike or any(step.device != first.device for step in columns[4]):
            return None
        kept: dict[Any, Any] = self.__dict__.setdefault("_launches", {})
        sizes = tuple(t.numel() for t in columns[0])
        key = (first.device, sizes, *(t.data_ptr() - column[0].data_ptr() for column in columns for t in column))
        recording = _recording(first)
        if key not in kept:
            from pcgraph.backends.triton.adamw import AdamWStep, one_by_one

            if recording:  # a table could not be brought to the card now
                return one_by_one if len(sizes) <= self.FEW else None
            while len(kept) >= self.KEPT:
                del kept[next(iter(kept))]
            kept[key] = AdamWStep(columns)
        launch: Callable[..., None] = kept[key]
        if recording:  # which reads the table for as long as it lasts
            self.__dict__.setdefault("_recorded", []).append(launch)
        return launch


def _recording(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
