"""The two word lists say the same things, every word is used, every word that is asked for is there."""

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from glmstudio.errors import StudioError
from glmstudio.ui.language import COOKIE, accepted_language, error_text, language_of, t, words

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "app.py", *(ROOT / "glmstudio").rglob("*.py")]
KEY = re.compile(r"[a-z][a-z-]*(\.[A-Za-z0-9_-]+)+\Z")
# Parts of keys that are put together, `*` for what is filled in: at most two, with a word beside them.
MADE_KEY = re.compile(r"(?=.*[a-z])[a-z.-]*\*[a-z.-]*(\*[a-z.-]*)?\Z")
FILE_ENDINGS = (".css", ".js", ".json", ".jsonl", ".py")


def params(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}


class Asked:
    """What the code may ask for: whole strings, names of fields, and patterns such as "annotate.undone-{word}"."""

    def __init__(self) -> None:
        self.strings: set[str] = set()
        self.patterns: set[str] = set()
        for path in SOURCES:
            self._read(ast.parse(path.read_text(encoding="utf-8")))

    def _read(self, tree: ast.AST) -> None:
        pieces = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                pieces |= set(map(id, node.values))
                parts = [part.value if isinstance(part, ast.Constant) else "*" for part in node.values]
                if MADE_KEY.match("".join(parts)):
                    self.patterns.add("".join(parts).replace(".", r"\.").replace("*", "(.+)"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
                self.strings.add(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self.strings.add(node.target.id)

    def for_text(self, text: str) -> bool:
        """Whether the code has the text whole, or makes it by filling a pattern with texts of its own."""
        if text in self.strings:
            return True
        matches = filter(None, (re.fullmatch(pattern, text) for pattern in self.patterns))
        return any(all(map(self.for_text, match.groups())) for match in matches)


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked()


def test_both_languages_have_the_same_words_with_the_same_params():
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    for key, sentence in english.items():
        for part in re.sub(r"\{(\w+):[^}]*\}", r"{\1}", sentence).split("|"):
            assert params(part) | {"count"} == params(chinese[key]) | {"count"}, key
        assert "|" not in chinese[key], key


def test_no_word_is_empty_and_the_chinese_ones_are_chinese():
    english, chinese = words("en"), words("zh")
    for key in english:
        assert english[key].strip(), key
        assert chinese[key].strip(), key
        assert not re.search(r"[\u4e00-\u9fff]", english[key]), key
        if re.search(
            r"[a-z]{3,} [a-z]{3,}", re.sub(r"\{.*?\}|--\S+|\w+\.\w+|hf auth login|git lfs pull", "", english[key])
        ):
            assert re.search(r"[\u4e00-\u9fff]", chinese[key]), key


def test_every_word_is_used(asked):
    assert [key for key in words("en") if not asked.for_text(key)] == []


def test_every_word_that_the_code_names_is_there(asked):
    groups = {key.split(".")[0] for key in words("en")}
    named = {text for text in asked.strings if KEY.match(text) and text.split(".")[0] in groups}
    assert {text for text in named - words("en").keys() if not text.endswith(FILE_ENDINGS)} == set()


def test_every_error_and_reject_code_has_its_sentence():
    missing = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            place = {"StudioError": ("error", 0), "Reject": ("reject", 1)}.get(node.func.id)
            if place and len(node.args) > place[1] and isinstance(node.args[place[1]], ast.Constant):
                key = f"{place[0]}.{node.args[place[1]].value}"
                missing |= {key} - words("en").keys()
    assert missing == set()


def test_one_and_many():
    assert t("annotate.rows", "en", count="1") == "1 row"
    assert t("annotate.rows", "en", count="1,204") == "1,204 rows"
    assert t("annotate.rows", "zh", count="1") == "1 行"


def test_an_error_says_its_cause_and_next_step():
    error = StudioError("port-taken", port=7860, free=7861)
    assert error_text(error, "en") == (
        "Port 7860 is taken. Start with --port 7861, or without --port to let a free one be chosen."
    )
    assert "7861" in error_text(error, "zh")


class Asking:
    def __init__(self, cookies: dict[str, str], headers: dict[str, str]) -> None:
        self.cookies, self.headers = cookies, headers


def test_the_cookie_wins_over_what_the_browser_asks_for():
    assert language_of(Asking({COOKIE: "en"}, {"accept-language": "zh-CN"})) == "en"
    assert language_of(Asking({COOKIE: "xx"}, {"accept-language": "en-GB,zh;q=0.5"})) == "en"
    assert language_of(Asking({}, {})) == "zh"


def test_the_first_language_that_we_speak_is_taken():
    assert accepted_language("fr-FR,fr;q=0.9,en;q=0.8,zh;q=0.7") == "en"
    assert accepted_language("fr-FR") == "zh"
