"""Benchmarks: manifests, instruction files, batches."""
