"""Scoring rules, one file a rule, each in the four readings of `same.metrics.READINGS`.

Each module has `score(prediction, row, variant)` in [0, 1], where `row` is a row of `same.data.dataset.test_rows`; or,
where the score of an answer depends on the other answers too, `score_all(predictions, rows, variant)`, and what that is
made of in `measures(predictions, rows)`. One that asks more of a row than an answer has `check(row)`, which raises
DataError before anything is trained. `FLAWS` says of a reading what a reader of its numbers must know. What `strict` or
`standard` accepts, `semantic` accepts too, so that semantic − strict measures drift of the format; `paper` copies what
public code does, mistakes included, and obeys no such order.
"""
