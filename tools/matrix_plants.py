"""Programs that are wrong on purpose: the compile matrix must find each in each family that it is about."""
from matrix_programs import Program

# What it is: (program, families, what must be found).
PLANTS = {
    "spill": ("""__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void planted(__global float *x, int n) {
    float r[COUNT];
    _Pragma("unroll") for (int i = 0; i < COUNT; i++) r[i] = x[i * n];
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (int k = 0; k < n; k++) {
        _Pragma("unroll") for (int i = 0; i < COUNT; i++) r[i] = fma(r[i], r[(i * 7 + 1) % COUNT], x[k]);
    }
    _Pragma("unroll") for (int i = 0; i < COUNT; i++) x[i * n] = r[i];
}""", ("nvidia", "amd", "intel"), "spills|scratch memory"),
    "scratch": ("""__kernel void planted(__global float *x, int n) {
    float r[640];
    for (int i = 0; i < 640; i++) r[(i * n) % 640] = x[i];
    for (int i = 0; i < n; i++) x[i] += r[(i * 7 + (int)x[i]) % 640];
}""", ("nvidia", "amd", "intel"), "scratch memory|spills"),
    "local": ("""__kernel void planted(__global float *x) {
    __local float tile[17000];
    tile[get_local_id(0)] = x[get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    x[get_global_id(0)] = tile[((int)x[0]) % 17000];
}""", ("nvidia", "amd", "intel"), "local memory|shared data"),
    "waves": ("""__kernel __attribute__((reqd_work_group_size(32, 1, 1))) void planted(__global float *x) {
    __local float tile[11000];
    tile[get_local_id(0)] = x[get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    x[get_global_id(0)] = tile[((int)x[0]) % 11000];
}""", ("nvidia", "amd", "intel"), "waves per scheduler"),
    "subgroup": ("""__kernel __attribute__((intel_reqd_sub_group_size(16)))
void planted(__global float *x) { x[get_global_id(0)] += 1; }""", ("intel",), "sub-groups of 16; pinned to 32"),
    "matrix": ("__kernel void planted_matrix(__global float *x) { x[get_global_id(0)] += 1; }",
               ("nvidia", "amd", "intel"), "no matrix instruction"),
    "language": ("#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
                 "__kernel void planted(__global half *x) { half y = x[0]; x[0] = y + y; }", ("spirv",), "half"),
}


def written(folder, name, variant, text, options):
    path = f"{folder}/planted-{variant}.cl"
    with open(path, "w") as file:
        file.write(text)
    return Program(name, variant, "planted.cl", path, options, f"planted-{variant}")


def planted(what, folder):
    options = ["-DITEMS=256", "-DCOUNT=280"] + (["-DSUBGROUP=32"] if what == "subgroup" else [])
    return written(folder, "planted", what, PLANTS[what][0], options)


def good(folder):
    """Nothing may be found in this one."""
    return written(folder, "good", "good", "__kernel void good(__global float *x) { x[get_global_id(0)] += 1; }", [])
