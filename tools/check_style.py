#!/usr/bin/env python3
"""Checks the rules of the house that a machine can see.

usage: check_style.py [SOURCE_ROOT]

All text: no tab, no trailing blank, a line break at the end, no left-over marker.
Code: lines of at most 120 characters (lists in meson.build and commands in scripts may be longer), files of at most
600 lines.
runtime/: no printing, no ending the process; the environment is read in base/os.c only.
cl/: each macro that an #error guards is described in a comment as `NAME: ...`, and each local array of a kernel is
poisoned in debug builds by a line POISON(ARRAY, ...) of its own.  No finite-math build option anywhere.
"""
import re
import sys

sys.dont_write_bytecode = True
from findings import Findings, read, source_root, tree

CODE = (".c", ".h", ".cl", ".clh", ".py", ".sh", "meson.build")
TEXT = CODE + (".md", ".txt", ".1", "meson_options.txt")
LONGEST_LINE, LONGEST_FILE = 120, 600
MARKER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
TALK = re.compile(r"\b(printf|fprintf|vprintf|vfprintf|puts|putchar|fputs|perror|abort|exit|_exit|assert)\s*\(")
GETENV = re.compile(r"\b(secure_)?getenv\s*\(")


def without_comments(text):
    """Comments and string contents blanked, line breaks kept, so that words in prose are not taken for calls."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def guarded_macros(lines):
    """(line, name) of macros in an #if that is followed by #error."""
    for number, line in enumerate(lines[:-1], 1):
        if re.match(r"\s*#\s*(if|elif)\b", line) and re.match(r"\s*#\s*error\b", lines[number]):
            condition = re.sub(r"\bdefined\b|/\*.*", "", line.split("if", 1)[1])
            for name in dict.fromkeys(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", condition)):
                yield number, name


def check_text(findings, path, lines, text):
    for number, line in enumerate(lines, 1):
        if "\t" in line:
            findings.add(path, number, "a tab; indent with spaces")
        if line != line.rstrip():
            findings.add(path, number, "blanks at the end of the line")
        if MARKER.search(line):
            findings.add(path, number, "a left-over marker: finish it or drop it")
        if path.endswith(CODE) and not path.endswith(("meson.build", ".sh")) and len(line) > LONGEST_LINE:
            findings.add(path, number, f"{len(line)} characters; the limit is {LONGEST_LINE}")
    if text and not text.endswith("\n"):
        findings.add(path, len(lines), "no line break at the end of the file")
    if path.endswith(CODE) and len(lines) > LONGEST_FILE:
        findings.add(path, len(lines), f"{len(lines)} lines; the limit is {LONGEST_FILE}: split it by reason")


def check_runtime(findings, path, text):
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        call = TALK.search(line)
        if call:
            findings.add(path, number, f"{call.group(1)}: the library neither talks nor ends the process")
        if GETENV.search(line) and path != "runtime/base/os.c":
            findings.add(path, number, "getenv: only runtime/base/os.c reads the environment")


def check_kernel(findings, path, lines, text):
    comments = "\n".join(re.findall(r"/\*.*?\*/|//[^\n]*", text, flags=re.S))
    for number, name in guarded_macros(lines):
        if not re.search(r"\b" + name + r"\b[^\n:]{0,60}:", comments):
            findings.add(path, number, f"{name} is guarded by #error but no comment describes it as `{name}: ...`")


def check_local_memory(findings, path, text):
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        declared = re.match(r"\s+__local [^=]*;", line)
        for name in re.findall(r"(\w+)\[", line if declared else ""):
            if not re.search(r"\bPOISON\(" + name + r",", text):
                findings.add(path, number, f"{name}: local memory without POISON({name}, ...) of inc/local.clh")


def main():
    root, findings = source_root(), Findings()
    for path in tree(root, endings=TEXT, top=True):
        text = read(root, path)
        lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
        check_text(findings, path, lines, text)
        if path.startswith("runtime/") and path.endswith((".c", ".h")):
            check_runtime(findings, path, text)
        if path.startswith("cl/") and path.endswith((".cl", ".clh")):
            check_kernel(findings, path, lines, text)
            check_local_memory(findings, path, text)
        if path.startswith(("runtime/", "cl/")) and re.search(r"-cl-(finite-math-only|fast-relaxed-math)", text):
            findings.add(path, 1, "masks and empty rows need infinities: never build with finite-math options")
        findings.done()
    findings.finish()


if __name__ == "__main__":
    main()
