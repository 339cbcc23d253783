"""Every option of the command, with every kind of bad value: one message, exit status 2, and never a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import pcgraph
from pcgraph.cli import app
from pcgraph.data import sources
from pcgraph.data.sources import _IDX_FILES
from pcgraph.errors import ConfigError
from pcgraph.experiments.options import FIELDS, Options, flag, options_from, write_config
from pcgraph.experiments.text import as_typed, nodes_named
from pcgraph.serialization import write_graph


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def refused(*arguments: object) -> str:
    """What is said to someone who calls it so, on one line."""
    done = run(*arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, repr(done.exception))
    text = " ".join(done.output.split())
    assert done.exit_code == 2, (arguments, done.exit_code, text[:300])
    assert "error:" in text.lower(), (arguments, text)
    assert "Traceback" not in text
    return text


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    write_graph(tmp_path / "g.json", pcgraph.graphs.chain([4, 3, 2]))
    return tmp_path / "g.json"


# -- options of train -------------------------------------------------------------------------------------------------

LONG = "a" * 5000
NO_TEXT = ["a\0b", "\udcff"]
NO_NAME = ["", " ", "zzz", "::", "=", ",", "+", "\\", "[bold]", "\x1b[31m", "9" * 30, LONG]
HUGE = ["9" * 30, str(2**63), str(2**64), "9" * 5000]
NO_WHOLE = ["", "abc", "1.5", "1e3", "nan", "inf", "0x10", *HUGE, *NO_TEXT]
NO_NUMBER = ["", "abc", "nan", "inf", "-inf", "1e400", "1,5", *NO_TEXT]

BAD: dict[str, list[str]] = {
    "data": [*NO_TEXT, *NO_NAME],
    "graph": [
        *NO_TEXT, *NO_NAME, "64", "64-", "0-10", "64-0-10", "64--10", "64-1x999999999-10", "64-1x0-9",
        "64-999999999999-10", "64-9999999999999999999-10", "1x" + "9" * 5000 + "-10", "64-" + "9" * 5000,
        "99999999-99999999", "..", "/", "none.json", LONG + ".json", "g.txt",
    ],
    "input": [*NO_TEXT, *NO_NAME, "y", "h1"],
    "target": [*NO_TEXT, *NO_NAME, "x", "h1"],
    "activation": [*NO_TEXT, *NO_NAME],
    "rule": [
        *NO_TEXT, *NO_NAME, "standard:", "standard:a=1", "nudged:strength", "nudged:strength=", "nudged:strength=abc",
        "nudged:strength=nan", "nudged:strength=1e300", "nudged:strength=0", "nudged:sign=up", "nudged:sign=1",
        "nudged:strength=1,strength=2",
    ],
    "device": [*NO_TEXT, *NO_NAME, "meta", "meta:0", "cuda:9999", "cpu:x", "xla", "vulkan", "privateuseone", "mkldnn"],
    "out": [*NO_TEXT, LONG, "/dev/null", "/dev/null/run", "/proc/run"],
    "steps": [*NO_WHOLE, "-1"],
    "test_steps": [*NO_WHOLE, "-1"],
    "epochs": [*NO_WHOLE, "-1", "0"],
    "batch_size": [*NO_WHOLE, "-1", "0"],
    "seed": [*NO_WHOLE, "-1"],
    "lr": [*NO_NUMBER, "0", "-1", "1e38", "1e300", "1e-320"],
    "eps": [*NO_NUMBER, "0", "-1", "1e300", "1e-320"],
    "state_lr": [*NO_NUMBER, "0", "-1", "1e300", "1e-320"],
    "fraction": [*NO_NUMBER, "0", "-1", "1.01", "1e-9"],
    "validation": [*NO_NUMBER, "1", "-1", "1e-9", "0.999999"],
}  # fmt: skip

STARTS = [
    *NO_TEXT, "::", "zzz", LONG, "normal:", "normal:mean", "normal:mean=", "normal:mean=abc", "normal:mean=nan",
    "normal:mean=inf", "normal:mean=1e300", "normal:std=-1", "normal:std=[1]", "normal:std=1,std=2", "normal:seed=abc",
    "normal:seed=1.5", "normal:seed=" + "9" * 30, "normal:sed=1", "null:first=zzz", "null:first=1", "forward:roots=1",
    "forward:fallback=zzz", "average:by=", "average:by=x", "average:by=x+y", "average:by=zzz", "average:classes=3",
    "average:classes=0", "average:classes=abc", "average:classes=4000000000000", f"average:classes={2**62}",
    "average:forward_depth=-1", "average:forward_depth=1.5", "memory:heads=7", "memory:heads=0", "memory:patterns=1.5",
    "memory:patterns=4000000000000", f"memory:embed_dim={2**60}", "memory:beta=nan", "memory:ridge=0",
    "memory:nodes=zzz", "memory:nodes=+", "equilibrium", "equilibrium:release=", "equilibrium:release=+",
    "equilibrium:release=zzz", "equilibrium:release=y,optimizer=sgd", "equilibrium:release=y,steps=0",
    "equilibrium:release=y,tolerance=0", "amortized", "amortized:given=zzz", "amortized:given=x+y", "amortized:given=",
    "amortized:given=x,activation=zzz", "amortized:given=x,seed=abc", "amortized:given=x,modules=1",
]  # fmt: skip
BAD |= {"init": ["", *STARTS], "test_init": STARTS}


def test_every_option_of_train_is_in_the_table() -> None:
    """An option that is added later is tried as well, or this fails."""
    assert set(BAD) == {key for key, field in FIELDS.items() if field.type != "bool"}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_value_of_train_is_one_message(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --dry-run as without: what a dry run accepts, the run must not refuse hours later."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.txt").write_text("", encoding="utf-8")
    for value in BAD[key]:
        for more in (("--dry-run",), ()):
            said = refused("train", "--epochs=1", f"{flag(key)}={value}", *more)
        assert not [path for path in tmp_path.iterdir() if path.name != "g.txt"], (key, value)
        if key not in ("init", "test_init", "rule", "data", "activation", "input", "target", "graph"):
            assert flag(key) in said or key in said, (key, value, said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stream-aligned", "--batch-size=33"),
        ("--stream-aligned", "--batch-size=2000"),
        ("--stream-aligned", "--fraction=0.1", "--batch-size=150"),
        ("--init=null:first=zero",),
        ("--rule=incremental", "--steps=0"),
        ("--rule=nudged", "--init=average"),
        ("--test-init=average:by=x",),
        ("--test-steps=5",),
    ],
)
def test_what_a_run_refuses_a_dry_run_refuses_with_the_same_words(arguments: tuple[str, ...]) -> None:
    assert refused("train", *arguments, "--dry-run") == refused("train", "--epochs=1", *arguments)


def test_a_dry_run_refuses_a_folder_that_the_run_would_refuse(tmp_path: Path) -> None:
    """Another run in the folder, no run to go on with, a damaged one, a file in the way."""
    ways = ("train", "--fraction=0.1", "--epochs=1")
    assert run(*ways, "--out", tmp_path / "run").exit_code == 0
    assert "holds another run" in refused(*ways, "--out", tmp_path / "run", "--dry-run")
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "Not a directory" in refused(*ways, "--out", tmp_path / "file" / "run", "--dry-run")
    settings = (tmp_path / "run" / "settings.toml").read_bytes()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "settings.toml").write_bytes(settings)
    assert "checkpoint" in refused("train", "--resume", tmp_path / "none", "--dry-run")
    assert run("train", "--resume", tmp_path / "run", "--dry-run").exit_code == 0
    for manifest in (tmp_path / "run" / "checkpoint").glob("*/manifest.json"):
        manifest.write_text("{", encoding="utf-8")
    assert "checkpoint" in refused("train", "--resume", tmp_path / "run", "--dry-run")


def test_a_dry_run_reads_the_data_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated download is known before the run begins, and so is what is not installed."""
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("PCGRAPH_DATA", str(tmp_path))
    for names in _IDX_FILES.values():
        for name in names:
            (tmp_path / "mnist" / name).write_bytes(b"\0\0\x08\x01")
    ways = "train", "--data=mnist", "--graph=784-10"
    assert refused(*ways) == refused(*ways, "--dry-run")
    shutil.rmtree(tmp_path / "mnist")
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "none")
    monkeypatch.setattr(sources, "_pooch", lambda: None)
    said = refused(*ways, "--dry-run")
    assert said == refused(*ways)
    assert "pip install 'pcgraph[data]'" in said
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert refused("train", "--graph=64-10") == refused("train", "--graph=64-10", "--dry-run")


