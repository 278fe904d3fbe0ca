"""Words that were added to a published tokenizer, such as [URL] or <user>, from all the files that may hold them."""

from keras_compress.bert.tokenizer_kinds import BERT_PIECES
from keras_compress.files import read_json

_SPECIAL = ("bos_token", "eos_token", "additional_special_tokens", "extra_special_tokens")


def added_words(folder, path, pieces, config):
    """The added words of a folder, as `Tokenizer` takes them; BERT's own special pieces are left out.

    Args:
        path: tokenizer.json or vocab.txt. pieces: {piece: id} of the vocabulary.
        config: content of tokenizer_config.json.
    Raises:
        ValueError: if a word has another id than its piece, or than the next one after the vocabulary.
    """
    special_map, numbers = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("special_tokens_map.json", "added_tokens.json")
    )
    named = [x for values in (special_map, config) for key in _SPECIAL for x in _list(values, key)]
    special = {_content(value) for value in named}
    in_json = read_json(path).get("added_tokens") if path.name == "tokenizer.json" else None
    rows = [(value["id"], value) for value in in_json or []]
    rows += [(int(k), value) for k, value in (config.get("added_tokens_decoder") or {}).items()]
    rows += [(k, {"content": x, "special": x in special}) for x, k in numbers.items()]
    rows += [(None, value if isinstance(value, dict) else {"content": value}) for value in named]
    words, ids = {}, {}
    for number, value in rows:
        content = value["content"]
        if content and content not in BERT_PIECES and content not in words:
            is_special = value.get("special", content in special)
            words[content] = {
                "content": content,
                "single_word": value.get("single_word", False),
                "normalized": value.get("normalized", not is_special),
            }
            ids[content] = number
    inside = [content for content in words if content in pieces]
    outside = [content for content in words if content not in pieces]
    outside.sort(key=lambda content: (ids[content] is None, ids[content]))
    expected = {content: pieces[content] for content in inside}
    expected |= {content: len(pieces) + k for k, content in enumerate(outside)}
    for content, number in expected.items():
        if ids[content] not in (None, number):
            raise ValueError(
                f"{folder}: an added word must have the id of its piece, or the next one after the vocabulary. "
                f"Received: {content!r} with {ids[content]} instead of {number}. "
                "Save the tokenizer again with `transformers`."
            )
    return [words[content] for content in expected]


def _list(values, key):
    """One word, a list or a dict of them as a list."""
    value = values.get(key) or []
    if isinstance(value, dict) and "content" not in value:
        return [*value.values()]
    return value if isinstance(value, list) else [value]


def _content(value):
    return value["content"] if isinstance(value, dict) else value
