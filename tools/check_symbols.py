#!/usr/bin/env python3
"""Checks that the shared library exports exactly the names of runtime/symbols.txt, and the headers declare them.

usage: check_symbols.py SOURCE_ROOT LIBRARY [NM]
"""
import re
import subprocess
import sys

sys.dont_write_bytecode = True
from findings import Findings, read, tree

LIST = "runtime/symbols.txt"
LINKER_NAMES = {"_init", "_fini", "__bss_start", "_edata", "_end"}


def declared(root):
    names = {}
    for path in tree(root, folders=["include"], endings=(".h",)):
        text = read(root, path)
        for match in re.finditer(r"\bCLATTN_API\b[^;{]*?\b(clattn_\w+)\s*\(", text):
            names[match.group(1)] = (path, text.count("\n", 0, match.start(1)) + 1)
    return names


def exported(library, nm):
    answer = subprocess.run([nm, "-D", "--defined-only", library], capture_output=True, text=True)
    if answer.returncode != 0:
        sys.exit(f"{nm} cannot read {library}: {answer.stderr.strip()}")
    return {line.split()[-1].split("@")[0] for line in answer.stdout.splitlines() if line.strip()} - LINKER_NAMES


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    root, library, findings = sys.argv[1], sys.argv[2], Findings()
    listed = read(root, LIST).split()
    lines = {name: number for number, name in enumerate(listed, 1)}
    if listed != sorted(set(listed)):
        findings.add(LIST, 1, "must be sorted bytewise, each name once")
    findings.done()
    headers = declared(root)
    for name in sorted(set(headers) - set(listed)):
        findings.add(*headers[name], f"{name} is declared but missing in {LIST}")
    for name in sorted(set(listed) - set(headers)):
        findings.add(LIST, lines[name], f"{name} is listed but no public header declares it")
    findings.done()
    symbols = exported(library, sys.argv[3] if len(sys.argv) == 4 else "nm")
    for name in sorted(set(listed) - symbols):
        findings.add(LIST, lines[name], f"{name} is listed but {library} does not export it")
    for name in sorted(symbols - set(listed)):
        findings.add(LIST, len(listed), f"{library} exports {name}, which is not listed")
    findings.done()
    findings.finish()


if __name__ == "__main__":
    main()