def test_a_dry_run_says_that_a_download_would_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No site answers, one answers that it has no such file, the cache cannot be written to; else nothing is said."""
    pooch = pytest.importorskip("pooch")
    cache, asked = tmp_path / "cache", []
    monkeypatch.delenv("PCGRAPH_DATA", raising=False)
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "none")
    monkeypatch.setattr("pooch.os_cache", lambda name: cache / name)
    monkeypatch.setattr("pooch.retrieve", lambda *args, **named: pytest.fail("a dry run downloads nothing"))
    answers: list[object] = []

    def answer(self: object, url: str, *args: object, check_only: bool) -> object:
        asked.append(url)
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", answer)
    ways = "train", "--data=mnist", "--graph=784-10", "--dry-run"

    def said() -> str:
        done = run(*ways)
        assert done.exit_code == 0, done.output
        assert "mnist is not on this machine yet" in done.output
        return " ".join(done.output.split())

    first, second = sources.CATALOGUE["mnist"].mirrors
    answers[:] = [True]
    assert "would fail" not in said()
    answers[:] = [False, True]
    assert "would fail" not in said()
    answers[:] = [False, OSError("no route to it")]
    text = said()
    assert f"A download would fail now: {first}: it has no such file" in text
    assert f"A download would fail now: {second}: OSError: no route to it" in text
    assert asked[-2:] == [mirror + "train-images-idx3-ubyte.gz" for mirror in (first, second)]
    cache.write_text("a file", encoding="utf-8")
    asked.clear()
    assert f"A download would fail now: {cache}" in said()
    assert asked == []


def test_a_batch_that_no_machine_can_hold_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would kill the process in its first step, without a word."""
    asked = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2048}
    monkeypatch.setattr("pcgraph.network.machine.os.sysconf", asked.__getitem__)  # a machine with 8 MiB
    for more in ((), ("--dry-run",)):
        assert run("train", "--graph=64-500-10", "--fraction=0.2", "--epochs=1", *more).exit_code == 0
        said = refused("train", "--graph=64-500-10", "--batch-size=1400", "--epochs=1", *more)
        assert "a training step of a batch of 1400 would take" in said
        assert "--batch-size" in said


