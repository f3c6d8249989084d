"""Composes synthetic names: people, places, titles, companies, dates, numbers. Every function takes a `random.Random`.

Names are drawn from a very wide space on purpose (rare characters, foreign syllables, latin letters), so that copying
is learnt as a skill and not as a list. Knows no sentence and no task.
"""

from collections.abc import Callable
from random import Random

from glmstudio.embedded import pools


def _gb2312(first_row: int, last_row: int) -> str:
    """The Chinese characters of some rows of GB2312: 16-55 are level 1, 56-87 level 2."""
    cells = (bytes((row + 160, cell + 160)) for row in range(first_row, last_row + 1) for cell in range(1, 95))
    return "".join(cell.decode("gb2312", errors="ignore") for cell in cells)


LEVEL_1 = _gb2312(16, 55)
LEVEL_2 = _gb2312(56, 87)


def pool(name: str) -> tuple[str, ...]:
    """A pool of text/words.txt."""
    return pools.words("words", name)


_CITIES = pool("cities")
_COMPANY_ENDS = pool("company_ends")
_COMPANY_KINDS = pool("company_kinds")
_COOKING = pool("cooking")
_COUNTRIES = pool("countries")
_CREATURE_ENDS = pool("creature_ends")
_ENGLISH = pool("english")
_FOODS = pool("foods")
_FOREIGN = pool("foreign")
_GIVEN = pool("given")
_LATIN = pool("latin")
_ORDERS = pool("orders")
_PLACE_ENDS = pool("place_ends")
_PRESS_ENDS = pool("press_ends")
_PROVINCES = pool("provinces")
_SCHOOL_ENDS = pool("school_ends")
_SCHOOL_KINDS = pool("school_kinds")
_SITES = pool("sites")
_SURNAMES = pool("surnames")
_WORDS = pool("words")


def characters(r: Random, low: int, high: int, rare: float = 0.15) -> str:
    """low..high Chinese characters, each from level 2 of GB2312 with probability rare."""
    return "".join(r.choice(LEVEL_2) if r.random() < rare else r.choice(LEVEL_1) for _ in range(r.randint(low, high)))


def latin_word(r: Random) -> str:
    return "".join(r.choice(_LATIN) for _ in range(r.randint(2, 3))).capitalize()


def latin_name(r: Random) -> str:
    return " ".join(latin_word(r) for _ in range(r.choice((1, 2, 2, 2, 3))))


def chinese_name(r: Random) -> str:
    given = "".join(
        r.choice(_GIVEN) if r.random() < 0.55 else characters(r, 1, 1) for _ in range(r.choice((1, 2, 2, 2)))
    )
    return r.choice(_SURNAMES) + given


def foreign_name(r: Random) -> str:
    parts = ["".join(r.choice(_FOREIGN) for _ in range(r.randint(1, 3))) for _ in range(r.choice((1, 2, 2, 2, 3)))]
    name = r.choice(("·", "·", "·", "•", "-")).join(parts)
    return name if len(name) > 1 else name + "尔"


def pen_name(r: Random) -> str:
    kind = r.random()
    if kind < 0.35:
        return characters(r, 2, 5, 0.1)
    if kind < 0.6:
        return r.choice(_WORDS) + r.choice(("", characters(r, 1, 2), r.choice(_WORDS)))
    if kind < 0.75:
        return r.choice(("小", "老", "阿", "大", "一")) + characters(r, 1, 3, 0.1)
    if kind < 0.85:
        return characters(r, 1, 3, 0.1) + r.choice(("君", "先生", "公子", "大人", "儿", "子", str(r.randint(1, 999))))
    return latin_word(r).lower() if kind < 0.9 else chinese_name(r)


def person(r: Random) -> str:
    kind = r.random()
    if kind < 0.7:
        return chinese_name(r)
    if kind < 0.87:
        return foreign_name(r)
    return pen_name(r) if kind < 0.95 else latin_name(r)


