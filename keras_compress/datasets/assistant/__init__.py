"""Built-in data: phone-assistant commands in English and Chinese, from a grammar written for this project.

The grammars are `en.toml` and `zh.toml`; the rules of what a label means are in data/README.md. In short: an
utterance has a list of commands that are carried out, in order. Its class is the intent of the first of them, its
tags are the slots of the first, and two utterances match if their lists are equal.
"""

import functools
import itertools
import random
import re
import tomllib
from importlib import resources
from typing import NamedTuple

from keras_compress.datasets.dataset import Dataset, Split

NUM_TEXTS = {"train": 5000, "dev": 1000, "test": 1500}
NUM_PAIRS = {"train": 4000, "dev": 800, "test": 1200}
FRAMES = {  # kind: where its share of the range 0 to 1 ends
    "plain": 0.25,
    "polite": 0.35,
    "order": 0.6,
    "negation": 0.75,
    "correction": 0.85,
    "fix": 0.9,
    "nested": 1,
}
ROLE = re.compile(r"\{([12x]|fix)([!~]?)\}")
WORD = {"en": re.compile(r"\w[\w'-]*|[^\w\s]"), "zh": re.compile(r"\S")}
SLOT = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"\(([^()]*)\)")
slots_of = functools.cache(SLOT.findall)  # of a template


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
        joined = "".join(text for text, _ in self.pieces)
        return re.sub(r"\s+([,.])", r"\1", " ".join(joined.split()))

    @property
    def meaning(self):
        return [(command.intent, command.slots) for command in self.commands]

    def words_and_tags(self, language):
        """Words (Chinese: characters) and as many BIO tags."""
        words, tags = [], []
        for text, tag in self.pieces:
            new = WORD[language].findall(text)
            words += new
            tags += [f"{'I' if i else 'B'}-{tag}" if tag else "O" for i in range(len(new))]
        return words, tags


