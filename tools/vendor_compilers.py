"""What each GPU vendor's offline compiler makes of OpenCL programs: one function per family, all alike.

compile_FAMILY(tools, chip, programs) -> [[Kernel] or Refused]: for each program what was made of it, or the compiler's
words when it failed.  A program has `name`, `path`, `options`, `key` (of source and options) and `listing`: whether its
kernels come with their machine code as text.
"""
import os
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
import threading
from dataclasses import dataclass, replace

# Runtimes define the macro, plain clang does not.
CLANG = ["-x", "cl", "-fno-crash-diagnostics", "-cl-std=CL1.2", "-D__OPENCL_VERSION__=120"]


class Refused(Exception):
    """A compiler refuses a program; the text is what it said."""


@dataclass
class Kernel:
    name: str
    registers: int     # per work-item (Intel: per thread); 0: the compiler does not say
    spills: int        # bytes or registers moved to memory
    scratch: int       # bytes of private memory
    local: int         # bytes
    lanes: int         # of a sub-group; 0: the compiler does not say
    items: int         # of the group that the kernel requires; 0: it requires none
    matrix: int        # matrix instructions; -1: not counted
    listing: str = ""  # machine code, when it was asked for
    mix: object = None  # what its hot loops hold, of matrix_mix.py


class Tools:
    """Finds programs in a folder made by vendor_tools.sh, else on the system."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder) if folder else None
        root = f"{self.folder}/root/usr"
        self.environment = {**os.environ, "IGC_EnableZEBinary": "1"}
        if self.folder:
            self.environment["LD_LIBRARY_PATH"] = f"{root}/lib/x86_64-linux-gnu"
            self.environment["PATH"] = f"{root}/bin:{os.environ['PATH']}"
        self.lock, self.made = threading.Lock(), {}

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
            raise Refused(f"{os.path.basename(command[0])}: {complaint(done.stdout)}")
        return done.stdout

    def once(self, key, make):
        """What make() returns or raises, made by the first thread that asks for the key."""
        with self.lock:
            slot = self.made.setdefault(key, [threading.Lock(), None, None])
        with slot[0]:
            if slot[1] is None and slot[2] is None:
                try:
                    slot[1] = make()
                except Refused as refusal:
                    slot[2] = refusal
        if slot[2]:
            raise slot[2]
        return slot[1]


def scratch_folder():
    return tempfile.TemporaryDirectory(prefix="clattn-matrix-")


def complaint(text):
    """What a compiler said, without what is no news; of one that crashed, what it was doing."""
    if "Stack dump:" in text:
        return "the compiler itself crashes\n" + "\n".join(re.findall(r"(?m)^[1-9]\.\s.*$", text))[:1500]
    return text.strip()[:1500]


def number_in(text, pattern):
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def product_in(text, pattern):
    """The product of the numbers in a list like [ 16, 16, 1 ]; 0 when there is none."""
    found = re.search(pattern, text)
    numbers = [int(n) for n in re.findall(r"\d+", found[1])] if found else [0]
    product = 1
    for number in numbers:
        product *= number
    return product


def each(compile_one, tools, chip, programs):
    made = []
    for program in programs:
        try:
            made.append(compile_one(tools, chip, program))
        except Refused as refusal:
            made.append(refusal)
    return made


# ---- clang: many programs in one process, and no more of a library than is called ----


def definition(option):
    name, given, value = option[2:].partition("=")
    return f"#define {name} {value if given else 1}\n"


def in_one_process(tools, clang, programs, folder, ending):
    """Compiles programs into FOLDER/NUMBER.ENDING; clang: with its options; none is made when one is refused. To start
    clang takes as long as to compile a small program, and its compiler proper takes many files, all with one line."""
    said = tools.once(tuple(clang), lambda: tools.run([*clang, "-###", programs[0].path]))
    words = shlex.split(said.splitlines()[-1])
    at = words.index("-o")
    files = [f"{folder}/{number}.cl" for number in range(len(programs))]
    for path, program in zip(files, programs):
        with open(path, "w") as file:
            file.write("".join(map(definition, program.options)) + f'#include "{program.path}"\n')
    tools.run(words[:at] + words[at + 2:-1] + files)
    return [f"{folder}/{number}.{ending}" for number in range(len(programs))]


def batched(compile_one, compile_many, tools, chip, programs):
    """Together where they are defined by -D alone and none is refused; else one by one."""
    if all(option.startswith("-D") for program in programs for option in program.options):
        try:
            return compile_many(tools, chip, programs)
        except Refused:
            pass
    return each(compile_one, tools, chip, programs)


CL_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cl")
# Functions that others of the library call, or whose names cl/ puts together.
CALLED = r"__.*|v(load|store).*|atomic_work_item_fence|convert_half.*|mem_fence"


def trimmed(tools, path):
    """A folder with the library at path as used.bc, without the functions that cl/ does not name: to link them takes
    longer than to compile a small program. Who misses one takes the whole library."""
    words = set()
    for folder, _, names in os.walk(CL_FOLDER):
        for name in names:
            words |= set(re.findall(r"[A-Za-z_]\w*", open(f"{folder}/{name}").read()))
    folder = scratch_folder()
    text = tools.run([tools.find("llvm-dis-19"), "-o", "-", path])
    with open(f"{folder.name}/unused", "w") as file:
        for mangled, length, rest in re.findall(r"(?m)^define .*?@(_Z(\d+)(\w+))\(", text):
            name = rest[:int(length)]
            if name not in words and not re.fullmatch(CALLED, name):
                file.write(f"--func={mangled}\n")
    tools.run([tools.find("llvm-extract-19"), "--delete", f"@{folder.name}/unused", path, "-o",
               f"{folder.name}/used.bc"])
    return folder


# ---- AMD: clang's code generator; numbers from the metadata that the loader reads ----

AMD_FILES = ["bc/opencl.bc"]


def amd_libraries(tools):
    """A folder as the device libraries', with what is used of the largest."""
    folder = trimmed(tools, tools.file("bc/opencl.bc"))
    for name in os.listdir(tools.file("bc")):
        os.symlink(f"{folder.name}/used.bc" if name == "opencl.bc" else f"{tools.file('bc')}/{name}",
                   f"{folder.name}/{name}")
    return folder