@pytest.mark.parametrize("command", ["demo", "search"])
def test_a_folder_that_nothing_can_be_written_to_is_refused_before_any_training(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes hours to find out must have a place to go."""
    monkeypatch.setattr(import_module("pcgraph.cli.demo"), "fit", lambda *args, **named: pytest.fail("it trains"))
    monkeypatch.setattr("pcgraph.tuning.search", lambda *args, **named: pytest.fail("it searches"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "s.toml").write_text("fraction = 0.1\nepochs = 1\n[space]\nlr = [0.1]\n", encoding="utf-8")
    what = (command,) if command == "demo" else (command, tmp_path / "s.toml", "--storage", tmp_path / "s.db")
    for out in ("/dev/null", "/proc/run", tmp_path / "file", tmp_path / "file" / "run", LONG):
        assert "cannot write to --out" in refused(*what, "--out", out)


def test_a_network_without_weights_is_refused(tmp_path: Path) -> None:
    graph = pcgraph.graphs.chain([64, 10])
    graph.edges["x", "y"]["trainable"] = False
    graph.nodes["y"]["bias"] = False
    write_graph(tmp_path / "frozen.json", graph)
    assert "nothing to train" in refused("train", "--graph", tmp_path / "frozen.json", "--dry-run")


@pytest.mark.parametrize("shape", [2**33, 2**40, 2**62, 2**70])
def test_a_network_that_no_machine_can_hold_is_refused_before_it_is_made(shape: int, tmp_path: Path) -> None:
    """The machine would be brought to its knees, and the process killed without a word."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=shape)
    graph.add_node("y", shape=10)
    graph.add_edge("x", "y")
    write_graph(tmp_path / "large.json", graph)
    assert "GiB" in refused("train", "--graph", tmp_path / "large.json", "--dry-run")


@pytest.mark.parametrize("shape", [2**40, 2**62, 2**70, [2**40, 2**40], float("inf"), 2.5, {"a": 1}, [[1]], ["x"]])
def test_neurons_that_cannot_be_numbered_are_refused(shape: object, tmp_path: Path) -> None:
    nodes = [{"id": "x", "shape": shape}, {"id": "y", "shape": 2}]
    (tmp_path / "g.json").write_text(
        json.dumps({"nodes": nodes, "edges": [{"source": "x", "target": "y"}]}), encoding="utf-8"
    )
    refused("check", tmp_path / "g.json", "--clamp", "x", "--level", "neurons")


# -- the other commands -----------------------------------------------------------------------------------------------

PATHS = ["", ".", "none.json", "none/none.json", "a\0b.json", "\udcff.json", "/dev/null", LONG + ".json", "folder.json"]


@pytest.mark.parametrize("command", ["check", "draw", "train"])
def test_a_path_that_cannot_be_read_is_one_message(command: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    for path in PATHS:
        if command == "train":
            refused("train", "--resume", path, "--dry-run")
            if path != "/dev/null":  # no settings at all are fine
                refused("train", "--config", path, "--dry-run")
        else:
            refused(command, path, *(("-o", "g.png") if command == "draw" else ()))


@pytest.mark.parametrize(
    "out",
    [
        "noext",
        "g.",
        ".png",
        "g.picture",
        "g.pgf",
        "a\0b.png",
        LONG + ".png",
        "g.json/g.png",
        "/dev/null/g.png",
        "dir.png",
    ],
)
def test_a_picture_that_cannot_be_written_is_one_message(graph_file: Path, out: str, monkeypatch) -> None:
    """And nothing is left behind: no file under another name, no half of one."""
    monkeypatch.chdir(graph_file.parent)
    (graph_file.parent / "dir.png").mkdir()
    said = refused("draw", graph_file, "--out", out)
    assert "picture" in said or "--out" in said
    assert {path.name for path in graph_file.parent.iterdir()} == {"g.json", "dir.png"}


NEEDS_DATA = {"average:by=x", *(text for text in STARTS if text.startswith("average:classes=") and text[16:].isdigit())}
"""What a graph alone cannot refuse."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seconds=nan", "--repair"), ("--seconds=-1",), ("--seconds=5",), ("--seconds=inf", "--repair"),
        ("--seconds=abc",),
        ("--level=neuron",), ("--phase=",), ("--phase==x",), ("--phase=train",), ("--phase=train=zzz",),
        ("--phase=train=x", "--phase=train=y"), ("--phase=train=x", "--clamp=x"),
        ("--clamp=x,zzz",), ("--clamp=zzz", "--clamp=x"), ("--clamp=\udcff",),
        *((f"--init={text}",) for text in ("", *STARTS) if text not in NEEDS_DATA),
    ],
)  # fmt: skip
def test_a_bad_value_of_check_is_one_message(graph_file: Path, arguments: tuple[str, ...]) -> None:
    refused("check", graph_file, *arguments)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    option=st.sampled_from(["--graph", "--input", "--rule", "--init", "--test-init", "--device", "--seed", "--data"]),
    value=st.text(max_size=20) | st.from_regex(r"[a-z]{4,8}(:[a-z]{2,5}=[-+0-9a-z.]{1,5}){0,2}", fullmatch=True),
)
def test_no_text_ends_in_a_traceback(option: str, value: str) -> None:
    done = run("train", "--dry-run", f"{option}={value}")
    assert done.exception is None or isinstance(done.exception, SystemExit), (option, value, repr(done.exception))
    assert done.exit_code in (0, 2)


# -- names ------------------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6) | st.text(r",:=+\ ab", min_size=1, max_size=6)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.sampled_from(",+"))
def test_every_node_can_be_named(names: list[str], separator: str) -> None:
    """Beside any others; a name that begins or ends with a space cannot, since spaces after commas are common."""
    names = [name for name in names if name == name.strip()]
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    assert nodes_named(graph, separator.join(map(as_typed, names)), separator) == names


def test_a_node_with_a_comma_in_its_name(tmp_path: Path) -> None:
    graph = nx.relabel_nodes(pcgraph.graphs.chain([64, 10]), {"x": "x,y", "y": "a:b=c+d"})
    write_graph(tmp_path / "g.json", graph)
    assert r"write x\,y" in refused("check", tmp_path / "g.json", "--clamp", "x,y")
    assert run("check", tmp_path / "g.json", "--clamp", r"x\,y").exit_code == 0
    assert run("check", tmp_path / "g.json", "--phase", r"test=x\,y").exit_code == 0
    ways = ("train", "--graph", tmp_path / "g.json", "--input", "x,y", "--target", "a:b=c+d", "--dry-run")
    assert run(*ways, "--init", r"average:by=a\:b\=c\+d").exit_code == 0


def test_the_repair_is_named_as_it_is_typed(tmp_path: Path) -> None:
    graph = nx.DiGraph([("x", "a,b"), ("a,b", "a,b")])
    write_graph(tmp_path / "g.json", graph)
    said = run("check", tmp_path / "g.json", "--phase", "train=x", "--repair").output
    assert r"initialise a\,b" in said


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_an_option_of_what_takes_none_is_refused_without_names_of_python(graph_file: Path) -> None:
    assert "zero takes no options (found 'a')" in refused("check", graph_file, "--init=zero:a=1")


def test_check_answers_for_a_memory_with_options(graph_file: Path) -> None:
    """What `train` takes by the same text."""
    done = run("check", graph_file, "--clamp=x,y", "--init=memory:patterns=4,heads=2,embed_dim=4")
    assert done.exit_code == 0, done.output


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert (done.exit_code, done.output) == (0, f"pcgraph {pcgraph.__version__}\n")


def test_a_terminal_without_unicode_gets_an_answer(tmp_path: Path) -> None:
    """Names and arrows that a terminal cannot show, and bytes of a path that are no UTF-8."""
    write_graph(tmp_path / "g.json", nx.DiGraph([("☃", "b"), ("b", "☃")]))
    command = [sys.executable, "-c", "from pcgraph.cli import main; main()", "check"]
    for file, code in ((str(tmp_path / "g.json").encode(), 1), (b"\xff.json", 2)):
        done = subprocess.run(
            [*command, file], capture_output=True, env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=TEXT, given_node=TEXT, target=TEXT, numbers=st.tuples(*3 * [st.floats(1e-37, 1e30)]))
def test_settings_are_read_as_they_were_written(tmp_path: Path, graph, given_node, target, numbers) -> None:
    """A run whose settings cannot be read again cannot be resumed."""
    if given_node == target:
        target += "2"
    made = Options(graph=graph, input=given_node, target=target, lr=numbers[0], eps=numbers[1], state_lr=numbers[2])
    write_config(tmp_path / "settings.toml", made)
    assert options_from({}, tmp_path / "settings.toml") == made


@pytest.mark.parametrize(
    "text", ["lr = " + "9" * 5000, "lr = " + "9" * 400, "x = " + "[" * 5000, 'out = "a\\u0000b"', "\0", "lr = nan"]
)
def test_a_file_of_settings_that_no_run_can_have(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        options_from({}, tmp_path / "run.toml")
    refused("train", "--config", tmp_path / "run.toml", "--dry-run")


def test_the_help_of_every_command_says_what_it_does() -> None:
    for command in ([], ["check"], ["draw"], ["train"]):
        done = run(*command, "--help")
        assert done.exit_code == 0
        assert "Usage" in done.output
