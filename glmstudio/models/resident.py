"""One frozen base in memory and the adapters on it, LoRA and P-Tuning v2: one in training and a few finished ones.

Training and answering meet here and take turns at the gate. Knows no text, no sampling and no training loop.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_base import refuse_other_base
from glmstudio.models.adapters.adapter_files import AdapterForm, adapter_form
from glmstudio.models.adapters.adapter_shelf import AdapterShelf
from glmstudio.models.adapters.adapter_version import LOOKS, AdapterVersion, adapter_version
from glmstudio.models.adapters.adapters import fill, lora_for, take_off, unfit
from glmstudio.models.adapters.prefix import PrefixEncoder, PrefixModel, PrefixShape
from glmstudio.models.adapters.prefix_files import read_prefix
from glmstudio.models.gate import Gate
from glmstudio.models.linear_names import linear_names, stored_transposed
from glmstudio.models.mixed_rows import MixedRows, alone
from glmstudio.models.packed_weights import PackedWeights
from glmstudio.models.process_memory import mapped_bytes, own_bytes
from glmstudio.models.quantisation.quantised import parameter_count, weight_bytes, weight_places
from glmstudio.models.quantisation.quantising import prefer_answers
from glmstudio.models.slots import Entering, Step
from glmstudio.models.varlen import inside_samples
from glmstudio.settings import LoraSettings, TrainingSettings

if TYPE_CHECKING:
    from glmstudio.models.base import Base

BASE_NAME = "__base__"
IN_TRAINING = "default"
DEFAULT_SETTINGS = TrainingSettings()


def lora_targets(base: "Base", lora: LoraSettings) -> list[str]:
    """The names of the linear layers that an adapter sits on: the settings' wish, else the family's own list.

    Raises StudioError `lora-targets` for names that no linear layer of the base has. The head is none of them: its loss
    is computed outside of PEFT.
    """
    linear = linear_names(base.model)
    wanted = lora.target_modules or base.family.target_modules
    if tuple(wanted) == ("all-linear",):
        return sorted(linear)
    if unfit := sorted(set(wanted) - linear):
        raise StudioError("lora-targets", names=", ".join(unfit), source=base.source, choices=", ".join(sorted(linear)))
    return sorted(wanted)


class Resident:
    """`base` as loaded, `gate` for whoever wants to run the model. `forward` and `load` take their own turn."""

    def __init__(self, base: "Base") -> None:
        self.base = base
        self.gate = Gate()
        # Whether the turn is an answer's; whoever trains on this base may compute its own passes in another way.
        self.answering = False
        # Whether an adapter is in training, also while its run lends the turn.
        self.in_training = False
        self.base.model.requires_grad_(False).eval()
        prefer_answers(self.base.model, True)
        if self.base.device.type == "cuda":
            # cuDNN's attention, torch's first choice on Hopper cards, plans anew for every length that it has not seen:
            # a step of 2 rows of a 6B model took 65 ms with it, one of 32 rows in four parts 170 ms.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._peft: PeftModel | None = None
        self._mixed: MixedRows | None = None
        self._packed = PackedWeights()
        # Finished adapters.
        self._shelf = AdapterShelf()
        # Keys and values of the finished prefixes: (layers, 2, heads, pre_seq_len, head_dim).
        self._prefixes: dict[str, torch.Tensor] = {}

    @property
    def memory_bytes(self) -> int:
        """Main memory that the process alone holds, the base's weights with it; on a GPU what torch holds there."""
        if self.base.device.type == "cuda":
            return torch.cuda.memory_allocated(self.base.device)
        return own_bytes() + self._mapped_bytes

    @functools.cached_property
    def _mapped_bytes(self) -> int:
        """Of the base's weights, what lies in pages of their files."""
        return mapped_bytes(weight_places(self.base.model))

    # Counted once: the page asks every second, and training packs the weights in other ways meanwhile.
    @functools.cached_property
    def parameters(self) -> int:
        """Parameters of the base, without adapters."""
        return parameter_count(self.base.model)

    @functools.cached_property
    def weight_bytes(self) -> int:
        """Bytes that the base's weights take, without adapters."""
        return weight_bytes(self.base.model)

    def begin_training(
        self, lora: LoraSettings, settings: TrainingSettings = DEFAULT_SETTINGS, start: Path | None = None
    ) -> PeftModel | PrefixModel:
        """The model with a trainable adapter in float32, everything else frozen: LoRA "default", or a prefix. It is a
        fresh one, or has the weights of the one at `start`, which the settings are those of.

        For the holder of a turn, who keeps it until `end_training`. The adapter's random start comes from torch's
        global generator. Raises StudioError `lora-targets` where the base has no linear layer of a wanted name,
        `ptuning-family` where it has no plain cache.
        """
        assert not self.in_training, "another adapter is in training on this base"
        self.in_training = True
        prefer_answers(self.base.model, False)
        self.share_packed({})
        if settings.method == "ptuning":
            shape = PrefixShape.of(self.base.model.config, self.base.source)
            encoder = PrefixEncoder(shape, settings.pre_seq_len, settings.prefix_projection)
            if start is not None:
                encoder.load_state_dict(read_prefix(self.base, start).state_dict())
            return PrefixModel(self.base, encoder.to(self.base.device)).eval()
        targets = lora_targets(self.base, lora)
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=targets,
            fan_in_fan_out=stored_transposed(self.base.model, targets),
            task_type="CAUSAL_LM",
            base_model_name_or_path=str(self.base.source),
        )
        model = self._attach(IN_TRAINING, config)
        if start is not None:
            fill(model, IN_TRAINING, lora_for(self.base, adapter_form(start)))
        model.set_adapter(IN_TRAINING)
        return model

    def share_packed(self, copies: Mapping[torch.Tensor, torch.Tensor]) -> None:
        """Until `end_training` answers take these packed copies of weights and make none: the memory is the run's."""
        self._mixed, self._packed = None, PackedWeights(copies)

    def end_training(self) -> None:
        """Drops the adapter in training, if there is one; for who began it. Finished adapters stay."""
        self.in_training = False
        self._drop(IN_TRAINING)
        self._packed = PackedWeights()
        self._model.eval()
        prefer_answers(self.base.model, True)

    @contextmanager
    def holding(self, path: str | Path) -> Iterator[AdapterVersion]:
        """Keeps the finished adapter at `path` on the base for rows that ask for it by its `digest`: within, its
        weights stay those that were there at the beginning, whatever happens to the files.

        Raises StudioError as `load` does, and `adapter-changing`.
        """
        version = self._held(path)
        try:
            yield version
        finally:
            self._shelf.end_use(version.digest)

    def load(self, name: str, path: str | Path) -> None:
        """Puts the finished adapter at `path` on the base under `name`, where its content is new or changed. It stays
        until `KEPT_ADAPTERS` others were used after it.

        Raises StudioError `adapter-missing` (no adapter there), `adapter-unfit` and its kin (not for this base),
        `adapter-alone` (it cannot answer beside others in one batch), `adapters-busy` (all that are kept
        answer at this moment).
        """
        version = adapter_version(path, self._shelf.versions)
        with self.gate.turn():
            self._bring(name, version)

    def _held(self, path: str | Path) -> AdapterVersion:
        for _ in range(LOOKS):
            version = adapter_version(path, self._shelf.versions)
            with self.gate.turn():
                if self._bring_whole(version):
                    self._shelf.begin_use(version.digest)
                    return version
        raise StudioError("adapter-changing", folder=str(path))

    def _bring_whole(self, version: AdapterVersion) -> bool:
        """Under its digest; False where its files were changed before they were read."""
        fresh = not self._shelf.has(version.digest, version)
        try:
            self._bring(version.digest, version)
        except (StudioError, OSError):
            if version.is_there:
                raise
            return False
        if fresh and not version.is_there:
            self._drop(version.digest)
            return False
        return True

    def _bring(self, name: str, version: AdapterVersion) -> None:
        """For the holder of the turn."""
        if self._shelf.has(name, version):
            self._shelf.touch([name])
            return
        modes = self._modes()
        self._drop(name)
        for other in self._shelf.leaving():
            self._drop(other)
        try:
            # New LoRA layers draw random weights before the file's come in: a run's dropout must not see that.
            with torch.random.fork_rng(devices=[self.base.device] if self.base.device.type == "cuda" else []):
                self._attach_finished(name, version.form)
            self._shelf.put(name, version)
        finally:
            self._restore(modes)

    def forward(self, adapter_names: Sequence[str], **inputs: Any) -> Any:
        """One pass of the model in one turn: row i of the batch goes through `adapter_names[i]`, `"__base__"` for none.

        `inputs` are the model's own (tensors on the base's device). Evaluation mode, no gradients. Raises KeyError for
        a name that is not loaded (any more); one that is held stays.
        """
        with self._answering(adapter_names):
            if self._peft is None:
                return self.base.model(**inputs)
            rows, tokens = inputs["input_ids"].shape
            with self._rows.applied(self._lora_names(adapter_names), [tokens] * rows):
                return self.base.model(**inputs)

    def forward_slots(self, adapter_names: Sequence[str], packing: Entering | Step, **inputs: Any) -> Any:
        """As `forward`, for rows whose keys and values are in slots: row i is `packing.lengths[i]` tokens as it enters,
        and one in a step."""
        inputs |= {"past_key_values": packing, "packing": packing, "use_cache": True}
        with self._answering(adapter_names), inside_samples(self.base.model.config):
            names = self._lora_names(adapter_names)
            tokens = packing.lengths if isinstance(packing, Entering) else [1] * len(names)
            with self._rows.applied(names, tokens):
                output = self.base.model(**inputs)
            packing.done()
            return output

    def prefixes(self, adapter_names: Sequence[str]) -> list[torch.Tensor | None]:
        """What belongs into the cache of each row before its tokens, (layers, 2, heads, pre_seq_len, head_dim) in the
        base's dtype; None for a row without prefix. `forward` knows nothing of it."""
        return [self._prefixes.get(name) for name in adapter_names]

    @contextmanager
    def _answering(self, adapter_names: Sequence[str]) -> Iterator[None]:
        """A turn in which the model answers: evaluation mode, no gradients, these adapters loaded and just used."""
        with self.gate.turn():
            self._shelf.touch({*adapter_names} - {BASE_NAME})
            modes = self._modes()
            # Changing the mode walks all modules: only where a run trains.
            if any(modes):
                self._model.eval()
            self.answering = True
            try:
                with torch.no_grad():
                    yield
            finally:
                self.answering = False
                if any(modes):
                    self._restore(modes)

    @property
    def _rows(self) -> MixedRows:
        if self._mixed is None:
            self._mixed = MixedRows(self.base.model, self._packed)
        return self._mixed

    def _lora_names(self, adapter_names: Sequence[str]) -> list[str]:
        return [BASE_NAME if name in self._prefixes else name for name in adapter_names]

    @property
    def _model(self) -> Any:
        return self.base.model if self._peft is None else self._peft

    def _modes(self) -> tuple[bool, bool]:
        """Whether PEFT's wrapper and the base are in training mode: a prefix in training does not know the wrapper."""
        return self._model.training, self.base.model.training

    def _restore(self, modes: tuple[bool, bool]) -> None:
        of_all, of_base = modes
        self._model.train(of_all)
        if of_base != of_all:
            self.base.model.train(of_base)

    def _attach(self, name: str, config: PeftConfig) -> PeftModel:
        self._mixed = None
        if self._peft is None:
            self._peft = PeftModelForCausalLM(self.base.model, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)
        return self._peft

    def _attach_finished(self, name: str, form: AdapterForm) -> None:
        if form.kind == "ptuning":
            with unfit(form, self.base), torch.no_grad():
                refuse_other_base(form, self.base)
                self._prefixes[name] = read_prefix(self.base, form.path)(1, self.base.dtype)[:, :, 0].contiguous()
            return
        lora = lora_for(self.base, form)
        try:
            with unfit(form, self.base):
                model = self._attach(name, lora.config)
                fill(model, name, lora)
            if setting := alone(self.base.model, name):
                raise StudioError("adapter-alone", folder=str(form.path), setting=setting)
        except StudioError:
            self._drop(name)
            raise

    def _drop(self, name: str) -> None:
        self._shelf.remove(name)
        self._prefixes.pop(name, None)
        self._mixed = None
        if self._peft is None or name not in self._peft.peft_config:
            return
        remaining = [other for other in self._peft.peft_config if other != name]
        if not remaining:
            take_off(self.base.model)
            self._peft = None
            return
        if name in self._peft.active_adapters:
            # PEFT ignores adapter_names while no adapter is active, and would make the next one trainable.
            self._peft.set_adapter(remaining[0], inference_mode=True)
        self._peft.delete_adapter(name)
