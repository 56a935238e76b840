#!/usr/bin/env python3
"""Runs every kernel of the registry on every OpenCL runtime for CPUs that is at hand, as itself and as other devices.

usage: run_matrix.py CLATTN [--jobs N] [--full] [--list] [PLACE ...]
       run_matrix.py CLATTN --self-test

  CLATTN       the program; `clattn verify` compares each kernel with the scalar reference on adversarial cases
  --jobs N     places at a time (default: processors)
  --full       all variants instead of a few, and every emulated engine; also with $CLATTN_TEST_FULL. An hour
  --list       only names the places
  --self-test  plants kernels that are wrong, each of which must be found
  PLACE        only places whose name begins so: pocl, Intel, rusticl, oclgrind

A place is a runtime and the device it is to stand for.  Local memory starts as NaN but where oclgrind watches
uninitialised reads itself.  $CLATTN_INTEL_RUNTIME (default: build/intel-runtime, made by intel_runtime.sh) and
$CLATTN_RUSTICL_RUNTIME (build/rusticl-runtime, rusticl_runtime.sh) are folders; a runtime that is absent is skipped,
with the reason.  The last line is `clattn-tests: P passed, F failed, S skipped`, where one kernel in one place counts
as one; the exit code is 0 when nothing failed, 77 when everything was skipped.
"""
import argparse
import concurrent.futures
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MOST_SECONDS = 900  # in one place, on a busy machine; in the long form ten times as many

# Kernels that a GPU is given and that use local memory: the others do not change with the limits of a device.
TILES = ["attn_tiled", "attn_decode", "gemm_tiled", "layer_norm", "softmax_forward", "softmax_backward",
         "softmax_cross_entropy"]
# oclgrind 21.10 does not know an intrinsic that inlining leaves behind in attn_tiled, nor, when it watches
# uninitialised reads, the instruction `freeze`, which its optimiser makes. Watched and unoptimised, tiles take minutes.
CALLS = ["--build-options", "-O1 -fno-inline"]
UNINITIALIZED = ["--uninitialized", "--build-options", "-cl-opt-disable"]
# What an emulator that is a thousand times slower than a processor gets through.
SMALL = "type=gpu,vendor=other,local_memory=16384,work_group=64,compute_units=4,subgroups=0"
FEW = ["--most", "3"]  # variants, where another runtime has them all with that much local memory, or nearly
GPU = "type=gpu,vendor={},local_memory={},work_group={},compute_units={},subgroups={}"


class Absent(Exception):
    """A runtime that is not on this machine; the text says what is missing."""


# ---- runtimes: what a process needs to see one of them and no other ----

@dataclass
class Runtime:
    platform: str                                   # part of the platform's name
    environment: dict = field(default_factory=dict)
    wrapper: list = field(default_factory=list)     # in front of the command


def only(folder, name, library):
    """A folder with one ICD file, which the loaders take for the whole system's."""
    vendors = f"{folder}/{name}"
    os.makedirs(vendors, exist_ok=True)
    with open(f"{vendors}/{name}.icd", "w") as file:
        file.write(library + "\n")
    return {"OCL_ICD_VENDORS": vendors}


def system_icd(word):
    for path in sorted(glob.glob("/etc/OpenCL/vendors/*.icd") + glob.glob("/usr/share/OpenCL/vendors/*.icd")):
        if word in os.path.basename(path).lower():
            with open(path) as file:
                return file.read().strip()
    return None


def runtime_pocl(folder):
    library = system_icd("pocl")
    if not library:
        raise Absent("pocl is not installed (no pocl.icd)")
    return Runtime("Portable Computing Language", only(folder, "pocl", library))


def runtime_intel(folder):
    where = os.environ.get("CLATTN_INTEL_RUNTIME", f"{ROOT}/build/intel-runtime")
    library = f"{where}/lib/libintelocl.so"
    if not os.path.exists(library):
        raise Absent(f"Intel's CPU runtime is not in {where} (tools/intel_runtime.sh fetches it)")
    return Runtime("Intel", only(folder, "intel", library))


