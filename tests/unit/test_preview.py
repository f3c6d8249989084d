"""The preview shows each token of a training row once, in words that a person can read."""

import argparse
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glmstudio.commands.preview import add_preview
from glmstudio.errors import StudioError
from glmstudio.models.chat_format import render_example
from glmstudio.models.prompts.preview import Piece, preview, preview_row
from glmstudio.settings import PROMPT_STYLES, TrainingSettings
from glmstudio.studio import Studio
from glmstudio.ui.train_preview import preview_html
from glmstudio.workspace import Workspace
from tests.prompt_bases import BASES, prompt_bases
from tests.tiny_base import tiny_model, tiny_tokenizer

ROW = ("分类 it.", "Oslo  is\n\tgrey 🤡", "red 鱻")
LONE_BYTE = re.compile("⟨([0-9A-F]{2})⟩")


def joined(pieces: list[Piece]) -> str:
    """The text of pieces; bytes that stand alone become characters again where they belong together."""
    text = "".join(LONE_BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), piece.text) for piece in pieces)
    return text.encode("utf-8", errors="surrogateescape").decode("utf-8")


@pytest.mark.parametrize("style", PROMPT_STYLES)
@pytest.mark.parametrize("name", [name for name in BASES if name != "chatglm"])
def test_every_token_is_there_and_the_pieces_are_the_text(name: str, style: str) -> None:
    tokenizer, family = prompt_bases()[name]
    row = render_example(tokenizer, family, *ROW, max_source_length=400, max_target_length=300, style=style)
    pieces = preview(tokenizer, row)
    assert [(piece.id, piece.bears_loss) for piece in pieces] == list(zip(row.ids, row.bears_loss, strict=True))
    assert [piece.in_prompt for piece in pieces] == [place < row.prompt_length for place in range(len(row.ids))]
    assert all(piece.text and "\ufffd" not in piece.text and "▁" not in piece.text for piece in pieces)
    prompt, answer = (joined([piece for piece in pieces if piece.in_prompt == part]) for part in (True, False))
    assert ROW[0] in prompt
    assert ROW[1] in prompt
    assert ROW[2] in answer
    assert pieces[-1].text == tokenizer.convert_ids_to_tokens(row.ids[-1])


def test_chatglm_6b_shows_its_written_blanks_as_blanks() -> None:
    tokenizer, family = prompt_bases()["chatglm"]
    shown = preview_row(tokenizer, family, "Name it.", "Oslo\tis\ngrey", "red", TrainingSettings(prompt_style="chat"))
    assert [piece.text for piece in shown.pieces[shown.prompt_length - 2 :]] == [
        "[gMASK]", "<sop>", " ", "r", "e", "d", "<eop>",
    ]  # fmt: skip
    assert joined(shown.pieces[: shown.prompt_length - 2]) == " Name it.\nOslo\tis\ngrey"
    assert [piece.bears_loss for piece in shown.pieces[-6:]] == [True] * 6


def test_a_character_of_several_tokens_is_shown_in_bytes() -> None:
    for name in ("chatglm3", "plain"):
        tokenizer, family = prompt_bases()[name]
        shown = preview_row(tokenizer, family, "🤡", "", "x", TrainingSettings(prompt_style="chat"))
        texts = [piece.text for piece in shown.pieces]
        start = texts.index("⟨F0⟩")
        assert texts[start : start + 4] == ["⟨F0⟩", "⟨9F⟩", "⟨A4⟩", "⟨A1⟩"]


def test_what_was_cut_is_counted() -> None:
    tokenizer, family = prompt_bases()["plain"]
    settings = TrainingSettings(prompt_style="chat", max_source_length=20, max_target_length=6)
    shown = preview_row(tokenizer, family, "Oslo " * 50, "", "red " * 20, settings)
    row = render_example(
        tokenizer, family, "Oslo " * 50, "", "red " * 20, max_source_length=20, max_target_length=6, style="chat"
    )
    assert (shown.prompt_length, shown.cut_prompt, shown.cut_target) == (
        row.prompt_length, row.cut_prompt, row.cut_target,
    )  # fmt: skip
    assert min(shown.cut_prompt, shown.cut_target) > 0
    assert list(shown.cuts.values()) == [shown.cut_target, shown.cut_prompt]


