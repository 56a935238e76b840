"""The instructions of a kernel's hot loops, from the disassembly, and the share of the chip's peak that they leave room
for.

A hot loop is one with multiply-adds of its own, at least a fourth of what any other has; loops inside it are not part
of it (reading cell by cell, where rows are not aligned). Around matrix instructions it is the smallest loop that holds
as many of them as any, which is one block of keys. Code in it that a branch skips and that neither moves data nor
computes exponentials is not counted: masks, which full blocks skip, and the change of scale when a maximum grew. Nor
are loops there that move single elements: rows that are not aligned.
"""
import collections
import re

MOVES = {"matrix", "local", "global", "special"}
KINDS = ("matrix", "fma", "vector", "special", "local", "global", "other")


# ---- what one line of disassembly is ----


def nvidia_kind(op, _):
    word = op.split(".")[0]
    if word in ("HMMA", "IMMA"):
        return "matrix"
    if word in ("FFMA", "FFMA2"):
        return "fma"
    if word == "MUFU":
        return "special"
    if word in ("LDS", "LDSM", "STS"):
        return "local"
    if word in ("LDG", "STG", "LDGSTS", "LD", "ST"):
        return "global"
    if word.startswith("U") or word in ("BRA", "BSSY", "BSYNC", "BAR", "NOP", "WARPSYNC", "DEPBAR", "LDGDEPBAR", "R2UR",
                                        "S2R", "S2UR", "EXIT", "CALL", "RET", "LDC", "LDCU", "BREAK", "YIELD"):
        return "other"
    return "vector"


AMD_FMA = re.compile(r"\bv_(dual_|pk_)?(fma|fmac|mac|mad)_(f|mix_f)")  # a dual line holds two


def amd_kind(op, rest):
    if "wmma" in op or "mfma" in op:
        return "matrix"
    if AMD_FMA.search(f"{op} {rest}"):
        return "fma"
    if re.match(r"v_(exp|rcp|log|rsq|sqrt|sin|cos)", op):
        return "special"
    if op.startswith("ds_"):
        return "local"
    if re.match(r"global_|buffer_|flat_|scratch_", op):
        return "global"
    return "vector" if op.startswith("v_") else "other"


def intel_kind(op, text):
    word = op.split(".")[0]
    if word.startswith("dpas"):
        return "matrix"
    if word in ("mad", "mac") and ":f" in text:
        return "fma"
    if word == "math":
        return "special"
    if word.startswith("send"):
        numbers = re.findall(r"\b0x[0-9A-Fa-f]+", text)
        if ".gtwy" in op or "fence" in text or not numbers:
            return "other"
        return "local" if ".slm" in op or int(numbers[-1], 16) & 0xff == 0xfe else "global"  # that surface is local
    if word in ("goto", "join", "jmpi", "while", "brc", "brd", "sync", "nop", "if", "else", "endif", "break", "ret"):
        return "other"
    return "vector"


LINES = {  # label, instruction (name, rest), branch target
    "nvidia": (r"^(\.L_\w+):", r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)\s*(.*?);",
               r"^(?:BRA|BRX|JMP)", r"\((\.L_\w+)\)", nvidia_kind),
    "amd": (r"^(\.LBB\w+):", r"^\t([a-z]\w+)(?:\s+(.*))?$", r"^s_c?branch", r"(\.LBB\w+)", amd_kind),
    "intel": (r"^(L\d+):", r"^\s*(?:\([^)]*\)\s*)?([a-z][a-z0-9.]*)\s+(.*)$", r"^(?:jmpi|goto|while|brc|brd)",
              r"(L\d+)", intel_kind),
}


def parse(listing, family):
    """[(name, rest)], the loops as (first, last), by backward branches, and what forward branches skip, alike."""
    label, instruction, branch, target, _ = LINES[family]
    code, places, loops, ahead = [], {}, [], []
    for line in listing.splitlines():
        found = re.match(label, line)
        if found:
            places[found[1]] = len(code)
            continue
        found = re.match(instruction, line)
        if not found:
            continue
        if re.match(branch, found[1]):
            names = re.findall(target, found[2] or "")
            loops += [(places[name], len(code)) for name in names if name in places]
            ahead += [(len(code) + 1, name) for name in names[:1] if name not in places]
        code.append((found[1], found[2] or ""))
    return code, loops, [(first, places[name] - 1) for first, name in ahead if name in places]


def loaded_bytes(name, rest, family):
    """Bytes per lane that a load from global memory fetches; 0 when it is none."""
    if family == "nvidia" and re.match(r"LDG\b", name):
        width = re.search(r"\.(128|64|U16|S16|U8|S8)\b", name)
        return {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}[width[1]] if width else 4
    if family == "amd" and re.match(r"(global|buffer|flat)_load", name):
        width = re.search(r"_(?:dwordx|b)(\d+)$", name)
        if width:
            return int(width[1]) * 4 if "dwordx" in name else int(width[1]) // 8
        return 2 if re.search(r"short|16", name) else 1 if re.search(r"byte|[ui]8", name) else 4
    return 0


