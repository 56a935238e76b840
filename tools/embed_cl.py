#!/usr/bin/env python3
"""Writes kernel files into a C table, so that the library needs no file beside it.

usage: embed_cl.py OUT.c ROOT FILE...

OUT.c defines clattn__embedded_files (see runtime/program/program.h); each FILE is a path, relative to ROOT or to the
working folder. The text becomes numbers, not a string literal: C promises only 4,095 characters per
literal.
"""
import pathlib
import sys

BYTES_PER_LINE = 24


def table(number, data):
    lines = [f"static const unsigned char file_{number}[] = {{"]
    for start in range(0, len(data), BYTES_PER_LINE):
        lines.append("    " + ", ".join(str(byte) for byte in data[start:start + BYTES_PER_LINE]) + ",")
    lines.append("};")
    return lines


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__.strip())
    out, root = pathlib.Path(arguments[0]), pathlib.Path(arguments[1]).resolve()
    lines = ["/* Made by tools/embed_cl.py; do not edit. */", '#include "program/program.h"', ""]
    rows = []
    for number, argument in enumerate(arguments[2:]):
        path = (root / argument if (root / argument).is_file() else pathlib.Path(argument)).resolve()
        if root not in path.parents:
            sys.exit(f"embed_cl.py: {argument} is not inside {root}")
        data = path.read_bytes()
        if not data:
            sys.exit(f"embed_cl.py: {argument} is empty")
        name = path.relative_to(root).as_posix()
        lines += table(number, data) + [""]
        rows.append(f'    {{"{name}", file_{number}, sizeof file_{number}}},')
    lines += ["const clattn__embedded_file clattn__embedded_files[] = {"] + rows + ["    {NULL, NULL, 0},", "};", ""]
    out.write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
