"""As a command runs the tests of what hangs on the processor once more, as one with fewer instructions would:
`python -m tests.lesser_processor`. Nothing is run where the processor has no more."""

import os
import subprocess
import sys

from glmstudio.models.processor import instructions

# As most laptops and desktops are, and AMD's processors before Zen 4.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
TESTS = (
    "tests/train/test_frozen_linears.py",
    "tests/train/test_loss.py",
    "tests/train/test_packing.py",
    "tests/train/test_train_quantised.py",
    "tests/unit/test_devices.py",
    "tests/unit/test_engine.py",
    "tests/unit/test_flash.py",
    "tests/unit/test_loading.py",
    "tests/unit/test_processor.py",
    "tests/unit/test_quantising.py",
    "tests/unit/test_slots.py",
)


def main() -> int:
    if "avx512_f" not in instructions():
        print("processor: no AVX-512 here, so the tests have shown what one without it does")
        return 0
    print("processor: once more with AVX2 only", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", *TESTS]
    return subprocess.run(command, env=os.environ | AVX2).returncode


if __name__ == "__main__":
    sys.exit(main())
