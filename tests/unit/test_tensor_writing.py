"""Safetensors files get the permissions of any other new file."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glmstudio.models.tensor_writing import save_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_umask_says_who_may_read(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.arange(3)}, tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == mode
    assert load_file(file)["a"].tolist() == [0, 1, 2]