# Chips that clang 19 does not know: zig brings a newer clang along, without its headers.
NEWER_AMD = ["gfx950"]
CLANG_HEADERS = "usr/lib/llvm-19/lib/clang/19"


def amd_clang(tools, chip, libraries):
    clang = [tools.find("zig"), "clang", "-resource-dir", tools.file(CLANG_HEADERS)] if chip in NEWER_AMD else \
        [tools.find("clang-19")]
    return [*clang, *CLANG, "-O2", "-target", "amdgcn-amd-amdhsa", f"-mcpu={chip}",
            f"--rocm-device-lib-path={libraries}", "-S"]


def compile_amd_one(tools, chip, program):
    with scratch_folder() as folder:
        out = f"{folder}/k.s"
        tools.run([*amd_clang(tools, chip, tools.file("bc")), *program.options, program.path, "-o", out])
        return amd_kernels(open(out).read(), program)


def compile_amd_many(tools, chip, programs):
    libraries = tools.once("amd", lambda: amd_libraries(tools))
    with scratch_folder() as folder:
        files = in_one_process(tools, amd_clang(tools, chip, libraries.name), programs, folder, "s")
        texts = [open(file).read() for file in files]
    return [each(compile_amd_one, tools, chip, [program])[0] if re.search(r"@(gotpc)?rel32", text) else
            amd_kernels(text, program) for program, text in zip(programs, texts)]


def amd_kernels(text, program):
    kernels = []
    for block in re.split(r"\n  - ", text.split("amdhsa.kernels:")[-1].split("amdhsa.target:")[0])[1:]:
        def number(key):
            return number_in(block, rf"\.{key}:\s*(\d+)")
        name = re.search(r"\n    \.name:\s*(\w+)", block)[1]
        body = text.split(f"\n{name}:", 1)[-1].split("\n.Lfunc_end", 1)[0]
        kernels.append(Kernel(name, number("vgpr_count"), number("vgpr_spill_count") + number("sgpr_spill_count"),
                              number("private_segment_fixed_size"), number("group_segment_fixed_size"),
                              number("wavefront_size"), product_in(block, r"\.reqd_workgroup_size:((?:\s*- \d+)+)"),
                              len(re.findall(r"\bv_(?:wmma|mfma)_", body)), body if program.listing else ""))
    return kernels


