"""Pre-trains the embedded base from scratch: python -m glmstudio.embedded.pretrain --minutes 70 --output data/embedded

The text comes from the generator while training, every block of rows from its own seed, so the run depends on seed and
number of steps alone. The last weights are written every few minutes. Knows no LoRA and no page.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from glmstudio.data.example import join_context
from glmstudio.embedded.initialise import initialise
from glmstudio.embedded.tasks import make_row
from glmstudio.embedded.vocabulary import TextCodec, build_model
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.tensor_writing import save_tensors

STEPS_PER_MINUTE = 100  # what one core does; a run counts steps, not minutes
EVALUATION_SEED = 987_654_321
TOKENIZER = {
    "tokenizer_class": "ChatGLMTokenizer",
    "bos_token": "<sop>",
    "eos_token": "<eop>",
    "gmask_token": "[gMASK]",
    "mask_token": "[MASK]",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "num_image_tokens": 0,
    "clean_up_tokenization_spaces": False,
}


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on."""

    steps: int
    seed: int = 1
    tokens_per_step: int = 2400
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 60
    constant_share: float = 0.6
    last_share: float = 0.03
    repeats_at_first: float = 0.25
    first_steps: int = 150
    repeats: float = 0.05
    longest: int = 640
    block_rows: int = 320


@dataclass(frozen=True)
class Batch:
    """ids and mask (b, s), pads on the right; where: flat places that predict a target token; labels: those tokens."""

    ids: torch.Tensor
    mask: torch.Tensor
    where: torch.Tensor
    labels: torch.Tensor


def configuration(codec: TextCodec) -> ChatGLMConfig:
    """The sizes of the embedded base: 4 layers of 256, residual scale of its own depth."""
    return ChatGLMConfig(
        vocab_size=codec.processor.GetPieceSize(), hidden_size=256, num_layers=4, num_attention_heads=4,
        inner_hidden_size=1024, max_sequence_length=1024, residual_alpha=(2 * 4) ** 0.5, bos_token_id=codec.sop,
        eos_token_id=codec.eop, pad_token_id=codec.pad, gmask_token_id=codec.gmask,
        mask_token_id=codec.processor.PieceToId("[MASK]"),
    )  # fmt: skip


def encode_row(codec: TextCodec, row: tuple[str, str, str]) -> tuple[list[int], int]:
    """(ids of prompt, [gMASK], <sop>, target, <eop>; place of [gMASK], the first one whose next id counts)."""
    instruction, text, target = row
    prompt = codec.encode(join_context(instruction, text))
    return [*prompt, codec.gmask, codec.sop, *codec.encode(target), codec.eop], len(prompt)


def collate(rows: list[tuple[list[int], int]], pad: int) -> Batch:
    """Rows of ids in one rectangle."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in rows])
    where = [n * width + place for n, (row, start) in enumerate(rows) for place in range(start, len(row) - 1)]
    labels = [token for row, start in rows for token in row[start + 1 :]]
    return Batch(ids, mask, torch.tensor(where), torch.tensor(labels))


def batches(codec: TextCodec, recipe: Recipe, seed: int, start: int = 0) -> Iterator[Batch]:
    """Batches of about tokens_per_step tokens, rows of like length together; block n of rows has the seed (seed, n)."""
    step, block = start, 0
    while True:
        r = Random(f"{seed} {block}")
        repeats = recipe.repeats_at_first if step < recipe.first_steps else recipe.repeats
        rows = (encode_row(codec, make_row(r, repeats)) for _ in range(recipe.block_rows))
        ordered = sorted((row for row in rows if len(row[0]) <= recipe.longest), key=lambda row: len(row[0]))
        groups, group = [], []
        for row in ordered:
            if group and (len(group) + 1) * len(row[0]) > recipe.tokens_per_step:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        r.shuffle(groups)
        for group in groups:
            yield collate(group, codec.pad)
        step += len(groups)
        block += 1


def answer_loss(model: ChatGLMForConditionalGeneration, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean cross entropy over the target tokens, share of them that the model puts first)."""
    hidden = model.transformer(batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[batch.where]).float()
    return F.cross_entropy(logits, batch.labels), (logits.detach().argmax(-1) == batch.labels).float().mean()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, then constant, then linear to last_share of it."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    decay = max(0.0, step / recipe.steps - recipe.constant_share) / (1 - recipe.constant_share)
    return recipe.learning_rate * (1 - (1 - recipe.last_share) * decay)


