"""What torch, transformers and PEFT keep to themselves and is used here is where it was, and used in one file each.

A library that moves something fails here by its name; elsewhere an override that nobody calls any more says nothing.
"""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from transformers import (
    GenerationMixin,
    GlmConfig,
    PreTrainedModel,
    PreTrainedTokenizer,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.modeling_layers import GradientCheckpointingLayer

PACKAGE = Path(__file__).resolve().parents[2] / "glmstudio"
ROOMS = ("models", "training", "inference", "evaluation", "benchmarks")
INTERNALS = {"torch_internals.py", "transformers_internals.py", "peft_internals.py"}
OPERATIONS = {
    "mkldnn::_is_mkldnn_bf16_supported": "",
    "mkldnn::_reorder_linear_weight": "self batch_size",
    "mkldnn::_linear_pointwise": "X W B attr scalars algorithm",
    "aten::_unsafe_view": "self size",
    "aten::_weight_int8pack_mm": "self mat2 scales",
    "aten::_softmax_backward_data": "grad_output output dim input_dtype",
    "aten::_flash_attention_forward": "query key value cum_seq_q cum_seq_k max_q max_k dropout_p is_causal"
    " return_debug_mask scale window_size_left window_size_right seqused_k alibi_slopes block_table num_splits",
    "aten::_flash_attention_backward": "grad_out query key value out logsumexp cum_seq_q cum_seq_k max_q max_k"
    " dropout_p is_causal rng_state unused scale window_size_left window_size_right",
}
# Methods that a class here overrides or calls on itself, and how they are called.
METHODS = {
    (Trainer, "_prepare_inputs"): "inputs",
    (Trainer, "_get_grad_norm"): "model grad_norm",
    (Trainer, "_run_epoch"): "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial"
    " ignore_keys_for_eval start_time resume_from_checkpoint epochs_trained steps_trained_in_current_epoch",
    (Trainer, "_save"): "output_dir state_dict",
    (Trainer, "_save_checkpoint"): "model trial",
    (Trainer, "_save_rng_state"): "output_dir",
    (Trainer, "_load_rng_state"): "checkpoint",
    (Trainer, "_load_from_checkpoint"): "resume_from_checkpoint model",
    (GenerationMixin, "_prepare_attention_mask_for_generation"): "inputs_tensor generation_config model_kwargs",
    (GenerationMixin, "_prepare_position_ids_for_generation"): "inputs_tensor model_kwargs",
    (GenerationMixin, "_expand_inputs_for_generation"): "expand_size is_encoder_decoder input_ids model_kwargs",
    (GenerationMixin, "_update_model_kwargs_for_generation"): "outputs model_kwargs is_encoder_decoder num_new_tokens",
    (PreTrainedTokenizer, "_add_tokens"): "new_tokens special_tokens",
    (PreTrainedTokenizer, "_update_trie"): "unique_no_split_tokens",
    (PreTrainedTokenizer, "_decode"): "token_ids skip_special_tokens clean_up_tokenization_spaces kwargs",
    (PreTrainedTokenizerFast, "_decode"): "token_ids skip_special_tokens clean_up_tokenization_spaces kwargs",
    (nn.Module, "_save_to_state_dict"): "destination prefix keep_vars",
}
# Values and methods that are read or put in the place of others.
MEMBERS = (
    (GlmConfig(), "_attn_implementation"),
    (PreTrainedModel, "_keep_in_fp32_modules"),
    (PreTrainedModel, "_keep_in_fp32_modules_strict"),
    (PreTrainedModel, "_no_split_modules"),
    (PreTrainedTokenizerFast, "_encode_plus"),
    (GradientCheckpointingLayer, "_can_checkpoint_with_cache"),
    (TrainingArguments, "_setup_devices"),
    (BaseTunerLayer, "_disable_adapters"),
    (BaseTunerLayer, "_active_adapter"),
    (ModulesToSaveWrapper(nn.Linear(1, 1), "default"), "_adapters"),
    (torch.Tensor, "_is_view"),
)
# Names that a library only writes down inside of its functions.
MENTIONED = (
    (TrainingArguments, "_n_gpu"),
    (Accelerator, "_is_accelerate_prepared"),
    (Trainer, "_tr_loss"),
    (Trainer, "_globalstep_last_logged"),
    (PreTrainedTokenizer, "_added_tokens_encoder"),
    (AuxiliaryTrainingWrapper, "_adapters"),
)


@pytest.mark.parametrize(("name", "takes"), OPERATIONS.items())
def test_an_operation_of_torch_takes_what_it_took(name: str, takes: str) -> None:
    (schema,) = (found for found in torch._C._jit_get_schemas_for_operator(name) if not found.overload_name)
    assert " ".join(argument.name for argument in schema.arguments) == takes


@pytest.mark.parametrize(("place", "takes"), METHODS.items())
def test_a_method_takes_what_it_took(place: tuple[type, str], takes: str) -> None:
    kind, name = place
    assert hasattr(kind, name), f"{kind.__name__} has no {name} any more"
    parameters = [each for each in inspect.signature(getattr(kind, name)).parameters if each != "self"]
    assert " ".join(parameters) == takes


@pytest.mark.parametrize(("owner", "name"), MEMBERS)
def test_a_member_is_there(owner: object, name: str) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"


@pytest.mark.parametrize(("kind", "name"), MENTIONED)
def test_a_name_is_still_used(kind: type, name: str) -> None:
    assert name in inspect.getsource(inspect.getmodule(kind)), f"{kind.__module__} knows no {name} any more"


def test_private_members_stand_in_one_file_a_library() -> None:
    known = {name for _, name in METHODS} | {name for _, name in MENTIONED}
    wrong = []
    for path in sorted(file for room in ROOMS for file in (PACKAGE / room).rglob("*.py")):
        if path.name in INTERNALS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own |= {node.attr} if ast.unparse(node.value) == "self" else set()
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                mine = ast.unparse(node.value) in ("self", "cls", "super()", "nn.Linear") and node.attr in known
                if node.attr not in own and not mine:
                    wrong.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom):
                parts = [*node.module.split("."), *(alias.name for alias in node.names)]
                if any(part.startswith("_") and not part.startswith("__") for part in parts):
                    wrong.append(f"{path.name}:{node.lineno} {node.module}")
    assert wrong == []
