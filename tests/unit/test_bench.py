"""The store's benchmark measures what it says, on a size that takes no time."""

from glmstudio.data.bench import bench_store


def test_the_benchmark_times_every_call_on_all_rows() -> None:
    result = bench_store(60)
    assert result["rows"] == 60
    assert set(result["seconds"]) == {"import", "export"}
    calls = result["milliseconds"]
    assert {"first_page", "last_page", "datasets", "save", "search_one_character", "search_nothing"} <= set(calls)
    assert all(0 < times["median"] <= times["worst"] for times in calls.values())
