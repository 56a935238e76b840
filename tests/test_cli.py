"""Drives the built tool as a user does: bad input, golden behaviour, file formats.

    test_cli.py BINARY SOURCE_ROOT [PART_OF_A_NAME]

Needs nothing but Python. The last line is "clattn-tests: P passed, F failed, S skipped".
"""
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the source tree stays as it is
from cli_files import (B, BIAS, E, H, L, S, basics, bert, npy, npy_bytes, numbers, packed, q_proj, read_npy,
                       safetensors, separate, write, W)

BINARY, ROOT = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
ONLY = sys.argv[3] if len(sys.argv) > 3 else ""
DATA = os.path.join(ROOT, "examples", "data")
GOLDEN = os.path.join(ROOT, "tests", "golden")
GOOD, WRONG, USAGE, NOT_SUPPORTED, NO_DEVICE = 0, 1, 2, 3, 4


class Skip(Exception):
    pass


def lost_leak_checker(text):
    """The leak checker's own death while the driver's threads end, and nothing that a sanitizer found before it."""
    return (b"LeakSanitizer has encountered a fatal error" in text and b"Tracer caught signal" in text and
            b"ERROR: AddressSanitizer" not in text and b"runtime error:" not in text)


def run(*args, env=None, out=subprocess.PIPE):
    # twice more with the leak checker, and only then without it; each death leaves its line in the log
    env = {**os.environ, **(env or {})}
    for attempt in range(4):
        if attempt == 3:
            env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        r = subprocess.run([BINARY, *map(str, args)], stdout=out, stderr=subprocess.PIPE, timeout=300, env=env)
        if not lost_leak_checker(r.stderr):
            break
        died = [line for line in r.stderr.decode("utf-8", "replace").splitlines() if "Tracer caught" in line]
        print("the leak checker died:", *died, *args, flush=True)
    r.out = (r.stdout or b"").decode("utf-8", "replace")
    r.err = r.stderr.decode("utf-8", "replace")
    return r


def must(ok, *what):
    if not ok:
        raise AssertionError(" ".join(str(w) for w in what))


def must_fail(code, message, *args, env=None):
    r = run(*args, env=env)
    must(r.returncode == code, "exit code", r.returncode, "instead of", code, args, r.err)
    must(message in r.err, "no", repr(message), "in", repr(r.err), args)
    return r


def must_run(*args, env=None):
    r = run(*args, env=env)
    must(r.returncode == GOOD, "exit code", r.returncode, args, r.out[-2000:], r.err)
    return r


DEMO = ("run", "--weights", DATA + "/minilm-layer0.safetensors", "--heads", 12)
LAYER = ("run", "--weights", "w.safetensors", "--heads", H)
SELF = LAYER + ("--query", "q.npy")
CROSS = SELF + ("--key", "k.npy", "--value", "v.npy")


def same(a, b, tolerance=0.0):
    must(a[0] == b[0], "shapes differ:", a[0], b[0])
    worst = max((abs(x - y) for x, y in zip(a[1], b[1])), default=0)
    must(worst <= tolerance, "values differ by", worst)


def output(*args):
    must_run(*args, "--out", "o.npy")
    return read_npy("o.npy")


# ---- the tool itself -------------------------------------------------------------------------------------------------

COMMANDS = ("devices", "run", "embed", "check", "verify", "explain", "kernels", "bench", "tune")


def test_help():
    r = must_run("--help")
    for c in COMMANDS:
        must(c in r.out, c, "is not listed")
        h = must_run(c, "--help")
        must("usage: clattn " + c in h.out and "example" in h.out, c, "--help:", h.out)
    must(must_run("--version").out.startswith("clattn "), "--version")


def test_no_command():
    must_fail(USAGE, "usage: clattn COMMAND")


def test_unknown_command():
    r = must_fail(USAGE, "unknown command 'walk'", "walk")
    must(all(c in r.err for c in COMMANDS), "commands are not listed")
    must_fail(USAGE, "unknown option '--walk'", "--walk")


