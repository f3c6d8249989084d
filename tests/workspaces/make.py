"""Makes a workspace of the version that runs it, with something of everything that it writes: see README.md beside it.

    python -m tests.workspaces.make PLACE DESTINATION

PLACE is a folder that is not there yet. Files keep its name as where they were made, so let it be one that any
computer could have; it is moved to DESTINATION at the end.
"""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from glmstudio import cli
from glmstudio.data import formats
from glmstudio.data.example import Example
from glmstudio.data.store import Store
from glmstudio.data.verdicts import Judgement
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.models.base import Base
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.settings import GenerationSettings, LoraSettings, TrainingSettings
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.studio.people import Person
from glmstudio.training.batches import render_rows
from glmstudio.training.runs import LIVE
from glmstudio.workspace import Workspace
from tests.tiny_base import rows, tiny_model, tiny_tokenizer
from tests.workspaces.seen import answers, curve, plain, seen

CITIES, ODD, OLDER = "cities", "病历 (v2) é·😀 #1 50%", "../旧 a:b"
LORA = LoraSettings(r=2, lora_alpha=8, target_modules=("query_key_value",))
SHORT = TrainingSettings(
    num_train_epochs=8, learning_rate=2e-2, per_device_train_batch_size=4, max_source_length=64, max_target_length=24,
    save_total_limit=1, eval_steps=16, logging_steps=2,
)  # fmt: skip
LONG = replace(SHORT, num_train_epochs=16, learning_rate=5e-3, save_steps=8, eval_steps=24, logging_steps=8)
# In `answers.json`: with these the adapters are asked.
ASKED = ("Name it.", "3 Bern is grey. red green blue")


@dataclass(frozen=True)
class Place:
    """Where everything is: the program's root, the base, and what lies elsewhere."""

    top: Path

    @property
    def root(self) -> Path:
        return self.top / "workspace"

    @property
    def base(self) -> Path:
        return self.top / "models" / "tiny-chatglm"

    @property
    def files(self) -> Path:
        return self.top / "files"

    def wish(self) -> BaseWish:
        return BaseWish(str(self.base), "cpu", "fp32")

    def run(self, number: int) -> Path:
        return self.root / "checkpoints" / f"run-{number:04d}"


def main(top: Path, destination: Path) -> None:
    place = Place(top)
    place.files.mkdir(parents=True)
    make_base(place.base)
    make_files(place)
    command("import", place.files / "cities.jsonl", "--root", place.root, "--dataset", CITIES)
    # Each in a process that has ended, or died, before the next one opens the workspace.
    for work in (annotate_and_train, use_commands, leave_a_queue, kill_a_run, break_import, tidy, expect):
        in_a_process(work, place)
    shutil.move(top, destination)


def opened(place: Place) -> Studio:
    studio = Studio(Workspace(place.root), base=place.wish())
    studio.start()
    studio.resident(wait=True)
    return studio


