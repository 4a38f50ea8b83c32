"""Steps that look at all rows at once: frozen dataclasses with `sketch` and `decide`; what follows is one join for all.

- `sketch(LazyFrame) -> LazyFrame`: row-local, in the CONVERSATION schema in, a narrow table out: `row`, and hashes,
  lengths or scores in columns of its own. It is made part by part, wherever the part is. Law: it does not see where
  parts are cut.
- `decide(DataFrame) -> DataFrame`: takes the sketches of all rows that are still there, in any order, and returns
  `row` and what becomes of it: `drop` (a reason, "step.reason") and `by` (the row that stays in its stead), and every
  other column is a field of `score`. Rows it does not name stay as they are. Law: the order of its rows is no matter.

A step's fields are its TOML keys. As in steps/, the fields of `score` it writes are named in `scores`, and those it
looks at in `reads`. Steps follow each other: what one dropped, the next does not see; but all sketches are made of rows
as the local steps left them.
"""
