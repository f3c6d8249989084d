"""Makes ChatGLM-6B known to transformers' Auto classes. Importing it is all; importing `loading` does it too."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer

AutoConfig.register(ChatGLMConfig.model_type, ChatGLMConfig)
AutoTokenizer.register(ChatGLMConfig, tokenizer_class=ChatGLMTokenizer)
# The official config.json names the same class for all of them.
for auto in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
    auto.register(ChatGLMConfig, ChatGLMForConditionalGeneration)
