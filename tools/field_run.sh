#!/bin/sh
# Tests and measures clattn on the devices of a machine, from the folder that tools/field_pack.sh made: run.sh [OPTION]...
#   --device SELECTOR  as `clattn devices --help` says (default: gpu)
#   --out FOLDER       where logs and results go (default: results, beside this file)
#   --limit SECONDS    for each step (default 300)
#   --quick            golden data and measurements; without the test programs and the verification
#   --card             on an NVIDIA card through CUDA's driver and the PTX in the folder card; so it is done without
#                      being asked where CUDA's driver is there and no OpenCL device answers to the selector
# Needs nothing installed but a driver; OpenCL's loader is in the folder. A driver without its .icd file is found too.
# Prints a line per step and ends with `N passed, N failed, N skipped`; a step is a test program, the verification, the
# golden data, or the measurement. The logs say more.
set -u
here=$(cd "$(dirname "$0")" && pwd)
device=gpu out=$here/results limit=300 quick='' card=''
while [ $# -gt 0 ]; do
    case "$1" in
        --device) device=${2:?--device needs a selector} && shift ;;
        --out) out=${2:?--out needs a folder} && shift ;;
        --limit) limit=${2:?--limit needs seconds} && shift ;;
        --quick) quick=1 ;;
        --card) card=1 ;;
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "run.sh: unknown option $1; see --help" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CLATTN_DEVICE="$device" CLATTN_GOLDEN_DIR="$here/golden"
export XDG_CACHE_HOME="$out/cache" POCL_CACHE_DIR="$out/cache/pocl"
mkdir -p "$POCL_CACHE_DIR"
clattn=$here/bin/clattn
passed=0 failed=0 skipped=0

# step NAME COMMAND...: the last line of its log counts; tests end with 77 when all they had was skipped.
step() {
    name=$1
    shift
    began=$(date +%s)
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    took=$(($(date +%s) - began))
    case $status in
        0) passed=$((passed + 1)) && word=passed ;;
        77) skipped=$((skipped + 1)) && word=skipped ;;
        124 | 137) failed=$((failed + 1)) && word="FAILED: not done within $limit s" ;;
        *) failed=$((failed + 1)) && word="FAILED with exit code $status" ;;
    esac
    echo "$name: $word, $took s; $(tail -n 1 "$out/$name.log" | cut -c1-150)"
    case $word in FAILED*) grep -E '^FAIL|^wrong|: error' "$out/$name.log" | head -n 5 | sed 's/^/    /' ;; esac
}

