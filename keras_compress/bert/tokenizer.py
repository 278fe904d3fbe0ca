"""WordPiece tokenisation with a BERT vocabulary, by the `tokenizers` library."""

import logging
import re
import warnings
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as _Engine

from keras_compress.bert import tokenizer_kinds as kinds
from keras_compress.bert.added_words import added_words
from keras_compress.bert.tokenizer_kinds import BERT_PIECES, SPECIAL_PIECES
from keras_compress.files import one_of, read_json, read_text

CASED_FROM = 0.1  # share of the pieces with letters that hold a capital; see `make_tokenizer`
WARN_FROM = 0.1  # share of unknown words
CHUNK = 1024  # texts

log = logging.getLogger(__name__)


class Encoding(NamedTuple):
    """One text as ids.

    Attributes:
        truncated: whether its end, or beginning, was cut off.
        word_starts: of words: position of each word's first piece, -1 if it has none.
    """

    ids: list
    type_ids: list
    truncated: bool = False
    word_starts: list | None = None


class Tokenizer:
    """Texts to ids, as BERT's own tokenizer does: clean, split Chinese characters, lower-case, word pieces.

    Args:
        vocab: list of pieces; a piece's id is its position.
        lowercase: as BERT's uncased models do.
        strip_accents: None: where it lower-cases.
        added: dicts, arguments of `tokenizers.AddedToken`: words that are found in a text before it is cut into pieces.
            Those that are no piece follow the vocabulary.
        split_chinese: whether each Chinese character is a word.
        special_in_text: whether "[SEP]" in a text is the special piece (`transformers`), or five characters (Google).
        truncation_side: "right" or "left": which end of a long text is cut off.
    Attributes:
        vocab: all pieces: `own`, and `outside`, the added words that are none of these.
    Raises:
        ValueError: if a special piece is missing or a piece occurs twice.
    """

    def __init__(
        self,
        vocab,
        lowercase=True,
        strip_accents=None,
        added=(),
        *,
        split_chinese=True,
        special_in_text=False,
        truncation_side="right",
    ):
        self.own, own = [*vocab], {piece: index for index, piece in enumerate(vocab)}
        self.lowercase, self.strip_accents = bool(lowercase), strip_accents
        self.added, self.split_chinese, self.special_in_text = added, split_chinese, special_in_text
        self.truncation_side = truncation_side
        self.cut_part = "beginnings" if truncation_side == "left" else "ends"  # in messages
        self.outside = [word["content"] for word in added if word["content"] not in own]
        self.vocab = [*self.own, *self.outside]
        self.ids = ids = {piece: index for index, piece in enumerate(self.vocab)}
        missing = [piece for piece in SPECIAL_PIECES if piece not in own]
        twice = [piece for index, piece in enumerate(self.vocab) if ids[piece] != index]
        if missing or twice:
            raise ValueError(
                f"A vocabulary must hold each piece once, {', '.join(SPECIAL_PIECES)} among them. "
                f"Missing: {missing}; twice: {twice[:3]}. Call what stands twice [unused998], [unused999]."
            )
        self.pad_id, self._warned, self._lock = ids["[PAD]"], False, Lock()
        ends = ("[PAD]", "[CLS]", "[SEP]")
        self._begins_word = [not x.startswith("##") and x not in ends for x in self.vocab]
        self._engine = _Engine(models.WordPiece(own, unk_token="[UNK]"))
        cases = {"strip_accents": strip_accents, "lowercase": self.lowercase}
        normalizer = normalizers.BertNormalizer(handle_chinese_chars=split_chinese, **cases)
        self._engine.normalizer = normalizer
        self._engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        ends = [(piece, ids[piece]) for piece in ("[SEP]", "[CLS]")]
        self._engine.post_processor = processors.BertProcessing(*ends)
        if special_in_text:
            special = [piece for piece in BERT_PIECES if piece in own]
            self._engine.add_special_tokens(special)
        self._engine.add_tokens([AddedToken(**word) for word in added])

    def switches(self):
        """The arguments after `vocab` and `lowercase` that differ from what is usual, as JSON holds them."""
        every = (
            ("strip_accents", self.strip_accents, (None, self.lowercase)),
            ("added", [*self.added], ([],)),
            ("split_chinese", self.split_chinese, (True,)),
            ("special_in_text", self.special_in_text, (False,)),
            ("truncation_side", self.truncation_side, ("right",)),
        )
        return {name: value for name, value, usual in every if value not in usual}

    def with_pieces(self, kept):
        """The same tokenizer on some of its pieces."""
        added = [word for word in self.added if word["content"] in {*kept}]
        own = [piece for piece in kept if piece not in {*self.outside}]
        return Tokenizer(own, self.lowercase, **{**self.switches(), "added": added})

    def with_case(self, lowercase):
        """The same tokenizer where `lowercase` is None, else one that lower-cases or does not."""
        if lowercase in (None, self.lowercase):
            return self
        cases = ("uncased" if x else "cased" for x in (lowercase, self.lowercase))
        log.info("%s, as `lowercase` says; the source is %s", *cases)
        switches = {**self.switches(), "strip_accents": self.strip_accents}
        return Tokenizer(self.own, lowercase, **switches)

    def encode(self, texts, max_length):
        """Encodes strings, or (text_a, text_b) pairs, as [CLS] a [SEP] b [SEP]; the longer text is cut first.

        Args:
            texts: list of str, or of (str, str).
            max_length: most ids per text, special pieces included.
        Returns:
            list of `Encoding`.
        """
        texts = [clean(x) if isinstance(x, str) else tuple(map(clean, x)) for x in texts]
        each = self._encode(texts, max_length)
        return [Encoding(e.ids, e.type_ids, bool(e.overflowing)) for e in each]

    def encode_words(self, texts, max_length):
        """Encodes texts whose words are separated by one space, or lists of words; arguments as in `encode`.

        Returns:
            list of `Encoding` with `word_starts`.
        """
        encodings = []
        split = (text.split(" ") if isinstance(text, str) else text for text in texts)
        texts = [[clean(word) for word in words] for words in split]
        for e, words in zip(self._encode(texts, max_length, is_pretokenized=True), texts):
            starts = [(e.word_to_tokens(k) or [-1])[0] for k in range(len(words))]
            encodings.append(Encoding(e.ids, e.type_ids, bool(e.overflowing), starts))
        return encodings

    def words(self, text):
        """The words of a text, normalised, before they are cut into pieces; added words are not looked for."""
        text = self._engine.normalizer.normalize_str(clean(text))
        return [word for word, _ in self._engine.pre_tokenizer.pre_tokenize_str(text)]

    def _encode(self, texts, max_length, **settings):
        """Yields what the engine gives, objects hundreds of times as large as their ids; at its end it may warn."""
        if max_length < 4:
            raise ValueError(
                f"`max_length` must leave room for text between [CLS] and [SEP], at least 4. Received: {max_length}."
            )
        ids = [np.arange(0, dtype=np.int32)]
        for first in range(0, len(texts), CHUNK):
            with self._lock:  # threads may share a tokenizer, and the engine keeps the length
                self._engine.enable_truncation(int(max_length), direction=self.truncation_side)
                encoded = self._engine.encode_batch(texts[first : first + CHUNK], **settings)
            ids += [np.array(e.ids, np.int32) for e in encoded]
            yield from encoded
        share = self.unknown_share(np.concatenate(ids))
        if share >= WARN_FROM and not self._warned:
            self._warned = True
            warnings.warn(
                f"{share:.0%} of the words of {len(texts):,} text(s) are unknown to the vocabulary, such as "
                f"{', '.join(self._unknown_words(texts))}. The model cannot tell them apart: check that the "
                "vocabulary is for this language, and its case (`--lowercase`, `--cased`).",
                stacklevel=4,
            )

    def unknown_share(self, ids):
        """Share of the words that are unknown, 0-1; `ids`: int (n,), the pieces of many texts."""
        counts = np.bincount(ids, minlength=len(self.vocab))
        return float(counts[self.ids["[UNK]"]] / max(counts[self._begins_word].sum(), 1))

    def _unknown_words(self, texts):
        """The first five of them; a pair or a list of words is a text, too."""
        words = {}
        parts = (part for text in texts for part in ([text] if isinstance(text, str) else text))
        for part in parts:
            e = self._engine.encode(part, add_special_tokens=False)
            unknown = (index == self.ids["[UNK]"] for index in e.ids)
            words |= {part[a:b][:20]: None for (a, b), is_one in zip(e.offsets, unknown) if is_one}
            if len(words) >= 5:
                break
        return list(words)[:5]

    def save(self, path):
        """Writes the vocabulary without the words outside it; a piece of several lines, no word, gets a stand-in."""
        own = [f"[piece {i}]" if re.search("[\r\n]", p) else p for i, p in enumerate(self.own)]
        Path(path).write_text("\n".join(own) + "\n", encoding="utf-8")


