"""Google's checkpoints and bert4keras' models and files: equal to bert4keras, and every way to be broken."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from tests.bert import tiny

GOOGLE_CONFIG = {
    "vocab_size": len(tiny.VOCAB),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
pytestmark = pytest.mark.filterwarnings("ignore:The initializer TruncatedNormal")  # bert4keras' own
TASK = {"task": "classification", "labels": ("a", "b", "c")}


# --- Google's checkpoints ---


def write_checkpoint(prefix, shapes):
    """Random variables, and a step counter, by TensorFlow's own Saver of version 1."""
    rng = np.random.default_rng(7)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, shape in shapes.items():
            value = rng.normal(float(name.endswith("gamma")), 0.5, shape).astype(np.float32)
            tf.compat.v1.get_variable(name, initializer=value)
        tf.compat.v1.get_variable("global_step", initializer=np.int64(7))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(prefix), write_meta_graph=False)


def write_values(prefix, values):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[*values],
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(array) for array in values.values()],
    )


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    """A checkpoint under Google's variable names, written by TensorFlow's own Saver."""
    folder = tmp_path_factory.mktemp("google")
    shapes = {
        "bert/embeddings/word_embeddings": (len(tiny.VOCAB), 8),
        "bert/embeddings/token_type_embeddings": (2, 8),
        "bert/embeddings/position_embeddings": (16, 8),
        "bert/pooler/dense/kernel": (8, 8),
        "bert/pooler/dense/bias": (8,),
        "cls/predictions/output_bias": (len(tiny.VOCAB),),
        "cls/seq_relationship/output_weights": (2, 8),
        "bert/pooler/dense/bias/adam_m": (8,),
    }
    norms = ["bert/embeddings"]
    for i in range(2):
        prefix = f"bert/encoder/layer_{i}/"
        norms += [prefix + "attention/output", prefix + "output"]
        for name, shape in (
            ("attention/self/query", (8, 8)),
            ("attention/self/key", (8, 8)),
            ("attention/self/value", (8, 8)),
            ("attention/output/dense", (8, 8)),
            ("intermediate/dense", (8, 12)),
            ("output/dense", (12, 8)),
        ):
            shapes |= {f"{prefix}{name}/kernel": shape, f"{prefix}{name}/bias": shape[1:]}
    shapes |= {f"{name}/LayerNorm/{kind}": (8,) for name in norms for kind in ("beta", "gamma")}
    write_checkpoint(folder / "bert_model.ckpt", shapes)
    (folder / "bert_config.json").write_text(json.dumps(GOOGLE_CONFIG))
    tiny.tokenizer().save(folder / "vocab.txt")
    return folder


def theirs(folder, checkpoint="bert_model.ckpt", **settings):
    from bert4keras.models import build_transformer_model

    checkpoint = checkpoint and str(folder / checkpoint)
    return build_transformer_model(str(folder / "bert_config.json"), checkpoint, **settings)


def both(model, reference, name):
    """Largest difference between an output of ours and bert4keras' only output."""
    inputs = model.pad(model.tokenizer.encode(tiny.TEXTS, 16))
    ours = model.features([name])(inputs)[name]
    ours = ours[-1] if name == "hidden_states" else ours
    found = reference([inputs["input_word_ids"], inputs["input_type_ids"]])
    return np.abs(
        (ours - found).numpy()[
            inputs["input_mask"] == 1 if name == "hidden_states" else slice(None)
        ]
    ).max()


def test_google_checkpoint_equals_bert4keras(google):
    model = weights.load(google, **TASK)
    assert both(model, theirs(google), "hidden_states") < 1e-5
    assert both(model, theirs(google, with_pool=True), "pooled") < 1e-5
    assert model.config.pooling == "pooler" and model.tokenizer.lowercase
    assert model.history[0]["loaded"] == 5 + 16 * 2 + 2
    assert model.history[0]["left_out"] == ["cls/seq_relationship/output_weights", "mlm_bias/bias"]


