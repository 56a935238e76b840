#!/bin/sh
# Time and memory of attention against the length, for clattn and its peers, with marks where each runs out of memory or
# time: scaling.sh [OPTION of scaling.py]... for example: scaling.sh --causal --longest 32768
# Writes scaling.csv, scaling.png and scaling.svg to build/compare; CLATTN_* as for compare.sh. With --docs docs the
# pictures go there, and the figures into docs/performance.md.
set -eu
case "${1:-}" in -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
# shellcheck source=bench/prepare.sh
. bench/prepare.sh
mkdir -p build/compare
# shellcheck disable=SC2154 # set by prepare.sh
"$python" bench/scaling.py "$tool" build/compare "$@"
