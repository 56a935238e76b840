#!/bin/sh
# Installs what is missing: deps.sh demo|test [--all-runtimes]
#   demo             what the demo needs: compiler, Meson, libraries, pocl, gnuplot
#   test             that and what the tests need
#   --all-runtimes   and what tools/intel_runtime.sh, tools/rusticl_runtime.sh and tools/run_matrix.py need
# On Debian and Ubuntu through apt-get, with sudo when not root; on other systems it prints the names of the packages
# and ends with 1. Does nothing, and quickly, when nothing is missing.
set -eu

level=${1:-}
case "$level:${2:-}" in
    demo: | test: | demo:--all-runtimes | test:--all-runtimes) ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
[ -z "${2:-}" ] || level="$level runtimes"
[ "$level" = "${level#test}" ] || level="demo $level"

have() { command -v "$1" >/dev/null 2>&1; }
pc() { pkg-config --exists "$@" 2>/dev/null; }
header() { [ -f "/usr/include/$1" ] || echo "#include <$1>" | cc -E - >/dev/null 2>&1; }
pocl() {
    [ -z "${OCL_ICD_VENDORS:-}${OCL_ICD_FILENAMES:-}" ] || return 0 # the runtime was chosen by hand
    set -- /etc/OpenCL/vendors/*pocl*.icd /usr/share/OpenCL/vendors/*pocl*.icd
    [ -e "$1" ] || [ -e "$2" ]
}
# Debian 12's packages only: elsewhere the run matrix goes without rusticl and oclgrind, and says so.
debian12() { grep -qs '^VERSION_ID="12"' /etc/os-release && have apt-get; }
oclgrind() { ! debian12 || have oclgrind; }
rusticl() { # what Mesa's OpenCL reads and loads
    ! debian12 || { [ -f /usr/lib/clc/spirv64-mesa3d-.spv ] && [ -d /usr/lib/llvm-15/lib/clang/15.0.6/include ] &&
        for name in libclang-cpp.so.15 libLLVM-15.so.1 libdrm_nouveau.so.2 libdrm_radeon.so.1 libdrm_amdgpu.so.1 \
            libsensors.so.5 libelf.so.1; do ldconfig -p | grep -q "$name" || return 1; done; }
}

# Sets `debian` and `other` to the missing packages, for Debian and for the system at hand.
look() {
    debian='' other=''
    while IFS='|' read -r set check deb fedora arch suse alpine; do
        case " $level " in *" $set "*) ;; *) continue ;; esac
        ! $check || continue
        debian="$debian $deb"
        if have dnf; then other="$other $fedora"
        elif have pacman; then other="$other $arch"
        elif have zypper; then other="$other $suse"
        elif have apk; then other="$other $alpine"
        else other="$other $deb"; fi
    done <<'END'
demo|have cc|gcc|gcc|gcc|gcc|gcc
demo|header stdio.h|libc6-dev|glibc-devel|glibc|glibc-devel|musl-dev
demo|have meson|meson|meson|meson|meson|meson
demo|have ninja|ninja-build|ninja-build|ninja|ninja|samurai
demo|have pkg-config|pkg-config|pkgconf-pkg-config|pkgconf|pkgconf-pkg-config|pkgconf
demo|pc OpenCL|ocl-icd-opencl-dev|ocl-icd-devel|ocl-icd|ocl-icd-devel|opencl-dev
demo|header CL/cl.h|opencl-headers|opencl-headers|opencl-headers|opencl-headers|opencl-headers
demo|pocl|pocl-opencl-icd|pocl|pocl|pocl|pocl
demo|pc clblast|libclblast-dev|clblast-devel|clblast|clblast-devel|clblast-dev
demo|pc libcjson|libcjson-dev|cjson-devel|cjson|cJSON-devel|cjson-dev
demo|pc libxxhash|libxxhash-dev|xxhash-devel|xxhash|xxhash-devel|xxhash-dev
demo|have gnuplot|gnuplot-nox|gnuplot|gnuplot|gnuplot|gnuplot
test|have c++|g++|gcc-c++|gcc|gcc-c++|g++
test|pc cunit|libcunit1-dev|CUnit-devel|cunit|cunit-devel|cunit-dev
test|have clang-format|clang-format|clang-tools-extra|clang|clang-tools|clang-extra-tools
test|have mandoc|mandoc|mandoc|mandoc|mandoc|mandoc
test|have python3|python3|python3|python|python3|python3
runtimes|python3 -m pip --version|python3-pip ca-certificates|python3-pip|python-pip|python3-pip|py3-pip
runtimes|oclgrind|oclgrind||||
runtimes|rusticl|libclc-15 libclang-common-15-dev libclang-cpp15 libllvm15 libdrm-nouveau2 libdrm-radeon1 libdrm-amdgpu1 libsensors5 libelf1||||
END
}

look >/dev/null 2>&1
[ -n "$debian" ] || exit 0

if ! have apt-get; then
    echo "deps.sh: please install these packages (names may differ between releases), then start again:" >&2
    echo "   $other" >&2
    case "$other" in *clblast*) echo "    clblast may be left out with meson setup -Dclblast=disabled" >&2 ;; esac
    exit 1
fi

root=''
if [ "$(id -u)" -ne 0 ]; then
    have sudo || { echo "deps.sh: as root, please run: apt-get install$debian" >&2; exit 1; }
    root='sudo'
    [ -t 0 ] || root='sudo -n' # nobody is there to type a password
fi
echo "deps.sh: installing$debian"
apt() { $root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" </dev/null; }
apt update || echo "deps.sh: the package lists could not be renewed; trying with the old ones" >&2
# shellcheck disable=SC2086  # a list of names
apt install -y --no-install-recommends $debian

look >/dev/null 2>&1
[ -z "$debian" ] || { echo "deps.sh: still missing after the installation:$debian" >&2; exit 1; }
