"""One training step of Deepity, a C++ engine (pip install pydeepity==0.1.0a3), for ``python -m benchmarks``.

Run by its own interpreter: ``python deepity.py '{"sizes": [784, 512, 10], "batch": 200, ...}'``, which answers requests
as :mod:`benchmarks.turns` says. It has tanh, not gelu.
"""

import json
import sys
import time

import numpy as np

# This file has the name of the package: the folder of the script must not hide it.
sys.path.pop(0)
import deepity


def main():
    """Build, run, print."""
    work = json.loads(sys.argv[1])
    sizes, layers = work["sizes"], []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers.append(deepity.Linear(a, b))
        if i < len(sizes) - 2:
            layers.append(deepity.TanH())
    net = deepity.SimplePCN(*layers, batch_size=work["batch"])
    net.configure(learning_rate=1e-3, inference_rate=work["rate"], lmbda=1e-4, optimizer="AdamW")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((work["batch"], sizes[0])).astype(np.float32)
    y = np.eye(sizes[-1], dtype=np.float32)[np.arange(work["batch"]) % sizes[-1]]
    print("{}", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line.split()[1])):
            begun = time.perf_counter()
            net.train_step(x, y, steps=work["steps"])
            times.append(time.perf_counter() - begun)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
