"""What the process asks of its libraries before they load. Knows no library."""

import logging
import os
import threading

# Held while heavy packages are imported: of a package that loads its parts when they are asked for, a second thread
# would see half.
importing = threading.RLock()


def prepare() -> None:
    """Sets environment defaults; what the user has set stays.

    Between two products the threads of OpenMP spin for milliseconds by default. Where anything else wants the cores (a
    training step beside an answer, a browser) a small model then answers fifteen times slower; with a short spin it
    loses a tenth where it has the cores to itself.

    oneDNN, and torch in front of it, keep the programs of the last 1024 sizes of a product, and nearly every batch has
    sizes of its own: a run of 40 steps then held half a gigabyte of them. 128 each are enough for the layers of a batch
    of 16 rows; 24 steps of a 256 x 6 model peak at 746 MB in place of 1,106, and take the same time to a few percent.
    """
    # It recommends a package that fetches code from a hub, and repeats with every product how LLM.int8 works.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "128")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
