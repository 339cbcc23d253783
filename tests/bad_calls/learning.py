"""Learning rules, solvers, and the rates and coordinates of inference."""

from __future__ import annotations

from typing import Any

import torch

import pcgraph
from pcgraph import learning
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer
from tests.bad_calls.calls import BATCH, LABELS, X, Y, fitted, infer, net
from tests.bad_calls.kinds import NO_OBJECT, NONE, Argument
from tests.bad_calls.running import (
    DUALS,
    NO_CLAMPS,
    NO_COORDINATES,
    NO_DUALS,
    NO_LABELS,
    NO_MOVER,
    NO_PRECISION,
    PRECISIONS,
    inits,
)

SGD = pcgraph.SGD(lr=0.1)


def stepped(clamps: Any = BATCH, network: Any = None, **changed: Any) -> Any:
    """incremental; whatever is refused has moved no weight."""
    own = net() if network is None else network
    if "weights" not in changed:
        changed["weights"] = torch.optim.SGD((own if isinstance(own, torch.nn.Module) else net()).parameters(), lr=0.1)
    before = [p.detach().clone() for p in own.parameters()] if isinstance(own, torch.nn.Module) else []
    try:
        return learning.incremental(own, clamps, **{"init": pcgraph.Forward(), "steps": 2, "optimizer": SGD, **changed})
    except BaseException:
        if not all(map(torch.equal, before, own.parameters() if before else [])):
            raise RuntimeError("it has moved before it refused") from None
        raise


def pulled(clamps: Any = None, targets: Any = None, network: Any = None, **changed: Any) -> Any:
    chosen = {"steps": 2, "optimizer": SGD, **changed}
    return learning.nudged(
        net() if network is None else network, {"x": X} if clamps is None else clamps,
        {"y": Y} if targets is None else targets, **chosen,
    )  # fmt: skip


def straight(inputs: Any = None, targets: Any = None, network: Any = None, **changed: Any) -> Any:
    own = net() if network is None else network
    return learning.backprop(
        own, {"x": X} if inputs is None else inputs, {"y": Y} if targets is None else targets, **changed
    )


def fixed(inputs: Any = None, targets: Any = None, network: Any = None, **changed: Any) -> Any:
    own = net() if network is None else network
    return learning.fixed_predictions(
        own, {"x": X} if inputs is None else inputs, {"y": Y} if targets is None else targets,
        **{"steps": 2, "optimizer": SGD, **changed},
    )  # fmt: skip


def in_time(inputs: Any = None, targets: Any = None, network: Any = None, **changed: Any) -> Any:
    own = net() if network is None else network
    return learning.zero_divergence(
        own, {"x": X} if inputs is None else inputs, {"y": Y} if targets is None else targets, **changed
    )


def forward(network: Any = None, clamps: Any = None, result: Any = None) -> Any:
    own = net()
    kw: dict[str, Any] = {"init": pcgraph.Forward(), "steps": 1, "optimizer": SGD}
    found = own.infer({"x": X, "y": Y}, **kw) if result is None else result
    return learning.forward_update(
        own if network is None else network, {"x": X, "y": Y} if clamps is None else clamps, found
    )


