#!/bin/sh
# Fetches the GPU vendors' offline compilers into a folder: vendor_tools.sh DIR
# tools/compile_matrix.sh --tools DIR uses them. Nothing else on the system changes, and no root rights are needed but
# to renew missing package lists: Debian's packages are unpacked, not installed. 260 MB to fetch, 650 MB in DIR. Does
# nothing when DIR is ready.
#
#   clang, LLVM, libclc, rocm-device-libs    NVIDIA and AMD          Debian, open source
#   ocloc (intel-opencl-icd), iga64          Intel                   Debian, open source
#   llvm-spirv, spirv-val                    SPIR-V                  Debian, open source
#   zig: clang of LLVM 20, for gfx950        AMD                     PyPI, open source
#   ptxas, nvdisasm                          NVIDIA's assembler      PyPI; proprietary, for use here, never a part of clattn
set -eu
[ $# -eq 1 ] || { echo "usage: vendor_tools.sh DIR" >&2; exit 2; }
fail() { echo "vendor_tools.sh: $*" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
contents=3 # renewed with every change of what is fetched
[ "$(cat "$dir/ready" 2>/dev/null || true)" != "$contents" ] || exit 0
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "for Linux on x86-64; this is $(uname -s) on $(uname -m)"
command -v apt-get >/dev/null || fail "apt-get is needed: the compilers come from Debian's packages"

echo "Fetching offline compilers. Two programs are proprietary; by using them you accept their licence:"
echo "    NVIDIA Software License Agreement and CUDA Supplement  (ptxas, from nvidia-cuda-nvcc-cu12; nvdisasm)"
rm -rf "$dir/part"
mkdir -p "$dir/part/debs/partial" "$dir/part/root" "$dir/part/bc"
trap 'rm -rf "$dir/part"' EXIT
trap 'exit 1' HUP INT TERM

# Without package lists apt-get knows no package; renewing them is the one step that needs root rights.
apt-cache show clang-19 >/dev/null 2>&1 || apt-get -q update >"$dir/apt.log" 2>&1 || sudo -n apt-get -q update \
    >"$dir/apt.log" 2>&1 || { tail -3 "$dir/apt.log"; fail "the package lists are missing and could not be fetched"; }
# What depends on packages that are installed already is fetched without those.
apt-get install -q -y --download-only --no-install-recommends -o Debug::NoLocking=1 \
    -o Dir::Cache::archives="$dir/part/debs" clang-15 clang-19 llvm-19 libclc-15 rocm-device-libs intel-opencl-icd \
    llvm-spirv-15 spirv-tools libigc-tools >"$dir/apt.log" 2>&1 || { tail -3 "$dir/apt.log"; fail "apt-get could not fetch the packages"; }
for deb in "$dir"/part/debs/*.deb; do dpkg -x "$deb" "$dir/part/root"; done

python3 -m pip download --quiet --no-input --no-deps --require-hashes --dest "$dir/part" --requirement /dev/stdin <<'END' ||
ziglang==0.15.1 --hash=sha256:4e45994a0e608d9b16ecad255698f5557a2e24de0bd7ba9efb156ab3f3683d9a
nvidia-cuda-nvcc-cu12==12.9.86 --hash=sha256:5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0
nvidia-cuda-nvdisasm==13.5.37 --hash=sha256:d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca
END
    fail "the download of zig, ptxas and nvdisasm failed (see above): is python3-pip installed and the network reachable?"
for wheel in "$dir"/part/nvidia*.whl; do python3 -m zipfile -e "$wheel" "$dir/part/wheel"; done
# zig's wheel holds 18000 files besides
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("ziglang/zig", sys.argv[2])' \
    "$dir"/part/ziglang*.whl "$dir/part/wheel"
mv "$dir"/part/wheel/nvidia/*/bin/ptxas "$dir"/part/wheel/nvidia/*/bin/nvdisasm "$dir/part/wheel/ziglang/zig" \
    "$dir/part/root/usr/bin/"
for program in ptxas nvdisasm zig; do chmod +x "$dir/part/root/usr/bin/$program"; done

# Debian's device libraries stop before these chips; a chip's own file holds nothing but its number.
bin="$dir/part/root/usr/bin"
LD_LIBRARY_PATH="$dir/part/root/usr/lib/x86_64-linux-gnu" && export LD_LIBRARY_PATH
[ -x "$bin/llvm-dis-19" ] || bin=/usr/bin
packaged="$dir/part/root/usr/lib/x86_64-linux-gnu/amdgcn/bitcode"
[ -d "$packaged" ] || packaged=/usr/lib/x86_64-linux-gnu/amdgcn/bitcode
cp "$packaged"/*.bc "$dir/part/bc/"
while read -r known new number; do
    "$bin/llvm-dis-19" -o - "$packaged/oclc_isa_version_$known.bc" |
        sed -E "s/(ISA_version = .* i32 )[0-9]+/\1$number/" |
        "$bin/llvm-as-19" -o "$dir/part/bc/oclc_isa_version_$new.bc"
done <<'END'
1030 1100 11000
1030 1200 12000
940 942 9402
940 950 9500
END
rm -rf "${dir:?}/root" "$dir/bc"
mv "$dir/part/root" "$dir/part/bc" "$dir/"
echo "$contents" >"$dir/ready"
echo "The compilers are ready: tools/compile_matrix.sh --tools $dir"
