"""The tables of docs/devices.md, from what the compile matrix found."""
import collections
import re
import subprocess

from matrix_programs import SHAPES
from matrix_targets import TARGETS

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


def write_page(page, tools, outcomes, skipped_names):
    lines = [f"Compilers: {versions(tools)}.", "", *summary_table(outcomes, skipped_names), "",
             "Registers per work-item and local memory per group:", "", *tile_table(outcomes)]
    text = open(page).read()
    head, rest = text.split(START)
    with open(page, "w") as file:
        file.write(head + START + "\n".join(lines) + "\n" + END + rest.split(END)[1])
