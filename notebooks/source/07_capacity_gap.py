# %% [markdown]
r"""
# Lesson 7 · The capacity gap: does a better teacher teach better?

**After this lesson you can** say what the capacity gap is, and how one looks for it; write the loss of spherical
distillation and say what it ignores; choose a teacher assistant by accuracy; and read an experiment whose
differences may be smaller than those between seeds.

**You need** Lesson 2: soft targets, temperature, KL divergence.

**Time** about 3 minutes of computing on a laptop CPU with two cores, an hour with the exercises (10 points). The
central experiment takes hours; its results are read from `data/results/capacity-study`. **Memory** 3 GB.
**Seed** 0 for what is trained here; the study's seeds stand beside its figures. Start Jupyter with the environment variable
`KERAS_COMPRESS_FAST=1` for a dry run in about a minute, whose numbers (but for the study's) mean nothing.
"""

# %%
import os, sys

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np

from keras_compress import datasets
from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation import soft_targets, spherical, teacher_assistant
from keras_compress.experiment import compare
from keras_compress.experiment.plots import ACCENT, GREY, INK, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.files import DATA_FOLDER
from keras_compress.pruning import layers as truncation
from keras_compress.training.finetune import Training

# %% [markdown]
r"""
The settings of what is trained in this lesson: two models on a part of the data, to look at their logits. The learning
rates are those that the study chose on dev for six and for two layers.
"""

# %%
from IPython.display import Markdown, display

FAST, SEED = os.environ.get("KERAS_COMPRESS_FAST") == "1", 0
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, evaluations=1)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. A large and a small model

Who wants a student of two layers might think: the better the teacher, the better the student. The articles of this
lesson say that it is not so. A teacher that is far larger than its student is *harder to follow*: this is the
**capacity gap** (能力差距). Both articles showed it with image classifiers; whether it holds for a BERT is what we look
at here.

We fine-tune MiniLM on commands for a phone: all six layers, as the largest teacher, and the bottom two, as large as the
student will be.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=0)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=0)
if FAST:                                                      # random weights: as deep, but narrow
    narrow = minilm.config.replace(hidden_size=24, num_heads=2, intermediate_size=48)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=0)
models = {depth: truncation.compress(minilm, data, num_layers=depth, training=training.replace(learning_rate=rate))
          for depth, rate in ((2, 5e-4), (6, 1e-4))}

# %%
def logits_of(model, split, count=1000):
    """The logits of the first texts of a split: float32 (n, classes)."""
    return np.stack(model.forward(model.tokenizer.encode(split.texts[:count], training.max_length)))


rows = []
for depth, model in models.items():
    for name, split in (("train", data.train), ("dev", data.dev)):
        z = logits_of(model, split)
        right = np.mean(z.argmax(-1) == split.labels[:len(z)])
        rows.append((depth, name, f"{100 * right:.1f}", f"{np.linalg.norm(z, axis=-1).mean():.2f}",
                     f"{tf.nn.softmax(z).numpy().max(-1).mean():.3f}"))
show(("layers", "texts", "right, %", "mean norm of the logits", "mean first choice"), rows)

# %% [markdown]
r"""
The last two columns are where the article of the next section looks for the reason. Has the larger model longer
logits, and is it surer?

<details><summary>What came out here</summary>

Not longer: on the training texts their mean norm is 5.09, that of the small model 6.73. But surer: the first choice gets
0.788 on average against 0.734. How sure a softmax is depends on the distances between the logits, and the norm is not
the same thing. (The small model learned at the higher rate, too.)

</details>

## 2. Only the direction

### 2.1 Spherical distillation

Of two logit vectors in one direction, the longer one has the surer softmax. Guo et al. (2020) argue: a small student cannot become as
sure as a large teacher, and while it tries, it neglects *which* classes are near each other. So take the length
away. With $z$ the logits of a text, of the teacher or the student, and $\bar\ell$ the mean norm of the *teacher's*
logits on the training texts,

$$z' = \bar\ell \; \frac{z}{\lVert z \rVert_2} , \qquad
L = (1 - \alpha)\, \mathrm{CE}(z'_S, y) + \alpha\, T^2\, \mathrm{KL}(z'_T / T \,\Vert\, z'_S / T) .$$

Both parts see $z'_S$. All logits now lie on one sphere, and what is compared is directions: **spherical knowledge
distillation** (球面知识蒸馏, SKD). When it answers, the student uses its own $z_S$: the first choice is the same.

What is ignored thereby? We multiply the logits of the six-layer model, as teacher, and look at the two losses of the
two-layer one; then we multiply the logits of the latter.
"""