@pytest.fixture(scope="module")
def tuned(google, tmp_path_factory):
    """What run_classifier.py leaves in its output folder: two steps, Adam's slots, no config."""
    reader = tf.train.load_checkpoint(str(google / "bert_model.ckpt"))
    folder, rng = tmp_path_factory.mktemp("tuned"), np.random.default_rng(5)
    for step in (0, 30):
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        values = {name: array for name, array in values.items() if name.startswith("bert/")}
        values["output_weights"] = rng.normal(size=(3, 8)).astype(np.float32)
        values["output_bias"] = rng.normal(size=3).astype(np.float32)
        slots = {f"{name}/adam_{k}": array for name, array in values.items() for k in "mv"}
        values |= slots | {"global_step": np.int64(step)}
        write_values(folder / f"model.ckpt-{step}", values)
    return folder


def with_config(tuned, google, folder):
    shutil.copytree(tuned, folder)
    for file in ("bert_config.json", "vocab.txt"):
        shutil.copy(google / file, folder)
    return folder


def test_the_classifier_of_run_classifier(google, tuned, tmp_path, caplog):
    with pytest.raises(ValueError, match="It stays with the pre-trained model.*copy both from"):
        weights.load(tuned, **TASK)
    folder = with_config(tuned, google, tmp_path / "tuned")
    with caplog.at_level("INFO"):
        model = weights.load(folder, **TASK)
    assert "of 2 checkpoints model.ckpt-30 is read, the last step" in caplog.text
    assert model.history[0]["new"] == model.history[0]["left_out"] == []
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt-30"))
    inputs = model.pad(model.tokenizer.encode(tiny.TEXTS, 16))
    pooled = theirs(google, with_pool=True)([inputs["input_word_ids"], inputs["input_type_ids"]])
    # logits = pooled W^T + b, as in run_classifier.py's create_model
    expected = pooled @ reader.get_tensor("output_weights").T + reader.get_tensor("output_bias")
    np.testing.assert_allclose(model.model(inputs), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"its 3 classes .* only. Received: a, b \(2\)"):
        weights.load(folder, task="classification", labels=("a", "b"))
    assert len(weights.load(folder, **TASK, new_head=True).history[0]["new"]) == 2


def test_one_output_of_google_is_a_score(google, tuned, tmp_path):
    """ALBERT's run_classifier.py on STS-B: score = pooled w + b."""
    folder = with_config(tuned, google, tmp_path / "tuned")
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt-30"))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values |= {name: values[name][:1] for name in ("output_weights", "output_bias")}
    write_values(folder / "model.ckpt-60", values)
    model, three = weights.load(folder), weights.load(folder / "model.ckpt-30", **TASK)
    assert (model.task, model.labels) == ("regression", ("score",))
    of_three = three.forward(three.tokenizer.encode(tiny.TEXTS, 16))
    np.testing.assert_allclose(model.predict(tiny.TEXTS), np.stack(of_three)[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="'regression', asked for 'class.*`--task regression`"):
        weights.load(folder, **TASK)
    assert weights.load(folder, **TASK, new_head=True).task == "classification"


@pytest.mark.parametrize("windows", [False, True])
def test_which_checkpoint_of_several(google, tuned, tmp_path, caplog, windows):
    folder = with_config(tuned, google, tmp_path / "tuned")
    elsewhere = r"C:\\out\\" if windows else "/elsewhere/"
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{elsewhere}model.ckpt-0"\n')
    bias = lambda source: weights.load(source, **TASK).weights()["classifier/bias"]
    with caplog.at_level("INFO"):
        first = bias(folder)
    assert "model.ckpt-0 is read, as the file checkpoint says" in caplog.text
    np.testing.assert_array_equal(bias(folder / "model.ckpt-0"), first)
    for ending in ("index", "data-00000-of-00001"):
        np.testing.assert_array_equal(bias(folder / f"model.ckpt-0.{ending}"), first)
    assert (bias(folder / "model.ckpt-30") != first).all()


def test_moving_averages_are_named(google, tuned, tmp_path, caplog):
    folder = with_config(tuned, google, tmp_path / "tuned")
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt-30"))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("bert/")]
    averages = {f"{name}/ExponentialMovingAverage": reader.get_tensor(name) for name in names}
    values = averages | {name: reader.get_tensor(name) for name in names}
    for ending, stored in (("60", values), ("90", averages)):
        write_values(folder / f"model.ckpt-{ending}", stored)
    weights.load(folder / "model.ckpt-60", **TASK, new_head=True)
    assert "as trained, not their moving averages" in caplog.text
    with pytest.raises(ValueError, match="0 of them known; unknown are .*ExponentialMovingAverage"):
        weights.load(folder / "model.ckpt-90", **TASK)


def test_other_checkpoints_say_what_they_are(google, tmp_path):
    model = theirs(google)
    for file in ("bert_config.json", "vocab.txt"):
        shutil.copy(google / file, tmp_path)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "bert_model.ckpt"))
    with pytest.raises(ValueError, match="Received: an object checkpoint of TensorFlow 2. Take"):
        weights.load(tmp_path, **TASK)
    (tmp_path / "keras").mkdir()
    model.save_weights(str(tmp_path / "keras/best.weights"), save_format="tf")
    for source in ("keras", "keras/best.weights", "keras/best.weights.index"):
        with pytest.raises(ValueError, match="an object checkpoint .*save_weights"):
            weights.load(tmp_path / source, **TASK)
    (tmp_path / "early").mkdir()
    write_checkpoint(tmp_path / "early/m.ckpt", {"bert/encoder/layer_shared/output/bias": (8,)})
    with pytest.raises(ValueError, match="the early albert_zh .*_g in its name"):
        weights.load(tmp_path / "early", **TASK)
    (tmp_path / "electra").mkdir()
    write_checkpoint(tmp_path / "electra/m.ckpt", {"electra/embeddings/word_embeddings": (8, 4)})
    with pytest.raises(
        ValueError, match="Google's ELECTRA. .*convert_electra_original_tf_checkpoint"
    ):
        weights.load(tmp_path / "electra", **TASK)


