"""Drives the subcommands about devices as a user does: what there is, tuning, CLBlast's parameters.

    test_cli_device.py BINARY SOURCE_ROOT [PART_OF_A_NAME]

Needs nothing but Python. The last line is "clattn-tests: P passed, F failed, S skipped".
"""
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree stays as it is
import test_cli
from cli_files import write
from test_cli import BINARY, NOT_SUPPORTED, ROOT, USAGE, must, must_fail, must_run


def test_devices():
    """The picked device is listed as the options make it; the others stay what they are."""
    def listed(*args):
        r = json.loads(must_run("devices", "--json", *args).out)
        return r["devices"][r["picked"]], [d for d in r["devices"] if d["index"] != r["picked"]]
    real, others = listed()
    seen, same_others = listed("--pretend", "type=gpu,name=Arc Test,local_memory=16384,work_group=64")
    must((seen["type"], seen["name"], seen["local_memory"], seen["max_work_group"]) == ("gpu", "Arc Test", 16384, 64),
         seen)
    must(seen["index"] == real["index"] and seen["driver"] == real["driver"] and others == same_others, seen, real)
    must("Arc Test" in must_run("devices", "--pretend", "name=Arc Test").out, "not in the table")
    for engine, brand in (("nv:80", "tensor cores"), ("mfma32", "MFMA"), ("dpas16", "XMX")):
        must(listed("--pretend", "type=gpu,matrix=" + engine)[0]["matrix_engine"] == brand, engine)
    must_fail(USAGE, "there is no key \"nmae\"", "devices", "--pretend", "nmae=x")
    out = must_run("devices", "--kernel-dir", "/no/such/folder").out
    must('unusable: options.kernel_dir is "/no/such/folder"' in out, "no reason in", out)
    must_fail(USAGE, "--clblast none.txt: cannot be opened", "devices", "--clblast", "none.txt")
    if real["compute_units"] > 1 and real["type"] == "cpu":
        must(listed("--compute-units", 1)[0]["compute_units"] == 1, "not a part of it")


def test_tune():
    """Killed while it measures, it goes on from there; bad options and a folder that keeps nothing are told."""
    child = subprocess.Popen([BINARY, "tune", "--cache", "tuned", "--seconds", "60", "-v"], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    for line in child.stderr:
        if line.endswith(b" ms\n"):
            break
    child.kill()
    child.stderr.close()
    child.wait()
    r = json.loads(must_run("tune", "--cache", "tuned", "--seconds", "0.0001", "--json").out)
    must(r["known"] >= 1 and r["remaining"] == r["candidates"] - r["known"] and r["choices"], r)
    must(all(c["seconds"] > 0 for c in r["choices"]), r)
    for value in ("0", "-1", "nan", "x", "1e9"):
        must_fail(USAGE, "--seconds", "tune", "--seconds", value)
    must_fail(USAGE, "no cache folder", "tune", "--no-cache")
    must_fail(USAGE, "ignores tuning", "tune", "--no-tuning")
    must_fail(USAGE, "unexpected argument", "tune", "gpu")
    # kernels that cannot be read say nothing about what candidates are worth
    os.makedirs("no-kernels", exist_ok=True)
    must_fail(USAGE, "cannot be read", "tune", "--cache", "untuned", "--kernel-dir", "no-kernels")
    must_fail(USAGE, 'options.kernel_dir is "nowhere"', "tune", "--cache", "untuned", "--kernel-dir", "nowhere")
    r = json.loads(must_run("tune", "--cache", "untuned", "--seconds", "0.0001", "--json").out)
    must(r["known"] == 0 and r["remaining"] == r["candidates"], r)


def test_verify_refused():
    """A kernel that was asked for by its name, and that the device cannot run at all, is no success."""
    for more in ((), ("--all",)):
        r = must_fail(NOT_SUPPORTED, "nothing of attn_matrix can run there: ", "verify", "--brief", "--kernel",
                      "attn_matrix", "--matrix-engine", "none", *more)
        must(" 0 agree, 0 wrong" in r.out and "engine" in r.err, r.out, r.err)


def test_compilers_are_silent():
    """Drivers tell of warnings on standard error, as pocl does; kernels give them none."""
    r = must_run("explain", "--attention", "1,1,1,64,64,64,float16", "--trust", "never", "--no-cache",
                 env={"POCL_CACHE_DIR": os.path.abspath("cold")})
    must(r.err == "", "on standard error:", r.err)


def test_clblast():
    """A file of parameters for CLBlast: what is wrong with it is told, with its name."""
    explain = ("explain", "--attention", "1,1,1,4,4,8", "--clblast")
    must_fail(USAGE, "--clblast none.txt: cannot be opened", *explain, "none.txt")
    must_run(*explain, write("tuned.txt", b"# nothing\n"))
    write("tuned.txt", b"GemmRoutine XGEMM_MIN_INDIRECT_SIZE=x\n")
    must_fail(USAGE, "XGEMM_MIN_INDIRECT_SIZE of GemmRoutine is \"x\"; it must be", *explain, "tuned.txt")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="clattn-cli-device-") as folder:
        os.chdir(folder)
        code = test_cli.main(globals())
        os.chdir(ROOT)
    sys.exit(code)