# %%
z_teacher, z_student = (tf.constant(logits_of(models[depth], data.train)) for depth in (6, 2))
y = tf.constant(data.train.labels[:len(z_teacher)])
l_avg = spherical.mean_norm(models[6], data, training)
plain = {"soft": (.9, soft_targets.soft_targets(4.0)), "label": (.1, soft_targets.true_labels)}
rows = []
for factor in (0.5, 1.0, 2.0, 4.0):
    T, S, longer = {"logits": factor * z_teacher}, {"logits": z_student}, {"logits": factor * z_student}
    rows.append((factor, *(f"{losses['soft'][1](t, s, y, None):.4f}" for t, s in ((T, S), ({"logits": z_teacher}, longer))
                           for losses in (plain, spherical.spherical_losses(l_avg=l_avg)))))
show(("factor", "soft targets, teacher × factor", "SKD", "soft targets, student × factor", "SKD"), rows)
print(f"l_avg = {l_avg:.2f}")

# %% [markdown]
r"""
<details><summary>What came out here</summary>

SKD stays at 0.2268 whatever the factor, for the teacher and for the student. Soft targets rise from 0.3794 to 17.0008 when
the teacher's logits are four times as long, and to 27.2770 when the student's are. With the length goes more than the
teacher's general sureness: that one text has longer logits than another is lost as well.

</details>

### Exercise 1 (4 points): the gradient through a sphere

A loss that ignores the length of $z$ cannot push along $z$. Write the gradient with respect to $z$, given the gradient
$g$ with respect to $z' = \bar\ell z / \lVert z \rVert_2$. One trap is set: every text has a norm of its own.

<details><summary>Hint 1</summary>

Split $g$ into a part along $z$ and a part at right angles to it. Which of the two can turn $z'$?

</details>

<details><summary>Hint 2</summary>

With $u = z / \lVert z \rVert_2$ the part along $z$ is $(g \cdot u)\, u$: a sum over the classes, for each row by itself
(`keepdims=True`).

</details>

<details><summary>Hint 3</summary>

What remains is multiplied by $\bar\ell / \lVert z \rVert_2$: the longer $z$ is, the less a push turns it.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "through_sphere", "locked": false, "schema_version": 3, "solution": true, "task": false}
def through_sphere(z, gradient, l_avg):
    """The gradient with respect to z of a loss of z' = l_avg z / ||z||.

    Args:
        z: float array (batch, classes), no row of zeros. gradient: with respect to z', the same shape.
        l_avg: positive float.
    Returns:
        float array, the same shape.
    """
    ### BEGIN SOLUTION
    norm = np.linalg.norm(z, axis=-1, keepdims=True)                # (batch, 1)
    direction = z / norm
    along = (gradient * direction).sum(axis=-1, keepdims=True) * direction
    return l_avg / norm * (gradient - along)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "through_sphere_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
#: banned: tf
point_, push_ = np.array([[3.0, 4.0]]), np.array([[5.0, 0.0]])
#: 0.5 points: by hand
np.testing.assert_allclose(through_sphere(point_, push_, 5.0), [[3.2, -2.4]])     # (5, 0) - 3 (.6, .8), times 5 / 5
#: 0.5 points: twice as long, half as steep
np.testing.assert_allclose(through_sphere(2 * point_, push_, 5.0), [[1.6, -1.2]], err_msg="twice as long, half as steep")
#: 0.5 points: no push along z
np.testing.assert_allclose(through_sphere(point_, 7 * point_, 5.0), 0.0, atol=1e-12, err_msg="no push along z")
#: 0.5 points: each text has its own norm
two_ = through_sphere(np.vstack([point_, 2 * point_]), np.vstack([push_, push_]), 5.0)
np.testing.assert_allclose(two_, [[3.2, -2.4], [1.6, -1.2]], err_msg="each text has its own norm")
print("passed: by hand, twice as long, along z, two texts")
print("through_sphere: visible checks passed (2 of 4 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
#: 1.5 points: as the tape differentiates the package's sphere
for scale_ in (0.1, 1.0, 30.0):
    z_, g_ = scale_ * generator_.normal(size=(7, 20)), generator_.normal(size=(7, 20))
    with tf.GradientTape() as tape_:
        tape_.watch(z_tensor_ := tf.constant(z_))
        value_ = tf.reduce_sum(g_ * spherical.on_sphere(z_tensor_, 6.5))
    np.testing.assert_allclose(through_sphere(z_, g_, 6.5), tape_.gradient(value_, z_tensor_), rtol=1e-6, atol=1e-9)
#: 0.5 points: at right angles to z, whatever comes in
z_, g_ = generator_.normal(size=(7, 20)), generator_.normal(size=(7, 20))
assert np.abs((through_sphere(z_, g_, 2.0) * z_).sum(-1)).max() < 1e-9
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.2 Three scales

Three versions are in circulation. The article has the one above, here `norm`. The authors' README normalises like a
layer norm (`layernorm`): subtract the mean of the logits, divide by their standard deviation, multiply by a constant.
Their script leaves the teacher alone and gives the student's logits the teacher's standard deviation, text by text
(`teacher_std`). The first two are closer relatives than they look.

### Exercise 2 (3 points): two forms, one sphere

Write `layernorm` as `norm`: which vectors must be put on a sphere of which radius? The standard deviation divides by
the number of classes (PyTorch's default divides by one less).

<details><summary>Hint 1</summary>

A standard deviation is nearly a norm. Of which vector?

</details>

<details><summary>Hint 2</summary>

With $C$ classes and $m$ the mean of the logits of one text, its standard deviation is $\lVert z - m \rVert_2 / \sqrt{C}$.

</details>

<details><summary>Hint 3</summary>

Put this under the fraction: the root goes up into the radius, and the centred rows are the vectors. Each row has its own
$m$.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "as_norm", "locked": false, "schema_version": 3, "solution": true, "task": false}
def as_norm(z, multiplier):
    """Vectors and a radius: radius x vectors / ||vectors|| is multiplier x (z - mean(z)) / std(z), row by row.

    Args:
        z: float array (batch, classes), no row of equal values. multiplier: positive float.
    Returns:
        (float array of the same shape, float).
    """
    ### BEGIN SOLUTION
    return z - z.mean(axis=-1, keepdims=True), float(multiplier * z.shape[-1] ** 0.5)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "as_norm_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
vectors_, radius_ = as_norm(np.array([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]]), 2.0)
#: 0.5 points: each text has its own mean
np.testing.assert_allclose(vectors_, [[-1, 0, 1], [-10, -10, 20]], err_msg="each text has its own mean")
#: 0.5 points: the radius of three classes
np.testing.assert_allclose(radius_, 2 * 3**0.5, err_msg="std = ||z - mean|| / sqrt(3)")
print("passed: means, radius")
print("as_norm: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
#: 2 points: as the package's layer norm
for classes_ in (3, 20):
    z_ = np.random.default_rng(SEED + classes_).normal(size=(5, classes_))
    vectors_, radius_ = as_norm(z_, 1.5)
    unit_ = vectors_ / np.linalg.norm(vectors_, axis=-1, keepdims=True)
    np.testing.assert_allclose(radius_ * unit_, spherical.on_one_sphere(z_, z_, "layernorm", 1.5)[1], rtol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.3 Two classes

With two classes, two centred logits are $(-d, d)$: on the sphere only the sign of $d$ is left. Then every answer is
equally sure, and there is no gradient. `norm` does not centre and keeps an angle.
"""

