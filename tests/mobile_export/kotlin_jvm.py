"""The Kotlin library of mobile_export/android compiled and asked on the JVM; mixed texts to ask it about."""

import json
import random
import re
import shutil
import subprocess
import unicodedata

import pytest

from tests.support import ROOT

ANDROID, HERE = ROOT / "mobile_export/android", ROOT / "tests/mobile_export/kotlin"
LIBRARY = ANDROID / "library/src/main/kotlin"
JARS = HERE / "node_modules/kotlin-compiler/lib"
# What characters of these kinds mean has not changed since Unicode 3.2, so both sides know them.
ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会灯音乐听开",
    "éàüñçÅŁÓİıßﬁǅΣσςЖжЩщĲŉ½②",
    "😀👍🏽👩\u200d👧🎵",
    "\u0301\u0300\u0327\u200b\u200d\ufeff\u00ad\u202e\x00\x07\x1f\x7f\x85\ufffd",
    " \t\n\r\u00a0\u3000\u2028\u2009",
    " .,;:!?'\"()[]{}<>-_/\\@#$%^&*+=|~`。，！？“”…—·",
    "אבגדالعربيةनमस्ते",
    "한국어ひらがなカタカナｶﾅ１２",
    "\U00020000\U0002a700\uf900〇々",
    "\ud800",
    "\udfff",
]


def java():
    """The path of a Java of version 17 or newer; the test is skipped without it, or without the compiler."""
    path = shutil.which("java")
    told = subprocess.run([path, "-version"], capture_output=True, text=True).stderr if path else ""
    version = re.search(r'version "(\d+)', told)
    if not version or int(version[1]) < 17 or not (JARS / "kotlin-compiler.jar").is_file():
        pytest.skip("needs Java 17 and the Kotlin compiler (bash .ci/system installs them)")
    return path


def compile_kotlin(out, *sources, classpath=None):
    """Compiles folders and files; the test fails with what the compiler says."""
    command = [java(), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx900m"]
    command += ["-cp", JARS / "kotlin-compiler.jar", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    command += ["-kotlin-home", JARS.parent, "-no-reflect", "-Werror", "-jvm-target", "17"]
    command += ["-no-jdk", "-cp", classpath] if classpath else []
    done = subprocess.run([*command, "-d", out, *sources], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


class Library:
    """The compiled library. `ask` gives a list of lines for each question, see kotlin/Check.kt."""

    def __init__(self, folder):
        self.folder = folder
        self.classes = compile_kotlin(folder / "classes", LIBRARY, HERE / "Check.kt")

    def ask(self, *questions):
        questions_file, answers_file = self.folder / "questions.json", self.folder / "answers.txt"
        questions_file.write_text(json.dumps(questions))
        classpath = f"{self.classes}:{JARS / 'kotlin-stdlib.jar'}"
        command = [java(), "-XX:+UseSerialGC", "-cp", classpath, "kerascompress.CheckKt"]
        done = subprocess.run([*command, questions_file, answers_file], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        parts = answers_file.read_bytes().decode().split("\f\n")
        return [part.split("\n")[:-1] for part in parts[:-1]]


def mixed_texts(number, words, whole=(), seed=0):
    """Texts of words, all scripts, emoji, accents, controls, very long words, `whole` words; one third are short."""
    draw, kinds = random.Random(seed), range(5)
    texts = []
    for _ in range(number):
        parts = []
        for _ in range(draw.choice([0, 1, 2, 3, 5, 8, 13])):
            kind = draw.choices(kinds, [45, 45, 4, 3, 3])[0]
            if kind == 0:
                parts.append(draw.choice(words))
            elif kind == 1:
                parts.append("".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 8))))
            elif kind == 2:
                parts.append(draw.choice([*whole, "[SEP]", "[MASK]", "[unk]", "##s"]))
            elif kind == 3:
                parts.append(draw.choice(words) * draw.choice([1, 20, 21, 30]))
            else:
                parts.append(any_character(draw))
        texts.append(plain(draw.choice([" ", " ", "", "  "]).join(parts)))
    return texts


def any_character(draw):
    """A character that was in Unicode 3.2 and is the same kind today."""
    while True:
        char = chr(draw.randrange(0x30000))
        if is_old(char):
            return char


def is_old(char):
    """Whether Unicode 3.2 had a character, of the kind that it is today."""
    kinds = (unicodedata.ucd_3_2_0.category(char), unicodedata.category(char))
    return kinds[0] == kinds[1] != "Cn"


def plain(text):
    """A text in which no two lone surrogates make a pair, which JSON would join."""
    return re.sub("[\ud800-\udbff](?=[\udc00-\udfff])", "x", text)
