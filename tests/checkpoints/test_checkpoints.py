"""Checkpoints. Oracle: the run that was never saved; a checkpoint is right if nobody can tell that it was there."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import pcgraph
from pcgraph import checkpoints, transforms
from pcgraph.checkpoints import exists
from pcgraph.data import Images
from pcgraph.errors import CheckpointError, ConfigError, PCGraphWarning
from tests.builders import chain, same


def small(seed: int = 0, sizes: tuple[int, ...] = (4, 5, 3)) -> pcgraph.PCNetwork:
    return chain(*sizes, seed=seed)


def scaled(factor: float) -> nx.DiGraph:
    graph = pcgraph.graphs.chain([4, 5, 3], activation="tanh")
    graph.edges["x", "h1"]["scale"] = factor
    return graph


def same_tensors(a: nn.Module, b: nn.Module) -> bool:
    return same(a.state_dict(), b.state_dict())


def images() -> Images:
    generator = torch.Generator().manual_seed(5)
    return Images(torch.randn(24, 4, generator=generator), torch.arange(24) % 3)


INITIALIZERS: dict[str, Callable[[pcgraph.PCNetwork], pcgraph.Initializer]] = {
    "forward": lambda net: pcgraph.Forward(),
    "normal": lambda net: pcgraph.Normal(std=0.3, seed=2),
    "null": lambda net: pcgraph.Null(first=pcgraph.Normal()),
    "average": lambda net: pcgraph.Average(by="y"),
    "memory": lambda net: pcgraph.Memory(net, patterns=4, heads=2, embed_dim=8, beta=2.0),
    "nested": lambda net: pcgraph.PerNode({"h1": pcgraph.Normal(seed=4)}, default=pcgraph.Forward()),
}


class Parts:
    """All that a training by hand consists of."""

    def __init__(self, init: str) -> None:
        self.net = small()
        self.init = INITIALIZERS[init](self.net)
        own = [*self.net.parameters(), *self.init.parameters()]
        self.optimizer = torch.optim.AdamW(own, lr=0.01, betas=(0.8, 0.95))
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [3, 9], gamma=0.5)
        self.loader = images().batches(6, seed=3)
        self.batches = self._endless()

    def _endless(self) -> Iterator[tuple[torch.Tensor, ...]]:
        while True:
            yield from self.loader

    def train(self, steps: int) -> None:
        """So many batches, with dice of all three kinds thrown in each."""
        for _ in range(steps):
            x, y = next(self.batches)
            noise = torch.rand(()) + random.random() + np.random.random()
            state = pcgraph.SGD(lr=0.05)
            result = self.net.infer({"x": x + noise, "y": y}, init=self.init, steps=3, optimizer=state)
            self.optimizer.zero_grad()
            result.backward()
            self.optimizer.step()
            self.scheduler.step()


@pytest.mark.parametrize("init", INITIALIZERS)
def test_a_restored_run_goes_on_to_the_last_bit(tmp_path: Path, init: str) -> None:
    """Parameters, optimizer, initializer, scheduler, place in the data and all dice: one missing, and it differs."""
    first = Parts(init)
    first.train(7)  # in the middle of the second epoch
    pcgraph.save(
        tmp_path, first.net, optimizer=first.optimizer, initializer=first.init, loader=first.loader,
        scheduler=first.scheduler, step=7, epoch=1, extra={"note": (1, float("inf"))},
    )  # fmt: skip
    first.train(8)

    checkpoint = pcgraph.load(tmp_path)
    assert (checkpoint.step, checkpoint.epoch, checkpoint.extra) == (7, 1, {"note": (1, float("inf"))})
    second = Parts(init)
    checkpoint.restore(
        net=second.net, optimizer=second.optimizer, initializer=second.init, loader=second.loader,
        scheduler=second.scheduler, generators=True,
    )  # fmt: skip
    second.train(8)
    assert same_tensors(first.net, second.net)
    assert same_tensors(first.init, second.init)
    assert first.optimizer.param_groups[0]["lr"] == second.optimizer.param_groups[0]["lr"] == 0.01 * 0.25
    one, two = first.optimizer.state_dict()["state"], second.optimizer.state_dict()["state"]
    assert all(torch.equal(one[i][k], two[i][k]) for i in one for k in one[i])


def test_the_network_comes_back_without_any_code(tmp_path: Path) -> None:
    """A colleague who has the folder has the network: dtype, mode, metadata and all."""
    graph = pcgraph.graphs.chain([4, 5, 3], activation="tanh")
    graph.graph["note"] = "mine"
    net = pcgraph.PCNetwork(graph, seed=1, dtype=torch.float64).eval()
    pcgraph.save(tmp_path / "deep" / "folder", net)
    again = pcgraph.load(tmp_path / "deep" / "folder").net
    assert same_tensors(net, again)
    assert (again.dtype, again.training, again.graph.graph["note"]) == (torch.float64, False, "mine")
    x = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(net.predict({"x": x}, "y"), again.predict({"x": x}, "y"))


def test_modules_on_edges_keep_what_they_learned(tmp_path: Path) -> None:
    """One convolution on two edges: its weights are saved once and shared again."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_nodes_from(["a", "b"], shape=(2, 4, 4), bias=False)
    conv = transforms.Conv2d(1, 2, 3, padding=1)
    graph.add_edges_from([("x", "a"), ("x", "b")], transform=conv)
    net = pcgraph.PCNetwork(graph)
    with torch.no_grad():
        net.transform("x", "a").weight.normal_()
    pcgraph.save(tmp_path, net)
    again = pcgraph.load(tmp_path).net
    assert again.transform("x", "a") is again.transform("x", "b")
    assert torch.equal(again.transform("x", "b").weight, net.transform("x", "a").weight)