# %%
pairs, rows = tf.constant([[0.0, 0.1], [0.0, 3.0], [-2.0, 9.0]]), []
for scale in ("norm", "layernorm"):
    with tf.GradientTape() as tape:
        tape.watch(pairs)
        p = tf.nn.softmax(spherical.on_one_sphere(pairs, pairs, scale, 2.0)[1])[:, 1]
    rows.append((scale, *(f"{value:.3f}" for value in p), f"{np.abs(tape.gradient(p, pairs)).max():.3f}"))
show(("scale", *(f"p of ({a:.1f}, {b:.1f})" for a, b in pairs.numpy()), "largest gradient"), rows)

# %% [markdown]
r"""
<details><summary>What came out here</summary>

With `layernorm` all three pairs get 0.982, and the gradient is 0.000. With `norm` the first two are equal, 0.881, as they
have one direction; the third gets 0.916, and the gradient is up to 2.100.

</details>

So `spherical` refuses the two centred scales for two labels. The study below takes `norm`, which any set allows.

## 3. A teacher assistant

Mirzadeh et al. (2019) leave the loss as it is and put a model between: the teacher trains an **assistant** (助教), the
assistant trains the student. How large should it be? Not the mean of the sizes, they say: the model whose *stand-alone*
accuracy, trained on the labels, lies nearest to the mean of teacher's and student's accuracies. Small models gain
much from one more layer and large ones little, so this is mostly a small one.

### Exercise 3 (3 points): choose the assistant

Of two that are equally near take the smaller; larger than the teacher or smaller than the student it may not be. One
trap is set: `scores` may hold such models, too.

<details><summary>Hint 1</summary>

First throw out whom the two bounds forbid, then compare.

</details>

<details><summary>Hint 2</summary>

To be near the mean of two numbers is to be near their sum when doubled; so no halves are needed.

</details>

<details><summary>Hint 3</summary>

`min` takes the first of several that are equally small, so the order matters. With `default` it copes with nobody.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "choose_ta", "locked": false, "schema_version": 3, "solution": true, "task": false}
def choose_ta(scores, student, teacher):
    """The number of layers of the assistant.

    Args:
        scores: {number of layers: stand-alone accuracy in percent, an int}.
        student, teacher: their numbers of layers; `scores` has both.
    Returns:
        int, strictly between the two; None if `scores` has no such model.
    """
    ### BEGIN SOLUTION
    between = sorted(layers for layers in scores if student < layers < teacher)
    return min(between, key=lambda layers: abs(2 * scores[layers] - scores[student] - scores[teacher]), default=None)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "choose_ta_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: the article's example
example_ = {2: 70, 4: 76, 6: 79, 8: 80, 10: 81}
assert choose_ta(example_, 2, 10) == 4, "the mean of 70 and 81 is 75.5"
#: 0.5 points: of two that are equally near the smaller
assert choose_ta({10: 82, 6: 78, 4: 74, 2: 70}, 2, 10) == 4, "74 and 78 are equally far from 76"
#: 0.5 points: nothing lies between
assert choose_ta({2: 70, 6: 79, 8: 80, 10: 81}, 6, 8) is None, "nothing lies between"
print("passed: the example, a tie, none")
print("choose_ta: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
#: 0.5 points: larger than the teacher or smaller than the student it may not be
assert choose_ta({1: 75, 2: 70, 4: 60, 10: 80, 12: 75}, 2, 10) == 4
#: 1 point: as the package chooses
generator_ = np.random.default_rng(SEED)
for _ in range(50):
    scores_ = {int(n): int(generator_.integers(50, 60)) for n in generator_.permutation(np.arange(1, 13))}
    assert choose_ta(scores_, 3, 11) == teacher_assistant.choose_assistant(scores_, 3, 11)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. The experiment

The study uses `assistant`, the commands of this lesson (all texts). Teachers are MiniLM's bottom two, three and four
layers and all six, fine-tuned. Every student starts from MiniLM's bottom two layers under a new head and gets the same
number of updates; its learning rate is the better of two on dev. With a teacher it learns with $T = 4$, .9 of the
teacher's answers and .1 of the labels. Between six layers and two stand two possible assistants; both were tried.

**Predict first.** Write down: from which teacher will the student be best? Will spherical distillation change that?
Will an assistant help the student of the six-layer teacher?

Who would be the assistant? By the accuracies on dev, never on test, for each seed; and, for comparison, by size.
"""

