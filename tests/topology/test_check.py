"""The checker on single graphs: input, warnings, phases, verdicts, printing. A failure here misleads a user."""

import dataclasses
import html
import itertools
import json
import math
import re
import time
from types import SimpleNamespace

import networkx as nx
import pytest
from rich.console import Console
from rich.table import Table
from torch import nn

from pcgraph import transforms
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer, PCGraphError
from pcgraph.graphs import alexnet, chain, decoder, figure_9, vgg5
from pcgraph.topology import (
    Budget,
    Clamped,
    ErrorCoordinates,
    FreeCycle,
    FreeRoot,
    GraphCycle,
    GraphOrder,
    Leak,
    Nothing,
    NotSupplied,
    PhaseReport,
    Report,
    Sweep,
    SweepOrder,
    UnclampedRoot,
    Verdict,
    check,
    check_phase,
    check_phases,
    verify,
)
from pcgraph.topology.wording import phase_sheet, sheet


def feedback():
    """x -> h <-> y: the loop is cut while y is clamped."""
    return nx.DiGraph([("x", "h"), ("h", "y"), ("y", "h")])


class TestInput:
    @pytest.mark.parametrize("graph", [nx.Graph([(0, 1)]), nx.MultiGraph([(0, 1)])])
    def test_undirected(self, graph):
        with pytest.raises(GraphError, match=r"direction.*to_directed"):
            check(graph, {0})

    @pytest.mark.parametrize("graph", [nx.DiGraph(), nx.MultiDiGraph()])
    def test_empty(self, graph):
        with pytest.raises(GraphError, match="no nodes"):
            check(graph, ())

    @pytest.mark.parametrize("graph", [None, {"x": ["y"]}, [("x", "y")], SimpleNamespace(graph={})])
    def test_no_graph(self, graph):
        with pytest.raises(GraphError, match=r"nx\.DiGraph"):
            check(graph, ())

    def test_unknown_clamp_names_the_nearest_and_the_node(self):
        with pytest.raises(ClampError, match="did you mean 'h1'") as caught:
            check(chain([4, 3, 2]), {"H1"})
        assert caught.value.node == "H1"

    def test_unknown_clamp_of_another_type(self):
        graph = nx.DiGraph([(1, ("a", 2)), (("a", 2), None.__class__)])
        with pytest.raises(ClampError, match="did you mean 1"):
            check(graph, {"1"})
        with pytest.raises(ClampError, match=r"no node is named \('a', 3\)"):
            check(graph, {("a", 3)})

    def test_unknown_clamp_lists_few_of_many(self):
        with pytest.raises(ClampError) as caught:
            check(nx.path_graph(10_000, create_using=nx.DiGraph), {"zzz"})
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("clamped", [["x", ["y"]], [{"x"}], [{}]])
    def test_unhashable_clamp(self, clamped):
        with pytest.raises(ClampError, match="hashable"):
            check(feedback(), clamped)

    @pytest.mark.parametrize("clamped", ["x", "xy", b"x", 3, None])
    def test_clamps_that_are_no_collection(self, clamped):
        with pytest.raises(ClampError, match="collection"):
            check(feedback(), clamped)

    def test_level_is_checked(self):
        with pytest.raises(ValueError, match="level"):
            check(feedback(), {"x"}, level="layers")
        with pytest.raises(ValueError, match="level"):
            verify(feedback(), {"x"}, FreeRoot("x"), level="layers")

    def test_mixed_names(self):
        graph = nx.DiGraph([(1, "1"), ("1", (1, "1")), ((1, "1"), frozenset({1})), (2.5, (1, "1"))])
        report = check(graph, {1, 2.5})
        assert report.order == ("1", (1, "1"), frozenset({1}))
        json.dumps(report.to_dict())
        assert "(1, '1')" in str(report)

    def test_the_graph_is_read_once_and_never_changed(self):
        graph = feedback()
        before = nx.node_link_data(graph, edges="edges")
        report = check(graph, {"x", "y"})
        str(report), report.repair, report.to_dict()
        assert nx.node_link_data(graph, edges="edges") == before
        late = check(graph, {"x", "y"})
        graph.add_edge("h", "h")
        assert late.order == ("h",)

    def test_a_network_is_known_by_its_graph(self):
        assert check(SimpleNamespace(graph=feedback()), {"x", "y"}).order == ("h",)
        assert verify(SimpleNamespace(graph=feedback()), {"x", "y"}, SweepOrder(("h",)))

    def test_clamps_as_a_mapping_from_node_to_data(self):
        report = check(feedback(), {"x": object(), "y": 3.0})
        assert isinstance(report, Report)
        assert report.clamped == {"x", "y"}

    @pytest.mark.parametrize("clamped", [{"class": None}, {"x": 1.0, "class": None}, {"class": None, "x": None}])
    def test_none_is_no_value(self, clamped):
        """A user who gives None for the class at test time must not read what holds with the class known."""
        graph = nx.DiGraph([("x", "h"), ("h", "class")])
        for ask in (
            lambda: check(graph, clamped),
            lambda: check_phase(graph, clamped),
            lambda: check(graph, {"train": {"x", "class"}, "test": clamped}),
            lambda: verify(graph, clamped, Clamped("class")),
        ):
            with pytest.raises(ClampError, match="needs a value.*leave .* out") as caught:
                ask()
            assert clamped[caught.value.node] is None
        with pytest.raises(ClampError, match="did you mean 'x'"):
            check(graph, {"X": None})

    def test_a_partial_clamp_is_free(self):
        clamped = {"x": 1, "y": SimpleNamespace(mask=[True])}
        report = check(feedback(), clamped)
        assert not report.theorem_1
        assert report.partial == {"y"}
        assert any("partly clamped" in w and "y" in w for w in report.warnings)
        assert verify(feedback(), clamped, FreeCycle(("h", "y")))

    def test_report_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            check(feedback(), {"x"}).budget = None


