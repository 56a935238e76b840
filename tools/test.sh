#!/bin/sh
# Builds clattn twice and runs all tests: test.sh [OPTION]...
#   --all-runtimes   also test on Intel's OpenCL runtime for CPUs, and compile all kernels for the GPUs of three vendors
#                    (tools/compile_matrix.sh); fetches the runtime (273 MB) into build/intel-runtime, or into
#                    $CLATTN_INTEL_RUNTIME, and the compilers (260 MB) into build/vendor-tools, or into
#                    $CLATTN_VENDOR_TOOLS; and run the kernels on Mesa's rusticl too (16 MB, build/rusticl-runtime or
#                    $CLATTN_RUSTICL_RUNTIME) and under oclgrind (tools/run_matrix.sh)
#   --full           also run the slow tests, all cases of the long tables under the sanitizers and on Intel's runtime, and
#                    every set of features for each vendor
#   --help           this text
# Installs what is missing. The debug tree (build/debug) runs under the address and undefined-behaviour sanitizers,
# the release tree is build/test-release; warnings are errors in both. The last line is `N passed, N failed`, with
# `, N skipped` when tests were skipped. Ends with 0 only when something passed and nothing failed.
set -eu
cd "$(dirname "$0")/.."
root=$PWD

runtimes='' select='--no-suite slow'
for option in "$@"; do
    case "$option" in
        --all-runtimes) runtimes=$option ;;
        --full) select='' && export CLATTN_TEST_FULL=1 ;;
        -h | --help) sed -n '2,14s/^# \{0,1\}//p' tools/test.sh; exit 0 ;;
        *) echo "test.sh: unknown option $option; see --help" >&2; exit 2 ;;
    esac
done

give_up() {
    echo "test.sh: $*" >&2
    echo "0 passed, 1 failed"
    exit 1
}

# build TREE OPTION...: sets up and compiles. A tree that cannot be set up again is started afresh.
build() {
    tree=build/$1
    shift
    echo "== build $tree"
    again=''
    [ ! -f "$tree/build.ninja" ] || again=--reconfigure
    meson setup $again "$tree" -Dwerror=true -Dtests=enabled "$@" >"$tree.log" 2>&1 ||
        { rm -rf "$tree" && meson setup "$tree" -Dwerror=true -Dtests=enabled "$@" >"$tree.log" 2>&1; } ||
        { cat "$tree.log"; give_up "meson setup of $tree failed"; }
    ninja -C "$tree" || give_up "$tree does not build"
}

# check LABEL TREE OPTION...: runs the tests of a tree and remembers the log; the counting is done at the end.
logs=''
check() {
    label=$1 tree=build/$2
    shift 2
    rm -f "$tree/meson-logs/$label"*.json
    echo "== test $label"
    status=0
    # shellcheck disable=SC2086  # a list of options
    meson test -C "$tree" --no-rebuild --print-errorlogs --logbase "$label" --timeout-multiplier 4 $select "$@" ||
        status=$?
    log=$(ls "$tree/meson-logs/$label"*.json) || log=none # with the wrapper's name in it, if there is one
    logs="$logs $label:$status:$log"
}

sh tools/deps.sh test ${runtimes:+"$runtimes"} || give_up "something is missing"
mkdir -p build
intel=${CLATTN_INTEL_RUNTIME:-$root/build/intel-runtime}
vendors=${CLATTN_VENDOR_TOOLS:-$root/build/vendor-tools}
rusticl=${CLATTN_RUSTICL_RUNTIME:-$root/build/rusticl-runtime}
if [ -n "$runtimes" ]; then
    sh tools/intel_runtime.sh "$intel" || give_up "no Intel runtime"
    sh tools/vendor_tools.sh "$vendors" || give_up "no offline compilers"
    sh tools/rusticl_runtime.sh "$rusticl" || echo "test.sh: the run matrix goes without rusticl" >&2
fi
export CLATTN_INTEL_RUNTIME="$intel" CLATTN_RUSTICL_RUNTIME="$rusticl"
[ ! -d "$vendors" ] || export CLATTN_VENDOR_TOOLS="$vendors"

# What clattn measured and verified earlier on this machine must not decide a test. pocl may keep what it compiled below
# HOME; it offers no device when it cannot.
[ -w "${HOME:-/nonexistent}" ] || export POCL_CACHE_DIR="$root/build/cache/pocl"
export POCL_CACHE_DIR="${POCL_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pocl/kcache}"
export XDG_CACHE_HOME="$root/build/cache"
rm -rf "$XDG_CACHE_HOME/clattn"

build test-release --buildtype=release
# Poisoned kernels are other programs, and to compile them anew under the sanitizers takes minutes; the run matrix runs
# all kernels poisoned.
# With -O1 they need three quarters of the time, but gcc 12 then takes what they check for paths of the program: the
# warnings about formats are the release tree's.
build debug --buildtype=debug -Doptimization=1 -Dc_args=-Wno-format \
    -Dpoison_local=disabled -Db_sanitize=address,undefined -Db_lundef=false

# protect_shadow_gap=0 lets NVIDIA's driver start; memory that is allocated holds 0xbe, not only its first 4 KB; threads
# that start pocl get LLVM's signal stack, which the sanitizer must not take for its own (use_sigaltstack).
export ASAN_OPTIONS="detect_leaks=1:malloc_context_size=10:protect_shadow_gap=0"
export ASAN_OPTIONS="$ASAN_OPTIONS:max_malloc_fill_size=1048576:use_sigaltstack=0"
export LSAN_OPTIONS="suppressions=$root/tests/lsan.supp:print_suppressions=0"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"

check release test-release # first: the debug tree finds pocl's kernels compiled, which is slow under the sanitizers
# compilers and other runtimes find the same in every tree
check debug debug --no-suite vendors --wrapper 'sh ../../tests/again.sh'
if [ -n "$runtimes" ]; then
    export OCL_ICD_VENDORS="$intel/icd"
    build/test-release/clattn devices | grep -q Intel || give_up "clattn does not see the runtime in $intel"
    [ -z "$select" ] || export CLATTN_TEST_EVERY=5 # of the longest tables, which pocl had whole
    others='--no-suite vendors --no-suite host' # sources and scripts are not others there
    # shellcheck disable=SC2086  # a list of options
    check intel test-release $others ${select:+--no-suite once}
fi

echo
# shellcheck disable=SC2086  # a list of words
exec python3 tools/count_tests.py $logs
