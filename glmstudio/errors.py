"""Errors shown to people. A code and its parameters only: the words live with the page and the command line."""


class StudioError(Exception):
    """Something a person can mend: `code` names the sentence (`error.<code>` in the word lists), `params` fill it."""

    def __init__(self, code: str, **params: object) -> None:
        self.code = code
        self.params = params
        super().__init__(f"{code} {params}" if params else code)
