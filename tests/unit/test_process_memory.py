"""What the process alone holds: its own pages, and those of files only where weights lie in them."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from glmstudio.models.process_memory import mapped_bytes, own_bytes

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages of files are not told apart")


def test_a_file_that_is_mapped_counts_only_where_weights_lie_in_it(tmp_path):
    save_file({name: torch.ones(64 * MIB, dtype=torch.uint8) for name in "ab"}, tmp_path / "x.safetensors")
    before = own_bytes()
    tensors = load_file(tmp_path / "x.safetensors")
    assert all(tensor.any() for tensor in tensors.values())
    places = {tensor.data_ptr(): tensor.nbytes for tensor in tensors.values()}
    grown = own_bytes() - before + mapped_bytes(places)
    assert grown == pytest.approx(128 * MIB, abs=32 * MIB)
    # One is quantised: the other keeps the whole file in place, and what was read is no need of the process.
    own = tensors.pop("a")[:MIB].clone()
    places = {tensor.data_ptr(): tensor.nbytes for tensor in (own, tensors["b"])}
    held = own_bytes() - before + mapped_bytes(places)
    assert held == pytest.approx(65 * MIB, abs=32 * MIB)


def test_what_the_process_makes_itself_is_its_own():
    before = own_bytes()
    made = torch.ones(256 * MIB, dtype=torch.uint8)
    assert mapped_bytes({made.data_ptr(): made.nbytes}) == 0
    assert own_bytes() - before > 200 * MIB
