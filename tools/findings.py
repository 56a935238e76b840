"""What the check_*.py tools share: the tree's files, a list of findings, and the last line that test runners read."""
import os
import sys

FOLDERS = ["include", "runtime", "cl", "cli", "bench", "tests", "tools", "examples", "docs"]
SKIPPED_FOLDERS = {"golden", "data", "__pycache__", "results"}


def source_root():
    """The first argument, else the tree that this file belongs to."""
    return sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def tree(root, folders=FOLDERS, endings=(), top=False):
    """Paths relative to root, sorted; with top also the files that lie in root itself."""
    paths = []
    if top:
        paths += [name for name in os.listdir(root) if os.path.isfile(os.path.join(root, name))]
    for folder in folders:
        for here, inner, names in os.walk(os.path.join(root, folder)):
            inner[:] = [name for name in inner if name not in SKIPPED_FOLDERS]
            paths += [os.path.relpath(os.path.join(here, name), root) for name in names]
    return sorted(path for path in paths if not endings or path.endswith(tuple(endings)))


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


class Findings:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.found_here = False

    def add(self, path, line, text):
        print(f"{path}:{line}: {text}")
        self.found_here = True

    def done(self):
        """Ends one checked item, usually a file."""
        if self.found_here:
            self.failed += 1
        else:
            self.passed += 1
        self.found_here = False

    def skip(self, text):
        print(f"skipped: {text}")
        self.skipped += 1

    def finish(self):
        if self.passed + self.failed == 0:
            print("nothing was checked: is the first argument the source folder?")
            self.failed = 1
        print(f"clattn-tests: {self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        sys.exit(1 if self.failed else 0)
