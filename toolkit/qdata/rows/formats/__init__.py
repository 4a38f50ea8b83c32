"""Dialects: what rows mean, one module each, both directions. The module's name is the dialect's name.

A format is a class with

- `columns`: the columns it knows, with their polars types (a numeric `score` is understood in every dialect),
- `sample`: rows in the dialect, for documentation and for the round-trip test,
- `claims(row)`: whether a raw row (a dict) is in this dialect,
- `read(frame)`: a lazy frame of those columns → the CONVERSATION columns it can fill (vectorised: the hot road),
- `write(conversation)`: a CONVERSATION row (a dict) → a row of the dialect,
- `loses(conversation)`: what `write` could not express, in words, or None,
- `fault()`, where needed: an expression over the columns, what makes a row none of this dialect, in words, or null.

Formats see polars and `qdata.schema`, nothing else of ours.
"""
