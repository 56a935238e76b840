"""The libraries that clattn is measured against, on the shapes of `clattn bench`: float32, their own best call.

peers(case) gives (name, make): make() returns a function that runs once. Unsupported raises an exception. See rows.csv
for the cases and README.md for how each library is called.
"""
import json
import os
import struct

import numpy as np

THREADS = os.cpu_count() or 1
BLOCK = 256  # tokens per document of mask=blocks


class Case:
    """`option` and `shape` as clattn bench takes them: sizes, then words."""

    def __init__(self, option, shape):
        words = shape.split(",")
        self.option, self.shape = option, shape
        self.sizes = [int(word) for word in words if word.isdigit()] if option != "model" else \
            [int(size) for size in shape.split("x")]
        self.words = dict((word.split("=") + [True])[:2] for word in words if option != "model" and not word.isdigit())
        self.causal = "causal" in self.words

    def known(self, *words):
        unknown = set(self.words) - set(words)
        if unknown:
            raise NotImplementedError("no " + ", ".join(sorted(unknown)))


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


# ---- attention -------------------------------------------------------------------------------------------------------

def attention_data(case):
    if case.option == "decode":
        b, hq, hkv, sk, d = case.sizes
        sq = 1
    else:
        b, hq, hkv, sq, sk, d = case.sizes
    return normal(b, hq, sq, d), normal(b, hkv, sk, d), normal(b, hkv, sk, d)


def mask_of(case, q, k):
    """None, or bool (true = attend) or float32 (1, 1 or Hq, Sq, Sk); causal order is in it when anything else is."""
    heads, sq, sk = q.shape[1], q.shape[2], k.shape[2]
    if not set(case.words) & {"mask", "window", "alibi"}:
        return None
    i, j = np.arange(sq)[:, None] + (sk - sq if case.causal else 0), np.arange(sk)[None, :]
    allowed = np.ones((sq, sk), bool)
    if case.causal:
        allowed &= j <= i
    if "window" in case.words:
        left, _, right = str(case.words["window"]).partition(":")
        allowed &= (j >= i - int(left)) & (j <= i + int(right or left))
    kind = case.words.get("mask")
    if kind == "blocks":
        allowed &= i // BLOCK == j // BLOCK
    if kind == "bool":
        allowed &= np.random.default_rng(2).random((sq, sk)) >= 1 / 16
    if kind != "float" and "alibi" not in case.words:
        return allowed[None, None]
    mask = np.where(allowed, 0, -np.inf).astype(np.float32)[None, None]
    if kind == "float":
        mask = mask + normal(1, 1, sq, sk)
    if "alibi" in case.words:
        slopes = 2.0 ** (-8 * (np.arange(heads) + 1) / heads)
        mask = mask + (slopes[:, None, None] * (j - i)).astype(np.float32)[None]
    return np.ascontiguousarray(mask, dtype=np.float32)


def torch_attention(case):
    import torch
    case.known("causal", "mask", "window", "alibi")
    torch.set_num_threads(THREADS)
    q, k, v = attention_data(case)
    mask = mask_of(case, q, k)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    mask = None if mask is None else torch.from_numpy(mask)

    def run():
        with torch.no_grad():
            return torch.nn.functional.scaled_dot_product_attention(
                *tensors, attn_mask=mask, is_causal=case.causal and mask is None and q.shape[2] > 1,
                enable_gqa=q.shape[1] != k.shape[1])
    return run


def session_of(nodes, inputs, initializers=()):
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper
    types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(bool): TensorProto.BOOL,
             np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(name, types[array.dtype], array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in initializers])
    versions = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)[0]


def onnx_attention(case):
    """The operator of ONNX 23."""
    from onnx import helper
    case.known("causal", "mask", "window", "alibi", "softcap")
    q, k, v = attention_data(case)
    mask = mask_of(case, q, k)
    inputs = {"Q": q, "K": k, "V": v}
    if mask is not None:
        inputs["M"] = mask
    node = helper.make_node("Attention", list(inputs), ["Y"], softcap=float(case.words.get("softcap", 0)),
                            is_causal=int(case.causal and mask is None and q.shape[2] > 1))
    return session_of([node], inputs)


def onnx_multi_head(case):
    """onnxruntime's own operator, which takes (B, S, H * D)."""
    from onnx import helper
    case.known("causal", "mask", "window", "alibi")
    q, k, v = attention_data(case)
    if q.shape[1] != k.shape[1] or q.shape[2] != k.shape[2]:
        raise NotImplementedError("no grouped heads or other lengths")
    mask = mask_of(case, q, k)
    if mask is not None and mask.dtype == bool:
        mask = np.where(mask, 0, -np.inf).astype(np.float32)
    inputs = {name: np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(x.shape[0], x.shape[2], -1)
              for name, x in (("Q", q), ("K", k), ("V", v))}
    names = ["Q", "K", "V"]
    if mask is not None:
        inputs["M"], names = mask, names + ["", "", "M"]
    node = helper.make_node("MultiHeadAttention", names, ["Y"], domain="com.microsoft", num_heads=q.shape[1],
                            unidirectional=int(case.causal and mask is None))
    return session_of([node], inputs)


