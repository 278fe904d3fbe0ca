# %% [markdown]
r"""
# Lesson 9 · Small vocabularies: fewer pieces, longer texts

**After this lesson you can** say what share of a small BERT its word pieces (词片) are; learn a WordPiece vocabulary and cut a
word with it by hand; say what a smaller vocabulary saves and what it costs; explain how a teacher can read two
vocabularies at once; and write a loss that compares weights of two sizes.

**You need** Lesson 2 (soft targets). Lesson 4 removes pieces from a vocabulary; here another one is learned.

**Time** about 2 minutes of computing on a laptop CPU with two cores, an hour with the exercises (10 points). Nothing is
trained here: the models of the central experiment are in `data/results/subwords-study`. **Seed** 0; the study has seeds
0, 1 and 2. Start Jupyter with the environment variable `KERAS_COMPRESS_FAST=1` for a dry run whose numbers (but for the
study's) mean nothing.
"""

# %%
import os, sys
import time

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np
from tokenizers import models

from keras_compress import datasets
from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation import mixed_words, shared_projections
from keras_compress.experiment import compare
from keras_compress.experiment.plots import ACCENT, GREY, INK, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.files import DATA_FOLDER
from keras_compress.measure import cost

# %%
from IPython.display import Markdown, display

FAST, SEED = os.environ.get("KERAS_COMPRESS_FAST") == "1", 0
SIZES = (500, 1000, 2000, 5000, 10000)                        # pieces; beside them the teacher's own 30,522
MAX_LENGTH = 64
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. What is in a small BERT?

A compressed BERT has fewer and thinner layers. Its embedding matrix has a row for each piece of the vocabulary, and
most methods leave it as long as it was. Here is MiniLM, which has been the large model of all lessons, and the *thin*
student of this one: 3 layers, half as wide.
"""

# %%
data = datasets.load("assistant")
teacher = weights.load("minilm", task=data.task, labels=data.labels, seed=0)
thin = teacher.config.replace(num_layers=3, hidden_size=192, num_heads=6, intermediate_size=768)
rows = []
for name, config in (("MiniLM, 6 layers, 384 wide", teacher.config), ("thin, 3 layers, 192 wide", thin)):
    total, table = cost.parameters(config, len(data.labels)), config.vocab_size * config.hidden_size
    rows.append((name, f"{total:,}", f"{table:,}", f"{100 * table / total:.0f}"))
show(("model", "parameters", "of these in the embedding matrix", "%"), rows)

# %% [markdown]
r"""
At half the width a layer shrinks to a quarter, the embedding matrix only to a half. So the smaller the model, the larger
the share of its vocabulary. Zhao et al. (2019) draw the conclusion: a small model should get a small vocabulary of its
own, about 5,000 pieces.

## 2. Another vocabulary

### 2.1 Learned, not cut out

WordPiece starts from the single characters of a corpus. Again and again it merges two neighbours into a new piece, the
most frequent pair first, until the vocabulary is full. We let the `tokenizers` library do it, on the training texts and
on `apidocs`, English prose that comes with Python's libraries.
"""

# %%
texts = list(data.train.texts)
texts += [] if FAST else datasets.load("apidocs", task="unlabelled").train.texts
sizes = SIZES[:2] if FAST else SIZES
start = time.perf_counter()
tokenizers = {size: mixed_words.learn_wordpiece(texts, size, teacher.tokenizer) for size in sizes}
seconds = time.perf_counter() - start
tokenizers[len(teacher.tokenizer.vocab)] = teacher.tokenizer
print(f"{len(texts):,} texts, {len(sizes)} vocabularies, {seconds:.1f} s")

# %%
sentence = "remind me to photograph the thunderstorm tomorrow"
rows = []
for size, tokenizer in tokenizers.items():
    (encoding,) = tokenizer.encode([sentence], MAX_LENGTH)
    pieces = [tokenizer.vocab[i] for i in encoding.ids[1:-1]]
    rows.append((f"{size:,}", len(pieces), " ".join(pieces)))
show(("pieces in the vocabulary", "pieces of the sentence", "the sentence"), rows)

# %% [markdown]
r"""
What is frequent stays whole. What is rare falls apart, but is never lost: at worst it is spelled, character by
character. Only a word with a character that the vocabulary does not have becomes `[UNK]`, as a whole.

### Exercise 1 (3 points): longest match first