@pytest.mark.parametrize("style", PROMPT_STYLES)
@pytest.mark.parametrize("name", ["plain", "chatglm3", "turns"])
def test_a_cut_stands_between_what_is_kept_and_what_stands_around_it(name: str, style: str) -> None:
    tokenizer, family = prompt_bases()[name]
    settings = TrainingSettings(prompt_style=style, max_source_length=60)
    shown = preview_row(tokenizer, family, "Name it.", "Oslo is red, " * 50, "red", settings)
    whole = preview_row(
        tokenizer,
        family,
        "Name it.",
        "Oslo is red, " * 50,
        "red",
        TrainingSettings(prompt_style=style, max_source_length=4000),
    )
    assert not whole.cuts
    ((place, count),) = shown.cuts.items()
    assert count == len(whole.pieces) - len(shown.pieces)
    prompt = shown.pieces[: shown.prompt_length]
    before, behind = joined(prompt[:place]), joined(prompt[place:])
    assert "Name it." in before
    assert joined(whole.pieces[: whole.prompt_length]).startswith(before)
    assert joined(whole.pieces[: whole.prompt_length]).endswith(behind)
    assert "Oslo" not in behind
    if style == "instruction":
        assert behind.startswith("\nAnswer:")
    assert preview_html(shown, "en").split(f">{count} tokens cut<")[0].count("<span") == place + 2


def test_the_studio_previews_on_the_resident_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(Workspace(tmp_path))
    with pytest.raises(StudioError, match="base-released"):
        studio.preview(*ROW, TrainingSettings())
    tokenizer, family = prompt_bases()["plain"]
    base = SimpleNamespace(base=SimpleNamespace(tokenizer=tokenizer, family=family))
    monkeypatch.setattr(studio._base, "use", lambda: nullcontext(SimpleNamespace(resident=base)))
    settings = TrainingSettings(prompt_style="chat")
    assert studio.preview(*ROW, settings) == preview_row(tokenizer, family, *ROW, settings)
    studio.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    rows = ['{"instruction": "Name it.", "output": "red"}', "{", '{"instruction": "Call it.", "output": "Oslo"}']
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def asked(files: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    add_preview(parser.add_subparsers())
    usual = ["preview", "--base", str(files / "base"), "--train-path", str(files / "rows.jsonl")]
    args: Any = parser.parse_args([*usual, *words])
    return args.command(args)


def test_the_command_prints_a_line_a_token(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(files, "--row", "2", "--prompt-style", "chat") == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    prompt, answer = lines[: lines.index("-- answer")], lines[lines.index("-- answer") + 1 : -1]
    texts = [line.split(maxsplit=2)[2] for line in prompt[:-1]]
    assert "".join(text.strip('"') for text in texts) == " Call it.[gMASK]"
    assert prompt[-1].split() == [str(len(prompt) - 1), str(tiny_tokenizer().bos_token_id), "loss", '"<sop>"']
    assert [line.split()[2:] for line in answer[-2:]] == [["loss", '"o"'], ["loss", '"<eop>"']]
    assert lines[-1].startswith(
        f"{len(prompt) + len(answer)} tokens, {len(prompt)} of them prompt, 7 bear loss; cut: 0"
    )
    assert "rows.jsonl:2:" in output.err


def test_a_row_that_is_not_there_is_told(files: Path) -> None:
    with pytest.raises(StudioError) as caught:
        asked(files, "--row", "3")
    assert (caught.value.code, caught.value.params["rows"]) == ("preview-row", 2)
