"""What this processor does fast as torch uses it here: what it has, less what the environment takes away.

torch's products of bfloat16 and its packed ones come from oneDNN, which ONEDNN_MAX_CPU_ISA holds to fewer
instructions; torch itself tells only what the silicon has. Knows no model and no file.
"""

import os
from functools import cache

import torch

from glmstudio.models.torch_internals import onednn_has_bfloat16

# oneDNN's names of instruction sets, the least first, up to the last without AMX.
ISAS = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
)
# Those that make products fast, and how many of `ISAS` do not have them.
INSTRUCTIONS = {
    "avx2": ISAS.index("AVX2"),
    "avx512_f": ISAS.index("AVX512_CORE"),
    "avx512_bf16": ISAS.index("AVX512_CORE_BF16"),
    "amx_bf16": len(ISAS),
}
# Those that oneDNN was measured to gain with over torch's own products in float32, or over float32 in bfloat16.
GAINS = {torch.float32: {"avx512_f"}, torch.bfloat16: {"avx512_bf16", "amx_bf16"}}


@cache
def instructions() -> frozenset[str]:
    """Those of `INSTRUCTIONS` that oneDNN uses here; none where torch was built without it."""
    if not torch.backends.mkldnn.is_available():
        return frozenset()
    able = torch.cpu.get_capabilities()
    # The second is the older name. oneDNN, too, takes them in either case and passes over words that it does not know.
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()
    left = ISAS.index(limit) if limit in ISAS else len(ISAS)
    found = {name for name, needed in INSTRUCTIONS.items() if able.get(name) and needed <= left}
    return frozenset(found if onednn_takes(torch.bfloat16) else found - GAINS[torch.bfloat16])


def onednn_takes(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a linear layer of float32 or bfloat16 here, fast or not; of other numbers it is not asked."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and onednn_has_bfloat16())


def onednn_gains(dtype: torch.dtype) -> bool:
    """Whether oneDNN's products of this number type were measured to be faster with this processor's instructions."""
    return not GAINS.get(dtype, set()).isdisjoint(instructions())


def has_fast_bfloat16() -> bool:
    """Without instructions for it bfloat16 is converted or emulated, 3 to 4 times as slow as float32."""
    return onednn_gains(torch.bfloat16)


def multiplies_well() -> bool:
    """Whether torch's own products are about as fast as oneDNN's, with packed weights or without.

    So it was on Intel's processors with AMX: in training within 5 % for 512 × 512 weights and more, within 12 % for
    128 × 512. On AMD's a product of 2 rows in float32 takes 0.7 times as long with oneDNN, one of 16 rows half with a
    copy.
    """
    return "amx_bf16" in instructions()
