#!/usr/bin/env python3
"""Checks who includes whom.

usage: check_layers.py [SOURCE_ROOT]

runtime/: api -> layers -> plan -> registry -> kernels -> program -> device -> ocl -> base, and
api, registry, kernels -> ref -> base; a folder includes itself and folders to its right, never one to its left, and
each folder shows the others one header.  cl/shared lies below base.  cli, examples and bench see include/clattn and
their own folder only.  CL/ headers: runtime/ocl/ocl.h, include/clattn/interop.h, and what
plays the driver (tools/card, tests/card); CLBlast: runtime/kernels/gemm_clblast.c only.  tests may see everything.
"""
import os
import re
import sys

sys.dont_write_bytecode = True
from findings import Findings, read, source_root, tree

CHAIN = ["api", "layers", "plan", "registry", "kernels", "program", "device", "ocl", "base"]
REF_USERS = {"api", "registry", "kernels", "ref"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
OPENCL_USERS = ("runtime/ocl/ocl.h", "include/clattn/interop.h", "tools/card/card.h", "tests/card/stand_in_cuda.c")
C_HEADERS = {"stddef.h", "stdint.h"}


def includes(text):
    for number, line in enumerate(text.split("\n"), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == "<", match.group(2)


def may_include(folder, target):
    if target == folder or target == "base":
        return True
    if "ref" in (folder, target):
        return target == "ref" and folder in REF_USERS
    return CHAIN.index(target) > CHAIN.index(folder)


def runtime_target(path, name):
    """The file under the root that a quoted include of a runtime file means."""
    if name.startswith("clattn/"):
        return "include/" + name
    if name.startswith("."):
        return os.path.normpath(os.path.join(os.path.dirname(path), name))
    return "runtime/" + name if "/" in name else os.path.join(os.path.dirname(path), name)


def check_runtime(findings, path, number, name, shown):
    folder = path.split("/")[1]
    target = runtime_target(path, name)
    if target.startswith("include/clattn/"):
        if target.endswith("interop.h") and folder != "api":
            findings.add(path, number, "clattn/interop.h belongs to runtime/api; use ocl/ocl.h")
    elif target.startswith("cl/shared/"):
        pass
    elif target.startswith("runtime/"):
        other = target.split("/")[1]
        if folder not in CHAIN + ["ref"] or other not in CHAIN + ["ref"]:
            findings.add(path, number, f"{name}: a folder that the order of layers does not name")
        elif not may_include(folder, other):
            findings.add(path, number, f"{folder} must not include {other} ({name})")
        elif other != folder:
            shown.setdefault(other, {}).setdefault(target, (path, number))
    else:
        findings.add(path, number, f"{name}: the library includes only include/clattn, runtime and cl/shared")


def check_own_folder(findings, root, path, number, name):
    folder = path.split("/")[0]
    if name.startswith("clattn/"):
        return
    target = os.path.normpath(os.path.join(os.path.dirname(path), name))
    if not target.startswith(folder + "/") or not os.path.exists(os.path.join(root, target)):
        findings.add(path, number, f"{name}: {folder} sees include/clattn and {folder} only")


def check_kernel(findings, path, number, name):
    allowed = {"inc": ("inc/", "shared/"), "shared": ("shared/",)}.get(path.split("/")[1], ("inc/", "shared/", "mma/"))
    if not name.startswith(allowed):
        findings.add(path, number, f"{name}: only {', '.join(allowed)} may be included here")


def check_file(findings, root, path, shown):
    top = path.split("/")[0]
    for number, system, name in includes(read(root, path)):
        if name.startswith("CL/") and path not in OPENCL_USERS:
            findings.add(path, number, f"{name}: OpenCL's headers are included by {', '.join(OPENCL_USERS)} only")
        if name.lower().startswith("clblast") and path != "runtime/kernels/gemm_clblast.c" and top != "tests":
            findings.add(path, number, f"{name}: CLBlast is included by runtime/kernels/gemm_clblast.c only")
        if top == "include":
            if name not in C_HEADERS and not name.startswith(("clattn/", "CL/")):
                findings.add(path, number, f"{name}: public headers need only clattn/, {', '.join(sorted(C_HEADERS))}")
        elif system:
            continue
        elif top == "runtime":
            check_runtime(findings, path, number, name, shown)
        elif top == "cl":
            check_kernel(findings, path, number, name)
        elif top in ("cli", "examples", "bench"):
            check_own_folder(findings, root, path, number, name)


def main():
    root, findings, shown = source_root(), Findings(), {}
    for path in tree(root, endings=(".c", ".h", ".cl", ".clh")):
        check_file(findings, root, path, shown)
        findings.done()
    for folder, headers in shown.items():
        if len(headers) > 1:
            for header, (path, number) in sorted(headers.items()):
                findings.add(path, number, f"{folder} shows several headers to others: {header}")
        findings.done()
    findings.finish()


if __name__ == "__main__":
    main()
