#!/usr/bin/env python3
"""docs/kernels.md holds what `clattn kernels` prints: test_kernel_table.py CLATTN SOURCE_ROOT [--write]"""
import subprocess
import sys
from pathlib import Path

START, END = "<!-- clattn kernels -->\n", "<!-- end -->"


def main():
    page = Path(sys.argv[2]) / "docs/kernels.md"
    table = subprocess.run([sys.argv[1], "kernels"], stdout=subprocess.PIPE, text=True, check=True).stdout
    text = page.read_text()
    head, rest = text.split(START)
    tail = rest.split(END)[1]
    wanted = head + START + table + END + tail
    if "--write" in sys.argv:
        page.write_text(wanted)
    good = page.read_text() == wanted
    if not good:
        print(f"FAIL {page} differs from `clattn kernels`; renew it: tests/test_kernel_table.py CLATTN ROOT --write")
    print(f"clattn-tests: {int(good)} passed, {int(not good)} failed, 0 skipped")
    return not good


if __name__ == "__main__":
    sys.exit(main())
