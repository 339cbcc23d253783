"""The fused kernels are compiled for cards here, on a machine that has none: nothing is launched.

    python -m tests.backends.compiled [part of a name ...]

Every launch that the networks below ask for is compiled as a card would compile it; one line tells of each kernel, the
bytes of its binary, of shared memory and of registers that did not fit. The interpreter knows more than the compiler
does, so that a kernel which computes right numbers by it may be none at all on a card.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)  # asked when the kernels are imported

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.compiler import compile as compiled

from pcgraph.backends.triton import adamw, choices, kernels, learning, means, scalars

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"  # asked when a network is made, which is then one of the CPU

import pcgraph
from pcgraph import SGD, Forward, Zero

#: Compute capabilities: of A100, and of H100 and H200.
CARDS = (80, 90)
#: Bytes of shared memory that a program may have on the smallest of these cards, and on those sold for desktops.
SHARED = 99 * 1024
TYPES = {
    torch.float32: "fp32", torch.int64: "i64", torch.int32: "i32", torch.bfloat16: "bf16", torch.float16: "fp16",
}  # fmt: skip
#: What has been compiled, by what it was compiled for.
done: set[Any] = set()


class Compiled:
    """This stands for a kernel, and compiles what would be launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.names = kernel, kernel.arg_names

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.compile

    def compile(self, *arguments: Any, **constants: Any) -> None:
        options = {key: constants.pop(key) for key in ("num_warps", "num_stages") if key in constants}
        signature, attributes = dict.fromkeys(constants, "constexpr"), {}
        for i, (name, value) in enumerate(zip(self.names, arguments)):
            if isinstance(value, torch.Tensor):
                signature[name] = f"*{TYPES[value.dtype]}"
                if value.data_ptr() % 16 == 0:
                    attributes[(i,)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32" if abs(value) < 2**31 else "i64"
        assert set(signature) == set(self.names), (self.kernel.__name__, set(self.names) ^ set(signature))
        for card in CARDS:
            key = (self.kernel.__name__, card, *(str(each) for each in (signature, constants, options, attributes)))
            if key in done:
                continue
            done.add(key)
            begun = time.perf_counter()
            early = {"EARLY": card >= 90}  # on this machine it is false
            fixed = {(self.names.index(name),): value for name, value in {**constants, **early}.items()}
            source = ASTSource(self.kernel, signature, fixed, attributes)
            made = compiled(source, target=GPUTarget("cuda", card, 32), options=options)
            shared, spilled = made.metadata.shared, spills(made.asm["ptx"], card)
            seconds = time.perf_counter() - begun
            print(
                f"{self.kernel.__name__} sm_{card} {len(made.asm['cubin'])} bytes, {shared} shared, {spilled} spilled, "
                f"{seconds:.1f} s", flush=True,
            )  # fmt: skip
            assert shared <= SHARED, f"{self.kernel.__name__} needs {shared} bytes of shared memory: {constants}"


def spills(ptx: str, card: int) -> int:
    """Bytes of registers that ptxas has put into memory, in stores and loads."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx, encoding="utf-8")
        name = f"sm_{card}{'a' * (card == 90)}"
        told = subprocess.run(
            [get_ptxas(card).path, "-v", f"--gpu-name={name}", source, "-o", source.with_suffix(".cubin")],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
    return sum(map(int, re.findall(r"(\d+) bytes spill", told)))


def learned(graph: Any, batch: int = 64, steps: int = 2, **settings: Any) -> None:
    """Infer and learn twice, so that gradients are also added to some; the numbers mean nothing."""
    net = pcgraph.PCNetwork(graph, seed=0, backend="triton")
    settings = {"init": Forward(fallback=Zero()), "optimizer": SGD(lr=0.05), **settings}
    clamps = {v: torch.zeros(batch, *net.structure.shape(v)) for v in ("x", "y")}
    if settings.pop("partly", False):
        clamps = {v: pcgraph.Masked(h, torch.arange(h.shape[1]).expand_as(h) % 2 == 0) for v, h in clamps.items()}
    for _ in range(2):
        net.infer(clamps, steps=steps, check=False, **settings).accumulate()


def cases() -> dict[str, Callable[[], None]]:
    """What is compiled, by name: those of the tests that compute, and the sizes of the benchmarks."""
    from tests.backends import test_triton as tests

    tests.DTYPE = torch.float32
    found: dict[str, Callable[[], None]] = {
        "groups": lambda: learned(pcgraph.graphs.random_groups(30, 32, 4, seed=0)),
        "chain": lambda: learned(pcgraph.graphs.chain([784, 512, 512, 10], activation="relu"), batch=200),
        "many tiles": lambda: learned(pcgraph.graphs.random_groups(60, 256, 2, seed=0), batch=512, steps=1),
        "neurons": lambda: learned(tests.neurons(), batch=32),
        "stored entries": lambda: learned(tests.scattered(), batch=8, optimizer=SGD({"a": 0.1, None: 0.05})),
        "duals": lambda: learned(tests.mixed(), duals=pcgraph.Duals(rate=0.3), precision={"a": 2.0}),
        "duals of neurons": lambda: learned(tests.neurons(), duals=pcgraph.Duals(rate=0.3), precision={5: 2.0}),
    }
    for name in tests.ACTIVATIONS:
        graph = tests.mixed(name)
        for v in "abc":
            graph.nodes[v]["activation"] = name
        found[f"activation {name}"] = partial(learned, graph)
    for energy in choices.ENERGIES:
        graph = tests.mixed()
        for v in ("b", "c", "y"):
            graph.nodes[v]["energy"] = energy()
        found[f"energy {energy.__name__}"] = partial(learned, graph)
    for name, make in tests.OPTIMIZERS.items():
        for of, graph, node in (("groups", tests.mixed, "a"), ("neurons", tests.neurons, 2)):
            found[f"{name} of {of}"] = lambda graph=graph, make=make, node=node: learned(
                graph(), optimizer=make(node), partly=True
            )

    def tf32() -> None:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            for name in ("groups", "chain", "many tiles"):
                found[name]()
        finally:
            torch.backends.cuda.matmul.fp32_precision = "ieee"

    def halves() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            learned(tests.mixed())

    def averaged() -> None:
        net, init = pcgraph.PCNetwork(pcgraph.graphs.chain([20, 40, 10]), seed=0, backend="triton"), pcgraph.Average()
        clamps = {"x": torch.zeros(30, 20), "y": torch.eye(10).repeat(3, 1)}
        for _ in range(2):
            net.infer(clamps, init=init, steps=1, optimizer=SGD(lr=0.05), check=False).remember()

    def moved() -> None:
        for rate in (1e-3, torch.tensor(1e-3)):
            parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (10, 2000)]
            for p in parameters:
                p.grad = torch.zeros_like(p)
            pcgraph.training.FusedAdamW(parameters, lr=rate).step()
            optimizer = pcgraph.training.FusedAdamW(parameters, lr=rate)
            optimizer._launch = lambda *_: adamw.one_by_one  # as in a recording whose gradients lie elsewhere
            optimizer.step()

    return found | {"class means": averaged, "AdamW": moved, "TF32": tf32, "autocast": halves}


def main(parts: list[str]) -> None:
    launched = {
        kernels: ("predict", "pull"), scalars: ("predict_scalars", "pull_scalars", "turn"),
        learning: ("learn", "learn_scalars"), means: ("means_of",), adamw: ("adamw",),
    }  # fmt: skip
    for room, names in launched.items():
        for name in names:
            setattr(room, name, Compiled(getattr(room, name)))
    for name, case in cases().items():
        if not parts or any(part in name for part in parts):
            print(f"-- {name}", flush=True)
            case()


if __name__ == "__main__":
    main(sys.argv[1:])
