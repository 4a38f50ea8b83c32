"""Containers: how rows lie in a file, one module each. The module's name is what a part says it came from.

A container is a class with

- `suffixes`: the endings it is known by (`.gz`, `.zst`, `.bz2`, `.xz` behind them are nobody's here: compression.py);
  none where it is read only if asked for,
- `likeness(head)`: whether a file is one: 3 by its name or magic number, 2 by how it begins, 1 if nobody else, 0 no,
- `unit`: what messages call a row of it,
- `is_table`: whether nested values may stand in it as JSON text, because its cells can hold no others,
- `parts(part, part_bytes)`: a part that stands for the whole file, cut into parts of about that size,
- `read(part)`: its rows,
- `sink(file, columns)`, where it can be written: a context manager that gives what takes rows one by one; `columns` are
  the dialect's with their types.

Containers know nothing of dialects but the types of their columns.
"""
