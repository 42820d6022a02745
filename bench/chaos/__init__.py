"""Seeded faults on the real parts, counted: whatever breaks, the model that comes out is the same.

Run by `python -m bench.chaos` (`make chaos`).
"""
