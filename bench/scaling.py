"""Time and extra memory of attention against the length S, for clattn and its peers, until each gives up.

usage: scaling.py CLATTN OUT_DIR [--causal] [--longest S] [--patience SECONDS] [--memory GIB] [--docs DOCS_DIR]

Writes scaling.csv, scaling.png and scaling.svg. Shape: 1 x 8 heads x S x S x 64. Extra memory: the most that a process
holds during its first run, beyond what it held with the inputs there: the output, and whatever else it takes. A library
that needs more than the memory allowed (half of the machine's by default) or has no result within the time allowed is
marked there and left out from there on. With --docs the pictures go to DOCS_DIR, and a table into its performance.md.
"""
import argparse
import csv
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys

import peers
from compare import timed
from report import renew

SHORTEST, HEADS, WIDTH = 256, 8, 64
ENDS = ("out of memory", "out of time", "failed")
WARM_UP = 2  # calls before the timed ones, at least


def shape_of(length, causal):
    return f"1,{HEADS},{HEADS},{length},{length},{WIDTH}" + (",causal" if causal else "")


def held(field):
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def reason(message):
    """What ends a library, from its words."""
    words = next((line for line in message.splitlines() if line.strip()), "no word")[:150]
    print(f"    {words}", file=sys.stderr)
    return "out of memory" if any(word in message.lower() for word in ("memory", "alloc")) else "failed"


def measure_peer(make, args):
    """(ms, bytes) or a text that says what ran out."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def work():
        resource.setrlimit(resource.RLIMIT_DATA, (args.memory << 30, args.memory << 30))
        try:
            run = make()
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")  # the greatest so far becomes what is held now
            before = held("VmRSS")
            run()
            extra = held("VmHWM") - before
            theirs.send((timed(run, args.seconds)[1], extra))
        except NotImplementedError as error:
            theirs.send("unsupported: " + str(error))
        except Exception as error:  # each library has an exception of its own for this
            theirs.send(reason(str(error) or type(error).__name__))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(args.patience) else "out of time"
    except EOFError:
        process.join()  # ended without a word: killed, or a C++ exception that nobody caught
        answer = "out of memory" if process.exitcode in (-signal.SIGKILL, -signal.SIGABRT) else "failed"
    process.kill()
    process.join()
    return answer


def measure_clattn(args, length):
    shape = ["bench", "--device", args.device, "--attention", shape_of(length, args.causal)]
    try:
        # Compiles what is not in the driver's cache yet, which would count as memory of the run.
        subprocess.run([args.clattn, *shape, "--once"], capture_output=True, timeout=args.patience, check=False)
        done = subprocess.run([args.clattn, *shape, "--json", "--seconds", str(args.seconds)], capture_output=True,
                              text=True, timeout=3 * args.patience, check=False)  # it also proves its output
    except subprocess.TimeoutExpired:
        return "out of time"
    if done.returncode != 0:
        answer = reason(done.stderr)
        if answer == "failed":
            sys.exit(f"scaling.py: clattn bench at length {length}: {done.stderr}")
        return answer
    row = json.loads(done.stdout)["rows"][0]
    if (WARM_UP + row["runs"]) * row["median_ms"] > args.patience * 1000:
        return "out of time"  # without the proof: what the libraries are held to
    output = HEADS * length * WIDTH * 4  # the libraries make theirs, clattn writes into its caller's
    return row["median_ms"], row["seen_bytes"] + output


def measure(args):
    rows, gone = [], {}
    length = SHORTEST
    while length <= args.longest:
        case = peers.Case("attention", shape_of(length, args.causal))
        makes = [("clattn", None)] + peers.peers(case)
        for name, make in makes:
            if name in gone:
                continue
            answer = measure_clattn(args, length) if make is None else measure_peer(make, args)
            row = {"peer": name, "S": length, "ms": "", "extra_bytes": "", "ends": ""}
            if isinstance(answer, str):
                row["ends"] = gone[name] = answer
            else:
                row.update(ms=f"{answer[0]:.3f}", extra_bytes=answer[1])
            rows.append(row)
            print(f"S {length} {name}: {row['ends'] or row['ms'] + ' ms, ' + str(row['extra_bytes'] >> 20) + ' MiB'}",
                  flush=True)
        length *= 2
    return rows


def text_of(rows, args):
    """The measurement as a table: a line per length, time and extra memory per library."""
    names = list(dict.fromkeys(row["peer"] for row in rows))
    cells = {(row["peer"], row["S"]): row for row in rows}

    def cell(name, length):
        row = cells.get((name, length))
        if not row:
            return ""
        ms = f"{float(row['ms']):.3g}" if not row["ends"] else ""
        return row["ends"] or f"{float(ms):g} ms, {row['extra_bytes'] / 2 ** 20:.1f} MiB"

    lines = [f"{HEADS} heads of {WIDTH}, float32{', causal' if args.causal else ''}, {peers.THREADS} threads; at most "
             f"{args.memory} GiB and {args.patience:.0f} s for each length.", "",
             "| S | " + " | ".join(names) + " |", "|---:|" + "---:|" * len(names)]
    for length in sorted({row["S"] for row in rows}):
        lines.append(f"| {length} | " + " | ".join(cell(name, length) for name in names) + " |")
    return "\n".join(lines) + "\n"


def draw(rows, args):
    names = list(dict.fromkeys(row["peer"] for row in rows))
    colours = dict(zip(names, ("#1f5fa8", "#c8571b", "#3c8d40", "#8a5bb0", "#777777")))

    def panel(key, factor, title):
        parts, marks = [], []
        for name in names:
            points = [(row["S"], float(row[key]) * factor) for row in rows if row["peer"] == name and row["ms"]]
            points = [(s, max(value, 0.1)) for s, value in points]
            lines = "\n".join(f"{s} {value}" for s, value in points)
            block = f"$D{key}{names.index(name)} << E\n{lines}\nE\n"
            width = 3 if name == "clattn" else 1.5
            parts.append((block, f'$D{key}{names.index(name)} with linespoints pt 7 ps 0.7 lw {width} '
                                 f'lc rgb "{colours[name]}" title "{name}"'))
            end = next((row for row in rows if row["peer"] == name and row["ends"] in ENDS), None)
            if end and points:
                marks.append(f'set label "{name}: {end["ends"]}" at {end["S"]},{points[-1][1] * 2.5} center point pt 2 '
                             f'ps 1.5 lw 2 lc rgb "{colours[name]}" offset 0,0.7 font ",9"')
        return ("".join(block for block, _ in parts) + "unset label\n" + "\n".join(marks) +
                f'\nset ylabel "{title}"\nplot ' + ", ".join(plot for _, plot in parts) + "\n")

    title = f"attention{', causal' if args.causal else ''}, {HEADS} heads of {WIDTH}, float32, {peers.THREADS} threads"
    script = f"""