def test_unknown_option():
    for c in COMMANDS:
        must_fail(USAGE, "clattn %s: unrecognized option '--walk'" % c, c, "--walk")


def test_full_disk():
    if not os.path.exists("/dev/full"):
        raise Skip("no /dev/full")
    with open("/dev/full", "w") as full:
        r = run("--help", out=full)
    must(r.returncode == USAGE and "cannot be written" in r.err, r.returncode, r.err)


def test_no_platform():
    none = {"OCL_ICD_VENDORS": os.path.abspath("no-icds"), "OCL_ICD_FILENAMES": ""}
    for args in (SELF, ("devices",), ("check", os.path.join(GOLDEN, "onnx", "attention_3d"))):
        r = run(*args, env=none)
        must(r.returncode == NO_DEVICE and r.err, "exit code", r.returncode, r.err, args)


def test_no_such_device():
    must_fail(NO_DEVICE, "no-such-vendor", *SELF, "--device", "vendor=no-such-vendor")
    must_fail(USAGE, "--trust is 'blindly'", *SELF, "--trust", "blindly")


# ---- bad input -------------------------------------------------------------------------------------------------------

F4 = struct.pack("<24f", *numbers(24, 1))


def bad_inputs():
    """name, what the message holds, arguments"""
    npy("rank1.npy", (8,), numbers(8, 1))
    npy("rank4.npy", (1, 1, 2, 8), numbers(16, 1))
    npy("ints.npy", (B, L, E), list(range(B * L * E)), "i")
    npy("narrow.npy", (B, L, 6), numbers(B * L * 6, 1))
    npy("other-batch.npy", (B + 1, S, E), numbers((B + 1) * S * E, 1))
    npy("k6.npy", (B, S, 6), numbers(B * S * 6, 1))
    npy("pad.npy", (B, L + 1), [1] * (B * (L + 1)), "?")
    npy("pad3.npy", (B, L, 1), [1] * (B * L), "?")
    npy("mask.npy", (L, L + 1), [1] * (L * (L + 1)), "?")
    npy("mask5.npy", (1, 1, 1, L, L), [1] * (L * L), "?")
    npy("nan-mask.npy", (L,), [float("nan")] * L)
    npy("zero-features.npy", (B, L, 0), [])
    write("trunc.npy", npy_bytes("<f4", (1, 3, 8), F4)[:-1])
    write("header.npy", npy_bytes("<f4", (1, 3, 8), F4)[:30])
    write("more.npy", npy_bytes("<f4", (1, 3, 8), F4 + b"x"))
    write("fortran.npy", npy_bytes("<f4", (1, 3, 8), F4, "True"))
    write("big.npy", npy_bytes(">f4", (1, 3, 8), F4))
    write("huge.npy", npy_bytes("<f4", (1 << 40, 1 << 40), F4))
    write("negative.npy", npy_bytes("<f4", (-1, 3, 8), F4))
    write("garbage.npy", b"\x93NUMPY\1\0\x10\0" + b"?" * 16)
    write("text.npy", b"this is no array")
    write("x.txt", b"")
    write("lying.safetensors", struct.pack("<Q", 1 << 62) + b"{}")
    write("json.safetensors", struct.pack("<Q", 4) + b"{\"a\"")
    whole = open(safetensors("whole.safetensors", packed()), "rb").read()
    write("cut.safetensors", whole[:-4])
    write("span.safetensors", whole.replace(b"[24, 8]", b"[24, 9]"))
    safetensors("none.safetensors", {"embedding.weight": ((2, 2), [1, 2, 3, 4])})
    safetensors("two.safetensors", {**packed("encoder.0.attn."), **packed("encoder.1.attn.")})
    lacks = packed("a.")
    del lacks["a.out_proj.weight"]
    safetensors("lacks.safetensors", lacks)
    bad_shape = packed()
    bad_shape["in_proj_weight"] = ((2 * E, E), W[0] + W[1])
    safetensors("shape.safetensors", bad_shape)
    one_bias = {**packed(), "bias_k": ((1, 1, E), BIAS[0])}
    safetensors("one-bias.safetensors", one_bias)
    q = LAYER + ("--query",)

    def w(name):
        return ("run", "--weights", name, "--heads", H, "--query", "q.npy")

    yield "missing weights", "--weights FILE is missing", ("run", "--heads", 2, "--query", "q.npy")
    yield "missing heads", "--heads N is missing", ("run", "--weights", "w.safetensors", "--query", "q.npy")
    yield "missing query", "--query FILE is missing", LAYER
    yield "no argument", "requires an argument", ("run", "--weights")
    yield "stray argument", "unexpected argument 'q.npy'", SELF + ("q.npy",)
    yield "heads 0", "--heads is '0'", ("run", "--weights", "w.safetensors", "--heads", 0, "--query", "q.npy")
    yield "heads -2", "--heads is '-2'", ("run", "--weights", "w.safetensors", "--heads=-2", "--query", "q.npy")
    yield "heads text", "--heads is '2x'", ("run", "--weights", "w.safetensors", "--heads", "2x", "--query", "q.npy")
    yield ("heads overflow", "--heads is '99999999999999999999'",
           ("run", "--weights", "w.safetensors", "--heads", "99999999999999999999", "--query", "q.npy"))
    yield ("heads do not divide", "multiple of heads",
           ("run", "--weights", "w.safetensors", "--heads", 3, "--query", "q.npy"))
    yield "dtype", "--dtype is 'half'; it must be float32, float16 or bfloat16", SELF + ("--dtype", "half")
    yield "missing file", "absent.npy: cannot be opened: No such file", q + ("absent.npy",)
    yield "missing weights file", "absent.safetensors: cannot be opened", w("absent.safetensors")
    yield "folder", "is not a regular file", q + ("folder.npy",)
    yield "pipe", "pipe.npy: is not a regular file", q + ("pipe.npy",)  # nobody writes to it
    yield "extension", "must end in .npy or .safetensors", q + ("x.txt",)
    yield "rank 1", "rank1.npy: has rank 1", q + ("rank1.npy",)
    yield "rank 4", "rank4.npy: has rank 4", q + ("rank4.npy",)
    yield "dtype", "ints.npy: has element type int32", q + ("ints.npy",)
    yield "features", "in_proj_weight has shape (24, 8)", q + ("narrow.npy",)
    yield "no features", "embed_dim is 0", q + ("zero-features.npy",)
    yield "other batch", "key has shape (3, 5, 8)", SELF + ("--key", "other-batch.npy")
    yield "key features", "key_dim (6)", SELF + ("--key", "k6.npy")
    yield "padding shape", "padding_mask has shape (2, 4)", SELF + ("--padding-mask", "pad.npy")
    yield "padding rank", "pad3.npy: has rank 3", SELF + ("--padding-mask", "pad3.npy")
    yield "mask shape", "mask_shape[3] (kv_len) is 4", SELF + ("--mask", "mask.npy")
    yield "mask rank", "mask5.npy: has rank 5", SELF + ("--mask", "mask5.npy")
    yield "padding NaN", "element 0 is nan", SELF + ("--padding-mask", "nan-mask.npy")
    yield "truncated .npy", "trunc.npy: is truncated: shape and descr need 96 bytes of data", q + ("trunc.npy",)
    yield "truncated header", "header.npy: is truncated: the header length", q + ("header.npy",)
    yield "trailing bytes", "more.npy: has 1 bytes behind the data", q + ("more.npy",)
    yield "Fortran order", "fortran.npy: fortran_order is True", q + ("fortran.npy",)
    yield "big-endian", "big.npy: descr is '>f4', big-endian", q + ("big.npy",)
    yield "overflow", "huge.npy: shape is too large", q + ("huge.npy",)
    yield "negative size", "negative.npy: shape[0]", q + ("negative.npy",)
    yield "garbage header", "garbage.npy: header is not a dictionary", q + ("garbage.npy",)
    yield "no .npy", "text.npy: is not a .npy file", q + ("text.npy",)
    yield "lying length", "lying.safetensors: header length is 4611686018427387904", w("lying.safetensors")
    yield "no JSON", "json.safetensors: header is not a JSON object", w("json.safetensors")
    yield "cut data", "reach beyond the file's", w("cut.safetensors")
    yield "span", "tensor 'in_proj_weight': data_offsets span 768 bytes", w("span.safetensors")
    yield "no layer", "the file holds embedding.weight", w("none.safetensors")
    yield ("ambiguous", "2 layers match, choose one with --prefix: 'encoder.0.attn.', 'encoder.1.attn.'",
           w("two.safetensors"))
    yield ("wrong prefix", "under the prefix 'decoder' found by name; there are layers under 'encoder.0.attn.'",
           w("two.safetensors") + ("--prefix", "decoder"))
    yield ("missing tensor",
           "lacks 'a.out_proj.weight' or out_proj_weight; the file holds a.in_proj_weight, a.in_proj_bias",
           w("lacks.safetensors"))
    yield "weight shape", "in_proj_weight has shape (16, 8)", w("shape.safetensors")
    yield "one bias", "bias_k and bias_v", w("one-bias.safetensors")
    yield ("expected shape", "--expect k.npy: has shape (2, 5, 8); the output has (2, 3, 8)",
           SELF + ("--expect", "k.npy"))
    yield "tolerance", "--tolerance is 'nan'", SELF + ("--tolerance", "nan")
    yield "negative tolerance", "--tolerance is '-1'", SELF + ("--tolerance=-1",)
    yield "memory limit", "--memory-limit is '12Q'", SELF + ("--memory-limit", "12Q")
    yield "memory limit 0", "--memory-limit is '0'", SELF + ("--memory-limit", "0")
    yield ("memory limit overflow", "--memory-limit is '9223372036854775807G'",
           SELF + ("--memory-limit", "9223372036854775807G"))
    yield "memory limit too small", "the least that works is", SELF + ("--memory-limit", "16")
    yield "causal offset", "--causal-offset is 'right'", SELF + ("--causal-offset", "right")
    yield "repeat", "--repeat is '0'", SELF + ("--repeat", "0")
    yield "reference", "--reference is 'some'", SELF + ("--reference", "some")
    yield ("batch index", "--batch-index is 2; the batch has 2 entries",
           SELF + ("--heatmap", "h.png", "--batch-index", "2"))
    yield "labels alone", "--labels is given without --heatmap", SELF + ("--labels", "x.txt")
    yield "batch index alone", "--batch-index is given without --heatmap", SELF + ("--batch-index", "1")
    yield "no labels", "x.txt: has 0 lines", SELF + ("--heatmap", "h.png", "--labels", "x.txt")
    yield "unwritable output", "cannot be written", SELF + ("--out", "absent/o.npy")
    yield "output is a folder", "cannot be written", SELF + ("--out", "folder.npy")
    yield "output extension", "must end in", SELF + ("--out", "o.txt")


