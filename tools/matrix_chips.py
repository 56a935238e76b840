"""What the compile matrix assumes of the chips: room for waves, and the rate of their instructions.

Sources: NVIDIA's CUDA Programming Guide (table of compute capabilities) and the white papers of Turing, A100, GA102,
Ada, H100 and RTX Blackwell; AMD's ISA guides and "AMD matrix cores" for CDNA, GPUOpen's articles on WMMA for RDNA 3 and
RDNA 4, LLVM's AMDGPU guide (register granules); Intel's oneAPI GPU optimization guide ("Intel Xe GPU architecture"),
the Gen9 and Xe-HPG architecture papers; bandwidth and clock from the data sheets of the products named. Nothing of it
was measured here.
"""
from dataclasses import dataclass


@dataclass
class Chip:
    product: str
    units: int          # multiprocessors, compute units, or Intel's Xe-cores (sub-slices)
    clock: float        # GHz
    bandwidth: float    # GB/s
    simds: int          # schedulers, SIMDs or vector engines that share the local memory
    most_waves: int     # on one of them
    registers: int      # of one of them: per lane
    granule: int        # registers are given out in multiples of so many
    local: int          # bytes that their groups share
    reserved: int       # bytes of it that each group costs besides
    vector: float       # clocks of a vector instruction of one wave; Intel: of 32 bytes
    special: float      # clocks of exp2, reciprocal, ...
    matrix: float       # clocks of the matrix instruction
    pair: int = 1       # multiply-adds per lane that the peak counts for one vector instruction
    beside: bool = True  # vector instructions of one wave run beside matrix instructions of another


def nvidia(product, units, clock, bandwidth, most_warps, local, vector, matrix, reserved=1024):
    return Chip(product, units, clock, bandwidth, 4, most_warps // 4, 512, 8, local * 1024, reserved, vector, 8, matrix)


def intel(product, units, clock, bandwidth, engines, threads, local, lanes, matrix):
    return Chip(product, units, clock, bandwidth, engines, threads, 128 * threads, 128, local * 1024, 0, 8 / lanes, 4,
                matrix)


CHIPS = {
    "sm_75": nvidia("TITAN RTX", 72, 1.77, 672, 32, 64, 2, 8, 0),  # m16n8k8; the others m16n8k16
    "sm_80": nvidia("A100 40 GB", 108, 1.41, 1555, 64, 164, 2, 8),
    "sm_86": nvidia("RTX 3090", 82, 1.695, 936, 48, 100, 1, 32),      # float32 sums at half rate
    "sm_89": nvidia("RTX 4090", 128, 2.52, 1008, 48, 100, 1, 32),
    "sm_90": nvidia("H100 SXM", 132, 1.83, 3350, 64, 228, 1, 4),      # wgmma's rate, which mma.sync does not reach
    "sm_120": nvidia("RTX 5090", 170, 2.41, 1792, 48, 100, 1, 32),
    "gfx900": Chip("Vega 64", 64, 1.546, 484, 4, 10, 256, 4, 65536, 0, 4, 16, 0),
    "gfx90a": Chip("MI250X", 220, 1.7, 3277, 4, 8, 512, 8, 65536, 0, 4, 16, 64, pair=2),
    "gfx942": Chip("MI300X", 304, 2.1, 5300, 4, 8, 512, 8, 65536, 0, 4, 16, 32, pair=2),
    "gfx950": Chip("MI355X", 256, 2.4, 8000, 4, 8, 512, 8, 163840, 0, 4, 16, 32, pair=2),
    # two compute units work as one: 4 SIMDs, 128 KB
    "gfx1030": Chip("RX 6900 XT", 40, 2.25, 512, 4, 16, 1024, 8, 131072, 0, 1, 4, 0),
    "gfx1100": Chip("RX 7900 XTX", 48, 2.5, 960, 4, 16, 1536, 24, 131072, 0, 1, 4, 32, pair=2, beside=False),
    "gfx1200": Chip("RX 9060 XT", 16, 3.13, 320, 4, 16, 1536, 24, 131072, 0, 1, 4, 16, pair=2, beside=False),
    "skl": intel("HD Graphics 530", 3, 1.05, 34, 8, 7, 64, 8, 0),
    "tgllp": intel("Iris Xe, 96 EU", 6, 1.35, 68, 16, 7, 128, 8, 0),
    "dg2": intel("Arc A770", 32, 2.1, 560, 16, 8, 128, 8, 16),
    "pvc": intel("Data Center GPU Max 1550", 128, 1.6, 3277, 8, 8, 128, 16, 8),
}

# Fewest waves per scheduler, of kernels that wait for memory and of those that compute on tiles in registers, and why.
# Bandwidth times 600 ns is what must be on its way at any time: 9 KB per multiprocessor of an A100, 15 KB of an H100,
# 10 KB per compute unit of MI300X, 12 KB per two of RX 7900 XTX, 15 KB per Xe-core of pvc.
FEWEST_WAVES = {
    "NVIDIA": (2, 1, "8 warps with four loads of 16 bytes each under way are 16 KB"),
    "AMD gfx9": (1, 1, "4 waves of 64 with four loads of 16 bytes each are 16 KB"),
    "AMD gfx10 to gfx12": (2, 1, "8 waves of 32 with four loads of 16 bytes each are 16 KB"),
    "Intel": (2, 1, "16 threads of 16 lanes with four loads of 16 bytes each are 16 KB"),
}
TILES = ("attn_tiled", "attn_matrix", "gemm_tiled", "gemm_matrix")


def round_up(value, unit):
    return -(-value // unit) * unit


def waves(chip, kernel):
    """Waves of one kernel that fit on a scheduler: as many as registers, local memory and the chip allow."""
    most = min(chip.most_waves, chip.registers // max(round_up(kernel.registers, chip.granule), chip.granule))
    if not kernel.items or not kernel.lanes:
        return most
    per_group = -(-kernel.items // kernel.lanes)
    groups = most * chip.simds // per_group
    if kernel.local:
        groups = min(groups, chip.local // (kernel.local + chip.reserved))
    return groups * per_group / chip.simds


def fewest_waves(family, chip, name):
    key = {"nvidia": "NVIDIA", "intel": "Intel", "amd": "AMD gfx10 to gfx12"}[family]
    return FEWEST_WAVES["AMD gfx9" if chip.startswith("gfx9") else key][name in TILES]


# Multiply-adds of one matrix instruction.
MATRIX_SIZE = {"sm_75": 16 * 8 * 8, "gfx90a": 32 * 32 * 8, "gfx942": 32 * 32 * 8, "gfx950": 32 * 32 * 16,
               "gfx1100": 16 ** 3, "gfx1200": 16 ** 3, "dg2": 8 * 8 * 16, "pvc": 8 * 16 * 16}


def float_peak(name):
    """TFLOP/s of multiply-adds in float32."""
    chip = CHIPS[name]
    lanes = {"sm": 32, "gf": 64 if name.startswith("gfx9") else 32}.get(name[:2], 8)
    return 2 * chip.units * chip.simds * chip.clock * lanes / chip.vector * chip.pair / 1e3


def matrix_peak(name):
    """TFLOP/s of the matrix engine: 16 bits, sums in float32; 0 without one."""
    chip = CHIPS[name]
    size = MATRIX_SIZE.get(name, 16 * 8 * 16)
    return 2 * chip.units * chip.simds * chip.clock * size / chip.matrix / 1e3 if chip.matrix else 0
