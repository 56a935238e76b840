#!/usr/bin/env python3
"""Rehearses pocl for NVIDIA's cards without a card: its compiler takes clattn's kernels, and ptxas takes its PTX.

usage: pocl_cuda_rehearsal.py CLATTN FOLDER [--tools DIR] [--arch N]... [--breadth all|engine|tiles] [--jobs N]
                              [KERNEL ...]

  CLATTN       the program whose kernels are compiled
  FOLDER       what tools/pocl_cuda.sh made
  --tools DIR  of tools/vendor_tools.sh, for ptxas; otherwise the one on the system
  --arch N     compute capability of the card that is pretended, 80 for 8.0 (default: 75, 80 and 90)
  --breadth    which programs: see tools/matrix_programs.py (default: tiles)
  --jobs N     compilers at a time (default: processors)
  KERNEL       only these, by name

A stand-in for NVIDIA's driver (tests/cuda_stand_in.c) has one such card: it assembles the modules that pocl loads, and
launches do nothing. So this shows which device clattn sees, which kernels it would choose, and that each compiles; not
that one computes anything: clattn must find that none does. Without the driver's library, and with a driver but no
card, pocl must have no device and clattn must say so. The last line is `P passed, F failed, S skipped`.
"""
import argparse
import concurrent.futures
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from matrix_programs import Program, is_wanted
from matrix_targets import Target

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
GPU = 4  # CL_DEVICE_TYPE_GPU
SECONDS = 300


def build_one(path, options):
    """Builds a program on the first GPU of the first platform; what a child process does."""
    cl = ctypes.CDLL("libOpenCL.so.1")
    for name in ("clCreateContext", "clCreateProgramWithSource"):
        getattr(cl, name).restype = ctypes.c_void_p
    platform, device, code = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    if cl.clGetPlatformIDs(1, ctypes.byref(platform), None) or \
            cl.clGetDeviceIDs(platform, ctypes.c_ulong(GPU), 1, ctypes.byref(device), None):
        sys.exit("no device")
    context = ctypes.c_void_p(cl.clCreateContext(None, 1, ctypes.byref(device), None, None, ctypes.byref(code)))
    text = ctypes.c_char_p(open(path, "rb").read())
    program = ctypes.c_void_p(cl.clCreateProgramWithSource(context, 1, ctypes.byref(text), None, ctypes.byref(code)))
    status = cl.clBuildProgram(program, 1, ctypes.byref(device), options.encode(), None, None)
    if status:
        log = ctypes.create_string_buffer(4000)
        cl.clGetProgramBuildInfo(program, device, 0x1183, ctypes.c_size_t(len(log)), log, None)
        print(log.value.decode(errors="replace"))
        sys.exit(f"clBuildProgram: {status}")