def test_bad_inputs():
    os.makedirs("folder.npy", exist_ok=True)
    os.mkfifo("pipe.npy")
    seen = {}
    for name, message, args in bad_inputs():
        try:
            r = must_fail(USAGE, message, *args)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (name, e)) from None
        must(r.err.startswith("clattn run: "), name, "message does not start with the command:", r.err)
        seen.setdefault(r.err, name)
    must(len(seen) >= 50, "messages repeat: only", len(seen))


def test_unknown_kernel():
    must_fail(NOT_SUPPORTED, "nope", *SELF, "--kernel", "nope")
    must_fail(NOT_SUPPORTED, "nope", *SELF, "--gemm-kernel", "nope")
    # what was said of attention before is no reason here
    layer = ("explain", "--layer", "1,64,64,4", "--gemm-kernel")
    must_fail(NOT_SUPPORTED, "cannot serve this:\n  no kernel has this name", *layer, "nope")
    must_fail(NOT_SUPPORTED, "cannot serve this:\n  gemm_matrix", *layer, "gemm_matrix", "--matrix-engine", "none")


# ---- running a layer -------------------------------------------------------------------------------------------------

def test_demo():
    demo = DEMO + ("--query", DATA + "/hidden.npy", "--padding-mask", DATA + "/padding.npy",
                   "--expect", DATA + "/attention-out.npy")
    r = must_run(*demo, "--out", "demo.npy")
    for word in ("device ", "why ", "kernels ", "tiles ", "memory ", "time ", "speed ", "reference  agrees",
                 "expected   agrees", "demo.npy"):
        must(word in r.out, "no", repr(word), "in", r.out)
    same(read_npy("demo.npy"), read_npy(DATA + "/attention-out.npy"), 2e-5)
    d = json.loads(must_run(*demo, "--json").out)
    must(d["reference"]["agrees"] and d["expected"]["agrees"] and d["reference"]["batch_entries"] == 3, d)
    must(d["gflops"] > 0 and d["arena_bytes"] > 0 and d["kernels"], d)
    r = run(*demo, "--causal")
    must(r.returncode == WRONG and "expected   DIFFERS" in r.out and "reference  agrees" in r.out, r.returncode, r.out)
    r = run(*demo, "--tolerance", "0")
    must(r.returncode == WRONG, "tolerance 0 passed")


