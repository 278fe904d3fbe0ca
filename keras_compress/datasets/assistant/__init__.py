"""Built-in data: phone-assistant commands in English and Chinese, from a grammar written for this project.

The grammars are `en.toml` and `zh.toml`; the rules of what a label means are in data/README.md. In short: an
utterance has a list of commands that are carried out, in order. Its class is the intent of the first of them, its
tags are the slots of the first, and two utterances match if their lists are equal.
"""

import functools
import random
import re
import tomllib
from importlib import resources
from typing import NamedTuple

from keras_compress.datasets.dataset import Dataset, Split

LANGUAGES = ("en", "zh")
TASKS = ("classification", "tagging", "matching")
NUM_TEXTS = {"train": 5000, "dev": 1000, "test": 1500}
NUM_PAIRS = {"train": 4000, "dev": 800, "test": 1200}
FRAME_SHARES = {
    "plain": 0.25,
    "polite": 0.1,
    "order": 0.25,
    "negation": 0.15,
    "correction": 0.1,
    "fix": 0.05,
    "nested": 0.1,
}
ROLE = re.compile(r"\{([12x])([!~]?)\}|\{(fix)\}")
SLOT = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"\(([^()]*)\)")


class Command(NamedTuple):
    """What the assistant is asked to do: equal commands have equal `intent` and `slots`, whatever the wording."""

    intent: str
    slots: dict  # lexicon entry -> words
    template: str  # the wording


class Utterance(NamedTuple):
    pieces: list  # (text, tag or None)
    commands: list  # carried out, in this order
    withdrawn: Command  # said, but not carried out; or None
    frame: str

    @property
    def text(self):
        return re.sub(
            r"\s+([,.])", r"\1", " ".join("".join(text for text, _ in self.pieces).split())
        )

    def words_and_tags(self, language):
        """Words separated by one space (Chinese: characters) and as many BIO tags."""
        words, tags = [], []
        for text, tag in self.pieces:
            new = re.findall(r"\w[\w'-]*|[^\w\s]" if language == "en" else r"\S", text)
            words += new
            tags += [f"{'I' if i else 'B'}-{tag}" if tag else "O" for i in range(len(new))]
        return " ".join(words), tags