class TestPhases:
    def test_a_feedback_edge_is_cut_in_training_only(self):
        both = check(feedback(), {"train": {"x", "y"}, "test": {"x"}})
        assert isinstance(both, PhaseReport)
        assert list(both) == ["train", "test"]
        assert len(both) == 2
        assert both["train"].order == ("h",)
        assert both["test"].cycle == ["h", "y"]
        text = str(both)
        head = next(line for line in text.splitlines() if "train" in line)
        assert "test" in head
        assert "Forward(fallback=…)" in text

    @pytest.mark.parametrize("kind", [set, frozenset, list, tuple, lambda nodes: dict.fromkeys(nodes, 1.0)])
    def test_every_collection_of_nodes_is_a_phase(self, kind):
        assert check(feedback(), {"train": kind(["x", "y"])})["train"].theorem_1

    def test_node_names_make_it_one_phase(self):
        assert isinstance(check(feedback(), {"x": [1.0], "y": (2.0,)}), Report)
        assert isinstance(check(feedback(), {}), Report)

    def test_a_phase_named_like_a_node_is_ambiguous(self):
        with pytest.raises(ClampError, match="phase") as caught:
            check(feedback(), {"x": {"x"}, "test": {"y"}})
        assert caught.value.node == "x"
        assert check_phases(feedback(), {"x": {"x"}, "y": {"y"}})["x"].clamped == {"x"}
        assert check_phase(feedback(), {"x": {"y"}}).clamped == {"x"}

    def test_an_unknown_node_names_its_phase(self):
        with pytest.raises(ClampError, match=r"in phase 'test'.*did you mean 'x'"):
            check(feedback(), {"train": {"x"}, "test": {"X"}})

    def test_renderings(self):
        both = check(feedback(), {"train": {"x", "y"}, "te<st": {"x"}})
        assert set(json.loads(json.dumps(both.to_dict()))["phases"]) == {"train", "te<st"}
        assert isinstance(both.__rich__(), Table)
        assert "te&lt;st" in both._repr_html_()
        assert repr(both) == (
            "<PhaseReport: 'train': all hold but Forward(); "
            "'te<st': all hold but Forward(), Forward(roots=…), Average(by=…)>"
        )


