"""Which programs the compile matrix compiles for which target, and the proof that none was forgotten."""
import json
import os
import re
import subprocess
import sys
import zlib
from dataclasses import dataclass

from matrix_targets import TARGETS, engine

# Kernels whose registers and tiles the speed depends on: compiled for every chip.
SHAPES = re.compile(r"^(attn_tiled|attn_decode|attn_matrix|attn_cpu|gemm_tiled|gemm_matrix|gemm_cpu|chain_cpu)$")
# Options that make a tile.
TILE = re.compile(r"-D(TILE_[XY]|ROWS|DEPTH|VECTORS|CHUNK|GROUP|LOADS|VW|RT|NC|NV|MR|MV|HALF_TAIL|HEADS|BLOCK_\w+|"
                  r"WAVES|COLUMN_WAVES|QT|STAGES|PREFETCH|QUERY_LOCAL)=")
# Kernels with code of their own for each matrix engine.
ENGINES = re.compile(r"_matrix$|^mma_probe$")
NO_BFLOAT16 = ["sm_75"]  # on its matrix engine
ATTENTION = re.compile(r"head_dim (\d+), value_dim \d+, (\w+), (.*)$")
WIDEST = "causal, window, softcap, ALiBi, sinks"  # the most terms that one score has


@dataclass
class Program:
    name: str
    variant: str
    file: str              # of cl/
    path: str              # of the whole source
    options: list
    key: str               # of source and options
    alternative: bool = False  # with another tile than the device's first choice for the variant
    listing: bool = False  # keep the machine code

    def title(self):
        shape = " with " + " ".join(w[2:] for w in self.options if TILE.match(w)) if self.alternative else ""
        return (f"{self.name} ({self.variant})" if self.variant != self.name else self.name) + shape


def list_programs(clattn, pretend, folder):
    os.makedirs(folder)
    done = subprocess.run([clattn, "kernels", "--sources", folder, "--pretend", pretend], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"compile_matrix.py: clattn kernels --sources: {done.stdout}")
    programs = []
    for row in json.load(open(f"{folder}/programs.json")):
        options = [word for word in row["options"].split() if not word.startswith("-cl-std=")]
        programs.append(Program(row["kernel"], row["variant"], row["file"], f"{folder}/{row['source']}", options,
                                row["key"], row["alternative"]))
    return programs


def is_turn(target, program):
    """Sets of features between the plain one and the widest go round the vendors, each to one of them; where a matrix
    engine has code of its own, round the broad targets with that engine, and so do its odd widths."""
    turn = zlib.crc32(f"{program.name} {program.variant}".encode())
    if not ENGINES.search(program.name):
        return target.family == ("nvidia", "amd", "intel")[turn % 3]
    alike = [t for t in TARGETS if t.breadth in ("family", "engine") and engine(t) == engine(target)
             and not (t.name in NO_BFLOAT16 and "bfloat16" in program.variant)]
    return target is alike[turn % len(alike)]


def is_wanted(target, program, full=False):
    """Breadths: `all` programs of the target; for the first chip of a `family`, every kernel, every set of features
    (its turn of them, unless `full`), every width, every storage type, but not each with each; for the other chips
    `tiles`, which is what shapes their registers; `engine` is that and all programs of the matrix engine (in turns,
    too). Storage types share all code but loads and stores, and a causal kernel holds the code of one that is not: such
    variants are left to the broader targets."""
    if program.alternative:  # see other_tiles
        return False
    found = ATTENTION.match(program.variant)
    if target.breadth == "all" or target.breadth == "family" and not found:
        return True
    if target.breadth in ("family", "engine") and ENGINES.search(program.name):
        shapes = not found or found[3] == "causal" and found[1] in ("64", "128", "256") or found[3] == WIDEST
        return full or shapes or is_turn(target, program)
    if not found:
        return bool(SHAPES.match(program.name)) and "bfloat16" not in program.variant
    width, storage, features = int(found[1]), found[2], found[3]
    if target.breadth == "family":
        if not full and features not in ("causal", WIDEST) and not is_turn(target, program):
            return False
        if program.name == "attn_naive":  # no tiles: widths are one loop's bound
            return width == 64 and (storage == "float32" or features == "causal")
        if storage == "float32":
            return width == 64 or features == "causal"
        return width == 64 and features in ("causal", WIDEST) or width == 128 and features == "causal"
    if not SHAPES.match(program.name):
        return False
    if ENGINES.search(program.name):
        return storage == "float16" and (features == "causal" and width in (64, 128, 256) or
                                         features == WIDEST and width == 64)
    shape = width, storage, features
    return shape in ((64, "float32", "causal"), (128, "float32", "causal"), (512, "float32", "causal"),
                     (128, "float32", WIDEST), (64, "float16", "causal"), (128, "float16", "causal")) or \
        full and shape == (64, "float32", WIDEST)


