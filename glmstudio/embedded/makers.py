"""What a slot of the templates draws from, by its name. Knows no template."""

from collections.abc import Callable
from random import Random

from glmstudio.embedded import names


def _word(r: Random) -> str:
    return r.choice(names.pool("words")) if r.random() < 0.8 else names.characters(r, 2, 4)


def _courtesy(r: Random) -> str:
    return names.characters(r, 2, 2, 0.2) if r.random() < 0.8 else names.characters(r, 3, 4, 0.2)


def _year(r: Random) -> str:
    return f"{r.randint(200, 1910)}" + r.choice(("年", "", "年"))


def _club(r: Random) -> str:
    return names.characters(r, 2, 3, 0.1) + r.choice(("队", "足球俱乐部", "篮球队", "联队", "FC", "竞技"))


def _stadium(r: Random) -> str:
    return names.characters(r, 2, 4, 0.1) + r.choice(("体育场", "球场", "体育馆", "体育中心"))


_NAMED = (
    "person chinese_name pen_name title place city region country scenery company school organisation site press order "
    "family genus creature game dish brand product date full_date height area people money altitude"
)
MAKERS: dict[str, Callable[[Random], str]] = {name: getattr(names, name) for name in _NAMED.split()}
MAKERS |= {
    slot: names.picker(names.pool(section))
    for slot, section in {
        "genre": "genres",
        "film": "film_kinds",
        "book": "book_kinds",
        "song": "song_kinds",
        "game_kind": "game_kinds",
        "job": "jobs",
        "ethnic": "ethnic",
        "dynasty": "dynasties",
        "climate": "climates",
        "food": "foods",
        "taste": "tastes",
        "language": "languages",
        "party": "parties",
        "degree": "degrees",
        "nation": "countries",
    }.items()
}
MAKERS |= {
    "sex": names.picker(("男", "女")),
    "platform": names.picker(("安卓", "iOS", "PC", "PS4", "Xbox", "Switch", "微信小程序", "网页")),
    "word": _word,
    "number": lambda r: str(r.randint(1, 10 ** r.randint(1, 4))),
    "latin": names.latin_name,
    "courtesy": _courtesy,
    "year_ce": _year,
    "short": lambda r: names.characters(r, 2, 4, 0.05),
    "club": _club,
    "stadium": _stadium,
    "price": lambda r: f"{r.randint(9, 19999)}元",
}
