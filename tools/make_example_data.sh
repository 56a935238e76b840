#!/bin/sh
# Makes every computed file in examples/data again: make_example_data.sh [MODEL] [OUT]
# MODEL: folder of the model (default build/model, fetched when missing). OUT: default examples/data.
# PYTHON names an interpreter that has numpy, safetensors and tokenizers; without it they go into build/model-venv.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
model=${1:-$root/build/model}
out=${2:-$root/examples/data}
[ -f "$model/model.safetensors" ] || sh "$root/tools/fetch_model.sh" "$model"
if [ -z "${PYTHON:-}" ]; then
    PYTHON="$root/build/model-venv/bin/python"
    [ -x "$PYTHON" ] || python3 -m venv "$root/build/model-venv"
    "$PYTHON" -m pip install --quiet --no-input numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3
fi
data="$root/examples/data"
embed() { "$PYTHON" "$root/tools/embed_text.py" "$model" "$@" --out "$out"; }
mkdir -p "$out"
embed "$data/sentences.txt" --weights "$out/minilm-layer0.safetensors"
embed "$data/text.txt" --length 128 --suffix=-8x128