def read_vocab(path, keep=False):
    """Reads a `vocab.txt`: one piece a line; `keep` blank last lines. Raises ValueError if it is not UTF-8."""
    text = read_text(Path(path)).replace("\r\n", "\n").replace("\r", "\n")
    return (text.removesuffix("\n") if keep else text.rstrip("\n")).split("\n")


def read_tokenizer(folder, special_in_text=False):
    """Reads tokenizer.json or, without one, vocab.txt, and the switches and added words beside it.

    `special_in_text` as in `Tokenizer`. Raises ValueError, naming the file, if it is not BERT's tokenizer.
    """
    albert = sorted(file.name for file in folder.glob("albert_config*.json"))
    names = ["tokenizer_config.json", "config.json", "bert_config.json", *albert]
    stored = {name: read_json(folder / name) for name in names if (folder / name).is_file()}
    for name, values in stored.items():
        kinds.check_config(folder / name, values)
    kinds.check_files(folder)
    path = one_of(folder, "tokenizer.json", "vocab.txt")
    vocab, own = (read_vocab(path), {}) if path.name == "vocab.txt" else _read_json(path)
    config = stored.pop("tokenizer_config.json", {})
    if kinds.tells_nothing(config, path):
        config = {key: config[key] for key in ("truncation_side",) if key in config}
    # Where two files disagree, the first one is followed, as `transformers` does.
    places = {"tokenizer_config.json": config, path.name: own, **stored}

    def told(key):
        """(value, file) of the first file that tells."""
        values = ((place.get(key), name) for name, place in places.items())
        return next((pair for pair in values if pair[0] is not None), (None, None))

    pieces = vocab if isinstance(vocab, dict) else {piece: k for k, piece in enumerate(vocab)}
    return make_tokenizer(
        path,
        vocab,
        *told("do_lower_case"),
        added=added_words(folder, path, pieces, config),
        special_in_text=special_in_text,
        strip_accents=told("strip_accents")[0],
        split_chinese=told("tokenize_chinese_chars")[0] is not False,
        truncation_side=(told("truncation_side")[0] or "right").lower(),
    )