# %%
cells = {(cell["data"], cell["method"], cell["seed"]): cell
         for cell in compare.read_cells(DATA_FOLDER / "results" / "capacity-study")}
sets, depths = sorted({data for data, *_ in cells}), (2, 3, 4, 6)
seeds = sorted({seed for _, method, seed in cells if method == "via-4-of-6"})
alone = {2: "plain-2", 3: "plain-3", 4: "plain-4", 6: "predecessor"}
rows, chosen = [], {}
for name in sets:
    for seed in seeds:
        scores = {depth: cells[name, step, 0 if depth == 6 else seed]["dev"] for depth, step in alone.items()}
        for depth in (4, 6):
            chosen[name, seed, depth] = teacher_assistant.choose_assistant(scores, 2, depth)
        rows.append((name, seed, *(f"{100 * score:.1f}" for score in scores.values()), f"{50 * (scores[2] + scores[6]):.1f}",
                     chosen[name, seed, 6], teacher_assistant.choose_assistant(scores, 2, 6, by="size")))
show(("data", "seed", *(f"{depth} layers, dev, %" for depth in depths), "mean of 2 and 6", "by accuracy", "by size"), rows)

# %% [markdown]
r"""
<details><summary>What came out here</summary>

Three layers with each seed: their 76.9, 77.1 and 79.5 % lie nearer to the means, 78.8, 76.7 and 78.5, than the 83.8, 78.7
and 82.2 % of four layers. By size it would always be four.

</details>

Of each student the study keeps its answers on test and its losses while it learned. The **final distillation loss** is
the mean of the last tenth of the updates.
"""