@functools.cache
def grammar(language):
    """The parsed TOML file: `frames`, `intents` and `lexicon`; see the comments at its top."""
    file = resources.files(__name__).joinpath(f"{language}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def load(language="en", task="classification"):
    """The `assistant` set: about 5,000 / 1,000 / 1,500 texts (pairs: 4,000 / 800 / 1,200), always the same ones.

    Args:
        language: "en" or "zh".
        task: "classification" (intent), "tagging" (slots, BIO) or "matching" (do both utterances ask for the same?).
    Raises:
        ValueError: if there is no such language or task.
    """
    if language not in LANGUAGES:
        raise ValueError(
            f"`language` must be a language of the assistant data. Received: {language!r}. "
            f"Choose {' or '.join(LANGUAGES)}."
        )
    if task not in TASKS:
        raise ValueError(
            f"`task` must be a task of the assistant data. Received: {task!r}. "
            f"Choose {', '.join(TASKS)}."
        )
    if task == "matching":
        labels, splits = ("different", "same"), pairs(language)
    else:
        labels, example = (_intent if task == "classification" else _tags)(language)
        splits = [map(example, split) for split in utterances(language).values()]
    return Dataset(
        f"assistant-{language}", task, labels, *(Split(*map(list, zip(*rows))) for rows in splits)
    )


def _intent(language):
    """The labels, and the function that gives an utterance's text and label."""
    labels = tuple(grammar(language)["intents"])
    return labels, lambda said: (said.text, labels.index(said.commands[0].intent))


def _tags(language):
    """The labels, and the function that gives an utterance's words and their labels."""
    lexicon = grammar(language)["lexicon"].values()
    names = sorted({entry["tag"] for entry in lexicon if "tag" in entry})
    labels = ("O", *(prefix + name for name in names for prefix in ("B-", "I-")))

    def example(said):
        words, tags = said.words_and_tags(language)
        return words, [labels.index(tag) for tag in tags]

    return labels, example


@functools.cache
def utterances(language):
    """{split: list of Utterance}, as many of each intent; no text occurs twice, not even in two splits."""
    intents, seen, splits = list(grammar(language)["intents"]), set(), {}
    for split, num_texts in NUM_TEXTS.items():
        speaker, said = Speaker(language, split), []
        while len(said) < num_texts:
            utterance = speaker.say(intents[len(said) % len(intents)])
            if utterance.text not in seen:
                seen.add(utterance.text)
                said.append(utterance)
        splits[split] = speaker.shuffled(said)
    return splits


@functools.cache
def pairs(language):
    """For each split a list of ((text, text), 0 or 1), half of them 1; no text occurs twice."""
    seen, splits = set(), []
    for split, num_pairs in NUM_PAIRS.items():
        speaker, said = Speaker(language, split, salt="matching"), []
        while len(said) < num_pairs:
            label = len(said) % 2
            first = speaker.say()
            second = speaker.answer(first, same=label == 1)
            if second and first.text != second.text and seen.isdisjoint({first.text, second.text}):
                seen |= {first.text, second.text}
                said.append(((first.text, second.text), label))
        splits.append(speaker.shuffled(said))
    return splits


class Speaker:
    """Says things with the templates and words of one split. Only `random()` is drawn from: Python never changes it."""

    def __init__(self, language, split, salt=""):
        self.grammar, self.split = grammar(language), split
        self.random = random.Random(f"{language} {split} {salt}")

    def pick(self, items):
        return items[int(self.random.random() * len(items))]

    def shuffled(self, items):
        return sorted(items, key=lambda _: self.random.random())

    def choose(self, text):
        """The text with (a|b) replaced by one of its alternatives."""
        return CHOICE.sub(lambda choice: self.pick(choice[1].split("|")), text)

    def draw(self, name, other_than=None):
        """Words of a lexicon entry, nested entries filled in; half of them held out where the entry holds some out."""
        entry = self.grammar["lexicon"][name]
        own = entry.get(self.split)
        text = self.pick(own if own and self.random.random() < 0.5 else entry["any"])
        words = SLOT.sub(lambda slot: self.draw(slot[1]), self.choose(text))
        return self.draw(name, other_than) if words == other_than else words

    def command(self, intent, whole, like=None):
        """A Command; `whole` allows full sentences too; `like` asks for other wording of that one, if there is any.

        Returns None if `like` cannot be said with the templates of `intent`.
        """
        templates = self.grammar["intents"][intent][self.split]
        templates = [text for text in templates if whole or not text.startswith("!")]
        if not like:
            template = self.pick(templates)
            return Command(intent, {name: self.draw(name) for name in _slots(template)}, template)
        templates = [text for text in templates if set(_slots(text)) == set(like.slots)]
        others = [text for text in templates if text != like.template]
        if others and self.random.random() < 0.8:
            templates = others
        return like._replace(template=self.pick(templates)) if templates else None

    def say(self, intent=None, commands=(), withdrawn=None):
        """An Utterance in a random frame: of `commands` if given, else one whose first command has `intent`.

        Returns None if no frame and wording of this split fit the wanted commands in 20 tries.
        """
        wanted = dict(zip("12", commands)) | ({"x": withdrawn} if withdrawn else {})
        for _ in range(20):
            frame, said = self.frame(), {}
            kinds = {role: kind for role, kind, _ in ROLE.findall(frame) if role}
            if commands and not set(wanted) <= set(kinds) <= {*wanted, "x"}:
                continue
            for role in sorted(kinds):
                like = wanted.get(role)
                if like:
                    chosen = like.intent
                else:
                    chosen = intent if intent and not said else self.intent(role, said)
                said[role] = self.command(chosen, kinds[role] == "!", like)
                if not said[role]:
                    break
            else:
                if "{fix}" not in frame or _last_slot(said["1"]) in self.grammar["fixable"]:
                    in_order = [said[role] for role in "12" if role in said]
                    return Utterance(self.fill(frame, said), in_order, said.get("x"), frame)
        return None

    def frame(self):
        """One frame of this split; the shares of the kinds are those of FRAME_SHARES."""
        point = self.random.random()
        for kind, share in FRAME_SHARES.items():  # noqa: B007 (read below)
            point -= share
            if point < 0:
                break
        if kind == "plain":
            return "{1!}"
        return self.choose(self.pick(self.grammar["frames"][self.split][kind]))

    def intent(self, role, said):
        """An intent for one more command. A second one is from another family (light_*, heat_*): both make sense."""
        family = (lambda intent: intent) if role == "x" else (lambda intent: intent.split("_")[0])
        taken = {family(command.intent) for command in said.values()}
        return self.pick([name for name in self.grammar["intents"] if family(name) not in taken])

    def fill(self, frame, said):
        """[(text, tag or None)]: only the slots of the command that is carried out first are tagged."""
        pieces, end = [], 0
        for match in ROLE.finditer(frame):
            pieces.append((frame[end : match.start()], None))
            end = match.end()
            role, kind, fix = match.groups()
            command = said[role or "1"]
            last = _last_slot(command)
            template = f"{{{last}}}" if fix else command.template.lstrip("!")
            for i, part in enumerate(SLOT.split(self.choose(template))):
                if i % 2 == 0:  # words between two slots
                    pieces.append((part, None))
                elif kind == "~" and part == last:  # a wrong value, which {fix} corrects
                    pieces.append((self.draw(part, other_than=command.slots[part]), None))
                else:
                    tag = self.grammar["lexicon"][part]["tag"]
                    pieces.append((command.slots[part], tag if fix or role == "1" else None))
        return [*pieces, (frame[end:], None)]

    def answer(self, first, same):
        """An Utterance that asks for the same as `first` in other words, or for something close to it; or None."""
        if same:
            return self.say(commands=first.commands)
        change = self.pick(["order", "slot", "intent", "withdrawn", "number"])
        commands, withdrawn = list(first.commands), None
        i = self.pick(range(len(commands)))
        if change == "order":
            commands.reverse()
        elif change == "slot" and commands[i].slots:
            slots = commands[i].slots
            name = self.pick(list(slots))
            words = self.draw(name, other_than=slots[name])
            commands[i] = commands[i]._replace(slots={**slots, name: words})
        elif change == "intent":
            commands[i] = commands[i]._replace(intent=self.intent("x", {"1": commands[i]}))
        elif change == "withdrawn" and first.withdrawn:
            commands[i], withdrawn = first.withdrawn, commands[i]
        elif change == "number" and len(commands) == 2:
            commands.pop()
        elif change == "number" and first.withdrawn:
            commands.append(first.withdrawn)
        if commands == first.commands:
            return None
        return self.say(commands=commands, withdrawn=withdrawn)


@functools.cache
def _slots(template):
    return SLOT.findall(template)


def _last_slot(command):
    return (_slots(command.template) or [None])[-1]
