#!/bin/sh
# Packs clattn with its tests for a machine that has a GPU and little else: field_pack.sh FOLDER
# FOLDER then holds the program, the tests, their data and every shared library but the C library's, about 60 MB. Copy it
# to the other machine (same architecture, a C library no older than this one's) and start FOLDER/run.sh there: it finds
# the drivers, verifies every kernel, runs the tests and measures beside torch where python3 has it.
# Where clang and libclc are (tools/vendor_tools.sh fetches them), it also packs the kernels as PTX, for an NVIDIA card
# whose machine has CUDA's driver but no OpenCL: card/ holds a driver of clattn's own (tools/card/) and what it runs.
#   CLATTN_BUILD         build folder with the tests (default build/field, built here)
#   CLATTN_VENDOR_TOOLS  folder with those compilers (default build/vendor-tools, else those on the system)
#   CLATTN_CARD_ONLY     a regular expression: pack the PTX of kernels whose name it is found in (default: all)
set -eu
case "${1:-}" in
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    '' | -*) echo "usage: field_pack.sh FOLDER" >&2; exit 2 ;;
esac
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
[ -z "$(ls -A "$folder")" ] || [ -f "$folder/run.sh" ] || { echo "field_pack.sh: $1 is not empty" >&2; exit 2; }
build=${CLATTN_BUILD:-build/field}
if [ -z "${CLATTN_BUILD:-}" ]; then
    [ -f "$build/build.ninja" ] || meson setup "$build" --buildtype=release -Dtests=enabled
    ninja -C "$build"
fi

# The tests that work on a device; the others are about this machine's files and processes.
suites='attention block copies decode features gemm kv_cache launches layers matrix mha packed past pretend random
    random_cache registry rope softmax storage'
rm -rf "${folder:?}/bin" "${folder:?}/lib" "${folder:?}/golden" "${folder:?}/card"
mkdir "$folder/bin" "$folder/lib"
cp "$build/clattn" "$folder/bin/"
for suite in $suites; do
    [ -x "$build/tests/test_$suite" ] || { echo "field_pack.sh: $build has no test_$suite" >&2; exit 1; }
    strip -o "$folder/bin/test_$suite" "$build/tests/test_$suite"
done
# Shared libraries, but not the C library and its dynamic linker, which belong together.
ldd "$folder"/bin/* | sed -n 's/.* => \(\/[^ ]*\) (.*/\1/p' | sort -u | while read -r library; do
    case "$library" in
        */libc.so.* | */libm.so.* | */libdl.so.* | */libpthread.so.* | */librt.so.*) ;;
        *) cp -L "$library" "$folder/lib/" ;;
    esac
done
mkdir "$folder/card"
strip -o "$folder/card/libclattn_card.so" "$build/tools/card/libclattn_card.so"
tools=${CLATTN_VENDOR_TOOLS:-build/vendor-tools}
set --
[ ! -d "$tools" ] || set -- --tools "$tools"
[ -n "${CLATTN_CARD_ONLY:-}" ] || set -- "$@" --asked "$build"
status=0
python3 tools/card_ptx.py "$build/clattn" "$folder/card/ptx" --only "${CLATTN_CARD_ONLY:-}" "$@" || status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 77 ] || exit 1
if [ -d "$folder/card/ptx" ]; then
    tar -C "$folder/card" -czf "$folder/card/ptx.tar.gz" ptx
    rm -rf "${folder:?}/card/ptx"
fi
cp -R tests/golden "$folder/golden"
cp tools/field_run.sh "$folder/run.sh"
cp bench/field_rows.txt bench/field_torch.py "$folder/"
# Whatever else it links from the build folder would be missing elsewhere.
LD_LIBRARY_PATH="$folder/lib" ldd "$folder/bin/clattn" | grep 'not found' >&2 && exit 1
echo "$folder: $(du -sh "$folder" | cut -f1); start run.sh in it"