NO_NET = {
    "graph": pcgraph.graphs.chain([4, 3]), "text": "net", "module": torch.nn.Linear(2, 2), "class": pcgraph.PCNetwork,
    "number": 3,
}  # fmt: skip
STEPPING = dict(NO_MOVER.items())
RULES = [
    Argument("learning.incremental(net=)", lambda v: stepped(network=v), "anything", bad=NO_NET),
    Argument("learning.incremental(clamps=)", stepped, "anything", ClampError, bad={**NO_CLAMPS, **NONE},
             good={"arrays": {"x": X.numpy(), "y": Y.numpy()}}),
    inits("learning.incremental(init=)", lambda v: stepped(init=v)),
    Argument("learning.incremental(steps=)", lambda v: stepped(steps=v), "positive count"),
    Argument("learning.incremental(optimizer=)", lambda v: stepped(optimizer=v), "anything",
             bad={**STEPPING, **NONE, "solver": pcgraph.LBFGS()}, good={"sgd": SGD, "adam": pcgraph.Adam()}),
    Argument("learning.incremental(weights=)", lambda v: stepped(weights=v), "anything",
             bad={**NO_OBJECT, **NONE, "class": torch.optim.SGD, "ours": SGD}),
    Argument("learning.incremental(labels=)", lambda v: stepped(labels=v), "anything", bad=NO_LABELS, good={"int64": LABELS}),
    Argument("learning.incremental(check=)", lambda v: stepped(check=v), "flag"),
    Argument("learning.nudged(net=)", lambda v: pulled(network=v), "anything", bad=NO_NET),
    Argument("learning.nudged(clamps=)", pulled, "anything", (ClampError, InvalidInitializer),
             bad={**NO_CLAMPS, "both": BATCH, "other batch": {"x": X[:5]}}, good={"arrays": {"x": X.numpy()}}),
    Argument("learning.nudged(targets=)", lambda v: pulled(targets=v), "anything", ClampError,
             bad={**NO_CLAMPS, "masked": {"y": pcgraph.Masked(Y, Y > 0)}, "few": {"y": Y[:5]}}, good={"arrays": {"y": Y.numpy()}}),
    Argument("learning.nudged(strength=)", lambda v: pulled(strength=v), "positive number"),
    Argument("learning.nudged(sign=)", lambda v: pulled(sign=v), "choice", good={"positive": "positive"}),
    inits("learning.nudged(init=)", lambda v: pulled(init=v), bad={}, good=NONE),
    Argument("learning.nudged(steps=)", lambda v: pulled(steps=v), "count"),
    Argument("learning.nudged(optimizer=)", lambda v: pulled(optimizer=v), "anything", bad={**NO_MOVER, **NONE},
             good={"sgd": SGD, "lbfgs": pcgraph.LBFGS()}),
    Argument("learning.nudged(labels=)", lambda v: pulled(labels=v), "anything", bad=NO_LABELS, good={"int64": LABELS}),
    Argument("learning.nudged(check=)", lambda v: pulled(check=v), "flag"),
    Argument("learning.backprop(net=)", lambda v: straight(network=v), "anything", bad=NO_NET),
    Argument("learning.backprop(inputs=)", straight, "anything", (ClampError, InvalidInitializer),
             bad={**NO_CLAMPS, "masked": {"x": pcgraph.Masked(X, X > 0)}, "few": {"x": X[:5]}}, good={"arrays": {"x": X.numpy()}}),
    Argument("learning.backprop(targets=)", lambda v: straight(targets=v), "anything", ClampError,
             bad={**NO_CLAMPS, "masked": {"y": pcgraph.Masked(Y, Y > 0)}, "few": {"y": Y[:5]}, "an input": {"x": X}},
             good={"arrays": {"y": Y.numpy()}}),
    Argument("learning.backprop(check=)", lambda v: straight(check=v), "flag"),
    Argument("learning.Nudged(strength=)", lambda v: learning.Nudged(strength=v), "positive number"),
    Argument("learning.Nudged(sign=)", lambda v: learning.Nudged(sign=v), "choice", good={"negative": "negative"}),
    Argument("fit(coordinates=)", lambda v: fitted(coordinates=v), "anything",
             (ConfigError, GraphError, InvalidInitializer, ClampError), bad=NO_COORDINATES,
             good={"errors": pcgraph.Errors(), "none": None}),
    *(row for name, call in (("fixed_predictions", fixed), ("zero_divergence", in_time)) for row in (
        Argument(f"learning.{name}(net=)", lambda v, call=call: call(network=v), "anything", bad=NO_NET),
        Argument(f"learning.{name}(inputs=)", call, "anything", (ClampError, InvalidInitializer),
                 bad={**NO_CLAMPS, "masked": {"x": pcgraph.Masked(X, X > 0)}, "few": {"x": X[:5]}},
                 good={"arrays": {"x": X.numpy()}}),
        Argument(f"learning.{name}(targets=)", lambda v, call=call: call(targets=v), "anything", ClampError,
                 bad={**NO_CLAMPS, "masked": {"y": pcgraph.Masked(Y, Y > 0)}, "few": {"y": Y[:5]}, "an input": {"x": X}},
                 good={"arrays": {"y": Y.numpy()}}),
        Argument(f"learning.{name}(check=)", lambda v, call=call: call(check=v), "flag"),
    )),
    Argument("learning.forward_update(net=)", lambda v: forward(network=v), "anything", bad=NO_NET),
    Argument("learning.forward_update(clamps=)", lambda v: forward(clamps=v), "anything", (ClampError, InvalidInitializer),
             bad={"number": 3, "unknown": {"z": X}, "text": "x"}),
    Argument("learning.forward_update(result=)", lambda v: forward(result=v), "anything",
             bad={"number": 3, "text": "result", "class": pcgraph.InferenceResult, "network": net()}),
    Argument("learning.fixed_predictions(steps=)", lambda v: fixed(steps=v), "count"),
    Argument("learning.fixed_predictions(optimizer=)", lambda v: fixed(optimizer=v), "anything",
             bad={**NO_MOVER, **NONE, "solver": pcgraph.LBFGS(), "following": pcgraph.SGD(pcgraph.Following(0.1))},
             good={"sgd": SGD, "adam": pcgraph.Adam()}),
    Argument("fit(duals=)", lambda v: fitted(duals=v), "anything", bad=NO_DUALS, good=DUALS),
    Argument("fit(precision=)", lambda v: fitted(precision=v), "anything", bad=NO_PRECISION, good=PRECISIONS),
    Argument("fit(tolerance=)", lambda v: fitted(tolerance=v), "positive number", takes=("none",), good=NONE),
    Argument("fit(capture=)", lambda v: fitted(capture=v), "flag", bad={"on a CPU": True, "other": "always"},
             only_good=("false", "auto"), good={"auto": "auto"}),
]  # fmt: skip

