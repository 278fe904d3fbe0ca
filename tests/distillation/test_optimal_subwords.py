import functools

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
    spell,
    spelled_rows,
)
from keras_compress.distillation.optimal_subwords import align, make_student
from keras_compress.distillation.shared_projections import SharedProjections, pairs_of
from tests.bert import tiny
from tests.support import CLASSES, TRAINING, data, masked_lm, stages_of, still, values_of

TEXTS = ["The cats sat on the mat.", "我听音乐 ab", "unbelievable café 12, 你好!", "a"]
PAIRS = [("the cats sat", "unbelievable mat"), ("a", "on"), ("我听音乐 the cat", "dogs")]


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
    ids = {piece: k for k, piece in enumerate("[UNK] un ##b ##bel ##believ ##able a ##x".split())}
    assert spell("unbelievable", ids) == [1, 4, 5]  # not ##b, not ##bel
    assert spell("##bx", ids) == [2, 7] and spell("a", ids) == [6] and spell("bx", ids) == [0]
    rows = np.arange(8.0)[:, None] * [1.0, 10.0]
    student = Tokenizer("[PAD] [UNK] [CLS] [SEP] unbelievable ##bx".split())
    teacher = Tokenizer(["[PAD]", "[CLS]", "[SEP]", *ids])
    expected = np.concatenate([np.zeros((3, 2)), rows])
    means = spelled_rows(expected, teacher, student)
    np.testing.assert_allclose(means[4:], [[10 / 3, 100 / 3], [4.5, 45.0]])


def cut(texts, picked, max_length=64, theirs=None):
    """(mixed, the teacher's encodings, the student's) of texts; `picked`: share of words."""
    both = theirs or tiny.tokenizer(), ours()
    inputs = []
    for tokenizer in both:
        padded = TaskModel.pad(still_of(tokenizer), tokenizer.encode(texts, 64))
        inputs.append({name: tf.constant(value) for name, value in padded.items()})
    words = tf.random.stateless_uniform((len(texts), 64), (1, 2)) < picked
    inputs, words = mix(*inputs, both, words, max_length)
    mixed = {name: value.numpy() for name, value in {**inputs, "words": words}.items()}
    return mixed, *(tokenizer.encode(texts, max_length) for tokenizer in both)


def still_of(tokenizer):
    """What `TaskModel.pad` reads of a model."""
    return type("Model", (), {"tokenizer": tokenizer})()


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


def test_the_beginning_is_cut_off_where_the_tokenizer_says_so():
    left = Tokenizer(tiny.VOCAB, truncation_side="left")
    mixed, theirs, _ = cut(TEXTS, 0.0, 6, left)
    assert rows(mixed, "input_word_ids") == [each.ids for each in theirs]


def spelled(pieces):
    return "".join(piece.removeprefix("##") for piece in pieces)


def test_each_word_is_cut_with_one_vocabulary_and_stays_the_same_word():
    mixed, *_ = cut(TEXTS, 0.5)
    vocab, sources = (tiny.VOCAB, ours().vocab), []
    for text in zip(*(rows(mixed, name) for name in ("input_word_ids", "source", "words"))):
        ids, source, words = text
        assert words == sorted(words) and {*words} == {*range(words[-1] + 1)}
        for number in {*words}:
            of_word = [k for k, word in enumerate(words) if word == number]
            assert len({source[k] for k in of_word}) == 1
            sources.append(source[of_word[0]])
            pieces = [vocab[source[k]][ids[k]] for k in of_word]
            assert [piece.startswith("##") for piece in pieces] == [False] + [True] * (
                len(pieces) - 1
            )
        whole = spelled(vocab[s][i] for s, i in zip(source, ids))
        assert whole.startswith("[CLS]") and whole.endswith("[SEP]")
    assert {*sources} == {0, 1}
    texts = [
        spelled(vocab[s][i] for s, i in zip(*pair))
        for pair in zip(rows(mixed, "source"), rows(mixed, "input_word_ids"))
    ]
    assert texts[2].replace("[UNK]", "") in "[CLS]unbelievablecafe12,你好![SEP]"


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