def test_google_checkpoint_for_tagging(google):
    model = weights.load(google, task="tagging", labels=("O", "B"))
    assert model.config.pooling == "cls" and "pooler/kernel" in model.history[0]["left_out"]


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda f: (f / "bert_config.json").unlink(),
            "must come with bert_config.json or config.json",
        ),
        (lambda f: (f / "vocab.txt").unlink(), "must come with tokenizer.json or vocab.txt"),
        (
            lambda f: (f / "bert_config.json").write_text(
                json.dumps(GOOGLE_CONFIG | {"num_hidden_layers": 3})
            ),
            "must hold `layer_2_query/kernel`. It is missing",
        ),
        (
            lambda f: (f / "bert_config.json").write_text(
                json.dumps(GOOGLE_CONFIG | {"intermediate_size": 16})
            ),
            r"`layer_0_intermediate/kernel` must have shape \(8, 16\). Received: \(8, 12\)",
        ),
        (
            lambda f: (f / "bert_model.ckpt.data-00000-of-00001").write_bytes(b"x" * 500),
            "ckpt: not a whole TensorFlow",
        ),
        (
            lambda f: (f / "bert_model.ckpt.data-00000-of-00001").unlink(),
            "bert_model.ckpt: not a whole TensorFlow check",
        ),
        (
            lambda f: (f / "bert_model.ckpt.index").write_bytes(b"x" * 50),
            "bert_model.ckpt: not a whole TensorFlow check",
        ),
        (
            lambda f: (
                (f / "bert_model.ckpt.index").rename(f / "b.ckpt.index")
                and shutil.copy(f / "b.ckpt.index", f / "c.ckpt.index")
            ),
            "must hold one checkpoint, or several that end in their step. Received: b.ckpt, c.ckpt",
        ),
    ],
)
def test_damaged_google_folder(google, tmp_path, damage, message):
    copy = tmp_path / "copy"
    shutil.copytree(google, copy)
    damage(copy)
    with pytest.raises(ValueError, match=message) as error:
        weights.load(copy, **TASK)
    assert str(copy) in str(error.value)


# --- Google's ALBERT ---

ALBERT_CONFIG = {
    **GOOGLE_CONFIG,
    "num_hidden_layers": 3,
    "embedding_size": 4,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "net_structure_type": 0,
    "gap_size": 0,
    "num_memory_blocks": 0,
}


