"""torch on the GPU of this machine, beside what clattn measured there.

usage: field_torch.py BENCH_CSV OUT_DIR [--on DEVICE] [--seconds X]

BENCH_CSV is what `clattn bench --resident --csv` wrote. Each of its rows is repeated with torch: attention with every
back end of scaled_dot_product_attention that takes it, projections with `linear`, layers with nn.MultiheadAttention.
Tensors stay on the device, each call is waited for, medians count, as in clattn bench. Writes OUT_DIR/torch.csv and
prints a table. Exits with 77 where there is no torch or no device for it.
"""
import argparse
import csv
import os
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as functional
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    print(f"python3 has no torch: {error}")
    sys.exit(77)

BACKENDS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
LEAST_RUNS, WARM_SHARE = 5, 0.4


class Case:
    """A row of the CSV: sizes, words behind them, and the element type."""

    def __init__(self, row, device):
        sizes, *words = row["shape"].split("+")
        self.op, self.sizes, self.causal = row["op"], [int(n) for n in sizes.split("x")], row["causal"] == "1"
        self.words = set(words) - {"float16", "bfloat16"}
        kind = next((word for word in words if word in ("float16", "bfloat16")), "float32")
        self.dtype, self.device = getattr(torch, kind), device

    def random(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=self.dtype)


def attention(case, backend):
    if case.op == "decode":
        batch, heads, kv_heads, keys, width = case.sizes
        queries = 1
    else:
        batch, heads, kv_heads, queries, keys, width = case.sizes
    query = case.random(batch, heads, queries, width)
    key, value = case.random(batch, kv_heads, keys, width), case.random(batch, kv_heads, keys, width)
    causal = case.causal and queries > 1

    def run():
        with sdpa_kernel(getattr(SDPBackend, BACKENDS[backend])):
            return functional.scaled_dot_product_attention(query, key, value, is_causal=causal,
                                                           enable_gqa=heads != kv_heads)
    return run


def linear(case):
    m, n, k = case.sizes
    x, weight, bias = case.random(m, k), case.random(n, k), case.random(n)
    return lambda: functional.linear(x, weight, bias)


def layer(case):
    batch, length, width, heads = case.sizes
    module = torch.nn.MultiheadAttention(width, heads, batch_first=True).to(case.device, case.dtype).eval()
    x = case.random(batch, length, width)
    mask = None
    if case.causal:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(length, case.device, case.dtype)
    return lambda: module(x, x, x, need_weights=False, attn_mask=mask, is_causal=case.causal)[0]


def makers(case):
    if case.words:
        return []
    if case.op in ("attention", "decode"):
        return [(name, lambda name=name: attention(case, name)) for name in BACKENDS]
    return [("torch", lambda: {"gemm": linear, "layer": layer}[case.op](case))] if case.op in ("gemm", "layer") else []


def wait(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(run, device, seconds):
    def once():
        begin = time.perf_counter()
        run()
        wait(device)
        return time.perf_counter() - begin

    start = time.perf_counter()
    once()
    while time.perf_counter() - start < WARM_SHARE * seconds:
        once()
    times, start = [], time.perf_counter()
    while len(times) < LEAST_RUNS or time.perf_counter() - start < seconds:
        times.append(once())
    return 1e3 * statistics.median(times)


def measure(case, seconds):
    """{name: ms}; a back end that refuses the case is left out."""
    found = {}
    for name, make in makers(case):
        try:
            with torch.no_grad():
                found[name] = timed(make(), case.device, seconds)
        except (RuntimeError, NotImplementedError) as error:
            print(f"{case.op} {case.sizes}: {name}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("out")
    parser.add_argument("--on", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.3)
    args = parser.parse_args()
    if args.on.startswith("cuda") and not torch.cuda.is_available():
        print("torch sees no GPU here")
        return 77
    with open(args.bench, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    print("| work | clattn ms | GFLOP/s | its kernels | torch's best | its ms | times faster |")
    print("|---|---:|---:|---|---|---:|---:|")
    with open(os.path.join(args.out, "torch.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["op", "shape", "causal", "peer", "median_ms"])
        for row in rows:
            found = measure(Case(row, args.on), args.seconds)
            writer.writerows([row["op"], row["shape"], row["causal"], name, f"{ms:.4f}"] for name, ms in found.items())
            best = min(found, key=found.get) if found else None
            ours = float(row["median_ms"])
            theirs = f"{best} | {found[best]:.4f} | {found[best] / ours:.2f}" if best else "| |"
            causal = " causal" if row["causal"] == "1" else ""
            print(f"| {row['op']} {row['shape'].replace('x', ' ')}{causal} | {ours:.4f} | {row['gflops']} | "
                  f"{row['kernel']} | {theirs} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