def compile_amd(tools, chip, programs):
    return batched(compile_amd_one, compile_amd_many, tools, chip, programs)


# ---- NVIDIA: clang makes PTX, the vendor's assembler makes machine code ----

NVIDIA_FILES = ["usr/lib/clc/nvptx64--nvidiacl.bc"]

# libclc's versions become calls that this back end cannot make; the driver's own are these instructions.
NATIVE = r"""
float __nvvm_ex2_approx_f(float); float __nvvm_lg2_approx_f(float); float __nvvm_rsqrt_approx_f(float);
float __nvvm_rcp_approx_ftz_f(float);
#define NATIVE float __attribute__((overloadable, always_inline))
NATIVE native_exp2(float x) { return __nvvm_ex2_approx_f(x); }
NATIVE native_log2(float x) { return __nvvm_lg2_approx_f(x); }
NATIVE native_exp(float x) { return __nvvm_ex2_approx_f(x * 1.44269504f); }
NATIVE native_log(float x) { return __nvvm_lg2_approx_f(x) * 0.69314718f; }
NATIVE native_rsqrt(float x) { return __nvvm_rsqrt_approx_f(x); }
NATIVE native_recip(float x) { return __nvvm_rcp_approx_ftz_f(x); }
NATIVE exp2(float x) { /* results below 2^-126 by a detour */
    const float far = x < -126.0f ? 0.5f : 1.0f, y = __nvvm_ex2_approx_f(x * far);
    return x < -126.0f ? y * y : y;
}
#define HALVES(f, vec) vec __attribute__((overloadable, always_inline)) f(vec x) { return (vec)(f(x.lo), f(x.hi)); }
#define VECTORS(f) HALVES(f, float2) HALVES(f, float4) HALVES(f, float8) HALVES(f, float16)
VECTORS(native_exp2)
VECTORS(exp2)
"""


def nvidia_bitcode(tools):
    """The functions above as bitcode."""
    folder = scratch_folder()
    tools.run([tools.find("clang-19"), *CLANG, "-O2", "-target", "nvptx64--nvidiacl", "-emit-llvm", "-c", "-", "-o",
               f"{folder.name}/native.bc"], stdin=NATIVE)
    return folder


def group_items(tools, program):
    """Work-items that a program's kernels require of their group, the most; 0 when they do not say."""
    if "reqd_work_group_size" not in open(program.path).read():
        return 0
    plain = tools.run([tools.find("clang-19"), "-E", "-P", *CLANG, *program.options, program.path])
    sizes = [0]
    for words in re.findall(r"reqd_work_group_size\(([\d\s()*+,/-]+?)\)\s*\)\s*\)", plain):
        product = 1
        for factor in words.split(","):
            product *= eval(factor, {"__builtins__": {}})  # digits and operators alone, by the pattern
        sizes.append(int(product))
    return max(sizes)


OLDEST = 75


def asked_arch(program):
    return next((int(o.split("=")[1]) for o in program.options if o.startswith("-DPTX_ARCH=")), OLDEST)


def oldest_alike(program):
    """The program for the oldest chip that it cannot tell from its own by PTX_ARCH. Otherwise clang's output differs
    between chips in nothing but their name, and a driver, too, assembles it for the chip at hand."""
    borders = {OLDEST}
    for compared, number in re.findall(r"PTX_ARCH\s*([<>=!]+)\s*(\d+)", open(program.path).read()):
        borders |= {int(number)} if compared in (">=", "<") else {int(number), int(number) + 1}
    oldest = max(border for border in borders if border <= asked_arch(program))
    return replace(program, options=[f"-DPTX_ARCH={oldest}" if o.startswith("-DPTX_ARCH=") else o
                                     for o in program.options])


def ptx_with(tools, program, library):
    native = tools.once("nvidia", lambda: nvidia_bitcode(tools))
    bitcode = []
    for file in (f"{native.name}/native.bc", library):
        bitcode += ["-Xclang", "-mlink-builtin-bitcode", "-Xclang", file]
    front = f"sm_{min(asked_arch(program), 90)}"  # clang 19's newest is 90
    with scratch_folder() as folder:
        out = f"{folder}/k.ptx"
        tools.run([tools.find("clang-19"), *CLANG, "-O2", "-fgnu-keywords", "-target", "nvptx64--nvidiacl", "-Xclang",
                   "-target-cpu", "-Xclang", front, *bitcode, "-Wno-linker-warnings", "-D__NV_CL_C_VERSION=120",
                   *program.options, "-S", program.path, "-o", out])
        return open(out).read()


