"""Measures clattn and its peers row by row, one right after the other, and writes results.csv.

usage: compare.py CLATTN OUT_DIR [--quick] [--seconds X] [--rounds N] [--model DIR] [--only TEXT] [--intel DIR]

Run by compare.sh, which sets up what this needs. With --intel clattn is measured on Intel's runtime too, in the first
round, as the peer clattn-intel.
"""
import argparse
import csv
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time

import peers

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = ("op,peer,shape,causal,min_ms,median_ms,gflops,fraction_of_peak,device,driver,kernel,max_error"
           ",section,arguments,round").split(",")
MOST_RUNS = 2000
WARM_SHARE = 0.4  # of the measuring time, before it, as clattn bench does
PATIENCE = 60  # seconds for one measurement of one library


def timed(run, seconds):
    start, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < WARM_SHARE * seconds:
        run()
        count += 1
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds and len(times) < MOST_RUNS:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times), 1e3 * statistics.median(times)


def clattn(binary, option, shape, seconds, model, drivers=None):
    """The rows that the tool prints, as dicts; its messages go to the terminal. drivers: folder of other .icd files."""
    environment = dict(os.environ, OCL_ICD_VENDORS=drivers) if drivers else None
    arguments = ["--startup"] if option == "startup" else \
        ["--" + option, model + "," + shape if option == "model" else shape]
    result = subprocess.run([binary, "bench", "--device", os.environ.get("CLATTN_DEVICE", "cpu"), "--csv", "-",
                             "--seconds", str(seconds)] + arguments, stdout=subprocess.PIPE, text=True, env=environment)
    return list(csv.DictReader(result.stdout.splitlines())) if result.returncode == 0 else []


def measure_apart(make, seconds):
    """(least, median) in ms from a process of its own: a library may crash or hang, its threads end with it. Text when
    it cannot."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def work():
        try:
            theirs.send(timed(make(), seconds))
        except Exception as error:  # a library that cannot run the case is a row too
            theirs.send("unsupported: " + str(error).strip().split("\n")[0][:100])

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(PATIENCE) else f"no result within {PATIENCE} s"
    except EOFError:
        process.join()
        answer = f"it died (exit code {process.exitcode})"
    process.kill()
    process.join()
    return answer


def measure_peers(case, own, seconds, model):
    for name, make in peers.peers(case, model):
        row = {key: own[key] for key in ("op", "shape", "causal")}
        row["peer"] = name
        answer = measure_apart(make, seconds)
        if isinstance(answer, str):
            row["kernel"] = answer
        else:
            row.update(min_ms=f"{answer[0]:.3f}", median_ms=f"{answer[1]:.3f}",
                       gflops=f"{float(own['gflops']) * float(own['median_ms']) / answer[1]:.1f}")
        yield row


def measure_row(row, args, first_round):
    """What the tool and the libraries need for one line of rows.csv; nothing when the tool fails."""
    option, shape = row["option"], row["shape"]
    own = clattn(args.clattn, option, shape, args.seconds, args.model)
    others = [] if option == "startup" or not own else \
        list(measure_peers(peers.Case(option, shape), own[0], args.seconds, args.model))
    if args.intel and first_round and own and option != "startup":
        icd = os.path.join(args.intel, "icd")
        others += [{**result, "peer": "clattn-intel"}
                   for result in clattn(args.clattn, option, shape, args.seconds, args.model, icd)]
    tags = {"section": row["section"], "arguments": (option + " " + shape).strip()}
    return [{**result, **tags} for result in own + others]


def machine():
    text = {"cpu": platform.processor() or platform.machine(), "cpus": str(os.cpu_count())}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.split(":", 1) for line in file if ":" in line]
        names = [value.strip() for key, value in lines if key.strip() == "model name"]
        flags = " ".join(value for key, value in lines if key.strip() == "flags").split()
        text["cpu"] = names[0] if names else text["cpu"]
        text["vectors"] = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "neither AVX2 nor AVX-512"
    except OSError:
        pass
    text["system"] = platform.system() + " " + platform.release()
    for name in ("torch", "onnxruntime", "openvino"):
        text[name] = __import__(name).__version__
    return text


def write_machine(folder, binary):
    text = machine()
    text["clattn"] = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    with open(os.path.join(folder, "machine.csv"), "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("what", "value")] + list(text.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clattn")
    parser.add_argument("out")
    parser.add_argument("--quick", action="store_true", help="the rows that rows.csv marks")
    parser.add_argument("--seconds", type=float, default=0.7, help="per measurement")
    parser.add_argument("--rounds", type=int, default=1, help="times that all rows are measured, one after the other")
    parser.add_argument("--model", help="folder of the model; without it those rows are left out")
    parser.add_argument("--only", default="", help="rows whose section, option or shape holds this text")
    parser.add_argument("--intel", help="folder of tools/intel_runtime.sh, whose runtime is measured as well")
    args = parser.parse_args()
    with open(os.path.join(HERE, "rows.csv"), newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["quick"] == "1" or not args.quick]
    rows = [row for row in rows if args.only in " ".join((row["section"], row["option"], row["shape"]))]
    if not args.model:
        print("the rows of the model are left out, there is no --model", flush=True)
        rows = [row for row in rows if row["option"] != "model"]
    rows.append({"section": "startup", "option": "startup", "shape": ""})
    failed = 0
    write_machine(args.out, args.clattn)
    with open(os.path.join(args.out, "results.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for number in range(1, args.rounds + 1):
            if args.rounds > 1:
                print(f"round {number} of {args.rounds}", flush=True)
            for done, row in enumerate(rows, 1):
                measured = measure_row(row, args, number == 1)
                failed += not measured
                writer.writerows({**result, "round": number} for result in measured)
                file.flush()
                times = ", ".join(f"{r['peer']} {r.get('median_ms') or '-'}" for r in measured)
                print(f"[{done}/{len(rows)}] {row['option']} {row['shape']}: {times} ms", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
