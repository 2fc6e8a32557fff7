"""How sure a match is, in a word or two."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.answer import Match

# The least probability that each word stands for; and the least confidence, where there is no
# probability. What is below may be chance.
_WORDS = ((0.8, "sure"), (0.5, "likely"))
_WORDS_BY_CONFIDENCE = ((0.9, "sure"), (0.5, "likely"))
CHANCE = "maybe chance"


def sureness(match: "Match") -> str:
    """How sure a match is, in a word or two: nothing where that cannot be estimated."""
    from search.scoring.confidence import POSSIBLE

    likely = likelihood(match)
    if likely is None:
        return ""
    words = _WORDS_BY_CONFIDENCE if match.probability is None else (*_WORDS, (POSSIBLE, "possible"))
    return next((word for least, word in words if likely >= least), CHANCE)


def likelihood(match: "Match") -> float | None:
    """The probability that the photo shows the object; by scores that give none, the confidence.
    None for the query photo itself, and where neither can be estimated.
    """
    if match.is_query:
        return None
    return match.confidence if match.probability is None else match.probability
