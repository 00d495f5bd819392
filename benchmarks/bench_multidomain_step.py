"""Time training steps and scoring of AdaptDHM beside its peers, and print one JSON document.

    python benchmarks/bench_multidomain_step.py [--quick]

A step is the passes forward and backward over 1,024 rows of 11 features of 16 columns, Adam's step, and
``adapt``; hidden layers are 256, 128 and 64 wide on each row's path. Rows are given, not looked up. The
``naive_`` forms compute every domain's network for every row, as they are usually written. Names begin
with the number of domains. Torch uses one thread; pin others with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse

import torch
from document import print_document
from multidomain.serving import serving_figures
from multidomain.steps import step_figures
from multidomain.subjects import NETS, SEED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, and at most 30 domains")
    is_quick = parser.parse_args().quick
    torch.set_num_threads(1)
    figures = []
    for n_domains in (2, 12, 30):
        figures += step_figures(n_domains, 3 if is_quick else 30)
    if not is_quick:
        # The naive forms at 300 domains need gigabytes and tens of seconds a step.
        figures += step_figures(300, 10, tuple(NETS))
    for hidden in ((32,), (128, 64, 32)):
        figures += serving_figures(hidden, 2 if is_quick else 12)
    print_document("multidomain_step", figures, seeds=[SEED])


if __name__ == "__main__":
    main()
