"""Dialects: what rows mean, one module each, both directions. The module's name is the dialect's name.

A format is a class with

- `kind`, where its rows are no chat: "preference" (`messages` are the prompt, `chosen` and `rejected` the answers),
  "judged" (a conversation with a `label`) or "text"; see rows/kinds.py,
- `columns`: the columns it knows, with their polars types (a numeric `score` is understood in every dialect),
- `sample`: rows in the dialect, for documentation and for the round-trip test,
- `roles`, where its turns have some: by their place (`messages[].role`) the words that are read, and our role for each,
- `claims(row)`: whether a raw row (a dict) is in this dialect,
- `read(frame)`: a lazy frame of those columns → the CONVERSATION columns it can fill (vectorised: the hot road),
- `write(conversation)`: a CONVERSATION row (a dict) → a row of the dialect,
- `loses(conversation)`: what `write` could not express of a row of its kind, in words, or None,
- `fault()`, where needed: an expression over the columns, what makes a row none of this dialect, in words, or null,
- `lacks(frame)`, where needed: why rows cannot be read without an option, in words, or None.

Formats see polars and `qdata.schema`, nothing else of ours; those with a `kind` may build on the dialect of chats that
their prompt is written in.
"""