# %%
def final_loss(cell):
    """The soft loss in the last tenth of the updates; a row of the curve is a mean over the updates since the one before."""
    steps, soft = (np.array([row[key] for row in cell["curve"]]) for key in ("step", "soft"))
    late = steps > 0.9 * steps[-1]
    return np.average(soft[late], weights=np.diff(steps, prepend=0)[late])


def students(name, kind, depth):
    """The cells of the students of a teacher, one for each seed; an assistant is the one chosen by accuracy."""
    step = lambda seed: f"via-{chosen[name, seed, depth]}-of-{depth}" if kind == "via" else f"{kind}-of-{depth}"
    return [cells[name, step(seed), seed] for seed in seeds]


# %%
looks = {"soft": (INK, "-", "o"), "spherical": (ACCENT, "--", "s"), "via": (GREY, ":", "^")}
figure, all_axes = plt.subplots(len(sets), 2, figsize=(9.5, 3.4 * len(sets)), squeeze=False)
for (left, right), name in zip(all_axes, sets):
    for kind, (colour, dashes, mark) in looks.items():
        found = {depth: students(name, kind, depth) for depth in depths if kind != "via" or depth > 3}
        look = {"color": colour, "linestyle": dashes, "marker": mark, "label": kind}
        each = np.array([[100 * cell["accuracy"] for cell in ones] for ones in found.values()])
        left.plot([*found], each.mean(1), **look)
        left.fill_between([*found], each.min(1), each.max(1), color=colour, alpha=.15)
        right.plot([*found], [np.mean([final_loss(cell) for cell in ones]) for ones in found.values()], **look)
    without = [100 * cells[name, "plain-2", seed]["accuracy"] for seed in seeds]
    left.axhline(np.mean(without), color=GREY, linewidth=1, label="without a teacher")
    for axes, label in ((left, "student, test accuracy, %"), (right, "final distillation loss")):
        axes.set(xlabel=f"layers of the teacher ({name})", ylabel=label, xticks=depths)
all_axes[0][0].legend(frameon=False, fontsize=9);

# %% [markdown]
r"""
Left: accuracy of the same student; lines are means, bands run from the worst to the best seed. Right: how far the
student stayed from its teacher's answers on the training texts. Compare a line with itself only: spherical's loss is
measured on the sphere, and via an assistant it is the distance to the assistant. If the gap is there, the loss rises
from left to right, and the accuracy does not.

## 5. Does it show?

A difference between two students is *paired*: same texts, same seeds. The interval is over texts; the last column
says what each seed found.
"""

# %%
entries = compare.entries_of(cells.values())


def say(name, step, other):
    """A row of the table: the difference, and whether this test can tell the two apart."""
    pair = compare.pool([entry for entry in entries if entry["data"] == name], step, [other])
    apart = "not told apart" if pair["low"] <= 0 <= pair["high"] else "better" if pair["difference"] > 0 else "worse"
    points = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))
    return name, step, other, points, apart, ", ".join(f"{100 * value:+.1f}" for value in pair["by_seed"])


