"""Packs clattn for another machine, as tools/field_pack.sh does, and runs the pack as tools/field_run.sh does there.

    test_field.py SOURCE_ROOT BUILD_ROOT

On the device that $CLATTN_DEVICE selects, else on a CPU. The last line: "clattn-tests: P passed, F failed, S skipped".
"""
import csv
import os
import shutil
import subprocess
import sys
import tempfile

ROOT, BUILD = sys.argv[1:3]
DEVICE = os.environ.get("CLATTN_DEVICE", "cpu")
checks = {True: 0, False: 0}


def check(good, *what):
    checks[bool(good)] += 1
    if not good:
        print("FAIL", *what)


def run_pack(pack, *options, **environment):
    done = subprocess.run(["sh", pack + "/run.sh", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stdout.rstrip().split("\n")[-1]


def write_rows(pack, *rows):
    with open(pack + "/field_rows.txt", "w", encoding="utf-8") as file:
        file.write("# a comment\n" + "\n".join(rows) + "\n")


with tempfile.TemporaryDirectory(prefix="clattn-field-") as folder:
    pack = folder + "/pack"
    done = subprocess.run(["sh", ROOT + "/tools/field_pack.sh", pack],
                          env={**os.environ, "CLATTN_BUILD": BUILD, "CLATTN_CARD_ONLY": "^rope"},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, "field_pack.sh:", done.stdout)
    shutil.rmtree(pack + "/golden")  # one case is enough here: all have tests of their own
    case = sorted(os.listdir(ROOT + "/tests/golden/seeds"))[0]
    shutil.copytree(ROOT + "/tests/golden/seeds/" + case, pack + "/golden/" + case)
    for name in os.listdir(pack + "/bin"):
        if name.startswith("test_"):
            os.remove(pack + "/bin/" + name)
    write_rows(pack, "attention 1,2,2,64,64,16,float16", "gemm 16,16,16")

    code, text, last = run_pack(pack, "--quick", "--device", DEVICE, "--out", folder + "/good")
    check(code == 0 and last.startswith("2 passed, 0 failed") or last.startswith("3 passed, 0 failed"), text)
    check("golden: passed" in text and "bench: passed" in text, text)
    with open(folder + "/good/golden.log", encoding="utf-8") as file:
        check(file.read().startswith("pass "), "golden.log does not tell of each case")
    with open(folder + "/good/bench.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    check([row["op"] for row in rows] == ["attention", "gemm"] and all(float(r["median_ms"]) > 0 for r in rows), rows)

    # A wrong row is named and costs only itself; a program that fails or hangs is named; the exit code says so. No
    # machine ends the long verification within the limit.
    write_rows(pack, "attention 1,2,2,64,64,16,gallop", "gemm 16,16,16")
    for name, script in (("test_bad", "echo FAIL here; exit 1"), ("test_hangs", "sleep 60"), ("test_skips", "exit 77")):
        with open(f"{pack}/bin/{name}", "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + script + "\n")
        os.chmod(f"{pack}/bin/{name}", 0o755)
    code, text, last = run_pack(pack, "--device", DEVICE, "--out", folder + "/bad", "--limit", "2")
    check(code == 1 and " failed" in last, text)
    for words in ("attention 1,2,2,64,64,16,gallop: exit code 2", "test_bad: FAILED with exit code 1", "    FAIL here",
                  "test_hangs: FAILED: not done within 2 s", "test_skips: skipped", "verify: ", "verify-long: "):
        check(words in text, words, "is missing in:", text)

    # A card whose pack lacks everything: kernels on the host serve, what was asked for is kept and counted.
    os.makedirs(folder + "/ptx")
    subprocess.run(["tar", "-C", folder, "-czf", pack + "/card/ptx.tar.gz", "ptx"], check=True)
    code, text, last = run_pack(pack, "--card", "--limit", "5", "--out", folder + "/card",
                                LD_LIBRARY_PATH=BUILD + "/tests/card")
    check(code == 1 and last.endswith(" skipped"), text)
    for words in ("a stand-in for a card", "test programs: skipped", "verify: ", "the pack lacks "):
        check(words in text, words, "is missing in:", text)

    # No device, although pocl for NVIDIA's cards was found; no option of that name, a folder that is not ours.
    os.makedirs(pack + "/pocl-cuda/lib")
    with open(pack + "/pocl-cuda/lib/libpocl.so.2", "w", encoding="utf-8") as file:
        file.write("no library\n")
    code, text, last = run_pack(pack, "--device", "platform=none", "--out", folder + "/none")
    check(code == 1 and last == "0 passed, 1 failed, 0 skipped" and "no device" in text, text)
    check(f"{pack}/pocl-cuda/lib/libpocl.so.2" in text, "the driver beside run.sh is not in:", text)
    code, text, _ = run_pack(pack, "--gallop")
    check(code == 2 and "--gallop" in text, text)
    done = subprocess.run(["sh", ROOT + "/tools/field_pack.sh", folder], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 2 and "is not empty" in done.stdout, done.stdout)

print(f"clattn-tests: {checks[True]} passed, {checks[False]} failed, 0 skipped")
sys.exit(1 if checks[False] else 0)
