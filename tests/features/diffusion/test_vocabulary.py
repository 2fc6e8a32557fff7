"""The list of nouns, and their class vectors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.diffusion.vocabulary import nouns
from features.errors import RegionError
from features.extractor import FeatureExtractor
from training.names import BACKGROUND, CLASSES, MORE_NOUNS, SYNONYMS


def test_nouns_are_many_and_each_is_one_line() -> None:
    found = nouns()
    assert 2000 < len(found) < 4000
    assert found == sorted(set(found))
    assert {*CLASSES, *SYNONYMS.values(), *MORE_NOUNS.split(), "laptop", "giraffe"} <= set(found)
    assert all(word.isascii() and word.strip() == word and word for word in found)


def test_words_carry_their_licence() -> None:
    import features.diffusion.vocabulary

    text = Path(features.diffusion.vocabulary.__file__).with_name("nouns.txt").read_text()
    assert "# WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text


def test_every_class_of_the_bundled_model_is_covered(tiny: FeatureExtractor) -> None:
    vectors = tiny.vocabulary_vectors()
    assert vectors.dtype == np.float32
    assert vectors.shape[1] == tiny.dim
    background = tiny.class_vector(BACKGROUND)
    for name in CLASSES:
        vector = tiny.class_vector(name)
        for wanted in (vector, vector - background):
            # Rounding differs between batches and single names.
            assert np.abs(vectors - wanted).max(axis=1).min() < 1e-4
    half = len(vectors) // 2
    np.testing.assert_allclose(vectors[half:], vectors[:half] - background, atol=1e-5)


def test_no_vector_twice(tiny: FeatureExtractor) -> None:
    vectors = tiny.vocabulary_vectors()
    assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_names_of_no_known_word_are_left_out(tiny: FeatureExtractor) -> None:
    block = tiny.settings.block
    with pytest.raises(RegionError):
        tiny.class_vector("antimacassar")
    vectors = tiny.model.class_vectors(["dog", "antimacassar", "soccer ball"], block)
    singles = [tiny.class_vector(name) for name in ("dog", "soccer ball")]
    np.testing.assert_allclose(vectors, singles, atol=1e-5)
    assert tiny.model.class_vectors(["antimacassar"], block).shape == (0, tiny.dim)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_vectors_of_every_family(family: str, pipeline_folder: Callable[[str], Path]) -> None:
    extractor = FeatureExtractor.load(str(pipeline_folder(family)), "cpu", batch_size=1)
    names = ["cat", "dog on a sofa", "cup"]
    vectors = extractor.model.class_vectors(names, extractor.settings.block)
    singles = [extractor.class_vector(name) for name in names]
    np.testing.assert_allclose(vectors, singles, atol=1e-5)
