"""Well-signed but malformed checkpoints. Whatever stands in them: CheckpointError, or the run as it was saved."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import pcgraph
from pcgraph.checkpoints.writing import digest
from pcgraph.data import Images
from pcgraph.errors import CheckpointError
from pcgraph.serialization import encode

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR), torch.arange(24) % 3
HUGE = 10**12


class Run:
    """A run of every kind of part."""

    def __init__(self) -> None:
        graph = pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh")
        self.net = pcgraph.PCNetwork(graph, seed=0)
        self.init = pcgraph.Null(first=pcgraph.Normal(std=0.1))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [3, 9], gamma=0.5)
        self.loader = Images(X, LABELS).batches(6, seed=3)

    def fit(self, folder: Path, epochs: int, **more: Any) -> None:
        torch.manual_seed(0)
        pcgraph.fit(
            self.net, self.loader, init=self.init, steps=2, optimizer=self.optimizer, state_optimizer=pcgraph.SGD(0.05),
            scheduler=self.scheduler, progress=False, epochs=epochs, checkpoint=folder, measure_every=1,
            validate=lambda net: {"accuracy": 0.5}, **more,
        )  # fmt: skip

    def everything(self) -> Any:
        parts = (self.net, self.init, self.optimizer, self.scheduler, self.loader)
        return encode([part.state_dict() for part in parts])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")

    def stop(record: Any) -> bool:
        return record.kind == "step" and record.step == 6

    Run().fit(folder, 3, callbacks=stop)
    return pcgraph.load(folder).path


@pytest.fixture(scope="module")
def unspoiled(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What the run is when it is resumed, and what it comes to."""
    run, folder = Run(), tmp_path_factory.mktemp("whole")
    shutil.copytree(saved, folder / saved.name)
    pcgraph.load(folder).restore(net=run.net, initializer=run.init, optimizer=run.optimizer, scheduler=run.scheduler)
    begun = run.everything()
    run = Run()
    run.fit(folder, 3, resume=folder)
    return begun, run.everything()


