#!/usr/bin/env python3
"""Runs a BERT model by `clattn embed` and by onnxruntime on the same token ids, and compares results and times.

    compare_model.py MODEL IDS.npy MASK.npy [--clattn PROGRAM] [--device SELECTOR] [--repeat N] [--threads N]

Both get the whole encoder: words and token types are looked up before the clock starts, pooling happens after it stops.
The ONNX graph is built here from config.json and model.safetensors; onnxruntime runs it with all its optimisations on
the CPU. Needs the PyPI packages numpy, safetensors, onnx and onnxruntime.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """ONNX nodes and weights, added one after the other; every method returns the name of its result."""

    def __init__(self, tensors):
        self.tensors, self.nodes, self.weights, self.count = tensors, [], {}, 0

    def weight(self, name, array=None):
        if name not in self.weights:
            array = self.tensors[name] if array is None else array
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, kind, *inputs, **attributes):
        self.count += 1
        result = f"value{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def linear(self, x, name):
        product = self.add("MatMul", x, self.weight(name + ".weight.T", self.tensors[name + ".weight"].T))
        return self.add("Add", product, self.weight(name + ".bias"))

    def norm(self, x, name, eps):
        return self.add("LayerNormalization", x, self.weight(name + ".LayerNorm.weight"),
                        self.weight(name + ".LayerNorm.bias"), axis=-1, epsilon=eps)


def attention(g, x, layer, heads, features):
    """Self-attention of one layer, up to its output projection."""
    split = g.weight("split", np.array([0, 0, heads, features // heads], np.int64))
    joined = g.weight("joined", np.array([0, 0, features], np.int64))
    query, key, value = (g.add("Transpose", g.add("Reshape", g.linear(x, f"{layer}.attention.self.{part}"), split),
                               perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3])
                         for part in ("query", "key", "value"))
    scale = g.weight("scale", np.array((features // heads) ** -0.5, np.float32))
    scores = g.add("Add", g.add("Mul", g.add("MatMul", query, key), scale), "mask")
    context = g.add("MatMul", g.add("Softmax", scores, axis=-1), value)
    context = g.add("Reshape", g.add("Transpose", context, perm=[0, 2, 1, 3]), joined)
    return g.linear(context, f"{layer}.attention.output.dense")


def build(config, tensors, shape):
    """The encoder as an ONNX model: x (B, L, E) words and types, mask (B, 1, 1, L) added to the scores."""
    g, eps = Graph(tensors), config["layer_norm_eps"]
    table = tensors["embeddings.position_embeddings.weight"][:shape[1]]
    x = g.norm(g.add("Add", "x", g.weight("positions", table)), "embeddings", eps)
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        dense = attention(g, x, layer, config["num_attention_heads"], config["hidden_size"])
        x = g.norm(g.add("Add", x, dense), f"{layer}.attention.output", eps)
        wide = g.add("Gelu", g.linear(x, f"{layer}.intermediate.dense"))
        x = g.norm(g.add("Add", x, g.linear(wide, f"{layer}.output.dense")), f"{layer}.output", eps)
    batch, length = shape
    graph = helper.make_graph(
        g.nodes, "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, length, config["hidden_size"]]),
         helper.make_tensor_value_info("mask", TensorProto.FLOAT, [batch, 1, 1, length])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [batch, length, config["hidden_size"]])],
        list(g.weights.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run_onnx(args, ids, mask):
    """Sentence embeddings and the median time of a run in milliseconds."""
    config = json.loads((args.model / "config.json").read_text())
    tensors = safetensors.numpy.load_file(args.model / "model.safetensors")
    x = (tensors["embeddings.word_embeddings.weight"][ids]
         + tensors["embeddings.token_type_embeddings.weight"][0]).astype(np.float32)
    bias = np.where(mask != 0, 0, -np.inf).astype(np.float32)[:, None, None, :]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    model = build(config, tensors, ids.shape)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(args.repeat + 1):
        begin = time.perf_counter()
        hidden = session.run(None, {"x": x, "mask": bias})[0]
        times.append(1000 * (time.perf_counter() - begin))
    pooled = (hidden.astype(np.float64) * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True), statistics.median(times[1:])


def run_clattn(args):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "embeddings.npy"
        command = [args.clattn, "embed", "--model", args.model, "--ids", args.ids, "--attention-mask", args.mask,
                   "--out", out, "--repeat", str(args.repeat), "--json"]
        if args.device:
            command += ["--device", args.device]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        return np.load(out).astype(np.float64), report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("ids", type=pathlib.Path)
    parser.add_argument("mask", type=pathlib.Path)
    parser.add_argument("--clattn", default="clattn", help="the program, default: from the PATH")
    parser.add_argument("--device", help="as in clattn embed")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime; default: its own choice")
    args = parser.parse_args()

    ids, mask = np.load(args.ids), np.load(args.mask).astype(np.int64)
    theirs, milliseconds = run_onnx(args, ids, mask)
    ours, report = run_clattn(args)
    cosines = (ours * theirs).sum(1)
    print(f"input        {ids.shape[0]} sentences of up to {ids.shape[1]} tokens")
    print(f"onnxruntime  {onnxruntime.__version__}: {milliseconds:.2f} ms, "
          f"{report['flops'] / milliseconds * 1e-6:.1f} GFLOP/s")
    print(f"clattn       {report['device']}: {report['warm_ms']:.2f} ms, {report['gflops']:.1f} GFLOP/s, "
          f"{milliseconds / report['warm_ms']:.2f} times as fast")
    print(f"agreement    least cosine {cosines.min():.9f}, greatest difference {np.abs(ours - theirs).max():.3g}")


if __name__ == "__main__":
    main()
