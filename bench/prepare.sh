# shellcheck shell=sh disable=SC2034 # what it sets is used by those who source it
# Sourced by compare.sh and scaling.sh, from the root of the repository: sets tool, model and python, and makes what is
# missing. CLATTN_BUILD, CLATTN_PEERS and CLATTN_MODEL name folders that hold it already.
command -v gnuplot >/dev/null || { echo "gnuplot is missing (apt install gnuplot-nox)" >&2; exit 2; }
tool="${CLATTN_BUILD:-}/clattn"
if [ -z "${CLATTN_BUILD:-}" ]; then
    [ -f build/release/build.ninja ] || meson setup build/release --buildtype=release
    ninja -C build/release clattn
    tool=build/release/clattn
fi
peers=${CLATTN_PEERS:-build/peers}
[ -f "$peers/activate-libs" ] || sh bench/setup_peers.sh "$peers"
python="$peers/bin/python"
# shellcheck source=/dev/null
. "$peers/activate-libs"
export PYTHONDONTWRITEBYTECODE=1