A word is cut from the left: the longest piece of the vocabulary that the rest begins with is taken, then the rest of
the rest. Pieces inside a word are written with `##`. One trap is set: if at some place no piece fits, the *whole* word
is `["[UNK]"]`, not only its end.
"""

# %% nbgrader={"grade": false, "grade_id": "cut", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cut(word, vocab):
    """The pieces of a word, longest match first.

    Args:
        word: str, not empty. vocab: set of str.
    Returns:
        list of str.
    """
    ### BEGIN SOLUTION
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        fits = [end for end in range(len(word), start, -1) if prefix + word[start:end] in vocab]
        if not fits:
            return ["[UNK]"]
        pieces.append(prefix + word[start:fits[0]])
        start = fits[0]
    return pieces
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cut_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
few_ = {"[UNK]", "re", "##mind", "##min", "##d", "r", "##e", "mind", "##in", "##ing"}
#: 0.5 points: the longest piece that fits
assert cut("remind", few_) == ["re", "##mind"], "the longest piece that fits: ##mind, not ##min"
#: 0.5 points: ## inside a word, and nowhere else
assert cut("reminding", few_) == ["re", "##mind", "##ing"], "inside a word every piece has ##"
assert cut("mind", few_) == ["mind"], "a whole word"
#: 0.5 points: the whole word is unknown
assert cut("remix", few_) == ["[UNK]"], "no piece fits ##ix: the whole word is unknown"
print("passed: longest first, ## inside, a whole word, an unknown one")
print("cut: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
drawn_ = lambda most: "".join(generator_.choice(list("abc"), int(generator_.integers(1, most))))
pieces_ = sorted({drawn_(5) for _ in range(25)})
some_ = {"[UNK]", *pieces_, *("##" + piece for piece in pieces_[::2])}
all_ = {*some_, *"abc", "##a", "##b", "##c"}


def same_(vocab):
    library = models.WordPiece({piece: number for number, piece in enumerate(sorted(vocab))}, unk_token="[UNK]")
    for word in (drawn_(9) for _ in range(200)):
        assert list(cut(word, vocab)) == [token.value for token in library.tokenize(word)], word


#: 1 point: as the library cuts words that can be cut
same_(all_)
#: 0.5 points: as the library cuts, unknown words among them
same_(some_)
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.2 What it saves, and what it costs

A layer reads pieces, not words. If texts get longer, each layer has more to do, and attention grows with the square of
the length. So there are two sides: bytes fall with the vocabulary, time rises.

**Predict first.** From 30,522 pieces to 5,000: which share of the thin student's bytes is left, and how much more time
does a text take? And from 5,000 to 500? Write four numbers down.

Time is measured with untrained students, since weights do not change it: the 1,000 texts of dev, sorted by length, in
batches of 64; the median of 5 rounds in which the students take turns.
"""

# %%
students = {size: TaskModel(thin.replace(vocab_size=len(tokenizer.vocab)), tokenizer, data.task, data.labels, seed=0)
            for size, tokenizer in tokenizers.items()}
encodings = {size: tokenizer.encode(data.dev.texts[:100 if FAST else None], MAX_LENGTH)
             for size, tokenizer in tokenizers.items()}
times = {size: [] for size in students}
for turn in range(2 if FAST else 6):                          # the first is a warm-up
    for size, student in students.items():
        start = time.perf_counter()
        student.forward(encodings[size])
        times[size].append(time.perf_counter() - start)

# %%
largest, bytes_of, pieces_of, ms_of = max(students), {}, {}, {}
for size, student in students.items():
    bytes_of[size] = 4 * cost.parameters(student.config, len(data.labels))
    pieces_of[size] = float(np.mean([len(each.ids) for each in encodings[size]]))
    ms_of[size] = 1000 * np.median(times[size][1:]) / len(encodings[size])
show(("pieces", "parameters", "MB, float32", "of 30,522's, %", "pieces of a text", "unknown words, %", "time, 30,522 = 1"),
     [(f"{size:,}", f"{bytes_of[size] // 4:,}", f"{bytes_of[size] / 1e6:.1f}",
       f"{100 * bytes_of[size] / bytes_of[largest]:.0f}", f"{pieces_of[size]:.1f}",
       f"{100 * data.unknown_rate(tokenizers[size], 'dev', MAX_LENGTH):.2f}", f"{ms_of[size] / ms_of[largest]:.2f}")
      for size in students])

