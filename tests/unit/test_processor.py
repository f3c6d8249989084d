"""What is said of a processor is what oneDNN does on it, whatever holds it to less than it has."""

import pytest
import torch
from torch.nn import functional as F

from glmstudio.models import processor

SILICON = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True, "avx_vnni": True, "cpu_name": "a"}


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    processor.instructions.cache_clear()
    yield
    processor.instructions.cache_clear()


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        ("", ["amx_bf16", "avx2", "avx512_bf16", "avx512_f"]),
        ("DEFAULT", ["amx_bf16", "avx2", "avx512_bf16", "avx512_f"]),
        ("AVX512_CORE_FP16", ["avx2", "avx512_bf16", "avx512_f"]),
        ("avx512_core_bf16", ["avx2", "avx512_bf16", "avx512_f"]),
        ("AVX512_CORE_VNNI", ["avx2", "avx512_f"]),
        ("AVX2_VNNI_2", ["avx2"]),
        ("SSE41", []),
    ],
)
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_the_environment_takes_instructions_away(variable: str, limit: str, left: list, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: SILICON)
    monkeypatch.setattr(processor, "onednn_takes", lambda dtype: True)
    monkeypatch.setenv(variable, limit)
    assert sorted(processor.instructions()) == left


def test_without_onednn_there_is_nothing_to_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: SILICON)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not processor.instructions()
    assert not processor.onednn_takes(torch.float32)
    assert not processor.has_fast_bfloat16()


def test_instructions_that_onednn_does_not_find_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: SILICON)
    monkeypatch.setattr(processor, "onednn_takes", lambda dtype: dtype == torch.float32)
    assert sorted(processor.instructions()) == ["avx2", "avx512_f"]
    assert not processor.has_fast_bfloat16()
    assert not processor.multiplies_well()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_onednn_is_said_to_take_it_takes(dtype: torch.dtype) -> None:
    rows, weight = torch.randn(3, 32).to(dtype), torch.randn(16, 32).to(dtype)
    try:
        result = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    except RuntimeError:
        assert not processor.onednn_takes(dtype)
    else:
        assert processor.onednn_takes(dtype)
        torch.testing.assert_close(result, F.linear(rows, weight))
