"""Where a base runs and in which numbers, and how much memory is free there. Knows no model and no file."""

import psutil
import torch

from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.models.processor import has_fast_bfloat16

DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}
# It has instructions for them; float32, as it has none for bfloat16; float32, though bfloat16 is faster; none for them.
DTYPE_REASONS = ("fast", "only", "slower", "slow")


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
        return torch.bfloat16 if _computes_bfloat16(device) else torch.float32
    if wish not in DTYPES:
        raise StudioError("dtype-unknown", dtype=wish, choices=", ".join(("auto", *DTYPES)))
    return DTYPES[wish]


def dtype_reason(dtype: torch.dtype, device: torch.device) -> str:
    """What speaks for or against these numbers there, as one of `DTYPE_REASONS`; "" where nobody has measured."""
    if device.type not in ("cpu", "cuda"):
        return ""
    if dtype == torch.float32:
        return "slower" if _computes_bfloat16(device) else "only"
    if dtype == torch.float16:
        return "fast" if device.type == "cuda" else "slow"
    return "fast" if _computes_bfloat16(device) else "slow"


def slow_numbers(dtype: torch.dtype, device: torch.device) -> Finding | None:
    """The warning `dtype-slow` where float32 is several times as fast."""
    if dtype_reason(dtype, device) != "slow":
        return None
    params = {"dtype": str(dtype).removeprefix("torch."), "device": device.type.upper()}
    return Finding("dtype-slow", "warning", params=params)


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and has_fast_bfloat16()


def free_memory(device: torch.device) -> int:
    """Bytes that a new model may take: the graphics card's free memory, or what the machine can give without paging."""
    if device.type == "cuda":
        # What torch holds and nobody uses is free, too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available
