#!/usr/bin/env python3
"""Compiles every kernel for GPUs that are not at hand, with their vendors' offline compilers, and checks the outcome.

usage: compile_matrix.py CLATTN [--tools DIR] [--jobs N] [--full] [--write PAGE] [--plant WHAT]
                         [TARGET ...]
       compile_matrix.py CLATTN --self-test [--tools DIR]

  CLATTN         the program; what it lists by `clattn kernels --sources` is what is compiled
  --tools DIR    compilers that tools/vendor_tools.sh fetched; otherwise those on the system
  --jobs N       compilers at a time (default: processors)
  --full         every set of features for each vendor; else each vendor gets its turn of them, and SPIR-V all
                 (also with CLATTN_TEST_FULL=1)
  --write PAGE   put the tables of a full matrix into a page, between its markers
  --plant WHAT   add a program that is wrong: spill, local, waves, scratch, subgroup, matrix, language; the matrix must
                 fail
  --self-test    plant each in each family that it is about; passes when all are found
  TARGET         only these, by name

A target whose compiler is absent is skipped, with the reason.  matrix_programs.py says which programs each target gets;
one that several targets share is compiled once.  When all targets are compiled, every variant and every tile of every
kernel must be among them.  The last line is `clattn-tests: P passed, F failed, S skipped`; the exit code is 0 when
nothing failed, 77 when everything was skipped.
"""
import argparse
import collections
import concurrent.futures
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field

sys.dont_write_bytecode = True
import matrix_report
from matrix_chips import CHIPS, fewest_waves, waves
from matrix_mix import mix_of
from matrix_plants import PLANTS, good, planted
from matrix_programs import ENGINES, SHAPES, forgotten, is_wanted, list_programs, other_tiles, tile
from matrix_targets import TARGETS, engine
from vendor_compilers import FAMILIES, Refused, Tools, missing

MESSAGE_LINES = 6  # of a compiler's complaint
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")

# Programs that pin the width of a sub-group say so by this option.
PINNED = re.compile(r"-DSUBGROUP=(\d+)")
PINNED_BY_ENGINE = {"-DMATRIX_ENGINE=5": 8, "-DMATRIX_ENGINE=6": 16}  # DPAS
# Kernels that may keep values in scratch memory and take any registers, and why.
FEW_BYTES = 128  # in scratch memory: a tile beside the first choice may have them, as in runtime/kernels/params.c
SCRATCH = {"attn_naive": "its output row has VALUE_DIM floats; it is the last resort, for odd features and devices",
           "mma_probe": "it takes operands apart, once per driver"}


@dataclass
class Outcome:
    target: object
    program: object
    kernels: list = field(default_factory=list)
    findings: list = field(default_factory=list)


# ---- judging ----


def pinned_lanes(program):
    """The sub-group's width that a program is written for; 0 for any."""
    found = PINNED.search(" ".join(program.options))
    engines = [lanes for option, lanes in PINNED_BY_ENGINE.items() if option in program.options]
    return int(found[1]) if found else engines[0] if engines else 0


def judge(target, program, kernel):
    """What is wrong with one kernel's machine code, in words."""
    frugal = program.name not in SCRATCH
    few = FEW_BYTES if program.alternative else 0
    chip = CHIPS.get(target.name)  # pretended small devices are compiled for a chip that is not theirs
    fewest, room = (fewest_waves(target.family, target.chip, program.name), waves(chip, kernel)) if chip else (0, 0)
    lanes = pinned_lanes(program) if target.family == "intel" else 0
    rules = [
        (frugal and kernel.spills > few, f"spills {kernel.spills}"),
        (frugal and kernel.scratch > few, f"keeps {kernel.scratch} bytes in scratch memory"),
        (kernel.local > target.local, f"{kernel.local} bytes of local memory; {target.local} at most"),
        (kernel.registers > target.registers, f"{kernel.registers} registers; {target.registers} at most"),
        (frugal and room < fewest, f"{room:g} waves per scheduler; {fewest} at least: {kernel.registers} registers, "
                                   f"{kernel.items} work-items, {kernel.local} bytes of local memory"),
        (lanes and kernel.lanes != lanes, f"sub-groups of {kernel.lanes}; pinned to {lanes}"),
        (ENGINES.search(kernel.name) and kernel.matrix == 0, "no matrix instruction"),
    ]
    return [f"{kernel.name}: {text}" for broken, text in rules if broken]


