#!/usr/bin/env python3
"""Checks that every numeric example of the tutorials is reproduced on the device.

usage: test_seeds.py CLATTN SOURCE_ROOT LESSON...

CASES says who covers a case: `check`, or the name of a lesson; LESSON are the paths of the lessons' programs.  A case
is covered by `clattn check` when it passes there, and by a lesson when the lesson ends well and names it among the
examples that it compared.  The test fails when a case is covered by neither, when a claim is untrue, and when a folder
with examples is in no row.
"""
import json
import os
import subprocess
import sys
import tempfile

CASES = {
    "000_sqrt_dk_statistics": "lesson1_scale",
    "000_sqrt_dk_statistics_small": "check lesson1_scale",
    "001_additive_linear": "check lesson3_scores",
    "001_additive_tanh": "check lesson3_scores",
    "001_dot_product": "check lesson3_scores",
    "001_gaussian_many_waists": "check lesson2_pooling",
    "001_gaussian_matrix": "check lesson2_pooling",
    "001_gaussian_waist_weight": "check lesson2_pooling",
    "001_scaled_dot_product": "check lesson3_scores",
    "001_scaled_dot_product_standardised": "check lesson3_scores",
    "001_self_attention_projected": "check lesson3_scores",
    "001_self_attention_x": "check lesson3_scores",
    "001_self_attention_x_standardised": "check lesson3_scores",
    "002_multi_head_class": "check lesson4_multihead",
    "002_multi_head_class_padding": "check lesson4_multihead",
    "002_multihead_attention_demo": "check lesson4_options",
    "003_1_plain_qkv": "check lesson5a_selfattention",
    "003_1_plain_qkv_axis0": "check lesson5a_selfattention",
    "003_1_projected": "check lesson5a_selfattention",
    "003_2_permutation": "check lesson5a_selfattention",
    "003_3_temperature": "check lesson5b_softmax",
    "003_4_softmax_sqrt_dk_gradient": "check lesson5b_softmax",
    "003_5_multi_head": "check lesson5c_masked",
    "003_6_causal": "check lesson5c_masked",
    "004_batchnorm": "check lesson6b_norms",
    "004_decoder_block": "check lesson6c_blocks",
    "004_decoder_block_prenorm_gelu_padding": "check",
    "004_encoder_block": "check lesson6c_blocks",
    "004_encoder_block_prenorm_gelu_padding": "check",
    "004_layernorm": "check lesson6b_norms",
    "004_layernorm_constant": "check lesson6b_norms",
    "004_positional_dot_product": "check lesson6a_positions",
    "004_positional_encoding": "check lesson6a_positions",
    "004_positional_encoding_512": "check",
    "004_positional_encoding_far": "check lesson6a_positions",
    "004_positional_shift": "check lesson6a_positions",
    "004_residual_layernorm": "check lesson6b_norms",
}


def run(command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)


def checked(clattn, folder):
    """Names of the cases that `clattn check` reproduces, and a line for each that it got wrong."""
    done = run([clattn, "check", "--json", "--allow-unsupported", folder])
    cases = json.loads(done.stdout)["cases"]
    name = lambda case: case["name"].split("/")[-1]
    wrong = [f"clattn check: {name(c)}: {c.get('why', 'numbers differ')}" for c in cases if c["result"] == "fail"]
    return {name(c) for c in cases if c["result"] == "pass"}, wrong


def compared(program, data):
    """Names that a lesson says it compared; none when it failed."""
    with tempfile.TemporaryDirectory() as pictures:
        done = run([program, data, pictures])
    if done.returncode != 0:
        return set()
    lines = done.stdout.split("examples compared:")[-1].split("\n")
    return {line.strip() for line in lines if line.startswith("  ")}


def subfolders(path):
    return {name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name))}


def main():
    clattn, root, programs = sys.argv[1], sys.argv[2], sys.argv[3:]
    golden, data = os.path.join(root, "tests/golden/seeds"), os.path.join(root, "examples/data/lessons")
    passed, findings = checked(clattn, golden)
    covers = {"check": passed}
    for program in programs:
        covers[os.path.basename(program)] = compared(program, data)
    for case, claims in sorted(CASES.items()):
        for claim in claims.split():
            if case not in covers.get(claim, set()):
                findings.append(f"{case}: {claim} does not reproduce it")
    for case in sorted((subfolders(golden) | subfolders(data)) - set(CASES)):
        findings.append(f"{case}: no row of CASES says who covers it")
    for line in findings:
        print(line)
    print(f"clattn-tests: {len(CASES)} passed, 0 failed, 0 skipped" if not findings else
          f"clattn-tests: 0 passed, {len(findings)} failed, 0 skipped")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
