#!/usr/bin/env python3
"""Checks that the documents speak of what exists.

usage: check_docs.py [SOURCE_ROOT]

README.md, docs/*.md and docs/*.1: each clattn_ or CLATTN_ name must occur in include/ (clattn__ names, environment
variables and build macros: anywhere in the code), each path and relative link must lead to a file, each command after
`clattn` must have its cli/cmd_*.c, each long option in the man page must occur in cli/, and each long option of the
program must be in the man page.  The C example of README.md must be examples/attention.c, word for word.
"""
import os
import re
import sys

sys.dont_write_bytecode = True
from findings import FOLDERS, Findings, read, source_root, tree

MAN = "docs/clattn.1"
NAME = re.compile(r"\b(?:clattn|CLATTN)_\w+")
PATH = re.compile(r"(?<![\w./<>$~-])((?:[\w.-]+/)+[\w.-]*[\w])")
CODE_ENDINGS = (".c", ".h", ".cl", ".clh", ".py", ".sh", "meson.build", "meson_options.txt")
OPTION = re.compile(r'\{"([a-z][a-z-]+)",\s*(?:no|required|optional)_argument')


def words(text):
    return set(re.findall(r"\w+", text))


def known_names(root):
    public = words("".join(read(root, path) for path in tree(root, folders=["include"], endings=(".h",))))
    code = words("".join(read(root, path) for path in tree(root, endings=CODE_ENDINGS, top=True)))
    return public, code


def name_exists(name, public, code):
    if name.startswith("clattn__") or name.startswith("CLATTN_"):
        return name in code
    return name in public or name.endswith("_")  # "clattn_device_list_*" names a family


def check_paths(findings, root, path, number, line):
    for name in PATH.findall(re.sub(r"https?://\S+", "", line)):
        if name.split("/")[0] not in FOLDERS + ["clattn"] and not name.endswith(CODE_ENDINGS):
            continue
        places = [name, "include/" + name, "runtime/" + name, os.path.join(os.path.dirname(path), name)]
        if not any(os.path.exists(os.path.join(root, place)) for place in places):
            findings.add(path, number, f"{name}: no such file")


def check_links(findings, root, path, number, line):
    for target in re.findall(r"\]\(([^)#]+)", line):
        if not target.startswith(("http://", "https://")):
            if not os.path.exists(os.path.join(root, os.path.dirname(path), target)):
                findings.add(path, number, f"link to {target}: no such file")


def check_lines(findings, root, path, text, public, code, commands):
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.replace("\\-", "-").replace("\\", "")
        for name in NAME.findall(plain):
            if not name_exists(name, public, code):
                findings.add(path, number, f"{name}: no such name")
        check_paths(findings, root, path, number, plain)
        if path.endswith(".md"):
            check_links(findings, root, path, number, line)
        for command in re.findall(r"(?:^|[`$ ])clattn ([a-z]+)(?= --| [A-Z]|`|$)", plain):
            if command not in commands:
                findings.add(path, number, f"clattn {command}: no cli/cmd_{command}.c")


def check_options(findings, root):
    manual = read(root, MAN).replace("\\-", "-")
    # mdoc writes the option --json as ".Fl -json", and two of them as ".Fl v , -verbose".
    in_manual = set(re.findall(r"--([a-z][a-z-]+)", manual))
    for line in re.findall(r"^\.[^\n]*\bFl\b[^\n]*", manual, flags=re.M):
        in_manual |= set(re.findall(r"(?<= )-([a-z][a-z-]+)", line))
    for path in tree(root, folders=["cli"], endings=(".c", ".h")):
        text = read(root, path)
        for match in OPTION.finditer(text):
            if match.group(1) not in in_manual:
                findings.add(path, text.count("\n", 0, match.start()) + 1, f"--{match.group(1)} is missing in {MAN}")
        findings.done()
    program = "".join(read(root, path) for path in tree(root, folders=["cli"], endings=(".c", ".h")))
    in_program = {match.group(1) for match in OPTION.finditer(program)} | {"help", "version"}
    for name in sorted(in_manual - in_program):
        findings.add(MAN, 1, f"--{name} is described, but no command takes it")
    findings.done()


def check_example(findings, root):
    blocks = re.findall(r"```c\n(.*?)```", read(root, "README.md"), flags=re.S)
    if read(root, "examples/attention.c") not in blocks:
        findings.add("README.md", 1, "no C block equals examples/attention.c")
    findings.done()


def main():
    root, findings = source_root(), Findings()
    public, code = known_names(root)
    commands = {os.path.basename(path)[4:-2] for path in tree(root, folders=["cli"], endings=(".c",))
                if os.path.basename(path).startswith("cmd_")}
    documents = ["README.md"] + [path for path in tree(root, folders=["docs"], endings=(".md", ".1"))]
    for path in documents:
        check_lines(findings, root, path, read(root, path), public, code, commands)
        findings.done()
    check_options(findings, root)
    check_example(findings, root)
    findings.finish()


if __name__ == "__main__":
    main()
