import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.distillation import optimal_subwords
from keras_compress.distillation.mixed_words import (
    dual_model,
    learn_wordpiece,
    mask_mixed,
    mix,
    mixed_stream,
    spelled_rows,
)
from keras_compress.distillation.optimal_subwords import align, make_student
from keras_compress.distillation.shared_projections import SharedProjections, pairs_of
from tests.bert import tiny
from tests.support import CLASSES, TRAINING, data, masked_lm, stages_of, still, values_of

TEXTS = ["The cats sat on the mat.", "我听音乐 ab", "unbelievable café 12, 你好!", "a"]
PAIRS = [("the cats sat", "unbelievable mat"), ("a", "on"), ("我听音乐 the cat", "dogs")]

pytestmark = pytest.mark.usefixtures("eagerly")


@functools.cache
def ours():
    return learn_wordpiece(TEXTS * 3, 62, tiny.tokenizer())


def test_a_vocabulary_is_learned_as_the_teacher_cuts_words():
    small = ours()
    assert small.vocab[:5] == tiny.VOCAB[:5] and small.lowercase
    assert {"我", "听", "音", "乐"} <= {*small.vocab} and "##听" not in small.vocab
    assert "cafe" in small.vocab and not any(piece != piece.lower() for piece in small.vocab[5:])
    assert learn_wordpiece(TEXTS * 3, 62, tiny.tokenizer()).vocab == small.vocab  # each time
    for size in (50, 55):
        assert len(learn_wordpiece(TEXTS, size, tiny.tokenizer()).vocab) == size
    cased = learn_wordpiece(TEXTS, 70, tiny.tokenizer(lowercase=False))
    assert "T" in cased.vocab and not cased.lowercase


def test_rare_characters_are_unknown():
    texts = ["ab ab q", "ba"]
    assert "q" in learn_wordpiece(texts, 20, tiny.tokenizer()).vocab
    small = learn_wordpiece(texts, 20, tiny.tokenizer(), min_count=2)
    assert "q" not in small.vocab
    assert small.unknown_share(small.encode(texts[:1], 8)[0].ids) == 1 / 3


@pytest.mark.parametrize(
    "texts, size, received",
    [
        ([], 100, "0 different words"),
        (["", " \n "], 100, "0 different words"),
        (TEXTS, 40, r"\d+ different words; 26 characters, .* 43 pieces, and `vocab_size` 40"),
    ],
)
def test_what_a_vocabulary_cannot_be_learned_from(texts, size, received):
    rule = "must be learned on texts with words, and hold all their characters"
    with pytest.raises(ValueError, match=f"{rule}. Received: {received}.*raise `min_count`"):
        learn_wordpiece(texts, size, tiny.tokenizer())


def test_longest_match_by_hand():
    pieces = "[PAD] [UNK] [CLS] [SEP] un ##b ##bel ##believ ##able a ##x".split()
    student = "[PAD] [UNK] [CLS] [SEP] unbelievable ##bx bx ##able".split()
    rows = np.arange(11.0)[:, None] * [1.0, 10.0]
    means = spelled_rows(rows, Tokenizer(pieces), Tokenizer(student))
    np.testing.assert_array_equal(means[:4], rows[:4])
    # un ##believ ##able: (4 + 7 + 8) / 3, not ##b, not ##bel; ##b ##x: (5 + 10) / 2; [UNK]; ##able
    np.testing.assert_allclose(means[4:, 0], [19 / 3, 7.5, 1.0, 8.0])
    np.testing.assert_allclose(means[:, 1], 10 * means[:, 0])


def cut(texts, picked, max_length=64):
    """(mixed, the teacher's encodings, the student's) of texts; `picked`: share of words."""
    both, inputs = (tiny.tokenizer(), ours()), []
    for tokenizer in both:
        padded = TaskModel.pad(SimpleNamespace(tokenizer=tokenizer), tokenizer.encode(texts, 64))
        inputs.append({name: tf.constant(value) for name, value in padded.items()})
    words = tf.random.stateless_uniform((len(texts), 64), (1, 2)) < picked
    inputs, words = mix(*inputs, both, words, max_length)
    mixed = {name: value.numpy() for name, value in {**inputs, "words": words}.items()}
    return mixed, *(tokenizer.encode(texts, max_length) for tokenizer in both)