def make_ptx(tools, program):
    """(PTX, group size)."""
    library = tools.file(NVIDIA_FILES[0])
    used = tools.once("libclc", lambda: trimmed(tools, library))
    text = ptx_with(tools, program, f"{used.name}/used.bc")
    if ".extern .func" in text:
        text = ptx_with(tools, program, library)
    return text, group_items(tools, program)


def compile_nvidia_one(tools, chip, program):
    alike = oldest_alike(program)
    text, items = tools.once(("ptx", open(program.path).read(), *alike.options), lambda: make_ptx(tools, alike))
    with scratch_folder() as folder:
        ptx, cubin = f"{folder}/k.ptx", f"{folder}/k.cubin"
        with open(ptx, "w") as file:
            file.write(text)
        # clang drops the required group size, without which the assembler believes in 1024 work-items
        report = tools.run([tools.find("ptxas"), "-v", f"-arch={chip}", "--maxntid", str(items or 256), ptx, "-o",
                            cubin])
        code = tools.run([tools.find("nvdisasm"), "-c", cubin]) if program.listing else ""
    kernels = []
    for block in report.split("Compiling entry function '")[1:]:
        def number(pattern):
            return number_in(block, pattern)
        name = block.split("'")[0]
        body = text.split(f".entry {name}(", 1)[-1].split(".entry ", 1)[0]
        listing = code.split(f"\n.text.{name}:", 1)[-1].split("\n\t.section", 1)[0] if code else ""
        kernels.append(Kernel(name, number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"),
                              number(r"(\d+) bytes stack frame"), number(r"(\d+) bytes smem"), 32, items,
                              len(re.findall(r"\bmma\.sync", body)), listing))
    return kernels


def compile_nvidia(tools, chip, programs):
    return each(compile_nvidia_one, tools, chip, programs)


# ---- Intel: the driver's compiler; numbers from the binary's own description ----

# The driver defines these words for what the chip offers; the offline compiler does not.
INTEL_MACROS = ["-cl-std=CL1.2", "-Dcl_intel_subgroup_matrix_multiply_accumulate=1",
                "-Dcl_intel_subgroup_local_block_io=1"]


def elf_sections(path):
    """Name -> bytes of each section of a 64-bit ELF file."""
    data = open(path, "rb").read()
    start, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    rows = [struct.unpack_from("<IIQQQQ", data, start + n * size) for n in range(count)]
    table = rows[names][4]
    return {data[table + row[0]:data.index(b"\0", table + row[0])].decode(): data[row[4]:row[4] + row[5]]
            for row in rows}


def disassembled(tools, chip, code):
    platform = {"skl": "9", "tgllp": "12p1", "dg2": "xehpg", "pvc": "xehpc"}[chip]
    with tempfile.NamedTemporaryFile(prefix="clattn-matrix-") as file:
        file.write(code)
        file.flush()
        return tools.run([tools.find("iga64"), "-d", f"-p={platform}", file.name])


def intel_kernels(tools, chip, path, program):
    sections = elf_sections(path)
    text = sections[".ze_info"].decode(errors="replace")
    kernels = []
    for block in text.split("kernels_misc_info:")[0].split("  - name: ")[1:]:  # what follows names them again
        name = block.split()[0]
        if name.startswith("Intel_Symbol_Table"):
            continue

        def number(key):
            return number_in(block, rf"\b{key}:\s*(\d+)")
        memory = {"spill_fill_space": 0, "private_space": 0, "single_space": 0}
        for usage, size in re.findall(r"usage:\s*(\w+)\s+size:\s*(\d+)", block):
            memory[usage] = memory.get(usage, 0) + int(size)
        kernels.append(Kernel(name, number("grf_count"), memory["spill_fill_space"],
                              memory["private_space"] + memory["single_space"], number("slm_size"),
                              number("simd_size"), product_in(block, r"required_work_group_size: \[([\d, ]+)\]"),
                              int(bool(re.search(r"has_dpas:\s*true", block))),
                              disassembled(tools, chip, sections[f".text.{name}"]) if program.listing else ""))
    return kernels


