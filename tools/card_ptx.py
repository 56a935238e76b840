#!/usr/bin/env python3
"""Makes PTX of the programs that clattn would build on NVIDIA cards, for tools/card/.

usage: card_ptx.py CLATTN FOLDER [--tools DIR] [--jobs N] [--only REGEX] [--missing DIR ...]

  CLATTN         the program; what it lists by `clattn kernels --sources` is made
  FOLDER         gets KEY.ptx of each program, KEY being clattn's fingerprint of options and source
  --tools DIR    compilers that tools/vendor_tools.sh fetched; otherwise those on the system
  --jobs N       compilers at a time (default: processors)
  --only REGEX   only programs whose "kernel (variant)" holds it
  --missing DIR  also the sources that runs on a card left in this folder

Compilers and options are those of the compile matrix, so that what it checked is what runs. The last line counts them.
"""
import argparse
import concurrent.futures
import os
import re
import sys
import tempfile

sys.dont_write_bytecode = True
from matrix_programs import Program, list_programs
from matrix_targets import TARGETS
from vendor_compilers import FAMILIES, Refused, Tools, make_ptx

CHIPS = ("sm_75", "sm_80", "sm_90")  # as in tools/card/device.c; newer chips take the newest of these
ENTRY = re.compile(r"(\.entry \w+\([^)]*\)\n)")


def bounded(text, items):
    """With the size of the group: clang drops it, and without it the driver keeps to registers for 1024 work-items."""
    return ENTRY.sub(rf"\1.maxntid {items or 256}, 1, 1\n", text)


def listed(clattn, folder, only):
    """Each different program once, by key."""
    programs = {}
    for chip in CHIPS:
        target = next(t for t in TARGETS if t.name == chip)
        for program in list_programs(clattn, target.pretend, f"{folder}/{chip}"):
            if re.search(only, program.title()):
                programs.setdefault(program.key, program)
    return programs


def missed(folder):
    """What tools/card/program.c kept: the options in a first line, then the source."""
    programs = {}
    for file in sorted(os.listdir(folder)):
        path, key = f"{folder}/{file}", file[:-3]
        first = open(path).readline()
        options = [word for word in first.split()[1:] if not word.startswith("-cl-std=")]
        programs[key] = Program(key, key, file, path, options, key)
    return programs


def make(tools, folder, programs, jobs):
    """Writes them; gives the complaints."""
    complaints = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(make_ptx, tools, program): program for program in programs.values()}
        for future in concurrent.futures.as_completed(waiting):
            program = waiting[future]
            try:
                text, items = future.result()
            except Refused as refusal:
                complaints.append(f"FAIL {program.title()}: {refusal}")
                continue
            with open(f"{folder}/{program.key}.ptx", "w", encoding="utf-8") as file:
                file.write(bounded(text, items))
    return complaints


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("clattn")
    parser.add_argument("folder")
    parser.add_argument("--tools", default=os.environ.get("CLATTN_VENDOR_TOOLS"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("--missing", action="append", default=[])
    options = parser.parse_args()
    tools = Tools(options.tools)
    missing = tools.missing(["clang-19"], FAMILIES["nvidia"].files)
    if missing:
        print(f"skip: {', '.join(missing)} not found; see tools/vendor_tools.sh")
        return 77
    os.makedirs(options.folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clattn-card-") as folder:
        programs = listed(options.clattn, folder, options.only)
        for extra in options.missing:
            programs.update(missed(extra))
        complaints = make(tools, options.folder, programs, options.jobs)
    print("\n".join(complaints + [f"{len(programs) - len(complaints)} programs made, {len(complaints)} failed"]))
    return 1 if complaints or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
