"""Exact answers (icons, counting, remote sensing, chemistry, and UCIT's ImageNet-R).

`strict` and `paper` are equality in upper case, as the public benchmark code has it; `standard` is plain equality.
"""

from same.scorers._reading import equal, equal_in_capitals, equal_in_normal_form, scorer

score = scorer(strict=equal_in_capitals, standard=equal, semantic=equal_in_normal_form)