def tile(target, program):
    """The tile that a program is for, as one vendor's compilers meet it; None for a kernel without."""
    options = tuple(word for word in program.options if TILE.match(word))
    width = next((int(word[11:]) for word in program.options if word.startswith("-DHEAD_DIM=")), 0)
    whole = f"-DQUERY_LOCAL={(width + 15) // 16}"  # all steps of whatever width
    options = tuple("-DQUERY_LOCAL=all" if word == whole else word for word in options)
    on = engine(target) if ENGINES.search(program.name) else ""
    return (target.family, program.name, program.file, on) + options if SHAPES.match(program.name) else None


def other_tiles(listed, wanted):
    """What is to be compiled besides, so that each vendor's compilers meet each tile that its devices could be given:
    on the first of its targets that has it."""
    done = {tile(*pair) for pair in wanted} | {None}
    more = {}
    for pair in listed:
        if tile(*pair) not in done:
            more.setdefault(tile(*pair), pair)
    return list(more.values())


# ---- nothing forgotten ----

# Conditions of vendor.clh on compilers, and what compiles or runs that side of them.
BRANCHES = {
    "__AVX512F__": "pocl, in every test", "__F16C__": "pocl, in every test", "__has_builtin": "clang, all targets",
    "__NV_CL_C_VERSION": "nvidia", "__NVPTX__": "nvidia", "__AMDGCN__": "amd",
    "__x86_64__": "pocl and Intel's CPU runtime, in every test", "__aarch64__": "as on x86-64, but for the words",
    "__FMA__": "pocl, in every test",
    "__gfx90a__": "gfx90a", "__gfx940__": "as on gfx942", "__gfx942__": "gfx942", "__gfx950__": "gfx950",
}


def identity(target, program):
    """Two programs of one identity are the same variant, whatever the device's numbers are."""
    return program.name, program.variant, program.file, engine(target) if ENGINES.search(program.name) else ""


def unnamed_options(listed):
    """Of one kernel and variant, a target's programs differ by their tile alone; else TILE lacks an option."""
    programs = {}
    for target, program in listed:
        if ATTENTION.match(program.variant) and tile(target, program):
            programs.setdefault((target.name, program.variant, tile(target, program)), set()).add(program.key)
    return [f"{name}: {variant} has several programs for {' '.join(shape[4:])}: an option is missing in TILE"
            for (name, variant, shape), keys in sorted(programs.items()) if len(keys) > 1]


def forgotten(clattn, root, listed, compiled):
    """What no target compiles, in words. listed, compiled: [(target, program)]."""
    found = []
    kernels = json.loads(subprocess.run([clattn, "kernels", "--json"], stdout=subprocess.PIPE, check=True).stdout)
    names = {program.name for _, program in compiled}
    found += [f"{k['name']} is in no target" for k in kernels if k["name"] not in names and "host" not in k["name"]]
    done = {identity(*pair) for pair in compiled}
    missing = sorted({identity(*pair) for pair in listed} - done)
    found += [f"{name} ({variant}) of {file}{' on ' + on if on else ''} is compiled by no target"
              for name, variant, file, on in missing]
    tiles = {tile(*pair) for pair in listed} - {tile(*pair) for pair in compiled}
    found += [f"{name} of {file} with {' '.join(options)} is compiled by no {' '.join([family, on]).strip()} target"
              for family, name, file, on, *options in sorted(tiles)]
    found += unnamed_options(listed)
    for family in sorted({t.family for t, _ in listed}):
        have = {p.name for t, p in compiled if t.family == family}
        want = {p.name for t, p in listed if t.family == family}
        found += [f"{name} is compiled by no {family} target" for name in sorted(want - have)]
    text = open(f"{root}/cl/shared/matrix.h").read()
    engines = {name.lower() for name in re.findall(r"#define MATRIX_(?!PROBE_)(\w+) [1-9]", text)}
    found += [f"no target has the matrix engine {name}" for name in sorted(engines - {engine(t) for t in TARGETS})]
    text = open(f"{root}/cl/inc/vendor.clh").read()
    asked = set(re.findall(r"defined\((__\w+)\)|#ifdef (__[A-Z]\w+)", text))
    words = {a or b for a, b in asked}
    found += [f"vendor.clh asks for {word}, which no target has" for word in sorted(words - set(BRANCHES))]
    return found
