"""Rehearses tools/card/, the OpenCL driver on CUDA's driver API, on a stand-in for a card (tests/card/).

    test_card.py SOURCE_ROOT BUILD_ROOT CLATTN CC [--compiled]

Programs are collected as on a card: those that are asked for and missing are kept, made, and found the next time.
Their PTX holds the list of parameters and, as comments, the source, with matrix instructions emulated, that the
stand-in runs.
The lists are made with the C compiler CC; with --compiled the PTX is that of the vendors' compilers (in
$CLATTN_VENDOR_TOOLS or on the system), and ptxas assembles it.
The last line: "clattn-tests: P passed, F failed, S skipped".
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT, BUILD, CLATTN, CC = sys.argv[1:5]
sys.path.insert(0, ROOT + "/tools")
from card_ptx import bounded, card_environment, listed, missed, stand_for
from vendor_compilers import FAMILIES, Tools, make_ptx

TOOLS = Tools(os.environ.get("CLATTN_VENDOR_TOOLS")) if "--compiled" in sys.argv else None
KERNELS = ("attn_matrix", "attn_tiled", "attn_decode", "gemm_matrix", "gemm_tiled", "rope", "layer_norm")
EMULATED = (" -DMMA_EMULATE=0", " -DMMA_EMULATE=1 -DMMA_EMULATE_SUBGROUPS=0 -DMMA_COPY_LATE=1")
checks = {True: 0, False: 0}


def check(good, *what):
    checks[bool(good)] += 1
    if not good:
        print("FAIL", *what)


# ---- PTX without a compiler for it ----


def struct_sizes(folder):
    """Bytes of the structs that kernels take by value."""
    headers = sorted(f for f in os.listdir(ROOT + "/cl/shared") if f.endswith("args.h"))
    names = [n for f in headers for n in re.findall(r"(?m)^} (\w+);", open(f"{ROOT}/cl/shared/{f}").read())]
    lines = [f'#include "{ROOT}/cl/shared/{f}"' for f in headers] + ["#include <stdio.h>", "int main(void) {"]
    lines += [f'    printf("{n} %zu\\n", sizeof({n}));' for n in names] + ["}"]
    with open(folder + "/sizes.c", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    subprocess.run([CC, folder + "/sizes.c", "-o", folder + "/sizes"], check=True)
    rows = subprocess.run([folder + "/sizes"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return {**dict(zip(rows[::2], map(int, rows[1::2]))), "int": 4, "uint": 4, "float": 4, "long": 8, "clattn_i64": 8}


def declared(program, sizes):
    """The kernels of a program as PTX declares them, and the size of their groups."""
    text = subprocess.run([CC, "-E", "-P", "-x", "c", "-D__OPENCL_VERSION__=120", *program.options, program.path],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    entries, items = [], 0
    for head in re.findall(r"__kernel\b(.*?)\)\s*\{", text, re.S):
        for size in re.findall(r"reqd_work_group_size\(([\d\s()*/+-]+),", head):
            items = max(items, eval(size, {"__builtins__": {}}))  # digits and operators alone, by the pattern
        head = re.sub(r"__attribute__\s*\(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\)", "", head)
        name, inside = re.search(r"(\w+)\s*\(([^()]*)$", head).groups()
        rows = []
        for number, words in enumerate(inside.split(",")):
            kind = [w for w in re.findall(r"\w+", words) if w != "const"]
            size = 8 if kind[0] == "__global" else sizes[kind[-2]]
            place = f"{name}_param_{number}"
            rows.append({4: f"\t.param .u32 {place}", 8: f"\t.param .u64 {place}"}.get(
                size, f"\t.param .align 8 .b8 {place}[{size}]"))
        entries.append(f".visible .entry {name}(\n" + ",\n".join(rows) + "\n)\n{\n\tret;\n}\n")
    return "".join(entries), items


# ---- running ----


def tiles_of(program):
    """The options of a program without the features of attention and the activation of a product."""
    return re.sub(r".*-DCELLS=0 |-DACTIVATION=\d ", "", " ".join(program.options))


class Card:
    """A folder with what a machine with a card has: the driver, the PTX, and where missing sources go."""

    def __init__(self, folder):
        self.folder, self.sizes = folder, struct_sizes(folder)
        self.listed = listed(CLATTN, folder, "")
        for name in ("ptx", "missing"):
            os.mkdir(f"{folder}/{name}")
        self.environment = card_environment(BUILD, folder, folder + "/ptx", folder + "/missing")

    def run(self, *words, plant="", stand_in=True, keep=False):
        """(exit code, output); nothing is kept between runs but by `keep`."""
        if not keep:
            shutil.rmtree(self.folder + "/cache", ignore_errors=True)
        environment = {**self.environment, "STAND_IN_CUDA": plant}
        if not stand_in:
            environment["LD_LIBRARY_PATH"] = environment["LD_LIBRARY_PATH"].partition(":")[2]
        done = subprocess.run([CLATTN, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=environment)
        return done.returncode, done.stdout

    def verify(self, kernel, **how):
        most = "3" if kernel == "gemm_matrix" else "1"  # the first two are float32, which it refuses
        return self.run("verify", "--device", "gpu", "--brief", "--most", most, "--kernel", kernel, **how)

    def make(self, program):
        text, items = make_ptx(TOOLS, program) if TOOLS else declared(program, self.sizes)
        options = " ".join(["-cl-std=CL1.2", *program.options]).replace(*EMULATED)
        with open(f"{self.folder}/ptx/{program.key}.ptx", "w", encoding="utf-8") as file:
            file.write(stand_for(program, options) + bounded(text, items))

    def collect(self):
        """Makes the programs that were missing; gives how many. Their tiles are those listed for a card at hand, though
        short verification has sets of features of its own."""
        programs = missed(self.folder + "/missing")
        tiles = {tiles_of(program) for program in self.listed.values()}
        for program in programs.values():
            check(tiles_of(program) in tiles, "card_ptx.py lists no such tiles:", program.options)
            self.make(program)
            os.remove(program.path)
        return len(programs)


def rehearse(card):
    code, text = card.run("devices")
    check(code == 0 and "a stand-in for a card" in text and "tensor cores" in text, text)
    code, text = card.verify("layer_norm")
    check(code != 0 and "no PTX was made of this program" in text, "a missing program:", text)
    for kernel in KERNELS:
        code, text = card.verify(kernel)
        while card.collect():  # what is asked for only when something else is there
            code, text = card.verify(kernel)
        check(code == 0 and " 0 agree" not in text and " 0 wrong" in text, kernel + ":", text)
    # The card cannot run what is made for CPUs, the machine's own device can: all is well.
    code, text = card.run("verify", "--all", "--brief", "--most", "1", "--kernel", "gemm_cpu")
    check(code == 0 and " 0 agree, 0 wrong" in text and " 1 agree, 0 wrong" in text, "all devices:", text)
    # The binary that clattn kept of the first run is the PTX.
    kept = card.verify("rope", keep=True)
    check(kept[0] == 0, "a kept binary:", kept[1])


def measure(card):
    """With kernels that short verification left there, and the measurement of what the card can do."""
    for program in card.listed.values():
        if program.name == "limits":
            card.make(program)
    code, text = card.run("bench", "--device", "gpu", "--resident", "--seconds", "0.01", "--attention",
                          "1,2,2,64,64,64,float16,causal")
    check(code == 0, "bench:", text)


def fail_on_purpose(card):
    for plant, words in (("launch 2", "CUDA_ERROR_LAUNCH_FAILED"), ("bad module", "line 1; fatal: planted"),
                         ("no function", "CUDA_ERROR_NOT_FOUND"), ("lose 1", "wrong"), ("unwritten", "wrong")):
        code, text = card.verify("layer_norm", plant=plant)
        check(code != 0 and words in text, plant + ":", text)
    code, text = card.run("devices", plant="no card")
    check("a stand-in" not in text and "cuInit gave CUDA_ERROR_NO_DEVICE" in text, text)
    code, text = card.run("devices", stand_in=False)
    check("a stand-in" not in text and ("libcuda.so.1" in text or "NVIDIA" in text), "without the stand-in:", text)
    for file in os.listdir(card.folder + "/ptx"):  # a parameter more than is set, a list that ends early
        path = f"{card.folder}/ptx/{file}"
        text = open(path).read()
        if ".entry layer_norm(" in text:
            longer = text.replace("\n)\n", ",\n\t.param .u32 layer_norm_param_9\n)\n", 1)
            for wrong in (longer, text.split("_param_2")[0]):
                with open(path, "w", encoding="utf-8") as out:
                    out.write(wrong)
                code, said = card.verify("layer_norm")
                check(code != 0, "a wrong list of parameters:", said)


def assemble(card):
    for file in sorted(os.listdir(card.folder + "/ptx")):
        done = subprocess.run([TOOLS.find("ptxas"), "-arch=sm_90", f"{card.folder}/ptx/{file}", "-o", "/dev/null"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=TOOLS.environment)
        check(done.returncode == 0, file, done.stdout)


def main():
    missing = TOOLS.missing(FAMILIES["nvidia"].programs, FAMILIES["nvidia"].files) if TOOLS else []
    if missing:
        print(f"skip: {', '.join(missing)} not found; see tools/vendor_tools.sh")
        print("clattn-tests: 0 passed, 0 failed, 1 skipped")
        return 77
    with tempfile.TemporaryDirectory(prefix="clattn-card-") as folder:
        card = Card(folder)
        rehearse(card)
        if TOOLS:
            measure(card)
            assemble(card)
        else:
            fail_on_purpose(card)
    print(f"clattn-tests: {checks[True]} passed, {checks[False]} failed, 0 skipped")
    return 1 if checks[False] else 0


sys.exit(main())
