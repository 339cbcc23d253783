"""The weights are moved: gradients of several batches are averaged and clipped, and an average of the weights follows.

With ``accumulate=k`` the gradients of k batches become one update. Each batch counts as often as it has samples, so
that the update is that of one batch which holds all of them: ``Σ nᵢ gᵢ / Σ nᵢ``, nᵢ the samples and gᵢ the mean
gradient of batch i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pcgraph.arguments import require_count, require_instance, require_number, shown
from pcgraph.errors import ConfigError
from pcgraph.learning import Incremental, Rule
from pcgraph.model import PCNetwork
from pcgraph.processes import Group

__all__ = ["HeldGradients", "Updates", "read_accumulate", "read_autocast", "read_clip", "read_ema"]

HALVES = (torch.bfloat16, torch.float16)


class Updates:
    """Moves the weights by gradients that are gathered over `accumulate` batches.

    Parameters
    ----------
    net : PCNetwork
    optimizer : torch.optim.Optimizer
    trained : sequence of Parameter
        All parameters whose gradients a batch leaves.
    accumulate : int
    clip : float or None
        The largest norm of all gradients together.
    ema : AveragedModel or None
        Follows the network after each update.
    """

    def __init__(
        self, net: PCNetwork, optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], *, accumulate: int,
        clip: float | None, ema: AveragedModel | None,
    ) -> None:  # fmt: skip
        self.net, self.optimizer, self.trained = net, optimizer, trained
        self.accumulate, self.clip, self.ema = accumulate, clip, ema
        self._held: list[Tensor | None] = [None] * len(trained)
        self.batches = self.samples = 0

    def take(self, samples: int) -> bool:
        """Take the mean gradients of a batch; returns whether an update is due, which they are then ready for."""
        if self.accumulate == 1:
            return True
        self.batches, self.samples = self.batches + 1, self.samples + samples
        for i, parameter in enumerate(self.trained):
            if parameter.grad is not None:
                part, held = parameter.grad * samples, self._held[i]
                self._held[i] = part if held is None else held + part
        return self.batches >= self.accumulate and self.gather()

    def gather(self) -> bool:
        """Put the mean gradients of what is held into ``.grad``; returns whether anything was."""
        if not self.batches:
            return False
        for parameter, held in zip(self.trained, self._held):
            parameter.grad = None if held is None else held / self.samples
        self._held, self.batches, self.samples = [None] * len(self.trained), 0, 0
        return True

    def shorten(self) -> None:
        """Shorten all gradients together to the norm `clip`, if they are longer."""
        if self.clip is not None:
            held = [p for group in self.optimizer.param_groups for p in group["params"]]
            if self.net.group is None:
                torch.nn.utils.clip_grad_norm_(held, self.clip)
            else:
                torch.nn.utils.clip_grads_with_norm_(held, self.clip, self._norm(held, self.net.group))

    def _norm(self, held: Sequence[Tensor], group: Group) -> Tensor:
        """Compute the norm of all gradients of a network over ranks, of which each has those of its part."""
        own = {id(p) for p in self.net.parameters()}
        counted = [p.grad for p in held if p.grad is not None and (id(p) in own or group.leads)]
        square = torch.nn.utils.get_total_norm(counted).to(self.net.device, torch.float64).square()
        return group.sum(square).sqrt()

    def step(self) -> None:
        """Step the optimizer, and let the average follow."""
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.net)

    def state_dict(self) -> dict[str, Any]:
        """Give what is held between two updates, and the average."""
        average = {} if self.ema is None else {"ema": dict(self.ema.state_dict())}
        return {"held": list(self._held), "batches": self.batches, "samples": self.samples, **average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises
        ------
        ConfigError
            The run kept an average of the weights and this one does not, or the other way round.
        KeyError, TypeError, ValueError, RuntimeError
            It is malformed.
        """
        if ("ema" in state) != (self.ema is not None):
            raise ConfigError(
                "the run was begun " + ("without" if self.ema is not None else "with") + " ema=: give it as it was",
                key="ema",
            )
        held = [None] * len(self.trained) if state["held"] is None else list(state["held"])
        shapes = [None if part is None else tuple(part.shape) for part in held]
        if len(held) != len(self.trained) or any(
            shape is not None and shape != tuple(p.shape) for shape, p in zip(shapes, self.trained)
        ):
            raise ValueError("the gradients that are held are of other parameters")
        batches, samples = require_count(state["batches"], "batches"), require_count(state["samples"], "samples")
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self._held = [None if part is None else part.to(p) for part, p in zip(held, self.trained)]
        self.batches, self.samples = batches, samples


class HeldGradients:
    """What is held between two updates looks to a checkpoint as an optimizer's state does, parameter by parameter.

    Parameters
    ----------
    updates : Updates
    """

    def __init__(self, updates: Updates) -> None:
        self.updates = updates

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Give the parameters."""
        return [{"params": list(self.updates.trained)}]

    def state_dict(self) -> dict[str, Any]:
        """Give the gradient that is held of each parameter."""
        held = {i: {"gradient": part} for i, part in enumerate(self.updates._held) if part is not None}
        return {"state": held, "param_groups": [{"params": list(range(len(self.updates.trained)))}]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what :meth:`state_dict` gave."""
        kept = state["state"]
        self.updates._held = [
            kept[i]["gradient"].to(p) if i in kept else None for i, p in enumerate(self.updates.trained)
        ]


# -- the arguments ----------------------------------------------------------------------------------------------------


def read_clip(clip: Any) -> float | None:
    """Read the largest norm of the gradients; None leaves them as they are."""
    return None if clip is None else require_number(clip, "clip", above=0)


def read_accumulate(accumulate: Any, rule: Rule) -> int:
    """Read how many batches make an update."""
    count = require_count(accumulate, "accumulate", least=1)
    if count > 1 and isinstance(rule, Incremental):
        raise ConfigError(
            "Incremental moves the weights after every inference step, so that no gradients are left to accumulate: "
            "take accumulate=1, or another rule",
            key="accumulate",
        )
    return count


def read_ema(net: PCNetwork, ema: Any) -> AveragedModel | None:
    """Read the average of the weights: one that was made of this network."""
    if ema is None:
        return None
    require_instance(
        ema, "ema", AveragedModel, "torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.999))"
    )
    found: AveragedModel = ema
    if not isinstance(found.module, PCNetwork) or _names(found.module) != _names(net):
        raise ConfigError(
            "ema= averages the weights of another network: make it of this one, AveragedModel(net, ...)", key="ema"
        )
    own = {id(p) for p in net.parameters()}
    if any(id(p) in own for p in found.module.parameters()):
        raise ConfigError("ema= shares its weights with the network: AveragedModel(net) makes a copy", key="ema")
    return found


def _names(net: PCNetwork) -> dict[str, Any]:
    return {name: (tuple(p.shape), p.dtype, p.device) for name, p in net.named_parameters()}


def read_autocast(net: PCNetwork, dtype: Any) -> torch.dtype | None:
    """Read the precision of products; None leaves it to torch's own switches."""
    if dtype is None:
        return None
    if not any(dtype is half for half in HALVES):
        raise ConfigError(
            f"autocast= is torch.bfloat16 or torch.float16, the precision of products (found {shown(dtype)})",
            key="autocast",
        )
    if net.dtype != torch.float32:
        raise ConfigError(
            f"autocast= keeps weights and states in float32 and takes products in half precision (found a network in "
            f"{net.dtype}): use net.float(), or leave it out",
            key="autocast",
        )
    found: torch.dtype = dtype
    return found
