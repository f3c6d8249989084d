"""The words of a model card in English and Chinese. Data only."""

WORDS = {
    "en": {
        "title-adapter": "{name}: adapter for {base}",
        "title-merged": "{name}: {base}, tuned",
        "intro-adapter": "A {kind} for {family} (`{base}`), made with GLM Studio. The licence of the base holds.",
        "intro-merged": "{family} (`{base}`) with a LoRA adapter merged into its weights, made with GLM Studio. The "
        "licence of the base holds.",
        "kind-lora": "LoRA adapter",
        "kind-ptuning": "P-Tuning v2 prefix",
        "training": "Training",
        "prompt": "Prompt",
        "prompt-instruction": "Style `instruction`: the text below, exactly as in training, blank at its end included.",
        "prompt-chat": "Style `chat`: the base's own dialogue; instruction and input are one message, the input on the "
        "next line.",
        "prompt-default": "No record says how this adapter was trained; the style of GLM Studio's default is shown.",
        "prompt-seen": "What the model sees, special tokens by name, and the same as token ids:",
        "scores": "Scores",
        "scores-rows": "{rows} dev rows.",
        "scores-partial": "**{rows} of {total} dev rows**: the evaluation was stopped early, and the rows that are "
        "missing are often the long and hard ones.",
        "scores-greedy": " Greedy answers.",
        "scores-drawn": " Answers drawn with temperature {temperature}.",
        "check": "Merge check",
        "check-words": "Logits of these files, loaded again, against base and adapter on {prompts} prompts "
        "({positions} positions): difference {relative:.2e} of their root mean square (allowed {tolerance:.0e} in "
        "{dtype}), at most {max_abs:.2e}; the same first choice at {agreement:.2%} of the positions. The adapter "
        "itself changes the logits by {effect:.2e}.",
        "check-lost": "**The adapter changes less than rounding does in {dtype}: merge in float32 instead.**",
        "loading": "Loading",
        "with-transformers": "With transformers and PEFT:",
        "with-transformers-merged": "With transformers alone:",
        "with-studio": "With GLM Studio:",
        "convert-first": "The adapter's layers are those of the converted base: "
        "`python -m glmstudio convert {base} FOLDER` writes it; give that folder as `base`.",
        "versions": "Versions",
        "unknown-base": "The files do not say which base this is for.",
    },
    "zh": {
        "title-adapter": "{name}：{base} 的适配器",
        "title-merged": "{name}：微调后的 {base}",
        "intro-adapter": "{family}（`{base}`）的{kind}，由 GLM Studio 训练。使用须遵守底座的许可证。",
        "intro-merged": "{family}（`{base}`）与 LoRA 适配器合并后的权重，由 GLM Studio 生成。使用须遵守底座的许可证。",
        "kind-lora": " LoRA 适配器",
        "kind-ptuning": " P-Tuning v2 前缀",
        "training": "训练",
        "prompt": "提示词",
        "prompt-instruction": "`instruction` 格式：与训练时完全相同的下列文本，包括末尾的空格。",
        "prompt-chat": "`chat` 格式：底座自己的对话格式；指令与输入是同一条消息，输入另起一行。",
        "prompt-default": "没有记录说明这个适配器的训练格式，这里是 GLM Studio 的默认格式。",
        "prompt-seen": "模型看到的内容（特殊词元写出名字），以及对应的词元编号：",
        "scores": "得分",
        "scores-rows": "{rows} 条验证数据。",
        "scores-partial": "**{total} 条验证数据中的 {rows} 条**：评测提前停止，缺少的往往是较长、较难的行。",
        "scores-greedy": "贪心解码。",
        "scores-drawn": "采样温度 {temperature}。",
        "check": "合并检查",
        "check-words": "重新加载这些文件，与“底座 + 适配器”在 {prompts} 条提示词（{positions} 个位置）上比较 logits："
        "相对均方根差 {relative:.2e}（{dtype} 允许 {tolerance:.0e}），最大差 {max_abs:.2e}，"
        "{agreement:.2%} 的位置首选相同。适配器本身使 logits 改变 {effect:.2e}。",
        "check-lost": "**适配器的改变小于 {dtype} 的舍入误差：请改用 float32 合并。**",
        "loading": "加载",
        "with-transformers": "用 transformers 和 PEFT：",
        "with-transformers-merged": "只用 transformers：",
        "with-studio": "用 GLM Studio：",
        "convert-first": "适配器对应转换后的底座：先用 `python -m glmstudio convert {base} FOLDER` 转换，"
        "再把该文件夹作为 `base`。",
        "versions": "版本",
        "unknown-base": "文件没有说明底座是哪个模型。",
    },
}