@pytest.mark.parametrize("source", [0, 1])
def test_table_and_softmax_learn_from_the_pieces_of_their_vocabulary_alone(source):
    dual, _ = dual_model(masked_lm(), ours())
    ends = "word_embeddings/embeddings", "mlm_bias/bias", "_2/embeddings", "mlm_bias_2/bias"
    own = [next(v for v in dual.weights if v.name.endswith(f"{end}:0")) for end in ends]
    mixed, *_ = cut(TEXTS, float(source), 16)
    inputs = {name: tf.constant(value) for name, value in mixed.items() if name != "words"}
    inputs["targets"] = tf.where(inputs["input_mask"] > 0, inputs["input_word_ids"], -1)
    with tf.GradientTape() as tape:
        scores = dual(inputs)
        loss = tf.add_n([tf.reduce_sum(tf.square(tf.nn.softmax(each))) for each in scores])
    assert [len(each) > 0 for each in scores] == [source == 0, source == 1]
    for number, gradient in enumerate(tape.gradient(loss, own)):
        assert np.any(tf.convert_to_tensor(gradient)) == (number // 2 == source)


def test_table_2_of_the_same_pieces_gives_the_same_answers():
    teacher = still()
    dual, table = dual_model(teacher, Tokenizer(tiny.VOCAB))
    np.testing.assert_array_equal(table.embeddings, teacher.weights()["word_embeddings/embeddings"])
    padded = teacher.pad(teacher.tokenizer.encode(TEXTS, 16))
    for source in (0, 1):
        inputs = {**padded, "source": np.full_like(padded["input_mask"], source)}
        np.testing.assert_allclose(dual(inputs)["logits"], teacher.model(padded), atol=1e-6)


def test_aligning_moves_table_2_alone():
    teacher = still()
    before = teacher.weights()
    settings = {"training": TRAINING, "seed": 0, "num_steps": 3, "share": 0.5}
    rows, curve = align(teacher, ours(), data(), **settings)
    start = spelled_rows(before["word_embeddings/embeddings"], teacher.tokenizer, ours())
    assert np.any(rows != start) and len(curve) == 3
    np.testing.assert_equal(teacher.weights(), before)


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
    D = {axis: np.linalg.qr(random.normal(size=(12, 12)))[0] for axis in shared.D}
    D = {axis: np.float32(D[axis][: m.shape[0], : m.shape[1]]) for axis, m in shared.D.items()}
    for axis, matrix in shared.D.items():
        matrix.assign(np.linalg.qr(D[axis].T)[0].T)
    assert value(shared) > 1.0
    D_h, D_i = (np.asarray(shared.D[axis]) for axis in ("hidden", "intermediate"))
    for theta_T, theta_S, axes in shared.pairs():
        P = [
            {"hidden": D_h, "intermediate": D_i, None: np.eye(theta_T.shape[0])}[axis]
            for axis in axes
        ]
        theta = theta_T.numpy()
        theta_S.assign(P[0] @ theta @ P[1].T if len(P) == 2 else P[0] @ theta)
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


def student_of(teacher, *sizes):
    about = "teacher", None, 1
    return make_student(teacher, data(), *about, *sizes, training=TRAINING, seed=0)


def test_what_is_compared():
    teacher = still(sharing="all", num_layers=4)
    student, kept = student_of(teacher, 2, 4, 2, 6)
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
    for projection, number in (("none", 0), ("down", 2), ("up", 2), ("both", 4)):
        for depth in (1, 4):
            model = still(num_layers=depth)
            assert len(shared_of(model, model, projection).trainable_weights) == number


@pytest.mark.parametrize(
    "hidden, inner, count", [(48, 192, 602_928), (96, 384, 1_874_016), (192, 768, 6_420_672)]
)
def test_parameters_of_the_papers_students(hidden, inner, count):
    pieces = [*tiny.VOCAB, *(f"word{n}" for n in range(4928 - len(tiny.VOCAB)))]
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "max_position_embeddings": 512}
    config = tiny.config(vocab_size=4928, num_layers=12, num_heads=12, **sizes)
    names = TaskModel(config, Tokenizer(pieces), "classification", CLASSES)
    assert names.model.count_params() == count + 3 * hidden + 3  # and a classifier


