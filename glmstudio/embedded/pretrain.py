"""Pre-trains the embedded base from scratch: python -m glmstudio.embedded.pretrain --minutes 70 --output data/embedded

The text comes from the generator while training, every block of rows from its own seed, so the run depends on seed and
number of steps alone. The last weights are written every few minutes. Knows no LoRA and no page.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from torch.nn import functional as F

from glmstudio.data.example import join_context
from glmstudio.embedded.initialise import initialise
from glmstudio.embedded.tasks import make_row
from glmstudio.embedded.vocabulary import TextCodec, build_model
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration

STEPS_PER_MINUTE = 100  # what one core does; a run counts steps, not minutes
EVALUATION_SEED = 987_654_321


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
    repeats: float = 0.03
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
    """The model folder: float16 weights, vocabulary, and the recipe with the step it stands at."""
    output.mkdir(parents=True, exist_ok=True)
    half = {name: weight.detach().half() for name, weight in model.state_dict().items()}
    model.save_pretrained(output, state_dict=half)
    config = json.loads((output / "config.json").read_text())
    (output / "config.json").write_text(json.dumps(config | {"dtype": "float16"}, indent=2, sort_keys=True) + "\n")
    (output / "ice_text.model").write_bytes(codec_model)
    record = asdict(recipe) | {"step": step}
    (output / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")


def evaluate(model: ChatGLMForConditionalGeneration, held_out: list[Batch], autocast: bool) -> tuple[float, float]:
    """Mean loss and token accuracy over the held-out batches."""
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        values = [answer_loss(model, batch) for batch in held_out]
    model.train()
    return tuple(sum(float(pair[n]) for pair in values) / len(values) for n in (0, 1))


def pretrain(recipe: Recipe, output: Path, *, autocast: bool, save_every: int = 500, report_every: int = 100) -> None:
    """Trains, prints loss, token accuracy and tokens per second, and leaves the model folder in output."""
    codec_model = build_model()
    codec = TextCodec(codec_model)
    model = ChatGLMForConditionalGeneration(configuration(codec))
    initialise(model, recipe.seed)
    model.set_attn_implementation("eager")  # on short rows half the time of SDPA on a CPU
    model.train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)
    held_out = [batch for batch, _ in zip(batches(codec, recipe, EVALUATION_SEED, recipe.first_steps), range(12))]  # noqa: B905
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {recipe}", flush=True)
    tokens, losses, correct, began = 0, [], [], time.monotonic()
    for step, batch in zip(range(recipe.steps), batches(codec, recipe, recipe.seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, accuracy = answer_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch.mask.sum())
        losses.append(loss.item())
        correct.append(float(accuracy))
        if (step + 1) % report_every == 0:
            seconds = time.monotonic() - began
            mean = [sum(values[-report_every:]) / report_every for values in (losses, correct)]
            line = f"step {step + 1} loss {mean[0]:.4f} accuracy {mean[1]:.4f} {tokens / seconds:,.0f} tokens/s {seconds:.0f} s"
            if (step + 1) % (5 * report_every) == 0:
                line += " held out {:.4f} {:.4f}".format(*evaluate(model, held_out, autocast))
            print(line, flush=True)
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            save(model, codec_model, recipe, step + 1, output)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m glmstudio.embedded.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=70.0, help=f"length, at {STEPS_PER_MINUTE} steps a minute")
    parser.add_argument("--output", type=Path, default=Path("data/embedded"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 in the matrix products")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    recipe = Recipe(steps=round(chosen.minutes * STEPS_PER_MINUTE), seed=chosen.seed)
    pretrain(recipe, chosen.output, autocast=not chosen.fp32)


if __name__ == "__main__":
    main()
