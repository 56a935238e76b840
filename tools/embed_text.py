#!/usr/bin/env python3
"""Turns plain text into input for `clattn run`, with the embedding tables of a real BERT model.

    embed_text.py MODEL TEXT --out DIR [--suffix=-NAME] [--length N] [--weights FILE]

MODEL is a folder with config.json, tokenizer.json and model.safetensors. Each non-empty line of TEXT is one
sequence. With B sequences of L tokens (L: the longest of them, or N) and E features this writes

    hidden.npy         float32 (B, L, E)  embeddings: LayerNorm(word + position + token type)
    padding.npy        bool    (B, L)     True at real tokens, False at padding
    attention-out.npy  float32 (B, L, E)  the model's attention layer 0 on it, after the output projection with
                                          its bias, before the residual; computed in float64, rounded at the end
    tokens.txt                            one line per sequence, its L tokens separated by one space

each name with the suffix before its dot. --weights also cuts the weights of that layer, under the model's own
names, into a file of their own. Needs the PyPI packages numpy, safetensors and tokenizers.
"""
import argparse
import json
import pathlib

import numpy as np
import safetensors.numpy
import tokenizers

LAYER = "encoder.layer.0.attention."
PROJECTIONS = [LAYER + "self.query", LAYER + "self.key", LAYER + "self.value", LAYER + "output.dense"]


def tokenize(model, lines, length):
    """Token ids (B, L), mask (B, L) and tokens of all lines; longer lines are cut, shorter ones padded."""
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    length = length or max(len(e.ids) for e in tokenizer.encode_batch(lines))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    rows = tokenizer.encode_batch(lines)
    return np.array([r.ids for r in rows]), np.array([r.attention_mask for r in rows], bool), [r.tokens for r in rows]


def embed(tensors, ids, eps):
    """LayerNorm(word + position + token type) in float64, (B, L, E)."""
    x = (tensors["embeddings.word_embeddings.weight"].astype(np.float64)[ids]
         + tensors["embeddings.position_embeddings.weight"].astype(np.float64)[:ids.shape[1]]
         + tensors["embeddings.token_type_embeddings.weight"].astype(np.float64)[0])
    x -= x.mean(-1, keepdims=True)
    x /= np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return x * tensors["embeddings.LayerNorm.weight"] + tensors["embeddings.LayerNorm.bias"]


def attend(tensors, x, mask, heads):
    """Multi-head attention of layer 0 on x (B, L, E) in float64; every query sees the unmasked keys."""
    def linear(name, a):
        return a @ tensors[name + ".weight"].astype(np.float64).T + tensors[name + ".bias"]

    batch, length, features = x.shape
    query, key, value = (linear(name, x).reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
                         for name in PROJECTIONS[:3])
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(features // heads)
    scores = np.where(mask[:, None, None, :], scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return linear(PROJECTIONS[3], (shares @ value).transpose(0, 2, 1, 3).reshape(batch, length, features))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="folder of the model")
    parser.add_argument("text", type=pathlib.Path, help="text file, one sequence per line")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the files")
    parser.add_argument("--suffix", default="", help="goes into each file name, before the dot")
    parser.add_argument("--length", type=int, help="tokens per sequence; default: those of the longest")
    parser.add_argument("--weights", type=pathlib.Path, help="also write the weights of attention layer 0 here")
    args = parser.parse_args()

    config = json.loads((args.model / "config.json").read_text())
    tensors = safetensors.numpy.load_file(args.model / "model.safetensors")
    lines = [line.strip() for line in args.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    ids, mask, tokens = tokenize(args.model, lines, args.length)
    if ids.shape[1] > config["max_position_embeddings"]:
        parser.error(f"the model reads at most {config['max_position_embeddings']} tokens, "
                     f"this text has {ids.shape[1]}: give --length")

    hidden = embed(tensors, ids, config["layer_norm_eps"])
    output = attend(tensors, hidden, mask, config["num_attention_heads"])

    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / f"hidden{args.suffix}.npy", hidden.astype(np.float32))
    np.save(args.out / f"padding{args.suffix}.npy", mask)
    np.save(args.out / f"attention-out{args.suffix}.npy", output.astype(np.float32))
    (args.out / f"tokens{args.suffix}.txt").write_text("".join(" ".join(t) + "\n" for t in tokens), encoding="utf-8")
    if args.weights:
        layer = {p + end: tensors[p + end] for p in PROJECTIONS for end in (".weight", ".bias")}
        args.weights.write_bytes(safetensors.numpy.save(layer, metadata={"format": "pt"}))
    print(f"{len(lines)} sequences of {ids.shape[1]} tokens, {int(mask.sum())} of them real, in {args.out}")


if __name__ == "__main__":
    main()
