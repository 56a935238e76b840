#!/usr/bin/env python3
"""Semantic search: finds the sentences that mean something similar, whatever their words are.

    search.py QUESTION... [--model DIR] [--clattn PROGRAM] [--sentences FILE] [--top N] [--work DIR] [--device SELECTOR]

Each QUESTION is compared with every line of sentences.txt. Sentences become vectors by `clattn embed` with the model
all-MiniLM-L6-v2, which tools/fetch_model.sh fetches (84 MB) when DIR does not hold it. All vectors have length 1, so
the cosine of the angle between two of them is their dot product. The vectors of the sentences stay in the work folder.
Needs the PyPI packages numpy and tokenizers.
"""
import argparse
import pathlib
import subprocess
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
import embed_query


def embed(args, name, lines):
    """Vectors (lines, features) of length 1, by the program."""
    ids, mask = embed_query.tokenize(args.model, lines)
    paths = {part: args.work / f"{name}-{part}.npy" for part in ("ids", "mask", "vectors")}
    np.save(paths["ids"], ids)
    np.save(paths["mask"], mask)
    command = [args.clattn, "embed", "--model", args.model, "--ids", paths["ids"], "--attention-mask", paths["mask"],
               "--out", paths["vectors"], "--repeat", "0"]
    if args.device:
        command += ["--device", args.device]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print("\n".join(line for line in report.splitlines() if line.split()[0] in ("device", "memory", "time", "speed")))
    return np.load(paths["vectors"])


def index(args, sentences):
    """The vectors of all sentences, from the work folder when they are newer than the text."""
    vectors = args.work / "sentences-vectors.npy"
    if vectors.exists() and vectors.stat().st_mtime > args.sentences.stat().st_mtime:
        known = np.load(vectors)
        if len(known) == len(sentences):
            return known
    print(f"embedding {len(sentences)} sentences")
    return embed(args, "sentences", sentences)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="+")
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("model"), help="folder of the model")
    parser.add_argument("--clattn", default="clattn", help="the program, default: from the PATH")
    parser.add_argument("--sentences", type=pathlib.Path, default=HERE / "sentences.txt", help="one sentence per line")
    parser.add_argument("--top", type=int, default=5, help="sentences to show per question")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("search-work"), help="folder for arrays")
    parser.add_argument("--device", help="as in clattn embed")
    args = parser.parse_args()

    subprocess.run(["sh", TOOLS / "fetch_model.sh", args.model], check=True)
    args.work.mkdir(parents=True, exist_ok=True)
    sentences = embed_query.read_lines(args.sentences)
    known = index(args, sentences)
    for question, vector in zip(args.question, embed(args, "questions", args.question)):
        cosines = known @ vector
        print(f"\n{question}")
        for place in np.argsort(-cosines)[:args.top]:
            print(f"  {cosines[place]:.3f}  {sentences[place]}")


if __name__ == "__main__":
    main()