def own_places(loops):
    """Of each loop, the places of its instructions that are in no loop inside it. Loops of one beginning are one."""
    ends = {}
    for first, last in loops:
        ends[first] = max(last, ends.get(first, last))
    own = []
    for first, last in ends.items():
        inner = [range(a, b + 1) for a, b in ends.items() if first < a and b <= last]
        own.append([n for n in range(first, last + 1) if not any(n in loop for loop in inner)])
    return own


ELEMENT = {"nvidia": r"\.[US]16\b", "amd": r"_(u?short|[ubi]16)\b", "intel": ""}  # Intel's: loops are never unrolled


def by_element(rows, kinds, family):
    """Does code move data by 16 bits at a time, and no other way?"""
    return all(re.search(ELEMENT[family], name) for (name, _), kind in zip(rows, kinds) if kind in ("local", "global"))


def hot(code, loops, skips, family):
    """The instructions of the hot loops, with their kinds."""
    kind = LINES[family][4]
    kinds = [kind(*row) for row in code]

    def count(places, what):
        return sum(kinds[n] == what for n in places)
    if "matrix" in kinds:
        whole = [range(first, last + 1) for first, last in loops]
        most = max((count(loop, "matrix") for loop in whole), default=0)
        chosen = sorted((loop for loop in whole if most and count(loop, "matrix") == most), key=len)[:1]
    else:
        own = own_places(loops)
        most = max((count(places, "fma") for places in own), default=0)
        chosen = [places for places in own if count(places, "fma") >= max(4, most / 4)]
    places = {n for loop in chosen for n in loop}
    for first, last in skips:
        skipped, found = set(range(first, last + 1)), set(kinds[first:last + 1])
        slow = any(first <= a and b <= last for a, b in loops) and not found & {"matrix", "special"} and \
            by_element(code[first:last + 1], kinds[first:last + 1], family)
        if skipped <= places and (slow or last - first > 8 and not MOVES & found):
            places -= skipped
    return [(code[n], kinds[n]) for n in sorted(places)]


def mix_of(listing, family):
    """What the hot loops hold: Counter of KINDS, of "multiply-adds" and "bytes" loaded per lane, and of the "units"
    that instructions take (Intel: 8 lanes each; others: the instruction); None without a hot loop."""
    rows = hot(*parse(listing, family), family)
    if not rows:
        return None
    mix = collections.Counter()
    for (name, rest), kind in rows:
        mix[kind] += 1
        mix["bytes"] += loaded_bytes(name, rest, family)
        lanes = re.match(r"\((\d+)", rest) if family == "intel" else None
        units = max(int(lanes[1]) / 8, 1) if lanes else 1
        if kind == "fma":
            words = len(AMD_FMA.findall(f"{name} {rest}")) if family == "amd" else 1
            mix["multiply-adds"] += (2 if name.startswith(("v_pk", "FFMA2")) else words) * units
        if kind in ("fma", "vector", "special"):
            mix[f"{kind} units"] += units
    return mix


def peak_share(mix, chip, family):
    """(share of the peak, of what) that the issue of these instructions allows: an upper bound, with enough waves."""
    vector = (mix["fma units"] + mix["vector units"]) * chip.vector
    special = mix["special units"] * chip.special
    if mix["matrix"]:
        useful = mix["matrix"] * chip.matrix
        if family == "nvidia":
            busy = max(useful, mix["fma units"] * chip.vector, mix["vector units"] * 2, special,
                       sum(mix[k] for k in KINDS))
        else:
            busy = max(useful, vector + special) if chip.beside else useful + vector + special
        return useful / busy, "matrix engine"
    useful = mix["multiply-adds"] * chip.vector / chip.pair
    if family == "nvidia":  # other vector instructions have a pipe of half the width
        busy = max(mix["fma units"] * chip.vector, mix["vector units"] * 2, special, sum(mix[k] for k in KINDS))
    else:
        busy = vector + special
    return useful / max(busy, 1e-9), "float32 multiply-adds"


def bandwidth_share(mix, chip, lanes, family):
    """Share of the memory bandwidth that the issue of a loop of loads allows; None when its loads are not known."""
    if not mix["bytes"]:
        return None
    if family == "nvidia":
        clocks = max(sum(mix[k] for k in KINDS), mix["fma units"] * chip.vector, mix["vector units"] * 2)
    else:
        clocks = (mix["fma units"] + mix["vector units"]) * chip.vector + mix["special units"] * chip.special
    loads = mix["bytes"] * lanes / clocks * chip.simds * chip.units * chip.clock  # GB/s
    return min(1.0, loads / chip.bandwidth)