@functools.cache
def grammar(language):
    """The parsed TOML file: `frames`, `intents` and `lexicon`; see the comments at its top."""
    file = resources.files(__name__).joinpath(f"{language}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def load(language="en", task="classification", salt=""):
    """The `assistant` set: about 5,000 / 1,000 / 1,500 texts (pairs: 4,000 / 800 / 1,200), always the same ones.

    Args:
        language: "en" or "zh".
        task: "classification" (intent), "tagging" (slots, BIO) or "matching" (do both utterances ask for the same?).
        salt: any text: gives a test split of its own, without the texts of the published splits (a secret test).
    Raises:
        ValueError: if there is no such language or task.
    """
    examples = {"classification": _intents, "tagging": _tags, "matching": _same}
    if language not in WORD or task not in examples:
        raise ValueError(
            f"The assistant data have the languages {', '.join(WORD)} and the tasks "
            f"{', '.join(examples)}. Received: {language!r} and {task!r}. Choose from these."
        )
    labels, example = examples[task](language)
    splits = utterances(language, task == "matching", salt).values()
    rows = [itertools.starmap(example, said) for said in splits]
    return Dataset(
        f"assistant-{language}", task, labels, *(Split(*map(list, zip(*r))) for r in rows)
    )


def _intents(language):
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
        return " ".join(words), [labels.index(tag) for tag in tags]

    return labels, example


def _same(language):
    """The labels, and the function that gives the texts of two utterances and the label."""
    return ("different", "same"), lambda a, b: ((a.text, b.text), int(a.meaning == b.meaning))


@functools.cache
def utterances(language, in_pairs=False, salt=""):
    """{split: list of tuples of one Utterance, or of two}; no text occurs twice, not even in two splits.

    There are as many of each intent; of the pairs, every second asks twice for the same. With a `salt` the test split
    is another one, in which no published text occurs.
    """
    intents, seen, splits = list(grammar(language)["intents"]), set(), {}
    sizes, kind = (NUM_PAIRS, "matching") if in_pairs else (NUM_TEXTS, "")
    if salt:
        splits = dict(utterances(language, in_pairs))
        seen = {said.text for rows in splits.values() for row in rows for said in row}
        sizes, kind = {"test": sizes["test"]}, f"{kind} {salt}"
    for split, size in sizes.items():
        speaker, kept = Speaker(language, split, kind), []
        while len(kept) < size:
            if in_pairs:
                first = speaker.say()
                said = first, speaker.answer(first, same=len(kept) % 2 == 1)
            else:
                said = (speaker.say(intents[len(kept) % len(intents)]),)
            texts = {utterance.text for utterance in said if utterance}
            if len(texts - seen) == len(said):
                seen |= texts
                kept.append(said)
        splits[split] = speaker.shuffled(kept)
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
            return Command(intent, {name: self.draw(name) for name in slots_of(template)}, template)
        templates = [text for text in templates if {*slots_of(text)} == {*like.slots}]
        others = [text for text in templates if text != like.template]
        if others and self.random.random() < 0.8:
            templates = others
        return like._replace(template=self.pick(templates)) if templates else None

    def say(self, intent=None, wanted={}):
        """An Utterance in a random frame: of the `wanted` {role: Command}, or one whose first command has `intent`.

        Returns None if no frame and wording of this split fit the wanted commands in 20 tries.
        """
        for _ in range(20):
            frame, said = self.frame(), {}
            kinds = dict(ROLE.findall(frame))
            is_fixed = kinds.pop("fix", None) is not None
            if wanted and not {*wanted} <= {*kinds} <= {*wanted, "x"}:
                continue
            for role, kind in sorted(kinds.items()):
                like = wanted.get(role)
                if like:
                    chosen = like.intent
                else:
                    chosen = intent if intent and not said else self.intent(role, said)
                said[role] = self.command(chosen, kind == "!", like)
                if not said[role]:
                    break
            else:
                if not is_fixed or last_slot(said["1"]) in self.grammar["fixable"]:
                    in_order = [said[role] for role in "12" if role in said]
                    return Utterance(self.fill(frame, said), in_order, said.get("x"), frame)
        return None

    def frame(self):
        """One frame of this split; the shares of the kinds are those of FRAMES."""
        point = self.random.random()
        kind = next(kind for kind, end in FRAMES.items() if point < end)
        if kind == "plain":
            return "{1!}"
        return self.choose(self.pick(self.grammar["frames"][self.split][kind]))

    def intent(self, role, said):
        """An intent for one more command. A second one is from another family (light_*, heat_*): both make sense."""

        def family(intent):
            return intent if role == "x" else intent.split("_")[0]

        taken = {family(command.intent) for command in said.values()}
        return self.pick([name for name in self.grammar["intents"] if family(name) not in taken])

    def fill(self, frame, said):
        """[(text, tag or None)]: only the slots of the command that is carried out first are tagged."""
        before, *parts = ROLE.split(frame)
        pieces = [(before, None)]
        for i in range(0, len(parts), 3):
            role, kind, after = parts[i : i + 3]
            command = said["1" if role == "fix" else role]
            last = last_slot(command)
            template = f"{{{last}}}" if role == "fix" else command.template.lstrip("!")
            for j, part in enumerate(SLOT.split(self.choose(template))):
                if j % 2 == 0:  # words between two slots
                    pieces.append((part, None))
                elif kind == "~" and part == last:  # a wrong value, which {fix} corrects
                    pieces.append((self.draw(part, other_than=command.slots[part]), None))
                else:
                    tag = self.grammar["lexicon"][part]["tag"]
                    pieces.append((command.slots[part], tag if role in ("1", "fix") else None))
            pieces.append((after, None))
        return pieces

    def answer(self, first, same):
        """An Utterance that asks for the same as `first` in other words, or for something close to it; or None."""
        wanted = dict(zip("12", first.commands))
        if same:
            return self.say(wanted=wanted)
        change = self.pick(["order", "slot", "intent", "withdrawn", "number"])
        role, both = self.pick(list(wanted)), len(wanted) == 2
        command = wanted[role]
        match change:
            case "order" if both:
                wanted = {"1": wanted["2"], "2": wanted["1"]}
            case "slot" if command.slots:
                name = self.pick(list(command.slots))
                words = self.draw(name, other_than=command.slots[name])
                wanted[role] = command._replace(slots={**command.slots, name: words})
            case "intent":
                wanted[role] = command._replace(intent=self.intent("x", {role: command}))
            case "withdrawn" if first.withdrawn:
                wanted |= {role: first.withdrawn, "x": command}
            case "number" if both:
                del wanted["2"]
            case "number" if first.withdrawn:
                wanted["2"] = first.withdrawn
            case _:
                return None
        return self.say(wanted=wanted)


def last_slot(command):
    return (slots_of(command.template) or [None])[-1]