@pytest.fixture(scope="module")
def google_albert(tmp_path_factory):
    """The same for an ALBERT: one layer's weights for all, word, position and type tables of width 4."""
    folder = tmp_path_factory.mktemp("albert")
    shapes = {
        "bert/embeddings/word_embeddings": (len(tiny.VOCAB), 4),
        "bert/embeddings/token_type_embeddings": (2, 4),
        "bert/embeddings/position_embeddings": (16, 4),
        "bert/encoder/embedding_hidden_mapping_in/kernel": (4, 8),
        "bert/encoder/embedding_hidden_mapping_in/bias": (8,),
        "bert/pooler/dense/kernel": (8, 8),
        "bert/pooler/dense/bias": (8,),
        "cls/predictions/output_bias": (len(tiny.VOCAB),),
        "cls/predictions/transform/dense/kernel": (8, 4),
        "cls/predictions/transform/dense/bias": (4,),
        "cls/seq_relationship/output_weights": (2, 8),
        "cls/seq_relationship/output_bias": (2,),
    }
    prefix = "bert/encoder/transformer/group_0/inner_group_0/"
    for name, shape in (
        ("attention_1/self/query", (8, 8)),
        ("attention_1/self/key", (8, 8)),
        ("attention_1/self/value", (8, 8)),
        ("attention_1/output/dense", (8, 8)),
        ("ffn_1/intermediate/dense", (8, 12)),
        ("ffn_1/intermediate/output/dense", (12, 8)),
    ):
        shapes |= {f"{prefix}{name}/kernel": shape, f"{prefix}{name}/bias": shape[1:]}
    for name, width in (
        ("bert/embeddings/LayerNorm", 4),
        ("cls/predictions/transform/LayerNorm", 4),
        (prefix + "LayerNorm", 8),
        (prefix + "LayerNorm_1", 8),
    ):
        shapes |= {f"{name}/{kind}": (width,) for kind in ("beta", "gamma")}
    write_checkpoint(folder / "model.ckpt-best", shapes)
    (folder / "albert_config.json").write_text(json.dumps(ALBERT_CONFIG))
    tiny.tokenizer().save(folder / "vocab.txt")
    return folder


def their_albert(folder, model="albert", gelu="tanh", **settings):
    """bert4keras' own ALBERT, with the GELU of Google's ALBERT code."""
    from bert4keras.backend import set_gelu
    from bert4keras.models import build_transformer_model

    set_gelu(gelu)
    try:
        return build_transformer_model(
            str(folder / "albert_config.json"),
            str(folder / "model.ckpt-best"),
            model=model,
            **settings,
        )
    finally:
        set_gelu("erf")  # bert4keras' default


def test_google_albert_equals_bert4keras(google_albert):
    model = weights.load(google_albert, **TASK)
    assert both(model, their_albert(google_albert), "hidden_states") < 1e-5
    assert both(model, their_albert(google_albert, with_pool=True), "pooled") < 1e-5
    assert (model.config.table_size, model.config.embedding_norm, model.config.sharing) == (
        4,
        "embedding",
        "all",
    )
    assert model.history[0]["loaded"] == 7 + 16 + 2  # the three layers are one
    assert [name.split("/")[0] for name in model.history[0]["left_out"]] == (
        [
            "cls",
            "cls",
            "mlm_bias",
            "mlm_norm",
            "mlm_norm",
            "mlm_transform",
            "mlm_transform",
        ]
    )
    wrong = model.clone()
    wrong.set_weights(
        {"embedding_projection/bias": np.ones(8, np.float32)}, only=["embedding_projection/bias"]
    )
    assert both(wrong, their_albert(google_albert), "hidden_states") > 1e-3
    assert model.config.activation == "gelu_tanh"
    assert both(model, their_albert(google_albert, gelu="erf"), "hidden_states") > 1e-5


def test_google_albert_s_masked_lm_head_equals_bert4keras(google_albert):
    ours = weights.load(google_albert, task="mlm", labels=())
    inputs = ours.pad(ours.tokenizer.encode(tiny.TEXTS, 16))
    real = inputs["input_mask"] == 1
    found = their_albert(google_albert, with_mlm=True)(
        [inputs["input_word_ids"], inputs["input_type_ids"]]
    ).numpy()
    np.testing.assert_allclose(
        tf.nn.softmax(ours.model(inputs)).numpy()[real], found[real], atol=1e-5
    )