def rows(mixed, name):
    return [row[real > 0].tolist() for row, real in zip(mixed[name], mixed["input_mask"])]


@pytest.mark.parametrize("texts", [TEXTS, PAIRS])
@pytest.mark.parametrize("max_length", [64, 6])
def test_with_p_0_the_ids_are_the_teachers_and_with_p_1_the_students(texts, max_length):
    if (texts, max_length) == (PAIRS, 6):
        texts = PAIRS[1:2]  # see Departures
    for picked in (0.0, 1.0):
        mixed, *encodings = cut(texts, picked, max_length)
        expected = encodings[int(picked)]
        assert rows(mixed, "input_word_ids") == [each.ids for each in expected]
        assert rows(mixed, "input_type_ids") == [each.type_ids for each in expected]
        assert {*np.concatenate(rows(mixed, "source"))} == {int(picked)}


def spelled(pieces):
    return "".join(piece.removeprefix("##") for piece in pieces)


def test_each_word_is_cut_with_one_vocabulary_and_stays_the_same_word():
    mixed, *_ = cut(TEXTS, 0.5)
    vocab, seen = (tiny.VOCAB, ours().vocab), set()
    for text, *row in zip(TEXTS, *(rows(mixed, x) for x in ("input_word_ids", "source", "words"))):
        pieces, words = [], {}
        for number, source, word in zip(*row):
            pieces.append(vocab[source][number])
            words.setdefault(word, []).append((source, pieces[-1].startswith("##")))
        assert row[2] == sorted(row[2]) and [*words] == [*range(len(words))]
        for sources, goes_on in (zip(*word) for word in words.values()):
            assert len({*sources}) == 1 and [*goes_on] == [False] + [True] * (len(goes_on) - 1)
            seen.add(sources[0])
        plain = "[CLS]" + text.lower().replace(" ", "").replace("é", "e") + "[SEP]"
        parts = spelled(pieces).split("[UNK]")  # a word that neither vocabulary has
        assert re.fullmatch(".+".join(map(re.escape, parts)), plain)
    assert seen == {0, 1}


def test_words_are_drawn_with_p_anew_in_each_batch_and_the_same_after_a_stop():
    texts = Split([TEXTS[2]] * 80, [0] * 80)
    dataset = Dataset("one text", "classification", CLASSES, texts)
    batches = mixed_stream(dataset, (tiny.tokenizer(), ours()), TRAINING, 3, 0.3)
    draws = {
        span: [mixed["source"].numpy() for mixed, *_ in batches(*span)]
        for span in ((0, 20), (10, 20))
    }
    for one, other in zip(draws[0, 20][10:], draws[10, 20], strict=True):
        np.testing.assert_array_equal(one, other)
    drawn = np.concatenate([source[:, 0] for source in draws[0, 20]])  # [CLS] is a word, too
    assert abs(drawn.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(drawn))


def test_words_are_masked_as_a_whole_in_their_own_vocabulary():
    mixed, *_ = cut(TEXTS * 20, 0.5)
    inputs = {name: tf.constant(value) for name, value in mixed.items()}
    masked = mask_mixed(inputs, inputs.pop("words"), (tiny.tokenizer(), ours()), (0, 1))
    masked = {name: value.numpy() for name, value in masked.items()}
    drawn, ids = masked["targets"] >= 0, mixed["input_word_ids"]
    np.testing.assert_array_equal(masked["targets"][drawn], ids[drawn])
    np.testing.assert_array_equal(masked["input_word_ids"][~drawn], ids[~drawn])
    sizes = np.array([len(tiny.VOCAB), len(ours().vocab)])
    assert (masked["input_word_ids"] < sizes[masked["source"]]).all() and drawn.any()
    for row, words in zip(drawn, mixed["words"]):
        for word in {*words} - {-1}:
            assert len({*row[words == word]}) == 1
    special = np.isin(ids, [2, 3]) | (mixed["input_mask"] == 0)  # [CLS], [SEP] in both vocabularies
    assert not drawn[special].any()