class TestWarnings:
    def test_an_isolated_node_is_valid_and_useless(self):
        graph = nx.DiGraph([("x", "y")])
        graph.add_node("z")
        for clamped in ({"x"}, {"x", "z"}):
            report = check(graph, clamped)
            assert report.theorem_1
            assert report.isolated == ("z",)
            assert report.free_roots == ()
            assert report.warnings == ("useless: no edge touches z",)
        assert not check(graph, {"x"}).proposition_3_2, "as printed: it is a root, and not clamped"
        assert "remove it" in check(graph, {"x"}).verdicts["forward"].remedy

    def test_a_part_without_data_is_feasible_and_independent(self):
        graph = nx.DiGraph([("x", "y"), ("a", "b"), ("c", "b")])
        nx.set_node_attributes(graph, {"a": 0.0, "c": 0.0}, "prior")
        report = check(graph, {"x"})
        assert report.theorem_1
        assert report.warnings == ("independent of the data: no clamped node is connected to a, b, c",)

    def test_connection_counts_either_way(self):
        assert check(nx.DiGraph([("h", "x"), ("h", "g")]), {"x"}).warnings == ()

    @pytest.mark.parametrize(
        "transform",
        [
            ("conv2d", {}),
            nn.Conv2d(1, 2, 3),
            transforms.ConvTranspose2d(1, 2, 3),
            transforms.Module(nn.Conv2d(1, 2, 3)),
        ],
        ids=lambda t: type(t).__name__,
    )
    def test_a_bias_for_each_place_behind_a_convolution(self, transform):
        """It breaks what the convolution is for, without a word; said in words, or behind other edges, it is meant."""
        graph = nx.DiGraph()
        graph.add_nodes_from([("x", {"shape": (1, 6, 6)}), ("h", {"shape": (2, 4, 4)}), ("y", {"shape": 3})])
        graph.add_edge("x", "h", transform=transform)
        graph.add_edge("h", "y")
        (warning,) = check(graph, {"x"}).warnings
        assert warning.startswith("a bias for each place of an image: h, behind convolutions")
        assert "bias='channel'" in warning
        for bias in ("channel", False, True):
            graph.nodes["h"]["bias"] = bias
            assert check(graph, {"x"}).warnings == ()
        del graph.nodes["h"]["bias"]
        graph.add_edge("y", "h")
        assert not any("place" in text for text in check(graph, {"x"}).warnings)

    def test_the_builders_of_images_share_their_biases(self):
        for graph in (vgg5(), alexnet(hidden=8)):
            assert check(graph, {"x", "y"}).warnings == ()

    def test_nothing_clamped(self):
        assert check(feedback(), ()).warnings == ("nothing is clamped: no state depends on any data",)