class Rehearsal:
    def __init__(self, args, scratch):
        self.args, self.scratch = args, scratch
        self.passed = self.failed = 0
        self.driver = f"{scratch}/driver"
        os.mkdir(self.driver)
        subprocess.run(["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", f"{self.driver}/libcuda.so.1",
                        f"{ROOT}/tests/cuda_stand_in.c"], check=True)

    def run(self, command, driver=True, **environment):
        """(exit code, output) of a command that sees pocl alone."""
        scene = dict(os.environ, OCL_ICD_VENDORS=f"{self.args.folder}/icd", POCL_CACHE_DIR=f"{self.scratch}/cache",
                     XDG_CACHE_HOME=f"{self.scratch}/xdg", STAND_IN_PTXAS=self.args.ptxas, **environment)
        paths = [self.driver] if driver else []
        scene["LD_LIBRARY_PATH"] = ":".join(paths + [p for p in [os.environ.get("LD_LIBRARY_PATH")] if p])
        done = subprocess.run(command, env=scene, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=SECONDS)
        return done.returncode, done.stdout

    def note(self, good, what, output=""):
        self.passed += good
        self.failed += not good
        if not good:
            print(f"FAIL {what}\n" + "\n".join(f"    {line}" for line in output.strip().split("\n")[-8:]))

    def no_card(self):
        for what, driver, cards in (("no libcuda", False, "1"), ("a driver without a card", True, "0")):
            code, output = self.run([self.args.clattn, "devices"], driver, STAND_IN_DEVICES=cards)
            self.note(code >= 0 and "no OpenCL" in output, f"{what}: exit code {code}", output)

    def build(self, arch, program):
        code, output = self.run([sys.executable, os.path.abspath(__file__), "--build", program.path,
                                 " ".join(["-cl-std=CL1.2", *program.options])], STAND_IN_ARCH=str(arch))
        return code == 0 and "stand-in: assembled" in output, output

    def card(self, arch):
        code, output = self.run([self.args.clattn, "devices", "--device", "gpu"], STAND_IN_ARCH=str(arch))
        self.note(code == 0 and f"for sm_{arch}" in output and "tensor cores" in output, f"sm_{arch}: device", output)
        # Launches that do nothing are found out, and the host computes in their place.
        code, output = self.run([self.args.clattn, "explain", "--attention", "1,2,2,512,512,64,float16", "--device",
                                 "gpu"], STAND_IN_ARCH=str(arch))
        self.note(code == 0 and "kernels: attn_host" in output and "attn_matrix is passed over: mma_probe" in output,
                  f"sm_{arch}: explain", output)
        folder = f"{self.scratch}/sm_{arch}"
        code, output = self.run([self.args.clattn, "kernels", "--sources", folder, "--device", "gpu"],
                                STAND_IN_ARCH=str(arch))
        self.note(code == 0, f"sm_{arch}: kernels --sources", output)
        target = Target(f"sm_{arch}", "nvidia", f"sm_{arch}", "matrix=nv", 255, breadth=self.args.breadth)
        programs = {}
        for row in json.load(open(f"{folder}/programs.json")) if code == 0 else []:
            program = Program(row["kernel"], row["variant"], row["file"], f"{folder}/{row['source']}",
                              row["options"].split()[1:], row["key"], row["alternative"])
            if is_wanted(target, program) and (not self.args.kernel or program.name in self.args.kernel):
                programs.setdefault(program.key, program)
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            for program, (good, output) in zip(programs.values(),
                                               pool.map(lambda p: self.build(arch, p), programs.values())):
                self.note(good, f"sm_{arch}: {program.title()} with {' '.join(program.options)}", output)
                spilled = sum(int(found) for found in re.findall(r"(\d+) bytes spill stores", output))
                if spilled:
                    print(f"sm_{arch}: {program.title()} spills {spilled} bytes")
        print(f"sm_{arch}: {len(programs)} programs")


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--build":
        return build_one(sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0], add_help=True)
    parser.add_argument("clattn")
    parser.add_argument("folder")
    parser.add_argument("kernel", nargs="*")
    parser.add_argument("--tools", default="")
    parser.add_argument("--arch", type=int, action="append")
    parser.add_argument("--breadth", choices=("all", "engine", "tiles"), default="tiles")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_intermixed_args()
    args.clattn, args.folder = os.path.abspath(args.clattn), os.path.abspath(args.folder)
    args.ptxas = f"{os.path.abspath(args.tools)}/root/usr/bin/ptxas" if args.tools else shutil.which("ptxas")
    if not args.ptxas or not os.path.exists(args.ptxas):
        print("no ptxas: tools/vendor_tools.sh fetches it\n0 passed, 0 failed, 1 skipped")
        return 77
    with tempfile.TemporaryDirectory() as scratch:
        rehearsal = Rehearsal(args, scratch)
        rehearsal.no_card()
        for arch in args.arch or (75, 80, 90):
            rehearsal.card(arch)
    print(f"{rehearsal.passed} passed, {rehearsal.failed} failed, 0 skipped")
    return 1 if rehearsal.failed else 0


if __name__ == "__main__":
    sys.exit(main())
