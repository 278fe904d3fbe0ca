"""Which tokenizers are BERT's own. A folder whose texts would get other ids is refused, naming file, key and value."""

import logging
import re

from keras_compress.files import read_text

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
BERT_PIECES = (*SPECIAL_PIECES, "[MASK]")
# What tokenizer_config.json or config.json may say; null is as usual, "Fast" makes no difference.
_USUAL = {
    "tokenizer_class": ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
    "word_tokenizer_type": ["basic"],
    "subword_tokenizer_type": ["wordpiece"],
    "do_basic_tokenize": [True],
    "do_word_tokenize": [True],
    "do_subword_tokenize": [True],
    "never_split": [[]],
    "mecab_kwargs": [{}],
    "sudachi_kwargs": [{}],
    "jumanpp_kwargs": [{}],
    "sp_model_kwargs": [{}],
    "clean_text": [True],
    "split_special_tokens": [False],
    "wordpieces_prefix": ["##"],
    **{f"{piece[1:-1].lower()}_token": [piece] for piece in BERT_PIECES},
}
_ALL_IN_JSON = ["PreTrainedTokenizer", "TokenizersBackend"]
_PAIR = [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)]
# What tokenizer.json must say.
_JSON = {
    "model": "WordPiece",
    "normalizer": "BertNormalizer",
    "pre_tokenizer": "BertPreTokenizer",
    "continuing_subword_prefix": "##",
    "unk_token": "[UNK]",
    "max_input_chars_per_word": 100,
    "clean_text": True,
    "post_processor": _PAIR,
}
log = logging.getLogger(__name__)
_SENTENCE_PIECE = re.compile(r"(tokenizer|spiece|sentencepiece|spm|sp|30k).*\.model|.*\.spm")


def check_files(folder):
    """Raises ValueError if a folder without tokenizer.json holds a SentencePiece model."""
    other = [file for file in folder.glob("*") if _SENTENCE_PIECE.fullmatch(file.name)]
    if other and not (folder / "tokenizer.json").is_file():
        raise _not_berts(other[0], "a SentencePiece model")


def check_config(path, values):
    """Raises ValueError unless a config describes BERT's tokenizer, or leaves that to a tokenizer.json beside it."""
    in_json = _ALL_IN_JSON if path.with_name("tokenizer.json").is_file() else []
    for key, usual in _USUAL.items():
        value = values.get(key)
        value = value.get("content", value) if isinstance(value, dict) else value
        known = value.removesuffix("Fast") if isinstance(value, str) else value
        if value is not None and known not in usual + in_json:
            raise _not_berts(path, f"`{key}` = {value!r}")
    if "AutoTokenizer" in (values.get("auto_map") or {}):
        raise _not_berts(path, f"`auto_map` = {values['auto_map']}")


def tells_nothing(values, vocab_path):
    """Whether a tokenizer_config.json is of a class that follows tokenizer.json alone."""
    kind = str(values.get("tokenizer_class")).removesuffix("Fast")
    return vocab_path.name == "tokenizer.json" and kind in _ALL_IN_JSON


def check_json(path, stored):
    """Raises ValueError unless the content of a tokenizer.json is BERT's tokenizer. A vocab.txt beside it that has other
    pieces gets a warning: some programs read the one, some the other."""
    parts = [stored.get(name) or {} for name in ("model", "normalizer", "pre_tokenizer")]
    received = dict(zip(_JSON, (part.get("type") for part in parts)))
    received |= {key: part[key] for part in parts for key in _JSON if key in part}
    ends = stored.get("post_processor") or {}
    if ends.get("type") == "BertProcessing":
        (first, _), (last, _) = ends["cls"], ends["sep"]
        received["post_processor"] = [(first, 0), ("A", 0), (last, 0), ("B", 1), (last, 1)]
    else:
        single, pair = (
            [(x["id"], x["type_id"]) for step in ends.get(form, ()) for x in step.values()]
            for form in ("single", "pair")
        )
        received["post_processor"] = pair if single == pair[:3] else single
    for key, value in received.items():
        if value != _JSON[key]:
            raise _not_berts(path, f"`{key}` = {value!r} instead of {_JSON[key]!r}")

    beside, vocab = path.with_name("vocab.txt"), stored["model"].get("vocab")
    if beside.is_file() and isinstance(vocab, dict):
        pieces = enumerate(read_text(beside).replace("\r\n", "\n").rstrip("\n").split("\n"))
        if other := [piece for number, piece in pieces if vocab.get(piece) != number]:
            form = "%s is read, not vocab.txt, which has %d other pieces, such as %s. Remove the file that is wrong."
            log.warning(form, path, len(other), ", ".join(other[:3]))


def check_pieces(path, vocab, split_chinese):
    """Raises ValueError if a vocabulary is of SentencePiece, BPE or words that another program cut."""
    other = [piece for piece in vocab if piece.startswith(("\u2581", "\u0120"))]
    if other and not any(piece.startswith("##") for piece in vocab):
        raise _not_berts(path, f"no piece with '##', but {other[:3]}, as of SentencePiece or BPE")
    chinese = [piece for piece in vocab if re.search("[\u3400-\u9fff]", piece)]
    words = [piece for piece in chinese if re.search("[\u3400-\u9fff]{2}", piece)]
    if split_chinese and len(words) > 0.1 * len(chinese):
        raise _not_berts(
            path,
            f"{len(words):,} pieces of several Chinese characters, such as {words[:3]}, which BERT "
            "never joins: texts were cut into words by a program like MeCab or jieba",
        )


def _not_berts(path, received):
    return ValueError(
        f"{path}: the tokenizer must be BERT's own, WordPiece with '##' on words as BertTokenizer "
        f"cuts them. Received: {received}. Choose a checkpoint with a BertTokenizer."
    )
