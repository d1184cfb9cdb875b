"""Figures of svcplane's speed and size.  `make bench`, or `python -m benchmarks [GROUP...] [--tiny]`.

Each module with a `TITLE` and an `async def run(scale)` that gives `figures.Figure`s is a group of its own.
"""