def openvino_attention(case):
    import openvino
    from openvino import opset13
    case.known("causal", "mask", "window", "alibi")
    q, k, v = attention_data(case)
    if q.shape[1] != k.shape[1]:
        raise NotImplementedError("no grouped heads")
    mask = mask_of(case, q, k)
    arrays = [q, k, v] + ([] if mask is None else [mask])
    inputs = [opset13.parameter(list(x.shape), x.dtype) for x in arrays]
    node = opset13.scaled_dot_product_attention(*inputs, causal=case.causal and mask is None and q.shape[2] > 1)
    compiled = openvino.Core().compile_model(openvino.Model([node], inputs), "CPU", {
        "INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    for i, x in enumerate(arrays):
        request.set_input_tensor(i, openvino.Tensor(x, shared_memory=True))

    def run():
        request.infer()
        return request.get_output_tensor(0).data
    run.arrays = arrays  # shared with the request, which does not keep them
    return run


# ---- layers, projections, models -------------------------------------------------------------------------------------

def torch_layer(case):
    import torch
    case.known("causal")
    torch.set_num_threads(THREADS)
    batch, length, width, heads = case.sizes
    layer = torch.nn.MultiheadAttention(width, heads, batch_first=True).eval()
    x = torch.from_numpy(normal(batch, length, width))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(length) if case.causal else None

    def run():
        with torch.no_grad():
            return layer(x, x, x, need_weights=False, attn_mask=mask, is_causal=case.causal)[0]
    return run


def torch_gemm(case):
    import torch
    case.known()
    torch.set_num_threads(THREADS)
    m, n, k = case.sizes
    x, weight, bias = (torch.from_numpy(normal(*shape)) for shape in ((m, k), (n, k), (n,)))

    def run():
        with torch.no_grad():
            return torch.nn.functional.linear(x, weight, bias)
    return run


def read_safetensors(path):
    with open(path, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    return {name: np.frombuffer(data[row["data_offsets"][0]:row["data_offsets"][1]], np.float32).reshape(row["shape"])
            for name, row in head.items() if name != "__metadata__" and row["dtype"] == "F32"}


def onnx_model(folder, sizes):
    """BERT's encoder in onnxruntime's fused operators, on embedded tokens, as its own optimizer would leave it."""
    from onnx import helper
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
    heads, layers, width = config["num_attention_heads"], config["num_hidden_layers"], config["hidden_size"]
    batch, tokens = sizes
    nodes, constants, inputs = [], [], {"X": normal(batch, tokens, width)}

    def constant(name, array):
        constants.append((name, np.ascontiguousarray(array)))
        return name

    def add(kind, names, output, domain="com.microsoft", **attributes):
        nodes.append(helper.make_node(kind, names, [output], domain=domain, **attributes))
        return output

    x = "X"
    for i in range(layers):
        def weight(name, layer=i):
            return tensors[f"encoder.layer.{layer}.{name}"]
        parts = [weight(f"attention.self.{part}.weight").T for part in ("query", "key", "value")]
        biases = [weight(f"attention.self.{part}.bias") for part in ("query", "key", "value")]
        packed = [constant(f"w{i}", np.concatenate(parts, 1)), constant(f"b{i}", np.concatenate(biases))]
        a = add("Attention", [x] + packed, f"a{i}", num_heads=heads)
        a = add("MatMul", [a, constant(f"wo{i}", weight("attention.output.dense.weight").T)], f"o{i}", domain="")
        norm = [constant(f"{kind}1{i}", weight("attention.output.LayerNorm." + kind)) for kind in ("weight", "bias")]
        x = add("SkipLayerNormalization", [a, x] + norm + [constant(f"bo{i}", weight("attention.output.dense.bias"))],
                f"x1{i}", epsilon=float(config["layer_norm_eps"]))
        f = add("MatMul", [x, constant(f"wi{i}", weight("intermediate.dense.weight").T)], f"f{i}", domain="")
        f = add("BiasGelu", [f, constant(f"bi{i}", weight("intermediate.dense.bias"))], f"g{i}")
        f = add("MatMul", [f, constant(f"wc{i}", weight("output.dense.weight").T)], f"c{i}", domain="")
        norm = [constant(f"{kind}2{i}", weight("output.LayerNorm." + kind)) for kind in ("weight", "bias")]
        x = add("SkipLayerNormalization", [f, x] + norm + [constant(f"bc{i}", weight("output.dense.bias"))],
                "Y" if i + 1 == layers else f"x2{i}", epsilon=float(config["layer_norm_eps"]))
    return session_of(nodes, inputs, constants)


def peers(case, model=None):
    """(name, make) for every library that may run the case; make() raises where it cannot."""
    if case.option in ("attention", "decode"):
        return [(name, lambda make=make: make(case)) for name, make in
                (("torch", torch_attention), ("ort-Attention", onnx_attention),
                 ("ort-MultiHeadAttention", onnx_multi_head), ("openvino", openvino_attention))]
    if case.option == "layer":
        return [("torch", lambda: torch_layer(case))]
    if case.option == "gemm":
        return [("torch", lambda: torch_gemm(case))]
    return [("ort", lambda: onnx_model(model, case.sizes))]
