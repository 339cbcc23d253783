"""A classifier that learns by predictive coding, in twenty lines.

Run ``python examples/classify.py``. It takes seconds; ``--quick`` trains less.
"""

import argparse
from pathlib import Path

import torch

import pcgraph
from pcgraph import data, drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three epochs instead of fifteen")
    parser.add_argument("--out", type=Path, default=Path("runs/classify"), help="where the picture goes")
    options = parser.parse_args()
    torch.set_num_threads(1)  # products this small only wait for one another

    train, test = data.load("digits"), data.load("digits", "test")
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 128, 128, 10], activation="relu"), seed=0)
    history = pcgraph.fit(
        net,
        train.batches(50, seed=0),
        init=pcgraph.Forward(),
        steps=5,
        state_optimizer=pcgraph.SGD(lr=0.1),
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3),
        epochs=3 if options.quick else 15,
        validate=test.batches(len(test), shuffle=False),
    )
    answers = net.predict({"x": test.images}, "y").argmax(1)
    print(f"Test accuracy: {(answers == test.labels).float().mean():.1%} of {len(test)} images.")

    options.out.mkdir(parents=True, exist_ok=True)
    drawing.learning_curve(history, options.out / "classify.png", title="Digits", judged="test")
    print(f"Picture: {options.out / 'classify.png'}")


if __name__ == "__main__":
    main()