def compile_intel_alone(tools, chip, program):
    with scratch_folder() as folder:
        tools.run([tools.find("ocloc"), "compile", "-file", program.path, "-device", chip, "-options",
                   " ".join(INTEL_MACROS + program.options), "-output", "b", "-out_dir", folder])
        binary = [f for f in os.listdir(folder) if f.endswith(".bin")]
        return intel_kernels(tools, chip, f"{folder}/{binary[0]}", program)


def compile_intel(tools, chip, programs):
    """All in one process, for its start costs as much as a small program; what is missing then, alone."""
    made = []
    with scratch_folder() as folder:
        with open(f"{folder}/list", "w") as file:
            for program in programs:
                options = " ".join(INTEL_MACROS + program.options)
                file.write(f'-file {program.path} -device {chip} -options "{options}" -out_dir {folder}\n')
        try:
            tools.run([tools.find("ocloc"), "multi", f"{folder}/list"])
        except Refused:
            pass
        binaries = [f for f in os.listdir(folder) if f.endswith(".bin")]
        for number, program in enumerate(programs, 1):
            binary = [f for f in binaries if f.startswith(f"build_no_{number}_")]
            made += [intel_kernels(tools, chip, f"{folder}/{binary[0]}", program)] if binary else \
                each(compile_intel_alone, tools, chip, [program])
    return made


# ---- SPIR-V 1.0 without any extension: the language as every other driver reads it ----


def entry_points(path):
    """Names of the kernels in a valid SPIR-V module: instructions 15 hold a model, an id and a name."""
    data = open(path, "rb").read()
    names, at = [], 20  # behind the header
    while at < len(data):
        instruction, size = struct.unpack_from("<HH", data, at)
        if instruction == 15:
            names.append(data[at + 12:at + 4 * size].split(b"\0")[0].decode())
        at += 4 * size
    return names


def spirv_clang(tools, chip):
    return [tools.find("clang-15"), *CLANG, "-O1", "-Xclang", "-disable-llvm-passes", "-Xclang", "-cl-ext=-all",
            "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter",
            "-Wno-constant-logical-operand", "-target", f"{chip}-unknown-unknown", "-emit-llvm", "-c"]


def spirv_kernels(tools, bitcode):
    module = f"{bitcode}.spv"
    tools.run([tools.find("llvm-spirv-15"), "--spirv-max-version=1.0", bitcode, "-o", module])
    tools.run([tools.find("spirv-val"), "--target-env", "opencl1.2", module])
    return [Kernel(name, 0, 0, 0, 0, 0, 0, -1) for name in entry_points(module)]


def compile_spirv_one(tools, chip, program):
    with scratch_folder() as folder:
        bitcode = f"{folder}/k.bc"
        tools.run([*spirv_clang(tools, chip), *program.options, program.path, "-o", bitcode])
        return spirv_kernels(tools, bitcode)


def compile_spirv_many(tools, chip, programs):
    with scratch_folder() as folder:
        files = in_one_process(tools, spirv_clang(tools, chip), programs, folder, "bc")
        return [spirv_kernels(tools, file) for file in files]


def compile_spirv(tools, chip, programs):
    return batched(compile_spirv_one, compile_spirv_many, tools, chip, programs)


@dataclass
class Family:
    compile: object
    programs: list   # that it needs
    files: list
    batch: int = 1   # programs that are best compiled together


def missing(tools, family, chip):
    """What a chip's compiler needs and has not."""
    newer = ["zig"] if chip in NEWER_AMD else []
    return tools.missing(FAMILIES[family].programs + newer, FAMILIES[family].files)


FAMILIES = {
    "amd": Family(compile_amd, ["clang-19", "llvm-dis-19", "llvm-extract-19"], AMD_FILES, 6),
    "nvidia": Family(compile_nvidia, ["clang-19", "llvm-dis-19", "llvm-extract-19", "ptxas", "nvdisasm"], NVIDIA_FILES),
    "intel": Family(compile_intel, ["ocloc", "iga64"], [], 8),
    "spirv": Family(compile_spirv, ["clang-15", "llvm-spirv-15", "spirv-val"], [], 16),
}
