"""Row-local steps: frozen dataclasses, `LazyFrame → LazyFrame` in the CONVERSATION schema.

A step's fields are its TOML keys and its manifest entry. A filter never deletes: it writes `"step.reason"` into
`drop` of rows that have none yet. A step that edits says so with `edits = True`; the ledger then keeps the text
before and after. A scorer names the fields of `score` that it writes in `scores`, and what looks at scores names them
in `reads`. Law of every step: `f(a ++ b) == f(a) ++ f(b)`.
"""
