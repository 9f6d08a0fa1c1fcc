"""Gapminder's countries and years, for the tasks that draw figures of them."""

from __future__ import annotations

from functools import cache

import pandas as pd

from same.data.mini._world import table


@cache
def figures() -> pd.DataFrame:
    """One row a country and year with all figures: code (two letters), year, babies, life, millions.

    ``babies`` are per woman, ``life`` is the expectancy in whole years, ``millions`` of people are whole too.
    """
    rows = table("gapminder.csv.gz").merge(table("gapminder_regions.csv"), left_on="country", right_on="Country")
    numbers = rows[["fertility", "life_expectancy", "population"]].apply(pd.to_numeric, errors="coerce")
    found = pd.DataFrame(
        {
            "code": rows["ID"],
            "year": rows["year"].astype(int),
            "babies": numbers["fertility"].round(1),
            "life": numbers["life_expectancy"].round(),
            "millions": (numbers["population"] / 1e6).round(),
        }
    ).dropna()
    return found[found["code"].str.len() == 2].reset_index(drop=True)
