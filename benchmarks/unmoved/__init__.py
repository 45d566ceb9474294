"""What a checkout does, seen from outside, and whether another one does the same: ``python -m benchmarks.unmoved``."""