set multiplot layout 1,2 title "{title}"
set logscale x 2
set logscale y 10
set grid lc rgb "#d8d8d8"
set key left top
set xlabel "length S"
set xtics rotate by 45 right
set offsets graph 0.05, graph 0.18, graph 0.15, 0
{panel("ms", 1, "ms per call")}
{panel("extra_bytes", 2.0 ** -20, "MiB beyond the inputs")}
unset multiplot
"""
    for terminal, name in (("pngcairo size 1200,560 font 'Sans,11'", "scaling.png"),
                           ("svg size 1200,560 font 'Sans,11' background 'white'", "scaling.svg")):
        commands = f"set terminal {terminal}\nset output '{os.path.join(args.docs or args.out, name)}'\n{script}"
        subprocess.run(["gnuplot", "-d"], input=commands, text=True, check=True)


def main():
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 31
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clattn")
    parser.add_argument("out")
    parser.add_argument("--docs")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--longest", type=int, default=16384)
    parser.add_argument("--patience", type=float, default=60, help="seconds that all runs of one length may take")
    parser.add_argument("--memory", type=int, default=max(1, half), help="GiB that a library may take")
    parser.add_argument("--seconds", type=float, default=0.3, help="per measurement, and five runs at least")
    parser.add_argument("--device", default=os.environ.get("CLATTN_DEVICE", "cpu"))
    args = parser.parse_args()
    for module in ("torch", "onnxruntime", "openvino", "onnx.helper"):
        __import__(module)  # so that the processes made here share them
    rows = measure(args)
    with open(os.path.join(args.out, "scaling.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, args)
    if args.docs:
        renew(args.docs, "scaling", text_of(rows, args))


if __name__ == "__main__":
    main()
