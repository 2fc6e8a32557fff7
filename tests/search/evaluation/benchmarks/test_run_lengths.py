"""COCO's compressed run lengths, against an encoder in plain loops and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from search.evaluation.benchmarks.run_lengths import decode_rle
from tests.helpers.benchmarks.benchmark_folders import (
    Mask,
    encode_rle,
)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=100, deadline=None)
def test_run_lengths_round_trip(mask: Mask) -> None:
    decoded = decode_rle(encode_rle(mask), *mask.shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


def test_run_lengths_by_hand() -> None:
    # 1 background, 1 object, 4 background, down the columns.
    assert decode_rle("114", 2, 3).astype(int).tolist() == [[0, 0, 0], [1, 0, 0]]
    # 40 = 8 + 32, so digits 8 and 1; then 50 - 0 = 18 + 32; the fourth run is 40 - 50 = -10,
    # whose digit is 22: bit 16 says that it is negative.
    mask = decode_rle("X1b1" + "0" + chr(48 + 22), 13, 10)
    flat = mask.reshape(-1, order="F")
    assert np.flatnonzero(np.diff(flat.astype(int))).tolist() == [39]
    assert flat.sum() == 90


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ("113", "ends after 5 pixels of 3 x 2"),
        ("11T", "ends within a number"),
        ("114T", "ends within a number"),
        ("", "ends after 0 pixels"),
        ("117", "a run of 7 pixels"),
        ("1@1", "a run of -16 pixels"),
        ("1 4", "is no character"),
        ("1\u00e94", "is no character"),
    ],
)
def test_run_lengths_that_are_none(counts: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_rle(counts, 2, 3)
