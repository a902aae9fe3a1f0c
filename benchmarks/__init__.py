"""Measurements of the queue beside the floors; `python -m benchmarks`."""