# %% [markdown]
r"""
Compare the two ends with your numbers. Half the vocabulary is not half the cost: of the bytes, the layers remain; of
the time, nothing is saved at all, since looking up a row costs the same in a long table as in a short one.

## 3. Two vocabularies at once

### 3.1 A teacher that reads both

The student's pieces are not the teacher's. The teacher's *answers* to a text can be compared with the student's all the
same, and for a task that is enough. When both predict masked words, they predict pieces of different vocabularies. The
article's way: the teacher learns to read the student's pieces as well. Each *word* of its text is cut with the
student's vocabulary with probability $p_{DT}$, else with its own (**dual training**, 双词表训练). An id then says nothing
without its *source*: 17 is one piece there and another one here. So a second array goes along, 0 for the teacher's ids
and 1 for the student's, and the teacher has two embedding matrices and two softmax layers.

### Exercise 2 (4 points): mixed words

Given the ids of each word in both vocabularies, build a teacher's input. Two traps are set: the choice is made for a
word, never for a piece; and a text that is too long loses its end, but not the last word, `[SEP]`, which is one piece in
both vocabularies.
"""

# %% nbgrader={"grade": false, "grade_id": "mix_words", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mix_words(theirs, ours, picked, max_length):
    """Ids and sources of a text whose picked words are cut with the student's vocabulary.

    Args:
        theirs, ours: the text's words in the teacher's and in the student's vocabulary, lists of lists of int;
            [CLS] is the first word, [SEP] the last. picked: list of bool, one for each word.
        max_length: most ids, at least 2.
    Returns:
        (ids, sources), lists of int of one length.
    """
    ### BEGIN SOLUTION
    pairs = [(piece, int(choice)) for teacher_ids, student_ids, choice in zip(theirs, ours, picked)
             for piece in (student_ids if choice else teacher_ids)]
    pairs = pairs[:min(len(pairs), max_length) - 1] + pairs[-1:]
    return [piece for piece, _ in pairs], [source for _, source in pairs]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "mix_words_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
