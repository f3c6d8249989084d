"""Names: which new ones are refused, and that any name gives a file of its own that stays where it is put."""

from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.file_names import LONGEST, file_name, is_fit, require_fit

FIT = ["demo", "我的数据 2", "a b", "a_b", "Straße (v1.2)", "emoji 😀", "a..b", "con-artists", "长" * LONGEST]
UNFIT = [
    "../x", "/anywhere/x", "a\\b", "..", ".hidden", "a.", " a", "a ", "C:x", "a*", "what?", 'say "x"', "<b>", "a|b",
    "a\nb", "a\x00b", "a\u202eb", "a\u2028b", "CON", "nul.txt", "com1", "x" * (LONGEST + 1), "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_names_that_people_give_are_fit(name: str) -> None:
    require_fit(name)


@pytest.mark.parametrize("name", UNFIT)
def test_names_that_could_be_paths_or_cannot_be_seen_are_refused(name: str) -> None:
    with pytest.raises(StudioError) as caught:
        require_fit(name)
    assert caught.value.code == "name-unfit"
    assert caught.value.params["name"].isprintable()


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_the_empty_name_is_called_empty(name: str) -> None:
    assert not is_fit(name)
    with pytest.raises(StudioError, match="name-empty"):
        require_fit(name)


def test_two_names_never_give_one_file(tmp_path: Path) -> None:
    alike = ["a b", "a_b", "a/b", "a\\b", "A_B", "A b", "a  b", "é", "e\u0301", "长" * 50, "长" * 51, "CON", "con"]
    names = {*FIT, *UNFIT, "", ".", "___", *alike}
    names |= {file_name(name) for name in names}
    files = {file_name(name).casefold() for name in names}
    assert len(files) == len(names)


@pytest.mark.parametrize("name", [*FIT, *UNFIT, "", "\x00", "...", "-rf"])
def test_a_file_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    made = file_name(name)
    path = tmp_path / f"{made}.json"
    path.write_text("x")
    assert list(tmp_path.iterdir()) == [path]
    assert len(made.encode()) <= 110
    assert not made.startswith(".")
    assert made.split(".")[0].lower() not in ("con", "nul", "com1")


@pytest.mark.parametrize("name", ["demo", "我的数据", "run-0001", "v1.2_x"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert file_name(name) == name