def test_weight_schemes():
    want = output(*SELF)
    for name, tensors in (("packed", packed("a.b.")), ("separate", separate()), ("BERT", bert("encoder.layer.0.")),
                          ("q_proj", q_proj("x.")),
                          ("o_proj", q_proj(out="o_proj"))):
        safetensors("s.safetensors", {"other.weight": ((1,), [0.5]), **tensors})
        try:
            same(output("run", "--weights", "s.safetensors", "--heads", H, "--query", "q.npy"), want)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (name, e)) from None


def test_storage():
    """Files and tensors of 16 bits: near the float32 result, and within the tolerance of the reference."""
    must_run(*SELF, "--out", "wide.npy")
    for weights, dtype, tolerance in (("F16", "float32", 1e-3), ("BF16", "bfloat16", 0.05), ("F32", "float16", 5e-3)):
        safetensors("n.safetensors", packed(), weights)
        layer = ("run", "--weights", "n.safetensors", "--heads", H, "--query", "q.npy", "--dtype", dtype)
        d = json.loads(must_run(*layer, "--expect", "wide.npy", "--tolerance", tolerance, "--weights-out", "p.npy",
                                "--out", "n-out.safetensors", "--json").out)
        must(d["dtype"] == dtype and d["reference"]["agrees"] and d["attention_weights"]["agrees"], d)
        must(0 < d["expected"]["greatest_error"], "nothing was rounded", weights, dtype)
    r = must_run("bench", "--layer", "1,16,16,2,float16", "--gemm", "16,24,32,bfloat16", "--seconds", "0.01")
    must("1x16x16x2+float16" in r.out and "16x24x32+bfloat16" in r.out, r.out)
    must_fail(USAGE, "1,16,16,2,int8", "bench", "--layer", "1,16,16,2,int8")


