#!/bin/sh
# again.sh COMMAND...: runs a test, and once more when the leak sanitizer itself has crashed. That comes now and then: it
# looks through the memory of threads that a driver started and that may be ending.
all=$(mktemp -d) || exit 1
trap 'rm -rf "$all"' EXIT
once() { "$@" >"$all/out" 2>"$all/err"; }
once "$@"
code=$?
if [ $code != 0 ] && grep -q 'LeakSanitizer has encountered a fatal error' "$all/out" "$all/err"; then
    once "$@"
    code=$?
    echo "again.sh: the leak sanitizer crashed; this is the second run" >&2
fi
cat "$all/out"
cat "$all/err" >&2
exit $code