def spoil(saved: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the checkpoint in which something is otherwise, and which is signed as if it had always been."""
    path = folder / saved.name
    shutil.copytree(saved, path)
    change(path)
    sign(path)
    return path


def sign(path: Path, files: bool = True) -> None:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for name in manifest["files"] if files else ():
        data = (path / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    signed(path, manifest)


def signed(path: Path, manifest: Any) -> None:
    if isinstance(manifest, dict):
        manifest["sha256"] = digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def refused_or_the_same(folder: Path, unspoiled: tuple[Any, Any] | None) -> bool:
    """Load it in every way there is; returns whether it was refused."""
    refused = False
    run = Run()
    before = run.everything()
    try:
        pcgraph.load(folder).restore(
            net=run.net, initializer=run.init, optimizer=run.optimizer, scheduler=run.scheduler, generators=True
        )
    except CheckpointError:
        refused = True
        assert run.everything() == before
    else:
        assert unspoiled is None or run.everything() == unspoiled[0]
    run = Run()
    before = run.everything()
    try:
        run.fit(folder, 3, resume=folder)
    except CheckpointError:
        refused = True
        assert run.everything() == before
    else:
        assert unspoiled is None or run.everything() == unspoiled[1]
    try:
        checkpoint = pcgraph.load(folder)
        _ = checkpoint.net, checkpoint.extra
        for part in checkpoint.parts:
            checkpoint.state(part)
    except CheckpointError:
        refused = True
    return refused


# -- anything in the place of anything ------------------------------------------------------------------------------


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


MISSING = object()
VALUES = [
    None, True, -1, 0, HUGE, 1.5, -0.5, "", "text", "../../etc/passwd", [], {}, [[]], {"$tuple": 3}, {"$float": "x"},
    {"$map": [1]}, {"$tensor": "nowhere"}, {"$tensor": 3}, {"$nothing": 1}, {"$counter": {}}, {"a": {"b": []}},
    {"$tensor": [1.0], "dtype": "float7", "shape": [1]}, {"$tensor": [1.0], "dtype": "float32", "shape": [HUGE]},
    {"$array": "nowhere"}, {"$tuple": [{"$tuple": []}]}, nested(60), MISSING,
]  # fmt: skip


def spoiled(path: Path, seed: int) -> bool:
    """Put a value into a place of a JSON file; returns whether it is one that might have been there.

    One number or flag in the place of another is no malformed checkpoint, but a well-made one of another run.
    """
    dice, data = random.Random(seed), json.loads(path.read_text(encoding="utf-8"))
    found = [place for place in places(data) if place and len(place) < 8]
    # long lists of numbers would be nearly all the places there are
    place = dice.choice([place for place in found if not isinstance(place[-1], int) or place[-1] < 2])
    value, before = dice.choice(VALUES), data
    for key in place:
        before = before[key]
    path.write_text(json.dumps(put(data, place, value)), encoding="utf-8")
    return kind(before) == kind(value) != "container" or place[-1] == "initial_lr"  # which a scheduler adds, or not


def kind(value: Any) -> str:
    if isinstance(value, int | float | None):
        return "scalar"
    return "text" if isinstance(value, str) else "container"


@pytest.mark.parametrize(("name", "count"), [("state.json", 16), ("graph.json", 6), ("manifest.json", 6)])
@pytest.mark.parametrize("part", range(8))
def test_no_value_in_any_place_ends_in_a_foreign_error(
    saved: Path, tmp_path: Path, unspoiled: tuple[Any, Any], name: str, count: int, part: int
) -> None:
    """A hostile or half-migrated file must not end in a KeyError, nor in a run that goes on from something else."""
    refused = 0
    for seed in range(part * count, (part + 1) * count):
        folder = tmp_path / str(seed)
        path = spoil(saved, folder, lambda path: None)
        plausible = spoiled(path / name, seed)
        sign(path, files=name != "manifest.json")
        refused += refused_or_the_same(folder, None if plausible else unspoiled)
    assert refused >= count // 4


# -- one by one -------------------------------------------------------------------------------------------------------


def of_state(*path: Any) -> Callable[[Any], Callable[[Path], None]]:
    return in_file("state.json", *path)


def in_file(name: str, *path: Any) -> Callable[[Any], Callable[[Path], None]]:
    def with_value(value: Any) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            data = json.loads((folder / name).read_text(encoding="utf-8"))
            (folder / name).write_text(json.dumps(put(data, path, value)), encoding="utf-8")

        return change

    return with_value


def tensors(name: str, **changed: Any) -> Callable[[Path], None]:
    """Change tensors of a file by what stands under their names."""

    def change(path: Path) -> None:
        file = path / f"{name}.safetensors"
        held = safetensors.torch.load_file(file)
        for key, make in changed.items():
            key = next(k for k in sorted(held) if key in k)
            value = make(held[key])
            if value is None:
                del held[key]
            else:
                held[key] = value.contiguous()
        safetensors.torch.save_file(held, file)

    return change


def raw(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(data) and None


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Change a text of a file."""

    def change(path: Path) -> None:
        text = (path / name).read_text(encoding="utf-8")
        (path / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


EXTRA = ("extra", "state")
ONE_BY_ONE: dict[str, Callable[[Path], None]] = {
    "state.json is a list": raw("state.json", b"[]"),
    "state.json is no JSON": raw("state.json", b"{"),
    "state.json is empty": raw("state.json", b""),
    "state.json is no text": raw("state.json", b"\xff\xfe\x00"),
    "state.json is very deep": raw("state.json", b"[" * 100_000 + b"]" * 100_000),
    "state.json has a deep state": lambda path: of_state(*EXTRA)(nested(400))(path),
    "state.json has NaN": replaced("state.json", '"training": true', '"training": NaN'),
    "graph.json is null": raw("graph.json", b"null"),
    "graph.json is a number": raw("graph.json", b"3"),
    "graph.json is very deep": raw("graph.json", b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "no facts": of_state("facts")(MISSING),
    "facts are a list": of_state("facts")([]),
    "no dtype": of_state("facts", "dtype")(MISSING),
    "the dtype is a function": of_state("facts", "dtype")("zeros"),
    "the dtype is of whole numbers": of_state("facts", "dtype")("int64"),
    "the dtype is another": of_state("facts", "dtype")("float64"),
    "training is a text": of_state("facts", "training")("yes"),
    "rows are a list": of_state("facts", "rows")([1]),
    "rows are of others": of_state("facts", "rows", "group_5")("0" * 64),
    "a part has no state": of_state("optimizer", "state")(MISSING),
    "a part is a text": of_state("optimizer")("AdamW"),
    "the optimizer is another": of_state("optimizer", "class")("SGD"),
    "the optimizer has no groups": of_state("optimizer", "state", "param_groups")(MISSING),
    "the optimizer has no state": of_state("optimizer", "state", "state")(MISSING),
    "the optimizer's groups are empty": of_state("optimizer", "state", "param_groups")([]),
    "the optimizer's group is a number": of_state("optimizer", "state", "param_groups")([3]),
    "the optimizer has no rate": of_state("optimizer", "state", "param_groups", 0, "lr")(MISSING),
    "the rate is a text": of_state("optimizer", "state", "param_groups", 0, "lr")("0.1"),
    "the betas are one": of_state("optimizer", "state", "param_groups", 0, "betas")({"$tuple": [0.9]}),
    "the optimizer moves others": of_state("optimizer", "parameters", 0, "name")("net.weights.other"),
    "the optimizer moves other shapes": of_state("optimizer", "parameters", 0, "shape")([1, 1]),
    "the optimizer moves numbers": of_state("optimizer", "parameters")([1, 2]),
    "the scheduler has a method": of_state("scheduler", "state", "step")(3),
    "the scheduler lacks an entry": of_state("scheduler", "state", "gamma")(MISSING),
    "the scheduler's factor is a text": of_state("scheduler", "state", "gamma")("x"),
    "the scheduler has rates of none": of_state("scheduler", "state", "base_lrs")([]),
    "the generators are empty": of_state("generators", "state")({}),
    "the run has generators of none": of_state(*EXTRA, "position", "start", "generators", "python")([]),
    "the run has no kind": of_state(*EXTRA, "kind")(MISSING),
    "the run has no position": of_state(*EXTRA, "position")(MISSING),
    "the run has a position of nothing": of_state(*EXTRA, "position")({}),
    "the run is in a batch of text": of_state(*EXTRA, "batch")("two"),
    "the run is in a batch before the first": of_state(*EXTRA, "batch")(-1),
    "the run is in another batch": of_state(*EXTRA, "batch")(3),
    "the run has no history": of_state(*EXTRA, "history")(MISSING),
    "the run has an epoch of text": of_state(*EXTRA, "history", "epochs")(["first"]),
    "the run has a step with more": of_state(*EXTRA, "history", "steps")([{"step": 1, "colour": "red"}]),
    "the run has energies of text": of_state(*EXTRA, "energies")(["low"]),
    "the run has warnings of numbers": of_state(*EXTRA, "history", "warnings")([3]),
    "the run has no gradients": of_state(*EXTRA, "gradients")(MISSING),
    "the run has another watch": of_state(*EXTRA, "watch")({"mood": 1}),
    "the run has no schedulers": of_state(*EXTRA, "schedulers")(MISSING),
    "the run has schedulers of number": of_state(*EXTRA, "schedulers")(2),
    "the run has another rule": of_state(*EXTRA, "rule")("Backprop"),
    "the run has settings of text": of_state(*EXTRA, "rule_settings")("none"),
    "the loader is of other samples": of_state(*EXTRA, "position", "loader", "samples")(25),
    "the loader is far behind its end": of_state(*EXTRA, "position", "loader", "position")(HUGE),
    "the loader says nothing": of_state(*EXTRA, "position", "loader")({}),
    "a node has no name": in_file("graph.json", "nodes", 0, "id")(MISSING),
    "a node is as large as memory": in_file("graph.json", "nodes", 1, "shape")(HUGE),
    "a node has a shape of text": in_file("graph.json", "nodes", 1, "shape")("big"),
    "a node has another activation": in_file("graph.json", "nodes", 1, "activation")("relu"),
    "a node has an unknown activation": in_file("graph.json", "nodes", 1, "activation")("rleu"),
    "there are no nodes": in_file("graph.json", "nodes")([]),
    "an edge leads nowhere": in_file("graph.json", "edges", 0, "target")("nowhere"),
    "an edge has a transform of nothing": in_file("graph.json", "edges", 0, "transform")({"name": "conv9d"}),
    "weights of another shape": tensors("network", weights=lambda t: t[:, :1]),
    "a weight is missing": tensors("network", weights=lambda t: None),
    "weights of whole numbers": tensors("network", weights=lambda t: t.to(torch.int64)[:0]),
    "the optimizer's mean of another shape": tensors("optimizer", state=lambda t: torch.zeros(7, 7)),
    "the optimizer's mean is missing": tensors("optimizer", state=lambda t: None),
    "states of other nodes": tensors("initializer", group_5=lambda t: t[:1]),
    "states of other sizes": tensors("initializer", group_5=lambda t: t[..., :3]),
    "states without a batch": tensors("initializer", group_5=lambda t: t[0]),
    "states of whole numbers": tensors("initializer", group_5=lambda t: t.to(torch.int64)),
    "a generator of three bytes": tensors("generators", torch=lambda t: t[:3]),
    "a generator of floats": tensors("generators", torch=lambda t: t.float()),
    "tensors are text": raw("network.safetensors", b"weights"),
    "tensors are nothing": raw("network.safetensors", b""),
    "tensors have a header of text": raw("network.safetensors", header(b"[]")),
    "tensors have an unknown dtype": raw(
        "network.safetensors", header(b'{"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4)),
    "tensors overlap": raw("network.safetensors", header(
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
        b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4)),
    "tensors end beyond the file": raw(
        "network.safetensors", header(b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}') + bytes(4)),
    "a header as long as memory": raw("network.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
}  # fmt: skip


@pytest.mark.parametrize("what", ONE_BY_ONE)
def test_a_malformed_checkpoint_is_refused(saved: Path, tmp_path: Path, unspoiled: tuple[Any, Any], what: str) -> None:
    """By the error that says so, with nothing changed; never by Python's or torch's own."""
    spoil(saved, tmp_path, ONE_BY_ONE[what])
    assert refused_or_the_same(tmp_path, unspoiled)


# -- names and files --------------------------------------------------------------------------------------------------

NAMES = [
    "../secret.json", "/etc/passwd", "a/b.json", "..", ".", "", "graph.json\0", "~/x.json", "C:\\x.json", "x.pkl",
    "manifest.json", "graph.json/", "\u202egraph.json", "a" * 300 + ".json", "con:x.json", "-x.json", ".json",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_folder(saved: Path, tmp_path: Path, name: str) -> None:
    """A manifest that names other files could make a program read what it should not, or hang."""
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")

    path = spoil(saved, tmp_path / "c", lambda path: None)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for facts in ({"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}, manifest["files"]["graph.json"]):
        manifest["files"][name] = facts
        signed(path, manifest)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            pcgraph.load(path)


@pytest.mark.parametrize("kind", ["link out", "link to a device", "circle", "folder", "pipe", "link inside"])
def test_only_plain_files_of_the_folder_are_read(saved: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text((saved / "graph.json").read_text(encoding="utf-8"), encoding="utf-8")

    def change(path: Path) -> None:
        file = path / "graph.json"
        text = file.read_text(encoding="utf-8")
        file.unlink()
        if kind == "link out":
            file.symlink_to(outside)
        elif kind == "link to a device":
            file.symlink_to("/dev/zero")
        elif kind == "circle":
            file.symlink_to(file)
        elif kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)
        else:
            (path / "other.json").write_text(text, encoding="utf-8")
            file.symlink_to(path / "other.json")

    path = spoil(saved, tmp_path / "c", lambda path: None)
    change(path)
    if kind == "link inside":
        assert pcgraph.load(path).step == 6
        return
    with pytest.raises(CheckpointError, match=r"graph\.json: it (leads out of the folder|is no plain file)|[Ll]oop"):
        pcgraph.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("step", -1), ("step", 1.5), ("step", "6"), ("step", None), ("step", 10**30), ("epoch", True), ("epoch", []),
     ("files", []), ("files", {}), ("files", {"graph.json": {}}), ("files", {"graph.json": 3}), ("version", 0),
     ("version", "1"), ("version", None), ("format", 3), ("format", None)],
)  # fmt: skip
def test_a_manifest_says_what_it_must(saved: Path, tmp_path: Path, key: str, value: Any) -> None:
    path = spoil(saved, tmp_path, lambda path: None)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    manifest[key] = value
    signed(path, manifest)
    with pytest.raises(CheckpointError, match=r"manifest\.json: it is no whole manifest"):
        pcgraph.load(path)


def test_a_checkpoint_that_is_a_link_itself_is_read(saved: Path, tmp_path: Path) -> None:
    """What matters is that nothing of it lies elsewhere."""
    (tmp_path / "link").symlink_to(saved.parent, target_is_directory=True)
    assert pcgraph.load(tmp_path / "link").step == 6
