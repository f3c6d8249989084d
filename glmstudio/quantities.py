"""Sizes, speeds and durations as people read them, the same on the page, in the terminal and in every message."""


def size(count: float) -> str:
    """Bytes as "8.12 GB" or "430 MB", in three digits; a GB has 2**30 of them, as where a graphics card is named."""
    value, unit = (count / 2**30, "GB") if count >= 2**30 else (count / 2**20, "MB")
    return f"{_digits(value)} {unit}"


def rate(count: float) -> str:
    """So many a second as "3,900", "48", "5.1" or "0.18": what is slow is not 0."""
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def clock(seconds: float) -> str:
    """A duration in seconds as "01:10" or "2:05:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _digits(value: float) -> str:
    places = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{places}f}"
