# shellcheck shell=sh
# Sets `binary` to the program to test; for scripts that source it from the root of the project.
binary=${CLATTN_BINARY:-}
for choice in build/test-release/clattn build/release/clattn build/clattn; do
    [ -n "$binary" ] || [ ! -x "$choice" ] || binary=$choice
done
[ -n "$binary" ] || {
    echo "${0##*/}: no program: run tools/demo.sh or tools/test.sh, which build one, or set CLATTN_BINARY" >&2
    exit 2
}
