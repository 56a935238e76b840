#!/usr/bin/env python3
"""Sums up runs of `meson test`: count_tests.py LABEL:STATUS:LOG.json...

A test program that ends with the line `clattn-tests: P passed, F failed, S skipped` counts as that many tests, any
other program as one. A program that ended badly without naming a failure (a crash, a leak, a timeout) counts as one
failure, and so does a run that ended with a STATUS other than 0 although no test in its log failed. Prints each
skipped test's reason (the lines that begin with SKIP) and, last, `N passed, N failed` with `, N skipped` if there
were any. Ends with 1 when a test failed or none passed.
"""
import json
import re
import sys

SUMMARY = re.compile(r"^clattn-tests: (\d+) passed, (\d+) failed, (\d+) skipped\s*$", re.MULTILINE)
REASON = re.compile(r"^\s*(SKIP\b.*\S)", re.MULTILINE | re.IGNORECASE)
GOOD = {"OK", "EXPECTEDFAIL"}


def count(test):
    """(passed, failed, skipped) of one entry of meson's log."""
    summaries = SUMMARY.findall(test.get("stdout") or "")
    passed, failed, skipped = map(int, summaries[-1]) if summaries else (0, 0, 0)
    if test["result"] == "SKIP":
        skipped = max(skipped, 1)
    elif test["result"] not in GOOD:
        failed = max(failed, 1)
    elif not summaries:
        passed = 1
    return passed, failed, skipped


def read_run(label, status, path):
    """Prints what failed and what was skipped in one run, and returns its sums."""
    try:
        with open(path, encoding="utf-8") as log:
            tests = [json.loads(line) for line in log if line.strip()]
    except (OSError, ValueError) as error:
        print(f"{label}: no readable log: {error}")
        tests, status = [], status or 1
    sums = [0, 0, 0]
    for test in tests:
        counts = count(test)
        sums = [a + b for a, b in zip(sums, counts)]
        if counts[1]:
            print(f"{label}: FAILED {test['name']} ({test['result']}, exit status {test['returncode']})")
        if counts[2]:
            output = (test.get("stdout") or "") + (test.get("stderr") or "")
            for reason in REASON.findall(output) or ["SKIP (no reason given)"]:
                print(f"{label}: {test['name']}: {reason}")
    if status and not sums[1]:
        print(f"{label}: FAILED, meson test ended with {status} (log: {path})")
        sums[1] = 1
    print(f"{label}: {len(tests)} programs, {sums[0]} passed, {sums[1]} failed, {sums[2]} skipped")
    return sums


def main():
    total = [0, 0, 0]
    for argument in sys.argv[1:]:
        label, status, path = argument.split(":", 2)
        total = [a + b for a, b in zip(total, read_run(label, int(status), path))]
    passed, failed, skipped = total
    if not passed:
        print("no test passed")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
