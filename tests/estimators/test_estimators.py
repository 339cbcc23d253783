"""Networks as estimators of scikit-learn. Oracles: scikit-learn's own checks, and fit by hand."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import warnings
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import pcgraph
from pcgraph import PCClassifier, PCRegressor
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer, PCGraphError, PCGraphWarning
from tests import ROOT

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)

#: This check turns on scikit-learn's dispatch on arrays, which SciPy allows where it was told so before its import.
APART = "check_array_api_input"
CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name}")
    for made in (PCClassifier(epochs=12, lr=0.03, dtype="float64"), PCRegressor(epochs=12, lr=0.03, dtype="float64"))
    for estimator, check in estimator_checks_generator(made)
    if (name := getattr(check, "func", check).__name__) != APART
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_it_is_what_scikit_learn_takes_for_an_estimator(estimator: Any, check: Any) -> None:
    """Otherwise some meta-estimator, or some kind of data, fails or is misread in a way that nobody expects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_it_is_the_same_where_scikit_learn_dispatches_on_arrays() -> None:
    """The one check that needs an interpreter of its own; so all checks are passed."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sklearn.utils.estimator_checks import estimator_checks_generator as checks\n"
        "from pcgraph import PCClassifier, PCRegressor\n"
        "for made in (PCClassifier(epochs=2, dtype='float64'), PCRegressor(epochs=2, dtype='float64')):\n"
        "    for estimator, check in checks(made):\n"
        f"        if getattr(check, 'func', check).__name__ == {APART!r}:\n"
        "            check(estimator); print(type(estimator).__name__)\n"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["PCClassifier", "PCRegressor"]


def test_it_learns_what_it_is_shown_in_either_precision() -> None:
    for dtype in ("float32", "float64"):
        model = PCClassifier(epochs=30, random_state=0, dtype=dtype).fit(X, Y)
        assert model.score(X, Y) > 0.95
        assert model.net_.dtype == getattr(torch, dtype)
        x, y = make_regression(100, 4, n_targets=3, random_state=0)
        regressor = PCRegressor(epochs=60, random_state=0, dtype=dtype).fit(x, y)
        assert regressor.score(x, y) > 0.9
        assert regressor.predict(x).shape == (100, 3)


def test_it_is_fit_by_hand() -> None:
    """The network it trains is the one that `pcgraph.fit` would: same graph, same settings, none of its own."""
    model = PCClassifier(hidden=(6,), activation="tanh", epochs=3, batch_size=150, lr=0.02, random_state=0).fit(X, Y)
    graph = pcgraph.graphs.chain([4, 6, 3], activation="tanh")
    graph.nodes["y"]["energy"] = "cross_entropy"
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    net = pcgraph.PCNetwork(graph, seed=seed)
    pcgraph.fit(
        net, [(torch.tensor(X, dtype=torch.float32), torch.tensor(Y))], init=pcgraph.Forward(), steps=5, epochs=3,
        state_optimizer=pcgraph.SGD(lr=0.1), optimizer=torch.optim.Adam(net.parameters(), lr=0.02), progress=False,
    )  # fmt: skip
    for ours, theirs in zip(model.net_.parameters(), net.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)  # rows are added up in another order
    logits = net.predict({"x": torch.tensor(X, dtype=torch.float32)}, "y")
    np.testing.assert_allclose(model.predict_proba(X), logits.softmax(1).numpy(), rtol=1e-3, atol=1e-4)


def test_grid_search_pipeline_clone_and_pickle() -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), PCClassifier(epochs=10, random_state=0)),
        {"pcclassifier__lr": [1e-5, 2e-2], "pcclassifier__hidden": [(8,), (4, 4)]}, cv=2,
    ).fit(*load_iris(return_X_y=True))  # fmt: skip
    assert search.best_params_["pcclassifier__lr"] == 2e-2
    assert search.best_score_ > 0.8
    best = search.best_estimator_[-1]
    again = pickle.loads(pickle.dumps(best))
    assert (again.predict(X) == best.predict(X)).all()
    assert clone(best).get_params() == best.get_params()
    assert not hasattr(clone(best), "net_")
    assert cross_val_score(PCRegressor(epochs=5, random_state=0), *make_regression(60, 3, random_state=0), cv=2).shape


def test_any_graph_whose_sweep_answers_is_an_estimator() -> None:
    """With skips, images as inputs, and names of one's own."""
    graph = nx.DiGraph()
    graph.add_node("image", shape=(1, 8, 8))
    graph.add_node("h", shape=(4, 6, 6), activation="relu")
    graph.add_node("digit", shape=10, energy="cross_entropy")
    graph.add_edge("image", "h", transform=pcgraph.transforms.Conv2d(1, 4, 3))
    graph.add_edge("h", "digit", transform=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 10)))
    graph.add_edge("image", "digit", transform=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    x, y = load_digits(return_X_y=True)
    names = np.array([f"digit {c}" for c in y])
    model = PCClassifier(graph, input="image", target="digit", epochs=4, random_state=0).fit(x[:600] / 16, names[:600])
    assert model.score(x[600:900] / 16, names[600:900]) > 0.8
    assert list(graph.nodes["h"]) == ["shape", "activation"]


def test_probabilities_of_squared_error_are_cut_off_and_scaled() -> None:
    graph = pcgraph.graphs.chain([4, 8, 3], activation="tanh")
    model = PCClassifier(graph, epochs=10, random_state=0).fit(X, Y)
    outputs = model.net_.predict({"x": torch.tensor(X, dtype=torch.float32)}, "y").double().numpy()
    expected = np.clip(outputs, 0, None)
    np.testing.assert_allclose(model.predict_proba(X), expected / expected.sum(1, keepdims=True), rtol=1e-5)


def test_what_is_given_is_copied() -> None:
    """An initializer that remembers one fit would leak it into the next, of another fold."""
    init = pcgraph.Average(by="y", otherwise=pcgraph.Forward())
    before = {name: value.clone() for name, value in init.state_dict().items()}
    model = PCClassifier(init=init, epochs=3, random_state=0)
    first = model.fit(X, Y).predict_proba(X)
    assert init.state_dict().keys() == before.keys()
    assert np.array_equal(model.fit(X, Y).predict_proba(X), first)


def test_a_rule_without_inference_is_taken_as_it_is() -> None:
    assert PCClassifier(rule=pcgraph.learning.Backprop(), epochs=20, random_state=0).fit(X, Y).score(X, Y) > 0.9
    by_sgd = PCClassifier(optimizer=functools.partial(torch.optim.SGD, lr=0.5), epochs=10, random_state=0).fit(X, Y)
    assert by_sgd.score(X, Y) > 0.8


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"graph": pcgraph.graphs.chain([4, 5])}, ConfigError, "has 5 neurons in the graph, and the data has 3"),
        ({"graph": pcgraph.graphs.chain([3, 3])}, ConfigError, "has 3 neurons in the graph, and the data has 4"),
        ({"graph": pcgraph.graphs.chain([4, 3]), "input": "image"}, GraphError, "image"),
        ({"graph": pcgraph.graphs.decoder([3, 4])}, (GraphError, InvalidInitializer), ""),
        ({"graph": nx.DiGraph([("y", "x"), ("x", "y")])}, GraphError, "shape"),
        ({"dtype": "half"}, ConfigError, "dtype"),
        ({"epochs": 0}, ConfigError, "epochs"),
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"lr": -1.0}, ConfigError, "lr"),
        ({"state_lr": 0.0}, ConfigError, "state_lr"),
        ({"steps": -1}, ConfigError, "steps"),
        ({"init": "forward"}, (ConfigError, InvalidInitializer), ""),
        ({"optimizer": torch.optim.Adam([torch.ones(1)])}, ConfigError, "optimizer="),
        ({"hidden": (0,)}, GraphError, ""),
        ({"activation": "rleu"}, GraphError, "relu"),
        ({"clip": 0.0}, ConfigError, "clip"),
        ({"progress": "yes"}, ConfigError, "progress"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_when_it_is_fitted(settings: Any, error: Any, said: str) -> None:
    model = PCClassifier(**settings)
    with pytest.raises(error, match=said or None) as caught:
        model.fit(X, Y)
    assert isinstance(caught.value, PCGraphError)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises((PCGraphError, ClampError)):
        PCRegressor(**settings).fit(X, X[:, :3])


def test_without_scikit_learn_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['sklearn.base'] = None\nimport pcgraph\n"
        "try:\n    pcgraph.PCClassifier\nexcept pcgraph.PCGraphError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install pcgraph[sklearn]" in done.stdout


def test_what_training_warns_of_is_seen() -> None:
    """In the history alone, nobody hears that a layer did not learn."""
    with pytest.warns(PCGraphWarning, match="do not learn"):
        model = PCClassifier(hidden=(8, 8, 8), epochs=2, steps=1, random_state=0).fit(X, Y)
    assert len(model.history_.warnings) == 1


@pytest.mark.parametrize("key", ["input", "target"])
def test_names_of_ones_own_are_names_of_two_nodes(key: str) -> None:
    """A name that another node has would make one node of the two, and another network than was asked for."""
    settings: dict[str, Any] = {"input": "y", "target": "x", "epochs": 1}
    swapped = PCClassifier(**settings).fit(X, Y)
    assert [swapped.net_.graph.nodes[v]["shape"] for v in ("y", "h1", "x")] == [4, 64, 3]
    for other in ("h1", settings["target" if key == "input" else "input"]):
        with pytest.raises(ConfigError, match=key if other == "h1" else "two nodes"):
            PCClassifier(**{**settings, key: other}).fit(X, Y)
