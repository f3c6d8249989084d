"""One way to say a size and a speed."""

import pytest

from glmstudio.quantities import rate, size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0.00 MB"), (2**20 * 8.126, "8.13 MB"), (541_600_000, "517 MB"), (2**30, "1.00 GB"),
        (1.844 * 2**30, "1.84 GB"), (12.34 * 2**30, "12.3 GB"), (1234 * 2**30, "1,234 GB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits(count, said):
    assert size(count) == said


@pytest.mark.parametrize(
    ("count", "said"), [(3899.6, "3,900"), (48.2, "48"), (5.14, "5.1"), (0.176, "0.18"), (0.0, "0")]
)
def test_what_is_slow_is_not_nothing(count, said):
    assert rate(count) == said
