"""The words that a model knows, from the files of its tokenizer alone."""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Tokens with a task of their own; the token for unknown words is among them.
_SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)

# Plural endings and what may stand for them in the singular. A singular counts only if it is known.
_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"))


class Vocabulary:
    """The words of a tokenizer that has a list of whole words; torch is not imported.

    Other tokenizers, such as CLIP's, spell any word by its letters: nothing is unknown to them.
    """

    def __init__(self, folder: Path) -> None:
        """folder: of the tokenizer."""
        self._folder = folder

    @cached_property
    def words(self) -> frozenset[str] | None:
        """The words of the list; None where there is none."""
        if self._listed is None:
            return None
        tokenizer, special = self._listed
        return frozenset(set(tokenizer.get_vocab()) - special)

    def knows(self, name: str) -> bool:
        """Whether the model may know a word of a name in the singular. False is certain."""
        if self._listed is None:
            return True
        tokenizer, special = self._listed
        return any(token not in special for token in tokenizer.encode(name).tokens)

    def in_singular(self, name: str) -> str:
        """A name in which the singular stands for each plural that the model does not know."""
        known = self.words
        if known is None:
            return name

        def known_form(match: re.Match[str]) -> str:
            word = match[0].lower()
            return next((form for form in (word, *_singulars(word)) if form in known), match[0])

        return re.sub(r"\w+", known_form, name)

    def near(self, name: str) -> list[str]:
        """At most three known words that are spelled like a name; the nearest in length first."""
        from difflib import get_close_matches

        found = get_close_matches(name.lower(), sorted(self.words or ()), n=3, cutoff=0.6)
        return sorted(found, key=lambda word: abs(len(word) - len(name)))

    @cached_property
    def _listed(self) -> "tuple[Tokenizer, frozenset[str]] | None":
        """The tokenizer and its special tokens, where it has a list of words."""
        from tokenizers import Tokenizer

        path = self._folder / "tokenizer.json"
        try:
            config = json.loads((self._folder / "tokenizer_config.json").read_text("utf-8"))
            if config.get("tokenizer_class") != "PreTrainedTokenizerFast" or not path.is_file():
                return None
            tokenizer = Tokenizer.from_file(str(path))
            if type(tokenizer.model).__name__ != "WordLevel":
                return None
            tokenizer.enable_truncation(config["model_max_length"])
        except Exception:
            # Broken files are for the model to report, when it is loaded. `tokenizers` raises bare
            # Exception.
            return None
        given = [config.get(key) for key in _SPECIAL]
        names = (token["content"] if isinstance(token, dict) else token for token in given)
        return tokenizer, frozenset(name for name in names if name is not None)


def _singulars(word: str) -> Iterator[str]:
    """What may be the singular of a word: knives, knive, knife."""
    for ending, singular in _PLURALS:
        if word.endswith(ending):
            yield word.removesuffix(ending) + singular
