"""The calls of the flash kernel add up to attention inside each sample; the kernel itself runs in `test_on_cuda.py`."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from glmstudio.models import flash, varlen
from glmstudio.models.packing import Packing


def kernel(q, k, v, queries, keys, scaling, window):
    """What torch says of its kernel, by masks: the last query of a sample stands at its last key."""
    assert (queries.longest, keys.longest) == (queries.ends.diff().max(), keys.ends.diff().max())
    before, after = window
    parts = []
    for sample in range(len(queries.ends) - 1):
        of_queries, of_keys = slice(*queries.ends[sample : sample + 2]), slice(*keys.ends[sample : sample + 2])
        count, length = queries.ends.diff()[sample], keys.ends.diff()[sample]
        if count == 0:
            continue
        far = torch.arange(length)[-count:, None] - torch.arange(length)
        sees = torch.ones_like(far, dtype=torch.bool)
        sees &= (far <= before) if before >= 0 else sees
        sees &= (far >= -after) if after >= 0 else sees
        one, other, third = (part.transpose(0, 1)[None] for part in (q[of_queries], k[of_keys], v[of_keys]))
        made = F.scaled_dot_product_attention(one, other, third, attn_mask=sees, scale=scaling, enable_gqa=True)
        parts.append(made[0].transpose(0, 1))
    # The real one refuses a call without a query.
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("contexts", "continues", "window"),
    [
        ((3, 0, 1, 12), (), None),
        ((5, 9, 1, 12), (), None),
        ((0, 0, 0, 0), (), None),
        ((0, 0, 0, 0), (), 4),
        ((0, 0, 0, 0), (None, 0, None, 0), None),
        ((0, 0, 0, 0), (None, 0, None, 0), 4),
    ],
)
def test_its_calls_add_up_to_attention_inside_each_sample(contexts, continues, window, monkeypatch) -> None:
    torch.manual_seed(0)
    packing = Packing((5, 9, 1, 12), contexts, continues)
    states = [torch.randn(1, heads, 27, 8) for heads in (4, 2, 2)]
    monkeypatch.setattr(flash, "Flash", SimpleNamespace(apply=kernel))
    ours = flash.attend_all(*states, packing, 0.3, window)
    expected, _ = varlen.attend(None, *states, None, packing=packing, scaling=0.3, sliding_window=window)
    torch.testing.assert_close(ours, expected)


def test_it_is_left_alone_where_the_kernel_does_not_fit(monkeypatch) -> None:
    def fits(dtype=torch.bfloat16, size=64, cuda=True) -> bool:
        return flash.can_flash(SimpleNamespace(shape=(1, 4, 9, size), dtype=dtype, is_cuda=cuda, device="a card"))

    monkeypatch.setattr(flash, "_has_kernel", lambda device: True)
    assert fits()
    assert fits(dtype=torch.float16, size=256)
    assert not fits(dtype=torch.float32)
    assert not fits(size=60)
    assert not fits(size=320)
    assert not fits(cuda=False)
    # Cards before Ampere.
    monkeypatch.setattr(flash, "_has_kernel", lambda device: False)
    assert not fits()


@pytest.mark.parametrize("strict", [True, False])
def test_the_order_of_sums_is_kept_for_the_kernel_alone(strict: bool) -> None:
    torch.use_deterministic_algorithms(strict, warn_only=strict)
    with flash._in_order():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.are_deterministic_algorithms_enabled() == strict
    assert torch.is_deterministic_algorithms_warn_only_enabled() == strict
    torch.use_deterministic_algorithms(False)
