"""What pictures are called, and who may see them."""

from __future__ import annotations

import pytest

from features.tiny import names, pictures


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("teapot_ganson", "teapot"),
        ("teiera_tazza_architetto__01", None),
        ("gatto_cat_architetto_fra_01", "cat"),
        ("A red headed cep.", "mushroom"),
        ("hot_dog_juliane_krug_r", None),
        ("jean_victor_balin", None),
        ("Zaino_per_montagna", "backpack"),
    ],
)
def test_names_give_classes_only_when_they_are_clear(text: str, expected: str | None) -> None:
    assert names.class_of(text) == expected


def test_versions_of_a_drawing_are_never_divided() -> None:
    versions = ["cone1_ganson", "cone1_bw_ganson"], ["home0", "home7", "home15"]
    for group in versions:
        assert len({pictures.split_of(f"openclipart/{name}") for name in group}) == 1


def test_splits_hold_their_share() -> None:
    splits = [pictures.split_of(f"openclipart/drawing-{i}-of-it") for i in range(3000)]
    assert splits.count("train") / 3000 == pytest.approx(0.8, abs=0.03)
    assert splits.count("test") / 3000 == pytest.approx(0.1, abs=0.03)


def test_vocabulary_holds_every_class_and_no_word_twice() -> None:
    words = names.vocabulary()
    assert len(words) == len(set(words))
    for name in names.CLASSES:
        assert set(name.replace("-", " ").split()) <= set(words)
    assert names.BACKGROUND in words