def save(model: ChatGLMForConditionalGeneration, codec_model: bytes, recipe: Recipe, step: int, output: Path) -> None:
    """The model folder: float16 weights without the tied head, vocabulary, the recipe and the step it stands at."""
    output.mkdir(parents=True, exist_ok=True)
    half = {name: weight.half() for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    save_tensors(half, output / "model.safetensors")
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float16"}
    (output / "ice_text.model").write_bytes(codec_model)
    records = {"config": config, "tokenizer_config": TOKENIZER, "recipe": asdict(recipe) | {"step": step}}
    for name, record in records.items():
        (output / f"{name}.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def evaluate(model: ChatGLMForConditionalGeneration, held_out: list[Batch], autocast: bool) -> list[float]:
    """Mean loss and token accuracy over the held-out batches."""
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        pairs = [answer_loss(model, batch) for batch in held_out]
    model.train()
    return _means([(float(loss), float(accuracy)) for loss, accuracy in pairs])


def _means(pairs: list[tuple[float, float]]) -> list[float]:
    return [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]


def make_optimizer(model: ChatGLMForConditionalGeneration, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays the matrices of the layers; vectors and embeddings not, or rare characters would fade."""
    matrices = [p for p in model.transformer.layers.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def start_model(codec: TextCodec, recipe: Recipe, start_from: Path | None) -> ChatGLMForConditionalGeneration:
    """The model in training mode: with the initialisation of its own, or with the weights of the folder start_from."""
    model = ChatGLMForConditionalGeneration(configuration(codec))
    initialise(model, recipe.seed)
    if start_from is not None:
        weights = {name: weight.float() for name, weight in load_file(start_from / "model.safetensors").items()}
        weights["lm_head.weight"] = weights["transformer.word_embeddings.weight"]
        model.load_state_dict(weights)
    model.set_attn_implementation("eager")  # on short rows half the time of SDPA on a CPU
    return model.train()


def pretrain(
    recipe: Recipe,
    output: Path,
    *,
    start_from: Path | None = None,
    autocast: bool = True,
    save_every: int = 500,
    report_every: int = 100,
) -> None:
    """Trains, prints loss, token accuracy and tokens per second, and leaves the model folder in output."""
    codec_model = build_model()
    codec = TextCodec(codec_model)
    model = start_model(codec, recipe, start_from)
    optimizer = make_optimizer(model, recipe)
    held_out = list(islice(batches(codec, recipe, EVALUATION_SEED, recipe.first_steps), 12))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {recipe}", flush=True)
    tokens, recent, began = 0, [], time.monotonic()
    for step, batch in enumerate(islice(batches(codec, recipe, recipe.seed), recipe.steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step - 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, accuracy = answer_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch.mask.sum())
        recent.append((loss.item(), float(accuracy)))
        if step % report_every == 0:
            seconds = time.monotonic() - began
            line = "step {} loss {:.4f} accuracy {:.4f}".format(step, *_means(recent))
            if step % save_every == 0:
                line += " held out {:.4f} {:.4f}".format(*evaluate(model, held_out, autocast))
            print(f"{line} {tokens / seconds:,.0f} tokens/s {seconds:.0f} s", flush=True)
            recent = []
        if step % save_every == 0 or step == recipe.steps:
            save(model, codec_model, recipe, step, output)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m glmstudio.embedded.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=70.0, help=f"length, at {STEPS_PER_MINUTE} steps a minute")
    parser.add_argument("--output", type=Path, default=Path("data/embedded"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--start-from", type=Path, help="a model folder of an earlier run, for another round")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 in the matrix products")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    recipe = Recipe(
        steps=round(chosen.minutes * STEPS_PER_MINUTE),
        seed=chosen.seed,
        learning_rate=chosen.learning_rate,
        # A model that copies already needs no exercise for the first minutes.
        repeats_at_first=Recipe.repeats_at_first if chosen.start_from is None else Recipe.repeats,
    )
    pretrain(recipe, chosen.output, start_from=chosen.start_from, autocast=not chosen.fp32)


if __name__ == "__main__":
    main()
