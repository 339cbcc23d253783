"""The ranks of a run agree before it begins, and average their gradients in every step."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.errors import ConfigError
from pcgraph.initializers import Initializer
from pcgraph.model import PCNetwork
from pcgraph.network import Network, ParameterView
from pcgraph.optimizers import Langevin
from pcgraph.processes import Group, Part
from pcgraph.training.fit_arguments import rule_name, rule_settings
from pcgraph.training.loader_position import length_of
from pcgraph.training.options import FitOptions
from pcgraph.training.state import TrainingState

__all__ = ["Averaging", "facts", "held_facts", "level"]

#: Where an object lies, which says nothing in another process.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


#: Relative to the largest number of a tensor, so much may rounding make of it in an epoch.
ROUNDING = 1e-3


# -- gradients --------------------------------------------------------------------------------------------------------


class Averaging:
    """Averages gradients over the samples of all ranks; those that are complete travel while others are computed.

    They travel together, so many bytes at a time: every message costs the same again, however short it is.

    Parameters
    ----------
    group : Group
    parameters : sequence of Parameter
        Those that learn, in the same order on all ranks.
    """

    #: That of torch's DistributedDataParallel.
    BYTES = 25 * 2**20

    def __init__(self, group: Group, parameters: Sequence[nn.Parameter]) -> None:
        self.group, self.parameters = group, parameters
        self._part: Part | None = None
        self._taken: set[nn.Parameter] = set()
        self._waiting: list[Tensor] = []
        self._sent: list[tuple[list[Tensor], Tensor, Any]] = []
        self._done = False

    def begin(self, part: Part | None) -> None:
        """Begin anew, with gradients that are means over this part of a batch."""
        self._part, self._done = part, False
        self._taken, self._waiting, self._sent = set(), [], []

    def ready(self, parameter: nn.Parameter) -> None:
        """Take a gradient that is complete, and begin to send it as soon as there is enough to send."""
        gradient = parameter.grad
        if self._part is None or gradient is None or parameter in self._taken:
            return
        # What does not count may be anything, infinite too.
        gradient.mul_(self._part.weight) if self._part.count else gradient.zero_()
        self._taken.add(parameter)
        if self._waiting and self._waiting[0].dtype != gradient.dtype:
            self._send()
        self._waiting.append(gradient)
        if sum(g.numel() for g in self._waiting) * gradient.element_size() >= self.BYTES:
            self._send()

    def _send(self) -> None:
        """Begin to send what waits, in one tensor."""
        gradients, self._waiting = self._waiting, []
        if gradients:
            together = gradients[0] if len(gradients) == 1 else torch.cat([g.reshape(-1) for g in gradients])
            self._sent.append((gradients, together, self.group.begin_sum(together)))

    def finish(self) -> None:
        """Average what is not yet averaged, and wait for all of it; a second call does nothing."""
        if self._done or self._part is None:
            return
        for parameter in self.parameters:
            self.ready(parameter)
        self._send()
        for gradients, together, work in self._sent:
            self.group.wait(work)
            if len(gradients) > 1:
                for gradient, sums in zip(gradients, torch.split(together, [g.numel() for g in gradients])):
                    gradient.copy_(sums.view_as(gradient))
        self._taken, self._sent, self._done = set(), [], True


# -- what the ranks have to agree on ----------------------------------------------------------------------------------


def facts(net: PCNetwork, loader: Iterable[Any], options: FitOptions, state: TrainingState) -> dict[str, str]:
    """Describe a run so that two ranks are told apart where they would not learn the same; for :meth:`Group.agree`."""
    o = options
    held = {id(p): name for name, p in net.named_parameters()}
    groups = [{k: v for k, v in group.items() if not k.startswith("param")} for group in o.optimizer.param_groups]
    for described_group, group in zip(groups, o.optimizer.param_groups):
        if net.group is None:  # of a network that is cut, each rank holds its own
            described_group["params"] = [
                p.label if isinstance(p, ParameterView) else held.get(id(p), tuple(p.shape)) for p in group["params"]
            ]
    described: dict[str, Any] = {
        "graph": _graph(net), "dtype": net.dtype,
        "loader's length": length_of(loader), "step to go on from": state.step,
        "init": o.init, "steps": o.steps, "rule": (rule_name(o.rule), rule_settings(o.rule)),
        "state_optimizer": _settings(o.state_optimizer), "axes of inference": o.descent.settings,
        "optimizer": (type(o.optimizer).__name__, groups),
        "epochs": o.epochs, "target": o.layout, "schedulers": o.schedulers, "scheduler_each": o.scheduler_each,
        "early_stopping": o.early_stopping, "metric": o.metric, "measure_every": o.measure_every,
        "curvature_every": o.curvature_every, "check": o.check, "checkpoint": o.checkpoint,
        "clip": o.clip, "accumulate": o.accumulate, "ema": None if o.ema is None else "given", "autocast": o.autocast,
        "checkpoint_every": o.checkpoint_every, "resume": o.resume, "validate": type(o.validate).__name__,
        "number of callbacks": len(o.callbacks),
    }  # fmt: skip
    if isinstance(o.state_optimizer, Langevin):
        generator = o.state_optimizer.generator
        drawn = torch.get_rng_state() if generator is None else generator.get_state()
        described["seed (torch.manual_seed, or the generator of Langevin)"] = _digest({"state": drawn})
    return {name: value if name == "graph" else ADDRESS.sub("", _text(value)) for name, value in described.items()}


def held_facts(net: PCNetwork, options: FitOptions) -> dict[str, str]:
    """Describe what a rank holds, which is the same on all that hold the same nodes."""
    o = options
    held = {id(p): name for name, p in net.named_parameters()}
    moved = [[held.get(id(p), tuple(p.shape)) for p in group["params"]] for group in o.optimizer.param_groups]
    return {
        "parameters (and their names)": _text(list(held.values())), "parameters of the optimizer": _text(moved),
        "seed (the weights)": _digest(net.state_dict()),
        "what the initializer remembers": _digest({} if o.init is None else o.init.state_dict()),
    }  # fmt: skip


def _graph(net: Network) -> str:
    """Write all nodes and edges down in the order in which their parameters lie."""
    s = net.structure
    nodes = [f"{name!r}: {_attributes(net.graph.nodes[name])}" for name in s.declared]
    edges = [f"{u!r} -> {v!r}: {_attributes(a)}" for u, v, a in net.graph.edges(data=True)]
    return f"{net.graph.number_of_nodes()} nodes, {net.graph.number_of_edges()} edges; " + "; ".join(
        [*nodes, *sorted(edges)]
    )


def _attributes(attributes: Mapping[Hashable, Any]) -> str:
    return ADDRESS.sub("", ", ".join(f"{key}={value!r}" for key, value in sorted(attributes.items(), key=str)))


def _settings(value: Any) -> Any:
    """Give the settings of an object whose ``repr`` may not tell all of them."""
    plain = {key: each for key, each in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    return (type(value).__name__, plain)


def _text(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return (
            f"{type(value).__name__}({', '.join(f'{f.name}={_text(getattr(value, f.name))}' for f in fields(value))})"
        )
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_text, value)) + ")"
    return value if isinstance(value, str) else repr(value)


def _digest(state: Mapping[str, Any]) -> str:
    """Condense tensors by name to a short text that differs where a bit of them does."""
    found = hashlib.blake2b(digest_size=8)
    for name, value in state.items():
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def level(net: PCNetwork, init: Initializer | None, group: Group | None) -> None:
    """Bring all ranks to the tensors of the first that holds the same, from which rounding may have led them away.

    Parameters
    ----------
    net : PCNetwork
    init : Initializer or None
    group : Group or None
        The ranks that share batches, who hold all the same. Those that hold a network together all have what the
        initializer learns.

    Raises
    ------
    ConfigError
        A rank has gone another way.
    """
    if group is not None:
        modules: list[nn.Module] = [net, *([] if init is None else [init])]
        _level([(n, t) for each in modules for n, t in (*each.named_parameters(), *each.named_buffers())], group)
    learned = [] if init is None else list(init.named_parameters())
    if net.group is not None and learned:
        _level(learned, net.group)


def _level(named: Sequence[tuple[str, Tensor]], group: Group) -> None:
    apart = torch.zeros(len(named), dtype=torch.bool, device="cpu")
    for i, (_, tensor) in enumerate(named):
        first = group.broadcast(tensor.detach().clone())
        limit = ROUNDING * (float(first.abs().max()) if first.numel() and first.is_floating_point() else 0.0)
        same = torch.equal(first, tensor) or (limit > 0 and bool(((first - tensor).abs() <= limit).all()))
        apart[i] = not same
        tensor.copy_(first)
    found = group.gather_numbers(apart.double().tolist()).nonzero().tolist()
    if found:
        rank, where = found[0]
        raise ConfigError(
            f"all ranks learn the same (found another {named[where][0]} on rank {rank} than on rank 0 at the end of an "
            "epoch): what callbacks, hooks and a rule of your own do has to be the same on all of them, and "
            "step.average() comes before a rule looks at gradients",
            key="group",
        )
