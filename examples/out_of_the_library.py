"""Out of the library: one network as a plain module, run six other ways, looked into, and attacked.

    python examples/out_of_the_library.py [--quick] [--out runs/out_of_the_library] [--seeds 0 1 2]

``net.as_module("x", "y")`` computes a sweep by torch's operations alone. So it is exported (torch.export, ONNX),
compiled (torch.compile), traced (torch.jit.trace), and mapped over single samples (torch.vmap), and each is compared
with ``net.predict``. torch sees its input as well: how much each pixel counts for the answer, and which small change of
an image, in the direction of that gradient, makes the answer wrong. The attack is on a network trained by predictive
coding, and on one with the same first weights and batches trained by backpropagation.

It takes half a minute on one core, and downloads nothing; it needs the extras onnx, plot and data. torch.compile needs
a C++ compiler, and is left out where there is none.

Reference for the attack: A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards Deep Learning Models
Resistant to Adversarial Attacks", 2018, Section 2.1.
"""

from __future__ import annotations

import copy
import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from rows import Store, accuracy, arguments, mean_and_range, run
from sklearn.linear_model import RidgeClassifier
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.cpp_extension import get_cxx_compiler

import pcgraph
from pcgraph import data
from pcgraph.drawing import style
from pcgraph.learning import Backprop

RULES = {"standard": "predictive coding", "backprop": "backpropagation"}
EPSILONS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
BATCH = {0: torch.export.Dim("batch")}


# -- the ways out ----------------------------------------------------------------------------------------------------