def test_an_albert_file_of_bert4keras(google_albert, tmp_path):
    """Its "gelu" is bert4keras' default, the erf form, with which the file was trained."""
    for file in ("albert_config.json", "vocab.txt"):
        shutil.copy(google_albert / file, tmp_path)
    reference = their_albert(google_albert, gelu="erf")
    reference.save_weights(tmp_path / "best.h5", save_format="h5")
    model = weights.load(tmp_path / "best.h5", **TASK)
    assert model.config.activation == "gelu" and both(model, reference, "hidden_states") < 1e-5


def test_an_unshared_albert_of_bert4keras_in_memory(google_albert):
    unshared = their_albert(google_albert, "albert_unshared")
    model = weights.from_bert4keras(unshared, tiny.tokenizer(), **TASK)
    assert model.config.sharing == "none" and both(model, unshared, "hidden_states") < 1e-5


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "vocab.txt").unlink(), "must come with tokenizer.json or vocab.txt"),
        (
            lambda f: (f / "albert_config.json").write_text(
                json.dumps(ALBERT_CONFIG | {"num_hidden_groups": 3})
            ),
            "must share one layer with all. Received: `num_hidden_groups` = 3",
        ),
        (
            lambda f: (f / "albert_config.json").write_text(
                json.dumps(ALBERT_CONFIG | {"inner_group_num": 2})
            ),
            "`inner_group_num` = 2",
        ),
    ],
)
def test_an_albert_that_cannot_be_read(google_albert, tmp_path, damage, message):
    copy = tmp_path / "copy"
    shutil.copytree(google_albert, copy)
    damage(copy)
    with pytest.raises(ValueError, match=message) as error:
        weights.load(copy, **TASK)
    assert str(copy) in str(error.value)


# --- bert4keras models and their files ---


@pytest.fixture(scope="module")
def classifier(google):
    """What users of bert4keras build: [CLS] by a Lambda layer, one Dense with softmax."""
    bert = theirs(google)
    first = keras.layers.Lambda(lambda x: x[:, 0], name="CLS-token")(bert.output)
    probabilities = keras.layers.Dense(3, activation="softmax", kernel_initializer="orthogonal")(
        first
    )
    return keras.Model(bert.input, probabilities)


def probabilities_alike(model, reference):
    inputs = model.pad(model.tokenizer.encode(tiny.TEXTS, 16))
    found = reference([inputs["input_word_ids"], inputs["input_type_ids"]]).numpy()
    return np.abs(model.predict(tiny.TEXTS) - found).max()


def test_bert4keras_model_in_memory(google, classifier):
    from bert4keras.tokenizers import Tokenizer as TheirTokenizer

    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        weights.from_bert4keras(classifier, google / "nowhere.txt", **TASK)
    for tokenizer in (
        google / "vocab.txt",
        TheirTokenizer(str(google / "vocab.txt"), do_lower_case=True),
    ):
        model = weights.from_bert4keras(classifier, tokenizer, **TASK)
        assert model.config.pooling == "cls" and probabilities_alike(model, classifier) < 1e-5
        assert model.history[0]["loaded"] == 5 + 16 * 2 + 2 and model.history[0]["left_out"] == []


def test_bert4keras_tokenizer_that_cuts_otherwise_is_refused(google, classifier):
    from bert4keras.tokenizers import Tokenizer as TheirTokenizer

    for settings in ({"pre_tokenize": str.split}, {"token_translate": {"a": "the"}}):
        theirs = TheirTokenizer(str(google / "vocab.txt"), do_lower_case=True, **settings)
        with pytest.raises(ValueError, match="must be bert4keras' own. Received: one with `pre_t"):
            weights.from_bert4keras(classifier, theirs, **TASK)


