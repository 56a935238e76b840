#!/bin/sh
# Fetches Mesa's OpenCL (rusticl on llvmpipe, a processor as Mesa sees it) into a folder: rusticl_runtime.sh DIR
# tools/run_matrix.py finds it there. The packages are Debian's and are unpacked, not installed: their ICD files would
# make two more platforms appear in every OpenCL program. 23 MB to fetch, 70 MB in DIR. Does nothing when DIR is ready.
# What the library reads from fixed places must be installed (tools/deps.sh test --all-runtimes does that): libclc-15,
# and what else the packages depend on.
set -eu
[ $# -eq 1 ] || { echo "usage: rusticl_runtime.sh DIR" >&2; exit 2; }
fail() { echo "rusticl_runtime.sh: $*" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ ! -f "$dir/ready" ] || exit 0
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "for Linux on x86-64; this is $(uname -s) on $(uname -m)"
command -v apt-get >/dev/null || fail "apt-get is needed: the runtime comes from Debian's packages"

rm -rf "$dir/part"
mkdir -p "$dir/part/debs" "$dir/part/root"
trap 'rm -rf "$dir/part"' EXIT
trap 'exit 1' HUP INT TERM
(cd "$dir/part/debs" && apt-get download -q mesa-opencl-icd libllvmspirvlib15) >"$dir/part/apt.log" 2>&1 ||
    { tail -3 "$dir/part/apt.log"; fail "apt-get could not fetch the packages"; }
for deb in "$dir"/part/debs/*.deb; do dpkg -x "$deb" "$dir/part/root"; done

# A missing library would make the platform vanish silently.
libraries="$dir/part/root/usr/lib/x86_64-linux-gnu"
lost=$(LD_LIBRARY_PATH="$libraries" ldd "$libraries/libRusticlOpenCL.so.1" |
    sed -n 's/^[[:space:]]*\(.*\) => not found.*/ \1/p' | tr -d '\n')
[ -z "$lost" ] || fail "libraries are missing:$lost"
[ -f /usr/lib/clc/spirv64-mesa3d-.spv ] || fail "libclc-15 is not installed"
rm -rf "${dir:?}/root"
mv "$dir/part/root" "$dir/root"
touch "$dir/ready"
echo "rusticl is ready: CLATTN_RUSTICL_RUNTIME=$dir"
