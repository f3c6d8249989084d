"""Where a base runs and in which numbers, and how much memory is free there. Knows no model and no file."""

import psutil
import torch

from glmstudio.errors import StudioError

DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


def chosen_device(wish: str) -> torch.device:
    """ "auto" (CUDA where there is one) or a torch device. Raises StudioError `device-unavailable`."""
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # The first line only: torch goes on with advice for its own developers.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StudioError("device-unavailable", device=wish, reason=reason) from error
    return device


def chosen_dtype(wish: str, device: torch.device) -> torch.dtype:
    """ "auto" (bfloat16 where the device has instructions for it, else float32) or one of `DTYPES`.

    Raises StudioError `dtype-unknown`.
    """
    if wish == "auto":
        if device.type == "cuda":
            gains = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            # Without these instructions bfloat16 is emulated, several times slower than float32.
            able = torch.cpu.get_capabilities()
            gains = device.type == "cpu" and any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))
        return torch.bfloat16 if gains else torch.float32
    if wish not in DTYPES:
        raise StudioError("dtype-unknown", dtype=wish, choices=", ".join(("auto", *DTYPES)))
    return DTYPES[wish]


def free_memory(device: torch.device) -> int:
    """Bytes that a new model may take: the graphics card's free memory, or what the machine can give without paging."""
    if device.type == "cuda":
        # What torch holds and nobody uses is free, too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available


def multiplies_well() -> bool:
    """Whether torch's own products on this CPU are about as fast as oneDNN's, with packed weights or without.

    So it was on Intel's processors with AMX: in training within 5 % for 512 × 512 weights and more, within 12 % for
    128 × 512. On AMD's a product of 2 rows in float32 takes 0.7 times as long with oneDNN, one of 16 rows half with a
    copy.
    """
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
