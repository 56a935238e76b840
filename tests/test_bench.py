"""Drives `clattn bench` as a user does: every kind of work, the columns of its reports, bad input.

    test_bench.py BINARY SOURCE_ROOT [PART_OF_A_NAME]

Needs nothing but Python. The last line is "clattn-tests: P passed, F failed, S skipped". Times are not judged.
"""
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree stays as it is
import test_cli
from test_cli import GOLDEN, NOT_SUPPORTED, USAGE, must, must_fail, must_run

MODEL = GOLDEN + "/bert/model_small_6_layers"
ONCE = ("--warmup", 0, "--repeat", 1)
COLUMNS = "op,peer,shape,causal,min_ms,median_ms,gflops,fraction_of_peak,device,driver,kernel,max_error"


# What counts and compares figures, not how the work is done: once is enough, where no table is cut.
FIGURES = ("causal_work", "busy_machine", "memory", "memory_seen", "many_groups", "spread", "report")


def rows(*args):
    text = must_run("bench", *ONCE, "--csv", "-", *args).out
    must(text.split("\n")[0] == COLUMNS, "columns:", text)
    return list(csv.DictReader(io.StringIO(text)))


def test_kinds():
    got = rows("--attention", "1,4,2,33,40,16,causal", "--layer", "2,9,16,2", "--gemm", "19,24,33",
               "--decode", "2,4,2,37,16,int8,paged=8", "--model", MODEL + ",2x7")
    must([r["op"] for r in got] == ["attention", "layer", "gemm", "decode", "model"], got)
    must([r["shape"] for r in got][:4] ==
         ["1x4x2x33x40x16", "2x9x16x2", "19x24x33", "2x4x2x37x16+int8+paged=8"], got)
    must(got[4]["shape"].startswith("2x7x"), got[4])
    must([r["causal"] for r in got] == ["1", "0", "0", "0", "0"], got)
    for r in got:
        must(r["peer"] == "clattn" and 0 < float(r["min_ms"]) <= float(r["median_ms"]), r)
        must(r["kernel"] and r["device"] and r["driver"] and float(r["max_error"]) < 1e-3, r)


def test_resident():
    got = rows("--resident", "--attention", "1,4,2,33,40,16,causal,mask=float,alibi,sinks", "--layer", "2,9,16,2",
               "--gemm", "19,24,33", "--decode", "2,4,2,37,16,int8,paged=8", "--model", MODEL + ",2x7")
    must([r["op"] for r in got] == ["attention", "layer", "gemm", "decode", "model"], got)
    must(all(0 < float(r["median_ms"]) and float(r["max_error"]) < 1e-3 for r in got), got)
    must(must_run("bench", "--once", "--resident", "--gemm", "5,6,7").out == "done\n", "--once with --resident")


def test_shapes():
    """What a shape's words say is what is planned, an option beside them has the last word, and nothing is endless."""
    shape = "1,2,2,4,40,8,window=2,softcap=3,mask="
    features = ("features: window, bool mask, softcap", "features: window, float mask, softcap")
    for word, more, wanted in (("bool", (), 0), ("float", (), 1), ("bool", ("--mask", "float"), 1)):
        out = must_run("explain", "--attention", shape + word, *more).out
        must(features[wanted] in out, features[wanted], "is not in", out)
    must_fail(USAGE, "softcap is -1", "explain", "--attention", "1,2,2,4,40,8", "--softcap=-1")
    must_fail(USAGE, "--seconds 'inf'", "bench", "--attention", "1,1,1,4,4,8", "--seconds", "inf")
    huge = "1000000,64,64,1000000,1000000,128"
    must_fail(NOT_SUPPORTED, "too little memory", "bench", "--attention", huge, "--once")
    for more in ("window=1", "causal", "mask=blocks"):
        endless = "1,1,1,9000000000000000000,64,64," + more
        must_fail(USAGE, "query_len is 9000000000000000000", "bench", "--attention", endless)
    must_fail(USAGE, "kv_len is 9223372036854775807", "bench", "--decode", "1,1,1,9223372036854775807,64,paged")
    must_fail(USAGE, "batch is 9223372036854775807", "bench", "--decode", "9223372036854775807,1,1,64,64,paged")


