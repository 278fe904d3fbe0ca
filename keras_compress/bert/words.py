"""The words of a text that is to be tagged: what stands between blanks, or the characters of Chinese."""

import logging
import re

log = logging.getLogger(__name__)
CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# As BERT's tokenizer cuts words: a Chinese character, letters and digits, or a mark.
WORD = re.compile(rf"[{CHINESE}]|[^\W_{CHINESE}]+|[^\w\s]|_")
_SEVERAL = re.compile(rf"[{CHINESE}]{{2}}")
_SENTENCE = re.compile(rf"[{CHINESE}]{{5}}")  # no word is so long


def words_of(texts, task_model):
    """The words of texts that a model is to tag: a list for each.

    Args:
        texts: list of str, or of lists of words, which stay as they are.
        task_model: one that learned Chinese characters as words, as its history says, reads all Chinese so. For others
            they are words in a text that nobody cut into words: one without blanks, or with a run of more than four.
    """
    by_character = any(entry.get("words") == "characters" for entry in task_model.history)
    found = []
    for text in texts:
        words = text.split(" ") if isinstance(text, str) else list(text)
        if isinstance(text, str) and task_model.tokenizer.split_chinese and _SEVERAL.search(text):
            if by_character or len(words) == 1 or _SENTENCE.search(text):
                words = WORD.findall(text)
        found.append(words)
    if any(" ".join(words) != text for words, text in zip(found, texts) if isinstance(text, str)):
        log.info("Chinese that nobody cut into words is tagged by characters")
    return found


def are_characters(texts):
    """Whether the words of texts, separated by one space, are Chinese characters, none longer."""
    return any(re.search(f"[{CHINESE}]", text) for text in texts) and not any(
        map(_SEVERAL.search, texts)
    )
