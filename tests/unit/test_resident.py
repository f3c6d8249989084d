"""The resident base: adapters come and go, rows of one batch go through different ones, training is left alone."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from glmstudio.errors import StudioError
from glmstudio.models import resident as resident_module
from glmstudio.models.adapters.adapter_shelf import KEPT_ADAPTERS
from glmstudio.models.adapters.adapter_version import adapter_version
from glmstudio.models.loading import load_base
from glmstudio.models.resident import Resident, lora_targets
from glmstudio.settings import LoraSettings
from tests.tiny_base import tiny_base, tiny_model
from tests.tiny_families import native_folder

IDS = torch.tensor([[10, 11, 12, 3, 4, 20], [30, 31, 32, 3, 4, 21]])


@pytest.fixture
def resident() -> Resident:
    return Resident(tiny_base())


def trained_adapter(folder: Path, seed: int, lora: LoraSettings | None = None) -> Path:
    """An adapter folder as a run writes it, with weights that differ from the base's answer."""
    resident = Resident(tiny_base())
    torch.manual_seed(seed)
    with resident.gate.turn():
        model = resident.begin_training(lora or LoraSettings(r=4))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.normal_(std=0.3)
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        resident.end_training()
    return folder


def plain_logits(folder: Path | None, ids: torch.Tensor) -> torch.Tensor:
    model = tiny_model().eval()
    if folder is not None:
        model = PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_without_an_adapter_the_base_answers(resident: Resident) -> None:
    logits = resident.forward(["__base__", "__base__"], input_ids=IDS).logits
    assert torch.equal(logits, plain_logits(None, IDS))


def test_rows_of_one_batch_go_through_different_adapters(resident: Resident, tmp_path: Path) -> None:
    one, two = trained_adapter(tmp_path / "one", 1), trained_adapter(tmp_path / "two", 2)
    resident.load("one", one)
    resident.load("two", two)
    ids = IDS[:1].repeat(3, 1)
    logits = resident.forward(["two", "__base__", "one"], input_ids=ids).logits
    for row, folder in enumerate((two, None, one)):
        torch.testing.assert_close(logits[row : row + 1], plain_logits(folder, ids[:1]), atol=1e-5, rtol=0)
    assert (logits[0] - logits[2]).abs().max() > 0.01


def test_the_least_recently_used_adapter_goes(resident: Resident, tmp_path: Path) -> None:
    folder = trained_adapter(tmp_path / "a", 1)
    names = [f"run@{number}" for number in range(KEPT_ADAPTERS)]
    for name in names:
        resident.load(name, folder)
    resident.forward([names[0]], input_ids=IDS[:1])
    resident.load("newest", folder)
    resident.forward([names[0], "newest"], input_ids=IDS)
    with pytest.raises(KeyError):
        resident.forward([names[1]], input_ids=IDS[:1])


def test_an_adapter_is_read_again_only_when_its_files_change(resident: Resident, tmp_path: Path) -> None:
    folder = trained_adapter(tmp_path / "best", 1)
    resident.load("run@best", folder)
    before = resident.forward(["run@best"], input_ids=IDS[:1]).logits
    weights = resident._peft
    resident.load("run@best", folder)
    assert resident._peft is weights
    shutil.rmtree(folder)
    trained_adapter(folder, 2)
    resident.load("run@best", folder)
    after = resident.forward(["run@best"], input_ids=IDS[:1]).logits
    assert (before - after).abs().max() > 0.01


def test_a_held_adapter_keeps_its_weights_when_its_files_change(resident: Resident, tmp_path: Path) -> None:
    folder = trained_adapter(tmp_path / "best", 1)
    with resident.holding(folder) as old:
        before = resident.forward([old.digest], input_ids=IDS[:1]).logits
        shutil.rmtree(folder)
        trained_adapter(folder, 2)
        with resident.holding(folder) as new:
            both = resident.forward([old.digest, new.digest], input_ids=IDS[:1].repeat(2, 1)).logits
    torch.testing.assert_close(both[:1], before, atol=1e-5, rtol=0)
    assert (both[1] - before[0]).abs().max() > 0.01
    with resident.holding(folder) as again:
        assert again is new


def test_an_adapter_in_use_never_goes_and_more_than_fit_are_told(resident: Resident, tmp_path: Path) -> None:
    folders = [trained_adapter(tmp_path / str(number), number) for number in range(KEPT_ADAPTERS + 2)]
    with ExitStack() as held:
        names = [held.enter_context(resident.holding(folder)).digest for folder in folders[: KEPT_ADAPTERS - 1]]
        for folder in folders[KEPT_ADAPTERS - 1 :]:
            with resident.holding(folder) as passing:
                resident.forward([passing.digest, names[0]], input_ids=IDS)
        last = held.enter_context(resident.holding(folders[-1]))
        with pytest.raises(StudioError, match="adapters-busy") as told, resident.holding(folders[-2]):
            pass
        assert str(folders[0]) in told.value.params["folders"]
        with resident.holding(folders[0]) as twice:
            assert twice.digest == names[0]
        resident.forward([names[0], last.digest], input_ids=IDS)
    with resident.holding(folders[-2]):
        pass


