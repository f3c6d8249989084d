"""Where ChatGLM-6B's tokens stand: two rows of positions, who sees whom, rotary tables. Tensors in, tensors out.

The rules are those of the official code (THUDM/chatglm-6b, v1.1). Knows no weights and no layers.
"""

import torch
from torch.nn import functional as F

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig

ROTARY_BASE = 10000.0


def position_ids_for(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, config: ChatGLMConfig
) -> torch.Tensor:
    """The two rows of positions of whole sequences.

    `input_ids` (b, s) int64; `attention_mask` (b, s) with 1 = token, or None where every id is a token. Returns
    (b, 2, s) int64. Row 0 counts the context 0, 1, 2 … from the first token, then repeats the position of the mask
    token ([gMASK] if the row has one, else [MASK], else `<sop>`); row 1 is 0 in the context and 1, 2, 3 … from the
    first `<sop>` on. Without `<sop>` the whole row is context. Continue while decoding with `next_position_ids`.
    """
    valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    index = (valid.cumsum(-1) - 1).clamp_(min=0)
    start = (input_ids == config.bos_token_id) & valid
    block = ((start.cumsum(-1) > 0) & valid).cumsum(-1)
    marker = start
    for token_id in (config.mask_token_id, config.gmask_token_id):
        found = (input_ids == token_id) & valid
        marker = torch.where(found.any(-1, keepdim=True), found, marker)
    marker_position = index.gather(-1, marker.int().argmax(-1, keepdim=True))
    return torch.stack((torch.where(block > 0, marker_position, index), block), dim=1)


def next_position_ids(position_ids: torch.Tensor) -> torch.Tensor:
    """Positions (b, 2, 1) of the token after `position_ids` (b, 2, s): row 0 stays, row 1 grows by one."""
    return position_ids[..., -1:] + torch.tensor([[0], [1]], device=position_ids.device)


def attention_bias(
    position_ids: torch.Tensor, attention_mask: torch.Tensor | None, key_length: int, dtype: torch.dtype
) -> torch.Tensor | None:
    """What is added to the attention scores, 0 or the least number of `dtype`, shape (b, 1, q, key_length).

    `position_ids` (b, 2, q) of the queries, which are the last q keys: keys with row 1 = 0 are context and seen by all,
    the others only from their own place on. `attention_mask` is (b, key_length) with 1 = token, or (b, 1, q,
    key_length) bool with True = hidden, which then holds alone. None is returned where nothing is hidden.
    """
    queries = position_ids.shape[-1]
    if attention_mask is not None and attention_mask.shape[-1] != key_length:
        raise ValueError(f"attention_mask has {attention_mask.shape[-1]} keys, the cache and the ids have {key_length}")
    if attention_mask is not None and attention_mask.dim() == 4:
        if attention_mask.dtype != torch.bool:
            raise ValueError("a 4-D attention_mask must be bool with True = hidden")
        hidden = attention_mask
    elif queries == 1:
        if attention_mask is None:
            return None
        hidden = ~attention_mask.bool()[:, None, None, :]
    else:
        place = torch.arange(key_length, device=position_ids.device)
        later = place > place[key_length - queries :, None]
        target = F.pad(position_ids[:, 1] > 0, (key_length - queries, 0), value=True)
        hidden = (later & target[:, None, :])[:, None]
        if attention_mask is not None:
            hidden = hidden | ~attention_mask.bool()[:, None, None, :]
    # A finite number, not -inf: a row that hides every key must not turn into NaN.
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, torch.finfo(dtype).min)


def rotary_tables(position_ids: torch.Tensor, head_dim: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and signed sines of the rotary embedding, both (b, s, 1, 1, head_dim) in `dtype`.

    The first half of a head turns by row 0 of `position_ids` (b, 2, s), the second by row 1. Frequencies are rounded to
    half as in the official code; in float16 the angles are half too. The sine carries the sign of the rotated half.
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=position_ids.device, dtype=torch.float32) / half
    frequencies = (ROTARY_BASE**-exponents).half()
    precision = torch.float16 if dtype == torch.float16 else torch.float32
    angles = position_ids.transpose(1, 2)[..., None].to(precision) * frequencies.to(precision)
    cos, sin = angles.cos(), angles.sin()
    cos = torch.cat((cos, cos), dim=-1).flatten(-2)
    sin = torch.cat((-sin, sin), dim=-1).flatten(-2)
    return cos[:, :, None, None].to(dtype), sin[:, :, None, None].to(dtype)
