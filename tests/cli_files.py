"""Tensor files for the tests of the tool, written and read without any library: .npy, .safetensors, a small layer."""
import array
import json
import math
import random
import struct


def write(name, data):
    with open(name, "wb") as f:
        f.write(data)
    return name


def npy_bytes(descr, shape, data, order="False"):
    head = "{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }" % (descr, order, "".join("%d, " % n for n in shape))
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + data


def npy(name, shape, values, kind="f"):
    descr = {"f": "<f4", "?": "|b1", "q": "<i8", "i": "<i4"}[kind]
    return write(name, npy_bytes(descr, shape, struct.pack("<%d%s" % (len(values), kind), *values)))


def read_npy(name):
    with open(name, "rb") as f:
        data = f.read()
    if data[:8] != b"\x93NUMPY\1\0":
        raise ValueError(name + " is not .npy")
    end = 10 + struct.unpack("<H", data[8:10])[0]
    head = eval(data[10:end].decode(), {"__builtins__": {}})  # written by the tool under test
    values = array.array("f")
    values.frombytes(data[end:])
    if head["descr"] != "<f4" or head["fortran_order"] or len(values) != math.prod(head["shape"]):
        raise ValueError("%s: %s" % (name, head))
    return head["shape"], values


def raw_floats(values, dtype):
    if dtype == "BF16":  # the upper halves
        return b"".join(struct.pack("<f", v)[2:] for v in values)
    return struct.pack("<%d%s" % (len(values), {"F32": "f", "F16": "e"}[dtype]), *values)


def safetensors(name, tensors, dtype="F32"):
    head, data = {}, b""
    for key, (shape, values) in tensors.items():
        raw = raw_floats(values, dtype)
        head[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    return write(name, struct.pack("<Q", len(text)) + text + data)


def numbers(count, seed):
    r = random.Random(seed)
    return [r.uniform(-1, 1) for _ in range(count)]


# A layer of E features and H heads, for B sequences of L queries and S keys, under the names of several projects.
E, H, B, L, S = 8, 2, 2, 3, 5
W = [numbers(E * E, i) for i in range(4)]
BIAS = [numbers(E, 10 + i) for i in range(4)]


def packed(prefix=""):
    return {prefix + "in_proj_weight": ((3 * E, E), W[0] + W[1] + W[2]),
            prefix + "in_proj_bias": ((3 * E,), BIAS[0] + BIAS[1] + BIAS[2]),
            prefix + "out_proj.weight": ((E, E), W[3]), prefix + "out_proj.bias": ((E,), BIAS[3])}


def bert(prefix=""):
    t = {}
    for i, n in enumerate(("self.query", "self.key", "self.value", "output.dense")):
        t["%sattention.%s.weight" % (prefix, n)] = ((E, E), W[i])
        t["%sattention.%s.bias" % (prefix, n)] = ((E,), BIAS[i])
    return t


def q_proj(prefix="", out="out_proj"):
    t = {}
    for i, n in enumerate(("q_proj", "k_proj", "v_proj", out)):
        t["%s%s.weight" % (prefix, n)] = ((E, E), W[i])
        t["%s%s.bias" % (prefix, n)] = ((E,), BIAS[i])
    return t


def separate(prefix=""):
    t = packed(prefix)
    del t[prefix + "in_proj_weight"]
    for i, n in enumerate("qkv"):
        t["%s%s_proj_weight" % (prefix, n)] = ((E, E), W[i])
    return t


def basics():
    safetensors("w.safetensors", packed())
    npy("q.npy", (B, L, E), numbers(B * L * E, 20))
    npy("k.npy", (B, S, E), numbers(B * S * E, 21))
    npy("v.npy", (B, S, E), numbers(B * S * E, 22))
