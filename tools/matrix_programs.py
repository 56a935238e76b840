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


# What the registers of every chip of a family are looked at for; other widths, types and features go round.
CORE = [(64, "float32", "causal"), (128, "float32", "causal"), (512, "float32", "causal"), (64, "float32", WIDEST),
        (64, "float16", "causal"), (128, "float16", "causal"), (64, "float16", WIDEST)]
CORE_OF_ENGINE = [(64, "float16", "causal"), (128, "float16", "causal"), (256, "float16", "causal"),
                  (64, "float16", WIDEST), (128, "bfloat16", "causal")]
VENDORS = ["nvidia", "amd", "intel"]


def is_turn(target, program):
    """What is not compiled everywhere goes round the vendors, each to one of them; where a matrix engine has code of
    its own, round each vendor's targets with an engine."""
    turn = zlib.crc32(f"{program.name} {program.variant}".encode())
    if not ENGINES.search(program.name):
        return target.family == VENDORS[turn % 3]
    alike = [t for t in TARGETS if t.family == target.family and t.breadth in ("family", "engine") and engine(t)
             and not (t.name in NO_BFLOAT16 and "bfloat16" in program.variant)]
    return target is alike[turn % len(alike)]


def is_wanted(target, program, full=False):
    """Breadths: `all` programs of the target; for the first chip of a `family`, every kernel, and every set of
    features, width and storage type, but not each with each (its turn of them, unless `full`); for the other chips
    `tiles`, which is what shapes their registers; `engine` is that and all programs of the matrix engine (in turns,
    too). Storage types share all code but loads and stores, and a causal kernel holds the code of one that is not: such
    variants are left to the broader targets."""
    if program.alternative:  # see other_tiles
        return False
    found = ATTENTION.match(program.variant)
    if target.breadth == "all" or target.breadth == "family" and not found:
        return True
    shape = (int(found[1]), found[2], found[3]) if found else None
    if target.breadth in ("family", "engine") and ENGINES.search(program.name):
        return full or not found or shape in CORE_OF_ENGINE or is_turn(target, program)
    if not found:
        return bool(SHAPES.match(program.name)) and "bfloat16" not in program.variant
    width, storage, features = shape
    if target.breadth == "family":
        if program.name == "attn_naive" and width != 64:  # no tiles: widths are one loop's bound
            return False
        if storage == "float32" and width != 64 and features != "causal":
            return False
        if storage != "float32" and (width, features) not in ((64, "causal"), (64, WIDEST), (128, "causal")):
            return False
        return full or shape in CORE or is_turn(target, program)
    if not SHAPES.match(program.name):
        return False
    if ENGINES.search(program.name):
        return shape in CORE_OF_ENGINE[:4]
    return shape in CORE[:3] + CORE[4:6] + [(128, "float32", WIDEST)] or full and shape == CORE[3]


def tile(target, program):
    """The tile that a program is for, as one vendor's compilers meet it; None for a kernel without."""
    options = tuple(word for word in program.options if TILE.match(word))
    width = next((int(word[11:]) for word in program.options if word.startswith("-DHEAD_DIM=")), 0)
    whole = f"-DQUERY_LOCAL={(width + 15) // 16}"  # all steps of whatever width
    options = tuple("-DQUERY_LOCAL=all" if word == whole else word for word in options)
    on = engine(target) if ENGINES.search(program.name) else ""
    return (target.family, on, program.name, program.file) + options if SHAPES.match(program.name) else None


def tile_to_meet(target, program, full):
    """What has to be compiled: a tile only tuning takes by one vendor's compilers, unless `full`, others by all."""
    own = tile(target, program)
    return own[1:] if own and program.alternative and not own[1] and not full else own


def tiles_met(programs):
    """In both forms of tile_to_meet()."""
    met = {tile(*pair) for pair in programs} - {None}
    return met | {own[1:] for own in met}


def other_tiles(listed, wanted, full=False):
    """What is to be compiled besides, so that compilers meet each tile that devices could be given: on the first target
    that has it, of the vendor whose turn it is."""
    done, more = tiles_met(wanted), {}
    for pair in listed:
        wish = tile_to_meet(*pair, full)
        if wish and wish not in done:
            more.setdefault(wish, []).append(pair)
    turns = {wish: VENDORS[zlib.crc32(" ".join(wish).encode()) % 3] for wish in more}
    return [next((p for p in pairs if p[0].family == turns[wish]), pairs[0]) for wish, pairs in more.items()]


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
    return program.name, program.variant, program.file, target.family if ENGINES.search(program.name) else ""


def unnamed_options(listed):
    """Of one kernel and variant, a target's programs differ by their tile alone; else TILE lacks an option."""
    programs = {}
    for target, program in listed:
        if ATTENTION.match(program.variant) and tile(target, program):
            programs.setdefault((target.name, program.variant, tile(target, program)), set()).add(program.key)
    return [f"{name}: {variant} has several programs for {' '.join(shape[4:])}: an option is missing in TILE"
            for (name, variant, shape), keys in sorted(programs.items()) if len(keys) > 1]


def forgotten(clattn, root, listed, compiled, full=False):
    """What no target compiles, in words. listed, compiled: [(target, program)]."""
    found = []
    kernels = json.loads(subprocess.run([clattn, "kernels", "--json"], stdout=subprocess.PIPE, check=True).stdout)
    names = {program.name for _, program in compiled}
    found += [f"{k['name']} is in no target" for k in kernels if k["name"] not in names and "host" not in k["name"]]
    done = {identity(*pair) for pair in compiled}
    missing = sorted({identity(*pair) for pair in listed} - done)
    found += [f"{name} ({variant}) of {file}{' on ' + on if on else ''} is compiled by no target"
              for name, variant, file, on in missing]
    tiles = {tile_to_meet(*pair, full) for pair in listed} - tiles_met(compiled) - {None}
    found += [f"no target compiles the tile {' '.join(word for word in words if word)}" for words in sorted(tiles)]
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