def make_base(folder: Path) -> None:
    """The tests' tiny ChatGLM, smaller still, which has learnt their rows; and their tokenizer, without its table of
    what Unicode takes for the same."""
    config = tiny_model().config
    config.hidden_size, config.inner_hidden_size = 16, 32
    torch.manual_seed(7)
    model = ChatGLMForConditionalGeneration(config)
    base = Base(model, tiny_tokenizer(), CHATGLM, "tiny", torch.device("cpu"), torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for row in 15 * render_rows(base, rows(40), SHORT):
        ids = torch.tensor([row.ids])
        model(input_ids=ids, labels=ids.where(torch.tensor([row.bears_loss]), -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    vocabulary = ModelProto.FromString((folder / "ice_text.model").read_bytes())
    vocabulary.normalizer_spec.precompiled_charsmap = b""
    (folder / "ice_text.model").write_bytes(vocabulary.SerializeToString())


def colours(count: int, *, split: str = "train", first: int = 0) -> list[Example]:
    """Rows that the base answers otherwise, half of them by a city as JSON."""
    made = rows(count, split=split, first=first)
    return [replace(row, target=row.input.partition(" is ")[2].partition(".")[0]) for row in made]


def make_files(place: Place) -> None:
    of_both = [*colours(12), *colours(3, split="dev", first=100)]
    formats.write(place.files / "cities.jsonl", of_both, "alpaca-jsonl", columns=["split"])
    with (place.files / "cities.jsonl").open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    formats.write(place.files / "more.csv", colours(3, first=40), "csv")
    formats.write(place.files / "train.jsonl", colours(8), "context-target")
    formats.write(place.files / "dev.jsonl", colours(3, split="dev", first=200), "context-target")


def break_import(place: Place) -> None:
    """An import in a process that dies before its first rows are there."""

    def dying():
        yield from rows(2, first=60)
        os.kill(os.getpid(), signal.SIGKILL)

    store = Store(Workspace(place.root).database_url)
    store.import_rows(dying(), dataset="broken", file="broken.jsonl", person="李")


def annotate_and_train(place: Place) -> None:
    studio = opened(place)
    annotate(studio, place)
    train_and_judge(studio, place)
    studio.close()


def annotate(studio: Studio, place: Place) -> None:
    """Rows of every split and status, with tags, revisions, an undone one and deleted ones; odd names of datasets."""
    li, wang = studio.as_(Person("li", "owner")), studio.as_(Person("王五", "owner"))
    li.import_file(place.files / "more.csv", CITIES)
    taken_back = li.import_file(place.files / "more.csv", "taken back")
    studio.undo_import(taken_back.import_id)
    wang.import_file(place.files / "more.csv", "draft name")
    studio.rename_dataset("draft name", "renamed")
    row = li.save_example(Example("抽取三元组。", "九玄珠的作者是龙马。", "[]", dataset=ODD))
    for target in ('[{"subject": "九玄珠"}]', '[["九玄珠", "作者", "龙马"]]', "not this"):
        row = li.save_example(replace(row, target=target, tags=("三元组", "a, b")), row.revision)
    studio.undo_save(row.id, row.revision)
    once = studio.save_example(Example("Said once.", '\t tab, "quotes" & <b>\n次の行 🀄\u200b', "x", dataset=ODD))
    studio.delete_examples([once.id])
    gone = wang.save_example(Example("Undone.", dataset=ODD))
    studio.undo_save(gone.id)
    for status in ("draft", "discarded"):
        for split in ("train", "dev"):
            wang.save_example(Example("Name it.", f"{status} {split}", "", ODD, split, status))
    # Names that no new dataset may have were once free.
    Store(Workspace(place.root).database_url).save(Example("Old.", "row", "target", dataset=OLDER))


def train_and_judge(studio: Studio, place: Place) -> None:
    """A finished run, its scores and verdicts; then, with other rows, a prefix in chat style, and a run that begins
    with the first one's adapter."""
    studio.start_run(CITIES, LORA, SHORT)
    ended(studio)
    board = studio.start_evaluation(CITIES, "run-0001@best", GenerationSettings())
    until(lambda: list(place.run(1).glob("scores/*.json")), board)
    ref, li = AdapterRef("run-0001", "best"), studio.as_(Person("li", "owner"))
    for number, input in enumerate(("7 Rome is blue.", "8 Oslo is grey.", rows(1, first=100)[0].input)):
        *_, last = studio.compare("Name it.", input, ref, GenerationSettings(max_new_tokens=12))
        said = last.rows[1].text
        target = said if number == 0 else "corrected by li"
        judgement = Judgement(said, number == 0, last.answerer)
        dev = studio.dev_row("Name it.", input, CITIES)
        if dev is None:
            li.save_feedback("Name it.", input, target, CITIES, judgement)
        else:
            li.judge_dev_row(dev, target, "dev", judgement)
    studio.start_export("adapter", ref, "给客户 cities", "zh")
    until(lambda: list(place.root.glob("checkpoints/exports/*/README.md")))
    (place.files / "my run.yaml").write_text(studio.run_yaml(CITIES, LORA, SHORT), encoding="utf-8")
    prefix = replace(SHORT, method="ptuning", pre_seq_len=4, prompt_style="chat", learning_rate=0.2, num_train_epochs=3)
    studio.start_run(CITIES, LORA, prefix)
    ended(studio)
    early = replace(SHORT, num_train_epochs=3, eval_steps=2, early_stopping_patience=2, warmup_ratio=0.0)
    studio.start_run(CITIES, LORA, early, from_adapter="run-0001@best")
    ended(studio)
    studio.use_base(str(place.base))
    studio.resident(wait=True)


def use_commands(place: Place) -> None:
    """What the command line writes elsewhere: a run of files, an adapter to give away, scores. Then a run that fails
    and one that is killed."""
    base = ("--base", place.base, "--device", "cpu", "--dtype", "fp32")
    command(
        "train", *base, "--train-path", place.files / "train.jsonl", "--dev-path", place.files / "dev.jsonl",
        "--output-dir", place.files / "my run", "--lora-rank", "2", "--target-modules", "query_key_value",
        "--num-train-epochs", "2", "--save-total-limit", "1", "--max-source-length", "64",
    )  # fmt: skip
    best = place.files / "my run" / "best"
    command("export-adapter", "--adapter", best, "--output-dir", place.files / "my adapter")
    command(
        "evaluate", *base, "--adapter", best, "--dev-path", place.files / "dev.jsonl",
        "--output", place.files / "scores.json", "--max-new-tokens", "12",
    )  # fmt: skip
    fail_a_run(place)
    kill_a_run(place)


def fail_a_run(place: Place) -> None:
    """A run on a disk that is full: no file may grow beyond that."""
    words = ["--train-path", place.files / "train.jsonl", "--output-dir", place.run(4), "--max-source-length", "64"]
    process = begun(place, *words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)))
    assert process.wait() == 1
    assert json.loads((place.run(4) / "run.json").read_text())["status"] == "failed"


def kill_a_run(place: Place) -> None:
    """A run in a process that is killed when it has made some steps."""
    number = 1 + max(int(path.name[-4:]) for path in place.root.glob("checkpoints/run-*"))
    process = begun(
        place, "--root", place.root, "--dataset", CITIES, "--num-train-epochs", "60", "--save-steps", "999",
        "--logging-steps", "4", "--max-source-length", "64", "--max-target-length", "24",
    )  # fmt: skip
    metrics = place.run(number) / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.stat().st_size > 1000)
    process.kill()
    process.wait()
    assert json.loads((place.run(number) / "run.json").read_text())["status"] == "running"


