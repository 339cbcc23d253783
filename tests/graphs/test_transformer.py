"""Transformers and their tokens: against torch's own layers, the slow reference, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcgraph
from pcgraph import SGD, ClampError, Forward, GraphError, Normal, PCNetwork, serialization
from pcgraph.graphs import transformer
from pcgraph.testing import conformance
from pcgraph.transforms import Embedding, RowLinear
from tests.builders import EXACT, assert_equal_to_reference


def batch(device="cpu"):
    x = torch.randint(0, 5, (3, 4), generator=torch.Generator().manual_seed(0)).to(device)
    return {"x": x, "y": F.one_hot(x.roll(-1, 1), 5).to(torch.float64)}


def made(device="cpu", **settings):
    return PCNetwork(transformer(5, 4, width=6, heads=2, **settings), seed=1, dtype=torch.float64, device=device)


@pytest.mark.parametrize("init", [Forward(), Normal(std=0.3)], ids=lambda i: type(i).__name__)
def test_it_equals_the_reference(device, init):
    given = batch(device)
    clamps = {"x": given["x"].double(), "y": given["y"]}
    assert_equal_to_reference(made(device, depth=2), clamps, init, 3, SGD(0.05))


def test_its_prediction_is_a_transformers(device):
    """One block written out with torch's functions, from the same weights."""
    net, x = made(device), batch(device)["x"]
    t = net.transform

    def bias(v):
        return net.bias(v)

    e = t("x", "e").weight[x] + bias("e")
    q, k, v = (t("e", "a1", role)(e).unflatten(2, (2, 3)).transpose(1, 2) for role in ("query", "key", "value"))
    a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    r = e + t("a1", "r1")(a) + bias("r1")
    h = r + t("m1", "h1")(F.gelu(t("r1", "m1")(r) + bias("m1"))) + bias("h1")
    torch.testing.assert_close(net.predict({"x": x}, "y"), (t("h1", "y")(h) + bias("y")).detach(), **EXACT)


def test_a_causal_place_does_not_see_what_comes_after_it(device):
    x = batch(device)["x"]
    other = x.clone()
    other[:, 2:] = (x[:, 2:] + 1) % 5
    for causal in (True, False):
        net = made(device, causal=causal)
        one, two = (net.predict({"x": given}, "y")[:, :2] for given in (x, other))
        assert torch.allclose(one, two) == causal


def test_tokens_are_whole_numbers_in_any_dtype(device):
    """Also where nobody converts them: a loader of text gives integers."""
    net, x = made(device), batch(device)["x"]
    expected = net.predict({"x": x.double()}, "y")
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert torch.equal(net.predict({"x": x.to(dtype)}, "y"), expected)
    assert torch.equal(net.predict({"x": x.cpu().numpy()}, "y"), expected)


@pytest.mark.parametrize("wrong", [-1, 5, 0.5, float("nan")])
def test_what_is_no_token_is_refused_before_anything_runs(device, wrong):
    x = batch(device)["x"].double()
    x[1, 2] = wrong
    with pytest.raises(ClampError, match=r"'x' holds tokens, whole numbers from 0 to 4"):
        made(device).predict({"x": x}, "y")


def test_whole_numbers_elsewhere_are_refused_as_before(device):
    net = PCNetwork(pcgraph.graphs.chain([3, 2]), device=device)
    with pytest.raises(ClampError, match="needs dtype"):
        net.predict({"x": torch.ones(2, 3, dtype=torch.int64, device=device)}, "y")


def test_an_embedding_is_torchs(device):
    table = Embedding(7, 3).to(device)
    torch.testing.assert_close(table(torch.tensor([[6.0, 0.0]], device=device))[0], table.weight[[6, 0]])
    layer = nn.Embedding(7, 3).to(device)
    with torch.no_grad():
        layer.weight.copy_(table.weight)
    x = torch.randint(0, 7, (4, 2), device=device)
    torch.testing.assert_close(table(x.float()), layer(x))
    conformance.check_transform(Embedding(7, 3), (2,), device=device)


def test_each_row_goes_through_torchs_layers(device):
    """Normalised and mapped, every row alike; drawn from the network's seed, whatever torch's generator has done."""
    map_ = RowLinear(6, 3, normalize=True).to(device)
    x = torch.randn(2, 4, 6, device=device)
    torch.testing.assert_close(map_(x), nn.functional.layer_norm(x, (6,)) @ map_.weight.t())
    conformance.check_transform(RowLinear(6, 3, normalize=True), (4, 6), device=device)
    with pytest.raises(GraphError, match="takes rows of 6 features"):
        map_.output_shape((4, 5))
    one = made(device).state_dict()
    torch.rand(3)
    assert all(torch.equal(one[name], value) for name, value in made(device).state_dict().items())


def test_it_is_saved_and_read_again(tmp_path):
    serialization.write_graph(tmp_path / "graph.json", transformer(5, 4, width=6))
    net = PCNetwork(serialization.read_graph(tmp_path / "graph.json"), dtype=torch.float64)
    net.load_state_dict(made().state_dict())
    torch.testing.assert_close(net.predict({"x": batch()["x"]}, "y"), made().predict({"x": batch()["x"]}, "y"))


def test_heads_divide_the_width():
    with pytest.raises(GraphError, match=r"heads must divide width \(found 4 and 6\)"):
        transformer(5, 4, width=6, heads=4)


def test_it_learns_to_repeat_a_text(device):
    """A text that goes round: the next letter is always known from the last."""
    x = torch.arange(64, device=device).view(16, 4) % 5
    y = F.one_hot((x + 1) % 5, 5).double()
    net = made(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        net.infer({"x": x, "y": y}, init=Forward(), steps=5, optimizer=SGD(0.1)).backward()
        optimizer.step()
    assert (net.predict({"x": x}, "y").argmax(2) == (x + 1) % 5).double().mean() > 0.95