def runtime_rusticl(folder):
    where = os.path.abspath(os.environ.get("CLATTN_RUSTICL_RUNTIME", f"{ROOT}/build/rusticl-runtime"))
    libraries = f"{where}/root/usr/lib/x86_64-linux-gnu"
    environment = {"RUSTICL_ENABLE": "llvmpipe", "LP_NUM_THREADS": "2"}
    if os.path.exists(f"{libraries}/libRusticlOpenCL.so.1"):
        library = f"{libraries}/libRusticlOpenCL.so.1"
        environment |= {"LD_LIBRARY_PATH": libraries, "GALLIUM_PIPE_SEARCH_DIR": f"{libraries}/gallium-pipe"}
    else:
        library = system_icd("rusticl")
    if not library:
        raise Absent(f"rusticl is neither installed nor in {where} (tools/rusticl_runtime.sh fetches it)")
    return Runtime("rusticl", environment | only(folder, "rusticl", library))


def runtime_oclgrind(_folder):
    if not shutil.which("oclgrind"):
        raise Absent("oclgrind is not installed")
    return Runtime("Oclgrind", {}, ["oclgrind", "--data-races", "--check-api", "--log", "LOG"])


RUNTIMES = {"pocl": runtime_pocl, "Intel": runtime_intel, "rusticl": runtime_rusticl, "oclgrind": runtime_oclgrind}


# ---- places ----

@dataclass
class Place:
    runtime: str
    what: str = ""                                   # what the device stands for
    options: list = field(default_factory=list)      # of clattn verify
    environment: dict = field(default_factory=dict)
    kernels: list = field(default_factory=list)      # only these; none: all
    watch: list = field(default_factory=list)        # more options of the wrapper
    full: bool = False                               # in the long form only
    seconds: int = 10                                # roughly: the longest start first

    @property
    def name(self):
        return f"{self.runtime}, {self.what}" if self.what else self.runtime


def pretended(*words):
    return ["--pretend", GPU.format(*words)]


def emulated(runtime, engine, subgroups, full):
    form, words = ("emulated-subgroups", "sub-groups") if subgroups else ("emulated", "work-groups")
    return Place(runtime, f"{engine} emulated, lanes meet in {words}",
                 ["--matrix-engine", f"{form}:{engine}", "--most", "1"], kernels=["attn_matrix"], full=full, seconds=25)


def products(runtime, engine, subgroups):
    """The projections of an emulated engine, whose first variants are float32, which it does not take; and its probe,
    which comes before all."""
    place = emulated(runtime, engine, subgroups, False)
    place.what, place.options = f"products, {place.what}", place.options[:2]
    place.kernels = ["gemm_matrix", "mma_probe"]
    return place


PLACES = [
    Place("pocl", seconds=60),
    Place("pocl", "16 KB and 64 items", ["--pretend", SMALL], kernels=TILES, seconds=30),
    Place("pocl", "48 KB and 1024 items", pretended("NVIDIA", 49152, 1024, 80, 0), kernels=TILES, full=True),
    Place("pocl", "64 KB and 256 items", pretended("AMD", 65536, 256, 40, 1) + FEW, kernels=TILES + ["gemm_clblast"],
          seconds=30),
    Place("Intel", seconds=40),
    Place("Intel", "48 KB", pretended("NVIDIA", 49152, 1024, 80, 0), kernels=TILES,
          environment={"CL_CONFIG_CPU_FORCE_LOCAL_MEM_SIZE": "48KB"}, seconds=20),
    Place("Intel", "16 KB and 64 items", ["--pretend", SMALL, *FEW], kernels=TILES,
          environment={"CL_CONFIG_CPU_FORCE_LOCAL_MEM_SIZE": "16KB"}, seconds=20),
    Place("Intel", "64 KB and 512 items", pretended("Intel", 65536, 512, 96, 1), kernels=TILES, full=True),
    *[Place("Intel", f"sub-groups of {lanes}",
            ["--pretend", f"type=gpu,vendor=other,subgroups=1,subgroup_lanes={lanes}", "--most", "2"], kernels=TILES)
      for lanes in (8, 16, 32)],
    Place("rusticl", options=["--most", "1"], seconds=90),  # half a minute for each attn_tiled
    Place("rusticl", "all variants", full=True),
    Place("rusticl", "32 KB and 256 items", pretended("other", 32768, 256, 4, 0), kernels=TILES, full=True),
    Place("oclgrind", "tiles", ["--pretend", SMALL, "--most", "1"], kernels=["attn_tiled", "gemm_tiled"], watch=CALLS,
          seconds=90),
    Place("oclgrind", "decoding", [*pretended("other", 32768, 256, 4, 0), "--most", "1"], kernels=["attn_decode"],
          seconds=40),
    Place("oclgrind", "a processor", ["--pretend", "type=cpu,lanes=4,compute_units=2", "--most", "2"],
          kernels=["attn_cpu", "attn_decode", "gemm_cpu"], seconds=60),
    # oclgrind's clock of 1 MHz has keys walked in parts. What a part leaves lies in a buffer that the host never
    # writes; in the place of a smaller one that was released, oclgrind 21.10 watches no more than that one's bytes and
    # takes the others for uninitialised: one variant sees no such place.
    Place("oclgrind", "uninitialised parts", ["--pretend", SMALL, "--most", "1"], watch=UNINITIALIZED, seconds=4,
          kernels=["attn_naive"]),
    Place("oclgrind", "uninitialised reads", ["--pretend", SMALL + ",clock_mhz=1000", "--most", "2"],
          watch=UNINITIALIZED, seconds=20,
          kernels=["attn_naive", "layer_norm", "batch_statistics", "batch_apply", "elementwise", "softmax_forward",
                   "softmax_cross_entropy", "rope", "kv_append", "kv_gather"]),
    *[emulated("pocl", engine, False, engine not in ("nv", "dpas16"))
      for engine in ("nv", "wmma11", "wmma12", "mfma32", "dpas8", "dpas16")],
    *[emulated("Intel", engine, True, engine == "wmma11") for engine in ("nv", "wmma11", "dpas8", "dpas16")],
    products("pocl", "nv", False),
    products("Intel", "dpas16", True),
]


