"""bitsandbytes' 4-bit layer with a say in how its weights stand on the CPU. Knows no model and no files.

On processors with bfloat16 instructions the library turns a weight round for answers: thirty times as fast, but no
gradient passes, and turning back rounds the scales once more. Here it does so when told, and comes back unchanged.
"""

import copy
from typing import Any

import bitsandbytes
import torch
from torch import nn

from glmstudio.models.processor import instructions

# What a turned weight asks of a layer's rows and columns.
ROWS, COLUMNS = 32, 64


class Nf4Linear(bitsandbytes.nn.Linear4bit):
    """A frozen layer of NF4 weights with doubly quantised scales, made from `layer` on `device`, computing in `dtype`.

    Its weights stand as training wants them until `prefer_answers(True)`. While they are turned, the layer's state has
    them as they stand and no scales: PEFT asks for the state of the whole model whenever an adapter comes.
    """

    def __init__(self, layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> None:
        rows, columns = layer.out_features, layer.in_features
        super().__init__(columns, rows, layer.bias is not None, compute_dtype=dtype, quant_type="nf4", device="meta")
        weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=self)
        self.weight = weight.to(device)
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.data.to(device), requires_grad=False)
        able = self.support_avx512bf16_for_cpu and "avx512_bf16" in instructions()
        able = able and device.type == "cpu" and dtype == torch.bfloat16
        self._can_turn = bool(able and rows % ROWS == 0 and columns % COLUMNS == 0)
        self.support_avx512bf16_for_cpu = False

    @property
    def turned(self) -> bool:
        """Whether the weight stands in the order of answers."""
        return bool(getattr(self.weight.quant_state, "packing_format_for_cpu", False))

    def prefer_answers(self, wish: bool) -> None:
        """Whether the next answer turns the weight round, where the machine can; if not, it is turned back now."""
        if wish and self._can_turn and not self.support_avx512bf16_for_cpu:
            self._exact_state = copy.copy(self.weight.quant_state)
        elif not wish and self.turned:
            # The library turns a weight back when its state is asked for, with scales that are rounded twice.
            super()._save_to_state_dict({}, "", False)
            self.weight.quant_state = self.quant_state = self._exact_state
        self.support_avx512bf16_for_cpu = wish and self._can_turn

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if self.turned:
            nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)
        else:
            super()._save_to_state_dict(destination, prefix, keep_vars)