def read_by_dual(texts, picked):
    """What a masked-LM teacher reads, all pieces masked."""
    mixed, *_ = cut(texts, picked, 16)
    inputs = {name: tf.constant(value) for name, value in mixed.items() if name != "words"}
    targets = tf.where(inputs["input_mask"] > 0, inputs["input_word_ids"], -1)
    return {**inputs, "targets": targets}


@pytest.mark.parametrize("source", [0, 1])
def test_table_and_softmax_learn_from_the_pieces_of_their_vocabulary_alone(source):
    dual, _ = dual_model(masked_lm(), ours())
    ends = "word_embeddings/embeddings", "mlm_bias/bias", "_2/embeddings", "mlm_bias_2/bias"
    own = [next(v for v in dual.weights if v.name.endswith(f"{end}:0")) for end in ends]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(dual(read_by_dual(TEXTS, float(source))))
    for number, gradient in enumerate(tape.gradient(loss, own)):
        assert np.any(tf.convert_to_tensor(gradient)) == (number // 2 == source)


def test_padding_changes_no_teacher_loss():
    dual, _ = dual_model(masked_lm(), ours())
    inputs, longer = read_by_dual(TEXTS, 0.5), {}
    for name, value in inputs.items():
        filled = {"targets": -1, "input_word_ids": 3}.get(name, 0)
        width = 16 - value.shape[1]
        longer[name] = tf.pad(value, [[0, 0], [0, width]], constant_values=filled)
    np.testing.assert_allclose(dual(inputs), dual(longer), atol=1e-4)


def test_table_2_of_the_same_pieces_gives_the_same_answers():
    teacher = still()
    dual, table = dual_model(teacher, Tokenizer(tiny.VOCAB))
    np.testing.assert_array_equal(table.embeddings, teacher.weights()["word_embeddings/embeddings"])
    padded = teacher.pad(teacher.tokenizer.encode(TEXTS, 16))
    for source in (0, 1):
        inputs = {**padded, "source": np.full_like(padded["input_mask"], source)}
        np.testing.assert_allclose(dual(inputs)["logits"], teacher.model(padded), atol=1e-6)


def test_aligning_moves_table_2_alone():
    teacher, name = still(), "word_embeddings/embeddings"
    small, _ = make_student(teacher, ours(), 1, 4, 2, None, seed=0)
    before, start = teacher.weights(), small.weights()
    align(teacher, small, data(), 3, 0.5, training=TRAINING, seed=0)
    np.testing.assert_equal(teacher.weights(), before)
    after = small.weights()
    assert np.any(after.pop(name) != start.pop(name)) and len(small.curve) == 3
    np.testing.assert_equal(after, start)


def shared_of(teacher, student, projection="both"):
    return SharedProjections(teacher, student, [*range(student.config.num_layers)], projection)


def value(shared):
    return float(values_of(shared.losses(1.0), {}, {})["projection"])


def test_equal_weights_have_no_loss_under_the_identity():
    shared = shared_of(still(), still())
    assert value(shared) == 0.0
    for weight in shared.trainable_weights:
        np.testing.assert_array_equal(weight, np.eye(*weight.shape))


THIN = {"hidden_size": 4, "intermediate_size": 6, "num_layers": 1}


def test_the_projected_teacher_has_no_loss_under_orthonormal_rows():
    teacher, student = still(), still(seed=2, **THIN)
    shared, random = shared_of(teacher, student, "down"), np.random.default_rng(0)
    for matrix in shared.D.values():
        matrix.assign(np.linalg.qr(random.normal(size=matrix.shape[::-1]))[0].T)
    assert value(shared) > 1.0
    for theta_T, theta_S, axes in shared.pairs():
        P = [shared.D[x].numpy() if x else np.eye(theta_T.shape[0]) for x in axes]
        theta = P[0] @ theta_T.numpy()
        theta_S.assign(theta @ P[1].T if len(P) == 2 else theta)
    np.testing.assert_allclose(value(shared), 0.0, atol=1e-8)


@pytest.mark.parametrize("projection, expected", [("down", 48.0), ("up", 120.0), ("both", 168.0)])
def test_losses_by_hand(projection, expected):
    shared = shared_of(still(), still(seed=2, **THIN), projection)
    kernel = next(pair for pair in shared.pairs() if "intermediate/kernel" in pair[0].name)
    bias = next(pair for pair in shared.pairs() if "intermediate/bias" in pair[0].name)
    assert (kernel[2], bias[2]) == (("hidden", "intermediate"), ("intermediate",))
    for *pair, _ in shared.pairs():
        for theta in pair:
            theta.assign(tf.zeros_like(theta))
    kernel[0].assign(tf.ones((8, 12)))
    bias[1].assign(tf.fill((6,), 2.0))
    # D cuts: 4 x 6 ones against 0, and 0 against 6 twos: 24 + 24. U: 8 x 12 ones, and 6 twos again: 96 + 24
    assert value(shared) == expected
    if projection == "down":
        shared.D["hidden"].assign(2.0 * shared.D["hidden"])  # 4 x 6 twos
        assert value(shared) == 96.0 + 24.0


def test_the_loss_is_computed_in_turn_and_is_the_same_in_the_mean():
    models = still(), still(seed=2)
    whole = value(SharedProjections(*models, [0, 1], "up"))
    shared = SharedProjections(*models, [0, 1], "up", every=3)
    np.testing.assert_allclose([value(shared) for _ in range(4)], [3 * whole, 0, 0, 3 * whole])
    assert whole > 1.0


def test_what_is_compared():
    teacher = still(sharing="all", num_layers=4)
    student, kept = make_student(teacher, teacher.tokenizer, 2, 4, 2, 6, seed=0)
    assert kept == [1, 3]
    pairs = pairs_of(teacher, student, [1, 3])
    compared = {theta_S.name.split(":")[0] for _, theta_S, _ in pairs}
    left_out = student.weights().keys() - compared
    assert left_out == {"word_embeddings/embeddings", "classifier/kernel", "classifier/bias"}
    assert len(compared) == len(pairs) and all(len(s.shape) == len(axes) for _, s, axes in pairs)
    assert {t.name.split("_")[1] for t, *_ in pairs if t.name.startswith("layer_")} == {"0"}
    # the start of D: nothing is lost on the way down
    assert value(SharedProjections(teacher, student, kept, "down")) == 0.0


def test_projections_do_not_grow_with_the_layers():
    models = still(num_layers=1), still(num_layers=4)
    for projection, number in (("none", 0), ("down", 2), ("up", 2), ("both", 4)):
        for model in models:
            assert len(shared_of(model, model, projection).trainable_weights) == number


@pytest.mark.parametrize(
    "hidden, inner, count", [(48, 192, 602_928), (96, 384, 1_874_016), (192, 768, 6_420_672)]
)
def test_parameters_of_the_papers_students(hidden, inner, count):
    pieces = Tokenizer([*tiny.VOCAB, *(f"word{n}" for n in range(4928 - len(tiny.VOCAB)))])
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_heads": 12}
    sizes |= {"vocab_size": 4928, "max_position_embeddings": 512}
    configs = [tiny.config(num_layers=n, **sizes) for n in (1, 2)]
    models = [TaskModel(config, pieces, "classification", CLASSES) for config in configs]
    first, second = (model.model.count_params() for model in models)
    classifier = 3 * hidden + 3
    assert first + 11 * (second - first) - classifier == count  # of 12 layers


def test_the_stages_of_a_student_with_its_own_pieces(monkeypatch):
    aligned = []
    monkeypatch.setattr(optimal_subwords, "align", lambda *given, **_: aligned.append(given[3:]))
    settings = {"num_layers": 1, "hidden_size": 4, "projection": "down", "projection_weight": 0.5}
    (stage,) = stages_of(optimal_subwords, monkeypatch, still(), data(), **settings)
    weights = {name: weight for name, (weight, _) in stage["losses"].items()}
    assert weights == {"soft": 1.0, "projection": 0.5}
    assert aligned == [(2, 0.5)]  # a quarter of 6 for table 2
    assert (stage["num_steps"], stage["first_step"]) == (4, 2)
    student = stage["student"]
    assert student.tokenizer.vocab != tiny.VOCAB and student.config.vocab_size < 40
    plain = TaskModel(student.config, student.tokenizer, student.task, CLASSES)
    assert student.weights().keys() == plain.weights().keys()  # no table 2, no D


def test_the_full_vocabulary_and_the_teachers_sizes_begin_as_the_teacher(monkeypatch):
    settings = {"vocab_size": "teacher", "projection": "none"}
    (stage,) = stages_of(optimal_subwords, monkeypatch, still(), data(), **settings)
    np.testing.assert_equal(stage["student"].weights(), still().weights())
    assert (stage["num_steps"], stage["first_step"], [*stage["losses"]]) == (6, 0, ["soft"])


def test_teacher_student_and_projections_learn_together(monkeypatch):
    seen = {}

    def fit(model, task_model, dataset, training, *, batches, **given):
        seen["losses"] = [*model.means]
        parts = dict(zip(("student", "teacher", "shared"), (model.student, *model.own_layers)))
        before = {name: [v.numpy() for v in x.trainable_variables] for name, x in parts.items()}
        for batch in batches(0, 3):
            model.train_step(batch)
        for name, part in parts.items():
            pairs = zip(part.trainable_variables, before[name])
            seen[name] = {v.name: np.any(v.numpy() != old) for v, old in pairs}
        return []

    monkeypatch.setattr(optimal_subwords, "fit", fit)
    dataset = Dataset("prose", "unlabelled", (), Split(TEXTS * 3, [0] * 12))
    settings = {"training": TRAINING, "num_layers": 1, "hidden_size": 4, "vocab_size": 60}
    small = optimal_subwords.optimal_subwords_general(masked_lm(), dataset, **settings)
    assert seen["losses"] == ["loss", "teacher", "student", "projection"]
    for part, ends in (
        ("student", ("word_embeddings/embeddings:0", "mlm_bias/bias:0")),
        ("teacher", ("word_embeddings/embeddings:0", "word_embeddings_2/embeddings:0")),
        ("teacher", ("mlm_bias/bias:0", "mlm_bias_2/bias:0")),
        ("shared", ("U_hidden:0", "U_intermediate:0")),
    ):
        for end in ends:
            assert [moved for name, moved in seen[part].items() if name.endswith(end)] == [True]
    assert small.task == "mlm" and small.config.vocab_size == 60
    facts = small.history[-1]
    assert facts["unknown"] == 0.0 and len(facts["pieces_per_text"]) == 2
    assert facts["projection_norms"].keys() == {"U_hidden", "U_intermediate"}


@pytest.mark.parametrize(
    "task, settings, message",
    [
        ("tagging", {}, 'both models cut texts alike.*`vocab_size = "teacher"`'),
        ("classification", {"hidden_size": 16}, "as wide as its teacher or narrower.*16"),
        ("classification", {"vocab_size": 6}, "hold all their characters.*`vocab_size` 6"),
        ("classification", {"corpus": "no-such.txt"}, "no-such.txt"),
        (
            "classification",
            {"vocab_size": "teacher", "min_count": 2},
            "vocabulary that is learned.*None and 2",
        ),
        ("classification", {"num_layers": 3}, "`num_layers` must be 1 to 2"),
    ],
)
def test_refusals(task, settings, message):
    with pytest.raises(ValueError, match=message):
        optimal_subwords.compress(still(task), data(task), training=TRAINING, **settings)
