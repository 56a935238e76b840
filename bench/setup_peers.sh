#!/bin/sh
# Makes a Python environment with torch, onnxruntime and openvino: setup_peers.sh DIR
# torch of PyPI is built for CUDA. On a machine without CUDA it imports all the same once its libraries are there and
# found, so DIR/activate-libs is written, which sets LD_LIBRARY_PATH. Takes some minutes and about 6 GB.
set -eu
[ $# -eq 1 ] || { echo "usage: setup_peers.sh DIR" >&2; exit 2; }
python3 -m venv "$1"
dir=$(cd "$1" && pwd)
get() { "$dir/bin/pip" install --quiet --disable-pip-version-check "$@"; }
get numpy onnx onnxruntime openvino torch
libs=$(find "$dir" -path '*nvidia*' -name '*.so*' -exec dirname {} \; | sort -u | tr '\n' ':')
echo "export LD_LIBRARY_PATH=\"$libs\${LD_LIBRARY_PATH:-}\"" >"$dir/activate-libs.part"
(
    # shellcheck source=/dev/null
    . "$dir/activate-libs.part"
    "$dir/bin/python" -c 'import torch, onnxruntime, openvino
print("peers: torch", torch.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)'
)
mv "$dir/activate-libs.part" "$dir/activate-libs" # only now: it marks the folder as ready
