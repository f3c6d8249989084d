"""The training loss: the decoder once, head and cross entropy only where a token bears loss. Knows tensors only."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F

from glmstudio.models.adapters.prefix import PrefixModel

# Logits that are whole at one time, in numbers: 64 MiB in float32.
LARGEST_CHUNK = 2**24


class FrozenHeadLoss(torch.autograd.Function):
    """Sum of the cross entropies of a frozen linear head, a chunk of rows at a time.

    `apply(hidden, weight, bias, targets)`: hidden (n, h), weight (vocabulary, h), bias (vocabulary,) or None, targets
    (n,) int64 → float32 scalar. The gradient (softmax - onehot) @ weight of a chunk is made while its logits are there,
    so they are neither kept nor computed again; weight and bias get none.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        rows = max(1, LARGEST_CHUNK // weight.shape[0])
        total = torch.zeros((), device=hidden.device)
        gradients = []
        for part, goal in zip(hidden.split(rows), targets[:, None].split(rows), strict=True):
            logs = F.linear(part, weight, bias).float().log_softmax(-1)
            total -= logs.gather(1, goal).sum()
            if ctx.needs_input_grad[0]:
                slope = logs.exp_()
                slope.scatter_add_(1, goal, slope.new_full(goal.shape, -1.0))
                gradients.append(slope.to(weight.dtype) @ weight)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient.to(slope.dtype), None, None, None


def target_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Sum over the target tokens of a batch from `collate`, float32.

    `model` is a PeftModel or a PrefixModel over any causal family.
    """
    head = model.get_base_model().get_output_embeddings()
    return FrozenHeadLoss.apply(_predicting(model, batch), head.weight, head.bias, batch["targets"])


def agrees_with_model(model: Any, batch: dict[str, Any]) -> bool:
    """Whether the head alone makes the model's own logits. It does not where a family scales or caps them behind it;
    training on this loss would then teach something else."""
    base = model.get_base_model()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), adapted(model):
        theirs = base(**inputs, use_cache=False).logits.flatten(0, 1).index_select(0, batch["places"])
        ours = base.get_output_embeddings()(_predicting(model, batch))
    # Put so that a broken base, whose logits are no numbers, is left to the check of the loss.
    return not (ours - theirs).abs().max() > 0.02 * theirs.abs().max()


def adapted(model: Any) -> AbstractContextManager[None]:
    """Within, the decoder of `model`'s base runs with its adapter; LoRA is part of the decoder anyway."""
    return model.in_front() if isinstance(model, PrefixModel) else nullcontext()


def _predicting(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Hidden states (n, h) of the positions whose next token bears loss."""
    decoder = model.get_base_model().get_decoder()
    with adapted(model):
        decoded = decoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    return decoded.last_hidden_state.flatten(0, 1).index_select(0, batch["places"])
