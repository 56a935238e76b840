#!/usr/bin/env python3
"""Compiles each public header alone, as C99 and as C++11, warnings being errors.

usage: check_headers.py SOURCE_ROOT [CC [CXX]]

Without names: $CC and $CXX, else cc and c++. C++ is skipped where there is no such compiler.
"""
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
from findings import Findings, tree

WARNINGS = ["-Wall", "-Wextra", "-pedantic-errors", "-Werror"]


def compile_alone(command, language, root, header):
    """The compiler's complaint, "" when there is none. Twice, so that a missing include guard shows."""
    name = header[len("include/"):]
    source = f'#include "{name}"\n#include "{name}"\nint clattn_header_alone;\n'
    arguments = command.split() + WARNINGS + language + ["-fsyntax-only", "-I", f"{root}/include", "-"]
    answer = subprocess.run(arguments, input=source, capture_output=True, text=True)
    return answer.stderr.strip() or f"exit status {answer.returncode}" if answer.returncode else ""


def main():
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    root, findings = sys.argv[1], Findings()
    c = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("CC", "cc")
    cxx = sys.argv[3] if len(sys.argv) > 3 else os.environ.get("CXX", "c++")
    languages = [(c, ["-x", "c", "-std=c99", "-Wstrict-prototypes"])]
    if shutil.which(cxx.split()[0]):
        languages.append((cxx, ["-x", "c++", "-std=c++11"]))
    else:
        findings.skip(f"there is no {cxx}: headers were not compiled as C++")
    for header in tree(root, folders=["include"], endings=(".h",)):
        for command, language in languages:
            complaint = compile_alone(command, language, root, header)
            if complaint:
                findings.add(header, 1, f"does not compile alone with {command} {' '.join(language)}:\n{complaint}")
            findings.done()
    findings.finish()


if __name__ == "__main__":
    main()
