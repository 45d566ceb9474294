"""Serving and training of two checkouts in pairs: ``python -m benchmarks.before_after``."""