def exported(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """As a program of torch.export, for a batch of any size."""
    return torch.export.export(module, (x,), dynamic_shapes=(BATCH,)).module()


def by_onnx(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """As a file of ONNX, which another library runs."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecated calls
        file = Path(folder) / "net.onnx"
        torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=(BATCH,), verbose=False).save(file)
        session = onnxruntime.InferenceSession(file.read_bytes())
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def compiled(module: nn.Module, x: Tensor, backend: str = "inductor") -> Callable[[Tensor], Tensor]:
    """As kernels that torch writes and compiles."""
    return torch.compile(module, fullgraph=True, dynamic=True, backend=backend)


def traced(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """As TorchScript, from one run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, which prefers torch.export by now, and of shapes that are compared
        return torch.jit.trace(module, x)


def mapped(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """As a function of one image, mapped over many."""
    return torch.vmap(module)


def alone(module: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """As a copy with weights of its own, which learns no more when the network does."""
    return copy.deepcopy(module)


WAYS = {
    "copy.deepcopy": alone, "torch.vmap": mapped, "torch.jit.trace": traced, "torch.export": exported,
    "torch.compile": compiled, "ONNX Runtime": by_onnx,
}  # fmt: skip


def differences(net: pcgraph.PCNetwork, images: Tensor, quick: bool) -> dict[str, float | str]:
    """Way -> the largest difference of any logit from what the engine computes."""
    module, expected = net.as_module("x", "y"), net.predict({"x": images}, "y")
    ways = dict(WAYS)
    if quick:  # the same graph, captured and run by torch's own operations
        ways["torch.compile"] = functools.partial(compiled, backend="aot_eager")
    elif not has_compiler():
        del ways["torch.compile"]
    with torch.no_grad():
        return {name: f"{(way(module, images[:2])(images) - expected).abs().max():.1e}" for name, way in ways.items()}


def has_compiler() -> bool:
    """Whether there is a compiler of C++, as torch.compile needs."""
    return shutil.which(get_cxx_compiler()) is not None


# -- the input -------------------------------------------------------------------------------------------------------


def saliency(module: nn.Module, images: Tensor) -> Tensor:
    """How fast the largest logit of each image changes with each pixel: one gradient an image, mapped."""
    return torch.vmap(torch.func.grad(lambda image: module(image).amax()))(images).abs().detach()


def attacked(module: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int = 20) -> Tensor:
    """Images of which no pixel is more than `epsilon` away, and for which the loss is as large as steps can make it."""
    found = images.clone()
    for _ in range(steps if epsilon else 0):
        found.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(module(found), labels), found)
        found = (found.detach() + 2.5 * epsilon / steps * gradient.sign()).clamp(images - epsilon, images + epsilon)
        found = found.clamp(0, 1)
    return found


def probed(net: pcgraph.PCNetwork) -> dict[str, float]:
    """Percent of unseen digits that least squares tell from what each node holds: one module reads them all."""
    nodes = ["h1", "h2", "y"]
    read = net.as_module("x", nodes)
    seen, unseen = (data.load("digits", part, normalize="unit") for part in ("train", "test"))
    with torch.no_grad():
        known, new = read(seen.images), read(unseen.images)
    return {
        f"from_{node}": round(100 * RidgeClassifier().fit(known[node].numpy(), seen.labels.numpy())
                              .score(new[node].numpy(), unseen.labels.numpy()), 2)
        for node in nodes
    }  # fmt: skip


# -- both ------------------------------------------------------------------------------------------------------------


def train(rule: str, seed: int, epochs: int) -> pcgraph.PCNetwork:
    graph = pcgraph.graphs.chain([64, 128, 128, 10], activation="relu")
    graph.nodes["y"]["energy"] = "cross_entropy"
    net = pcgraph.PCNetwork(graph, seed=seed)
    how = {"init": pcgraph.Forward(), "steps": 5, "state_optimizer": pcgraph.SGD(lr=0.1)}
    pcgraph.fit(
        net, data.load("digits", normalize="unit").batches(50, seed=seed), epochs=epochs, progress=False,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3), **({"rule": Backprop()} if rule == "backprop" else how),
    )  # fmt: skip
    return net


def measured(rule: str, seed: int, quick: bool) -> dict[str, object]:
    unseen, net = data.load("digits", "test", normalize="unit"), train(rule, seed, 2 if quick else 15)
    module, row = net.as_module("x", "y"), {"rule": rule, "seed": seed}
    for epsilon in EPSILONS:
        images = attacked(module, unseen.images, unseen.labels, epsilon)
        row[f"told_{epsilon:g}"] = accuracy(module(images), unseen.labels)
    return row | probed(net) | (differences(net, unseen.images, quick) if rule == "standard" else {})


def table(rows: Sequence[dict[str, str]]) -> str:
    """What is told under attack, mean (lowest to highest) over the seeds; and the largest difference of each way."""
    head = " | ".join(f"± {epsilon:g}" if epsilon else "as they are" for epsilon in EPSILONS)
    lines = [f"| trained by: unseen digits told (%) | {head} |", "|---" * (len(EPSILONS) + 1) + "|"]
    for rule, name in RULES.items():
        found = [row for row in rows if row["rule"] == rule]
        lines.append(f"| {name} | " + " | ".join(mean_and_range(found, f"told_{e:g}") for e in EPSILONS) + " |")
    lines += ["", "| trained by: told by a linear classifier (%) | from h1 | from h2 | from y |", "|---|---|---|---|"]
    for rule, name in RULES.items():
        found = [row for row in rows if row["rule"] == rule]
        lines.append(f"| {name} | " + " | ".join(mean_and_range(found, f"from_{v}") for v in ("h1", "h2", "y")) + " |")
    lines += ["", "| the module, by | largest difference from `net.predict` |", "|---|---|"]
    for way in WAYS:
        found = [float(row[way]) for row in rows if row.get(way)]
        largest = max(found, default=None)
        lines.append(f"| {way} | {'–' if largest is None else 0 if largest == 0 else f'{largest:.1e}'} |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], net: pcgraph.PCNetwork, path: Path) -> None:
    """What is told, by how far pixels may be moved; digits, what counts in them, and what an attack makes of them."""
    unseen, module = data.load("digits", "test", normalize="unit"), net.as_module("x", "y")
    images, labels = unseen.images[:6], unseen.labels[:6]
    changed = attacked(module, images, labels, 0.1)
    shown = {"digit": images, "what counts": saliency(module, images), "attacked": changed}
    figure = plt.figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(4, 5))
    ax = left.subplots()
    for k, (rule, name) in enumerate(RULES.items()):
        found = [row for row in rows if row["rule"] == rule]
        ax.plot(
            EPSILONS, [fmean(float(r[f"told_{e:g}"]) for r in found) for e in EPSILONS], label=name, **style.look(k)
        )
    ax.set(xlabel="each pixel moved by at most", ylabel="unseen digits told (%)", ylim=(0, 102))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    axes, answers = right.subplots(len(shown), len(images)), module(changed).argmax(1).tolist()
    for (name, row), line in zip(shown.items(), axes):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for value, cell in zip(row.view(-1, 8, 8).numpy(), line):
            cell.imshow(value, cmap="gray_r", vmin=0, vmax=1 if name != "what counts" else float(row.max()))
            cell.set(xticks=[], yticks=[])
    for line, told in ((axes[0], labels.tolist()), (axes[-1], answers)):
        for cell, one, true in zip(line, told, labels.tolist()):
            cell.set_xlabel(one, **({} if one == true else {"color": style.RED, "fontweight": "bold"}))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "out_of_the_library")
    wanted = [{"rule": rule, "seed": seed} for seed in args.seeds for rule in RULES]
    run(args, "out_of_the_library", wanted, functools.partial(measured, quick=args.quick), table)
    rows = Store(args.out / "out_of_the_library.csv", ["rule", "seed"]).rows
    picture(rows, train("standard", 0, 2 if args.quick else 15), args.out / "out_of_the_library.png")


if __name__ == "__main__":
    main()
