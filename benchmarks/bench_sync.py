"""Time the sync of touched rows at 20,000 row updates a second; print one JSON document.

    OMP_NUM_THREADS=1 python benchmarks/bench_sync.py [--quick]

Training and serving take turns with and without sync in this run; figures are medians over the turns,
``low`` and ``high`` quartiles. Seals go into the embedded broker, whose process shares the cores. At
20,000 updates a second the rate kept is what a seal leaves of its second; at full speed, several times
that, the learner seals once a second of wall time and is timed against one that is not followed. Serving
scores requests of 200 candidates one after another, while a second thread reads and applies a seal of
20,000 updates once a second.
"""

from __future__ import annotations

import argparse

import torch
from document import print_document
from sync.beside_learning import training_figures
from sync.beside_serving import serving_figures
from sync.seals import memory_figures, seal_figures
from sync.subjects import SEED

from streaming.row_codecs import CODECS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 turns instead of 8")
    turns = 2 if parser.parse_args().quick else 8
    torch.set_num_threads(1)
    figures = [*training_figures(turns), *serving_figures(turns)]
    for codec in CODECS:
        figures += seal_figures(codec, 2 * turns)
    figures += memory_figures()
    print_document("sync", figures, seeds=[SEED])


if __name__ == "__main__":
    main()
