"""The tables of docs/devices.md, from what the compile matrix found."""
import collections
import re
import subprocess

from matrix_chips import CHIPS, FEWEST_WAVES, float_peak, matrix_peak, waves
from matrix_mix import KINDS, bandwidth_share, peak_share

HOW = """Causal kernels, counted in the vendor's disassembly (AMD: the compiler's assembly). A hot loop is one
with many multiply-adds of its own; loops inside it are not counted with it. In kernels with matrix instructions it is
the smallest that holds most of them. Code that a branch skips, and that neither moves data nor computes exponentials,
is left out: masks and changes of scale; and so are loops there that move single elements, for rows not aligned.
*Waves* is how many fit on one scheduler (SIMD, vector engine), by registers, local memory and the chip's own limit.

*At most* is arithmetic, no measurement and no forecast: the share of the chip's peak that these instructions leave room
for when waves overlap perfectly, caches never miss and local memory answers at once. For attn_decode it is the share of
the memory bandwidth at which the loop can ask for data; of Intel's loads the sizes are not counted. Matrix and vector
instructions are taken to run beside each other, but for RDNA, where they take turns. Peaks count packed or dual
multiply-adds where the chip has them, and the full rate of H100's engine, of which mma.sync reaches about 62 %.
*Spilled* is what the compiler moved to memory: registers or bytes.""".splitlines()
ASSUMED = """Rates of instructions and sizes of registers and of local memory are those that the vendors publish:
NVIDIA's CUDA Programming Guide and the white papers of each architecture, AMD's ISA guides, LLVM's AMDGPU guide and
AMD's articles on MFMA and WMMA, Intel's oneAPI GPU optimization guide and architecture papers. Clock and bandwidth are
those of the data sheet of one product per chip. Nothing here was measured by clattn.""".splitlines()
START, END = "<!-- compile matrix -->\n", "<!-- end of compile matrix -->"


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


# Programs whose hot loops are shown.
SHOWN = re.compile(r"^(attn_tiled|gemm_tiled|gemm_matrix|attn_matrix|attn_decode)$")
SHOWN_ATTENTION = re.compile(r"head_dim (64|128), value_dim \d+, (\w+), causal$")
SHOWN_GEMM = re.compile(r"(134|16384) rows, 384 columns from 384, (\w+)$")
STORAGE = {"attn_tiled": "float32", "attn_matrix": "float16", "attn_decode": "float16", "gemm_tiled": "float32",
           "gemm_matrix": "float16"}


def is_shown(program):
    found = SHOWN.match(program.name) and (SHOWN_ATTENTION.match(program.variant) or SHOWN_GEMM.match(program.variant))
    return bool(found) and found[found.lastindex] == STORAGE[program.name]


def shown_rows(outcomes):
    """(target, what, kernel) of the main kernels that are shown, each once."""
    seen = set()
    for outcome in outcomes:
        if not is_shown(outcome.program) or outcome.target.name not in CHIPS:
            continue
        width, rows = SHOWN_ATTENTION.match(outcome.program.variant), SHOWN_GEMM.match(outcome.program.variant)
        shape = f"D {width[1]}" if width else f"{rows[1]} rows"
        what = f"{outcome.program.name}, {shape}, {STORAGE[outcome.program.name]}"
        for kernel in outcome.kernels:
            if kernel.name == outcome.program.name and (outcome.target.name, what) not in seen:
                seen.add((outcome.target.name, what))
                yield outcome.target, what, kernel


def share_words(target, what, kernel):
    chip = CHIPS[target.name]
    if not kernel.mix:
        return "no hot loop found"
    if what.startswith("attn_decode"):
        share = bandwidth_share(kernel.mix, chip, kernel.lanes, target.family)
        return "-" if share is None else f"{share:.0%} of bandwidth"
    share, of = peak_share(kernel.mix, chip, target.family)
    return f"{share:.0%} of {of}"


def mix_table(outcomes, family):
    """Room and hot loops of the kernels that the speed depends on."""
    heads = ["target", "kernel", "registers", "spilled", "local memory", "waves", "matrix", "FMA", "vector", "special",
             "local", "global", "other", "at most"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---|" * (len(heads) - 1)]
    for target, what, kernel in shown_rows(outcomes):
        if target.family != family:
            continue
        mix = kernel.mix or collections.Counter()
        counts = " | ".join(str(mix[kind]) for kind in KINDS)
        lines.append(f"| {target.name} | {what} | {kernel.registers} | {kernel.spills or kernel.scratch or '-'} | "
                     f"{kernel.local / 1024:.0f} KB | {waves(CHIPS[target.name], kernel):.3g} | {counts} | "
                     f"{share_words(target, what, kernel)} |")
    return lines


def chip_table():
    lines = ["| target | as in | units x schedulers | clock, GHz | GB/s | float32, TFLOP/s | matrix, TFLOP/s |",
             "|---|---|---|---|---|---|---|"]
    for name, chip in CHIPS.items():
        matrix = matrix_peak(name)
        lines.append(f"| {name} | {chip.product} | {chip.units} x {chip.simds} | {chip.clock:g} | {chip.bandwidth:g} | "
                     f"{float_peak(name):.1f} | {f'{matrix:.0f}' if matrix else '-'} |")
    return lines


def finding_table(outcomes):
    """What is wrong, counted: target, kernel, finding without its numbers."""
    counts = collections.Counter()
    for outcome in outcomes:
        kinds = {re.sub(r"\d+", "N", text.splitlines()[0])[:90].replace("|", "/") for text in outcome.findings}
        for kind in kinds:
            counts[outcome.target.name, outcome.program.name, kind] += 1
    if not counts:
        return ["Nothing: every program passed."]
    lines = ["| target | kernel | finding | programs |", "|---|---|---|---|"]
    return lines + [f"| {target} | {name} | {kind} | {n} |" for (target, name, kind), n in counts.items()]


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


def page_lines(tools, outcomes, skipped_names):
    lines = [f"Compilers: {versions(tools)}.", "", *summary_table(outcomes, skipped_names), "",
             "What the matrix found wrong (N stands for a number):", "", *finding_table(outcomes), "",
             "### Hot loops", "", *HOW]
    for family, title in (("nvidia", "NVIDIA"), ("amd", "AMD"), ("intel", "Intel")):
        lines += ["", f"{title}:", "", *mix_table(outcomes, family)]
    lines += ["", "### What is assumed of the chips", "", *ASSUMED, "", *chip_table(), "",
              "Fewest waves per scheduler that the matrix accepts, of kernels that wait for memory and of those that",
              "compute on tiles in registers. Bandwidth times 600 ns must be on its way: 9 to 15 KB per unit.", "",
              "| chips | waiting | tiles | enough, because |", "|---|---|---|---|"]
    return lines + [f"| {name} | {row[0]} | {row[1]} | {row[2]} |" for name, row in FEWEST_WAVES.items()]


def write_page(page, tools, outcomes, skipped_names):
    text = open(page).read()
    head, rest = text.split(START)
    with open(page, "w") as file:
        file.write(head + START + "\n".join(page_lines(tools, outcomes, skipped_names)) + "\n" + END +
                   rest.split(END)[1])
