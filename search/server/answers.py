"""The answers of the last searches, so that their pictures can be asked for one by one."""

import secrets
from collections import OrderedDict

from search.answer import Answer
from search.server.request_bodies import RequestError

# An answer holds the maps of its query photos: up to 20 MB each with large models.
_KEPT = 8


class KeptAnswers:
    """The last answers, each under a key."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def keep(self, answer: Answer) -> str:
        """Keep an answer; returns its key."""
        key = secrets.token_hex(8)
        self._answers[key] = answer
        if len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        return key

    def get(self, key: str, rank: int) -> Answer:
        """The answer of a key, which has a match of this rank.

        Raises RequestError (404) where it is kept no more, or has no such match.
        """
        answer = self._answers.get(key)
        if answer is None:
            raise RequestError("this search is not kept any more; search again", 404)
        self._answers.move_to_end(key)
        if not 1 <= rank <= len(answer.matches):
            raise RequestError(f"this search has no match of the rank {rank}", 404)
        return answer