def _read_json(path):
    stored = read_json(path)
    kinds.check_json(path, stored)
    normalizer = stored["normalizer"]
    return stored["model"].get("vocab", {}), {
        "do_lower_case": normalizer.get("lowercase"),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
        "truncation_side": (stored.get("truncation") or {}).get("direction"),
    }


def make_tokenizer(path, vocab, lowercase=None, told_by=None, **switches):
    """A `Tokenizer` of a list, or {piece: id}, read from `path`, which is named in errors and the log.

    Raises ValueError if most of the pieces are of another kind of tokenizer.

    Args:
        lowercase: None: the vocabulary tells. It is cased if 10 % or more of its pieces with letters hold a capital: a
            cased one has over 20 %, an uncased one a few odd entries. Place holders in [] and <> do not count.
        told_by: name of the file that told `lowercase`. switches: of `Tokenizer`.
    """
    if isinstance(vocab, dict):
        numbers, vocab = sorted(vocab.values()), sorted(vocab, key=vocab.get)
        if numbers != list(range(len(vocab))):
            raise ValueError(
                f"{path}: a vocabulary must number its pieces from 0 without gaps. "
                f"Received: {len(vocab)} pieces up to number {numbers[-1]}."
            )
    kinds.check_pieces(path, vocab, switches.get("split_chinese", True))
    words = [piece for piece in vocab if not re.fullmatch(r"\[.*\]|<.*>", piece)]
    letters = sum(word.lower() != word.upper() for word in words)
    capitals = sum(word.lower() != word for word in words)
    uncased = capitals < CASED_FROM * max(letters, 1)
    wanted = uncased if lowercase is None else bool(lowercase)
    count = f"{capitals:,} of {letters:,} pieces with letters hold a capital"
    case = "uncased" if wanted else "cased"
    if lowercase is None:
        log.info("%s: %s, since %s", path, case, count)
    elif told_by and wanted == uncased:
        log.info("%s: %s, as %s says", path, case, told_by)
    elif told_by:
        way = "--cased" if wanted else "--lowercase"
        form = "%s: %s, as %s says, but %s; `%s` overrides it"
        log.warning(form, path, case, told_by, count, way)
    try:
        return Tokenizer(vocab, wanted, **switches)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def clean(text):
    """Replaces lone surrogates, which no UTF-8 library accepts, by U+FFFD (which BERT's normaliser drops)."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
