"""The text of a JSON file, a window of it at a time: one value after the other, with its place; from a broken value on
to the next one. Knows no rows.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

# Inside a text a tab or a line break without its backslash does no harm, so it is read.
DECODER = json.JSONDecoder(strict=False)
# A value of more characters is not looked for.
LONGEST = 16 << 20
# The end of a broken one is looked for so far.
_LONGEST_BROKEN = 1 << 20
# In all, and then each time.
_MOST_LOOKED, _LEAST_LOOKED = 16 << 20, 2000
_LOOK_AHEAD = 1000
_MARK = "\ufeff"
_BLANKS = re.compile("[\\s\ufeff]*")
_COMMENT = re.compile(r"(//|#)[^\n]*|/\*.*?(\*/|\Z)", re.DOTALL)
# A text ends with its line here: one that is never closed must not hide all that follows.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]]')
_COMMA_AT_END = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_OPENS = {"]": "[", "}": "{"}
_PUNCTUATION = "：，｛｝［］"
_QUOTES = "'‘’“”＂＇`"


class JsonBroken(Exception):
    """A value that is no JSON: where, and why in a word: `quotes`, `punctuation`, `comment`, `cut` or `syntax`."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(why)
        self.position, self.why = position, why


class JsonText:
    """`position` is where the next value begins, in `text`, the part of the file that is at hand; `began` is where the
    last value began."""

    def __init__(self, blocks: Iterator[str], line: int = 1) -> None:
        self._blocks = blocks
        self.text, self.position, self.began = "", 0, 0
        self._budget = _MOST_LOOKED
        # The line of a place in `text` whose line breaks before it were counted, and where that line begins.
        self._counted, self._line, self._line_start = 0, line, 0

    def more(self) -> bool:
        """Takes another piece in, as large as all that is at hand, and lets go of what is before `position`."""
        pieces, size = [], 0
        while size <= len(self.text) - self.position and (block := next(self._blocks, "")):
            pieces.append(block)
            size += len(block)
        if not pieces:
            return False
        self.place(self.position)
        self.text = self.text[self.position :] + "".join(pieces)
        self._counted -= self.position
        self._line_start -= self.position
        self.position = 0
        return True

    def place(self, position: int) -> tuple[int, int]:
        """1-based (line, column). Places may be asked for in any order from `position` on."""
        if position >= self._counted:
            breaks = self.text.count("\n", self._counted, position)
            if breaks:
                self._line += breaks
                self._line_start = self.text.rfind("\n", self._counted, position) + 1
            self._counted = position
            return self._line, position - self._line_start + 1
        breaks = self.text.count("\n", position, self._counted)
        start = self.text.rfind("\n", 0, position) + 1 if breaks else self._line_start
        return self._line - breaks, position - start + 1

    def next_char(self) -> str:
        """The character where the next value, or what parts values, begins; empty at the end of the file."""
        while True:
            self.position = _BLANKS.match(self.text, self.position).end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.more():
                return ""

    def skip_comment(self) -> bool:
        """Goes behind a comment that begins at `position`, where one does."""
        if self.text[self.position] not in "/#":
            return False
        while (found := _COMMENT.match(self.text, self.position)) and found.end() == len(self.text):
            if not self.more():
                break
        if found is None:
            return False
        self.position = found.end()
        return True

    def value(self, longest: int = LONGEST) -> Any:
        """The value at `position`, behind which `position` is then. Raises JsonBroken, also for one that goes on for
        more than `longest` characters, and stays where it is."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                at_end = error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")
                if at_end and len(self.text) - self.position < longest and self.more():
                    continue
                raise JsonBroken(error.pos, self._why(error)) from None
            except (ValueError, RecursionError):
                raise JsonBroken(self.position, "syntax") from None
            # A number goes on in the next piece, perhaps.
            if end == len(self.text) and self.more():
                continue
            self.began, self.position = self.position, end
            return value

    def looks_like(self, pattern: re.Pattern[str]) -> bool:
        """Whether what begins at `position` matches."""
        if len(self.text) - self.position < _LOOK_AHEAD:
            self.more()
        return pattern.match(self.text, self.position) is not None

    def _why(self, error: json.JSONDecodeError) -> str:
        char = self.text[error.pos : error.pos + 1]
        if char and char in _QUOTES:
            return "quotes"
        if char and char in _PUNCTUATION:
            return "punctuation"
        if _COMMENT.match(self.text, error.pos):
            return "comment"
        return "syntax" if char else "cut"

    def mended(self) -> Any:
        """The broken value at `position`, without commas before its ends. Raises JsonBroken."""
        end = self._end_of_value()
        if end is None:
            raise JsonBroken(self.position, "syntax")
        text = _COMMA_AT_END.sub(lambda found: found[1] or "", self.text[self.position : end])
        try:
            value = DECODER.decode(text)
        except (ValueError, RecursionError):
            raise JsonBroken(self.position, "syntax") from None
        self.position = end
        return value

    def go_on(self, first_name: str) -> bool:
        """Goes from a broken value to where the next one begins, or where the list ends. False where it is not known,
        and `position` is the end of the file then. `first_name` is that of the first member of other values."""
        end = self._end_of_value()
        begins = self._next_begins(first_name)
        while True:
            found = begins.search(self.text, self.position + 1)
            if end is not None and self._follows(end) and (found is None or end <= found.end()):
                self.position = end
                return True
            if found is not None:
                self.position = found.end() - 1
                return True
            end, self.position = None, max(len(self.text) - _LOOK_AHEAD, self.position)
            if not self.more():
                self.position = len(self.text)
                return False

    def _next_begins(self, first_name: str) -> re.Pattern[str]:
        """What ends with the bracket that opens the next value."""
        if first_name:
            return re.compile(rf'\{{(?=\s*"{re.escape(first_name)}"\s*:)')
        line_start = self.text.rfind("\n", max(self.position - _LOOK_AHEAD, 0), self.position) + 1
        indent = self.text[line_start : self.position]
        if self.text.startswith(("{", "["), self.position) and not indent.strip("\ufeff \t"):
            return re.compile(rf"\n{indent.strip(_MARK)}[{{\[]")
        return re.compile(r"[\n}],?\s*[{\[]")

    def _follows(self, end: int) -> bool:
        """Whether what comes behind a value can come there."""
        after = _BLANKS.match(self.text, end).end()
        return self.text[after : after + 1] in ("", ",", "]", "}", "{")

    def _end_of_value(self) -> int | None:
        """Behind the bracket that closes the value at `position`; None where brackets do not pair."""
        if not self.text.startswith(("{", "["), self.position):
            return None
        while True:
            opened: list[str] = []
            # Many broken values must not each be looked for through the whole file.
            far = max(self._budget, _LEAST_LOOKED)
            self._budget -= min(far, len(self.text) - self.position)
            for token in _TOKEN.finditer(self.text, self.position, self.position + far):
                char = token[0]
                if char in "{[":
                    opened.append(char)
                elif char in "}]":
                    if not opened or opened.pop() != _OPENS[char]:
                        return None
                    if not opened:
                        self._budget += min(far, len(self.text) - self.position) - (token.end() - self.position)
                        return token.end()
            if far <= _LEAST_LOOKED or len(self.text) - self.position > _LONGEST_BROKEN or not self.more():
                return None