# ---- running ----

@dataclass
class Outcome:
    """What the kernels did in one place."""
    place: Place
    rows: list = field(default_factory=list)      # of clattn verify --json
    findings: list = field(default_factory=list)  # against the place itself
    absent: str = ""
    seconds: float = 0


def kernel_folder(folder, poison, plant=None):
    """A copy of cl/, where local memory starts as NaN if asked for; plant: (file, right, wrong)."""
    target = f"{folder}/cl-{'poisoned' if poison else 'plain'}"
    if plant:
        target = tempfile.mkdtemp(prefix="cl-", dir=folder) + "/cl"
    if not os.path.exists(target):
        shutil.copytree(f"{ROOT}/cl", target)
        if poison:
            edit(f"{target}/inc/local.clh", "", "#define POISON_LOCAL\n")
    if plant:
        edit(f"{target}/{plant[0]}", plant[1], plant[2])
    return target


def edit(path, old, new):
    with open(path) as file:
        text = file.read()
    if old not in text:
        raise ValueError(f"{os.path.basename(path)} does not hold {old!r}")
    with open(path, "w") as file:
        file.write(text.replace(old, new, 1))


class Matrix:
    def __init__(self, clattn, folder, full):
        self.clattn, self.folder, self.full = os.path.abspath(clattn), folder, full
        self.runtimes = {}
        for name, find in RUNTIMES.items():
            try:
                self.runtimes[name] = find(folder)
            except Absent as reason:
                self.runtimes[name] = str(reason)
        self.kernels = {poison: kernel_folder(folder, poison) for poison in (False, True)}

    def registry(self):
        """Names of the kernels that the product has, and of the small ones that devices are given."""
        listed = subprocess.run([self.clattn, "kernels", "--json"], stdout=subprocess.PIPE, check=True, text=True)
        names = {kernel["name"] for kernel in json.loads(listed.stdout)}
        for pretend in ("type=cpu", "type=gpu,matrix=nv:80"):
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                subprocess.run([self.clattn, "kernels", "--sources", folder, "--pretend", pretend],
                               stdout=subprocess.DEVNULL, check=True)
                with open(f"{folder}/programs.json") as file:
                    names |= {program["kernel"] for program in json.load(file)}
        return sorted(names - {"limits"})  # which checks its sums whenever it measures, not in a verification

    def run(self, place, kernels=None):
        outcome, runtime = Outcome(place), self.runtimes[place.runtime]
        if isinstance(runtime, str):
            outcome.absent = runtime
            return outcome
        start = time.time()
        for kernel in place.kernels or [None]:
            self.verify(outcome, runtime, kernel, kernels or self.kernels[place.watch != UNINITIALIZED])
        outcome.seconds = time.time() - start
        return outcome

    def verify(self, outcome, runtime, kernel, kernels):
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            log = f"{folder}/log"
            command = [log if word == "LOG" else word for word in runtime.wrapper + outcome.place.watch]
            command += [self.clattn, "verify", "--json", "--no-cache", "--kernel-dir", kernels, *outcome.place.options]
            command += ["--kernel", kernel] if kernel else []
            command += [] if self.full and not runtime.wrapper else ["--brief"]
            environment = {**os.environ, **runtime.environment, **outcome.place.environment}
            for choice in ("CLATTN_DEVICE", "CLATTN_KERNEL_DIR"):
                environment.pop(choice, None)
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env=environment, timeout=MOST_SECONDS * (10 if self.full else 1))
            except subprocess.TimeoutExpired as late:
                outcome.findings.append(f"{kernel or 'verify'}: not done after {late.timeout:.0f} s")
                return
            self.judge(outcome, runtime, done, log)

    def judge(self, outcome, runtime, done, log):
        try:
            device = json.loads(done.stdout)["devices"][0]
        except (ValueError, LookupError):
            outcome.findings.append(f"exit status {done.returncode}: {done.stderr.strip()[-600:]}")
            return
        outcome.rows += device["results"]
        if runtime.platform not in device["platform"]:
            outcome.findings.append(f"it ran on {device['platform']}, not on {runtime.platform}")
        # a kernel that the device refuses altogether is told by exit status 3, and summary() leaves it out
        refused = done.returncode == 3 and all(row["verdict"] == "refused" for row in device["results"])
        if done.returncode != 0 and not refused and not any(row["verdict"] == "WRONG" for row in device["results"]):
            outcome.findings.append(f"exit status {done.returncode}: {done.stderr.strip()[-600:]}")
        if runtime.wrapper and os.path.exists(log):
            with open(log, errors="replace") as file:
                said = file.read().strip()
            if said:
                outcome.findings.append("the log is not empty:\n    " + "\n    ".join(said.splitlines()[:14]))


