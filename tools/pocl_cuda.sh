#!/bin/sh
# Builds pocl with its CUDA back end, which is OpenCL for NVIDIA cards without NVIDIA's own: pocl_cuda.sh FOLDER
# FOLDER then holds pocl (lib/libpocl.so.2), LLVM and what else it links, about 250 MB; what it needs of the machine it
# runs on is the driver's libcuda.so.1, and a C library no older than this one's. As `pocl-cuda` in the folder of
# tools/field_pack.sh it is found by run.sh there. Elsewhere OCL_ICD_VENDORS=FOLDER/icd makes it the only OpenCL platform
# (moved, FOLDER needs this script once more, which then only writes the .icd file). Nothing else on the system changes;
# no root rights are needed but to renew missing package lists. For Debian 12 on x86-64 with build-essential, cmake,
# ninja-build, pkg-config, python3-pip and ocl-icd-opencl-dev. 175 MB to fetch, some minutes and 1.5 GB to build.
#
#   pocl 6.0             Debian's source package; open source
#   LLVM and clang 16    Debian; open source
#   libdevice, headers   NVIDIA's mathematics and CUDA's headers, from PyPI; proprietary, never a part of clattn
set -eu
case "${1:-}" in
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    '' | -*) echo "usage: pocl_cuda.sh FOLDER" >&2; exit 2 ;;
esac
fail() { echo "pocl_cuda.sh: $*" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
contents=1 # renewed with every change of what is built
write_icd() {
    mkdir -p "$dir/icd"
    echo "$dir/lib/libpocl.so.2" >"$dir/icd/pocl-cuda.icd"
}
[ "$(cat "$dir/ready" 2>/dev/null || true)" != "$contents" ] || { write_icd; exit 0; }
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "for Linux on x86-64; this is $(uname -s) on $(uname -m)"
for program in apt-get cmake ninja c++ pkg-config patch python3; do
    command -v "$program" >/dev/null || fail "$program is needed"
done
pkg-config --exists OpenCL || fail "OpenCL's loader is needed: ocl-icd-opencl-dev"

echo "Fetching the sources of pocl, and LLVM. Two packages are proprietary; by using them you accept their licence:"
echo "    NVIDIA Software License Agreement and CUDA Supplement  (nvidia-cuda-runtime-cu12, nvidia-cuda-nvcc-cu12)"
part="$dir/part"
rm -rf "$part"
mkdir -p "$part/debs/partial" "$part/llvm" "$part/stub"
trap 'rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM
log="$dir/build.log"

# Without package lists apt-get knows no package; renewing them is the one step that needs root rights.
apt-cache show llvm-16-dev >/dev/null 2>&1 || apt-get -q update >"$log" 2>&1 || sudo -n apt-get -q update \
    >"$log" 2>&1 || { tail -3 "$log"; fail "the package lists are missing and could not be fetched"; }
# The source package belongs to Debian 13; only what it was made from is fetched, from the machine's own mirror.
# shellcheck disable=SC2016  # the expression is apt's
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
[ -n "$mirror" ] || fail "apt knows no mirror of Debian"
/usr/lib/apt/apt-helper -q download-file "${mirror%/}/pool/main/p/pocl/pocl_6.0.orig.tar.gz" \
    "$part/pocl.tar.gz" SHA256:de9710223fc1855f833dbbf42ea2681e06aa8ec0464f0201104dc80a74dfd1f2 >"$log" 2>&1 ||
    { tail -3 "$log"; fail "the source of pocl could not be fetched"; }
tar -xzf "$part/pocl.tar.gz" -C "$part"
apt-get install -q -y --download-only --no-install-recommends -o Debug::NoLocking=1 \
    -o Dir::Cache::archives="$part/debs" clang-16 llvm-16-dev libclang-16-dev libclang-cpp16-dev >"$log" 2>&1 ||
    { tail -3 "$log"; fail "apt-get could not fetch LLVM"; }
for deb in "$part"/debs/*.deb; do dpkg -x "$deb" "$part/llvm"; done
python3 -m pip download --quiet --no-input --no-deps --require-hashes --dest "$part" --requirement /dev/stdin <<'END' ||
nvidia-cuda-runtime-cu12==12.9.79 --hash=sha256:25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
nvidia-cuda-nvcc-cu12==12.9.86 --hash=sha256:5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0
END
    fail "the download of CUDA's headers failed (see above): is the network reachable?"
for wheel in "$part"/*.whl; do python3 -m zipfile -e "$wheel" "$part/wheel"; done
cuda="$part/wheel/nvidia/cuda_runtime"
cp -R "$part/wheel/nvidia/cuda_nvcc/include/." "$cuda/include/"

# pocl 6.0 generates code for compute capability 7.5 at most and PTX 6.3, which has no mma.m16n8k16 and no cp.async; PTX
# 7.8 is what LLVM 16 knows, and drivers from 11.8 on take it for every newer card too. The size of work-groups is told
# to the assembler, the offsets of launches are set (pocl 7.1 does), and libdevice is looked for beside pocl's own files.
patch -s -p1 -d "$part/pocl-6.0" <<'END'
--- a/lib/CL/devices/cuda/pocl-cuda.c
+++ b/lib/CL/devices/cuda/pocl-cuda.c
@@ -143,0 +144 @@
+  size_t offset[3];
@@ -252 +253 @@
-  { 12000, 80 }, { 11000, 70 }, { 10000, 63 }, { 9000, 60 }, { 8000, 50 },
+  { 11080, 78 }, { 11000, 70 }, { 10000, 63 }, { 9000, 60 }, { 8000, 50 },
@@ -351 +352 @@
-      selected_sm = min (selected_sm, 75);
+      selected_sm = min (selected_sm, 90);
@@ -368 +369 @@
-  for (unsigned i = 60; i < 64; i++)
+  for (unsigned i = 60; i < 64 && selected_sm < 75; i++)
@@ -2133,0 +2135,16 @@
+    }
+
+  /* Offsets of launches are variables of the module. */
+  static const char *const offsets[]
+      = { "_global_offset_x", "_global_offset_y", "_global_offset_z" };
+  pocl_cuda_program_data_t *owner = prog->data[cmd->program_device_i];
+  for (i = 0; i < 3; i++)
+    {
+      CUdeviceptr at;
+      size_t bytes;
+      if (owner->offset[i] == pc.global_offset[i]
+          || cuModuleGetGlobal (&at, &bytes, module, offsets[i]) != CUDA_SUCCESS)
+        continue;
+      result = cuMemsetD32Async (at, pc.global_offset[i], 1, stream);
+      CUDA_CHECK_ABORT (result, "cuMemsetD32Async");
+      owner->offset[i] = pc.global_offset[i];
--- a/lib/CL/devices/cuda/pocl-ptx-gen.cc
+++ b/lib/CL/devices/cuda/pocl-ptx-gen.cc
@@ -33,0 +34 @@
+#include "pocl_util.h"
@@ -145,0 +147,3 @@
+  for (auto Name : {"_global_offset_x", "_global_offset_y", "_global_offset_z"})
+    if (auto *Offset = Module->getGlobalVariable(Name))
+      Offset->setInitializer(llvm::Constant::getNullValue(Offset->getValueType()));
@@ -241,0 +246,6 @@
+    // The required group size bounds the registers that a work-item gets.
+    if (auto *Size = Function->getMetadata("reqd_work_group_size"))
+      for (unsigned I = 0; I < 3; I++)
+        Annotations->addOperand(llvm::MDNode::get(
+            Context, {FuncMD, llvm::MDString::get(Context, std::string("reqntid") + "xyz"[I]),
+                      Size->getOperand(I)}));
@@ -574,0 +585,2 @@
+  char DataDir[POCL_MAX_PATHNAME_LENGTH];
+  pocl_get_private_datadir(DataDir);
@@ -576 +588 @@
-    pocl_get_string_option("POCL_CUDA_TOOLKIT_PATH", CUDA_TOOLKIT_ROOT_DIR),
+    pocl_get_string_option("POCL_CUDA_TOOLKIT_PATH", DataDir),
END

# The driver's library is linked by its name alone; its functions are found when pocl is loaded.
cc -shared -Wl,-soname,libcuda.so.1 -o "$part/stub/libcuda.so" -x c /dev/null
echo "Building pocl; $log tells how it goes."
build() {
    cmake -G Ninja -S "$part/pocl-6.0" -B "$part/build" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_INSTALL_PREFIX="$part/installed" -DCMAKE_INSTALL_LIBDIR=lib \
        -DWITH_LLVM_CONFIG="$part/llvm/usr/bin/llvm-config-16" -DENABLE_CUDA=ON -DENABLE_ICD=ON \
        -DENABLE_HOST_CPU_DEVICES=OFF -DENABLE_LOADABLE_DRIVERS=OFF -DENABLE_HWLOC=OFF -DENABLE_SPIRV=OFF \
        -DENABLE_TESTS=OFF -DENABLE_EXAMPLES=OFF -DENABLE_POCLCC=OFF \
        -DCUDA_TOOLKIT_ROOT_DIR="$cuda" -DCUDA_TOOLKIT_INCLUDE="$cuda/include" -DCUDA_VERSION=12.9 \
        -DCUDA_NVCC_EXECUTABLE=nvcc-is-not-used -DCUDA_cudart_static_LIBRARY="$cuda/lib/libcudart_static.a" \
        -DCMAKE_SHARED_LINKER_FLAGS="-L$part/stub -Wl,--no-as-needed -Wl,--disable-new-dtags" \
        -DCMAKE_INSTALL_RPATH="\$ORIGIN" &&
        ninja -C "$part/build" -j "$(nproc)" install
}
LD_LIBRARY_PATH="$part/llvm/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
build >"$log" 2>&1 || { grep -E 'error|Error|FAILED' "$log" | head -5; tail -3 "$log"; fail "pocl was not built; see $log"; }

# Everything it links but the C library and its dynamic linker, which belong together, and the driver's libcuda.
installed="$part/installed"
mkdir -p "$installed/share/pocl/libdevice"
cp "$part/wheel/nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc" "$installed/share/pocl/libdevice/"
ldd "$installed/lib/libpocl.so.2" | sed -n 's/.* => \(\/[^ ]*\) (.*/\1/p' | while read -r library; do
    case "$library" in
        */libc.so.* | */libm.so.* | */libdl.so.* | */libpthread.so.* | */librt.so.* | */libcuda.so.*) ;;
        *) cp -L "$library" "$installed/lib/" ;;
    esac
done
strip "$installed"/lib/*.so.*
rm -rf "${dir:?}/lib" "$dir/share" "$installed/lib/pkgconfig"
mv "$installed/lib" "$installed/share" "$dir/"
write_icd
echo "$contents" >"$dir/ready"
echo "pocl for NVIDIA cards is ready, $(du -sh "$dir/lib" | cut -f1): OCL_ICD_VENDORS=$dir/icd"
