"""The chips that the compile matrix compiles for, and what of each is a limit."""
from dataclasses import dataclass


@dataclass
class Target:
    name: str
    family: str
    chip: str
    pretend: str           # the device that the programs are chosen for
    registers: int         # most per work-item; Intel: per thread
    local: int = 65536     # bytes that a group may have
    breadth: str = "tiles"  # which of its programs are compiled; see matrix_programs.is_wanted


NVIDIA = "type=gpu,vendor=NVIDIA,platform=NVIDIA CUDA,local_memory=49152,work_group=1024,compute_units=80,subgroups=0"
AMD = "type=gpu,vendor=AMD,platform=AMD,local_memory=65536,work_group=256,compute_units=40,subgroups=1,fp16=1"
INTEL = "type=gpu,vendor=Intel,platform=Intel,local_memory=65536,work_group=512,compute_units=96,subgroups=1,fp16=1"
SMALL = "type=gpu,vendor=other,platform=other,work_group={},local_memory={},compute_units=4,subgroups=0,fp16=0"
CPU = "type=cpu,vendor=other,platform=other,work_group=1024,local_memory=32768,lanes={},subgroups=0,fp16=0,name=generic"

TARGETS = [
    Target("sm_75", "nvidia", "sm_75", NVIDIA + ",name=sm_75,matrix=nv:75", 255, 49152, "family"),
    Target("sm_80", "nvidia", "sm_80", NVIDIA + ",name=sm_80,matrix=nv:80", 255, 49152, "engine"),
    Target("sm_86", "nvidia", "sm_86", NVIDIA + ",name=sm_86,matrix=nv:86", 255, 49152),
    Target("sm_89", "nvidia", "sm_89", NVIDIA + ",name=sm_89,matrix=nv:89", 255, 49152),
    Target("sm_90", "nvidia", "sm_90", NVIDIA + ",name=sm_90,matrix=nv:90", 255, 49152),
    Target("sm_120", "nvidia", "sm_120", NVIDIA + ",name=sm_120,matrix=nv:120", 255, 49152),
    Target("gfx900", "amd", "gfx900", AMD + ",name=gfx900", 256, breadth="family"),
    Target("gfx90a", "amd", "gfx90a", AMD + ",name=gfx90a,matrix=mfma32", 512),  # one file with the accumulators
    Target("gfx942", "amd", "gfx942", AMD + ",name=gfx942,matrix=mfma32", 512, breadth="engine"),
    Target("gfx950", "amd", "gfx950", AMD + ",name=gfx950,matrix=mfma32", 512),
    Target("gfx1030", "amd", "gfx1030", AMD + ",name=gfx1030", 256),
    Target("gfx1100", "amd", "gfx1100", AMD + ",name=gfx1100,matrix=wmma11", 256, breadth="engine"),
    Target("gfx1200", "amd", "gfx1200", AMD + ",name=gfx1200,matrix=wmma12", 256, breadth="engine"),
    Target("skl", "intel", "skl", INTEL + ",subgroup_lanes=8,name=skl", 128),
    Target("tgllp", "intel", "tgllp", INTEL + ",subgroup_lanes=8,name=tgllp", 128),
    Target("dg2", "intel", "dg2", INTEL + ",subgroup_lanes=8,name=dg2,matrix=dpas8", 256, breadth="family"),
    Target("pvc", "intel", "pvc", INTEL + ",subgroup_lanes=16,name=pvc,matrix=dpas16", 256, breadth="engine"),
    Target("small, 16 KB, 64 items", "amd", "gfx900", SMALL.format(64, 16384) + ",name=small", 256, 16384),
    Target("small, 32 KB, 256 items", "amd", "gfx900", SMALL.format(256, 32768) + ",name=medium", 256, 32768),
    Target("SPIR-V 1.0, 64 bits", "spirv", "spir64", SMALL.format(256, 32768) + ",name=generic", 0, breadth="all"),
    Target("SPIR-V 1.0, 32 bits", "spirv", "spir", SMALL.format(64, 16384) + ",name=generic", 0),
    Target("SPIR-V 1.0, a CPU", "spirv", "spir64", CPU.format(16), 0, breadth="all"),
    Target("SPIR-V 1.0, a CPU of 8 lanes", "spirv", "spir64", CPU.format(8), 0),
    Target("SPIR-V 1.0, a CPU of 4 lanes", "spirv", "spir64", CPU.format(4), 0),
]


def engine(target):
    """The matrix engine that the target is pretended to have, or "": "nv", "dpas8"."""
    words = dict(word.split("=") for word in target.pretend.split(","))
    return words.get("matrix", "").split(":")[0]