def judged(target, program, made):
    outcome = Outcome(target, program)
    if isinstance(made, Refused):
        outcome.findings = [str(made)]
    else:
        outcome.kernels = made
        outcome.findings = [text for kernel in made for text in judge(target, program, kernel)] if made else \
            ["the compiler made no kernel"]
    for kernel in outcome.kernels:
        if kernel.listing:
            kernel.mix, kernel.listing = mix_of(kernel.listing, target.family), ""
    return outcome


# ---- compiling ----


def batches(work):
    """(family, chip, programs) with each different program of a chip once, the slow kernels first."""
    different = collections.OrderedDict()
    for target, program in sorted(work, key=lambda pair: SHAPES.match(pair[1].name) is None):
        rows = different.setdefault((target.family, target.chip), collections.OrderedDict())
        rows.setdefault(program.key, program)
        rows[program.key].listing |= program.listing
    for (family, chip), rows in different.items():
        programs, size = list(rows.values()), FAMILIES[family].batch
        yield from ((family, chip, programs[n:n + size]) for n in range(0, len(programs), size))


def compile_all(tools, jobs, work):
    made, order = {}, {t.name: n for n, t in enumerate(TARGETS)}
    # slow compilers first, so that no long one is left to the end
    queue = sorted(batches(work), key=lambda batch: ["intel", "nvidia", "amd", "spirv"].index(batch[0]))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(FAMILIES[family].compile, tools, chip, programs): (chip, programs)
                   for family, chip, programs in queue}
        for number, future in enumerate(concurrent.futures.as_completed(waiting), 1):
            chip, programs = waiting[future]
            for program, result in zip(programs, future.result()):
                made[chip, program.key] = result
            if sys.stderr.isatty():
                print(f"\r{number} of {len(waiting)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    outcomes = [judged(target, program, made[target.chip, program.key]) for target, program in work]
    return sorted(outcomes, key=lambda o: (order[o.target.name], o.program.name, o.program.variant))


# ---- running ----


def choose_targets(names):
    unknown = [n for n in names if n not in [t.name for t in TARGETS]]
    if unknown:
        sys.exit(f"compile_matrix.py: no target {unknown[0]!r}; there are: {', '.join(t.name for t in TARGETS)}")
    return [t for t in TARGETS if not names or t.name in names]


def present(tools, targets):
    """Those whose compilers are there; the others are told and counted."""
    found, skipped = [], 0
    for target in targets:
        absent = missing(tools, target.family, target.chip)
        if absent:
            print(f"skip {target.name}: {', '.join(absent)} not found; see tools/vendor_tools.sh")
            skipped += 1
        else:
            found.append(target)
    return found, skipped


def tell(outcomes):
    by_target = collections.Counter()
    for outcome in outcomes:
        by_target[outcome.target.name] += 1
        for finding in outcome.findings:
            shown = "\n    ".join(finding.splitlines()[:MESSAGE_LINES])
            print(f"FAIL {outcome.target.name}: {outcome.program.title()}: {shown}")
        for kernel in outcome.kernels if outcome.program.alternative else []:
            if kernel.spills or kernel.scratch:
                print(f"note {outcome.target.name}: {outcome.program.title()}: {kernel.name}: "
                      f"spills {kernel.spills}, scratch memory {kernel.scratch}")
    for name, count in by_target.items():
        bad = sum(bool(o.findings) for o in outcomes if o.target.name == name)
        print(f"{'fail' if bad else 'ok  '} {name}: {count} programs, {bad} wrong")


def list_all(clattn, targets, folder):
    """[(target, program)] of everything that the pretended devices could be given."""
    devices = list(dict.fromkeys(target.pretend for target in targets))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda n: list_programs(clattn, devices[n], f"{folder}/{n}"), range(len(devices)))
        listings = dict(zip(devices, made))
    return [(target, program) for target in targets for program in listings[target.pretend]]