def test_the_files_are_json_and_safetensors_under_plain_names(tmp_path: Path) -> None:
    """Whoever wants the weights alone needs nothing of pcgraph, and nothing in the folder can run code."""
    parts = Parts("average")
    parts.train(2)
    path = pcgraph.save(tmp_path, parts.net, optimizer=parts.optimizer, initializer=parts.init)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    for file in path.glob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
    weights = safetensors.torch.load_file(path / "network.safetensors")
    state = parts.net.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[k], state[k]) for k in state)
    remembered = safetensors.torch.load_file(path / "initializer.safetensors")
    assert remembered.keys() == parts.init.state_dict().keys()


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    """Saving every hundred steps or never would give two different runs."""
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    pcgraph.save(tmp_path, small())
    pcgraph.load(tmp_path).restore(net=small())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


# -- damaged checkpoints ----------------------------------------------------------------------------------------------

FILES = [
    "graph.json", "state.json", "manifest.json", "network.safetensors", "optimizer.safetensors",
    "generators.safetensors", "initializer.safetensors",
]  # fmt: skip


def two_checkpoints(folder: Path) -> tuple[Path, Path]:
    parts = Parts("average")
    parts.train(1)
    saved = []
    for step in (1, 2):
        parts.train(1)
        saved.append(pcgraph.save(folder, parts.net, optimizer=parts.optimizer, initializer=parts.init, step=step))
    return saved[0], saved[1]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def alter(data: bytes) -> bytes:
    """One bit of one digit, in the middle."""
    middle = next(i for i in range(len(data) // 2, len(data)) if chr(data[i]).isdigit() or data[i] > 127)
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "says"), [(cut, "truncated|no whole manifest"), (alter, "altered"), (None, "is missing")]
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_there(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None, says: str
) -> None:
    """A wrong byte, and the run would go on from wrong numbers without a word."""
    before, last = two_checkpoints(tmp_path)
    file = last / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=says) as caught:
        pcgraph.load(tmp_path)
    assert caught.value.path == file
    assert name in str(caught.value)
    assert f"pcgraph.load({str(before)!r})" in str(caught.value)
    assert pcgraph.load(before).step == 1


def test_every_single_byte_is_watched(tmp_path: Path) -> None:
    path = pcgraph.save(tmp_path, small())
    whole = {file: file.read_bytes() for file in path.iterdir()}
    chosen = random.Random(0)
    for file, data in whole.items():
        for _ in range(10):
            i = chosen.randrange(len(data))
            file.write_bytes(data[:i] + bytes([data[i] ^ (1 << chosen.randrange(8))]) + data[i + 1 :])
            try:
                pcgraph.load(tmp_path)
            except CheckpointError as error:
                assert file.name in str(error)  # noqa: PT017
            else:  # white space of the manifest may change
                assert json.loads(file.read_bytes()) == json.loads(data)
        file.write_bytes(data)


def test_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = pcgraph.save(tmp_path, small())
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["version"] == 1  # of one process, which every version reads
    manifest["version"] = checkpoints.VERSION + 1
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"manifest\.json: a newer pcgraph wrote it, in format 3, .*upgrade"):
        pcgraph.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "other"}', '{"format": "pcgraph.checkpoint"}', "\x00"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = pcgraph.save(tmp_path, small())
    (path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"manifest\.json: it is no whole manifest"):
        pcgraph.load(tmp_path)


