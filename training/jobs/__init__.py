"""Batch work under Ray: each file is one job that parses, builds and runs; the arithmetic is elsewhere."""
