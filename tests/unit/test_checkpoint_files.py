"""What is in weight files without reading their numbers, and pickles that would run code."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import Header, tensor_headers, tensors

STATE = {
    "a": torch.zeros(3, 2, dtype=torch.bfloat16),
    "b": torch.zeros(4, dtype=torch.int8),
    "c": torch.zeros(1, 1, 5),
    "d": torch.zeros(2, dtype=torch.float8_e4m3fn),
    "e": torch.zeros(1, dtype=torch.bool),
}


class Runs:
    """Unpickling it calls a command; the file that it makes shows that it ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def save(file: Path, state: object, form: str) -> Path:
    if form == "safetensors":
        save_file(state, file.with_suffix(".safetensors"))
        return file.with_suffix(".safetensors")
    if form == "pickle":
        file.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    return file


@pytest.mark.parametrize("form", ["safetensors", "zip", "before zip"])
def test_headers_are_what_the_tensors_are(tmp_path, form):
    # torch reads no float8 of its older form.
    state = {name: value for name, value in STATE.items() if form != "before zip" or name != "d"}
    file = save(tmp_path / "weights.bin", state, form)
    found = tensor_headers(file)
    assert found == {name: Header(tuple(value.shape), str(value.dtype)[6:]) for name, value in tensors(file)}
    assert found.keys() == state.keys()
    assert (found["a"].dtype, found["a"].numel) == ("bfloat16", 6)


@pytest.mark.parametrize("form", ["safetensors", "zip", "before zip"])
@pytest.mark.parametrize("read", [tensor_headers, lambda file: list(tensors(file))])
def test_a_file_that_is_cut_short(tmp_path, form, read):
    file = save(tmp_path / "weights.bin", {"a": STATE["a"], "c": STATE["c"]}, form)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(StudioError, match="shard-unreadable") as caught:
        read(file)
    assert caught.value.params["file"] == str(file)


@pytest.mark.parametrize("form", ["zip", "before zip", "pickle"])
@pytest.mark.parametrize("read", [tensor_headers, lambda file: list(tensors(file))])
def test_a_pickle_that_would_run_code_is_named_and_not_run(tmp_path, form, read):
    state = {"a": torch.zeros(1), "b": Runs(tmp_path / "ran")}
    file = save(tmp_path / "weights.bin", state, form)
    with pytest.raises(StudioError, match="pickle-runs-code") as caught:
        read(file)
    assert caught.value.params["file"] == str(file)
    assert f"{os.name}.mkdir" in caught.value.params["names"]
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_object_is_no_table(tmp_path):
    file = save(tmp_path / "model.bin", torch.nn.Linear(2, 2), "zip")
    with pytest.raises(StudioError, match="pickle-runs-code") as caught:
        tensor_headers(file)
    assert caught.value.params["names"].startswith("torch.nn.modules.linear.Linear")
