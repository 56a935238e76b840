"""Turns the results of compare.py into a table, a chart, and docs/performance.md.

usage: report.py OUT_DIR [--docs DOCS_DIR]

Reads OUT_DIR/results.csv and machine.csv and writes results.md, performance.png and performance.svg there. With --docs
the pictures go to DOCS_DIR, and the table into its performance.md, between the lines <!-- results --> and
<!-- end of results -->. gnuplot draws.
"""
import argparse
import csv
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
START_WANTED = {"first_run": 2000.0, "warm_start": 120.0, "attention": 0.060}  # ms
TITLES = {"full": "attention, full", "causal": "attention, causal", "short": "attention, short",
          "ragged": "ragged lengths", "head_dim": "head widths", "features": "options", "window": "sliding window",
          "decode": "decoding", "storage": "16-bit and 8-bit storage", "projections": "projections with bias",
          "layers": "multi-head layers", "model": "MiniLM, six layers"}
NARROW = 0.06  # what AVX2 alone may lack of each wanted share of the peak


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def reads(result):
    """Its limit is reading memory: a single query per head."""
    return result["op"] == "decode" or result["shape"].split("x")[3:4] == ["1"]


def number(text):
    return float(text) if text else None


def quietest(results, key):
    """For each value of `key` the result of the round with the least median: others on the machine only add time."""
    best = {}
    for r in results:
        known = best.get(r[key])
        if known is None or r["median_ms"] and (number(r["median_ms"]) < (number(known["median_ms"]) or float("inf"))):
            best[r[key]] = r
    return best


class Row:
    """One line of rows.csv with what was measured."""

    def __init__(self, wanted, results, slack):
        self.wanted = wanted
        mine = [r for r in results if r["arguments"] == wanted["option"] + " " + wanted["shape"]]
        best = quietest(mine, "peer")
        self.own = best.pop("clattn", None)
        self.intel = best.pop("clattn-intel", None)
        self.peers = {name: number(r["median_ms"]) for name, r in best.items()}
        measured = {name: ms for name, ms in self.peers.items() if ms}
        self.best = min(measured, key=measured.get) if measured else None
        self.ms = number(self.own["median_ms"]) if self.own else None
        self.gflops = number(self.own["gflops"]) if self.own else None
        self.fraction = number(self.own["fraction_of_peak"]) if self.own else None
        self.ratio = measured[self.best] / self.ms if self.best and self.ms else None
        self.of_peak = number(wanted["of_peak"]) - slack if wanted["of_peak"] else None
        self.beside = None
        self.spread = 1 - number(self.own["min_ms"]) / self.ms if self.ms else None

    def label(self):
        return self.wanted["shape"].replace(",", " ")

    def misses(self):
        """In words, what is less than wanted."""
        wanted = number(self.wanted["ratio"]), number(self.wanted["beside_ratio"])
        return [f"{what} {got:.3f} instead of {want:.2f}" for what, got, want in
                (("share of the peak", self.fraction, self.of_peak), ("best library", self.ratio, wanted[0]),
                 ("beside its neighbour", self.beside, wanted[1]))
                if got is not None and want is not None and round(got, 3) < want]


def rows_of(results, slack):
    rows = [Row(wanted, results, slack) for wanted in read(os.path.join(HERE, "rows.csv"))]
    speeds = {(row.wanted["option"], row.wanted["shape"]): row.gflops for row in rows}
    for row in rows:
        other = speeds.get((row.wanted["option"], row.wanted["beside"]))
        if row.gflops and other:
            row.beside = row.gflops / other
    return [row for row in rows if row.own]


def cell(value, wanted, form="{:.2f}"):
    if value is None:
        return ""
    text = form.format(value)
    return text if wanted is None else f"{text} ({form.format(wanted)})"


