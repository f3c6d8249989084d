"""The commands for rows: what goes out comes in again, a name that is wrong is told, an import can be taken back."""

from argparse import Namespace
from pathlib import Path

import pytest

from glmstudio.cli import main
from glmstudio.commands.rows import read_rows, training_rows
from glmstudio.data.example import Example
from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store
from glmstudio.errors import StudioError
from glmstudio.workspace import Workspace

ROWS = [
    Example("指令", "一", "答", "mine"),
    Example("指令", "二", "答\n二", "mine", "dev"),
    Example("指令", "三", "", "mine", "train", "draft"),
    Example("指令", "四", "写了一半", "mine", "dev", "draft"),
    Example("指令", "五", "不要", "mine", "train", "discarded"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = Store(Workspace(tmp_path / "root").ensure().database_url)
    store.add_many(ROWS)
    store.close()
    return tmp_path / "root"


def run(root: Path, *words: object) -> int:
    return main([str(words[0]), "--root", str(root), *map(str, words[1:])])


def content(root: Path, dataset: str) -> list[tuple[str, ...]]:
    store = Store(Workspace(root).database_url)
    try:
        return [(row.input, row.target, row.split, row.status) for row in store.iterate(Query(dataset=dataset))]
    finally:
        store.close()


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.jsonl", "rows.xlsx", "rows.parquet", "rows.tsv.gz"])
def test_a_dataset_goes_out_with_its_splits_and_comes_in_as_it_was(root, tmp_path, capsys, name):
    path = tmp_path / name
    assert run(root, "export", path, "--dataset", "mine") == 0
    said = capsys.readouterr()
    assert f"2 rows written to {path}: 1 train, 1 dev" in said.out
    assert "left out: 2 drafts, 1 discarded" in said.err
    begins = {"csv": b"\xef", "json": b"[", "jsonl": b"{", "xlsx": b"P", "parquet": b"P", "tsv": b"\x1f"}
    assert path.read_bytes()[:1] == begins[name.split(".")[1]]
    assert run(root, "import", path, "--dataset", "again", "--split", "dev") == 0
    assert "1 train, 1 dev" in capsys.readouterr().out
    assert content(root, "again") == [("一", "答", "train", "done"), ("二", "答\n二", "dev", "done")]


def test_drafts_go_out_by_wish_and_come_in_as_drafts(root, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    assert run(root, "export", path, "--dataset", "mine", "--drafts") == 0
    assert "4 rows written" in capsys.readouterr().out
    assert run(root, "import", path, "--dataset", "again") == 0
    assert content(root, "again") == content(root, "mine")
    assert run(root, "export", path, "--dataset", "mine", "--split", "dev", "--drafts") == 0
    assert '"split"' not in path.read_text(encoding="utf-8")


def test_an_unknown_dataset_is_an_error_and_the_old_file_stays(root, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    assert run(root, "export", path, "--dataset", "nine") == 2
    assert "There is no dataset “nine”. There are: mine." in capsys.readouterr().err
    assert run(root, "export", path, "--dataset", "") == 2
    assert run(root, "export", path, "--dataset", "mine", "--format", "alpaca-json") == 2
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["../x", "/anywhere/x", "", "a\nb", "CON"])
def test_a_new_name_that_could_be_a_path_is_refused(root, tmp_path, capsys, name):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output\na,b\n")
    assert run(root, "import", path, "--dataset", name) == 2
    assert run(root, "rename", "mine", name) == 2
    said = capsys.readouterr().err
    assert "name" in said
    assert content(root, "mine") == [(row.input, row.target, row.split, row.status) for row in ROWS[:4]]


def test_an_old_name_stays_usable_until_it_is_renamed(root, tmp_path, capsys):
    store = Store(Workspace(root).database_url)
    store.save(Example("i", "old", "t", "../old"))
    store.close()
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output\na,b\n")
    assert run(root, "import", path, "--dataset", "../old") == 0
    assert run(root, "rename", "../old", "new") == 0
    assert "2 rows are in new now" in capsys.readouterr().out
    assert run(root, "rename", "new", "mine") == 2


def test_a_file_that_says_the_split_of_each_row_trains_on_what_is_train(root, tmp_path):
    path = tmp_path / "rows.jsonl"
    assert run(root, "export", path, "--dataset", "mine") == 0
    train, dev = training_rows(Namespace(dataset=None, train_path=path, dev_path=None))
    assert ([row.input for row in train], [row.input for row in dev]) == (["一"], ["二"])
    with pytest.raises(StudioError, match="dataset-missing"):
        training_rows(Namespace(dataset="nine", root=root))


def test_what_is_left_out_is_told_wherever_a_file_is_read(root, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"instruction": "i", "input": "1", "output": ["a"], "system": "s"}\n{"instruction": "i", "input": "2"}\n'
        '{"output": "b"}\n{"instruction": "i", "input": "3", "output": "c", "status": "discarded"}\n'
    )
    assert [(row.input, row.target) for row in read_rows(path, "dev")] == [("1", '["a"]')]
    said = capsys.readouterr().err
    assert f"{path}:3: No field of the row is known as its prompt; its fields are: output." in said
    assert "left out: system (1)" in said
    assert "became text: output (1)" in said
    assert "2 rows are left out: they have no answer" in said
    assert run(root, "import", path, "--dataset", "new") == 0
    said = capsys.readouterr()
    assert "left out: system (1)" in said.err
    assert "1 train, 1 draft, 1 discarded" in said.out


def test_of_many_rows_refused_for_one_reason_the_first_are_shown(root, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "i"}\n' + '{"input": "i"\n' * 90 + "7\n")
    assert run(root, "import", path, "--dataset", "new") == 0
    said = capsys.readouterr()
    assert "1 rows came in, 91 were rejected" in said.out
    lines = said.err.splitlines()
    assert len(lines) == 22
    assert lines[0].startswith(f"{path}:2: Not JSON: it breaks at column 14.")
    assert lines[20:] == [f"{path}: and 70 more rows for the same reason", lines[21]]
    assert lines[21].startswith(f"{path}:92: It is JSON but no object")


def test_columns_and_encoding_can_be_said(root, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_bytes("id,frage,antwort\n1,不,好\n".encode("gb18030"))
    assert run(root, "import", path, "--dataset", "new") == 2
    assert "GB18030: 不,好" in capsys.readouterr().err.replace("1,不", "不")
    words = ["--dataset", "new", "--encoding", "gbk"]
    assert run(root, "import", path, *words) == 2
    assert "its fields are: id, frage, antwort" in capsys.readouterr().err
    assert run(root, "import", path, *words, "--map", "frage=question") == 2
    assert "“frage=question” says no column and field" in capsys.readouterr().err
    words += ["--map", "frage=input", "--map", "antwort=target", "--map", "id=", "--instruction", "做"]
    assert run(root, "import", path, *words) == 0
    assert content(root, "new") == [("不", "好", "train", "done")]


def test_rows_that_are_there_already_stay_out_and_are_told(root, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,input,output\n指令,一,答\n指令,新,答\n指令,三,\n指令,五,不要\n")
    assert run(root, "import", path, "--dataset", "mine") == 0
    said = capsys.readouterr()
    assert "3 rows stay out: the dataset has them already" in said.err
    assert "1 rows came in" in said.out
    assert run(root, "import", path, "--dataset", "mine") == 2
    assert "4 rows stay out" in capsys.readouterr().err
    assert run(root, "imports") == 0
    assert "import 2" not in capsys.readouterr().out
    assert run(root, "import", path, "--dataset", "mine", "--split", "dev") == 0
    assert run(root, "import", path, "--dataset", "mine", "--again") == 0
    assert len(content(root, "mine")) == 4 + 1 + 4 + 4


def test_an_unlabelled_row_that_was_answered_since_is_there_already(root, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,input\n指令,一\n指令,六\n")
    assert run(root, "import", path, "--dataset", "mine") == 0
    assert content(root, "mine")[-1] == ("六", "", "train", "draft")
    assert len(content(root, "mine")) == 5


def test_the_name_of_a_file_says_where_its_rows_go(root, tmp_path, capsys):
    files = {"poems_dev.csv": ("a", "b"), "验证集.jsonl": ("c", "d"), "poems.csv": ("e", "f")}
    for name, (prompt, answer) in files.items():
        text = f"instruction,output\n{prompt},{answer}\n"
        if name.endswith("jsonl"):
            text = f'{{"input": "{prompt}", "output": "{answer}"}}'
        (tmp_path / name).write_text(text)
    gone = tmp_path / "gone.csv"
    assert run(root, "import", *(tmp_path / name for name in files), gone) == 2
    said = capsys.readouterr()
    assert "gone.csv cannot be read" in said.err
    assert "import 1: 1 dev -> poems" in said.out
    assert content(root, "poems") == [("", "b", "dev", "done"), ("", "f", "train", "done")]
    assert content(root, "default") == [("c", "d", "dev", "done")]


def test_an_import_is_listed_and_taken_back(root, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output\na,b\nc,d\n")
    assert run(root, "import", path, "--dataset", "taken") == 0
    assert "import 1: 2 train" in capsys.readouterr().out
    assert run(root, "imports", "--undo", 1) == 0
    assert "2 rows of rows.csv are gone" in capsys.readouterr().out
    assert run(root, "imports") == 0
    assert "rows.csv -> taken  2 rows  undone" in capsys.readouterr().out
    assert content(root, "taken") == []
    assert run(root, "imports", "--undo", 1) == 2
