"""A sweep as a plain module: the same numbers, differentiable, mapped, traced, exported, compiled; and the summary."""

from __future__ import annotations

import copy
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph import SGD, ClampError, Forward, InvalidInitializer, PCNetwork
from pcgraph.errors import ConfigError
from pcgraph.testing import reference
from tests.builders import chain, double


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What torch's exporters say of themselves is no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def everything() -> PCNetwork:
    """A graph with all kinds of edges: parallel, skipping, sparse, modules, shared, scaled, a slot and a prior."""
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_node("c", shape=(2, 4, 4), activation="relu")
    graph.add_node("z", shape=3, prior=0.5)
    for v in ("a", "b"):
        graph.add_node(v, shape=6, activation="gelu", bias=v == "a")
    graph.add_node("y", shape=6, activation="tanh", slots={"down": {}})
    graph.add_edge("x", "c", transform=nn.Conv2d(1, 2, 3, padding=1))
    graph.add_edge("c", "a", activation="tanh", scale=0.5)
    graph.add_edge("z", "a")
    graph.add_edge("a", "b", transform=pcgraph.transforms.SparseLinear(density=0.4))
    graph.add_edge("a", "y", share="w")
    graph.add_edge("b", "y", share="w")
    graph.add_edge("b", "y", transform="identity")
    graph.add_edge("b", "y", slot="down")
    return PCNetwork(graph, seed=0, dtype=torch.float64)


def test_it_computes_what_the_reference_and_predict_do() -> None:
    """An exported model that differs from the network would be found out by nobody."""
    net = everything()
    x = double(5, 1, 4, 4)
    order = ["c", "a", "b", "y"]
    states = {v: torch.zeros(5, *net.structure.shape(v), dtype=torch.float64) for v in net.graph}
    states |= {"x": x, "z": states["z"] + 0.5}
    expected = reference.sweep(net, states, order)
    found = net.as_module("x", order)(x)
    assert list(found) == order
    for v in order:
        torch.testing.assert_close(found[v], expected[v], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[v], net.predict({"x": x}, v), rtol=1e-12, atol=1e-12)
    single = net.as_module(("x",), "z")(x)
    torch.testing.assert_close(single, states["z"])


def test_several_inputs_cut_the_graph() -> None:
    net = everything()
    module = net.as_module(["a", "x"], "y")
    assert module.order == ("b", "y")
    a, x = double(5, 6), double(5, 1, 4, 4)
    torch.testing.assert_close(module(a, x), net.predict({"a": a, "x": x}, "y"), rtol=1e-12, atol=1e-12)


