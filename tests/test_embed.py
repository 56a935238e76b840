"""Drives `clattn embed` as a user does: a small model with known results, file forms, bad input.

    test_embed.py BINARY SOURCE_ROOT [PART_OF_A_NAME]

Needs nothing but Python. The last line is "clattn-tests: P passed, F failed, S skipped".
"""
import json
import os
import shutil
import struct
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree stays as it is
import test_cli
from cli_files import npy, read_npy, write
from test_cli import GOLDEN, NOT_SUPPORTED, ROOT, USAGE, WRONG, must, must_fail, must_run, same

MODEL = GOLDEN + "/bert/model_small_6_layers"
CASE = GOLDEN + "/bert/small_6_layers"
WANT = CASE + "/sentence_embedding.npy"


def read_ids(name):
    """Shape and values of an int64 file."""
    data = open(name, "rb").read()
    end = 10 + struct.unpack("<H", data[8:10])[0]
    head = eval(data[10:end].decode(), {"__builtins__": {}})  # from the repository
    return head["shape"], list(struct.unpack("<%dq" % ((len(data) - end) // 8), data[end:]))


(SHAPE, IDS), (_, MASK) = read_ids(CASE + "/input_ids.npy"), read_ids(CASE + "/attention_mask.npy")


def embed(model=MODEL, ids=CASE + "/input_ids.npy", mask=CASE + "/attention_mask.npy", out="e.npy"):
    return ("embed", "--model", model, "--ids", ids, "--attention-mask", mask, "--out", out, "--repeat", 1)


def test_known_result():
    r = must_run(*embed(), "--expect", WANT)
    must("expected   agrees" in r.out and "peak of the arena" in r.out and "GFLOP/s" in r.out, r.out)
    same(read_npy("e.npy"), read_npy(WANT), 1e-4)
    d = json.loads(must_run(*embed(), "--expect", WANT, "--json").out)
    must(d["expected"]["agrees"] and d["expected"]["least_cosine"] > 0.99999 and d["saved_bytes"] > 0, d)
    must(d["layers"] == 6 and d["sentences"] == SHAPE[0] and d["gflops"] > 0, d)


def test_file_forms():
    npy("ids32.npy", SHAPE, IDS, "i")
    npy("mask-bool.npy", SHAPE, MASK, "?")
    must_run(*embed(ids="ids32.npy", mask="mask-bool.npy"), "--expect", WANT)
    must_run(*embed(out="e.safetensors"), "--expect", WANT)
    must(os.path.getsize("e.safetensors") > 0, "nothing was written")


def test_no_mask_means_all_real():
    length = MASK[:SHAPE[1]].count(1)
    npy("one.npy", (1, length), IDS[:length], "q")
    must_run("embed", "--model", MODEL, "--ids", "one.npy", "--out", "e.npy")
    got, want = read_npy("e.npy"), read_npy(WANT)
    same(got, ((1, want[0][1]), want[1][:want[0][1]]), 1e-4)


def test_padding_is_not_read():
    other = [i if m else 5 for i, m in zip(IDS, MASK)]
    npy("other.npy", SHAPE, other, "q")
    must_run(*embed(ids="other.npy"), "--expect", WANT)


def test_prefix_of_names():
    model = copy_model("prefixed")
    rename(model, lambda name: "bert." + name)
    must_run(*embed(model=model), "--expect", WANT)


def test_explain():
    out = must_run(*embed(), "--explain").out
    must("enc5 feed-forward" in out and "layer_norm" in out and "without sharing" in out, out)


def test_differs():
    values = list(read_npy(WANT)[1])
    values[3] += 0.01
    npy("off.npy", read_npy(WANT)[0], values)
    r = test_cli.run(*embed(), "--expect", "off.npy")
    must(r.returncode == WRONG and "DIFFERS" in r.out, r.returncode, r.out, r.err)
    npy("nan.npy", read_npy(WANT)[0], [float("nan")] * len(values))
    must(test_cli.run(*embed(), "--expect", "nan.npy").returncode == WRONG, "NaN passed")
    values = list(read_npy(WANT)[1])
    values[1] = float("nan")  # in the first sentence only
    npy("one-nan.npy", read_npy(WANT)[0], values)
    must(test_cli.run(*embed(), "--expect", "one-nan.npy").returncode == WRONG, "one NaN passed")


# ---- bad input -------------------------------------------------------------------------------------------------------

def copy_model(name):
    shutil.rmtree(name, ignore_errors=True)
    shutil.copytree(MODEL, name)
    return name


def edit_config(model, **changes):
    path = os.path.join(model, "config.json")
    with open(path) as f:
        config = json.load(f)
    config.update(changes)
    with open(path, "w") as f:
        json.dump({k: v for k, v in config.items() if v is not None}, f)
    return model


def rename(model, change):
    """New tensor names; None leaves a tensor out of the header, which breaks the file."""
    path = os.path.join(model, "model.safetensors")
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    head = {change(k): v for k, v in json.loads(data[8:8 + length]).items() if k != "__metadata__"}
    text = json.dumps(head).encode()
    write(path, struct.pack("<Q", len(text)) + text + data[8 + length:])
    return model


def bad_models():
    """what the message holds, model folder"""
    yield "config.json: cannot be opened", "absent"
    for name, message, changes in (
            ("a", "hidden_size is missing", {"hidden_size": None}), ("b", "hidden_size", {"hidden_size": "64"}),
            ("c", "does not have the shape", {"intermediate_size": 191}),
            ("d", "num_hidden_layers", {"num_hidden_layers": 0}),
            ("e", "encoder.layer.6.attention.self.query.weight", {"num_hidden_layers": 7}),
            ("f", "hidden_act is 'swish'", {"hidden_act": "swish"}), ("g", "heads is 7", {"num_attention_heads": 7}),
            ("h", "position_embedding_type", {"position_embedding_type": "relative_key"}),
            ("i", "eps is 0", {"layer_norm_eps": 0})):
        yield message, edit_config(copy_model(name), **changes)
    broken = copy_model("j")
    write(broken + "/config.json", b"{")
    yield "is not a JSON object", broken
    cut = copy_model("k")
    whole = open(cut + "/model.safetensors", "rb").read()
    write(cut + "/model.safetensors", whole[:-5])
    yield "model.safetensors", cut
    os.remove(copy_model("l") + "/model.safetensors")
    yield "model.safetensors: cannot be opened", "l"
    lost = rename(copy_model("m"), lambda k: k.replace("encoder.layer.3.output.dense.bias", "elsewhere"))
    yield "holds no tensor named encoder.layer.3.output.dense.bias", lost
    yield "embeddings.word_embeddings.weight", rename(copy_model("n"), lambda k: k.replace("word_emb", "token_emb"))


def test_bad_models():
    for message, model in bad_models():
        must_fail(USAGE, message, *embed(model=model))


def test_bad_ids():
    high, negative = IDS[:], IDS[:]
    high[7], negative[1] = 1 << 40, -1
    npy("high.npy", SHAPE, high, "q")
    npy("negative.npy", SHAPE, negative, "q")
    npy("floats.npy", SHAPE, [0.0] * len(IDS))
    npy("flat.npy", (len(IDS),), IDS, "q")
    npy("long.npy", (1, 65), [1] * 65, "q")
    npy("empty.npy", (0, 4), [], "q")
    must_fail(USAGE, "token id [0, 7] is 1099511627776; the vocabulary has ids 0..", *embed(ids="high.npy"))
    must_fail(USAGE, "token id [0, 1] is -1", *embed(ids="negative.npy"))
    must_fail(USAGE, "must be int64 or int32 of rank 2", *embed(ids="floats.npy"))
    must_fail(USAGE, "must be int64 or int32 of rank 2", *embed(ids="flat.npy"))
    long = ("embed", "--model", MODEL, "--ids", "long.npy", "--out", "e.npy")
    must_fail(USAGE, "rows is 65; the position table has 64 rows", *long)
    must_run("embed", "--model", MODEL, "--ids", "empty.npy", "--out", "e.npy")
    must(read_npy("e.npy")[0] == (0, 64), read_npy("e.npy")[0])


def test_bad_rest():
    npy("mask-short.npy", (3, 2), [1] * 6, "?")
    npy("mask-nan.npy", SHAPE, [float("nan")] * len(IDS))
    must_fail(USAGE, "does not have the shape of the token ids", *embed(mask="mask-short.npy"))
    must_fail(USAGE, "mask-nan.npy: element 0 is nan", *embed(mask="mask-nan.npy"))
    must_fail(USAGE, "must hold 3 x 64 values", *embed(), "--expect", CASE + "/embedding_output.npy")
    must_fail(USAGE, "--model is missing", "embed", "--ids", "x.npy", "--out", "e.npy")
    must_fail(USAGE, "--ids is missing", "embed", "--model", MODEL, "--out", "e.npy")
    must_fail(USAGE, "--out is missing", "embed", "--model", MODEL, "--ids", "x.npy")
    must_fail(USAGE, "--repeat is '-1'", *embed(), "--repeat=-1")
    must_fail(USAGE, "'stray' is not an option", *embed(), "stray")
    must_fail(USAGE, "must end in .npy or .safetensors", *embed(out="e.txt"))
    must_fail(NOT_SUPPORTED, "no_such", *embed(), "--kernel", "no_such")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="clattn-embed-") as folder:
        os.chdir(folder)
        code = test_cli.main(globals())
        os.chdir(ROOT)
    sys.exit(code)
