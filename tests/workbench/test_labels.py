"""Names of runs: short where one is alone, and telling where there are twins."""

from typing import Any

from workbench.labels import Named, labels


def named(fingerprint: str, given: int = 0, method: str = "same", seed: str = "0", **settings: Any) -> Named:
    plain = {"gain": "inverse", "damping": 1.0, "train_items": 640, "tasks": ["a", "b"]}
    return Named("mini-coin", method, seed, fingerprint, {**plain, **settings}, given)


def test_a_run_alone_has_the_name_of_its_method() -> None:
    assert labels([named("a"), named("b", method="lora")]) == ["same", "lora"]
    assert labels([]) == []


def test_twins_are_told_apart_by_what_they_were_given() -> None:
    runs = [
        named("a1", given=2, gain="none", damping=0.1),
        named("b2"),
        named("c3", given=1, damping=10.0),
        named("d4", seed="1"),
    ]
    assert labels(runs) == [
        "same · seed 0 · damping=0.1, gain=none",
        "same · seed 0",
        "same · seed 0 · damping=10.0",
        "same · seed 1",
    ]


def test_of_several_plain_sizes_each_is_named() -> None:
    runs = [named("a1"), named("b2", train_items=1600), named("c3", given=1, gain="none")]
    assert labels(runs) == ["same · train_items=640", "same · train_items=1600", "same · gain=none, train_items=640"]


def test_what_settings_cannot_say_the_fingerprint_says() -> None:
    damaged = Named("mini-coin", "same", "0", "dddddddd")
    twins = [named("aaaaaaaa"), named("bbbbbbbb", given=1, tasks=["b", "a"]), named("cccccccc", given=1, tasks=["b"])]
    assert labels([*twins, damaged]) == [
        "same · aaaaaa",
        "same · tasks · bbbbbb",
        "same · tasks · cccccc",
        "same · dddddd",
    ]
    long = named("eeeeeeee", given=1, gain="x" * 80)
    assert labels([named("a1"), long]) == ["same", "same · eeeeee"]


def test_a_copy_of_a_run_is_told_from_it_by_its_folder() -> None:
    runs = [named("44561eaaaaaa"), named("44561eaaaaaa.bak"), named("c3", given=1, gain="none")]
    assert labels(runs) == ["same · 0-44561eaaaaaa", "same · 0-44561eaaaaaa.bak", "same · gain=none"]
    assert labels([named("", seed="copy"), named("", seed="copy", method="lora")]) == ["same", "lora"]