def test_the_stages_of_a_student_with_its_own_pieces(monkeypatch):
    settings = {"num_layers": 1, "hidden_size": 4, "projection": "down", "projection_weight": 0.5}
    stages = stages_of(optimal_subwords, monkeypatch, still(), data(), **settings)
    (stage,) = stages
    weights = {name: weight for name, (weight, _) in stage["losses"].items()}
    assert weights == {"soft": 1.0, "projection": 0.5}
    assert (stage["num_steps"], stage["first_step"]) == (4, 2)  # a quarter of 6 for table 2
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
    made = []

    def fit(model, task_model, dataset, training, *, batches, **given):
        made.append(model)
        for batch in batches(0, 2):
            before = [v.numpy() for v in model.trainable_variables]
            model.train_step(batch)
            moved = [np.any(v.numpy() != old) for v, old in zip(model.trainable_variables, before)]
            made.append(dict(zip([v.name for v in model.trainable_variables], moved)))
        return []

    monkeypatch.setattr(optimal_subwords, "fit", fit)
    teacher = masked_lm()
    dataset = Dataset("prose", "unlabelled", (), Split(TEXTS * 3, [0] * 12))
    settings = {"training": TRAINING, "num_layers": 1, "hidden_size": 4, "vocab_size": 60}
    small = optimal_subwords.optimal_subwords_general(teacher, dataset, **settings)
    model, *_, moved = made
    assert [*model.means] == ["loss", "teacher", "student", "projection"]
    for name in ("word_embeddings/", "word_embeddings_2/", "mlm_bias/", "mlm_bias_2/", "U_hidden"):
        assert any(moved[full] for full in moved if full.startswith((name, "dual"))), name
    assert small.task == "mlm" and small.config.vocab_size == 60
    facts = small.history[-1]
    assert (
        facts["pieces"] == 60
        and facts["unknown"] == 0.0
        and facts["projection_norms"].keys() == {"U_hidden", "U_intermediate"}
    )


@pytest.mark.parametrize(
    "task, settings, message",
    [
        ("tagging", {"align_share": 0.0}, "only if both models cut texts alike"),
        ("classification", {"hidden_size": 16}, "as wide as its teacher or narrower.*16"),
        ("classification", {"vocab_size": 6}, "hold all their characters.*`vocab_size` 6"),
        ("classification", {"corpus": "no-such.txt"}, "no-such.txt"),
        ("classification", {"num_layers": 3}, "`num_layers` must be 1 to 2"),
    ],
)
def test_refusals(task, settings, message):
    with pytest.raises(ValueError, match=message):
        optimal_subwords.compress(still(task), data(task), training=TRAINING, **settings)


def test_padding_changes_no_teacher_loss():
    teacher = masked_lm()
    dual, _ = dual_model(teacher, ours())
    mixed, *_ = cut(TEXTS, 0.5, 16)
    inputs = {name: tf.constant(value) for name, value in mixed.items() if name != "words"}
    inputs["targets"] = tf.where(inputs["input_mask"] > 0, inputs["input_word_ids"], -1)
    longer = {
        k: tf.pad(v, [[0, 0], [0, 16 - v.shape[1]]], constant_values=-1 if k == "targets" else 0)
        for k, v in inputs.items()
    }
    longer["input_word_ids"] += 3 * (1 - longer["input_mask"])
    for one, other in zip(dual(inputs), dual(longer), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