def begun(place: Place, *words: object, **how: Any) -> subprocess.Popen:
    """`train` in a process of its own."""
    base = ["--base", place.base, "--device", "cpu", "--dtype", "fp32", "--lora-rank", "2"]
    words = ("-m", "glmstudio", "train", *base, "--target-modules", "query_key_value", *words)
    return subprocess.Popen([sys.executable, *map(str, words)], **how)


def leave_a_queue(place: Place) -> None:
    """A run that was stopped and waits to go on, a new one that waits, and one that trains when the program ends."""
    studio = opened(place)
    first = studio.start_run(CITIES, LORA, LONG)
    until(lambda: step_of(studio, first.id) >= 20)
    studio.stop_run(first.id)
    ended(studio)
    second = studio.start_run(CITIES, LORA, LONG)
    studio.start_run(CITIES, LORA, replace(SHORT, num_train_epochs=2), queue=True)
    studio.resume_run(first.id, queue=True)
    until(lambda: step_of(studio, second.id) >= 50)
    studio.close()
    assert studio.run(second.id).status == "stopped"


def expect(place: Place) -> None:
    """Writes down what this version finds when it opens a copy, and what comes of it."""
    copy = Place(place.top.with_name(f"{place.top.name} moved"))
    shutil.copytree(place.top, copy.top)
    studio = opened(copy)
    found = seen(studio, copy.root)
    # What is found dead gets the time of a file, which changes with each copy, or that of now.
    del found["runs"][max(found["runs"])]["finished_at"], found["imports"][0]["finished_at"]
    for run in found["runs"].values():
        del run["process"]
    (place.top / "seen.json").write_text(as_text(found))
    finished = [f"run-{number:04d}@best" for number in (1, 2, 3)]
    said = {"asked": ASKED, "answers": answers(studio, finished, *ASKED)}
    stopped = next(run.id for run in studio.runs() if run.status == "stopped")
    studio.resume_run(stopped)
    studio.start_queue()
    idle(studio)
    said["resumed"] = {"run": stopped, "curve": curve(studio, stopped)}
    shutil.copyfile(
        copy.root / "checkpoints" / stopped / "last" / "adapter_model.safetensors", place.top / "resumed.safetensors"
    )
    said["queue"] = {run.id: run.status for run in studio.runs()}
    (place.top / "then.json").write_text(as_text(said))
    studio.close()
    shutil.rmtree(copy.top)


def tidy(place: Place) -> None:
    """Less of what there is several times: checkpoints, kept tokens, the room that runs keep. No path of this computer
    in traces."""
    for folder in (place.run(2), place.run(3), place.files / "my run"):
        shutil.rmtree(next(folder.glob("checkpoint-*")))
    for tokens in sorted(place.top.rglob("tokens"))[:-1]:
        shutil.rmtree(tokens)
    # What is shared by those who have the database open.
    (place.root / "data" / "glmstudio.sqlite-shm").unlink()
    for room in place.root.rglob(".writing/room"):
        room.write_bytes(b"room")
    here = [str(path) for path in (Path(__file__).resolve().parents[2], Path(sys.prefix), Path(sys.base_prefix))]
    for trace in (*place.top.rglob("run.log"), *place.top.rglob("*.log")):
        text = trace.read_text(encoding="utf-8")
        for path in here:
            text = text.replace(path, "/opt/glmstudio")
        trace.write_text(re.sub(r"/\S+/site-packages", "/opt/site-packages", text), encoding="utf-8")
    for file in filter(Path.is_file, place.top.rglob("*")):
        told = [word for word in (*here, str(Path.home()), gettempdir()) if word.encode() in file.read_bytes()]
        assert not told, (file, told)


def as_text(values: object) -> str:
    return json.dumps(plain(values), ensure_ascii=False) + "\n"


def command(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


def in_a_process(work: Callable[[Place], None], place: Place) -> None:
    process = multiprocessing.get_context("spawn").Process(target=work, args=(place,))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), work


def ended(studio: Studio) -> None:
    until(lambda: studio.active_run() is None)


def idle(studio: Studio) -> None:
    """Behind the last run of the queue."""
    until(lambda: not {run.status for run in studio.runs()} & {*LIVE} and studio.active_run() is None)


def step_of(studio: Studio, run_id: str) -> int:
    progress = studio.progress(run_id)
    return progress.step if progress else 0


def until(true: Callable[[], object], what: str = "") -> None:
    since = time.monotonic()
    while not true():
        assert time.monotonic() - since < 120, what
        time.sleep(0.001)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