def test_it_is_differentiable_in_its_input_and_in_the_networks_own_parameters() -> None:
    """Saliency and adversarial examples need the first; the second equals backpropagation."""
    net = everything()
    module = net.as_module(["x", "z"], "y")
    x, z = double(2, 1, 4, 4).requires_grad_(), double(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(module, (x, z))
    target = double(2, 6, seed=1)
    (0.5 * (module(x, z) - target).square().flatten(1).sum(1)).mean().backward()
    found = {name: p.grad for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = None
    pcgraph.learning.backprop(net, {"x": x.detach(), "z": z.detach()}, {"y": target})
    own = {id(p) for p in module.parameters()}
    assert own <= {id(p) for p in net.parameters()}
    for name, p in net.named_parameters():
        expected = torch.zeros_like(p) if found[name] is None else found[name]
        torch.testing.assert_close(p.grad, expected, rtol=1e-10, atol=1e-12)


def test_it_learns_as_the_network_does_and_a_copy_stands_alone() -> None:
    net = chain(4, 3, 2, dtype=torch.float64)
    module = net.as_module("x", "y")
    twin, x = copy.deepcopy(module), double(5, 4)
    before = module(x)
    net.weight("x", "h1").mul_(2)
    assert not torch.equal(module(x), before)
    assert torch.equal(module(x), net.predict({"x": x}, "y"))
    assert torch.equal(twin(x), before)


def test_a_copy_of_the_module_alone_keeps_the_networks_parameters() -> None:
    """It counted as one that stands apart, and could be converted without the network."""
    module = chain(4, 3, 2, dtype=torch.float64).as_module("x", "y")
    twin, x = copy.copy(module), double(5, 4)
    assert list(map(id, twin.parameters())) == list(map(id, module.parameters()))
    assert torch.equal(twin(x), module(x))
    with pytest.raises(ConfigError, match="the network's own"):
        twin.float()
    alone = copy.copy(copy.deepcopy(module))
    assert alone.float()(x.float()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16])
def test_a_tensor_of_another_dtype_or_device_is_refused_by_name(dtype: torch.dtype) -> None:
    """Torch's own error names two matrices that nobody has given."""
    module = everything().as_module("x", "y")
    with pytest.raises(ClampError, match=r"'x' needs a tensor of torch.float64 on cpu.*found torch"):
        module(double(5, 1, 4, 4).to(dtype))
    with pytest.raises(ClampError, match=r"'x' needs .* on cpu.*on meta"):
        module(double(5, 1, 4, 4).to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert chain(4, 3, 2).as_module("x", "y")(torch.ones(5, 4, dtype=torch.bfloat16)).isfinite().all()


def traced(module: nn.Module, x: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.jit.trace(module, x)


def exported(module: nn.Module, x: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()


def compiled(module: nn.Module, x: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.compile(module, backend="aot_eager", fullgraph=True)


def mapped(module: nn.Module, x: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.vmap(module)


def by_onnx(module: nn.Module, x: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    """Written to a file, and run by another runtime."""
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False).save(folder / "net.onnx")
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    (name,) = [given.name for given in session.get_inputs()]
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy().astype(np.float32)})[0])


@pytest.mark.parametrize("way", [traced, exported, compiled, mapped, by_onnx])
def test_it_leaves_the_library(way: Callable[..., Callable[[Tensor], Tensor]], tmp_path: Path) -> None:
    """Two batches of two sizes: what is kept as a constant of the first would show."""
    net = everything().float()
    module = net.as_module("x", "y")
    out = way(module, double(5, 1, 4, 4).float(), tmp_path)
    for batch, seed in ((5, 1), (7, 2)):
        x = double(batch, 1, 4, 4, seed=seed).float()
        torch.testing.assert_close(out(x).detach(), module(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    shutil.which("g++") is None or not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
    reason="inductor writes C++ for Python, and g++ or Python.h is missing",
)
def test_it_is_compiled_by_what_torch_takes_by_default() -> None:
    """Answers and gradients by inductor, for batches of two sizes; ``aot_eager`` above only tells that it is traced."""
    graph = pcgraph.graphs.chain([4, 6, 3], activation="tanh")
    graph.add_edge("x", "y", scale=0.5)
    module = PCNetwork(graph, seed=0).as_module("x", "y")
    out = torch.compile(module, fullgraph=True, dynamic=True)
    for batch in (5, 7):
        x = double(batch, 4, seed=batch).float().requires_grad_()
        parts = [x, *module.parameters()]
        for one, two in zip(
            torch.autograd.grad(out(x).square().sum(), parts), torch.autograd.grad(module(x).square().sum(), parts)
        ):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(out(x), module(x), rtol=1e-5, atol=1e-6)


def test_gradients_by_sample() -> None:
    """``torch.func`` on a module, as differential privacy and influence functions use it."""
    module = chain(4, 3, 2, dtype=torch.float64).as_module("x", "y")
    x = double(5, 4)

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(module, parameters, (one,)).square().sum()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(dict(module.named_parameters()), x)
    module(x).square().sum().backward()
    for name, p in module.named_parameters():
        torch.testing.assert_close(found[name].sum(0), p.grad)


def test_what_calls_the_engine_is_compiled_around_it() -> None:
    """A training step of somebody's own under ``torch.compile`` ended in an error of the compiler's."""
    net, x = chain(4, 3, 2, dtype=torch.float64), double(5, 4)

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        result = net.infer({"x": 2 * x, "y": x[:, :2]}, init=Forward(), steps=2, optimizer=SGD(lr=0.1))
        return net.predict({"x": 2 * x}, "y") + 1, result.energy * 3

    torch.testing.assert_close(torch.compile(step, backend="eager")(x), step(x), rtol=0, atol=0)


@pytest.mark.parametrize("run", ["predict", "infer"])
@pytest.mark.parametrize(
    "way", [lambda f, x: torch.jit.trace(f, x), lambda f, x: torch.vmap(lambda a: f(a.unsqueeze(0)))(x)],
    ids=["trace", "vmap"],
)  # fmt: skip
def test_the_engine_refuses_to_be_traced(run: str, way: Callable[..., Any]) -> None:
    """The second call of what was traced gave the first one's answer."""
    net = chain(4, 3, 2)

    def f(x: Tensor) -> Tensor:
        if run == "predict":
            return net.predict({"x": x}, "y")
        return net.infer({"x": x}, init=Forward(), steps=1, optimizer=SGD(0.1)).states["y"]

    with pytest.raises(ConfigError, match="net.as_module"):
        way(f, torch.randn(5, 4))
    with pytest.raises(TypeError, match="net.as_module"):
        net(torch.randn(5, 4))


def test_what_no_sweep_reaches_is_refused_with_the_reason() -> None:
    graph = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y"), ("x", "s"), ("r", "t")])
    nx.set_node_attributes(graph, 3, "shape")
    net = PCNetwork(graph)
    with pytest.raises(InvalidInitializer, match="no module leads from 'x' to 'y'.*cycle") as caught:
        net.as_module("x", "y")
    assert caught.value.witness is not None
    with pytest.raises(InvalidInitializer, match="no module leads from 'x' to 't'"):
        net.as_module("x", "t")
    assert net.as_module("x", "s")(torch.ones(2, 3)).shape == (2, 3)
    assert net.as_module(["x", "a"], "y")(torch.ones(2, 3), torch.ones(2, 3)).shape == (2, 3)
    assert torch.equal(net.as_module("x", "x")(torch.ones(2, 3)), torch.ones(2, 3))


def test_bad_arguments_of_the_module() -> None:
    net = chain(4, 3, 2)
    for given, wanted in (("q", "y"), ("x", "q"), ([], "y"), (["x", "x"], "y"), ("x", []), (3, "y"), ("x", None)):
        with pytest.raises(ClampError):
            net.as_module(given, wanted)
    module = net.as_module("x", "y")
    with pytest.raises(ClampError, match=r"'x' needs a tensor of shape \(batch, 4\)"):
        module(torch.ones(5, 3))
    with pytest.raises(ClampError, match="takes 1 tensors"):
        module(torch.ones(5, 4), torch.ones(5, 4))
    assert module(torch.ones(4)).shape == (2,)


# -- the summary ------------------------------------------------------------------------------------------------------


def test_the_summary_has_a_line_for_each_node_and_edge() -> None:
    """The repr says how many there are; what one of them is had to be looked up in the structure."""
    net = everything()
    net.edge("z", "a").freeze()
    found = net.summary()
    assert [row[0] for row in found.nodes] == ["'x'", "'c'", "'z'", "'a'", "'b'", "'y'", "slot 'down' of node 'y'"]
    rows = {row[0]: row for row in found.edges}
    assert rows["'z' -> 'a' (key 0)"][5] == "frozen"
    assert rows["'x' -> 'c' (key 0)"][1:5] == ("Conv2d", "", "", "20")
    assert rows["'c' -> 'a' (key 0)"][2:] == ("tanh", "6x32", "192", "scale 0.5")
    assert rows["'a' -> 'y' (key 0)"][5] == "shared"
    assert rows["'b' -> 'y' (key 2)"][5] == "into 'down'"
    count = sum(p.numel() for p in net.parameters())
    assert str(found).endswith(f"{count:,} parameters, of which {count - 18:,} learn")
    short = net.summary(most=2)
    assert len(short.nodes) == len(short.edges) == 2
    assert "5 more nodes and 6 more edges" in str(short)


# -- moved and converted ----------------------------------------------------------------------------------------------


def test_it_is_converted_with_its_network_and_not_without() -> None:
    """module.float() left a network of float32 weights and float64 states; net.float() a module of both."""
    net = everything()
    module, x = net.as_module("x", ["a", "y"]), double(5, 1, 4, 4)
    for convert in (nn.Module.float, nn.Module.half, lambda m: m.to("meta"), lambda m: nn.Sequential(m).float()):
        with pytest.raises(ConfigError, match=r"the network's own.*copy.deepcopy\(module\)"):
            convert(module)
    assert module.double().eval() is module
    alone = copy.deepcopy(module).float()
    assert alone(x.float())["y"].dtype == torch.float32
    torch.testing.assert_close(module(x)["y"], net.predict({"x": x}, "y"))
    net.float()
    for v in ("a", "y"):
        torch.testing.assert_close(module(x.float())[v], net.predict({"x": x.float()}, v))
