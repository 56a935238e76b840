#!/bin/sh
# clattn beside torch, onnxruntime and openvino on this CPU: compare.sh [--quick] [--docs] [OPTION of compare.py]...
# Builds a release, makes a Python environment with the libraries (once; about 6 GB, some minutes), measures row by row
# and writes results.csv, results.md, performance.png and performance.svg to build/compare. --quick: a third of the rows,
# under three minutes instead of fifteen. --docs: renews docs/performance.md and its pictures. --intel FOLDER: measures
# clattn on Intel's runtime as well, which tools/intel_runtime.sh fetches into FOLDER.
#   CLATTN_BUILD  build folder that holds the tool already (default build/release, built here)
#   CLATTN_PEERS  folder of the Python environment (default build/peers)
#   CLATTN_MODEL  folder of the model of `clattn embed` (default build/model, fetched by tools/fetch_model.sh)
#   CLATTN_DEVICE the device (default cpu)
# Nothing else should run meanwhile; the tool warns when something does.
set -eu
case "${1:-}" in -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
docs=
quick=
for option; do
    shift
    case "$option" in
    --docs) docs="--docs docs" ;;
    --quick) quick="--quick --seconds 0.3" ;;
    *) set -- "$@" "$option" ;;
    esac
done
# shellcheck source=bench/prepare.sh
. bench/prepare.sh
model=${CLATTN_MODEL:-build/model}
[ -f "$model/model.safetensors" ] || sh tools/fetch_model.sh "$model"
out=build/compare
mkdir -p "$out"
rm -f "$out/results.csv" # what is reported was measured now
failed=0
# shellcheck disable=SC2086,SC2154 # two words or none; prepare.sh sets python and tool
"$python" bench/compare.py "$tool" "$out" --model "$model" $quick "$@" || failed=1
[ -f "$out/results.csv" ] || { echo "compare.sh: nothing was measured; see above" >&2; exit 1; }
# shellcheck disable=SC2086
python3 bench/report.py "$out" $docs
[ "$failed" = 0 ] || echo "compare.sh: not every row was measured; see above" >&2
exit "$failed"