theirs_, ours_ = [[101], [7592], [3185, 2015], [102]], [[2], [40, 41, 42], [43, 44], [3]]
#: 0.5 points: none and all
assert mix_words(theirs_, ours_, [False] * 4, 9) == ([101, 7592, 3185, 2015, 102], [0] * 5), "nothing picked: the teacher's"
assert mix_words(theirs_, ours_, [True] * 4, 9) == ([2, 40, 41, 42, 43, 44, 3], [1] * 7), "all picked: the student's"
#: 0.5 points: a word is cut with one vocabulary, all its pieces
one_ = [False, True, False, False]
assert mix_words(theirs_, ours_, one_, 9) == ([101, 40, 41, 42, 3185, 2015, 102], [0, 1, 1, 1, 0, 0, 0]), "one word"
#: 0.5 points: too long, [SEP] stays the last
assert mix_words(theirs_, ours_, one_, 5) == ([101, 40, 41, 42, 102], [0, 1, 1, 1, 0]), "too long: [SEP] stays the last"
print("passed: none, all, one word, a text that is cut")
print("mix_words: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)


def case_():
    lengths = [1, *generator_.integers(1, 4, int(generator_.integers(0, 6))).tolist(), 1]
    cuts = [[generator_.integers(0, 99, n).tolist() for n in lengths] for _ in range(2)]
    picked = (generator_.random(len(lengths)) < 0.5).tolist()
    return cuts, picked, [(i, int(p)) for a, b, p in zip(*cuts, picked) for i in (b if p else a)]


#: 1.5 points: random words, none cut off
for _ in range(50):
    cuts_, picked_, whole_ = case_()
    ids_, sources_ = mix_words(*cuts_, picked_, 99)
    assert list(zip(ids_, sources_)) == whole_
#: 1 point: random words, cut at every length
for _ in range(50):
    cuts_, picked_, whole_ = case_()
    for most_ in range(2, len(whole_) + 2):
        ids_, sources_ = mix_words(*cuts_, picked_, most_)
        kept_ = whole_ if len(whole_) <= most_ else whole_[:most_ - 1] + whole_[-1:]
        assert list(zip(ids_, sources_)) == kept_
### END HIDDEN TESTS

# %% [markdown]
r"""
The same in the library, with tensors, for a real sentence and $p_{DT} = \frac12$:
"""

# %%
small = tokenizers[min(tokenizers)]
both = teacher.tokenizer, small
inputs = []
for tokenizer in both:
    ids = tokenizer.encode([sentence], MAX_LENGTH)[0].ids
    inputs.append({"input_word_ids": tf.constant([ids]), "input_mask": tf.ones((1, len(ids)), tf.int32),
                   "input_type_ids": tf.zeros((1, len(ids)), tf.int32)})
picked = tf.random.stateless_uniform((1, MAX_LENGTH), [0, 1]) < 0.5
mixed, _ = mixed_words.mix(*inputs, both, picked, MAX_LENGTH)
show(("source", *(both[s].vocab[i] for i, s in zip(mixed["input_word_ids"][0].numpy(), mixed["source"][0].numpy()))),
     [("", *map(str, mixed["source"][0].numpy()))])

# %% [markdown]
r"""
### 3.2 Weights of two sizes

The second idea of the article compares not answers but *weights*. A kernel of the teacher is $384 \times 384$, the
student's $192 \times 192$. One matrix $D$ takes all kernels down to the student's size, or one matrix $U$ takes the
student's up; they are learned, and the same for all layers (**shared projections**, 共享投影):

$$L_{down} = \sum_\theta \lVert D\, \theta_T D^\top - \theta_S \rVert^2, \qquad
L_{up} = \sum_\theta \lVert \theta_T - U\, \theta_S U^\top \rVert^2 .$$

A bias has one axis, so there $D\,\theta_T$ is compared with $\theta_S$.

### Exercise 3 (3 points): the loss over all weights

Write the sum for either direction. One trap is set: kernels have two axes, biases one.
"""

# %% nbgrader={"grade": false, "grade_id": "projection_loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
def projection_loss(teacher_weights, student_weights, D=None, U=None):
    """L_down if D is given, plus L_up if U is given.

    Args:
        teacher_weights, student_weights: lists of float arrays, (wide, wide) or (wide,), and (thin, thin) or (thin,).
        D: float (thin, wide), U: float (wide, thin), or None.
    Returns:
        float.
    """
    ### BEGIN SOLUTION
    project = lambda P, theta: P @ theta @ P.T if theta.ndim == 2 else P @ theta
    total = 0.0
    for theta_T, theta_S in zip(teacher_weights, student_weights):
        if D is not None:
            total += np.sum((project(D, theta_T) - theta_S) ** 2)
        if U is not None:
            total += np.sum((theta_T - project(U, theta_S)) ** 2)
    return float(total)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "projection_loss_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
wide_ = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0])]
thin_, D_, U_ = [np.array([[1.0]]), np.array([4.0])], np.array([[1.0, 0.0]]), np.array([[1.0], [0.0]])
#: 0.5 points: down, a kernel and a bias
assert projection_loss(wide_, thin_, D=D_) == 1.0, "the kernel agrees; the bias: (5 - 4)^2"
#: 0.5 points: up, a kernel and a bias
assert projection_loss(wide_, thin_, U=U_) == 66.0, "the kernel: 4 + 9 + 16; the bias: (5 - 4)^2 + 36"
#: 0.5 points: both, the sum
assert projection_loss(wide_, thin_, D_, U_) == 67.0, "both: the sum"
print("passed: down, up, both")
print("projection_loss: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
wide_, thin_ = ([generator_.normal(size=(n, n)), generator_.normal(size=n)] for n in (6, 4))
D_, U_ = generator_.normal(size=(4, 6)), generator_.normal(size=(6, 4))
axes_ = [("hidden", "hidden"), ("hidden",)]
project_ = lambda theta, P, axes: shared_projections.projected(theta, {"hidden": P}, axes).numpy()
#: 0.5 points: down, as the package projects
down_ = sum(np.sum((project_(t, D_, a) - s) ** 2) for t, s, a in zip(wide_, thin_, axes_))
np.testing.assert_allclose(projection_loss(wide_, thin_, D=D_), down_)
#: 0.5 points: up, as the package projects
up_ = sum(np.sum((t - project_(s, U_, a)) ** 2) for t, s, a in zip(wide_, thin_, axes_))
np.testing.assert_allclose(projection_loss(wide_, thin_, U=U_), up_)
#: 0.5 points: no projection, no loss
assert projection_loss(wide_, thin_) == 0.0
### END HIDDEN TESTS

# %% [markdown]
r"""
The two losses are not the same question asked twice. What is the least value of each, if nothing else is asked for?
"""

# %%
kernels = [value for name, value in teacher.weights().items() if name.endswith("_query/kernel")]
zeros, none = [np.zeros((192, 192))] * len(kernels), np.zeros((192, 384))
print(f"L_down with D = 0 and a student of zeros: {projection_loss(kernels, zeros, D=none):.1f}")
print(f"L_up with U = 0: {projection_loss(kernels, zeros, U=none.T):.1f}, the teacher's own squares")

# %% [markdown]
r"""
$L_{down}$ alone has an answer that helps nobody: everything is zero. $L_{up}$ cannot reach zero, since 192 directions
do not span 384. And both are sums over all weights: thousands, where the loss of an answer is near 1. Their factor is
not a detail.

## 4. The experiment

The study trains thin students of a fine-tuned MiniLM, all with the same number of updates. The learning rate is the
better of two on dev. Vocabularies are compared without projections, projections with 5,000 pieces.

**Predict first.** Which vocabulary gives the best accuracy, and which would you ship? Do projections help?
"""

# %%
cells = [cell for cell in compare.read_cells(DATA_FOLDER / "results" / "subwords-study") if cell["data"] == "assistant-en"]
found = {}
for cell in cells:
    if cell["family"] == "pieces":
        found.setdefault(cell["size"], []).append(100 * cell["accuracy"])
entries = [entry for entry in compare.entries_of(cells) if not entry["file"]]
error = {entry["size"]: 100 * entry["accuracy_se"] for entry in entries if entry["family"] == "pieces"}


# %%
def told_apart(step, other):
    """(difference in points, low, high) of two steps of the study on test, by seed."""
    pair = compare.pool(entries, step, [other])
    return [100 * pair[key] for key in ("difference", "low", "high")], [100 * value for value in pair["by_seed"]]


best = max(found, key=lambda size: np.mean(found[size]))
good = [size for size in sorted(found) if size == best or told_apart(f"pieces-{size}", f"pieces-{best}")[0][2] >= 0]
optimum = good[0]
print(f"best on test: {best:,} pieces; the smallest vocabulary that is not told apart from it: {optimum:,}")

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3))
mean = {size: np.mean(values) for size, values in sorted(found.items())}
for axes, values, label in zip(all_axes, (bytes_of, pieces_of, mean), ("MB, float32", "pieces of a text", "test accuracy, %")):
    scale = 1e-6 if values is bytes_of else 1.0
    axes.plot([*values], [scale * y for y in values.values()], color=INK, marker="o")
    axes.set(xscale="log", xlabel="pieces in the vocabulary", title=label)
    axes.axvline(optimum, color=ACCENT, linewidth=1, linestyle="--")
