"""How many positions a model has, and whether there is nothing behind them. Knows the model's tables, no rows."""

import re
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from glmstudio.models.families.table import FAMILIES

# A table, learned or computed once: `wpe.weight`, `embed_positions.weight`, `positions_embed.weight`, `pos_encoding`.
_TABLE = re.compile(r"(?:^|\.)(?:wpe|\w*pos\w*)(?:\.weight)?$")
_NAMES = ("max_sequence_length", "seq_length", "max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Positions:
    """`limit` tokens of a row have a position, 0 where nothing says how many. `table`: the model cannot count further;
    else it can (rotary), but never learned to."""

    limit: int
    table: bool


def positions_of(model: PreTrainedModel) -> Positions:
    """The positions of a loaded base, what stretches rotary ones counted."""
    config = model.config.get_text_config(decoder=True)
    named = next((value for name in _NAMES if isinstance(value := getattr(config, name, None), int)), 0)
    if named <= 0:
        # MPT makes what it adds for distance as one table.
        return Positions(getattr(config, "max_seq_len", None) or 0, table=hasattr(config, "max_seq_len"))
    # The families of the table are rotary.
    if config.model_type not in FAMILIES and (table := _table(model, named)) > 0:
        return Positions(min(named, table), table=True)
    stretch = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = stretch.get("original_max_position_embeddings") if isinstance(stretch, dict) else None
    factor = stretch.get("factor") if isinstance(stretch, dict) else None
    if isinstance(factor, int | float):
        named = max(named, int(factor * (original or named)))
    return Positions(named, table=False)


def _table(model: PreTrainedModel, named: int) -> int:
    """How many positions the shortest table of positions has; 0 where there is none."""
    values = [*model.named_parameters(), *model.named_buffers()]
    found = [value for name, value in values if value.dim() == 2 and len(value) >= named and _TABLE.search(name)]
    return min((len(value) for value in found), default=0) - _offset(model)


def _offset(model: PreTrainedModel) -> int:
    """The first rows of a table that no position has: some begin behind that of the padding."""
    for name, module in model.named_modules():
        if _TABLE.search(name) and isinstance(module, torch.nn.Embedding):
            return getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
    return 0
