"""Containers: how rows lie in a file, one module each. The module's name is what a part says it came from.

A container is a class with

- `suffixes`: the endings it is known by (`.gz`, `.zst`, `.bz2`, `.xz` behind them are nobody's here: compression.py),
- `likeness(head)`: whether a file is one: 3 by its name or magic number, 2 by how it begins, 1 if nobody else, 0 no,
- `unit`: what messages call a row of it,
- `parts(part, part_bytes)`: a part that stands for the whole file, cut into parts of about that size,
- `read(part)`: its rows,
- `sink(file, dialect)`, where it can be written: what takes rows one by one and ends with `close()`.

Containers know nothing of dialects but the types of their columns.
"""
