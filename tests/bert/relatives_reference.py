"""Makes relatives_reference.json: logits of tiny DistilBERTs, ELECTRAs, ALBERTs and MobileBERTs, by `transformers`.

Weights are drawn anew by `tensors_of` from names and shapes, so that none are stored. Not needed by the tests, which use
`tensors_of` and `write` alone. In an environment of its own: pip install torch transformers, then
    python tests/bert/relatives_reference.py
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

VOCAB = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the a cat dog ##s sat on mat un ##believ ##able cafe ! , . ' "
    "我 你 好 听 音 乐 1 2 ##2 x ##x"
).split()
TEXTS = ["The cats sat on the mat.", "我听音乐, 你好!", ["the cat", "a dog sat"]]
DISTILBERT = {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12}
BERT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "embedding_size": 4,
}
MOBILEBERT = BERT | {"intra_bottleneck_size": 6, "num_feedforward_networks": 3}
# class, what its config has beside sizes
CASES = [
    ("DistilBertForSequenceClassification", DISTILBERT),
    (
        "DistilBertForTokenClassification",
        DISTILBERT | {"activation": "relu", "sinusoidal_pos_embds": True},
    ),
    ("DistilBertForMaskedLM", DISTILBERT),
    ("ElectraForSequenceClassification", BERT | {"summary_type": "mean", "hidden_act": "relu"}),
    ("ElectraForTokenClassification", BERT | {"embedding_size": 8, "layer_norm_eps": 1e-3}),
    ("ElectraForMaskedLM", BERT),
    ("AlbertForSequenceClassification", BERT | {"hidden_act": "gelu"}),
    ("AlbertForTokenClassification", BERT),
    ("AlbertForMaskedLM", BERT),
    ("MobileBertForSequenceClassification", MOBILEBERT | {"classifier_activation": False}),
    (  # MobileBERT-tiny, but with LayerNorm
        "MobileBertForTokenClassification",
        MOBILEBERT
        | {
            "use_bottleneck_attention": True,
            "key_query_shared_bottleneck": False,
            "num_feedforward_networks": 2,
            "normalization_type": "layer_norm",
        },
    ),
    (  # as IB-BERT; `transformers` cannot run its block unless both widths are equal
        "MobileBertForMaskedLM",
        MOBILEBERT
        | {
            "intra_bottleneck_size": 8,
            "key_query_shared_bottleneck": False,
            "num_feedforward_networks": 1,
            "normalization_type": "layer_norm",
            "hidden_act": "gelu",
        },
    ),
]


def tensors_of(shapes, seed=0):
    """Weights for {name: shape}, drawn wide, so that a mistake shows in the logits."""
    draw = np.random.RandomState(seed)
    return {
        name: draw.normal("norm.weight" in name.lower(), 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def write(folder, config, shapes):
    """Writes a Hugging Face folder with drawn weights."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    save_file(tensors_of(shapes), folder / "model.safetensors", {"format": "pt"})


def case(name, settings):
    import torch
    import transformers

    kind = name.partition("For")[0]
    labels = {
        "id2label": {0: "no", 1: "maybe", 2: "yes"},
        "label2id": {"no": 0, "maybe": 1, "yes": 2},
    }
    common = {"vocab_size": len(VOCAB), "max_position_embeddings": 16, "pad_token_id": 0} | labels
    config = getattr(transformers, kind + "Config")(**common, **settings)
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, name)(config).save_pretrained(folder)
        stored = json.loads(Path(folder, "config.json").read_text())
        tensors = load_file(Path(folder, "model.safetensors"))
        shapes = {part: list(tensors[part].shape) for part in sorted(tensors)}
        write(folder, stored, shapes)
        model = getattr(transformers, name).from_pretrained(folder).eval()
        tokenizer = transformers.BertTokenizer.from_pretrained(folder)
        made = {"config": stored, "shapes": shapes, "ids": [], "logits": []}
        for text in TEXTS:
            inputs = tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt")
            made["ids"].append(inputs["input_ids"][0].tolist())
            if kind == "DistilBert":
                inputs.pop("token_type_ids")
            with torch.no_grad():
                outputs = model(**inputs, output_hidden_states=kind == "MobileBert")
            rounded = np.vectorize(lambda x: float(f"{x:.7g}"))
            made["logits"].append(rounded(outputs.logits[0].numpy()).tolist())
            if kind == "MobileBert" and "hidden_states" not in made:
                states = np.concatenate([states.numpy() for states in outputs.hidden_states])
                made["hidden_states"] = rounded(states).tolist()  # of the first text
    return made


def main():
    import torch
    import transformers

    made = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    made["cases"] = {name: case(name, settings) for name, settings in CASES}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