def test_where_there_is_none_it_is_said(tmp_path: Path) -> None:
    assert not exists(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint in it"):
        pcgraph.load(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        pcgraph.load(tmp_path / "nowhere")
    path = pcgraph.save(tmp_path, small())
    assert exists(tmp_path)
    assert exists(path)


# -- writing goes wrong -----------------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, after: int, error: BaseException) -> None:
    """`os.name` fails from its call number `after` on."""
    calls, real = [0], getattr(os, name)

    def failing(*args: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            raise error
        return real(*args, **settings)

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize("after", range(7))
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Wherever in the writing it happens."""
    net = small()
    old = pcgraph.save(tmp_path, net, step=1)
    files = {file: file.read_bytes() for file in old.iterdir()}
    full_disk(monkeypatch, "fsync", after, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(CheckpointError, match="No space left on device") as caught:
        pcgraph.save(tmp_path, small(1), step=2)
    monkeypatch.undo()
    assert str(old) in str(caught.value)
    assert "untouched" in str(caught.value)
    assert caught.value.path.parent in (tmp_path, tmp_path.parent)
    assert {file: file.read_bytes() for file in old.iterdir()} == files
    found = pcgraph.load(tmp_path)
    assert found.step in ((1, 2) if after == 6 else (1,))  # the last flush comes after the rename
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("name", "after"), [("fsync", n) for n in range(7)] + [("rename", 0), ("rename", 1)])
def test_a_crash_at_any_point_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    """As a kill would: nothing is tidied up. The next save does that."""
    pcgraph.save(tmp_path, small(), step=1, keep=1)
    full_disk(monkeypatch, name, after, SystemExit("killed"))
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **settings: None)
    with pytest.raises(SystemExit):
        pcgraph.save(tmp_path, small(1), step=2, keep=1)
    monkeypatch.undo()
    found = pcgraph.load(tmp_path)
    assert same_tensors(found.net, small(found.step - 1))
    pcgraph.save(tmp_path, small(2), step=3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [pcgraph.load(tmp_path).path.name]


def test_a_file_that_may_not_grow_is_an_error_of_ours(tmp_path: Path) -> None:
    """The operating system itself refuses to write on, as with a quota."""
    pcgraph.save(tmp_path, small(), step=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large") as caught:
            pcgraph.save(tmp_path, small(1, sizes=(400, 400, 3)), step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.path == tmp_path / "network.safetensors"
    assert same_tensors(pcgraph.load(tmp_path).net, small())
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pcgraph.save(tmp_path, small(), step=1)
    full_disk(monkeypatch, "mkdir", 0, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with pytest.raises(CheckpointError, match="Permission denied.*untouched") as caught:
        pcgraph.save(tmp_path, small(1), step=2)
    monkeypatch.undo()
    assert caught.value.path == tmp_path
    assert pcgraph.load(tmp_path).step == 1
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CheckpointError, match="Not a directory") as caught:
        pcgraph.save(tmp_path / "file" / "folder", small())


def test_a_running_network_is_not_harmed_by_a_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Parts("average"), Parts("average")
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    one.train(3)
    full_disk(monkeypatch, "fsync", 0, OSError(errno.ENOSPC, "full"))
    with pytest.raises(CheckpointError):
        pcgraph.save(tmp_path, one.net, optimizer=one.optimizer, initializer=one.init, loader=one.loader)
    one.train(3)
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    two.train(6)
    assert same_tensors(one.net, two.net)


def test_as_many_as_asked_for_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        pcgraph.save(tmp_path, small(), step=step, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{n:06d}" for n in (2, 3, 4)]
    assert pcgraph.load(tmp_path).step == 4
    assert pcgraph.load(tmp_path / "checkpoint-000002").step == 2
    with pytest.raises(ConfigError, match="keep must be a positive integer"):
        pcgraph.save(tmp_path, small(), keep=0)


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (pcgraph.graphs.chain([4, 6, 3], activation="tanh"), 'node "h1" has .*6.* had .*5'),
        (pcgraph.graphs.chain([4, 5, 3], activation="relu"), 'node "h1" has .*relu.* had .*tanh'),
        (pcgraph.graphs.chain([4, 3]), 'lacks the node "h1"'),
        (scaled(0.5), r"""edge "x" -> "h1" "" has \{'scale': 0.5"""),
        (pcgraph.graphs.chain([4, 5, 3], activation=torch.sin), "cannot be saved"),
    ],
)
def test_another_graph_is_refused_with_the_difference(tmp_path: Path, graph: nx.DiGraph, says: str) -> None:
    """Weights of the same shapes would go into another network without a word."""
    pcgraph.save(tmp_path, small())
    net = pcgraph.PCNetwork(graph)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(CheckpointError, match=f"of another graph: .*{says}"):
        pcgraph.load(tmp_path).restore(net=net)
    assert all(map(torch.equal, before, net.parameters()))


def test_more_nodes_or_another_order_are_another_graph(tmp_path: Path) -> None:
    pcgraph.save(tmp_path, small())
    more = pcgraph.graphs.chain([4, 5, 3], activation="tanh")
    more.add_node("z", shape=1)
    with pytest.raises(CheckpointError, match='has the node "z" besides'):
        pcgraph.load(tmp_path).restore(net=pcgraph.PCNetwork(more))


def test_another_scale_is_another_network_where_the_graph_could_not_be_saved(tmp_path: Path) -> None:
    """The same weights would mean something else."""

    def net(factor: float) -> pcgraph.PCNetwork:
        graph = scaled(factor)
        graph.edges["h1", "y"]["init"] = lambda w, generator, fan_in: w.fill_(1.0)
        return pcgraph.PCNetwork(graph)

    with pytest.warns(PCGraphWarning, match="init"):
        pcgraph.save(tmp_path, net(0.25))
    pcgraph.load(tmp_path).restore(net=net(0.25))
    with pytest.raises(CheckpointError):
        pcgraph.load(tmp_path).restore(net=net(0.250001))


def test_metadata_may_differ(tmp_path: Path) -> None:
    pcgraph.save(tmp_path, small())
    graph = pcgraph.graphs.chain([4, 5, 3], activation="tanh")
    graph.nodes["x"]["colour"] = "red"
    net = pcgraph.PCNetwork(graph, seed=9)
    pcgraph.load(tmp_path).restore(net=net)
    assert same_tensors(net, small())


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"optimizer": "sgd"}, "optimizer .* does not fit: it is the state of a AdamW, not of a SGD"),
        ({"optimizer": "short"}, "optimizer .* does not fit"),
        ({"initializer": pcgraph.Forward()}, "initializer .* it is the state of a Normal, not of a Forward"),
        ({"scheduler": "sgd"}, r"has no scheduler \(found .*optimizer"),
        ({"loader": "sgd"}, "has no loader"),
    ],
)
def test_other_parts_are_refused(tmp_path: Path, part: dict[str, Any], says: str) -> None:
    net = small()
    optimizer = torch.optim.AdamW(net.parameters())
    pcgraph.save(tmp_path, net, optimizer=optimizer, initializer=pcgraph.Normal())
    others = {"sgd": torch.optim.SGD(net.parameters()), "short": torch.optim.AdamW(list(net.parameters())[:1])}
    given = {name: others.get(value, value) if isinstance(value, str) else value for name, value in part.items()}
    with pytest.raises(CheckpointError, match=says):
        pcgraph.load(tmp_path).restore(**given)


def test_a_function_in_the_graph_costs_the_graph_alone(tmp_path: Path) -> None:
    """It is said at once; the parameters are there for whoever has the code."""
    graph = pcgraph.graphs.chain([4, 5, 3], activation=torch.sin)
    net = pcgraph.PCNetwork(graph, seed=4)
    with pytest.warns(PCGraphWarning, match=r"the attribute 'activation' of node 'h1' cannot be saved: .*function"):
        pcgraph.save(tmp_path, net, step=3)
    with pytest.raises(CheckpointError, match=r"'activation' of node 'h1'.*restore\(net=\.\.\.\)"):
        _ = pcgraph.load(tmp_path).net
    again = pcgraph.PCNetwork(graph, seed=0)
    pcgraph.load(tmp_path).restore(net=again)
    assert same_tensors(net, again)
    with pytest.raises(CheckpointError, match="the network .* does not fit"):
        pcgraph.load(tmp_path).restore(net=small(sizes=(4, 6, 3)))


def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the extra cannot be saved: f is a Python function"):
        pcgraph.save(tmp_path / "a", small(), extra={"f": print})
    with pytest.raises(ConfigError, match=r"the loader cannot be saved: a list has no state_dict\(\)"):
        pcgraph.save(tmp_path / "a", small(), loader=[])
    assert not (tmp_path / "a").exists()


def test_views_and_shared_memory_are_saved_by_value(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    extra: Any = {"a": whole, "b": whole, "c": whole.t(), "d": whole[1], "e": torch.empty(0, 2)}
    pcgraph.save(tmp_path, small(), extra=extra)
    extra = pcgraph.load(tmp_path).extra
    assert all(torch.equal(extra[k], whole) for k in "ab")
    assert torch.equal(extra["c"], whole.t())
    assert torch.equal(extra["d"], whole[1])
    assert extra["e"].shape == (0, 2)


def test_the_version_is_stated() -> None:
    assert checkpoints.VERSION == 2
