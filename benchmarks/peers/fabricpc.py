"""One training step of FabricPC (pip install fabricpc==0.6.0), for ``python -m benchmarks``.

Run by FabricPC's own interpreter: ``python fabricpc.py '{"work": "mlp", "sizes": [784, 512, 10], ...}'``. It compiles
the step that its ``train`` runs, donates the buffers as that does, waits for each step, and answers requests as
:mod:`benchmarks.turns` says.
"""

import json
import os
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax

# This file has the name of the package: the folder of the script must not hide it.
sys.path.pop(0)
from fabricpc import setup_jax
from fabricpc.core import activations, initializers
from fabricpc.core.inference import InferenceSGD
from fabricpc.core.topology import Edge
from fabricpc.graph_assembly import TaskMap, graph
from fabricpc.graph_initialization import FeedforwardStateInit, initialize_params
from fabricpc.nodes import IdentityNode, Linear
from fabricpc.training.trainer import _make_step


def chain(sizes):
    """A multilayer perceptron with gelu and a linear output."""
    nodes = [IdentityNode(shape=(sizes[0],), name="x")]
    for i, size in enumerate(sizes[1:-1]):
        nodes.append(
            Linear(
                shape=(size,), name=f"h{i}", activation=activations.GeluActivation(),
                weight_init=initializers.KaimingInitializer(),
            )
        )  # fmt: skip
    nodes.append(
        Linear(
            shape=(sizes[-1],), name="y", activation=activations.IdentityActivation(),
            weight_init=initializers.XavierInitializer(),
        )
    )  # fmt: skip
    return nodes, list(zip(nodes, nodes[1:]))


def groups(count, size, wiring):
    """Groups wired as the edge list says; -1 is the input, `count` the output."""
    x = IdentityNode(shape=(size,), name="x")
    inner = [
        Linear(
            shape=(size,), name=f"g{i}", activation=activations.TanhActivation(),
            weight_init=initializers.XavierInitializer(gain=0.5),
        )
        for i in range(count)
    ]  # fmt: skip
    y = Linear(
        shape=(size,), name="y", activation=activations.IdentityActivation(),
        weight_init=initializers.XavierInitializer(gain=0.5),
    )  # fmt: skip
    by = {-1: x, count: y, **dict(enumerate(inner))}
    return [x, *inner, y], [(by[u], by[v]) for u, v in wiring]


def main():
    """Build, compile, run, print."""
    work = json.loads(sys.argv[1])
    setup_jax("cpu")
    begun = time.perf_counter()
    nodes, edges = chain(work["sizes"]) if work["work"] == "mlp" else groups(work["count"], work["size"], work["edges"])
    extra = {} if work["work"] == "mlp" else {"unroll": 1}
    structure = graph(
        nodes=nodes, edges=[Edge(source=u, target=v.slot("in")) for u, v in edges],
        task_map=TaskMap(x=nodes[0], y=nodes[-1]), graph_state_initializer=FeedforwardStateInit(),
        inference=InferenceSGD(eta_infer=work["rate"], infer_steps=work["steps"]), **extra,
    )  # fmt: skip
    key = jax.random.PRNGKey(0)
    params = jax.block_until_ready(initialize_params(structure, key))
    optimizer = optax.adamw(1e-3)
    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.standard_normal((work["batch"], nodes[0].shape[0])), jnp.float32),
        "y": jnp.asarray(np.eye(nodes[-1].shape[0], dtype=np.float32)[np.arange(work["batch"]) % nodes[-1].shape[0]]),
    }
    step = _make_step(structure, optimizer, algorithm="pc", with_state=False, donate=True)
    compiled = step.lower(params, state, batch, key).compile()
    count = 0

    def once():
        nonlocal params, state, count
        params, state = compiled(params, state, batch, jax.random.fold_in(key, count))[:2]
        jax.block_until_ready(params)
        count += 1

    once()
    print(json.dumps({"first": time.perf_counter() - begun}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line.split()[1])):
            start = time.perf_counter()
            once()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
