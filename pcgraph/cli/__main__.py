"""Run the ``pcgraph`` command, as in ``torchrun --nproc-per-node 2 -m pcgraph.cli train``."""

from pcgraph.cli import main

if __name__ == "__main__":
    main()