class TestVerdicts:
    """The remedy must be true: doing what it says must help."""

    def test_a_chain(self):
        report = check(chain([4, 3, 2]), {"x", "y"})
        assert all(report.verdicts.values())
        assert report.verdicts["forward"].witness == GraphOrder(("x", "h1", "y"))
        assert report.verdicts["average"].witness == Clamped("y", target=True)
        assert "If y is one-hot, as Average(by='y')" in report.verdicts["average"].remedy
        assert "labels=" in report.verdicts["average"].remedy
        assert report.verdicts["equilibrium"].remedy == "", "x stays clamped when y is released"

    def test_a_cycle_that_the_clamps_cut_is_said_to_be_one(self):
        verdict = check(feedback(), {"x", "y"}).verdicts["forward"]
        assert not verdict
        assert verdict.witness == GraphCycle(("h", "y"))
        assert "cut every cycle" in verdict.remedy
        assert "Theorem 1" in verdict.remedy
        assert "Forward(fallback=Zero())" in verdict.remedy

    def test_a_cut_cycle_and_an_unknown_root(self):
        graph = feedback()
        graph.add_edge("r", "h")
        verdict = check(graph, {"x", "y"}).verdicts["forward"]
        assert "cut every cycle" in verdict.remedy
        assert "value for r" in verdict.remedy
        assert check(graph, {"x", "y"}).sweep(initialised={"r"}).complete

    def test_a_free_cycle(self):
        report = check(feedback(), {"x"})
        forward, roots, fallback = (report.verdicts[k] for k in ("forward", "forward(roots)", "forward(fallback)"))
        assert not forward
        assert "needs a directed acyclic graph (found the cycle h → y → h)" in forward.message
        assert "Forward(fallback=Zero())" in forward.remedy
        assert "here it sweeps 0 of 2 free nodes" in forward.remedy
        assert "every root has a value" not in forward.remedy
        assert "cut every cycle" not in forward.remedy
        assert not roots
        assert roots.witness == FreeCycle(("h", "y"))
        assert fallback
        assert fallback.witness.blocked == {"h", "y"}
        assert "0 of 2" in fallback.reason

    def test_a_generative_model(self):
        report = check(decoder([2, 3, 4]), {"x"})
        assert report.verdicts["forward"].witness == UnclampedRoot("h0")
        assert "Forward(roots=Zero())" in report.verdicts["forward"].remedy
        assert report.verdicts["forward(roots)"].valid
        assert report.verdicts["forward(roots)"].witness == Sweep(("h1",), initialised=frozenset({"h0"}))
        assert report.verdicts["memory"].witness == Clamped("x")
        assert report.sweep().witness == FreeRoot("h0")
        assert "If x is one-hot" in report.verdicts["average"].remedy
        equilibrium = report.verdicts["equilibrium"]
        assert equilibrium.witness == Clamped("x", target=True)
        assert str(equilibrium.witness) == "x is clamped and predicted"
        assert equilibrium.reason == "holds on any graph, but needs a clamp that stays"
        assert "The only clamp is x" in equilibrium.remedy
        assert "no data would be left" in equilibrium.remedy
        assert verify(decoder([2, 3, 4]), {"x"}, equilibrium.witness)

    def test_a_cycle_and_a_root_both_stand_in_the_way(self):
        """The remedy must not promise a full sweep from cutting the cycle alone."""
        graph = feedback()
        graph.add_edge("r", "h")
        assert "holds a clamp and every root has a value" in check(graph, {"x"}).verdicts["forward"].remedy
        assert not check(graph, {"x", "y"}).theorem_1

    def test_a_prior_is_a_known_value_but_no_clamp(self):
        graph = decoder([2, 3, 4])
        graph.nodes["h0"]["prior"] = 0.0
        report = check(graph, {"x"})
        assert report.theorem_1
        assert report.order == ("h0", "h1")
        assert not report.proposition_3_2
        assert "prior" in report.verdicts["forward"].remedy

    def test_at_test_time_there_is_no_class(self):
        report = check(chain([4, 3, 2]), {"x"})
        assert not report.verdicts["average"]
        assert report.verdicts["average"].witness == Nothing(target=True)
        assert "labels" not in report.verdicts["average"].remedy

    def test_memory_needs_something_to_recall_from(self):
        report = check(chain([4, 3, 2]), ())
        assert not report.verdicts["memory"]
        assert report.verdicts["memory"].witness == Nothing()

    def test_everything_clamped(self):
        report = check(feedback(), {"x", "h", "y"})
        assert report.order == ()
        assert report.theorem_1
        assert report.repair == frozenset()
        assert "no node is free" in str(report)

    def test_refusal_carries_the_witness(self):
        verdict = check(feedback(), {"x"}).verdicts["forward"]
        with pytest.raises(InvalidInitializer, match="cycle h → y → h") as caught:
            verdict.require()
        assert caught.value.witness is verdict.witness
        assert caught.value.verdict is verdict
        good = check(feedback(), {"x"}).verdicts["zero"]
        assert good.require() is good

    def test_a_configured_initializer_answers_for_itself(self):
        class Mine:
            def requirement(self, report):
                return Verdict(not report.cycle, "is mine")

        assert check(feedback(), {"x", "y"}).verdict(Mine()).valid
        assert not check(feedback(), {"x"}).verdict(Mine()).valid


