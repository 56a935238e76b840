#!/usr/bin/env python3
"""What an application does with clattn: test_install.py SOURCE_ROOT BUILD_ROOT

Installs the build into an empty folder, builds the smallest example with what pkg-config says, shared and static, and
runs it; then configures and builds a project that takes clattn as a Meson subproject.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

passed, failed = 0, 0


def run(name, command, **options):
    """One step; prints the output of one that fails."""
    global passed, failed
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if result.returncode == 0:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {' '.join(map(str, command))}\n{result.stdout}")
    return result.returncode == 0, result.stdout


def check(name, good, detail):
    """One claim."""
    global passed, failed
    passed, failed = (passed + 1, failed) if good else (passed, failed + 1)
    if not good:
        print(f"FAIL {name}: {detail}")


def sanitizers(build):
    """The flags of a sanitized build, which programs that link its library need too."""
    options = subprocess.run(["meson", "introspect", build, "--buildoptions"], stdout=subprocess.PIPE, text=True).stdout
    import json
    value = next(o["value"] for o in json.loads(options) if o["name"] == "b_sanitize")
    return [] if value == "none" else ["-fsanitize=" + value]


def test_pkg_config(source, build, folder):
    destination = folder / "root"
    if not run("install", ["meson", "install", "-C", build, "--no-rebuild", "--destdir", destination])[0]:
        return
    package = next(destination.rglob("clattn.pc"), None)
    check("pkg-config file", package, "no clattn.pc was installed")
    check("manual page", next(destination.rglob("clattn.1"), None), "no clattn.1 was installed")
    headers = {path.name for path in destination.rglob("*.h")}
    ours = {path.name for path in (source / "include/clattn").glob("*.h")}
    check("headers", headers == ours, f"installed {sorted(headers)}, expected {sorted(ours)}")
    if not package:
        return
    prefix = package.parent.parent
    # no sysroot variable: it would be put in front of the system's own folders too
    root = next(p for p in package.parents if (p / "include/clattn").is_dir())
    flags = [f"-I{root / 'include'}", f"-L{prefix}"]
    environment = dict(os.environ, PKG_CONFIG_PATH=str(package.parent), LD_LIBRARY_PATH=str(prefix))
    for kind in ([], ["--static"]):
        question = ["pkg-config", *kind, "--libs-only-l", "--libs-only-other", "clattn"]
        answer = subprocess.run(question, env=environment, stdout=subprocess.PIPE, text=True).stdout
        libraries = answer.split()
        name = "static" if kind else "shared"
        if kind:
            libraries = [f"-l:{'libclattn.a'}" if item == "-lclattn" else item for item in libraries]
        program = folder / name
        example = source / "examples/attention.c"
        built, _ = run(name, ["cc", "-std=c11", *sanitizers(build), example, "-o", program, *flags, *libraries])
        if built:
            _, output = run(name + " runs", [program], env=environment)
            check(name + " prints", "out[0] = 0" in output, output)


def test_subproject(source, folder):
    project = folder / "application"
    (project / "subprojects").mkdir(parents=True)
    os.symlink(source, project / "subprojects/clattn")
    shutil.copy(source / "examples/attention.c", project / "main.c")
    (project / "meson.build").write_text(
        "project('application', 'c', default_options: ['c_std=c11'])\n"
        "clattn = dependency('clattn', fallback: ['clattn'], default_options: ['cli=disabled', 'clblast=disabled'])\n"
        "executable('application', 'main.c', dependencies: clattn)\n")
    build = folder / "application-build"
    environment = {k: v for k, v in os.environ.items() if k not in ("MESON_TESTTHREADS", "PKG_CONFIG_PATH")}
    if run("subproject setup", ["meson", "setup", "--force-fallback-for=clattn", build, project], env=environment)[0]:
        if run("subproject build", ["ninja", "-C", build], env=environment)[0]:
            _, output = run("subproject runs", [build / "application"])
            check("subproject prints", "out[0] = 0" in output, output)


def main():
    source, build = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        test_pkg_config(source, build, Path(folder))
        test_subproject(source, Path(folder))
    print(f"clattn-tests: {passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