def table(rows):
    heads = ("work", "ms", "spread", "GFLOP/s", "of peak", "best library", "its ms", "times faster",
             "beside its neighbour", "on Intel's runtime", "")
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---|"]
    section = None
    for row in rows:
        if row.wanted["section"] != section:
            section = row.wanted["section"]
            lines.append(f"| **{TITLES[section]}** | | | | | | | | | | |")
        unit = " of reading" if reads(row.own) else ""
        intel = "{median_ms} ms, {fraction_of_peak:.4}".format(**row.intel) if row.intel else ""
        best = f"{row.peers[row.best]:.3f}" if row.best else ""
        cells = (row.label(), f"{row.ms:.3f}", f"{row.spread:.0%}", f"{row.gflops:.1f}",
                 cell(row.fraction, row.of_peak) + unit, row.best or "", best,
                 cell(row.ratio, number(row.wanted["ratio"])), cell(row.beside, number(row.wanted["beside_ratio"])),
                 intel, "misses" if row.misses() else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def startup(results):
    """Lines of the table, and what misses."""
    missing, lines = [], ["| start-up | ms | wanted |", "|---|---:|---:|"]
    names = {"first_run": "first run, nothing cached", "warm_start": "warm start of a process to its first result",
             "attention": "one call at S 16"}
    starts = [{**r, "what": r["op"] + r["shape"]} for r in results if r["section"] == "startup"]
    for r in quietest(starts, "what").values():
        what = r["shape"].replace(":", " ").replace("x", " ")
        name, ms, wanted = f"{names[r['op']]}: {what}", float(r["median_ms"]), START_WANTED[r["op"]]
        lines.append(f"| {name} | {ms:.3f} | < {wanted:g} |")
        if not ms < wanted:
            missing.append(f"- {name}: {ms:.3f} ms instead of {wanted:g}")
    return lines if len(lines) > 2 else [], missing


def peak_of(results):
    """GFLOP/s: each run of the tool measured it; the median of them."""
    own = [r for r in results if r["peer"] == "clattn" and r["gflops"] and not reads(r)]
    peaks = [float(r["gflops"]) / float(r["fraction_of_peak"]) for r in own if float(r["fraction_of_peak"]) > 0.2]
    return statistics.median(peaks) if peaks else None


def medians(results):
    rounds = len({r.get("round") for r in results})
    return "Medians" if rounds == 1 else f"Medians, of each library the least of {rounds} rounds"


def text_of(rows, results, machine):
    device, peak = rows[0].own, peak_of(results)
    lines = [f"{machine['cpu']}, {machine['cpus']} processors, {machine.get('vectors', '')}, {machine['system']}. "
             f"Device: {device['device']}, driver {device['driver']}" +
             (f", {peak:.0f} GFLOP/s of float32 multiply-adds at most. " if peak else ". ") +
             f"{machine['clattn']} beside torch {machine['torch']}, onnxruntime {machine['onnxruntime']} and openvino "
             f"{machine['openvino'].split('-')[0]}, each with {machine['cpus']} threads. "
             f"{medians(results)}; in brackets what is wanted.", ""]
    start_lines, start_missing = startup(results)
    lines += table(rows) + [""] + start_lines
    missing = [f"- {row.wanted['option']} {row.label()}: {'; '.join(row.misses())}" for row in rows if row.misses()]
    missing += start_missing
    lines += ["", "Every row reaches what is wanted." if not missing else "Rows that miss:", ""] + missing
    return "\n".join(lines).rstrip() + "\n"


TALLEST_BAR = 3.0  # in the chart, so that one row of a sliding window does not flatten all others


def draw(rows, folder):
    shown = [row for row in rows if row.ratio]
    data = os.path.join(folder, "ratios.dat")
    with open(data, "w", encoding="utf-8") as file:
        for row in shown:
            name = f"{row.wanted['option']} {row.label()}".replace("attention ", "").replace("_", " ")
            file.write(f'"{name}" {row.ratio:.3f} "{row.best}"\n')
    most = min(max(row.ratio for row in shown), TALLEST_BAR)  # what is above is cut, its number stays
    script = f"""
set style fill solid 0.9
set boxwidth 0.7
set offsets 0.6, 0.6, 0, 0
set yrange [0:{1.12 * most:.2f}]
set ytics 0.5
set grid ytics lc rgb "#d0d0d0"
set border 3 lc rgb "#606060"
set tics nomirror textcolor rgb "#202020"
set xtics rotate by 60 right font ",10"
set ylabel "times faster than the best library"
set title "clattn beside the fastest of torch, onnxruntime and openvino, same CPU, same threads"
set arrow from graph 0, first 1 to graph 1, first 1 nohead lc rgb "#b03030" lw 1.5 front
plot "{data}" using 0:($2 < {most:.3f} ? $2 : {most:.3f}):xtic(1) with boxes lc rgb "#3b6ea5" notitle, \\
     "" using 0:(($2 < {most:.3f} ? $2 : {most:.3f}) + {0.04 * most:.3f}): \\
        (sprintf($2 < 10 ? "%.2f" : "%.0f", $2)) with labels font ",8" notitle
"""
    width = max(900, 34 * len(shown) + 160)
    for terminal, name in ((f"pngcairo size {width},620 font 'Sans,11'", "performance.png"),
                           (f"svg size {width},620 font 'Sans,11' background 'white'", "performance.svg")):
        commands = f"set terminal {terminal}\nset output '{os.path.join(folder, name)}'\n{script}"
        subprocess.run(["gnuplot", "-d"], input=commands, text=True, check=True)
    os.remove(data)


def renew(docs, name, text):
    """Puts text into performance.md, between the lines <!-- name --> and <!-- end of name -->."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    path = os.path.join(docs, "performance.md")
    with open(path, encoding="utf-8") as file:
        before, rest = file.read().split(begin)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + begin + "\n" + text + "\n" + end + rest.split(end)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--docs")
    args = parser.parse_args()
    results = read(os.path.join(args.out, "results.csv"))
    machine = {row["what"]: row["value"] for row in read(os.path.join(args.out, "machine.csv"))}
    rows = rows_of(results, NARROW if machine.get("vectors") == "AVX2" else 0.0)
    if not rows:
        sys.exit(f"report.py: {args.out}/results.csv has no row of clattn")
    text = text_of(rows, results, machine)
    with open(os.path.join(args.out, "results.md"), "w", encoding="utf-8") as file:
        file.write(text)
    draw(rows, args.docs or args.out)
    if args.docs:
        renew(args.docs, "results", text)
    print(text)


if __name__ == "__main__":
    main()
