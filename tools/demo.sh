#!/bin/sh
# The main job on real data: demo.sh [--text | --causal] [OPTION of `clattn run`]...    for example: demo.sh --device cpu
# Installs what is missing, builds a release in build/release and runs attention layer 0 of all-MiniLM-L6-v2 (see
# examples/data) on three sentences; with --text on a text of 8 x 128 tokens, with --causal on the sentences with the
# causal mask. Each result is checked; outputs and pictures go to build/demo. Ends with 0 only when all agree.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,5s/^# \{0,1\}//p' tools/demo.sh; exit 0 ;; esac
job=sentences
case "${1:-}" in --text | --causal) job=${1#--} && shift ;; esac

sh tools/deps.sh demo

build=build/release
out=build/demo
set_up() { meson setup "$@" $build --buildtype=release -Dtests=disabled; }
[ -f $build/build.ninja ] || set_up
ninja -C $build || { # perhaps a tree of an older version or another place
    echo "demo.sh: setting up $build again" >&2
    set_up --reconfigure || { rm -rf $build && set_up; }
    ninja -C $build
}
mkdir -p $out
# pocl keeps compiled kernels below HOME and offers no device when it cannot.
[ -w "${HOME:-/nonexistent}" ] || export XDG_CACHE_HOME="$PWD/build/cache" POCL_CACHE_DIR="$PWD/build/cache/pocl"

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}
layer="$build/clattn run --weights examples/data/minilm-layer0.safetensors --heads 12"
sentences="--query examples/data/hidden.npy --padding-mask examples/data/padding.npy"
text="--query examples/data/hidden-8x128.npy --padding-mask examples/data/padding-8x128.npy"

# shellcheck disable=SC2086  # the three above are lists of words without spaces
case $job in
sentences)
    run $layer $sentences --expect examples/data/attention-out.npy --out $out/y.npy \
        --heatmap $out/heads.png --labels examples/data/tokens.txt "$@"
    printf '\nAll agree. Look at %s. A longer input: sh tools/demo.sh --text; causal: sh tools/demo.sh --causal\n' $out/heads.png
    ;;
text)
    run $layer $text --expect examples/data/attention-out-8x128.npy --out $out/y-8x128.npy "$@"
    printf '\nAll agree.\n'
    ;;
causal)
    run $layer $sentences --causal --out $out/y-causal.npy \
        --heatmap $out/heads-causal.png --labels examples/data/tokens.txt "$@"
    printf '\nIt agrees. Look at %s.\n' $out/heads-causal.png
    ;;
esac
