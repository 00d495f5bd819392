"""What benchmarks/replay_collisions.py trains, and how it counts."""
