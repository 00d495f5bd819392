"""Parts of bench_multidomain_step.py."""
