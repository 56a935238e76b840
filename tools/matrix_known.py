"""What compilers are known to make of some programs, and what it means.

Such a finding is told with its reason and counted as skipped, not as failed; everything else fails the matrix. When all
targets are compiled, a row that no finding matches any more fails it too, so that the list cannot grow stale.
"""
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    target: str   # its name, whole
    kernel: str
    variant: str  # found in the variant's name
    finding: str  # found in the finding
    reason: str


SLOWER = "slower, not wrong: more values than registers"
MEMORY = "spills|scratch memory"
ALL_TERMS = "head_dim 128, .* causal, window, softcap, ALiBi, sinks"

KNOWN = [
    Known("sm_75", "attn_matrix", "head_dim 256", "waves per scheduler",
          "slower, not wrong: queries of 256 columns leave local memory for one group of two warps"),
    Known("sm_120", "attn_matrix", "head_dim 64, .* causal, window, softcap, ALiBi, sinks", MEMORY, SLOWER + " by one"),
    Known("sm_80", "attn_tiled", ALL_TERMS, MEMORY, SLOWER + " with every term of a score at once"),
]


def known_row(target, program, finding):
    return next((row for row in KNOWN if (row.target, row.kernel) == (target.name, program.name) and
                 re.search(row.variant, program.variant) and re.search(row.finding, finding)), None)
