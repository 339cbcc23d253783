#!/bin/sh
# The tests of a GPU, then the table of docs/performance.md, in at most four minutes on one card:
#
#   benchmarks/gpu.sh [section ...]      (see python -m benchmarks.gpu --help)
#
# It needs torch, triton, torch-geometric, networkx, numpy, safetensors, typer, rich, pytest, pytest-xdist and
# hypothesis, no installation of pcgraph and no network. OUT names the folder of what it writes, runs/ by default;
# PCGRAPH_DATA that of Fashion-MNIST, if it is at hand; TIER=0 leaves the tests out, JOBS says how many run at a time.
set -u
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
OUT="${OUT:-runs}"
export OUT
mkdir -p "$OUT"
PYTHON="${PYTHON:-python3}"
failed=0
if [ "${TIER:-1}" != 0 ]; then
    # torch compiles backpropagation meanwhile, into its cache on disk.
    $PYTHON -m benchmarks.gpu --compile >"$OUT/compile.txt" 2>&1 &
    compiling=$!
    timeout -s INT 95 $PYTHON -m pytest -m gpu -n "${JOBS:-8}" -q --tb=short -p no:cacheprovider --maxfail=200 \
        >"$OUT/tier.txt" 2>&1 || failed=1
    grep -E '^(FAILED|ERROR)|passed|failed|no tests ran' "$OUT/tier.txt" | cut -c1-250 | tail -n 60
    wait "$compiling" || echo "compiling failed: see $OUT/compile.txt"
fi
$PYTHON -m benchmarks.gpu --seconds 138 --tier "$OUT/tier.txt" --out "$OUT/gpu.json" "$@" || failed=1
exit "$failed"
