"""Benchmarks of speed and memory, one file each: `run()` measures and returns plain values for `same bench NAME`."""