def test_prefix():
    want = output(*SELF)
    zeros = {k: (s, [0.0] * len(v)) for k, (s, v) in bert("encoder.layer.1.").items()}
    safetensors("p.safetensors", {**zeros, **bert("encoder.layer.11.")})
    for prefix in ("encoder.layer.11", "encoder.layer.11."):
        same(output("run", "--weights", "p.safetensors", "--heads", H, "--query", "q.npy", "--prefix", prefix), want)
    got = output("run", "--weights", "p.safetensors", "--heads", H, "--query", "q.npy", "--prefix", "encoder.layer.1")
    must(max(map(abs, got[1])) == 0, "the other layer was taken")
    safetensors("root.safetensors", {**packed(), **packed("nested.")})
    same(output("run", "--weights", "root.safetensors", "--heads", H, "--query", "q.npy", "--prefix", ""), want)


def test_input_forms():
    npy("q0.npy", (L, E), numbers(L * E, 20))
    want = output(*SELF)
    shape, values = output(*LAYER, "--query", "q0.npy")
    must(shape == (L, E), shape)
    same((shape, values), ((L, E), want[1][:L * E]))
    same(output(*SELF, "--key", "q.npy"), want)
    same(output(*SELF, "--key", "q.npy", "--value", "q.npy"), want)
    must(output(*CROSS)[0] == (B, L, E), "cross-attention")
    must_run(*SELF, "--out", "o.safetensors")
    must_run(*SELF, "--expect", "o.safetensors", "--tolerance", "0")
    must_run(*SELF, "--expect", "o.safetensors:output", "--tolerance", "0")


