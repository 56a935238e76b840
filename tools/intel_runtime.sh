#!/bin/sh
# Fetches Intel's OpenCL runtime for CPUs into a folder: intel_runtime.sh DIR
# Afterwards OCL_ICD_VENDORS=DIR/icd makes it the only OpenCL platform of a program. Nothing else on the system
# changes. 273 MB to fetch, 420 MB in DIR. Needs python3 with pip, on x86-64 Linux. Does nothing when DIR is ready.
#
# The runtime is proprietary software: it is fetched from its publisher's packages, never a part of clattn.
set -eu
[ $# -eq 1 ] || { echo "usage: intel_runtime.sh DIR" >&2; exit 2; }
fail() { echo "intel_runtime.sh: $*" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# The .icd file is written last, so it marks DIR as ready; a folder that was moved is made again.
[ "$(cat "$dir/icd/intel.icd" 2>/dev/null)" != "$dir/lib/libintelocl.so" ] || exit 0
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "Intel's runtime is for Linux on x86-64, this is $(uname -s) on $(uname -m)"

echo "Fetching Intel's OpenCL runtime for CPUs. It is proprietary; by using it you accept its licences:"
echo "    Intel End User License Agreement for Developer Tools  (intel-opencl-rt, intel-cmplr-lib-rt)"
echo "    Intel Simplified Software License  (tbb)"
part="$dir/part.$$"
trap 'rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$part/lib"
cat >"$part/packages" <<'END'
intel-opencl-rt==2026.2.0    --hash=sha256:6b6215a420598b4999ee01caca6d5cbe106aa4155c46c52377619c5aafce9f67
intel-cmplr-lib-rt==2026.2.0 --hash=sha256:9f713083073a820d2496a6da8e8d4f3482aba6640f74521d25ea48dcebe72748
tbb==2023.2.0                --hash=sha256:7d80615b6e970f11671fa05b6eaa9483ac864fbfe525ac280271a78b37870b7c
END
python3 -m pip download --quiet --no-input --no-deps --require-hashes --dest "$part" --requirement "$part/packages" ||
    fail "the download failed (see above): is python3-pip installed and the network reachable?"
for wheel in "$part"/*.whl; do
    python3 -m zipfile -e "$wheel" "$part/unpacked"
done
mv "$part"/unpacked/*.data/data/lib/* "$part/lib/"
# Not needed: a loader (the system has one), parts of other products and second copies.
(cd "$part/lib" && rm -f icx-lto.so libOpenCL* libcommon_clang.so libintelocl.so.2026*)

# All files stay in one folder, where each finds the others. A missing one would make the platform vanish silently.
lost=$(ldd "$part/lib/libintelocl.so" | sed -n 's/^[[:space:]]*\(.*\) => not found.*/ \1/p' | tr -d '\n')
[ -z "$lost" ] || fail "libraries are missing:$lost"
rm -rf "${dir:?}/lib" "$dir/icd"
mv "$part/lib" "$dir/lib"
mkdir "$dir/icd"
echo "$dir/lib/libintelocl.so" >"$dir/icd/intel.icd.part"
mv "$dir/icd/intel.icd.part" "$dir/icd/intel.icd"
echo "Intel's runtime is ready: OCL_ICD_VENDORS=$dir/icd"