def test_forgotten(clattn, folder):
    """What is taken out of the list of what is compiled must be missed: (what, right) of each trial."""
    listed = list_all(clattn, TARGETS, folder)
    work = [pair for pair in listed if is_wanted(*pair)]
    work += other_tiles(listed, work)
    shape = tile(*work[-1])
    name, variant = next((p.name, p.variant) for t, p in work if p.name == "attn_tiled")
    trials = [("nothing", work, False), ("a kernel", [w for w in work if w[1].name != "gemm_tiled"], True),
              ("a variant", [w for w in work if (w[1].name, w[1].variant) != (name, variant)], True),
              ("a tile", [w for w in work if tile(*w) != shape], True),
              ("an engine", [w for w in work if engine(w[0]) != "dpas16"], True)]
    return [(what, bool(forgotten(clattn, ROOT, listed, rest)) == wanted) for what, rest, wanted in trials]


def self_test(clattn, tools, folder, jobs):
    """Every plant must be found in every family it is about."""
    passed = failed = 0
    for what, right in test_forgotten(clattn, folder):
        passed, failed = passed + right, failed + (not right)
        print(f"{'ok  ' if right else 'FAIL'} left out of the matrix: {what}")
    firsts = {}
    for target in TARGETS:
        firsts.setdefault(target.family, target)
    targets, skipped = present(tools, list(firsts.values()))
    work = [(t, planted(what, folder)) for what in PLANTS for t in targets if t.family in PLANTS[what][1]]
    work += [(t, good(folder)) for t in targets]
    for outcome in compile_all(tools, jobs, work):
        words = " ".join(outcome.findings)
        wanted = outcome.program.name != "good"
        right = bool(re.search(PLANTS[outcome.program.variant][2], words)) if wanted else not words
        passed, failed = passed + right, failed + (not right)
        print(f"{'ok  ' if right else 'FAIL'} {outcome.target.name}, {outcome.program.variant}: "
              f"{outcome.findings[0].splitlines()[0] if outcome.findings else 'nothing found'}")
    return passed, failed, skipped


def run_matrix(options, tools, folder):
    chosen = choose_targets(options.targets)
    targets, skipped = present(tools, chosen)
    start = time.time()
    listed = list_all(options.clattn, targets, folder)
    work = [(target, p) for target, p in listed if is_wanted(target, p, options.full)]
    work += other_tiles(listed, work, options.full)
    for target, program in work if options.write else []:
        program.listing = target.name in CHIPS and not program.alternative and matrix_report.is_shown(program)
    if options.plant:
        work += [(t, planted(options.plant, folder)) for t in targets if t.family in PLANTS[options.plant][1]]
    outcomes = compile_all(tools, options.jobs, work)
    tell(outcomes)
    failed = sum(bool(o.findings) for o in outcomes)
    passed = len(outcomes) - failed
    if len(targets) == len(TARGETS):
        missing = forgotten(options.clattn, ROOT, listed, work, options.full)
        for words in missing:
            print(f"FAIL {words}")
        passed, failed = passed + (not missing), failed + bool(missing)
    else:
        print("skip the proof that every variant of every kernel is compiled: it takes all targets")
        skipped += 1
    different = len({(o.target.chip, o.program.key) for o in outcomes})
    names = {o.program.name for o in outcomes}
    print(f"{len(outcomes)} programs, {different} of them different, of {len(names)} kernels "
          f"for {len(targets)} targets in {time.time() - start:.0f} s")
    if options.write:
        matrix_report.write_page(options.write, tools, outcomes, [t.name for t in chosen if t not in targets])
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("clattn")
    parser.add_argument("--tools", default=os.environ.get("CLATTN_VENDOR_TOOLS"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--full", action="store_true", default=os.environ.get("CLATTN_TEST_FULL") == "1")
    parser.add_argument("--write")
    parser.add_argument("--plant", choices=PLANTS)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("targets", nargs="*")
    options = parser.parse_intermixed_args()
    options.full |= options.write is not None
    tools = Tools(options.tools)
    with tempfile.TemporaryDirectory(prefix="clattn-matrix-") as folder:
        passed, failed, skipped = self_test(options.clattn, tools, folder, options.jobs) if options.self_test else \
            run_matrix(options, tools, folder)
    print(f"clattn-tests: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0 if passed else 77


if __name__ == "__main__":
    sys.exit(main())