# %%
pairs = [(f"{kind}-of-6", f"{kind}-of-{depth}") for kind in ("soft", "spherical") for depth in (2, 3, 4)]
pairs += [(f"spherical-of-{depth}", f"soft-of-{depth}") for depth in depths]
pairs += [("via-3-of-4", "soft-of-4"), ("via-3-of-6", "soft-of-6"), ("via-4-of-6", "soft-of-6")]
pairs += [("via-3-of-6", "via-4-of-6")]
pairs += [(f"soft-of-{depth}", "plain-2") for depth in depths]
show(("data", "student", "minus", "points on test [95 %]", "verdict", "by seed"),
     [say(name, *pair) for name in sets for pair in pairs])

# %%
def mean_of(entry, number, form, has):
    """The mean over a model's seeds; a dash for a model that has no such number."""
    return format(np.mean([number(cell) for cell in entry["cells"]]), form) if has else "–"


rows, measured = [], [entry for entry in entries if not entry["file"]]
for entry, row in zip(measured, compare.pool_cells(measured)):
    by_seed = ", ".join(f"{100 * value:.1f}" for value in row["by_seed"])
    mean = f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_se']:.1f}"
    dev = mean_of(entry, lambda cell: 100 * cell["dev"], ".1f", entry.get("dev") is not None)
    loss = mean_of(entry, final_loss, ".3f", "soft" in (entry.get("curve") or [{}])[-1])
    rows.append((entry["data"], entry["method"], by_seed, mean, f"{row['num_examples']:,}", dev, loss))
show(("data", "model", "test by seed, %", "mean, % ± SE", "examples", "dev, mean, %", "final distillation loss"), rows)

# %% [markdown]
r"""
Compare with what you predicted.

<details><summary>What came out here</summary>

**A better teacher made no better student.** With soft targets the students of all four teachers have 66.0 to 66.9 %, though
the teachers themselves go from 65.4 to 83.3 %. Six layers minus two as teacher: -0.9 points, and zero is in the interval.
The one teacher with a clear gain over no teacher is as small as its student: +1.5.

**The loss does not rise from left to right.** It is highest for the teacher of four layers, 0.431; for the largest it is
0.211.

**Spherical distillation gained with the largest teacher**, +2.2 points over soft targets there, in each of the three seeds.
With the other teachers the two losses cannot be told apart. Before you believe the one: on *dev* the same two students
have 71.2 and 70.8 %.

**The assistant did not help.** By accuracy each seed chooses three layers: +0.6, not told apart from no assistant. By size
it would have been four: -0.3. That accuracy chooses better than size has the article's sign (+0.9), and zero is in its
interval as well. Below the teacher of four layers an assistant did harm, -1.3.

</details>

Why is just the teacher of four layers hard to follow? The study's page (`data/results/capacity-study/README.md`) gives
the mean norms of the teachers' logits: its own are the longest, 9.1, and those of the six-layer one the shortest, 6.4.
So in this study a larger teacher is *not* one with longer logits, since their length also depends on the learning rate
and the epochs. Half of the story is seen, then: a better teacher is no help. The reason that the article gives for it
is not.

And the gain of spherical distillation? The two figures from dev have a standard error of 1.4 points each (1,000 texts).
They do not contradict a gain, and they do not show one. What one set shows and the other does not is a hint, no result.

## 6. An honest reading

What may we *not* say?

- **The gap was shown elsewhere.** Both articles worked with images, students far smaller than their teachers, and long
  training. Four MiniLM teachers of two to six layers are close in size; BERT-base or -large above a student of two
  layers would be another experiment.
- **The largest teacher is one model.** The others have a model for each seed, as students and assistants do.
- **Eighteen comparisons stand in one table.** At 95 % one of them may differ by chance alone.
- **Equal updates are not equal cost.** Behind a student via an assistant stand two trainings and the stand-alone models
  by which it was chosen.
- **Little was tuned.** The learning rate is the better of two; one temperature and one mixture serve all. The authors of
  spherical distillation lower $\alpha$ while they train, and search more.
- **`assistant` is a made set**; a public one is still missing. `python -m keras_compress run capacity-study` makes the cells.

## 7. Where to read on

- Guo et al.: *Reducing the Teacher-Student Gap via Spherical Knowledge Distillation*, 2020,
  [arXiv:2010.07485](https://arxiv.org/abs/2010.07485).
- Mirzadeh et al.: *Improved Knowledge Distillation via Teacher Assistant*, 2019,
  [arXiv:1902.03393](https://arxiv.org/abs/1902.03393).
- `keras_compress/distillation/spherical.py` and `keras_compress/distillation/teacher_assistant.py`: equations and
  departures. A chain of known sizes is a recipe (`keras_compress/recipes/capacity-study.toml`); a choice by accuracy
  is a method.
- Try it: `scale="layernorm"`; `temperature=1.0`; a chain through all sizes, `by="all"` of `teacher_assistant`. Write
  down what you expect before you run it.
"""

