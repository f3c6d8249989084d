"""In which numbers a base computes: what is fast is taken, what is slow is said, on every processor and card."""

import pytest
import torch

from glmstudio import cli
from glmstudio.commands.doctor import lines
from glmstudio.models import devices, processor
from glmstudio.models.inspection.doctor import examine
from glmstudio.models.processor import has_fast_bfloat16
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.terminal import print_estimate
from glmstudio.ui.language import finding_text
from tests.tiny_base import rows, tiny_base
from tests.train.runs import checked
from tests.train.test_estimate import made

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BFLOAT16 = {True: "fast", False: "slow"}
FLOAT32 = {True: "slower", False: "only"}


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def able(request, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether processor and card have instructions for bfloat16."""
    found = frozenset({"avx2", "avx512_f", "avx512_bf16"} if request.param else {"avx2"})
    monkeypatch.setattr(processor, "instructions", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: request.param)
    return request.param


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_auto_takes_is_never_slow(device: torch.device, able: bool) -> None:
    assert devices.dtype_reason(torch.bfloat16, device) == BFLOAT16[able]
    assert devices.dtype_reason(torch.float32, device) == FLOAT32[able]
    assert devices.dtype_reason(torch.float16, device) == BFLOAT16[device == CUDA]
    assert devices.dtype_reason(devices.chosen_dtype("auto", device), device) == ("fast" if able else "only")
    assert devices.slow_numbers(devices.chosen_dtype("auto", device), device) is None
    assert devices.dtype_reason(torch.bfloat16, torch.device("meta")) == ""


def test_slow_numbers_are_told_before_a_run_and_with_the_estimate(able: bool, capsys) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        found = checked(tiny_base(dtype), rows(4), rows(2, first=9), LoraSettings(), TrainingSettings())
        warned = [item for item in found if item.code == "dtype-slow"]
        assert len(warned) == (dtype == torch.bfloat16 and not able)
        assert all("--dtype fp32" in finding_text(item, "en") for item in warned)
        assert all("bfloat16 指令" in finding_text(item, "zh") for item in warned)
        print_estimate(made(20), str(dtype).removeprefix("torch."), devices.dtype_reason(dtype, CPU))
    fast, plain = capsys.readouterr().out.splitlines()
    assert ("bfloat16 (fast here)" in fast) == able
    assert ("float32 (bfloat16 is faster here)" in plain) == able
    assert ("float32 (no instructions for bfloat16 here)" in plain) != able


def test_the_doctor_says_which_and_why(able: bool) -> None:
    taken, other = ("float32", "bfloat16")[able], ("bf16", "fp32")[able]
    (machine,) = (line for line in lines(examine("embedded", device="cpu")) if line.startswith("machine"))
    assert f"cpu, {taken} (" in machine
    found = examine("embedded", device="cpu", dtype=other)
    assert found.dtype_reason == ("slower" if able else "slow")
    assert examine("embedded", device="cpu").dtype_reason == ("fast" if able else "only")


def test_asking_in_slow_numbers_answers_and_says_so(capsys) -> None:
    """On this processor as it is."""
    command = ["compare", "--device", "cpu", "--instruction", "a", "--max-new-tokens", "2", "--dtype"]
    assert cli.main([*command, "bf16"]) == 0
    assert ("bfloat16" in capsys.readouterr().err) is not has_fast_bfloat16()
    assert cli.main([*command, "fp32"]) == 0
    assert "float32" not in capsys.readouterr().err
