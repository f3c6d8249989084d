"""The training loss: the decoder once, head and cross entropy only where a token bears loss. Knows tensors only."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from glmstudio.models.adapters.prefix import PrefixModel
from glmstudio.models.chat_format import Rendered
from glmstudio.models.resident import IN_TRAINING
from glmstudio.models.supported import head_makes_logits
from glmstudio.models.varlen import can_pack, inside_samples, is_causal, packed_inputs
from glmstudio.training.batches import collate, pack
from glmstudio.training.frozen_linears import products

# Logits that are whole at one time, in numbers: 64 MiB in float32.
LARGEST_CHUNK = 2**24


class FrozenHeadLoss(torch.autograd.Function):
    """Sum of the cross entropies of a frozen linear head, a chunk of rows at a time.

    `apply(hidden, head, targets)`: hidden (n, h), head an `nn.Linear` (vocabulary, h), targets (n,) int64 → float32
    scalar. The gradient (softmax - onehot) @ weight of a chunk is made while its logits are there, so they are neither
    kept nor computed again; weight and bias get none.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
        logits_of, gradient_of = products(head)
        rows = max(1, LARGEST_CHUNK // head.weight.shape[0])
        total = torch.zeros((), device=hidden.device)
        gradients = []
        for part, goal in zip(hidden.split(rows), targets[:, None].split(rows), strict=True):
            logits = logits_of(part)
            slope = logits.softmax(-1, dtype=torch.float32)
            # log p(goal) without a second pass of exponentials: p of the highest logit is 1 / sum, never too small.
            highest, likeliest = logits.amax(-1, keepdim=True), slope.amax(-1, keepdim=True)
            total -= (logits.gather(1, goal).float() - highest.float() + likeliest.log()).sum()
            if ctx.needs_input_grad[0]:
                slope.scatter_add_(1, goal, slope.new_full(goal.shape, -1.0))
                gradients.append(gradient_of(slope.to(hidden.dtype)))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient.to(slope.dtype), None, None


def target_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Sum over the target tokens of a batch in the model's `batch_form`, float32.

    `model` is a PeftModel or a PrefixModel over any causal family.
    """
    head = model.get_base_model().get_output_embeddings()
    return FrozenHeadLoss.apply(_predicting(model, batch), head, batch["targets"])


def agrees_with_model(model: Any, row: Rendered) -> bool:
    """Whether the head alone makes the model's own logits of `row`; training on this loss would else teach something
    else."""
    ids = torch.tensor([row.ids], device=model.get_base_model().device)
    with _behind_prefix(model):
        return head_makes_logits(model.get_base_model(), input_ids=ids, attention_mask=torch.ones_like(ids))


def batch_form(model: Any) -> Callable[[Sequence[Rendered]], dict[str, Any]]:
    """Makes the batches that `target_loss` takes for this model: packed where the family and the adapter allow it.

    A prefix is padded: its keys lie in a cache before every row, drawn anew by its dropout for each of them. What
    causal rows begin with alike is computed once, unless a dropout would draw for each of them.
    """
    if not _packs(model):
        return collate
    causal = is_causal(_decoder(model).config)
    return partial(pack, shares=causal and not model.peft_config[IN_TRAINING].lora_dropout)


def ready(model: Any) -> AbstractContextManager[None]:
    """Within, the decoder of `model`'s base runs on such batches, with its adapter; LoRA is part of it anyway."""
    return inside_samples(_decoder(model).config) if _packs(model) else _behind_prefix(model)


def _packs(model: Any) -> bool:
    return not isinstance(model, PrefixModel) and can_pack(_decoder(model).config)


def _behind_prefix(model: Any) -> AbstractContextManager[None]:
    return model.in_front() if isinstance(model, PrefixModel) else nullcontext()


def _decoder(model: Any) -> Any:
    return model.get_base_model().get_decoder()


def _predicting(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Hidden states (n, h) of the positions whose next token bears loss."""
    decoder = _decoder(model)
    if "lengths" in batch:
        inputs = packed_inputs(decoder.config, batch["input_ids"], batch["lengths"], batch["continues"])
        within = inside_samples(decoder.config)
    else:
        inputs = _padded_inputs(batch)
        within = _behind_prefix(model)
    with within:
        decoded = decoder(**inputs, use_cache=False)
    return decoded.last_hidden_state.flatten(0, 1).index_select(0, batch["places"])


def _padded_inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}
