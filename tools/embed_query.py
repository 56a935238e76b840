#!/usr/bin/env python3
"""Turns text into the token ids that `clattn embed` reads.

    embed_query.py MODEL TEXT --ids IDS.npy --mask MASK.npy [--length N]

MODEL is a folder with tokenizer.json and config.json; each non-empty line of the file TEXT ("-": standard input) is one
sentence. Writes int64 (sentences, tokens) ids, padded at the end, and int64 of the same shape that is 1 at real tokens.
Longer sentences are cut at N tokens (default: what the model can read). Needs the PyPI packages numpy and tokenizers.
"""
import argparse
import json
import pathlib
import sys

import numpy as np
import tokenizers


def tokenize(model, lines, length=None):
    """Ids and mask, int64 (sentences, tokens)."""
    most = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(min(length or most, most))
    tokenizer.enable_padding()  # as long as the longest
    rows = tokenizer.encode_batch(lines)
    return np.array([row.ids for row in rows], np.int64), np.array([row.attention_mask for row in rows], np.int64)


def read_lines(path):
    text = sys.stdin.read() if path == "-" else pathlib.Path(path).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="folder of the model")
    parser.add_argument("text", help="text file, one sentence per line; - for standard input")
    parser.add_argument("--ids", required=True, help="file for the ids")
    parser.add_argument("--mask", required=True, help="file for the mask")
    parser.add_argument("--length", type=int, help="most tokens per sentence")
    args = parser.parse_args()
    lines = read_lines(args.text)
    if not lines:
        parser.error(f"there is no sentence in {args.text}")
    ids, mask = tokenize(args.model, lines, args.length)
    np.save(args.ids, ids)
    np.save(args.mask, mask)
    print(f"{ids.shape[0]} sentences of up to {ids.shape[1]} tokens")


if __name__ == "__main__":
    main()