def summary(outcome):
    """(kernel, variants that agree, texts of the wrong ones, worst) for each kernel that was not refused everywhere."""
    kernels = {}
    for row in outcome.rows:
        kernels.setdefault(row["kernel"], []).append(row)
    for name, rows in kernels.items():
        wrong = [f"[{row['variant']}] {row['detail']}" for row in rows if row["verdict"] == "WRONG"]
        good = [row for row in rows if row["verdict"] == "agrees" and row["cases"] > 0]
        if wrong or good:
            yield name, len(good), wrong, max([row["worst"] or 0 for row in good], default=0)


def tell(outcome):
    """Prints a place, and returns (passed, failed, skipped)."""
    name = outcome.place.name
    if outcome.absent:
        print(f"SKIP {name}: {outcome.absent}")
        return 0, 0, 1
    passed, failed, served = 0, len(outcome.findings), set()
    for finding in outcome.findings:
        print(f"FAIL {name}: {finding}")
    for kernel, good, wrong, worst in summary(outcome):
        served.add(kernel)
        for text in wrong:
            print(f"FAIL {name}: {kernel} {text}")
        if not wrong:
            print(f"ok   {name}: {kernel}: {good} variants, {worst:.2f} of the tolerance")
        passed, failed = passed + (not wrong), failed + len(wrong)
    for kernel in outcome.place.kernels:
        if kernel not in served and not outcome.findings:
            why = next((row["detail"] for row in outcome.rows if row["kernel"] == kernel), "nothing was reported")
            print(f"FAIL {name}: {kernel} did not run: {why}")
            failed += 1
    print(f"     {name}: {outcome.seconds:.0f} s", flush=True)
    return passed, failed, 0


def never_ran(registry, outcomes):
    """Kernels of the product that ran nowhere."""
    ran = {kernel for outcome in outcomes for kernel, good, _, _ in summary(outcome) if good}
    return [kernel for kernel in registry if kernel not in ran]


def run_all(matrix, jobs, wanted):
    places = [p for p in PLACES if (matrix.full or not p.full) and p.name.lower().startswith(tuple(wanted) or "")]
    if not places:
        sys.exit(f"run_matrix.py: no place begins with {', '.join(wanted)}; --list names them")
    totals, outcomes, start = [0, 0, 0], [], time.time()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(matrix.run, p) for p in sorted(places, key=lambda p: -p.seconds)]
        for done in concurrent.futures.as_completed(running):
            outcomes.append(done.result())
            totals = [a + b for a, b in zip(totals, tell(outcomes[-1]))]
    if not wanted and any(not o.absent for o in outcomes):
        registry = matrix.registry()
        lost = never_ran(registry, outcomes)
        for kernel in lost:
            print(f"FAIL {kernel} is in the registry and ran in no place")
        totals = [totals[0] + len(registry) - len(lost), totals[1] + len(lost), totals[2]]
    ran = [o for o in outcomes if not o.absent]
    print(f"{len(ran)} places in {time.time() - start:.0f} s")
    return totals