all_axes[2].errorbar([*mean], [*mean.values()], [2 * error[size] for size in mean], color=INK, capsize=3)
for size, values in found.items():
    all_axes[2].plot([size] * len(values), values, ".", color=GREY)
all_axes[1].plot([*ms_of], [ms / ms_of[largest] * pieces_of[largest] for ms in ms_of.values()], color=GREY, marker="s")
all_axes[1].annotate("time (same scale)", (min(ms_of), ms_of[min(ms_of)] / ms_of[largest] * pieces_of[largest]),
                     textcoords="offset points", xytext=(8, 4), color=GREY, fontsize=9);

# %% [markdown]
r"""
Left: bytes. Middle: pieces of a text, and time, scaled to the same height at 30,522. Right: accuracy with two standard
errors over the test texts; dots are seeds. The dashed line is the smallest vocabulary that this test cannot tell from
the best one.
"""

# %%
rows = []
pairs = [(f"pieces-{size}", "pieces-30522") for size in SIZES]
pairs += [(f"{family}-5000", "pieces-5000") for family in ("down", "up", "both", "up-at-1", "unaligned")]
pairs += [("pieces-30522", "thin-3")]
for step, other in pairs:
    (difference, low, high), seeds = told_apart(step, other)
    verdict = "not told apart" if low <= 0 <= high else "better" if difference > 0 else "worse"
    rows.append((step, other, f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]", verdict,
                 ", ".join(f"{value:+.1f}" for value in seeds)))
show(("student", "minus", "points on test [95 %]", "verdict", "by seed"), rows)

# %% [markdown]
r"""
READING

## 5. An honest reading

What may we *not* say?

- **The article pre-trains.** There the student learns masked words for a long time, on much text, and then the task. Here
  it learns a task alone, from a fine-tuned teacher. Whether shared projections help in pre-training was not looked at.
- **`assistant` has few words.** Its sentences come from a grammar. A vocabulary of 1,000 pieces may hold most of what
  they need; open text is another thing.
- **Time was measured in Keras, in batches of 64.** On a phone an exported file has a fixed length: there longer texts cost
  nothing until they no longer fit, and then they are cut.
- **Eleven comparisons stand in one table.** At 95 % one of them may differ by chance alone.
- `python -m keras_compress run subwords-study` makes the cells.

## 6. Where to read on

- Zhao et al.: *Extreme Language Model Compression with Optimal Subwords and Shared Projections*, 2019,
  [arXiv:1909.11687](https://arxiv.org/abs/1909.11687). A later version under this number is another method.
- `keras_compress/distillation/optimal_subwords.py`, `mixed_words.py`, `shared_projections.py`: equations and departures.
- Try it: `python -m keras_compress run optimal_subwords`; Chinese (`--language zh`), where a vocabulary is mostly
  characters; `projection="down"` with a factor of 10. Write down what you expect before you run it.
"""