NO_KEEP = {
    "text": "h1",
    "number": 3,
    "none": None,
    "bool": True,
    "unhashable": [["h1"]],
    "object": object(),
    "function": len,
}
MOVING = [
    *(Argument(f"LBFGS({key}=)", lambda v, key=key: pcgraph.LBFGS(**{key: v}), kind, bad=more)
      for key, kind, more in (("history", "positive count", {}), ("lr", "positive number", {}), ("halvings", "positive count", {}))),
    Argument("LBFGS(decrease=)", lambda v: pcgraph.LBFGS(decrease=v), "positive number", bad={"one": 1.0},
             only_good=("float", "float32")),
    Argument("Anderson(lr=)", lambda v: pcgraph.Anderson(lr=v), "positive number"),
    Argument("Anderson(history=)", lambda v: pcgraph.Anderson(history=v), "positive count"),
    Argument("Anderson(damping=)", lambda v: pcgraph.Anderson(damping=v), "positive number", bad={"two": 2},
             only_good=("float", "float32")),
    Argument("Anderson(ridge=)", lambda v: pcgraph.Anderson(ridge=v), "positive number"),
    Argument("Momentum(lr=)", lambda v: pcgraph.Momentum(lr=v), "positive number"),
    Argument("Momentum(momentum=)", lambda v: pcgraph.Momentum(lr=0.1, momentum=v), "part"),
    Argument("Following(at_most=)", pcgraph.Following, "positive number"),
    Argument("Following(cap=)", lambda v: pcgraph.Following(0.1, v), "positive number", bad={"two": 2},
             only_good=("float", "float32")),
    Argument("Following(every=)", lambda v: pcgraph.Following(0.1, every=v), "positive count"),
    Argument("Following(iterations=)", lambda v: pcgraph.Following(0.1, iterations=v), "positive count"),
    Argument("Following(samples=)", lambda v: pcgraph.Following(0.1, samples=v), "positive count"),
    Argument("Langevin(lr=)", pcgraph.Langevin, "positive number"),
    Argument("Langevin(temperature=)", lambda v: pcgraph.Langevin(0.1, v), "number from 0"),
    Argument("Langevin(generator=)", lambda v: pcgraph.Langevin(0.1, generator=v), "anything", bad=NO_OBJECT,
             good={"one": torch.Generator(), "none": None}),
    Argument("Duals(rate=)", pcgraph.Duals, "positive number"),
    Argument("Duals(stop=)", lambda v: pcgraph.Duals(0.1, v), "positive number", takes=("none",), good=NONE),
    Argument("Errors(keep=)", pcgraph.Errors, "anything", bad=NO_KEEP,
             good={"repair": "repair", "list": ["h1"], "empty": ()}),
    Argument("Equilibrium(release=)", lambda v: pcgraph.Equilibrium(v), "anything", bad={k: v for k, v in NO_KEEP.items() if k != "text"},
             good={"name": "y", "list": ["y"], "empty": ()}),
    Argument("Equilibrium(release=) in infer", lambda v: infer(init=pcgraph.Equilibrium(v)), "anything", InvalidInitializer,
             bad={"unknown": "yy", "number": [7]}, good={"name": "y"}),
    Argument("Equilibrium(steps=)", lambda v: pcgraph.Equilibrium("y", v), "positive count"),
    Argument("Equilibrium(optimizer=)", lambda v: pcgraph.Equilibrium("y", optimizer=v), "anything",
             bad={**NO_OBJECT, "class": pcgraph.SGD, "torch's": torch.optim.SGD([torch.ones(1)])}, good={"sgd": SGD, "none": None}),
    Argument("Equilibrium(tolerance=)", lambda v: pcgraph.Equilibrium("y", tolerance=v), "positive number"),
    Argument("optimizers.StateOptimizer(lr=)", pcgraph.optimizers.StateOptimizer, "positive number"),
]  # fmt: skip
