"""Whether a model knows the words of a class name, from the files of its tokenizer alone."""

import json
from pathlib import Path

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


def may_know(folder: Path, name: str) -> bool:
    """Whether a tokenizer may know a word of a name. False is certain.

    folder: of the tokenizer. True for tokenizers that transformers builds from other files than
    tokenizer.json, such as CLIP's, which spell any word by its letters. Does not import torch.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if config.get("tokenizer_class") != "PreTrainedTokenizerFast" or not path.is_file():
            return True
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.enable_truncation(config["model_max_length"])
    except Exception:
        # Broken files are for the model to report, when it is loaded. `tokenizers` raises bare
        # Exception.
        return True
    given = [config.get(key) for key in _SPECIAL]
    special = {token["content"] if isinstance(token, dict) else token for token in given}
    return any(token not in special for token in tokenizer.encode(name).tokens)
