"""Masks as COCO's compressed run lengths."""

import numpy as np
from numpy.typing import NDArray


def decode_rle(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask, (height, width) bool.

    counts: run lengths down the columns, background first. A number is written as in LEB128, but in
    digits of 5 bits, the lowest first. Each digit is the character 48 + digit, plus 32 if more
    follow; bit 16 of the last digit is the sign. From the fourth run on, the number is the
    difference from the run two before. Raises ValueError for text that is no such code, or not the
    code of a mask of this size.

    >>> decode_rle("114", height=2, width=3).astype(int)
    array([[0, 0, 0],
           [1, 0, 0]])
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{character!r} is no character of a run-length code")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        if len(runs) > 2:
            number += runs[-2]
        if not 0 <= number <= height * width:
            raise ValueError(f"a run of {number} pixels in a mask of {width} x {height}")
        runs.append(number)
        number = shift = 0
    if shift:
        raise ValueError("ends within a number")
    if sum(runs) != height * width:
        raise ValueError(f"ends after {sum(runs)} pixels of {width} x {height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")
