"""Search for settings, train with what was found, and ask scikit-learn's tools the same.

    python examples/search_and_compare.py [--quick] [--out FOLDER]

A network x -> h -> {digit, odd} has two targets. Its width, rate and inference steps are searched for on Optuna, on a
part of the training images, and the best are run again with other seeds. What was found is then trained on all of them,
with gradients clipped, two batches to an update, and a running average of the weights, which is what is asked in the
end, by metrics of torchmetrics. Beside it a grid search of scikit-learn chooses among networks that are its estimators,
and a network that is a regressor is cross-validated.

It takes some minutes on one core, downloads nothing, and needs the extras search, sklearn and plot, and torchmetrics.
"""

import argparse
from pathlib import Path

import networkx as nx
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.classification import BinaryAUROC, MulticlassF1Score

import pcgraph
from pcgraph import data, drawing

SPACE = {
    "width": [32, 64],
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "steps": {"low": 3, "high": 6},
}


def batches(images: data.Images, size: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """In an order that the seed draws: image, digit, and whether the digit is odd."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    known = {"x": images.images, "digit": images.one_hot(), "odd": (images.labels % 2).float()[:, None]}
    return [{node: values[rows] for node, values in known.items()} for rows in order.split(size)]


def declare(width: int) -> nx.DiGraph:
    """An image predicts hidden neurons, and these both targets."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=64)
    graph.add_node("h", shape=width, activation="relu")
    graph.add_node("digit", shape=10, energy="cross_entropy")
    graph.add_node("odd", shape=1, energy="bernoulli")
    graph.add_edges_from([("x", "h"), ("h", "digit"), ("h", "odd")])
    return graph


def train(settings, images, judged, *, seed, epochs, **more):
    """Train a network with these settings; return it, and its history."""
    net = pcgraph.PCNetwork(declare(settings["width"]), seed=seed)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    history = pcgraph.fit(
        net,
        batches(images, 25, seed),
        clamp=("x", "digit", "odd"),
        predict=["digit", "odd"],
        init=pcgraph.Forward(),
        steps=settings["steps"],
        state_optimizer=pcgraph.SGD(lr=0.05),
        optimizer=torch.optim.AdamW(net.parameters(), lr=settings["lr"]),
        clip=1.0,
        accumulate=2,
        ema=average,
        epochs=epochs,
        validate=lambda net: {"accuracy": pcgraph.evaluate(net, batches(judged, 500, 0), predict="digit").accuracy},
        progress=False,
        **more,
    )
    return average.module, history


def main() -> None:
    """Search, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/search_and_compare"))
    options = parser.parse_args()
    seen, unseen = data.load("digits", fraction=0.2 if options.quick else 1.0), data.load("digits", "test")
    images, judged = seen.split(0.2, seed=0)

    def trial(settings, progress):
        own = {"seed": settings["seed"], "epochs": settings["epochs"], "callbacks": progress}
        return train(settings, images, judged, **own)[1]

    found = pcgraph.search(
        trial, SPACE, trials=2 if options.quick else 12, epochs=1 if options.quick else 4,
        finalists=1 if options.quick else 3, final_epochs=1 if options.quick else 8, seeds=1 if options.quick else 2,
        storage=options.out / "search.db", progress=False,
    )  # fmt: skip
    found.write(options.out)  # report.md, tables, a picture
    drawing.search(found, options.out / "search.png")
    print(f"best of {len(found.trials)}: {found.best}")

    net, _ = train(found.best, seen, judged, seed=0, epochs=1 if options.quick else 15)
    metrics = {"digit": {"f1": MulticlassF1Score(10)}, "odd": {"auroc": BinaryAUROC()}}
    asked = pcgraph.evaluate(net, batches(unseen, 500, 0), predict=["digit", "odd"], metrics=metrics)
    for target, told in asked.items():
        print(f"{target}: {told}")

    model = pcgraph.PCClassifier(hidden=(found.best["width"],), epochs=1 if options.quick else 15, random_state=0)
    space = {"activation": ["relu", "tanh"], **({} if options.quick else {"lr": [1e-3, found.best["lr"]]})}
    grid = GridSearchCV(model, space, cv=2)
    grid.fit(seen.images.numpy(), seen.labels.numpy())
    print(f"by scikit-learn: {grid.best_params_}, {grid.score(unseen.images.numpy(), unseen.labels.numpy()):.1%}")

    # Another kind of data, with a regressor: the progress of diabetes in 442 people, beside a linear model.
    x, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    network = pcgraph.PCRegressor(hidden=(16,), epochs=2 if options.quick else 30, random_state=0)
    for name, regressor in (("PCRegressor", network), ("Ridge", Ridge())):
        scores = cross_val_score(make_pipeline(StandardScaler(), regressor), x, y, cv=2 if options.quick else 5)
        print(f"{name}: R² {scores.mean():.2f} ± {scores.std():.2f}")


if __name__ == "__main__":
    main()
