#!/bin/sh
# Runs every kernel on every OpenCL runtime for CPUs and compares the results with the scalar reference:
#   run_matrix.sh [--fetch] [OPTION]... [PLACE]...
#   --fetch          first fetch the runtimes: Intel's into build/intel-runtime (273 MB, proprietary), Mesa's rusticl
#                    into build/rusticl-runtime (16 MB, from Debian); pocl and oclgrind are the system's
#   --help           the other options, which go to tools/run_matrix.py
# $CLATTN_BINARY names the program (default: the first that exists of build/{test-release/,release/,}clattn);
# $CLATTN_INTEL_RUNTIME and $CLATTN_RUSTICL_RUNTIME other folders.
set -eu
cd "$(dirname "$0")/.."
case " $* " in
*" -h "* | *" --help "*)
    sed -n '2,8s/^# \{0,1\}//p' tools/run_matrix.sh
    exec python3 tools/run_matrix.py --help
    ;;
esac
# shellcheck source=tools/find_program.sh
. tools/find_program.sh
if [ "${1:-}" = --fetch ]; then
    shift
    sh tools/intel_runtime.sh "${CLATTN_INTEL_RUNTIME:-build/intel-runtime}"
    sh tools/rusticl_runtime.sh "${CLATTN_RUSTICL_RUNTIME:-build/rusticl-runtime}"
fi
exec python3 tools/run_matrix.py "$binary" "$@"