def test_files_that_change_while_they_are_loaded_are_loaded_again(
    resident: Resident, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = trained_adapter(tmp_path / "best", 1), trained_adapter(tmp_path / "new", 2)
    read = resident_module.lora_for

    def overtaken(base: object, form: object) -> object:
        if other.exists():
            shutil.rmtree(folder)
            other.rename(folder)
        return read(base, form)

    monkeypatch.setattr(resident_module, "lora_for", overtaken)
    with resident.holding(folder) as version:
        logits = resident.forward([version.digest], input_ids=IDS[:1]).logits
    torch.testing.assert_close(logits, plain_logits(folder, IDS[:1]), atol=1e-5, rtol=0)
    assert version.digest == adapter_version(folder).digest


def test_loading_and_answering_leave_the_adapter_in_training_alone(resident: Resident, tmp_path: Path) -> None:
    folder = trained_adapter(tmp_path / "a", 1)
    with resident.gate.turn():
        torch.manual_seed(3)
        model = resident.begin_training(LoraSettings(r=4, lora_dropout=0.5))
        model.train()
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trainable
    assert all(".default." in name for name in trainable)
    random_state = torch.get_rng_state()
    for number in range(KEPT_ADAPTERS + 2):
        resident.load(f"run@{number}", folder)
        resident.forward(["__base__", f"run@{number}"], input_ids=IDS)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == trainable
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.active_adapters == ["default"]
    assert all(module.training for module in model.modules())


def test_after_training_the_finished_adapters_still_answer(resident: Resident, tmp_path: Path) -> None:
    # The finished adapter sits on fewer layers than the one in training: PEFT then forgets which one is active.
    folder = trained_adapter(tmp_path / "a", 1, LoraSettings(r=4, target_modules=("dense_4h_to_h",)))
    with resident.gate.turn():
        resident.begin_training(LoraSettings(r=4))
    resident.load("run@1", folder)
    with resident.gate.turn():
        resident.end_training()
    logits = resident.forward(["run@1", "__base__"], input_ids=IDS).logits
    torch.testing.assert_close(logits[:1], plain_logits(folder, IDS[:1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1:], plain_logits(None, IDS[1:]), atol=1e-5, rtol=0)
    assert not any(weight.requires_grad for weight in resident.base.model.parameters())


def test_without_adapters_the_base_is_as_it_was_loaded(resident: Resident) -> None:
    before = {name: type(module) for name, module in resident.base.model.named_modules()}
    with resident.gate.turn():
        resident.begin_training(LoraSettings())
        resident.end_training()
    assert {name: type(module) for name, module in resident.base.model.named_modules()} == before
    assert not resident.base.model.training
    assert torch.equal(resident.forward(["__base__"], input_ids=IDS[:1]).logits, plain_logits(None, IDS[:1]))


def test_lora_is_float32_on_a_bf16_base() -> None:
    resident = Resident(tiny_base(torch.bfloat16))
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings())
    weights = {name: weight.dtype for name, weight in model.named_parameters()}
    assert {dtype for name, dtype in weights.items() if ".lora_" in name} == {torch.float32}
    assert {dtype for name, dtype in weights.items() if ".lora_" not in name} == {torch.bfloat16}


def test_a_folder_without_an_adapter_and_one_for_another_base_are_told(resident: Resident, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="adapter-missing"):
        resident.load("none", tmp_path)
    folder = trained_adapter(tmp_path / "a", 1)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 5'))
    with pytest.raises(StudioError, match="adapter-unfit"):
        resident.load("wrong", folder)
    assert torch.equal(resident.forward(["__base__"], input_ids=IDS[:1]).logits, plain_logits(None, IDS[:1]))


def test_a_target_that_is_no_linear_layer_is_refused_before_anything_is_wrapped(resident: Resident) -> None:
    wanted = ("query_key_value", "input_layernorm", "lm_head", "typo")
    with pytest.raises(StudioError) as told, resident.gate.turn():
        resident.begin_training(LoraSettings(target_modules=wanted))
    assert told.value.params["names"] == "input_layernorm, lm_head, typo"
    assert not any("lora" in name for name, _ in resident.base.model.named_modules())


def test_all_linear_layers_but_the_head_are_found_also_beside_an_adapter(resident: Resident, tmp_path: Path) -> None:
    everything = ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]
    assert lora_targets(resident.base, LoraSettings(target_modules=("all-linear",))) == everything
    resident.load("run@1", trained_adapter(tmp_path / "a", 1))
    assert lora_targets(resident.base, LoraSettings(target_modules=("all-linear",))) == everything
    assert lora_targets(resident.base, LoraSettings()) == sorted(resident.base.family.target_modules)


def test_parameters_are_the_base_alone(resident: Resident) -> None:
    alone = resident.parameters
    with resident.gate.turn():
        resident.begin_training(LoraSettings())
    assert resident.parameters == alone
    assert resident.memory_bytes > 0


def test_an_adapter_on_a_mixture_of_experts_stays_off_the_experts(tmp_path: Path) -> None:
    folder = native_folder("glm4_moe", tmp_path / "base")
    resident = Resident(load_base(folder, device="cpu", dtype="float32"))
    attention = ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert lora_targets(resident.base, LoraSettings()) == attention
    assert lora_targets(resident.base, LoraSettings(target_modules=("all-linear",))) == attention
    with pytest.raises(StudioError, match="lora-targets"):
        lora_targets(resident.base, LoraSettings(target_modules=("gate_proj",)))
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.normal_(std=0.3)
            expected = model.eval()(input_ids=IDS).logits
        model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        resident.end_training()
    resident.load("run@1", tmp_path / "adapter")
    mixed = resident.forward(["run@1", "__base__"], input_ids=IDS).logits
    torch.testing.assert_close(mixed[0], expected[0], atol=1e-5, rtol=0)
    assert (mixed[1] - expected[1]).abs().max() > 0.01