def test_bert4keras_head_must_fit(google, classifier):
    with pytest.raises(
        ValueError, match=r"must have one Dense of width 2, .* Received: \{'dense.*': 3\}"
    ):
        weights.from_bert4keras(classifier, tiny.tokenizer(), "classification", ("a", "b"))
    model = weights.from_bert4keras(
        classifier, tiny.tokenizer(), "classification", ("a", "b"), new_head=True
    )
    assert len(model.history[0]["left_out"]) == 1 and model.history[0]["left_out"][0].startswith(
        "dense"
    )
    bare = weights.from_bert4keras(theirs(google, None, with_mlm=True), tiny.tokenizer(), **TASK)
    assert [name.split("/")[0] for name in bare.history[0]["left_out"]] == [
        "mlm_bias",
        "mlm_norm",
        "mlm_norm",
        "mlm_transform",
        "mlm_transform",
    ]
    assert bare.history[0]["new"] == ["classifier/bias", "classifier/kernel"]


def head_on(google, *layers, **settings):
    """A bert4keras BERT under layers."""
    bert = theirs(google, **settings)
    tensor = bert.output
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(bert.input, tensor)


def dense(units=3, **settings):
    return keras.layers.Dense(units, kernel_initializer="orthogonal", **settings)


def first():
    return keras.layers.Lambda(lambda x: x[:, 0])


def test_heads_that_are_read_from_memory(google):
    layers = keras.layers
    for head, settings, pooling in (
        ([layers.Lambda(lambda x: x[:, 0]), layers.Dropout(0.1), dense()], {}, "cls"),
        ([lambda x: x[:, 0], dense(), layers.Activation("softmax")], {}, "cls"),
        ([layers.GlobalAveragePooling1D(), dense(activation="softmax")], {}, "mean"),
        ([layers.Dropout(0.1), dense()], {"with_pool": True}, "pooler"),
    ):
        model = head_on(google, *head, **settings)
        ours = weights.from_bert4keras(model, tiny.tokenizer(), **TASK)
        assert ours.config.pooling == pooling


def crf():
    from bert4keras.layers import ConditionalRandomField

    return ConditionalRandomField(name="crf")


HEADS = {  # what it is called in the message, the layers on the encoder
    r"Bidirectional \(bilstm\)": lambda: [
        keras.layers.Bidirectional(keras.layers.LSTM(4), name="bilstm"),
        dense(),
    ],
    r"LayerNormalization \(norm\)": lambda: [
        first(),
        keras.layers.LayerNormalization(name="norm"),
        dense(),
    ],
    "GlobalMaxPooling1D": lambda: [keras.layers.GlobalMaxPooling1D(), dense()],
    "answers that differ": lambda: [keras.layers.Lambda(lambda x: x[:, 1]), dense()],
    "answers that differ by": lambda: [first(), dense(activation="sigmoid")],
    "answers that differ by 0": lambda: [  # a mean over padding, too
        keras.layers.Lambda(lambda x: x * 1.0, mask=None),
        keras.layers.Lambda(lambda x: tf.reduce_mean(x, 1)),
        dense(),
    ],
}


@pytest.mark.parametrize("named", HEADS)
def test_other_layers_between_bert_and_the_answer_are_refused(google, named):
    model = head_on(google, *HEADS[named]())
    with pytest.raises(ValueError, match=f"Received: {named}.*`new_head`"):
        weights.from_bert4keras(model, tiny.tokenizer(), **TASK)
    weights.from_bert4keras(model, tiny.tokenizer(), **TASK, new_head=True)


def test_a_crf_is_refused_and_may_be_ignored(google, tmp_path):
    tags = {"task": "tagging", "labels": ("O", "B-x", "I-x")}
    model = head_on(google, dense(), crf())
    for file in ("bert_config.json", "vocab.txt"):
        shutil.copy(google / file, tmp_path)
    model.save_weights(tmp_path / "best.h5")
    with pytest.raises(ValueError, match=r"ConditionalRandomField \(crf\).*`ignore_weights`"):
        weights.from_bert4keras(model, tiny.tokenizer(), **tags)
    with pytest.raises(ValueError, match="1 of unknown parts, crf. .*`--new-head`.*`--ignore-weig"):
        weights.load(tmp_path / "best.h5", **tags)
    for settings in ({"ignore_weights": ["c?f"]}, {"new_head": True}):
        assert (
            "crf" in weights.load(tmp_path / "best.h5", **tags, **settings).history[0]["left_out"]
        )
        weights.from_bert4keras(model, tiny.tokenizer(), **tags, **settings)


