"""Write your own transform, energy, initializer and state optimizer, test each in a line, and train with all four.

Run with ``python examples/your_own_edge.py [--quick] [--out FOLDER]``. The images are the digits of 8 x 8 that come
with scikit-learn; nothing is downloaded. It takes some seconds.
"""

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import networkx as nx
import torch
from torch import nn
from torch.nn import functional

import pcgraph
from pcgraph import data, energies, initializers, optimizers, transforms
from pcgraph.drawing import style
from pcgraph.errors import BrokenPromise
from pcgraph.testing import conformance


class LocallyConnected(transforms.Transform):
    """Receptive fields as in a convolution, but with weights of their own at every place. torch has no such layer."""

    def __init__(self, size: tuple[int, int], channels: int, kernel: int) -> None:
        super().__init__()
        self.size, self.channels, self.kernel = tuple(size), channels, kernel
        self.grid = (size[0] - kernel + 1, size[1] - kernel + 1)
        self.weight = nn.Parameter(torch.zeros(math.prod(self.grid), channels, kernel**2))  # (places, out, in)

    # required -----------------------------------------------------------------------------------------------------

    def output_shape(self, input_shape):
        if tuple(input_shape) != self.size:
            raise pcgraph.GraphError(f"LocallyConnected looks at {self.size} (found {input_shape})", found=input_shape)
        return (self.channels, *self.grid)

    def forward(self, x):
        return torch.einsum("bip,poi->bop", self.patches(x), self.weight).unflatten(2, self.grid)

    def patches(self, x):
        return functional.unfold(x.unsqueeze(1), self.kernel)  # (batch, in, places)

    # optional, for speed ------------------------------------------------------------------------------------------

    def pullback(self, g, x):
        back = torch.einsum("bop,poi->bip", g.flatten(2), self.weight.detach())
        return functional.fold(back, self.size, self.kernel).squeeze(1)

    def weight_grad(self, g, x):
        return {"weight": torch.einsum("bop,bip->poi", g.flatten(2), self.patches(x))}

    # optional, to be drawn from the network's seed, and to be saved with the graph --------------------------------

    def fan_in(self, input_shape):
        return self.kernel**2

    def reset_parameters(self, generator=None, fan_in=None):
        bound = (fan_in or self.kernel**2) ** -0.5
        draw = torch.rand(self.weight.shape, generator=generator)
        self.weight.data.copy_((2 * draw - 1) * bound)

    def config(self):
        return {"size": list(self.size), "channels": self.channels, "kernel": self.kernel}


transforms.TRANSFORMS["locally_connected"] = LocallyConnected  # now graphs with it can be saved


class LogCosh(energies.Energy):
    """Squared for small errors and absolute for large ones: a mislabelled image pulls less."""

    zero_at_prediction = True  # plans may skip nodes that are at their prediction

    def energy(self, h, mu):
        e = (h - mu).flatten(1)
        return (e + functional.softplus(-2 * e) - math.log(2)).sum(1)

    def error(self, h, mu):  # optional: without it, autograd
        e = torch.tanh(h - mu)
        return e, e


