"""Every verb is called by somebody: what each role may, whose name is written, and no verb is left out."""

import ast
import inspect
import textwrap

import pytest

from glmstudio.data.example import Example
from glmstudio.data.verdicts import Answerer, Judgement
from glmstudio.errors import StudioError
from glmstudio.studio import Studio
from glmstudio.studio.people import ROLE_OF, ROLES, Person, asks_the_role
from glmstudio.ui.language import LANGUAGES, error_text, words
from glmstudio.workspace import Workspace

VERBS = sorted(name for name in dir(Studio) if not name.startswith("_"))
JUDGEMENT = Judgement("x", False, Answerer("embedded"))


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory):
    studio = Studio(Workspace(tmp_path_factory.mktemp("people")))
    yield studio
    studio.close()


def call(studio: Studio, verb: str) -> None:
    """Knocks with no arguments, at a studio without a workspace: whoever is let in fails behind the question."""
    found = getattr(studio, verb)
    if callable(found):
        found()


@pytest.mark.parametrize("role", ROLES)
def test_a_verb_lets_in_whom_the_table_names(role):
    studio = Studio.__new__(Studio)
    studio._caller = lambda: Person("li", role)
    may = {verb for verb in VERBS if ROLES.index(ROLE_OF[verb]) <= ROLES.index(role)}
    for verb in VERBS:
        # `Studio` without what it holds has no attribute, and most verbs want arguments.
        with pytest.raises((StudioError, TypeError, AttributeError)) as told:
            call(studio, verb)
        refused = {"verb": verb, "role": role, "needed": ROLE_OF[verb]}
        assert (getattr(told.value, "params", None) == refused) == (verb not in may), verb


@pytest.mark.parametrize("verb", VERBS)
def test_the_inner_steps_of_a_verb_take_no_higher_role(verb):
    found = inspect.getattr_static(Studio, verb)
    called, waiting = set(), [found.fget if isinstance(found, property) else found]
    while waiting:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(waiting.pop())))
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"):
                continue
            if node.attr in called:
                continue
            called.add(node.attr)
            if inspect.isfunction(inner := inspect.getattr_static(Studio, node.attr, None)):
                waiting.append(inner)
    steps = called & ROLE_OF.keys()
    assert {step for step in steps if ROLES.index(ROLE_OF[step]) > ROLES.index(ROLE_OF[verb])} == set()


def test_a_verb_without_a_role_does_not_even_load():
    class More(Studio):
        def another(self) -> None:
            """Nobody has thought of who may do this."""

    with pytest.raises(TypeError, match="another"):
        asks_the_role(More)


def test_who_calls_sees_the_same_studio_and_never_more_than_they_may(owner):
    li = owner.as_(Person("li", "annotator"))
    saved = li.save_example(Example("i", "seen by all", "y", dataset="shared"))
    assert owner.get_example(saved.id) == saved
    with pytest.raises(StudioError, match="not-allowed"):
        li.as_(Person("li", "owner"))
    with pytest.raises(StudioError, match="not-allowed"):
        li.rename_dataset("shared", "mine")
    assert [summary.name for summary in owner.datasets()] == ["shared"]


def test_the_name_of_who_calls_goes_into_what_they_write(owner, tmp_path):
    li, wu = (owner.as_(Person(name, "annotator")) for name in ("li", "wu"))
    row = li.save_example(Example("i", "named", "y", dataset="names", annotator="somebody else"))
    assert row.annotator == "li"
    row = wu.judge_dev_row(row, "z", "dev", JUDGEMENT)
    made = li.save_feedback("i", "judged", "y", "names", JUDGEMENT)
    again = wu.judge_again(made, "w", JUDGEMENT)
    assert (row.annotator, made.annotator, again.annotator) == ("wu", "li", "wu")
    assert (again.target, again.tags) == ("w", ("corrected",))
    verdicts = [*owner._store.verdicts.of(row.id), *owner._store.verdicts.of(made.id)]
    assert [verdict.judgement.person for verdict in verdicts] == ["wu", "li", "wu"]
    path = tmp_path / "rows.csv"
    path.write_text("instruction,input,output\ni,a,y\n", encoding="utf-8")
    assert li.import_file(path, "from a file").good == 1
    assert owner.imports()[-1].person == "li"


def test_a_refusal_has_words_in_both_languages():
    error = StudioError("not-allowed", verb="start_run", role="viewer", needed="owner")
    for language in LANGUAGES:
        text = error_text(error, language)
        assert words(language)["role.viewer"] in text
        assert words(language)["role.owner"] in text
    assert "owner" not in error_text(error, "zh")