# ---- planted mistakes ----

@dataclass
class Plant:
    what: str
    place: Place
    edit: tuple          # (file, right, wrong); None: nothing is wrong
    poison: bool = True


def small(runtime, kernel):
    return Place(runtime, "16 KB and 64 items", ["--pretend", SMALL], kernels=[kernel])


FACTOR = ("inc/norm_row.clh", "1.0f / sqrt(variance + a->eps)", "1.01f")
REDUCE = ("inc/norm_row.clh", "    barrier(CLK_LOCAL_MEM_FENCE); /* before the next sum overwrites it */\n", "")
PLANTS = [
    Plant("nothing", small("pocl", "layer_norm"), None),
    Plant("a wrong factor", small("pocl", "layer_norm"), FACTOR),
    Plant("local memory that is read before it is written", small("pocl", "layer_norm"),
          ("inc/norm_row.clh", "    parts[item] = part;\n", "    if (item < ITEMS / 2) parts[item] = part;\n")),
    Plant("nothing", small("oclgrind", "layer_norm"), None, poison=False),
    Plant("a missing barrier", small("oclgrind", "layer_norm"), REDUCE, poison=False),
    Plant("a read behind the end", small("oclgrind", "layer_norm"),
          ("inc/norm_row.clh", "weight[c] + bias[c]", "weight[c] + bias[c + 4096]"), poison=False),
    Plant("nothing", emulated("Intel", "nv", True, False), None),
    Plant("sub-groups of any size", emulated("Intel", "nv", True, False),
          ("inc/tile_mma.clh", "__attribute__((intel_reqd_sub_group_size(MMA_LANES)))", "")),
    Plant("a wrong factor", small("rusticl", "layer_norm"), FACTOR),
]


def self_test(matrix, jobs):
    """Every plant is found, and what is not wrong is not."""
    passed = failed = skipped = 0

    def attempt(plant):
        kernels = kernel_folder(matrix.folder, plant.poison, plant.edit)
        return plant, matrix.run(plant.place, kernels)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for plant, outcome in pool.map(attempt, PLANTS):
            if outcome.absent:
                print(f"SKIP {plant.place.runtime}, {plant.what}: {outcome.absent}")
                skipped += 1
                continue
            found = outcome.findings + [text for _, _, wrong, _ in summary(outcome) for text in wrong]
            right = bool(found) == (plant.edit is not None) and bool(outcome.rows)
            passed, failed = passed + right, failed + (not right)
            print(f"{'ok  ' if right else 'FAIL'} {plant.place.name}, {plant.place.kernels[0]}, {plant.what}: "
                  f"{found[0].splitlines()[0] if found else 'nothing found'}")
    # a kernel that no place ran, and a runtime that is another one
    lost = never_ran(["attn_host", "attn_lost"], [Outcome(PLACES[0], [{"kernel": "attn_host", "verdict": "agrees",
                                                                       "cases": 1, "worst": 0}])])
    right = lost == ["attn_lost"]
    print(f"{'ok  ' if right else 'FAIL'} a kernel that runs nowhere: {', '.join(lost)}")
    passed, failed = passed + right, failed + (not right)
    if isinstance(matrix.runtimes["pocl"], Runtime):
        matrix.runtimes["Intel"] = Runtime("Intel", matrix.runtimes["pocl"].environment)
        outcome = matrix.run(small("Intel", "layer_norm"))
        right = any("not on Intel" in finding for finding in outcome.findings)
        print(f"{'ok  ' if right else 'FAIL'} another runtime than the one asked for: {outcome.findings[:1]}")
        passed, failed = passed + right, failed + (not right)
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("clattn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--full", action="store_true", default=bool(os.environ.get("CLATTN_TEST_FULL")))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("places", nargs="*")
    options = parser.parse_intermixed_args()
    if options.list:
        for place in PLACES:
            print(place.name + ("  (--full)" if place.full else ""))
        return 0
    with tempfile.TemporaryDirectory(prefix="clattn-run-") as folder:
        matrix = Matrix(options.clattn, folder, options.full and not options.self_test)
        wanted = [place.lower() for place in options.places]
        passed, failed, skipped = self_test(matrix, options.jobs) if options.self_test else \
            run_all(matrix, options.jobs, wanted)
    print(f"clattn-tests: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0 if passed else 77


if __name__ == "__main__":
    sys.exit(main())