# Drivers whose .icd file is missing, as in containers: their libraries are looked for where vendors put them.
find_drivers() {
    rm -rf "${out:?}/icd"
    mkdir "$out/icd"
    cp "${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}"/*.icd "$out/icd/" 2>/dev/null
    for folder in $(echo "$LD_LIBRARY_PATH" | tr : ' ') /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib64 \
        /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib/wsl/lib /opt/rocm/lib /opt/rocm/opencl/lib \
        /usr/lib/x86_64-linux-gnu/intel-opencl; do
        for name in libnvidia-opencl.so.1 libamdocl64.so libigdrcl.so; do
            [ -e "$folder/$name" ] || continue
            cat "$out"/icd/*.icd 2>/dev/null | grep -qF "$name" || echo "$folder/$name" >"$out/icd/found-$name.icd"
        done
    done
    # Containers keep CUDA's driver where no linker looks.
    LD_LIBRARY_PATH="$LD_LIBRARY_PATH:/usr/local/nvidia/lib64:/usr/lib/wsl/lib"
    # What tools/pocl_cuda.sh built.
    if [ -e "$here/pocl-cuda/lib/libpocl.so.2" ]; then
        echo "$here/pocl-cuda/lib/libpocl.so.2" >"$out/icd/pocl-cuda.icd"
    fi
    export OCL_ICD_VENDORS="$out/icd"
}

{
    date
    uname -srm
    nvidia-smi 2>/dev/null || true
    grep -m1 'model name' /proc/cpuinfo
} >"$out/machine.log" 2>&1
has_cuda() {
    for folder in $(echo "$LD_LIBRARY_PATH" | tr : ' ') /usr/lib64 /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu; do
        [ ! -e "$folder/libcuda.so.1" ] || return 0
    done
    return 1
}

# clattn's own driver for a card that has CUDA's driver alone; programs that the pack lacks are kept for the next one.
use_card() {
    export CLATTN_CARD_PTX="$out/ptx" CLATTN_CARD_MISSING="$out/missing"
    [ -f "$here/card/ptx.tar.gz" ] || { echo "run.sh: the pack has no PTX: field_pack.sh found no compiler for it" >&2 && return 1; }
    rm -rf "${out:?}/ptx" "${out:?}/missing"
    mkdir "$out/missing"
    tar xzf "$here/card/ptx.tar.gz" -C "$out" || return 1
    echo "$here/card/libclattn_card.so" >"$out/icd/card.icd"
    device="gpu,platform=CUDA driver"
    export CLATTN_DEVICE="$device"
    echo "CUDA's driver alone: it runs $(find "$out/ptx" -name '*.ptx' | wc -l) programs that were compiled before"
}
find_drivers
if [ -z "$card" ] && ! "$clattn" devices --device "$device" >/dev/null 2>&1; then
    case "$device" in gpu*) [ ! -f "$here/card/ptx.tar.gz" ] || ! has_cuda || card=1 ;; esac
fi
[ -z "$card" ] || use_card || exit 2
echo "drivers: $(cat "$out"/icd/*.icd 2>/dev/null | tr '\n' ' ')"
"$clattn" devices --device "$device" 2>&1 | tee "$out/devices.log"
if ! "$clattn" devices --device "$device" >/dev/null 2>&1; then
    echo "no device '$device' here; $out/devices.log says what was seen"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
"$clattn" explain --device "$device" --attention 1,8,8,1024,1024,64,float16 >"$out/explain.log" 2>&1

# What says most comes first, for machines that are lent for minutes.
step golden "$clattn" check --allow-unsupported --device "$device" "$here/golden"

# Kernels alone: tensors stay on the device. One process per row, so that one failure costs one row.
measure() {
    rm -f "$out/bench.csv"
    status=0
    while read -r kind shape; do
        case "$kind" in '' | \#*) continue ;; esac
        timeout -k 5 60 "$clattn" bench --resident --seconds 0.3 --device "$device" "--$kind" "$shape" --csv "$out/row.csv" ||
            { echo "$kind $shape: exit code $?" && status=1; }
        [ -s "$out/row.csv" ] || continue
        [ -f "$out/bench.csv" ] || head -n 1 "$out/row.csv" >"$out/bench.csv"
        sed 1d "$out/row.csv" >>"$out/bench.csv"
        rm -f "$out/row.csv"
    done <"$here/field_rows.txt"
    return "$status"
}
began=$(date +%s)
if measure >"$out/bench.log" 2>&1; then
    passed=$((passed + 1))
    echo "bench: passed, $(($(date +%s) - began)) s"
else
    failed=$((failed + 1))
    echo "bench: FAILED for these: $(grep 'exit code' "$out/bench.log" | tr '\n' ';')"
fi
case "$device" in cpu*) on=cpu ;; *) on=cuda ;; esac
reason=''
command -v python3 >/dev/null || reason='there is no python3'
[ -f "$out/bench.csv" ] || reason='nothing was measured that it could repeat'
if [ -z "$reason" ]; then
    step torch python3 "$here/field_torch.py" "$out/bench.csv" "$out" --on "$on"
    sed 's/^/    /' "$out/torch.log"
else
    skipped=$((skipped + 1))
    echo "torch: skipped, since $reason"
fi
if [ -z "$quick" ]; then
    step verify "$clattn" verify --brief --device "$device"
    if [ -n "$card" ]; then
        echo "test programs: skipped, since the pack has no PTX of the sizes they try"
        skipped=$((skipped + 1))
    else
        for program in "$here"/bin/test_*; do
            step "$(basename "$program")" "$program"
        done
    fi
    # On a card the pack has the programs of the short form alone.
    [ -n "$card" ] || step verify-long "$clattn" verify --device "$device"
fi
missing=$(find "$out/missing" -name '*.cl' 2>/dev/null | wc -l)
[ "$missing" -eq 0 ] || echo "the pack lacks $missing programs that were asked for: $out/missing, for card_ptx.py --missing"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