class ExpectedError(initializers.Initializer):
    """Sweep forward, then start every node off its prediction by the error that was left there on average."""

    def __init__(self, net: pcgraph.PCNetwork, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.position = {node: i for i, node in enumerate(net.graph)}
        for node, i in self.position.items():
            self.register_buffer(f"error_{i}", torch.zeros(net.structure.shape(node), dtype=net.dtype))

    def requirement(self, report):
        return report.verdicts["forward"]  # a sweep must exist: on a cyclic graph this says why it does not

    def layout(self, report, context=None):  # optional: the default is the second action alone
        return initializers.Layout((initializers.Swept(tuple(report.order)), initializers.Given(self, report.free)))

    def init(self, block, out, context):
        for k, node in enumerate(block.nodes):
            out[k] += getattr(self, f"error_{self.position[node]}")

    def observe(self, result):  # optional: called by result.backward()
        for node, i in self.position.items():
            getattr(self, f"error_{i}").lerp_(result.errors[node].mean(0), 1 - self.momentum)


class Clipped(optimizers.StateOptimizer):
    """Gradient descent in which no neuron moves further than `limit` in a step."""

    fixes_zero = True  # a state without a gradient stays: plans may skip it

    def __init__(self, lr, limit: float = 1.0) -> None:
        super().__init__(lr)
        self.limit = limit

    def step(self, state, grad, memory):
        state.sub_((grad * memory["lr"]).clamp_(-self.limit, self.limit))


class Hasty(LocallyConnected):
    """The same edge with a slip in its pullback."""

    def pullback(self, g, x):
        return super().pullback(g, x) / self.kernel


def declare(own: bool) -> nx.DiGraph:
    """Digits to classes through one hidden group of 4 x 6 x 6 neurons: dense, or with the classes above."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(8, 8))
    graph.add_node("h", shape=(4, 6, 6), activation="relu")
    graph.add_node("y", shape=10)
    nx.add_path(graph, ["x", "h", "y"])
    if own:
        graph.edges["x", "h"]["transform"] = LocallyConnected((8, 8), channels=4, kernel=3)
        graph.nodes["y"]["energy"] = LogCosh()
    return graph


def check() -> None:
    """Three lines a class; a broken promise is found and explained."""
    conformance.check_transform(LocallyConnected((5, 4), channels=2, kernel=3), (5, 4))
    conformance.check_energy(LogCosh(), shape=3)
    conformance.check_state_optimizer(Clipped(lr=0.1, limit=0.05))
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([2, 3, 2]), dtype=torch.float64)
    clamps = {"x": torch.ones(3, 2, dtype=torch.float64), "y": torch.eye(2, dtype=torch.float64)[[0, 1, 0]]}
    conformance.check_initializer(ExpectedError(net), net, clamps)
    print("All four keep what they promise. One with a slip does not:")
    slip = Hasty((5, 4), channels=2, kernel=3)
    with torch.no_grad():
        slip.reset_parameters()
    try:
        conformance.check_transform(slip, (5, 4))
    except BrokenPromise as error:
        print(f"  {error}\n")


def train(own: bool, epochs: int) -> tuple[pcgraph.PCNetwork, list[float]]:
    """Train, and return the accuracy on unseen digits after every epoch."""
    seen, unseen = data.load("digits"), data.load("digits", "test")
    net = pcgraph.PCNetwork(declare(own), seed=0)
    init = ExpectedError(net) if own else pcgraph.Forward()
    mover = Clipped(lr=0.1, limit=0.1) if own else pcgraph.SGD(lr=0.1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    accuracy = []
    for epoch in range(epochs):
        for x, y in seen.batches(50, seed=epoch):
            optimizer.zero_grad()
            result = net.infer({"x": x.unflatten(1, (8, 8)), "y": y}, init=init, steps=8, optimizer=mover)
            result.backward()
            optimizer.step()
        guess = net.predict({"x": unseen.images.unflatten(1, (8, 8))}, "y").argmax(1)
        accuracy.append((guess == unseen.labels).float().mean().item())
    return net, accuracy


def picture(net: pcgraph.PCNetwork, curves: dict[str, list[float]], path: Path) -> None:
    """Accuracies, and the learned receptive fields of one channel at their 36 places."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for i, (name, values) in enumerate(curves.items()):
        left.plot(range(1, len(values) + 1), [100 * v for v in values], **style.look(i), label=name)
    left.set(xlabel="epoch", ylabel="accuracy on unseen digits (%)")
    left.legend(loc="lower right", fontsize=style.SMALL)
    fields = net.transform("x", "h").weight.detach()[:, 0].view(6, 6, 3, 3)
    tiles = functional.pad(fields, (0, 1, 0, 1), value=float("nan")).permute(0, 2, 1, 3).reshape(24, 24)
    bound = fields.abs().max().item()
    shown = right.imshow(tiles[:-1, :-1].numpy(), cmap=style.MAP, vmin=-bound, vmax=bound)
    right.set(title="receptive fields of channel 0, by place", xticks=[], yticks=[])
    figure.colorbar(shown, ax=right, label="weight")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two epochs instead of fifteen")
    parser.add_argument("--out", type=Path, default=Path("runs/your_own_edge"), help="where the picture goes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # products this small only wait for one another
    check()
    curves = {}
    for own, name in ((False, "dense edge, Gaussian, Forward, SGD"), (True, "all four of your own")):
        net, curves[name] = train(own, epochs=2 if options.quick else 15)
        count = sum(p.numel() for p in net.parameters())
        print(f"{name}: {curves[name][-1]:.1%} of unseen digits, {count:,} parameters")
    picture(net, curves, options.out / "your_own_edge.png")
    print(f"Picture: {options.out / 'your_own_edge.png'}")


if __name__ == "__main__":
    main()