class TestSweep:
    def test_what_is_not_asked_for_is_not_swept(self):
        sweep = check(chain([5, 4, 3, 2]), {"x"}).sweep(among={"h2"})
        assert sweep.order == ()
        assert sweep.blocked == {"h2"}
        assert sweep.witness == NotSupplied("h2", "h1")
        assert verify(chain([5, 4, 3, 2]), {"x"}, sweep)
        assert not verify(chain([5, 4, 3, 2]), {"x"}, NotSupplied("h1", "x"))

    def test_the_first_layers(self):
        report = check(chain([5, 4, 3, 2]), {"x", "y"})
        sweep = report.sweep(among=[v for v, d in report.depth.items() if d <= 1])
        assert sweep.order == ("h1",)
        assert sweep.complete

    def test_an_initialised_node_cuts_a_cycle(self):
        sweep = check(figure_9("bottom"), {0}).sweep(initialised={3})
        assert sweep.order == (1, 2, 4, 5)
        assert sweep.initialised == {3}
        assert str(sweep) == "sweep of 4 of 4: nodes 1, 2, 4, 5"

    def test_unknown_names(self):
        report = check(chain([5, 4, 3]), {"x"})
        with pytest.raises(GraphError, match="did you mean h1"):
            report.sweep(initialised={"h11"})

    def test_verify_knows_its_claims_only(self):
        with pytest.raises(ConfigError, match="claims"):
            verify(feedback(), {"x"}, "h")

    @pytest.mark.parametrize(
        "claim",
        [FreeCycle(("h", "nowhere")), FreeCycle(()), FreeCycle(("h", "y", "h", "y")), GraphCycle(("x", "h")),
         FreeRoot("nowhere"), UnclampedRoot("nowhere"), Clamped("nowhere"), Clamped("h"), Clamped("x", target=True),
         Nothing(), SweepOrder(("nowhere",)), SweepOrder(("h", "h", "y")), Sweep((), frozenset({"nowhere"})),
         GraphOrder(("x", "h", "y")), NotSupplied("nowhere", "h"), NotSupplied("h", "nowhere"),
         Sweep((), frozenset({"h", "y"})), Sweep((), frozenset({"h", "y"}), witness=FreeRoot("x")),
         Sweep((), frozenset({"h", "y"}), witness=NotSupplied("h", "y")),
         Sweep((), frozenset({"h", "y"}), witness=GraphCycle(("h", "y"))),
         Leak(()), Leak(("nowhere",)), Leak(("x", "h")), Leak(("h", "y")), Leak(("x",)),
         ErrorCoordinates(("h", "y")), ErrorCoordinates(("y",)), ErrorCoordinates(("y",), frozenset({"h", "x"})),
         ErrorCoordinates(("x", "y"), frozenset({"h"})), ErrorCoordinates(("y", "h"), frozenset({"h"}))],
    )  # fmt: skip
    def test_false_claims(self, claim):
        assert not verify(feedback(), {"x"}, claim)

    def test_a_cycle_through_a_clamp_is_not_free(self):
        assert not verify(feedback(), {"x", "y"}, FreeCycle(("h", "y")))
        assert verify(feedback(), {"x", "y"}, GraphCycle(("h", "y")))
        assert not verify(feedback(), {"x", "y"}, Nothing(target=True))
        assert verify(feedback(), {"x"}, Nothing(target=True))


