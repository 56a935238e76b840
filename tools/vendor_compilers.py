"""What each GPU vendor's offline compiler makes of an OpenCL program: one function per family, all alike.

compile_FAMILY(tools, chip, program) -> [Kernel]: raises Refused with the compiler's words when it fails.  A program has
`path`, `options`, `items` (work-items of its largest group, or None) and `name`.
"""
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

# Runtimes define the macro, plain clang does not.
CLANG = ["-x", "cl", "-fno-crash-diagnostics", "-cl-std=CL1.2", "-D__OPENCL_VERSION__=120"]


class Refused(Exception):
    """A compiler refuses a program; the text is what it said."""


@dataclass
class Kernel:
    name: str
    registers: int  # per work-item; 0: the compiler does not say
    spills: int     # bytes or registers moved to memory
    scratch: int    # bytes of private memory
    local: int      # bytes
    lanes: int      # of a sub-group; 0: the compiler does not say
    assembly: str   # to look for instructions in


class Tools:
    """Finds programs in a folder made by vendor_tools.sh, else on the system."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder) if folder else None
        root = f"{self.folder}/root/usr"
        self.environment = {**os.environ, "IGC_EnableZEBinary": "1"}
        if self.folder:
            self.environment["LD_LIBRARY_PATH"] = f"{root}/lib/x86_64-linux-gnu"
            self.environment["PATH"] = f"{root}/bin:{os.environ['PATH']}"

    def find(self, program):
        return shutil.which(program, path=self.environment["PATH"])

    def file(self, *choices):
        """The first of some paths that exists, below the folder's root or the system's."""
        for choice in choices:
            for root in ([f"{self.folder}/root", self.folder] if self.folder else []) + [""]:
                if os.path.exists(f"{root}/{choice}"):
                    return f"{root}/{choice}"
        return None

    def missing(self, programs, files):
        return [p for p in programs if not self.find(p)] + [f for f in files if not self.file(f)]

    def run(self, command, stdin=None):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              env=self.environment, input=stdin)
        if done.returncode != 0:
            raise Refused(f"{os.path.basename(command[0])}: {done.stdout.strip()[-1500:]}")
        return done.stdout


def scratch_folder():
    return tempfile.TemporaryDirectory(prefix="clattn-matrix-")


# ---- AMD: clang's code generator; numbers from the metadata that the loader reads ----

AMD_FILES = ["bc/opencl.bc"]


def compile_amd(tools, chip, program):
    with scratch_folder() as folder:
        out = f"{folder}/k.s"
        tools.run([tools.find("clang-19"), *CLANG, "-O2", "-target", "amdgcn-amd-amdhsa", f"-mcpu={chip}",
                   f"--rocm-device-lib-path={tools.file('bc')}", *program.options, "-S", program.path, "-o", out])
        text = open(out).read()
    kernels = []
    for block in re.split(r"\n  - ", text.split("amdhsa.kernels:")[-1].split("amdhsa.target:")[0])[1:]:
        def number(key):
            return int(re.search(rf"\.{key}:\s*(\d+)", block)[1])
        kernels.append(Kernel(re.search(r"\n    \.name:\s*(\w+)", block)[1], number("vgpr_count"),
                              number("vgpr_spill_count") + number("sgpr_spill_count"),
                              number("private_segment_fixed_size"), number("group_segment_fixed_size"),
                              number("wavefront_size"), text))
    return kernels


# ---- NVIDIA: clang makes PTX, the vendor's assembler makes machine code ----

NVIDIA_FILES = ["usr/lib/clc/nvptx64--nvidiacl.bc"]

# libclc's native_ functions become calls that this back end cannot make; the driver's own are these instructions.
NATIVE = r"""
float __nvvm_ex2_approx_f(float); float __nvvm_lg2_approx_f(float); float __nvvm_rsqrt_approx_f(float);
#define NATIVE float __attribute__((overloadable, always_inline))
NATIVE native_exp2(float x) { return __nvvm_ex2_approx_f(x); }
NATIVE native_log2(float x) { return __nvvm_lg2_approx_f(x); }
NATIVE native_exp(float x) { return __nvvm_ex2_approx_f(x * 1.44269504f); }
NATIVE native_log(float x) { return __nvvm_lg2_approx_f(x) * 0.69314718f; }
NATIVE native_rsqrt(float x) { return __nvvm_rsqrt_approx_f(x); }
float4 __attribute__((overloadable, always_inline)) native_exp2(float4 x) {
    return (float4)(native_exp2(x.x), native_exp2(x.y), native_exp2(x.z), native_exp2(x.w));
}
"""


def nvidia_prepare(tools, folder):
    """The functions above as bitcode; once per run."""
    tools.native = f"{folder}/native.bc"
    tools.run([tools.find("clang-19"), *CLANG, "-O2", "-target", "nvptx64--nvidiacl", "-emit-llvm", "-c", "-", "-o",
               tools.native], stdin=NATIVE)


def compile_nvidia(tools, chip, program):
    front = min(int(chip[3:]), 90)  # clang's newest; the assembler knows the rest
    with scratch_folder() as folder:
        ptx, cubin = f"{folder}/k.ptx", f"{folder}/k.cubin"
        bitcode = []
        for file in (tools.native, tools.file(NVIDIA_FILES[0])):
            bitcode += ["-Xclang", "-mlink-builtin-bitcode", "-Xclang", file]
        tools.run([tools.find("clang-19"), *CLANG, "-O2", "-fgnu-keywords", "-target", "nvptx64--nvidiacl", "-Xclang",
                   "-target-cpu", "-Xclang", f"sm_{front}", *bitcode, "-Wno-linker-warnings",
                   "-D__NV_CL_C_VERSION=120",
                   *program.options, "-S", program.path, "-o", ptx])
        # clang drops the required group size, without which the assembler believes in 1024 work-items
        report = tools.run([tools.find("ptxas"), "-v", f"-arch={chip}", "--maxntid", str(program.items or 256), ptx,
                            "-o", cubin])
        text = open(ptx).read()
    kernels = []
    for block in report.split("Compiling entry function '")[1:]:
        def number(pattern):
            found = re.search(pattern, block)
            return int(found[1]) if found else 0
        kernels.append(Kernel(block.split("'")[0], number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"),
                              number(r"(\d+) bytes stack frame"), number(r"(\d+) bytes smem"), 32, text))
    return kernels


# ---- Intel: the driver's compiler; numbers from the binary's own description ----


def compile_intel(tools, chip, program):
    with scratch_folder() as folder:
        # the driver defines these words for what the chip offers; the offline compiler does not
        macros = " ".join(["-cl-std=CL1.2", "-Dcl_intel_subgroup_matrix_multiply_accumulate=1",
                           "-Dcl_intel_subgroup_local_block_io=1", *program.options])
        tools.run([tools.find("ocloc"), "compile", "-file", program.path, "-device", chip, "-options", macros,
                   "-output", "b", "-out_dir", folder])
        binary = [f for f in os.listdir(folder) if f.endswith(".bin")]
        tools.run([tools.find("llvm-objcopy-19"), f"--dump-section=.ze_info={folder}/info", f"{folder}/{binary[0]}",
                   "/dev/null"])
        text = open(f"{folder}/info", errors="replace").read()
    kernels = []
    for block in text.split("kernels_misc_info:")[0].split("  - name: ")[1:]:  # what follows names them again
        name = block.split()[0]
        if name.startswith("Intel_Symbol_Table"):
            continue

        def number(key):
            found = re.search(rf"\b{key}:\s*(\d+)", block)
            return int(found[1]) if found else 0
        memory = {"spill_fill_space": 0, "private_space": 0, "single_space": 0}
        for usage, size in re.findall(r"usage:\s*(\w+)\s+size:\s*(\d+)", block):
            memory[usage] = memory.get(usage, 0) + int(size)
        kernels.append(Kernel(name, number("grf_count"), memory["spill_fill_space"],
                              memory["private_space"] + memory["single_space"], number("slm_size"), number("simd_size"),
                              block))
    return kernels


# ---- SPIR-V 1.0 without any extension: the language as every other driver reads it ----


def compile_spirv(tools, chip, program):
    with scratch_folder() as folder:
        bitcode, module = f"{folder}/k.bc", f"{folder}/k.spv"
        tools.run([tools.find("clang-15"), *CLANG, "-O1", "-Xclang", "-disable-llvm-passes", "-Xclang",
                   "-cl-ext=-all", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter",
                   "-Wno-constant-logical-operand",
                   "-target", f"{chip}-unknown-unknown", *program.options, "-emit-llvm", "-c", program.path, "-o",
                   bitcode])
        tools.run([tools.find("llvm-spirv-15"), "--spirv-max-version=1.0", bitcode, "-o", module])
        tools.run([tools.find("spirv-val"), "--target-env", "opencl1.2", module])
        text = tools.run([tools.find("spirv-dis"), "--no-color", module])
    return [Kernel(name, 0, 0, 0, 0, 0, "") for name in re.findall(r'OpEntryPoint Kernel \S+ "(\w+)"', text)]


FAMILIES = {
    "amd": (compile_amd, ["clang-19"], AMD_FILES),
    "nvidia": (compile_nvidia, ["clang-19", "ptxas"], NVIDIA_FILES),
    "intel": (compile_intel, ["ocloc", "llvm-objcopy-19"], []),
    "spirv": (compile_spirv, ["clang-15", "llvm-spirv-15", "spirv-val", "spirv-dis"], []),
}
