#!/usr/bin/env python3
"""Compiles every kernel for GPUs that are not at hand, with their vendors' offline compilers, and checks the outcome.

usage: compile_matrix.py CLATTN [--tools DIR] [--jobs N] [--write PAGE] [--plant WHAT] [TARGET ...]
       compile_matrix.py CLATTN --self-test [--tools DIR]

  CLATTN         the program; what it lists by `clattn kernels --sources` is what is compiled
  --tools DIR    compilers that tools/vendor_tools.sh fetched; otherwise those on the system
  --jobs N       compilers at a time (default: processors)
  --write PAGE   put the tables into a page, between its markers
  --plant WHAT   add a program that is wrong: spill, local, scratch, subgroup, matrix, language; the matrix must fail
  --self-test    plant each in each family that it is about; passes when all are found
  TARGET         only these, by name

A target whose compiler is absent is skipped, with the reason.  Every program is compiled for the first chip of each
family; the others get those whose registers and tiles matter.  The last line is `clattn-tests: P passed, F failed, S
skipped`; the exit code is 0 when nothing failed, 77 when everything was skipped.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

sys.dont_write_bytecode = True
from vendor_compilers import FAMILIES, Refused, Tools, nvidia_prepare

MESSAGE_LINES = 6  # of a compiler's complaint
START, END = "<!-- compile matrix -->\n", "<!-- end of compile matrix -->"


@dataclass
class Target:
    name: str
    family: str
    chip: str
    pretend: str           # the device that the programs are chosen for
    registers: int         # most per work-item
    local: int = 65536     # bytes that a group may have
    full: bool = False     # every program, not only those that shape tiles


NVIDIA = "type=gpu,vendor=NVIDIA,platform=NVIDIA CUDA,local_memory=49152,work_group=1024,compute_units=80,subgroups=0"
AMD = "type=gpu,vendor=AMD,platform=AMD,local_memory=65536,work_group=256,compute_units=40,subgroups=1,fp16=1"
INTEL = "type=gpu,vendor=Intel,platform=Intel,local_memory=65536,work_group=512,compute_units=96,subgroups=1,fp16=1"
SMALL = "type=gpu,vendor=other,platform=other,work_group={},local_memory={},compute_units=4,subgroups=0,fp16=0"
CPU = "type=cpu,vendor=other,platform=other,work_group=1024,local_memory=32768,lanes=16,subgroups=0,fp16=0"

TARGETS = [
    Target("sm_75", "nvidia", "sm_75", NVIDIA + ",name=sm_75,matrix=nv:75", 255, 49152, full=True),
    Target("sm_80", "nvidia", "sm_80", NVIDIA + ",name=sm_80,matrix=nv:80", 255, 49152),
    Target("sm_86", "nvidia", "sm_86", NVIDIA + ",name=sm_86,matrix=nv:86", 255, 49152),
    Target("sm_89", "nvidia", "sm_89", NVIDIA + ",name=sm_89,matrix=nv:89", 255, 49152),
    Target("sm_90", "nvidia", "sm_90", NVIDIA + ",name=sm_90,matrix=nv:90", 255, 49152),
    Target("sm_120", "nvidia", "sm_120", NVIDIA + ",name=sm_120,matrix=nv:120", 255, 49152),
    Target("gfx900", "amd", "gfx900", AMD + ",name=gfx900", 256, full=True),
    Target("gfx90a", "amd", "gfx90a", AMD + ",name=gfx90a,matrix=mfma32", 512),  # one file with the accumulators
    Target("gfx942", "amd", "gfx942", AMD + ",name=gfx942,matrix=mfma32", 512),
    Target("gfx1030", "amd", "gfx1030", AMD + ",name=gfx1030", 256),
    Target("gfx1100", "amd", "gfx1100", AMD + ",name=gfx1100,matrix=wmma11", 256),
    Target("gfx1200", "amd", "gfx1200", AMD + ",name=gfx1200,matrix=wmma12", 256),
    Target("skl", "intel", "skl", INTEL + ",name=skl", 128),
    Target("tgllp", "intel", "tgllp", INTEL + ",name=tgllp", 128),
    Target("dg2", "intel", "dg2", INTEL + ",name=dg2,matrix=dpas8", 256, full=True),
    Target("pvc", "intel", "pvc", INTEL + ",name=pvc,matrix=dpas16", 256),
    Target("small, 16 KB, 64 items", "amd", "gfx900", SMALL.format(64, 16384) + ",name=small", 256, 16384),
    Target("small, 32 KB, 256 items", "amd", "gfx900", SMALL.format(256, 32768) + ",name=medium", 256, 32768),
    Target("SPIR-V 1.0, 64 bits", "spirv", "spir64", SMALL.format(256, 32768) + ",name=generic", 0, full=True),
    Target("SPIR-V 1.0, 32 bits", "spirv", "spir", SMALL.format(64, 16384) + ",name=generic", 0),
    Target("SPIR-V 1.0, a CPU", "spirv", "spir64", CPU + ",name=generic", 0, full=True),
]

# Kernels that are about a matrix engine: the instruction that their machine code must hold.
MATRIX = {
    "attn_matrix": {"nvidia": r"\bmma\.sync", "amd": r"\bv_(wmma|mfma)_", "intel": r"has_dpas:\s*true"},
}
# Programs that pin the width of a sub-group say so by this option.
PINNED = re.compile(r"-DSUBGROUP=(\d+)")
# Speed depends on these: compiled for every chip, at the sizes that are met most. The first chip of each family gets
# all kernels and sizes, and each set of features at one size.
SHAPES = re.compile(r"^(attn_tiled|attn_decode|attn_matrix|gemm_tiled)$")
SHAPE_VARIANTS = re.compile(r"head_dim (64|128|512), .*(, none|, causal|, causal, window, .*)$")
FULL_VARIANTS = re.compile(r"head_dim 64,|, (none|causal)$")
# Kernels that may keep values in scratch memory, and why.
SCRATCH = {"attn_naive": "its output row has VALUE_DIM floats; it is the last resort, for odd features and devices"}


@dataclass
class Program:
    name: str
    variant: str
    path: str
    options: list
    items: int = None

    def title(self):
        return f"{self.name} ({self.variant})" if self.variant != self.name else self.name


@dataclass
class Outcome:
    target: Target
    program: Program
    kernels: list = field(default_factory=list)
    findings: list = field(default_factory=list)


# ---- programs ----


def group_items(path, options):
    """Work-items that a program's kernels require of their group; None when they do not say."""
    text = open(path).read()
    if "reqd_work_group_size" not in text:
        return None
    macros = "".join(f"#define {o[2:].replace('=', ' ', 1)}\n" for o in options if o.startswith("-D"))
    plain = subprocess.run(["cc", "-E", "-P", "-xc", "-D__OPENCL_VERSION__=120", "-"], input=macros + text, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    sizes = [1]
    for words in re.findall(r"reqd_work_group_size\(([\d\s()*+,/-]+?)\)\s*\)\s*\)", plain):
        product = 1
        for factor in words.split(","):
            product *= eval(factor, {"__builtins__": {}})  # digits and operators alone, by the pattern
        sizes.append(int(product))
    return max(sizes)


def list_programs(clattn, pretend, folder):
    os.makedirs(folder)
    done = subprocess.run([clattn, "kernels", "--sources", folder, "--pretend", pretend], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"compile_matrix.py: clattn kernels --sources: {done.stdout}")
    programs = []
    for row in json.load(open(f"{folder}/programs.json")):
        options = [word for word in row["options"].split() if not word.startswith("-cl-std=")]
        path = f"{folder}/{row['source']}"
        programs.append(Program(row["kernel"], row["variant"], path, options, group_items(path, options)))
    return programs


def is_wanted(target, program):
    if "head_dim" not in program.variant:
        return target.full or SHAPES.match(program.name)
    if target.full:
        return FULL_VARIANTS.search(program.variant)
    return SHAPES.match(program.name) and SHAPE_VARIANTS.search(program.variant)


# ---- what is wrong on purpose ----

PLANTS = {
    "spill": ("""__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void planted(__global float *x, int n) {
    float r[600];
    _Pragma("unroll") for (int i = 0; i < 600; i++) r[i] = x[i * n];
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (int k = 0; k < n; k++) {
        _Pragma("unroll") for (int i = 0; i < 600; i++) r[i] = fma(r[i], r[(i * 7 + 1) % 600], x[k]);
    }
    _Pragma("unroll") for (int i = 0; i < 600; i++) x[i * n] = r[i];
}""", ("nvidia", "amd", "intel")),
    "scratch": ("""__kernel void planted(__global float *x, int n) {
    float r[640];
    for (int i = 0; i < 640; i++) r[(i * n) % 640] = x[i];
    for (int i = 0; i < n; i++) x[i] += r[(i * 7 + (int)x[i]) % 640];
}""", ("nvidia", "amd", "intel")),
    "local": ("""__kernel void planted(__global float *x) {
    __local float tile[17000];
    tile[get_local_id(0)] = x[get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    x[get_global_id(0)] = tile[((int)x[0]) % 17000];
}""", ("nvidia", "amd", "intel")),
    "subgroup": ("""__kernel __attribute__((intel_reqd_sub_group_size(16)))
void planted(__global float *x) { x[get_global_id(0)] += 1; }""", ("intel",)),
    "matrix": ("__kernel void planted(__global float *x) { x[get_global_id(0)] += 1; }", ("nvidia", "amd", "intel")),
    "language": ("#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
                 "__kernel void planted(__global half *x) { half y = x[0]; x[0] = y + y; }", ("spirv",)),
}


def planted(what, folder):
    path = f"{folder}/planted-{what}.cl"
    with open(path, "w") as file:
        file.write(PLANTS[what][0])
    options = ["-DITEMS=256"] + (["-DSUBGROUP=32"] if what == "subgroup" else [])
    return Program("attn_matrix" if what == "matrix" else "planted", what, path, options,
                   256 if what == "spill" else None)


# ---- compiling and judging ----


def judge(target, program, kernel):
    """What is wrong with one kernel's machine code, in words."""
    pinned = PINNED.search(" ".join(program.options))
    pattern = MATRIX.get(program.name, {}).get(target.family)
    frugal = program.name not in SCRATCH
    rules = [
        (frugal and kernel.spills > 0, f"spills {kernel.spills}"),
        (frugal and kernel.scratch > 0, f"keeps {kernel.scratch} bytes in scratch memory"),
        (kernel.local > target.local, f"{kernel.local} bytes of local memory; {target.local} at most"),
        (kernel.registers > target.registers, f"{kernel.registers} registers; {target.registers} at most"),
        (bool(pinned) and kernel.lanes != int(pinned[1]) if pinned else False,
         f"sub-groups of {kernel.lanes}; pinned to {pinned[1] if pinned else 0}"),
        (bool(pattern) and not re.search(pattern, kernel.assembly), "no matrix instruction"),
    ]
    return [f"{kernel.name}: {text}" for broken, text in rules if broken]


def compile_one(tools, target, program):
    outcome = Outcome(target, program)
    try:
        outcome.kernels = FAMILIES[target.family][0](tools, target.chip, program)
    except Refused as refusal:
        outcome.findings.append(str(refusal))
        return outcome
    if not outcome.kernels:
        outcome.findings.append("the compiler made no kernel")
    for kernel in outcome.kernels:
        outcome.findings += judge(target, program, kernel)
        kernel.assembly = ""  # megabytes
    return outcome


def choose_targets(names):
    unknown = [n for n in names if n not in [t.name for t in TARGETS]]
    if unknown:
        sys.exit(f"compile_matrix.py: no target {unknown[0]!r}; there are: {', '.join(t.name for t in TARGETS)}")
    return [t for t in TARGETS if not names or t.name in names]


def present(tools, targets):
    """Those whose compilers are there; the others are told and counted."""
    found, skipped = [], 0
    for target in targets:
        missing = tools.missing(*FAMILIES[target.family][1:])
        if missing:
            print(f"skip {target.name}: {', '.join(missing)} not found; see tools/vendor_tools.sh")
            skipped += 1
        else:
            found.append(target)
    return found, skipped


def compile_all(tools, jobs, work):
    outcomes = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(compile_one, tools, target, program) for target, program in work]
        for number, future in enumerate(concurrent.futures.as_completed(waiting), 1):
            outcomes.append(future.result())
            if sys.stderr.isatty():
                print(f"\r{number} of {len(waiting)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    order = {t.name: n for n, t in enumerate(TARGETS)}
    return sorted(outcomes, key=lambda o: (order[o.target.name], o.program.name, o.program.variant))


# ---- report ----


def most(outcomes, key):
    """The greatest value and whose it is."""
    best = max(((getattr(k, key), o.program) for o in outcomes for k in o.kernels), default=(0, None),
               key=lambda pair: pair[0])
    return best


def summary_table(outcomes, skipped_names):
    lines = ["| target | programs | kernels | failed | most registers | most local memory |",
             "|---|---|---|---|---|---|"]
    groups = collections.OrderedDict()
    for outcome in outcomes:
        groups.setdefault(outcome.target.name, []).append(outcome)
    for name, rows in groups.items():
        registers, by = most(rows, "registers")
        local, _ = most(rows, "local")
        lines.append(f"| {name} | {len(rows)} | {sum(len(o.kernels) for o in rows)} | "
                     f"{sum(bool(o.findings) for o in rows)} | "
                     f"{f'{registers} ({by.title()})' if registers else '-'} | {f'{local} bytes' if local else '-'} |")
    lines += [f"| {name} | skipped: no compiler | | | | |" for name in skipped_names]
    return lines


def tile_table(outcomes):
    """Registers and local memory of the kernels that the speed depends on."""
    pattern = re.compile(r"head_dim (64|128), value_dim \d+, (\w+), causal$")
    rows = collections.OrderedDict()
    for outcome in outcomes:
        found = pattern.match(outcome.program.variant)
        if not found or outcome.target.family == "spirv" or not SHAPES.match(outcome.program.name):
            continue
        cells = rows.setdefault((outcome.program.name, int(found[1]), found[2]), {})
        for kernel in outcome.kernels:
            if kernel.name == outcome.program.name:
                spill = f", {kernel.spills} spilled" if kernel.spills else ""
                cells[outcome.target.name] = f"{kernel.registers} / {kernel.local / 1024:.0f} KB{spill}"
    names = [t.name for t in TARGETS if any(t.name in cells for cells in rows.values())]
    lines = ["| kernel, causal | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for (name, dim, dtype), cells in sorted(rows.items()):
        lines.append(f"| {name}, D {dim}, {dtype} | " + " | ".join(cells.get(n, "") for n in names) + " |")
    return lines if rows else []


def versions(tools):
    rows = []
    for program in ("clang-19", "ptxas", "clang-15"):
        if not tools.find(program):
            continue
        text = subprocess.run([tools.find(program), "--version"], stdout=subprocess.PIPE, text=True,
                              env=tools.environment).stdout
        found = re.search(r"(?:version |release \d+\.\d+, V)(\d[\d.]*)", text)
        rows.append(f"{program} {found[1] if found else '?'}")
    return ", ".join(rows + ["ocloc as fetched" if tools.find("ocloc") else "no ocloc"])


def write_page(page, lines):
    text = open(page).read()
    head, rest = text.split(START)
    with open(page, "w") as file:
        file.write(head + START + "\n".join(lines) + "\n" + END + rest.split(END)[1])


def tell(outcomes):
    by_target = collections.Counter()
    for outcome in outcomes:
        by_target[outcome.target.name] += 1
        for finding in outcome.findings:
            shown = "\n    ".join(finding.splitlines()[:MESSAGE_LINES])
            print(f"FAIL {outcome.target.name}: {outcome.program.title()}: {shown}")
    for name, count in by_target.items():
        bad = sum(bool(o.findings) for o in outcomes if o.target.name == name)
        print(f"{'fail' if bad else 'ok  '} {name}: {count} programs, {bad} wrong")


def self_test(tools, folder, jobs):
    """Every plant must be found in every family it is about."""
    passed = failed = 0
    firsts = {}
    for target in TARGETS:
        firsts.setdefault(target.family, target)
    targets, skipped = present(tools, list(firsts.values()))
    if any(t.family == "nvidia" for t in targets):
        nvidia_prepare(tools, folder)
    work = [(t, planted(what, folder)) for what in PLANTS for t in targets if t.family in PLANTS[what][1]]
    good = f"{folder}/good.cl"
    with open(good, "w") as file:
        file.write(PLANTS["matrix"][0])
    work += [(t, Program("good", "good", good, [])) for t in targets]
    for outcome in compile_all(tools, jobs, work):
        wanted = outcome.program.name != "good"
        right = bool(outcome.findings) == wanted
        passed, failed = passed + right, failed + (not right)
        print(f"{'ok  ' if right else 'FAIL'} {outcome.target.name}, {outcome.program.variant}: "
              f"{outcome.findings[0].splitlines()[0] if outcome.findings else 'nothing found'}")
    return passed, failed, skipped


def run_matrix(options, tools, folder):
    targets, skipped = present(tools, choose_targets(options.targets))
    skipped_names = [t.name for t in choose_targets(options.targets) if t not in targets]
    if any(t.family == "nvidia" for t in targets):
        nvidia_prepare(tools, folder)
    start, listed, work = time.time(), {}, []
    for target in targets:
        if target.pretend not in listed:
            listed[target.pretend] = list_programs(options.clattn, target.pretend, f"{folder}/{len(listed)}")
        work += [(target, p) for p in listed[target.pretend] if is_wanted(target, p)]
        if options.plant and target.family in PLANTS[options.plant][1]:
            work.append((target, planted(options.plant, folder)))
    work.sort(key=lambda pair: SHAPES.match(pair[1].name) is None)  # the long ones first
    outcomes = compile_all(tools, options.jobs, work)
    tell(outcomes)
    kernels = {o.program.name for o in outcomes}
    seconds = time.time() - start
    print(f"{len(outcomes)} programs of {len(kernels)} kernels for {len(targets)} targets in {seconds:.0f} s")
    if options.write:
        write_page(options.write, [f"Compilers: {versions(tools)}.", "", *summary_table(outcomes, skipped_names), "",
                                   "Registers per work-item and local memory per group:", "", *tile_table(outcomes)])
    failed = sum(bool(o.findings) for o in outcomes)
    return len(outcomes) - failed, failed, skipped


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("clattn")
    parser.add_argument("--tools", default=os.environ.get("CLATTN_VENDOR_TOOLS"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--write")
    parser.add_argument("--plant", choices=PLANTS)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("targets", nargs="*")
    options = parser.parse_intermixed_args()
    tools = Tools(options.tools)
    with tempfile.TemporaryDirectory(prefix="clattn-matrix-") as folder:
        passed, failed, skipped = self_test(tools, folder, options.jobs) if options.self_test else \
            run_matrix(options, tools, folder)
    print(f"clattn-tests: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0 if passed else 77


if __name__ == "__main__":
    sys.exit(main())