class TestRepair:
    def test_disjoint_rings_need_one_node_each(self):
        graph = nx.disjoint_union_all([nx.cycle_graph(n, create_using=nx.DiGraph) for n in (2, 3, 5)])
        report = check(graph, ())
        assert len(report.repair) == 3
        assert report.repair_is_minimal

    def test_loops_are_forced_and_roots_join(self):
        graph = nx.DiGraph([("r", "a"), ("a", "a"), ("a", "b"), ("b", "b")])
        assert check(graph, ()).repair == {"r", "a", "b"}

    @pytest.mark.parametrize("n", [2, 5, 9])
    def test_a_complete_digraph_keeps_one_node(self, n):
        report = check(nx.complete_graph(n, create_using=nx.DiGraph), ())
        assert len(report.repair) == n - 1
        assert report.repair_is_minimal

    def test_none_was_asked_for(self):
        report = check(feedback(), {"x"}, repair=False)
        assert report.repair is None
        assert report.repair_is_minimal is None
        assert report.repair_witness is None
        assert "repair:" not in str(report)
        assert report.to_dict()["repair"] is None

    def test_a_budget_of_nothing_is_greedy_and_says_so(self):
        graph = nx.gnp_random_graph(30, 0.2, seed=1, directed=True)
        greedy = check(graph, (), repair=Budget(nodes=0))
        assert greedy.repair_is_minimal is False
        assert check(graph, greedy.repair).theorem_1
        assert "greedy" in str(greedy)
        best = check(graph, (), repair=Budget(seconds=None))
        assert best.repair_is_minimal
        assert len(best.repair) <= len(greedy.repair)
        assert "smallest" in str(best)

    def test_the_search_betters_the_greedy_answer_somewhere(self):
        graphs = [nx.gnp_random_graph(14, 0.22, seed=seed, directed=True) for seed in range(40)]
        pairs = [[len(check(g, (), repair=Budget(seconds=None, nodes=n)).repair) for n in (0, None)] for g in graphs]
        assert any(exact < greedy for greedy, exact in pairs)

    def test_seconds_end_it(self):
        graph = nx.gnp_random_graph(120, 0.1, seed=0, directed=True)
        start = time.monotonic()
        report = check(graph, (), repair=Budget(seconds=0.2))
        assert report.repair_is_minimal is False
        assert check(graph, report.repair).theorem_1
        assert time.monotonic() - start < 10