def test_words():
    shape = "1,2,1,270,270,8,"
    words = ["causal,window=20,alibi", "window=9:3,sinks", "mask=bool,softcap=3", "mask=float,float16", "mask=blocks",
             "bfloat16", "mask=blocks,window=300:5"]
    report = must_run("bench", *ONCE, "--json", *[word for w in words for word in ("--attention", shape + w)]).out
    got = json.loads(report)["rows"]  # with all digits
    must(len(got) == len(words) and got[0]["shape"] == "1x2x1x270x270x8+window=20+alibi", got)
    pairs = [r["gflops"] * r["median_ms"] * 1e6 / (4 * 2 * 8) for r in got]
    expected = [sum(min(i, 20) + 1 for i in range(270)), sum(min(i, 9) + min(269 - i, 3) + 1 for i in range(270)),
                270 * 270, 270 * 270, 256 * 256 + 14 * 14, 270 * 270,
                sum(min(i % 256 + 6, 256 if i < 256 else 14) for i in range(270))]
    must(all(abs(p - e) < 0.01 for p, e in zip(pairs, expected)), "pairs counted:", pairs, "expected", expected)


def test_causal_work():
    """Causal order counts the pairs that it allows, also where there are more keys than queries, and in blocks."""
    def pairs(queries, keys, left, block):
        places = [(i, i + keys - queries) for i in range(queries)]
        return sum(place - left <= j <= place and i // block == j // block for i, place in places for j in range(keys))

    report = must_run("bench", *ONCE, "--json", "--attention", "1,2,1,30,300,8,causal", "--attention",
                      "1,2,1,300,30,8,causal", "--attention", "1,2,1,300,530,8,causal,window=90,mask=blocks",
                      "--attention", "1,2,1,530,300,8,causal,mask=blocks", "--layer", "1,40,16,2,causal").out
    flops = [row["gflops"] * row["median_ms"] * 1e6 for row in json.loads(report)["rows"]]
    counts = [pairs(30, 300, 300, 999), pairs(300, 30, 300, 999), pairs(300, 530, 90, 256), pairs(530, 300, 999, 256)]
    expected = [4 * 2 * 8 * count for count in counts] + [8 * 40 * 16 * 16 + 4 * 16 * sum(range(1, 41))]
    must(len(flops) == 5 and all(abs(f - e) < 1e-3 * e for f, e in zip(flops, expected)), flops, "expected", expected)


def test_precision():
    """Every kind of work hands it on: what is built for strict arithmetic says so; and a wrong word is told."""
    for case in (("--attention", "1,2,2,9,9,8"), ("--layer", "1,9,16,2"), ("--decode", "1,2,2,17,8"),
                 ("--model", MODEL + ",1x7")):
        r = must_run("bench", "--once", "-v", "--no-cache", "--precision", "strict", *case)
        must("PRECISION_STRICT" in r.err, case, r.err)
    got = rows("--precision", "fast", "--attention", "1,2,2,9,9,8", "--gemm", "5,6,7,float16")
    must(all(float(r["max_error"]) < 1e-2 for r in got), got)
    must_fail(USAGE, "--precision 'exact': expected default, strict or fast", "bench", "--precision", "exact")


def test_wrong_results():
    """What is wrong is told and not timed; the cases behind it are measured all the same."""
    shutil.copytree(test_cli.ROOT + "/cl", "wrong")
    right = "1.0f / r.total"
    with open("wrong/attn_naive.cl", "r+") as file:
        text = file.read()
        must(right in text, right, "is not in attn_naive.cl")
        file.seek(0)
        file.write(text.replace(right, "1.01f / r.total"))
    shape = "1,2,1,9,9,8"
    wrong = ("bench", *ONCE, "--csv", "wrong.csv", "--trust", "never", "--kernel-dir", "wrong", "--kernel",
             "attn_naive", "--attention", shape, "--gemm", "5,6,7", "--attention", shape + ",causal")
    r = must_fail(test_cli.WRONG, "1x2x1x9x9x8: wrong result of attn_naive", *wrong)
    must(r.err.count("; not timed") == 2, r.err)
    with open("wrong.csv", newline="") as file:
        must([row["op"] for row in csv.DictReader(file)] == ["gemm"], "wrong.csv")


def test_busy_machine():
    """Others at work are noticed: as many as have a twentieth of all processors, several times over."""
    spin = [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"]
    others = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(os.cpu_count() // 4 + 1)]
    try:
        for other in others:
            other.stdout.readline()
        r = must_run("bench", "--repeat", 5, "--json", "--gemm", "64,64,64")
    finally:
        for other in others:
            other.kill()
            other.communicate()
    if not os.path.exists("/proc/stat"):
        raise test_cli.Skip("the system does not say who uses the processors")
    must(json.loads(r.out)["others_share"] > 0.05, r.out)
    must("warning: other processes used" in r.err and "the times are too long" in r.err, r.err)


def test_full_disk():
    """Figures that could not be written are told, wherever they were to go."""
    if not os.path.exists("/dev/full"):
        raise test_cli.Skip("no /dev/full")
    must_fail(USAGE, "--csv /dev/full: writing failed", "bench", *ONCE, "--gemm", "1,2,3", "--csv", "/dev/full")
    with open("/dev/full", "w") as full:
        r = test_cli.run("bench", *ONCE, "--gemm", "1,2,3", "--csv", "-", out=full)
    must(r.returncode == USAGE and "cannot be written" in r.err, r.returncode, r.err)


def test_memory():
    """What a run needs beside its tensors is counted, and grows with the length and no faster."""
    shapes = [shape % length for length in (256, 1024) for shape in ("1,4,4,%d,{0},16", "1,4,2,1,%d,64")]
    shapes = [shape.format(shape.split(",")[3]) for shape in shapes]
    report = must_run("bench", *ONCE, "--json", *[word for s in shapes for word in ("--attention", s)]).out
    all_keys, decoding, all_keys_of_more, decoding_of_more = [row["extra_bytes"] for row in json.loads(report)["rows"]]
    must(all_keys == all_keys_of_more == 0, report)
    must(0 < decoding and decoding_of_more <= 4 * decoding, report)


def test_memory_seen():
    """What the system saw a run take: a layer's intermediate results, and nothing near a matrix of scores."""
    shapes = ("--layer", "1,1024,512,8", "--attention", "1,8,8,2048,2048,64,causal")
    must_run("bench", "--once", *shapes)  # compiles
    layer, attention = json.loads(must_run("bench", *ONCE, "--json", *shapes).out)["rows"]
    if "seen_bytes" not in layer:
        raise test_cli.Skip("the system does not say what a process holds")
    must(layer["seen_bytes"] >= layer["extra_bytes"] / 2 > 0, layer)
    must(attention["seen_bytes"] < 2048 * 2048 * 4, attention)


def test_many_groups():
    """More lines than CUDA's grids hold groups in their second dimension: every row is compared."""
    got = rows("--pretend", "type=gpu,vendor=NVIDIA,platform=NVIDIA CUDA", "--kernel", "attn_decode", "--attention",
               "66001,1,1,1,2,8")
    must(len(got) == 1 and got[0]["kernel"] == "attn_decode", got)


def test_engine():
    """Weights that a matrix engine rounds are no wrong result."""
    got = rows("--pretend", "type=gpu", "--matrix-engine", "emulated:nv", "--attention", "1,2,1,70,90,32,float16",
               "--layer", "1,70,64,2,float16")
    must(len(got) == 2 and all("attn_matrix" in row["kernel"] for row in got), got)


def startup():
    got = rows("--startup")
    must([r["op"] for r in got] == ["first_run", "warm_start"] * 2 + ["attention"], got)
    must(got[0]["shape"] == "attention:1x8x8x1024x1024x64" and got[0]["gflops"] == got[0]["max_error"] == "", got)
    must(all(float(r["min_ms"]) > 0 for r in got), got)

def test_startup_options():
    """What shapes the work is handed on to the processes that are timed."""
    r = must_fail(NOT_SUPPORTED, 'kernel "nope" cannot serve this', "bench", "--startup", "--kernel=nope", "--no-cache")
    for shape in ("--attention 1,8,8,1024,1024,64", "--layer 4,128,384,12"):
        must("bench --once %s failed" % shape in r.err, shape, r.err)


def test_once():
    must(must_run("bench", "--once", "--gemm", "5,6,7").out == "done\n", "--once prints something else")
    must_fail(NOT_SUPPORTED, "nope", "bench", "--once", "--gemm", "5,6,7", "--gemm-kernel", "nope")
    for report in (("--csv", "once.csv"), ("--csv", "-"), ("--json",)):
        message = "--once measures nothing that %s could report" % report[0]
        must_fail(USAGE, message, "bench", "--once", "--gemm", "5,6,7", *report)


def test_plan_first():
    """What no kernel takes is told before a limit is measured, whose kernels a cache that is empty has to build."""
    shape = ("bench", *ONCE, "-v", "--no-cache", "--attention", "1,2,2,16,16,8")
    must("limits.cl" in must_run(*shape).err, "the log does not tell of limits.cl")
    r = must_fail(NOT_SUPPORTED, "nope", *shape, "--kernel", "nope")
    must("limits.cl" not in r.err, r.err)


def test_spread():
    """Between the quartiles, also where two times are all: half of their distance, so the median less the least."""
    row = json.loads(must_run("bench", "--repeat", 2, "--json", "--gemm", "64,64,64").out)["rows"][0]
    wanted = 1 - row["min_ms"] / row["median_ms"]
    must(wanted > 0 and abs(row["spread"] - wanted) < 1e-6, row)


def test_json():
    report = json.loads(must_run("bench", *ONCE, "--attention", "1,2,2,16,16,8", "--json").out)
    row = report["rows"][0]
    must(row["op"] == "attention" and row["rows_checked"] == row["rows"] == 32 and row["error_fraction"] <= 1, row)
    must(row["min_ms"] <= row["median_ms"] and row["runs"] == 1 and row["extra_bytes"] == 0, row)


def test_report():
    """The table of bench/report.py: what is wanted, what misses, and which library is the best."""
    if not shutil.which("gnuplot"):
        raise test_cli.Skip("gnuplot is not installed")
    end = "full,\"attention 1,8,8,1024,1024,64\""
    own = "attention,clattn,1x8x8x1024x1024x64,0,9,10,%s,%s,a device,1,attn_cpu,1e-6," + end
    other = "attention,%s,1x8x8x1024x1024x64,0,19,%s,,,,,,," + end
    start = "first_run,clattn,attention:1x8,0,%s,%s,,,d,1,,,startup,startup"
    os.makedirs("report", exist_ok=True)
    test_cli.write("report/machine.csv", b"what,value\ncpu,A CPU\ncpus,2\nvectors,AVX-512\nsystem,Linux\n"
                   b"clattn,0\ntorch,1\nonnxruntime,2\nopenvino,3\n")
    for gflops, share, start_ms, says in ((100, 0.5, 3000, ("0.500 instead of 0.86", "3000.000 ms instead of 2000")),
                                          (180, 0.9, 900, ("Every row reaches",))):
        lines = [COLUMNS + ",section,arguments", own % (gflops, share), other % ("slow", 30), other % ("quick", 20),
                 other % ("none", ""), (own % (gflops, 0.77)).replace("clattn", "clattn-intel", 1),
                 start % (start_ms, start_ms)]
        test_cli.write("report/results.csv", "\n".join(lines).encode())
        done = subprocess.run([sys.executable, test_cli.ROOT + "/bench/report.py", "report"], capture_output=True,
                              text=True)
        must(done.returncode == 0, done.stderr)
        row = "| quick | 20.000 | 2.00 (1.05) |  | 10 ms, 0.77 |"
        must(all(text in done.stdout for text in says + (row,)), done.stdout)
        must(os.path.getsize("report/performance.png") > 2000, "no picture")
    lines = [COLUMNS + ",section,arguments,round"]  # each library's quietest round counts
    for number, ms in ((1, (12, 30)), (2, (10, 20)), (3, (11, 25))):
        lines += [(own % (180, 0.9)).replace(",10,", ",%d," % ms[0]) + ",%d" % number,
                  other % ("quick", ms[1]) + ",%d" % number]
    test_cli.write("report/results.csv", "\n".join(lines).encode())
    done = subprocess.run([sys.executable, test_cli.ROOT + "/bench/report.py", "report"], capture_output=True,
                          text=True)
    must(all(text in done.stdout for text in ("the least of 3 rounds", "| 10.000 |", "| quick | 20.000 | 2.00 ")),
         done.stdout, done.stderr)


def test_bad_input():
    for option, value in [("attention", "1,2,2,16,16"), ("attention", "1,2,2,16,16,8,gallop"),
                          ("attention", "1,2,2,16,16,8,"), ("attention", "1,2,2,16,16,8,causal=1"),
                          ("attention", "1,2,2,16,16,8,window=-1"), ("attention", "1,2,2,16,16,8,window=3:x"),
                          ("attention", "1,2,2,16,16,8,softcap=0"), ("attention", "1,2,2,16,16,8,mask=none"),
                          ("attention", "1,2,2,16,16,8,softcap=1e-60"),
                          ("layer", "1,16,16,2,alibi"), ("gemm", "1,2,3,causal"), ("gemm", "1,2"), ("gemm", "1,2,-3"),
                          ("decode", "1,2,2,16"), ("decode", "1,2,2,16,8,int4"), ("decode", "1,2,2,16,8,paged=0"),
                          ("model", MODEL + ",8"), ("model", MODEL + ",0x8")]:
        must_fail(USAGE, "--%s '%s': expected" % (option, value), "bench", "--" + option, value)
    for option, value in [("attention", "1,2,2,16,16,8,float16,bfloat16"),
                          ("attention", "1,2,2,16,16,8,mask=float,causal,mask=bool"),
                          ("layer", "1,8,8,2,causal,causal"), ("gemm", "1,2,3,float16,float32"),
                          ("decode", "1,2,2,16,8,int8,paged,float16"),
                          ("decode", "1,2,2,16,8,paged,paged=4")]:
        message = "--%s '%s': '%s' decides again" % (option, value, value.split(",")[-1])
        must_fail(USAGE, message, "bench", "--" + option, value)
    must_fail(USAGE, "a size is 0", "bench", "--gemm", "0,2,3")
    must_fail(USAGE, "rows is 3000000000", "bench", "--gemm", "3000000000,1,1")  # before 24 GB are filled
    must_fail(USAGE, "nowhere", "bench", *ONCE, "--model", "nowhere")
    must_fail(USAGE, "--csv nowhere/x.csv", "bench", *ONCE, "--gemm", "1,2,3", "--csv", "nowhere/x.csv")
    must_fail(USAGE, "--json and --csv -", "bench", *ONCE, "--gemm", "1,2,3", "--json", "--csv", "-")
    test_cli.write("kept.csv", b"figures\n")
    must_fail(NOT_SUPPORTED, "nope", "bench", *ONCE, "--gemm", "1,2,3", "--gemm-kernel", "nope", "--csv", "kept.csv")
    must(open("kept.csv", encoding="utf-8").read() == "figures\n", "a call that timed nothing emptied a file")
    must_fail(NOT_SUPPORTED, "nope", "bench", *ONCE, "--gemm", "1,2,3", "--gemm-kernel", "nope")
    must_fail(NOT_SUPPORTED, "nope", "bench", *ONCE, "--attention", "1,2,2,16,16,8", "--kernel", "nope")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="clattn-bench-") as folder:
        os.chdir(folder)
        # the start-up alone is a test of its own: a first run compiles, which takes a minute under sanitizers
        tests = {"test_startup": startup} if "startup" in sys.argv[3:] else dict(globals())
        if os.environ.get("CLATTN_TEST_EVERY", "1") != "1" and not os.environ.get("CLATTN_TEST_FULL"):
            print("without", ", ".join(FIGURES), "(CLATTN_TEST_EVERY)")
            tests = {name: test for name, test in tests.items() if name[5:] not in FIGURES}
        code = test_cli.main(tests)
        os.chdir(test_cli.ROOT)
    sys.exit(code)