def test_masks():
    npy("tri.npy", (L, L), [int(j <= i) for i in range(L) for j in range(L)], "?")
    npy("tri-int.npy", (L, L), [7 * int(j <= i) for i in range(L) for j in range(L)], "q")
    npy("tri-inf.npy", (L, L), [0.0 if j <= i else -math.inf for i in range(L) for j in range(L)])
    want = output(*SELF, "--causal")
    for other in (("--mask", "tri.npy"), ("--mask", "tri-int.npy"), ("--mask", "tri-inf.npy"), ("--causal-offset", "0"),
                  ("--causal", "--causal-offset", "bottom-right")):
        same(output(*SELF, *other), want, 1e-6)
    same(output(*CROSS, "--causal-offset", "bottom-right"), output(*CROSS, "--causal-offset", S - L))
    same(output(*CROSS, "--causal-offset", S), output(*CROSS), 1e-6)
    npy("ends.npy", (B, S), [1, 1, 1, 0, 0] * B, "?")
    npy("ends-float.npy", (B, S), [1.0, 2.0, 0.5, 0, 0] * B)
    npy("ends4.npy", (1, 1, 1, S), [1, 1, 1, 0, 0], "?")
    want = output(*CROSS, "--padding-mask", "ends.npy")
    same(output(*CROSS, "--padding-mask", "ends-float.npy"), want)
    same(output(*CROSS, "--mask", "ends4.npy"), want, 1e-6)


def test_empty_rows():
    npy("none.npy", (B, S), [0] * (B * S), "?")
    _, values = output(*CROSS, "--padding-mask", "none.npy")
    f = struct.Struct("<f")
    for i, v in enumerate(values):
        must(v == f.unpack(f.pack(BIAS[3][i % E]))[0], "a row without keys is not the output bias:", v)


def test_weights_out():
    must_run(*CROSS, "--add-zero-attn", "--weights-out", "p.npy")
    shape, p = read_npy("p.npy")
    must(shape == (B, H, L, S + 1), shape)
    for i in range(0, len(p), S + 1):
        must(abs(sum(p[i:i + S + 1]) - 1) < 1e-5, "a row sums to", sum(p[i:i + S + 1]))


def test_memory_limit():
    want = output(*CROSS)
    r = must_fail(USAGE, "the least that works is", *CROSS, "--memory-limit", 1)
    least = int(r.err.split("the least that works is ")[1].split()[0])
    same(output(*CROSS, "--memory-limit", least), want, 1e-6)
    must_fail(USAGE, "the least that works is", *CROSS, "--memory-limit", least - 1)


def test_reference_sample():
    r = json.loads(must_run(*SELF, "--json").out)
    must(r["reference"]["batch_entries"] == B and r["reference"]["query_rows"] == L, r["reference"])
    must("reference" not in json.loads(must_run(*SELF, "--json", "--reference", "none").out),
         "compared although told not to")
    big = DEMO + ("--query", DATA + "/hidden-8x128.npy", "--padding-mask", DATA + "/padding-8x128.npy",
                  "--expect", DATA + "/attention-out-8x128.npy", "--json")
    for more in ((), ("--causal-offset", 70)):
        r = run(*big, *more)
        d = json.loads(r.out)
        must(d["reference"]["agrees"] and d["reference"]["query_rows"] > 0, d["reference"])
        must(d["expected"]["agrees"] == (not more), d["expected"])