def title(r: Random) -> str:
    kind = r.random()
    two = r.choice(_WORDS) + r.choice(_WORDS)
    if kind < 0.2:
        return two
    if kind < 0.38:
        middle = r.choice(
            ("的", "之", "与", "和", "在", "里的", "·", "：", "第一", "大", "不", "上的", "—", "是", "我的", "中的")
        )
        return r.choice(_WORDS) + middle + r.choice(_WORDS)
    if kind < 0.58:
        return characters(r, 1, 6, 0.08)
    if kind < 0.7:
        return characters(r, 1, 2) + r.choice(_WORDS) + r.choice(("", characters(r, 1, 3)))
    if kind < 0.78:
        tail = r.choice(
            (
                "传",
                "记",
                "志",
                "录",
                "诀",
                "篇",
                "教程",
                "手册",
                "学",
                "全集",
                "（第二版）",
                "2",
                "Ⅱ",
                "（上册）",
                "入门",
                "指南",
            )
        )
        return r.choice((two, r.choice(_WORDS), characters(r, 1, 3))) + tail
    if kind < 0.84:
        return two + r.choice(("", "的", "与", "：", " ")) + r.choice(_WORDS) + r.choice(("", characters(r, 2, 4)))
    if kind < 0.9:
        return " ".join(r.choice(_ENGLISH) for _ in range(r.randint(1, 3)))
    if kind < 0.95:
        return r.choice(("我", "你", "他们", "谁", "别")) + characters(r, 3, 7, 0.02)
    return str(r.randint(1, 2050)) + characters(r, 1, 4) if kind < 0.98 else characters(r, 6, 14, 0.03)


def place(r: Random) -> str:
    kind = r.random()
    if kind < 0.2:
        return r.choice(_PROVINCES)
    if kind < 0.35:
        return r.choice(_CITIES) + r.choice(("", "市"))
    small = characters(r, 1, 2, 0.2) + r.choice(_PLACE_ENDS)
    if kind < 0.65:
        return r.choice(_PROVINCES) + r.choice(("", "省", "")) + small
    if kind < 0.8:
        return r.choice(_PROVINCES) + r.choice(("", "省")) + r.choice(_CITIES) + r.choice(("", "市", "市" + small))
    if kind < 0.9:
        return (
            r.choice(_COUNTRIES)
            + "".join(r.choice(_FOREIGN) for _ in range(r.randint(2, 4)))
            + r.choice(("", "州", "市"))
        )
    return small


def city(r: Random) -> str:
    if r.random() < 0.5:
        return r.choice(_CITIES)
    return r.choice((characters(r, 1, 2) + "市", "".join(r.choice(_FOREIGN) for _ in range(r.randint(2, 3)))))


def region(r: Random) -> str:
    if r.random() < 0.25:
        return "".join(r.choice(_FOREIGN) for _ in range(r.randint(2, 4)))
    return (
        r.choice(("", "", r.choice(_PROVINCES), r.choice(_CITIES))) + characters(r, 1, 3, 0.25) + r.choice(_PLACE_ENDS)
    )


def country(r: Random) -> str:
    return "中国" if r.random() < 0.3 else r.choice(_COUNTRIES)


def scenery(r: Random) -> str:
    return characters(r, 1, 3, 0.15) + r.choice(
        (
            "山",
            "湖",
            "寺",
            "塔",
            "公园",
            "古镇",
            "博物馆",
            "瀑布",
            "故居",
            "大桥",
            "峡谷",
            "庙",
            "古城",
            "景区",
            "园",
            "陵",
        )
    )


def company(r: Random) -> str:
    brand = r.choice((characters(r, 2, 3, 0.1), characters(r, 2, 4, 0.05), r.choice(_WORDS), characters(r, 2, 2)))
    if r.random() < 0.15:
        return brand + r.choice(("集团", "公司", "影业", "传媒", "银行", "电器", "汽车", "娱乐", "科技", ""))
    where = r.choice((r.choice(_CITIES), r.choice(_PROVINCES), "", "中国", "（北京）"))
    head = where + brand if where != "（北京）" else brand + where
    return head + r.choice(_COMPANY_KINDS) + r.choice(_COMPANY_ENDS)


def school(r: Random) -> str:
    kind = r.random()
    if kind < 0.35:
        return r.choice(_CITIES + _PROVINCES) + r.choice(_SCHOOL_KINDS) + r.choice(_SCHOOL_ENDS)
    if kind < 0.6:
        return r.choice((r.choice(_CITIES + _PROVINCES), characters(r, 2, 2, 0.05))) + "大学"
    if kind < 0.8:
        return characters(r, 2, 3, 0.1) + r.choice(_SCHOOL_ENDS)
    if kind < 0.92:
        return "".join(r.choice(_FOREIGN) for _ in range(r.randint(2, 4))) + r.choice(("大学", "学院", "州立大学"))
    return r.choice(_PROVINCES) + characters(r, 1, 2) + r.choice(("一中", "二中", "第三中学", "附中", "小学"))


def organisation(r: Random) -> str:
    if r.random() < 0.5:
        return school(r)
    return characters(r, 2, 4, 0.1) + r.choice(
        (
            "医院",
            "研究所",
            "协会",
            "基金会",
            "中心",
            "俱乐部",
            "博物馆",
            "图书馆",
            "幼儿园",
            "委员会",
            "学会",
            "报社",
            "电视台",
        )
    )