def test_the_masked_lm_head_equals_bert4keras(google):
    model = theirs(google, None, with_mlm=True)
    ours = weights.from_bert4keras(model, tiny.tokenizer(), "mlm", ())
    assert ours.history[0]["left_out"] == [] and ours.history[0]["new"] == []
    inputs = ours.pad(ours.tokenizer.encode(tiny.TEXTS, 16))
    real = inputs["input_mask"] == 1
    probs = model([inputs["input_word_ids"], inputs["input_type_ids"]]).numpy()
    np.testing.assert_allclose(
        tf.nn.softmax(ours.model(inputs)).numpy()[real], probs[real], atol=1e-5
    )


def test_other_bert4keras_models_are_refused(google):
    with pytest.raises(
        ValueError,
        match="plain BERT encoder of bert4keras. Received: one without Embedding-Norm. .*no prefix",
    ):
        weights.from_bert4keras(tiny.shared().model, tiny.tokenizer(), **TASK)
    with pytest.raises(
        ValueError, match="plain BERT encoder .* Received: one with Attention-UniLM-Mask"
    ):
        weights.from_bert4keras(theirs(google, None, application="unilm"), tiny.tokenizer(), **TASK)
    with pytest.raises(ValueError, match="the pooler's tanh. Received: gelu_erf and linear"):
        weights.from_bert4keras(theirs(google, None, with_pool="linear"), tiny.tokenizer(), **TASK)


@pytest.mark.parametrize("name", ["best.weights", "best.h5", "whole.h5"])
def test_bert4keras_file(google, classifier, tmp_path, name, caplog):
    """`whole.h5` holds the model with its Lambda as marshalled code, which is not looked at."""
    for file in ("bert_config.json", "vocab.txt"):
        shutil.copy(google / file, tmp_path)
    if name == "whole.h5":
        classifier.save(tmp_path / name, save_format="h5")
    else:
        classifier.save_weights(tmp_path / name, save_format="h5")
    with caplog.at_level("INFO"):
        model = weights.load(tmp_path / name, **TASK)
    assert "the head is taken to read [CLS], since the file does not tell" in caplog.text
    assert weights.load(tmp_path / name, **TASK, pooling="mean").config.pooling == "mean"
    assert probabilities_alike(model, classifier) < 1e-5
    assert model.history[0] == {
        "method": "load",
        "source": name,
        "loaded": 5 + 16 * 2 + 2,
        "new": [],
        "left_out": [],
        "seed": 0,
    }
    with pytest.raises(ValueError, match=f"{name}: the model must have one Dense of width 2"):
        weights.load(tmp_path / name, task="classification", labels=("a", "b"))
    with pytest.raises(ValueError, match="`task` and `labels` must be given"):
        weights.load(tmp_path / name)
    (tmp_path / "bert_config.json").unlink()
    with pytest.raises(
        ValueError, match="the weights must come with bert_config.json or config.json"
    ):
        weights.load(tmp_path / name, **TASK)


def saved(model, google, folder):
    folder.mkdir()
    for file in ("bert_config.json", "vocab.txt"):
        shutil.copy(google / file, folder)
    model.save_weights(folder / "best.h5")
    return folder / "best.h5"


def test_a_file_tells_what_stands_before_its_classifier_by_names_of_layers(google, tmp_path):
    bert, dense = theirs(google), keras.layers.Dense(3, name="answer")
    mean = keras.layers.GlobalAveragePooling1D()(bert.output)
    path = saved(keras.Model(bert.inputs, dense(mean)), google, tmp_path / "mean")
    assert weights.load(path, **TASK).config.pooling == "mean"
    most = keras.layers.GlobalMaxPooling1D(name="global_max_pooling1d_3")(bert.output)
    path = saved(keras.Model(bert.inputs, dense(most)), google, tmp_path / "max")
    with pytest.raises(ValueError, match="or a mean, .* Received: global_max_pooling1d_3. Load"):
        weights.load(path, **TASK)
    assert "classifier/kernel" in weights.load(path, **TASK, new_head=True).history[0]["new"]


