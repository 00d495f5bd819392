"""Parts of bench_sync.py."""
