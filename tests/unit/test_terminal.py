"""What the command line prints while it waits."""

import time

from glmstudio.terminal import DownloadPrinter


def test_a_download_is_one_line_that_is_redrawn_now_and_then(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    DownloadPrinter()(7, 7, "")
    show = DownloadPrinter()
    for done in range(0, 12 * 2**30, 2**30):
        show(done, 12 * 2**30, "model-00001-of-00007.safetensors")
        clock[0] += 0.05
    show(12 * 2**30, 12 * 2**30, "model-00007-of-00007.safetensors")
    drawn = capsys.readouterr().err.split("\r")[1:]
    assert drawn[0].strip() == "0.00 MB of 12.0 GB (0%) model-00001-of-00007.safetensors"
    assert drawn[-1].startswith("12.0 GB of 12.0 GB (100%)")
    assert [line.endswith("\n") for line in drawn] == [False] * 3 + [True]
    assert {len(line.rstrip("\n")) for line in drawn} == {80}
