"""Scoring rules, one file a rule.

Each module has `VARIANTS`, the names of the readings it knows, and `score(prediction, row, variant)` in [0, 1], where
`row` is a row of `same.data.dataset.test_rows`. One that asks more of a row than an answer has `check(row)`, which
raises DataError before anything is trained. Two readings are always there: `strict`, the benchmark's own rule, and
`normalised`, which looks through case, articles, punctuation, number words and the like. What `strict` accepts,
`normalised` accepts too, so their difference measures drift of the format and never anything else.
"""