# %% [markdown]
r"""
## 8. In five lines

- A capacity gap shows when the same student, with the same updates, learns less from a larger and better teacher.
- Spherical distillation puts both logits on one sphere: directions are compared, and nothing pushes along $z$.
- An assistant stands between. Chosen by accuracy it is mostly smaller than chosen by size.
- Here better teachers made no better students, 66.0 to 66.9 %. Longer logits were harder to follow, and the largest
  teacher has the shortest.
- Spherical's +2.2 with the largest teacher is one of eighteen comparisons, and dev does not show it: a hint.
"""

# %% [markdown]
r"""
## 9. Five questions

**1.** Which of these shows a capacity gap?

- **a** The student is 17 points worse than its teacher.
- **b** The same student is better with a teacher of four layers than with a better one of six.
- **c** The larger the teacher, the higher the distillation loss.

<details><summary>Answers, and why</summary>

- **a** No. A small model is worse than a large one without any teaching, too.
- **b** Right. Only the teacher was exchanged, and the better one teaches less.
- **c** No. A harder target may still teach more. The loss is an explanation; the student's accuracy is what is to be
  explained.

</details>

**2.** There are twenty classes, and the scale is `norm`. Is the student equally sure of all texts while it learns?

- **a** No, since each text keeps its own radius.
- **b** Yes, since logits of one norm give one probability.
- **c** No, since a direction may favour one class or several.

<details><summary>Answers, and why</summary>

- **a** No. The radius $\bar\ell$ is one number for all texts.
- **b** No. That holds for two centred logits alone (Section 2.3).
- **c** Right. One long logit and several equal ones may have the same norm and different probabilities.

</details>

**3.** For one text, $z_S$ has the direction of $z_T$, but a tenth of its length. What does the soft part of SKD push?

- **a** Nothing.
- **b** It makes $z_S$ longer.
- **c** It pushes, but with a tenth of the force, as $z_S$ is short.

<details><summary>Answers, and why</summary>

- **a** Right. On the sphere the two are equal already.
- **b** No. That is what plain soft targets do. On the sphere a longer $z_S$ changes nothing.
- **c** No. For another direction it would be the reverse: the shorter $z_S$, the steeper (Exercise 1).

</details>

**4.** Alone, models of 2, 4, 6 and 10 layers have 60, 71, 78 and 80 % on dev. Ten layers are to teach two. Whom does the
article make the assistant?

- **a** Six layers: the mean of the sizes.
- **b** Six layers: the best teacher between the two.
- **c** Four layers.

<details><summary>Answers, and why</summary>

- **a** No. Six layers are close to ten and far from two: for the student nearly the old gap remains.
- **b** No. If the best were the best teacher, no assistant would be needed.
- **c** Right. 71 is nearest to 70, the mean of 60 and 80.

</details>

**5.** `spherical-of-6` minus `soft-of-6` is +2.2 points on test, interval [+1.0, +3.4], and each of three seeds gains. On dev
the two have 71.2 and 70.8 %. What may one write?

- **a** Spherical distillation closes the capacity gap.
- **b** A hint, to be tried with new seeds and on another set.
- **c** The gain was an error, dev refutes it.

<details><summary>Answers, and why</summary>

- **a** No. It is one of eighteen comparisons with one large teacher; the interval is over texts and knows no other seeds.
- **b** Right. That says what was seen, and what would make it a result.
- **c** No. With a standard error of 1.4 points, dev leaves room for a gain as for none.

</details>
"""

# %% [markdown]
r"""
## 10. A challenge

Is it the size or the length? Multiply weights and bias of the six-layer teacher's last layer, so that its logits have
the mean norm of the four-layer teacher's. It answers every text as before. Let it teach the study's students (MiniLM's
bottom two layers, a new head), with soft targets and with SKD at the `l_avg` from before, three seeds each. Write down
first: for which of the two can nothing change, and what happens to the final loss and to the accuracy of the other?
Decide on dev, and look at test once.
"""