class TestPrinting:
    def report(self):
        graph = nx.DiGraph([("x", "<h>"), ("<h>", "y"), ("y", "<h>"), ("r[a]", "y")])
        return check(graph, {"x"})

    def test_plain_text(self):
        text = str(self.report())
        for part in ("Proposition 3.2", "Theorem 1", "Forward(fallback=…)", "<h> → y → <h>", "r[a]", "repair"):
            assert part in text
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 120

    def test_an_order_does_not_look_like_a_path(self):
        """The sweep of two siblings has no edge from one to the other."""
        assert "a sweep exists: in the order a, b" in str(check(nx.DiGraph([("x", "a"), ("x", "b")]), {"x"}))

    def test_repr_is_one_line_with_the_verdicts(self):
        text = repr(check(chain([4, 3, 2]), {"x"}))
        assert text == "<Report: 3 nodes, 2 edges; clamped: x; 2 free; all hold but Average(by=…)>"
        assert "every initializer holds" in repr(check(chain([4, 3, 2]), {"x", "y"}))

    def test_a_condition_stands_wherever_yes_stands(self):
        """A bare "yes" for Average promises a user with a real-valued target what only a one-hot one has."""
        graph = feedback()
        graph.add_edge("r", "h")
        phases = check(graph, {"train": {"x", "y"}, "test": {"x"}, "blind": ()})
        found = {
            row[0]: dict(zip(phases, row[1:]))
            for row in phase_sheet({p: (r, r.verdicts) for p, r in phases.items()}).rows
        }
        for phase, report in phases.items():
            for verdict in report.verdicts.values():
                if verdict is report.verdicts["errors"]:
                    assert found["error coordinates"][phase].startswith(verdict.message)
                    continue
                cell = found[verdict.initializer][phase]
                assert cell.startswith("yes" if verdict.valid else "no: ")
                assert cell.endswith(verdict.remedy)
        assert found["Average(by=…)"]["train"].startswith("yes. If y is one-hot, as Average(by='y'); else")
        assert found["Zero()"]["train"] == "yes"
        assert "If y is one-hot" in " ".join(str(phases).replace("|", " ").split())

    @pytest.mark.parametrize("kind", [int, str, float])
    def test_no_name_can_be_taken_for_a_count(self, kind):
        """ "found 0" must not be read as "found none", nor "no value for 3" as a number of nodes."""
        inner = (
            figure_9("top"),
            figure_9("bottom"),
            decoder([2, 3, 4]),
            nx.DiGraph([("a", "a"), ("b", "c"), ("d", "e")]),
        )
        inner[-1].add_node("alone")
        said = set()
        for graph in inner:
            graph = nx.convert_node_labels_to_integers(graph)
            graph = nx.relabel_nodes(graph, {v: kind(901 + v) for v in graph})
            nodes = list(graph)
            for clamped in [(), nodes[:1], nodes[1:2], nodes[-1:], nodes[1:3], nodes]:
                for given in (clamped, {v: SimpleNamespace(mask=[True]) for v in clamped}):
                    report = check(graph, given)
                    table = sheet(report, report.verdicts)
                    said |= {repr(report), table.title, *itertools.chain(*table.rows, *table.notes)}
                    said |= {
                        str(report.sweep()),
                        str(report.repair_witness),
                        str(report.sweep(among=nodes[2:3]).witness),
                    }
                    said |= {verdict.message for verdict in report.verdicts.values()}
        name = r"9\d\d(\.0)?"
        told = rf"(nodes?|root|order|cycle|edge|leak) {name}((, | → ){name})*|by='?{name}"
        assert len(said) > 100
        assert not [text for text in said if re.search(name, re.sub(told, "", text))]

    def test_rich(self):
        table = self.report().__rich__()
        assert isinstance(table, Table)
        assert [str(column.header) for column in table.columns] == ["initializer", "valid", "why", "witness", "remedy"]
        console = Console(width=160, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
        console.print(self.report())
        assert "<h> → y → <h>" in console.export_text()

    def test_html_escapes_names(self):
        text = self.report()._repr_html_()
        assert html.escape("<h>") in text
        assert "<h>" not in text
        assert "</table>" in text

    def test_json(self):
        found = json.loads(json.dumps(self.report().to_dict(), allow_nan=False))
        assert found["theorem_1"] is False
        assert found["cycle"] == ["<h>", "y"]
        assert found["depth"] == {"x": 0, "<h>": None, "y": None, "r[a]": 0}
        assert found["free_roots"] == ["r[a]"]
        assert found["verdicts"]["forward"]["witness"] == {
            "kind": "GraphCycle", "text": "cycle <h> → y → <h>", "nodes": ["<h>", "y"]
        }  # fmt: skip
        assert found["repair_is_minimal"] is True

    def test_long_lists_are_cut(self):
        report = check(nx.cycle_graph(3000, create_using=nx.DiGraph), ())
        assert len(str(report)) < 10_000
        assert "3001 in all" in str(report)


class TestScale:
    def test_a_chain_of_100_000_nodes_needs_no_recursion(self):
        n = 100_000
        report = check(nx.path_graph(n, create_using=nx.DiGraph), {0, n - 1})
        assert report.order == tuple(range(1, n - 1))
        assert report.depth[n - 2] == n - 2
        assert len(report.components) == n
        assert report.proposition_3_2

    def test_a_ring_of_100_000_nodes(self):
        n = 100_000
        graph = nx.cycle_graph(n, create_using=nx.DiGraph)
        report = check(graph, ())
        assert len(report.cycle) == n
        assert report.cycle_is_shortest
        assert report.repair == {0}
        assert len(report.components) == 1
        assert set(report.depth.values()) == {math.inf}
        assert check(graph, {5}).order[0] == 6

    @pytest.mark.slow
    @pytest.mark.parametrize("cyclic", [False, True])
    def test_a_million_edges_within_ten_seconds(self, cyclic):
        n, m = 100_000, 1_000_000
        graph = nx.gnm_random_graph(n, m, seed=0, directed=True)
        if not cyclic:
            graph = nx.DiGraph((min(e), max(e)) for e in graph.edges)
        start = time.process_time()
        report = check(graph, {0, 1}, repair=False)
        seen = (report.verdicts, report.depth, report.components, report.cycle, report.graph_cycle, report.warnings)
        str(report)
        spent = time.process_time() - start
        assert len(seen[2]) >= 1
        assert (report.cycle is not None) == cyclic
        assert spent < 10, f"{spent:.1f} s of processor time"


def test_errors_are_pcgraph_errors():
    with pytest.raises(PCGraphError):
        check(nx.DiGraph(), ())