def site(r: Random) -> str:
    head = r.choice(
        (characters(r, 2, 3, 0.05), r.choice(_WORDS), str(r.randint(1, 99)) + r.choice("kKgm"), latin_word(r))
    )
    return head + r.choice(_SITES)


def press(r: Random) -> str:
    head = r.choice(
        (
            r.choice(_PROVINCES),
            r.choice(_CITIES),
            characters(r, 2, 3, 0.05),
            r.choice(_WORDS),
            "中国" + characters(r, 2, 2, 0),
        )
    )
    return head + r.choice(_PRESS_ENDS)


def order(r: Random) -> str:
    return (r.choice(_ORDERS) if r.random() < 0.6 else characters(r, 1, 2, 0.5) + r.choice(("", "形"))) + "目"


def family(r: Random) -> str:
    return characters(r, 1, 3, 0.4) + "科"


def genus(r: Random) -> str:
    return characters(r, 1, 3, 0.4) + "属"


def creature(r: Random) -> str:
    return characters(r, 1, 4, 0.35) + r.choice(_CREATURE_ENDS)


def game(r: Random) -> str:
    return title(r) + r.choice(("", "", "", "OL", "2", "Online", "：" + r.choice(_WORDS)))


def dish(r: Random) -> str:
    return r.choice((r.choice(_COOKING), characters(r, 1, 2, 0.1))) + r.choice(
        (r.choice(_FOODS), characters(r, 1, 2), r.choice(_FOODS) + r.choice(("汤", "粥", "饼", "羹", "煲")))
    )


def brand(r: Random) -> str:
    return r.choice((characters(r, 2, 3, 0.1), latin_word(r), r.choice(_WORDS)))


def product(r: Random) -> str:
    return (
        brand(r)
        + r.choice(("", " "))
        + r.choice(("X", "Pro", "S", "Mate", "T", "G", "V", "Mini", ""))
        + str(r.randint(1, 999))
    )


def date(r: Random) -> str:
    kind = r.random()
    year = r.randint(1840, 2023) if r.random() < 0.25 else r.randint(1950, 2022)
    if kind < 0.3:
        return f"{year}年"
    if kind < 0.6:
        return f"{year}年{r.randint(1, 12)}月{r.randint(1, 28)}日"
    if kind < 0.82:
        return f"{year}年{r.randint(1, 12)}月"
    if kind < 0.92:
        separator = r.choice("-./")
        return f"{year}{separator}{r.randint(1, 12):02d}{separator}{r.randint(1, 28):02d}"
    return str(year) if kind < 0.97 else f"公元{r.randint(1, 1900)}年"


def full_date(r: Random) -> str:
    return f"{r.randint(1920, 2022)}年{r.randint(1, 12)}月{r.randint(1, 28)}日" if r.random() < 0.6 else date(r)


def height(r: Random) -> str:
    return r.choice(
        (
            f"{r.randint(150, 215)}厘米",
            f"{r.randint(150, 215)}cm",
            f"{r.randint(150, 215)}CM",
            f"1.{r.randint(50, 99)}米",
            f"{r.randint(150, 215)}公分",
        )
    )


def area(r: Random) -> str:
    unit = r.choice(("平方公里", "平方千米", "亩", "平方米", "公顷", "万平方米", "km²"))
    return (
        r.choice((str(r.randint(5, 99999)), f"{r.randint(1, 9999)}.{r.randint(1, 99)}", f"{r.randint(1, 99)}万")) + unit
    )


def people(r: Random) -> str:
    return r.choice(
        (
            f"{r.randint(100, 99999)}",
            f"{r.randint(1, 999)}万",
            f"{r.randint(1, 99)}.{r.randint(1, 99)}万",
            f"{r.randint(1, 20)}亿",
        )
    ) + r.choice(("人", "人", "", "余人"))


def money(r: Random) -> str:
    return f"{r.randint(1, 9999)}" + r.choice(("万元", "万元人民币", "亿元", "万", "万美元", "万人民币"))


def altitude(r: Random) -> str:
    return r.choice((f"{r.randint(3, 8000)}米", f"{r.randint(3, 8000)}m", f"{r.randint(3, 3000)}.{r.randint(1, 9)}米"))


def several(r: Random, make: Callable[[Random], str], most: int = 6) -> list[str]:
    """1..most different names, few more often than many."""
    count = min(r.choice((1, 2, 2, 2, 3, 3, 4, 5, 6)), most)
    return list(dict.fromkeys(make(r) for _ in range(count)))


def picker(pool: tuple[str, ...]) -> Callable[[Random], str]:
    """A name function that draws from a pool."""
    return lambda r: r.choice(pool)
