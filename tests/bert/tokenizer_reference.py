"""Makes tokenizer_reference.json: 200 texts of six kinds as ids of six tokenizer folders, by `transformers`.

Not needed by the tests. In an environment of its own: pip install "transformers<5", then
    python tests/bert/tokenizer_reference.py
"""

import json
import random
import tempfile
from pathlib import Path

SPECIAL = "[PAD] [unused1] [unused2] [UNK] [CLS] [SEP] [MASK] <S> <T>".split()
ENGLISH = (
    "the a cat dog sat on mat un ##believ ##able film good bad not phone app iphone nba play music "
    "don ' t ##ing ##ed ##s ##ly covid ##19 2 ##0 10 12 ##3 url user"
).split()
CAPITALS = "The A Cat Dog I iPhone NBA Paris ##S ##A Not COVID URL".split()
ACCENTS = "café cafe naïve naive über uber señor senor ß ##é ##e ñ n École ecole".split()
CHINESE = list("我你好听音乐北京上海大学中国人的是不电影很差开灯关用看") + ["##乐", "##影"]
SIGNS = list("!,.?'-[]<>/:#@()%€«»…。，！？😀👍") + ["##👍"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")
WORDS = {
    "english": "The cats sat on the mat! don't unbelievable iPhone NBA playing PLAYED 2012, "
    "good-bad films... (Paris) I covid19 a/b 50% e-mail",
    "chinese": "我听音乐。 北京大学 你好，中国！ 电影很差 开灯 关灯？ 上海的人 不是 龘 看电影",
    "mixed": "用iPhone听音乐 NBA很好 看App 我play音乐, 2012年 the北京 中国film 大学2.0 我and你 Café很好",
    "accents": "Café naïve Über señor ß ÉCOLE cafe\u0301 e\u0301\u0300 ñandú İstanbul Ångström straße œuvre",
    "odd": "😀 👍🏽 👍👍 \u200bzero\u200b soft\u00adhyphen a\u00a0b \u3000 \x07 \ufffd ﬁ １２３ ＡＢＣ "
    "\u202eabc क्षि 한국어 ｶﾅ \ue000 …€«» 👩\u200d👩\u200d👧 \u2028 " + "x" * 101,
    "special": "[SEP] [MASK] [CLS]a [UNK] [PAD] [URL] [url] <user> <USER>s see[URL]now covid Covid "
    "COVID19 covids [unused1] 音[SEP]乐 new_word Newword newwords <S> [ SEP ] [sep] é[MASK]é",
}


def texts():
    """34 texts of each kind, and 4 less of the last two."""
    draw, made = random.Random(0), []
    for number, words in enumerate(WORDS.values()):
        words = words.split(" ")
        rows = [words[k : k + 2] for k in range(0, len(words), 2)]
        rows += [draw.choices(words, k=draw.randint(1, 8)) for _ in range(34 - len(rows))]
        made += [draw.choice([" ", " ", "  ", ""]).join(row) for row in rows][
            : 34 - 2 * (number > 3)
        ]
    return made


def folders():
    """{name: {file: content}}; content is text, or what JSON holds."""
    words = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), *ENGLISH, *CHINESE, *SIGNS]
    uncased = list(dict.fromkeys([*words, *(x for x in ACCENTS if x == x.lower())]))
    cased = list(dict.fromkeys([*uncased, *CAPITALS, *ACCENTS]))
    size = len(uncased)
    text = {name: "\n".join(v) + "\n" for name, v in (("u", uncased), ("c", cased))}
    made = {
        "uncased": {"vocab.txt": text["u"], "tokenizer_config.json": {"do_lower_case": True}},
        "cased": {"vocab.txt": text["c"], "tokenizer_config.json": {"do_lower_case": False}},
        "accents": {
            "vocab.txt": text["u"],
            "tokenizer_config.json": {"do_lower_case": True, "strip_accents": False},
        },
        "chinese": {"vocab.txt": text["u"]},  # no switches
        "added": {
            "vocab.txt": text["u"],
            "added_tokens.json": {"[URL]": size, "<user>": size + 1, "NewWord": size + 2},
            "special_tokens_map.json": {"additional_special_tokens": ["[URL]", "[unused1]"]},
        },
        "json": {"vocab.txt": text["c"], "tokenizer_config.json": {"do_lower_case": False}},
    }
    return {name: {**files, "config.json": {"model_type": "bert"}} for name, files in made.items()}


def main():
    from transformers import AddedToken, AutoTokenizer

    kinds, rows, ids = folders(), texts(), {}
    for name, files in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), files)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            if name == "json":  # saved anew, with words of all kinds, and without a vocab.txt
                single = {"single_word": True, "normalized": False}
                tokenizer.add_tokens(["new_word", AddedToken("covid", **single)])
                tokenizer.add_tokens([AddedToken("newword", **single), "É"])
                tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "[URL]"]})
                saved = [Path(path) for path in tokenizer.save_pretrained(folder)]
                new = {p.name: json.loads(p.read_text()) for p in saved if p.suffix == ".json"}
                kinds[name] = {**new, "config.json": files["config.json"]}
                tokenizer = AutoTokenizer.from_pretrained(folder)
            ids[name] = [tokenizer(text)["input_ids"] for text in rows]
    made = {"folders": kinds, "texts": rows, "ids": ids}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(made, ensure_ascii=True, separators=(",", ":")) + "\n")


def write(folder, files):
    """Writes the files of a folder."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