def test_heatmap():
    if not shutil.which("gnuplot"):
        raise Skip("gnuplot is not installed")
    write("labels.txt", "one 'two' `three`\nx y z\n".encode())
    for more in ((), ("--labels", "labels.txt", "--batch-index", "1", "--causal")):
        must_run(*SELF, "--heatmap", "h.png", *more)
        with open("h.png", "rb") as f:
            data = f.read()
        must(data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 2000, "no picture")
    must_fail(USAGE, "line 1 has 4 tokens; the keys are 3", *SELF, "--heatmap", "h.png", "--labels",
              write("long.txt", b"a b c d\n"))
    must_fail(USAGE, "cannot be written", *SELF, "--heatmap", "absent/h.png")


def test_outputs_are_tried_first():
    """An output that cannot be written is told before a device is opened; trying it changes nothing."""
    nowhere = SELF + ("--device", "vendor=no-such-vendor")
    for option, name in (("--out", "absent/o.npy"), ("--weights-out", "absent/w.npy"), ("--heatmap", "absent/h.png")):
        must_fail(USAGE, f"{option} {name}: cannot be written", *nowhere, option, name)
    write("kept.npy", b"kept")
    for name in ("kept.npy", "not-made.npy"):
        must_fail(NO_DEVICE, "no-such-vendor", *nowhere, "--out", name)
    with open("kept.npy", "rb") as f:
        must(f.read() == b"kept" and not os.path.exists("not-made.npy"), "a file was made or destroyed")


def test_no_gnuplot():
    must_fail(USAGE, "gnuplot is not installed", *SELF, "--heatmap", "n.png", "--out", "n.npy",
              env={"PATH": "nowhere"})
    must(read_npy("n.npy")[0] == (B, L, E) and not os.path.exists("n.png"), "the output was not written")


def test_nothing_left_behind():
    left = [f for f in os.listdir(".") if ".npy." in f or ".safetensors." in f or ".png." in f]
    must(not left, "temporary files:", left)


# ---- golden cases ----------------------------------------------------------------------------------------------------

def copy_case(group, name, to):
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(os.path.join(GOLDEN, group, name), to)
    return to


def edit_json(folder, change):
    with open(os.path.join(folder, "case.json")) as f:
        d = json.load(f)
    change(d)
    with open(os.path.join(folder, "case.json"), "w") as f:
        json.dump(d, f)


def last(r):
    return r.out.rstrip("\n").split("\n")[-1]


def test_check_pass():
    r = must_run("check", GOLDEN + "/onnx/attention_3d", GOLDEN + "/torch_mha/causal/", GOLDEN + "/onnx/attention_3d")
    must(last(r) == "2 cases: 2 passed, 0 failed, 0 unsupported (0 gradient outputs not checked)", r.out)
    must("pass        onnx/attention_3d error " in r.out and " tolerance " in r.out, r.out)
    d = json.loads(must_run("check", "--json", GOLDEN + "/onnx/attention_3d").out)
    must(d["passed"] == 1 and d["cases"][0]["result"] == "pass", d)
    must(len(must_run("check", "--quiet", GOLDEN + "/onnx/attention_3d").out.splitlines()) == 1, "--quiet talks")


