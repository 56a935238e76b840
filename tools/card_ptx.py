#!/usr/bin/env python3
"""Makes PTX of the programs that clattn would build on NVIDIA cards, for tools/card/.

usage: card_ptx.py CLATTN FOLDER [--tools DIR] [--jobs N] [--only REGEX] [--missing DIR ...] [--asked BUILD]

  CLATTN         the program; what it lists by `clattn kernels --sources` is made
  FOLDER         gets KEY.ptx of each program, KEY being clattn's fingerprint of options and source
  --tools DIR    compilers that tools/vendor_tools.sh fetched; otherwise those on the system
  --jobs N       compilers at a time (default: processors)
  --only REGEX   only programs whose "kernel (variant)" holds it
  --missing DIR  also the sources that runs on a card left in this folder
  --asked BUILD  also what short verification, golden data and bench/field_rows.txt ask for, found out on the stand-in
                 for a card in this build folder

Compilers and options are those of the compile matrix, so that what it checked is what runs. The last line counts them.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

sys.dont_write_bytecode = True
from matrix_programs import Program, list_programs
from matrix_targets import TARGETS
from vendor_compilers import FAMILIES, Refused, Tools, make_ptx

CHIPS = ("sm_75", "sm_80", "sm_90")  # as in tools/card/device.c; newer chips take the newest of these
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
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
            if not program.alternative and re.search(only, program.title()):
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


def stand_for(program, options):
    """The comments by which PTX tells tests/card/stand_in_cuda.c what to run in its place."""
    return f"//options {options}\n" + "".join(f"//|{line}\n" for line in open(program.path).read().split("\n"))


def make(tools, folder, programs, jobs):
    """Writes them; gives the complaints."""
    complaints = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        # CLBlast's inline functions have to be found where they are not inlined; ours are static
        waiting = {pool.submit(make_ptx, tools, replace(p, options=[*p.options, "-fgnu89-inline"])): p
                   for p in programs.values()}
        for future in concurrent.futures.as_completed(waiting):
            program = waiting[future]
            try:
                text, items = future.result()
            except Refused as refusal:
                complaints.append(f"FAIL {program.title()}: {refusal}")
                continue
            text = bounded(text, items)
            if program.name == "limits":  # what is wrong there ends a measurement, on the stand-in too
                text = stand_for(program, " ".join(program.options)) + text
            with open(f"{folder}/{program.key}.ptx", "w", encoding="utf-8") as file:
                file.write(text)
    return complaints


# ---- what is asked for on a card ----


def card_environment(build, folder, ptx, missing):
    """That of a process on the stand-in; its ICD files go to folder/icd."""
    os.makedirs(folder + "/icd", exist_ok=True)
    vendors = os.environ.get("OCL_ICD_VENDORS", "/etc/OpenCL/vendors")
    for file in os.listdir(vendors) if os.path.isdir(vendors) else []:
        if file.endswith(".icd"):
            shutil.copy(f"{vendors}/{file}", folder + "/icd/")
    with open(folder + "/icd/card.icd", "w", encoding="utf-8") as file:
        file.write(f"{build}/tools/card/libclattn_card.so\n")
    stand_in = build + "/tests/card"
    # meson puts what a test depends on where the linker looks
    inherited = [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p not in (stand_in, "")]
    environment = {**os.environ, "OCL_ICD_VENDORS": folder + "/icd", "XDG_CACHE_HOME": folder + "/cache",
                   "CLATTN_CARD_PTX": ptx, "CLATTN_CARD_MISSING": missing,
                   "LD_LIBRARY_PATH": ":".join([stand_in] + inherited)}
    environment.pop("CLATTN_DEVICE", None)
    return environment


def field_commands():
    """What field_run.sh runs on a card, as far as it decides which programs are built; only decoding takes its time."""
    yield ["verify", "--brief"]
    yield ["check", "--quiet", "--allow-unsupported", ROOT + "/tests/golden"]
    for line in open(ROOT + "/bench/field_rows.txt"):
        kind, *shape = line.split() or ["#"]
        if kind in ("attention", "layer"):
            yield ["explain", f"--{kind}", *shape]
        elif kind == "decode":
            yield ["bench", "--resident", "--seconds", "0.01", "--decode", *shape]


def asked(clattn, build, folder, ptx, scratch):
    """The programs that are asked for and not in the folder `ptx`, by key. Launches do nothing there, so kernels are
    found wrong, and those behind them are asked for too."""
    missing = f"{scratch}/missing"
    os.makedirs(missing, exist_ok=True)
    environment = card_environment(os.path.abspath(build), scratch, os.path.abspath(ptx), missing)
    for chip in CHIPS:
        shutil.rmtree(scratch + "/cache", ignore_errors=True)
        for words in field_commands():
            try:
                subprocess.run([clattn, *words, "--device", "gpu"], stdout=subprocess.DEVNULL, timeout=60,
                               stderr=subprocess.DEVNULL, env={**environment, "STAND_IN_ARCH": chip[3:]})
            except subprocess.TimeoutExpired:
                pass  # what it wanted to build is known
    return missed(missing)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("clattn")
    parser.add_argument("folder")
    parser.add_argument("--tools", default=os.environ.get("CLATTN_VENDOR_TOOLS"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("--asked")
    parser.add_argument("--missing", action="append", default=[])
    options = parser.parse_args()
    tools = Tools(options.tools)
    missing = tools.missing(["clang-19", "llvm-dis-19", "llvm-extract-19"], FAMILIES["nvidia"].files)
    if missing:
        print(f"skip: {', '.join(missing)} not found; see tools/vendor_tools.sh")
        return 77
    os.makedirs(options.folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clattn-card-") as folder:
        programs = listed(options.clattn, folder, options.only)
        for extra in options.missing:
            programs.update(missed(extra))
        complaints = make(tools, options.folder, programs, options.jobs)
        for turn in range(3 if options.asked else 0):  # what is asked for only when something else is there
            more = asked(options.clattn, options.asked, folder, options.folder, f"{folder}/{turn}")
            more = {key: program for key, program in more.items() if key not in programs}
            complaints += make(tools, options.folder, more, options.jobs)
            programs.update(more)
    print("\n".join(complaints + [f"{len(programs) - len(complaints)} programs made, {len(complaints)} failed"]))
    return 1 if complaints or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
