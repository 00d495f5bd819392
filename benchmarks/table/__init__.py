"""What benchmarks/bench_table.py measures the table against, and with."""
