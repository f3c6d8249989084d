"""ChatGLM-6B on today's transformers: blocks, decoder and language-model head.

Module and parameter names are those of the official checkpoint, so its files and adapters load as they are.
Token ids and tensors only: knows no text, no files, no training loop.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.positions import attention_bias, next_position_ids, position_ids_for, rotary_tables
from glmstudio.models.transformers_internals import attention_of


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention that also returns its weights (b, heads, q, keys); float32 scores, so half cannot overflow."""
    scores = query.float() @ key.float().transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class ChatGLMAttention(nn.Module):
    """Self-attention with one projection for query, key and value, laid out head by head."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary: tuple[torch.Tensor, torch.Tensor],
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, length, _ = hidden_states.shape
        mixed = self.query_key_value(hidden_states).view(batch, length, self.num_heads, 3, self.head_dim)
        cos, sin = rotary
        turned = mixed[..., :2, :]
        swapped = turned.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
        query, key = (turned * cos + swapped * sin).permute(3, 0, 2, 1, 4)
        value = mixed[..., 2, :].transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        # SDPA cannot return its weights, so whoever asks for them gets the plain path.
        name = "eager" if kwargs.get("output_attentions") else attention_of(self.config)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        context, weights = attend(
            self, query, key, value, attention_mask, scaling=self.head_dim**-0.5, is_causal=False, **kwargs
        )
        return self.dense(context.reshape(batch, length, -1)), weights


class ChatGLMMLP(nn.Module):
    """Feed-forward layer with the tanh form of GELU."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(hidden_states), approximate="tanh"))


class ChatGLMBlock(GradientCheckpointingLayer):
    """One layer; the residual is the normed input times alpha, as in the official code."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.alpha = config.residual_alpha
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMMLP(config)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.attention(normed, *args, **kwargs)
        normed = self.post_attention_layernorm(torch.add(attended, normed, alpha=self.alpha))
        return torch.add(self.mlp(normed), normed, alpha=self.alpha)


class ChatGLMPreTrainedModel(PreTrainedModel):
    """What transformers asks of every model of this family."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ChatGLMBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012
    _can_record_outputs = {"hidden_states": ChatGLMBlock, "attentions": ChatGLMAttention}  # noqa: RUF012


class ChatGLMModel(ChatGLMPreTrainedModel):
    """The decoder: ids to hidden states (b, s, hidden_size), the last ones after `final_layernorm`."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLMBlock(config, index) for index in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.word_embeddings = value

    @can_return_tuple
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Inputs as in `ChatGLMForConditionalGeneration.forward`; `last_hidden_state` is (b, s, hidden_size)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        hidden_states = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = self._position_ids(input_ids, attention_mask, past_key_values)
        if position_ids.dim() != 3:
            raise ValueError(f"position_ids are (b, 2, s), not {tuple(position_ids.shape)}")

        cached = 0 if past_key_values is None else past_key_values.get_seq_length()
        key_length = cached + hidden_states.shape[1]
        # Samples that lie end to end (`models.varlen`) tell themselves who sees whom.
        bias = None
        if "packing" not in kwargs:
            bias = attention_bias(position_ids, attention_mask, key_length, hidden_states.dtype)
        rotary = rotary_tables(position_ids, self.config.head_dim, hidden_states.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states, bias, rotary, past_key_values=past_key_values, **kwargs)
        if past_key_values is not None:
            past_key_values.chatglm_end = (key_length, position_ids[..., -1:])
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(hidden_states), past_key_values=past_key_values
        )

    def _position_ids(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, cache: Cache | None
    ) -> torch.Tensor:
        """Positions from the ids of whole sequences, or for new tokens from where the cache ended."""
        if cache is not None and cache.get_seq_length() > 0:
            length, end = getattr(cache, "chatglm_end", (None, None))
            if input_ids is None or length != cache.get_seq_length() or len(end) != len(input_ids):
                raise ValueError("the cache was changed or filled elsewhere: position_ids (b, 2, s) are needed")
            steps = torch.arange(1, input_ids.shape[1] + 1, device=end.device)
            return end + torch.stack((torch.zeros_like(steps), steps))
        if input_ids is None:
            raise ValueError("inputs_embeds need position_ids (b, 2, s): the ids that tell them are not there")
        shown = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
        return position_ids_for(input_ids, shown, self.config)


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel, GenerationMixin):
    """ChatGLM-6B with its language-model head, tied to the word embeddings."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass; the loss shifts `labels` (b, s) inside and leaves out -100.

        `input_ids` (b, s) int64, or `inputs_embeds` (b, s, hidden_size) with `position_ids`. `attention_mask` is None
        (every id is a token), 2-D (b, cached + s) with 1 = token, pads on either side, or the original's bool
        (b, 1, s, cached + s) with True = hidden. `position_ids` is (b, 2, s), by default made from ids and 2-D mask;
        with a filled cache they go on from where it ended. Returns logits (b, s or fewer, vocab) in the model's dtype.
        Raises ValueError for masks and positions that do not fit.
        """
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @staticmethod
    def create_masks_for_generate(**kwargs: Any) -> None:
        # transformers asks this for caches of fixed size only, and would hand over True = visible.
        raise ValueError("ChatGLM-6B decodes with growing caches: leave cache_implementation alone")

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: torch.Tensor, generation_config: Any, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        # No guessing from pad ids: without a mask every id is a token, in generate() as in forward().
        return torch.ones(inputs_tensor.shape[:2], dtype=torch.long, device=inputs_tensor.device)

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        return position_ids_for(inputs_tensor, model_kwargs.get("attention_mask"), self.config)

    def _expand_inputs_for_generation(self, expand_size: int = 1, **kwargs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        # transformers takes the second axis of three-dimensional positions for the batch; here it is the first.
        position_ids = kwargs.pop("position_ids", None)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        if position_ids is not None:
            model_kwargs["position_ids"] = position_ids.repeat_interleave(expand_size, dim=0)
        return input_ids, model_kwargs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        position_ids = model_kwargs.pop("position_ids")
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        model_kwargs["position_ids"] = torch.cat((position_ids, next_position_ids(position_ids)), dim=-1)
        return model_kwargs
