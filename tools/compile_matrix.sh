#!/bin/sh
# Compiles every kernel for the GPUs of three vendors, without having one, and checks what their compilers made of it:
#   compile_matrix.sh [--fetch] [OPTION]... [TARGET]...
#   --fetch          first fetch the compilers into build/vendor-tools (tools/vendor_tools.sh: 260 MB from Debian and
#                    PyPI, two proprietary programs among them)
#   --help           the other options, which go to tools/compile_matrix.py
# $CLATTN_BINARY names the program (default: the first that exists of build/{test-release/,release/,}clattn);
# $CLATTN_VENDOR_TOOLS the folder with the compilers (default: build/vendor-tools, else those on the system).
set -eu
cd "$(dirname "$0")/.."
case " $* " in
*" -h "* | *" --help "*)
    sed -n '2,8s/^# \{0,1\}//p' tools/compile_matrix.sh
    exec python3 tools/compile_matrix.py --help
    ;;
esac
# shellcheck source=tools/find_program.sh
. tools/find_program.sh
tools=${CLATTN_VENDOR_TOOLS:-build/vendor-tools}
if [ "${1:-}" = --fetch ]; then
    shift
    sh tools/vendor_tools.sh "$tools"
fi
[ -d "$tools" ] || tools=''
exec python3 tools/compile_matrix.py "$binary" ${tools:+--tools "$tools"} "$@"
