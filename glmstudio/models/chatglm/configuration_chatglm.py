"""The configuration of ChatGLM-6B under its official keys. Knows numbers only: no weights, no text."""

from typing import Any, ClassVar

from transformers import PreTrainedConfig

from glmstudio.models.families.names import LATER_CHATGLM_KEYS

OFFICIAL_RESIDUAL_ALPHA = (2 * 28) ** 0.5


class ChatGLMConfig(PreTrainedConfig):
    """Sizes and token ids of a ChatGLM-6B model, read from and written to the keys of the official `config.json`.

    `residual_alpha` scales the normed residual of every block. The official code computes it from 28 layers whatever
    `num_layers` says, so that is the default, and the default is not written out.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
        "layer_norm_eps": "layernorm_epsilon",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    position_encoding_2d: bool = True
    use_cache: bool = True
    bos_token_id: int | None = 130004
    eos_token_id: int | list[int] | None = 130005
    mask_token_id: int | None = 130000
    gmask_token_id: int | None = 130001
    pad_token_id: int | None = 3
    pre_seq_len: int | None = None
    prefix_projection: bool = False
    initializer_range: float = 0.02
    residual_alpha: float = OFFICIAL_RESIDUAL_ALPHA
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        # transformers reads every config of model_type "chatglm" with this class; these would lose all their sizes.
        if not LATER_CHATGLM_KEYS.isdisjoint(kwargs):
            raise ValueError("ChatGLM2, ChatGLM3 or GLM-4 in original form: load it with glmstudio or convert it")
        super().__post_init__(**kwargs)
        if not self.position_encoding_2d:
            raise ValueError("ChatGLM-6B has two rows of positions: position_encoding_2d=false is not supported")
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of 4 * num_attention_heads {self.num_attention_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_dict(self) -> dict[str, Any]:
        """The keys of the official file; `residual_alpha` only where it differs from the official one."""
        values = super().to_dict()
        if values.get("residual_alpha") == OFFICIAL_RESIDUAL_ALPHA:
            del values["residual_alpha"]
        return values