def test_check_tells_at_once():
    """What is known is written, also to a file or a pipe, while the next case runs."""
    words = [BINARY, "check", GOLDEN + "/torch_flex"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first = child.stdout.readline()
    child.kill()
    must(first.startswith(b"pass ") and b" cases: " not in child.communicate()[0], first, "came with all others")


def test_check_gradients():
    r = must_run("check", GOLDEN + "/torch_mha/self_attention_grad")
    must("1 passed" in last(r) and "(0 gradient" not in last(r), r.out)


def test_check_fails():
    folder = copy_case("torch_sdpa", os.listdir(GOLDEN + "/torch_sdpa")[0], "golden-wrong")
    with open(folder + "/output.npy", "r+b") as f:
        f.seek(-4, 2)
        f.write(struct.pack("<f", 1e4))
    r = run("check", folder)
    must(r.returncode == WRONG and r.out.startswith("FAIL ") and "1 failed" in last(r) and "instead of 10000" in r.out,
         r.returncode, r.out)
    with open(folder + "/output.npy", "r+b") as f:
        f.seek(-4, 2)
        f.write(struct.pack("<f", math.inf))
    r = run("check", folder)
    must(r.returncode == WRONG, "infinity passed")


def test_check_unsupported():
    folder = copy_case("onnx", "attention_3d", "golden-op")
    edit_json(folder, lambda d: d.update(op="levitation"))
    r = run("check", folder)
    must(r.returncode == NOT_SUPPORTED and "operation 'levitation' is not supported" in r.out, r.out)
    must("1 unsupported" in last(r), r.out)
    must_run("check", "--allow-unsupported", folder)
    folder = copy_case("onnx", "attention_3d", "golden-input")
    edit_json(folder, lambda d: d["inputs"].update(mystery="query.npy"))
    r = run("check", folder)
    must(r.returncode == NOT_SUPPORTED and "input 'mystery' is not supported" in r.out, r.out)
    folder = copy_case("onnx", "attention_3d", "golden-output")
    edit_json(folder, lambda d: d["outputs"].update(mystery="output.npy"))
    r = run("check", folder)
    must(r.returncode == NOT_SUPPORTED and "output 'mystery' is not supported" in r.out, r.out)


def test_check_hostile():
    """A terminal does not obey what stands in a case; numbers that nothing holds are refused like other bad ones."""
    for op in ("attention", "\x1b[2Jlevitation"):
        folder = copy_case("onnx", "attention_3d", "golden-hostile")
        edit_json(folder, lambda d: d.update(name="\x1b]0;x\x07\nname", op=op))
        edit_json(folder, lambda d: d["attributes"].update(q_num_heads=-1e300))
        r = run("check", folder)
        must(r.returncode != GOOD and "?]0;x??name" in r.out and "\x1b" not in r.out + r.err, r.returncode, r.out)


def test_check_broken():
    def absent(d):
        d["inputs"]["query"] = "absent.npy"

    def outside(d):
        d["inputs"]["query"] = "../q.npy"

    def swapped(d):
        d["inputs"]["query"], d["outputs"]["output"] = "value.npy", "key.npy"

    def no_tolerance(d):
        del d["atol"]

    def lists(d):
        d["inputs"] = ["query.npy"]

    for name, change in (("absent", absent), ("outside", outside), ("no tolerance", no_tolerance), ("lists", lists),
                         ("layout", lambda d: d["attributes"].update(layout="upside down")),
                         ("heads", lambda d: d["attributes"].update(q_num_heads=5)), ("swapped", swapped)):
        folder = copy_case("torch_mha" if name == "swapped" else "onnx",
                           "kdim_vdim_grad" if name == "swapped" else "attention_3d", "golden-broken")
        edit_json(folder, change)
        r = run("check", folder)
        must(r.returncode == WRONG and "1 failed" in last(r), name, r.returncode, r.out, r.err)
    write("golden-broken/case.json", b"{")
    r = run("check", "golden-broken")
    must(r.returncode == WRONG and "is not a JSON object" in r.out, r.out)


def test_check_nothing():
    os.makedirs("empty", exist_ok=True)
    must_fail(USAGE, "there is no case.json", "check", "empty")
    must_fail(USAGE, "cannot be opened", "check", "nowhere")
    must_fail(USAGE, "DIR is missing", "check")


# ---- main ------------------------------------------------------------------------------------------------------------

def main(names):
    """Runs the functions test_* among the names of a module."""
    passed = failed = skipped = 0
    for name, test in list(names.items()):
        if not name.startswith("test_") or not callable(test) or ONLY not in name:
            continue
        began = time.monotonic()
        try:
            test()
            passed += 1
            print("ok   %s (%.2f s)" % (name, time.monotonic() - began), flush=True)
        except Skip as e:
            skipped += 1
            print("skip", name + ":", e, flush=True)
        except (AssertionError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as e:
            failed += 1
            print("FAIL", name + ":", e, flush=True)
    print("clattn-tests: %d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="clattn-cli-") as folder:
        os.chdir(folder)
        basics()
        code = main(globals())
        os.chdir(ROOT)
    sys.exit(code)
