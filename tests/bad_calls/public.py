"""Every public callable with its arguments, found by looking; and those that have no row, each with the reason."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pcgraph
from pcgraph import checkpoints, data, inference, network, plan, topology, tuning

__all__ = ["EXEMPT", "METHODS", "public_arguments", "reason"]

#: The rooms whose ``__all__`` is for users; what is in ``pcgraph`` itself goes by its bare name.
ROOMS = (
    "activations", "backends", "checkpoints", "combines", "data", "drawing", "energies", "estimators", "graphs", "inference", "initializers",
    "learning", "network", "optimizers", "plan", "pyg", "scaling", "schedules", "serialization", "solvers", "topology", "training", "tuning",
    "transforms",
)  # fmt: skip
#: Methods that users call, by the class that they are of.
METHODS: dict[str, tuple[type, tuple[str, ...]]] = {
    "PCNetwork": (pcgraph.PCNetwork, (
        "infer", "predict", "plan", "curvature", "weight", "bias", "transform", "combine", "to_data", "carry_on", "run", "edge",
        "node", "parameter_groups", "load_from", "as_module", "summary")),
    "EdgeHandle": (network.EdgeHandle, ("initialize",)),
    "NodeHandle": (network.NodeHandle, ("initialize",)),
    "InferenceResult": (pcgraph.InferenceResult, ("accumulate", "backward", "peek", "group_states")),
    "Plan": (plan.Plan, ("flops", "memory", "explain", "across")),
    "Report": (topology.Report, ("verdict", "error_coordinates", "sweep", "ancestors")),
    "Checkpoint": (checkpoints.Checkpoint, ("restore",)),
    "checkpoints.Checkpoint": (checkpoints.Checkpoint, ("state",)),
    "data.Images": (data.Images, ("take", "split", "batches", "to", "one_hot")),
    "SearchResult": (tuning.SearchResult, ("write",)),
    "inference.Recorder": (inference.Recorder, ("__call__",)),
}  # fmt: skip

MADE = "the library makes these, and users read them"
BACKEND = "for whoever writes a backend, which testing.conformance.check_backend tries as a whole"
EXTENDS = "for whoever writes an initializer, which testing.conformance tries as a whole"
SKLEARN = "scikit-learn's own"
BASE = "a base class, which takes nothing itself"
RAISED = "the library raises these"
INSIDE = "for other rooms, which give what they have checked"
#: Name, or the beginning of one before a dot or star -> why there is no row.
EXEMPT: dict[str, str] = {
    **dict.fromkeys(("ClampError", "ConfigError", "Diverged", "GraphError", "InvalidInitializer", "PCGraphError"), RAISED),
    **dict.fromkeys((
        "InferenceResult(*", "Plan(*", "checkpoints.Checkpoint(*", "plan.Flow", "plan.Matmuls", "plan.SMM", "plan.Stage",
        "plan.Lowering", "learning.TrainingStep", "training.CollapseDetector", "training.EpochRecord",
        "training.Evaluation", "training.History", "training.StepRecord", "topology.Clamped", "topology.ErrorCoordinates",
        "topology.FreeCycle", "topology.FreeRoot", "topology.GraphCycle", "topology.GraphOrder", "topology.Leak",
        "topology.Neuron", "topology.NotSupplied", "topology.Nothing", "topology.PhaseReport", "topology.Repair",
        "topology.Report(*", "drawing.Svg", "topology.Sweep", "topology.SweepOrder", "topology.UnclampedRoot", "topology.Verdict",
        "network.Bucket", "network.Cut", "network.Ghosts", "network.Piece", "network.Place", "plan.Exchange", "plan.Ranks", "network.Group", "network.Segment", "network.Slot", "network.Structure",
        "network.Carried", "network.Summary", "network.EdgeHandle", "network.NodeHandle", "network.ParameterView", "serialization.Unsaveable",
        "tuning.Finalist", "tuning.Progress", "tuning.SearchResult", "tuning.Trial",
        "initializers.Relaxed", "initializers.Context", "initializers.Block",
    ), MADE),
    **dict.fromkeys((
        "backends.Backend", "backends.Motion", "backends.Program", "backends.Traits", "backends.get", "backends.traits_of",
        "backends.TorchBackend", "backends.DistributedBackend", "backends.require_by_parts", "plan.local_plan", "backends.TritonBackend", "backends.keep", "backends.keeping", "backends.switches", "plan.Request", "plan.arrivals", "plan.make_plan", "plan.verify",
    ), BACKEND),
    **dict.fromkeys((
        "initializers.Given", "initializers.Layout", "initializers.Relaxation", "initializers.Swept", "initializers.blocks",
        "initializers.require", "initializers.require_initializer",
    ), EXTENDS),
    **dict.fromkeys((
        "Initializer", "energies.Energy", "combines.Combine", "combines.Gate", "combines.Product", "transforms.Transform", "solvers.Solver",
        "energies.Bernoulli", "energies.KL", "energies.Poisson", "energies.Zero", "pyg.KnownRows", "transforms.Flatten",
        "transforms.Identity", "transforms.Linear", "Zero", "network.LoadedWhole",
    ), BASE),
    **dict.fromkeys((
        "checkpoints.FolderLock", "checkpoints.Transaction", "checkpoints.check_generators", "checkpoints.generators_state",
        "checkpoints.set_generators", "checkpoints.write", "network.every_parameter", "network.make_part", "network.places", "network.kept", "network.require_as_made", "initializers.is_ours", "network.whole_parameters", "inference.Options", "inference.Planner", "inference.read_duals", "inference.read_precision", "inference.read_request", "inference.read_trace", "inference.read_callback", "inference.InferenceStep",
        "inference.hold", "inference.require_optimizer", "inference.run", "serialization.decode", "serialization.encode", "drawing.layout",
        "PCNetwork.run", "InferenceResult.group_states",
    ), INSIDE),
    **dict.fromkeys(("pyg.from_hetero(activation", "pyg.from_hetero(precision", "pyg.from_hetero(energy"),
                    "they are node attributes, which have rows of their own"),
    **dict.fromkeys(("estimators.BaseEstimator", "estimators.check_is_fitted", "estimators.validate_data"), SKLEARN),
    "estimators.PCEstimator": "what PCClassifier and PCRegressor have in common, by their rows",
    "pyg.is_data": INSIDE,
    "network.Network(dtype": "the same as PCNetwork(dtype=), by the same call",
    "network.Network(device": "the same as PCNetwork(device=), by the same call",
    "network.HandledNetwork": "what PCNetwork is, by the same calls",
    "data.read_idx(dims": "a number that is compared with the file's",
    "graphs.from_data(attributes": "they are node attributes, which have rows of their own",
    "transforms.GraphLayer(edge_data": "they are handed on to the layer, which is tried with them",
    "inference.Recorder.__call__": "whatever the function that is recorded takes",
}  # fmt: skip


def public_arguments() -> Iterator[tuple[str, str]]:
    """Every (callable, argument), without those of methods that are not named here."""
    seen: set[int] = set()
    for prefix, module in [
        ("", pcgraph),
        *((f"{room}.", importlib.import_module(f"pcgraph.{room}")) for room in ROOMS),
    ]:
        for name in module.__all__:
            found = getattr(module, name)
            if (inspect.isclass(found) or inspect.isfunction(found)) and id(found) not in seen:
                seen.add(id(found))
                yield from ((f"{prefix}{name}", argument) for argument in arguments_of(found))
    for owner, (kind, names) in METHODS.items():
        for name in names:
            yield from (
                (f"{owner}.{name}", argument) for argument in arguments_of(getattr(kind, name)) if argument != "self"
            )


def arguments_of(function: Any) -> Iterator[str]:
    try:
        yield from inspect.signature(function).parameters
    except ValueError:  # a class of nothing but its base's own constructor
        return


def reason(name: str, argument: str) -> str | None:
    """Why an argument needs no row; None where it needs one."""
    return EXEMPT.get(name) or EXEMPT.get(f"{name}({argument}") or EXEMPT.get(f"{name}(*")
