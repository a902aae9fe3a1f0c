"""Layer L3: a whole installation in one thread, under a clock that jumps; `python -m tests.simulation --help`."""