def test_a_bert4keras_file_of_one_output_and_of_some_pieces(google, tmp_path):
    """Dense(1, sigmoid) is the second of two labels; `keep_tokens` leaves rows out, and bert_config.json as it was."""
    kept, head = range(20), keras.layers.Dense(1, "sigmoid")
    bert = theirs(google, keep_tokens=[*kept])
    model = keras.Model(bert.inputs, head(bert.output[:, 0]))
    path, two = saved(model, google, tmp_path / "m"), {"task": "matching", "labels": ("no", "yes")}
    rule = f"a row for each piece of the vocabulary. Received: 20 rows and {len(tiny.VOCAB)} pieces"
    with pytest.raises(ValueError, match=rule):
        weights.load(path, **two)
    (path.parent / "vocab.txt").write_text("\n".join(tiny.VOCAB[:20]))  # the advice
    ours, texts = weights.load(path, **two), [("the cat", "a dog"), ("sat", "on the mat")]
    lone = [ours.tokenizer.encode([text], 16) for text in texts]
    expected = [model([np.int32([e.ids]), np.int32([e.type_ids])]).numpy().item() for (e,) in lone]
    assert ours.config.vocab_size == 20
    found = ours.predict(texts)
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    pieces = tiny.tokenizer().with_pieces(tiny.VOCAB[:20])
    in_memory = weights.from_bert4keras(model, pieces, **two)
    np.testing.assert_allclose(in_memory.predict(texts), found, atol=1e-6)
    head.activation = keras.activations.linear  # no probability: not two labels
    linear = keras.Model(bert.inputs, head(bert.output[:, 0]))
    with pytest.raises(ValueError, match="sigmoid for one output.*answers that differ"):
        weights.from_bert4keras(linear, pieces, **two)
    score = weights.load(path, task="regression", labels=("score",)).predict(texts)
    np.testing.assert_allclose(1 / (1 + np.exp(-score)), expected, atol=1e-5)


def test_a_bert4keras_file_does_not_tell_the_activation_of_its_pooler(google, tmp_path, caplog):
    path = saved(head_on(google, dense(), with_pool="linear"), google, tmp_path / "m")
    with caplog.at_level("INFO"):
        weights.load(path, **TASK)
    assert "taken to read the pooler, with tanh, since the file does not tell" in caplog.text


def test_damaged_bert4keras_file(classifier, tmp_path):
    path = tmp_path / "best.h5"
    classifier.save_weights(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="best.h5: not a whole HDF5 file"):
        weights.load(path, **TASK)
    classifier.save_weights(tmp_path / "new.weights.h5")
    with pytest.raises(
        ValueError, match="new.weights.h5: bert4keras weights must be HDF5 with layers by name"
    ):
        weights.load(tmp_path / "new.weights.h5", **TASK)


@pytest.mark.parametrize(
    "groups, message",
    [
        (
            ["Embedding-Token", "Encoder-1-FeedForward", "dense_1"],
            "keras-bert .3 groups: Embedding-",
        ),
        (["layers", "vars"], "as Keras 3 and 'name.weights.h5' write them"),
        (["bert", "classifier", "dropout_37"], "from_tf=True"),
        (["conv2d", "dense"], "another model's .2 groups: conv2d, dense"),
    ],
)
def test_other_h5_files_say_what_they_are(tmp_path, groups, message):
    import h5py

    with h5py.File(tmp_path / "best.h5", "w") as file:
        for name in groups:
            file.create_group(name)
    with pytest.raises(ValueError, match=f"best.h5: bert4keras weights .*Received: .*{message}"):
        weights.load(tmp_path / "best.h5", **TASK)


def test_a_loaded_model_is_saved_and_loaded(google, tmp_path):
    model = weights.load(google, **TASK)
    model.save(tmp_path / "m")
    again = TaskModel.load(tmp_path / "m")
    assert again.history == model.history
    np.testing.assert_array_equal(again.predict(tiny.TEXTS), model.predict(tiny.TEXTS))


def test_bert4keras_has_keras_2_even_after_tf_mot():
    code = (
        "import keras_compress.backend, tensorflow_model_optimization, bert4keras.backend as theirs; "
        "print(theirs.K.__file__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tf_keras" in found.stdout, found.stdout
