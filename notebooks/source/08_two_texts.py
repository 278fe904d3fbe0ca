# %% [markdown]
r"""
# Lesson 8 · Two texts called BERT-of-Theseus: claim and evidence

**After this lesson you can** take a text about a method apart into claims; say for each claim what would decide it;
decide what can be decided with shapes, dates, a few lines of code or an experiment; turn a wish into a loss that can be
written down; and keep apart what is wrong, what holds, and what was not shown.

**You need** Lesson 1 (module replacing) and Lesson 2 (soft targets). Data, sizes and large model are
theirs, so that the tables can be laid side by side.

**Time** about 10 minutes of computing on a laptop CPU with two cores, an hour and a quarter with the exercises (10
points). **Memory** 5 GB. **Seed** 0, everywhere. Start Jupyter with the environment variable
`KERAS_COMPRESS_FAST=1` for a dry run in under a minute, whose numbers mean nothing.
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
from keras_compress.distillation import multilevel
from keras_compress.experiment.plots import ACCENT, GREY, INK, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.measure import accuracy, baselines
from keras_compress.pruning import layers as truncation
from keras_compress.replacement import theseus
from keras_compress.training.finetune import Training, finetune

# %% [markdown]
r"""
The settings are those of Lesson 1: the same number of updates for all models; the small models learn at the rate that
Lesson 1 found on dev. `evidence` will collect what we find: (number of the claim, kind of evidence) -> verdict.
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 32, "num_dev": 20, "num_test": 40} if FAST else {"num_train": 2500}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=1)
small_training = training.replace(learning_rate=4e-4)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})
evidence = {}


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. One name, two texts

The first text is a paper with code (Lesson 1): modules of a large model are replaced by smaller ones, at random, and
the task's own loss teaches them. The second text takes the paper's name for something else, and gives neither figures
nor code. It has formulas, which makes it look like the first. These are its claims, in short:

| | claim |
|---|---|
| 1 | The name means "BERT of the several". |
| 2 | The core of BERT-of-Theseus is distillation at many levels, with a loss of its own. |
| 3 | The model's structure need not change. |
| 4 | With 3 to 9 levels, three kinds of tasks all come out better than BERT. |
| 5 | GELU is new and replaces BERT's ReLU, which vanishes and explodes. |
| 6 | GELU softens the jumps of GPT-2. |
| 7 | A head for distillation is an MLP as wide as the product of two levels' widths. |
| 8 | A gate: weight zero gives the input, another weight the average of two levels. |
| 9 | The loss is the mean of the levels' squared distances from the teacher's prediction. |
| 10 | Each level has two steps; the second reads the result of the first. |
| 11 | Layers are shared by copying their parameters, without training. |
| 12 | Masked words together with distillation: here for the first time. |
| 13 | Distillation needs no labels, and its targets come from a weaker model. |
| 14 | FP32 is low precision; INT8 and INT4 are high precision. |
| 15 | ADMM, MoCo and CoMatch are ways of distilling that choose layers. |
| 16 | BERT's representation of a word does not depend on its context. |

**Before you go on**, write a letter behind each: *w* (wrong), *h* (holds), *e* (an experiment must tell), *n* (nothing
could tell). A text with formulas is not yet a text with evidence (证据): a formula says what is computed, not that it helps.

## 2. What no training is needed for

### 2.1 Dates

Who says "new" or "first" can be checked in a library. The first four digits of an arXiv number are year and month.
"""

# %%
papers = {"GELU": "1606.08415", "BERT, which has GELU": "1810.04805", "distillation": "1503.02531",
          "PKD: several layers": "1908.09355", "TinyBERT: several layers": "1909.10351",
          "DistilBERT: masked words and distillation": "1910.01108", "BERT-of-Theseus": "2002.02925"}
show(("what", "arXiv", "year and month"), sorted(
    ((what, number, f"20{number[:2]}-{number[2:4]}") for what, number in papers.items()), key=lambda row: row[2]))
theseus_is_of = papers["BERT-of-Theseus"]
evidence[5, "dates"] = "wrong" if papers["GELU"] < papers["BERT, which has GELU"] else "holds"
evidence[12, "dates"] = "wrong" if papers["DistilBERT: masked words and distillation"] < theseus_is_of else "holds"
evidence[2, "dates"] = "wrong" if papers["PKD: several layers"] < theseus_is_of else "holds"

# %% [markdown]
r"""
Reading the papers decides more. The name is that of the ship of Theseus (Lesson 1): claim 1. The paper has no
distillation loss, only the task's own, which you can see in the code as well: claim 2. Hinton's targets come from the
larger model and are mixed with the labels: claim 13. ADMM is a way to optimise, MoCo and CoMatch learn without labels
or with few: claim 15.

The text itself decides one more. Claim 3 says that nothing in the model changes, claims 7 and 11 add heads and share
layers. Two sentences that contradict each other need no experiment.
"""

# %%
evidence |= {(claim, "papers"): "wrong" for claim in (1, 2, 13, 15)}
evidence[3, "the text itself"] = "half"                       # the large model stays as it is

# %% [markdown]
r"""
### 2.2 Shapes

Claim 7 multiplies the widths of two levels. BERT's layers all have one width $H$, so the head gives $H \cdot H$
numbers for each text. Claim 9 then takes the squared distance from the teacher's prediction: one number for each class.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
H, C = minilm.config.hidden_size, len(data.labels)
head, prediction = np.zeros((32, H * H), np.float32), np.zeros((32, C), np.float32)
print(f"the head: {H} x {H} = {H * H:,} numbers for a text; the prediction: {C}")
try:
    np.mean((head - prediction) ** 2)
except ValueError as error:
    print("ValueError:", error)
    evidence[7, "shapes"] = "wrong"

# %% [markdown]
r"""
That settles claim 7 as it stands. But beware of the opposite conclusion: code that runs need not be right. NumPy and
TensorFlow stretch an axis of length 1 without a word (broadcasting, 广播), and a loss between shapes that do not fit
gives a number all the same.

### Exercise 1 (3 points): shapes that cannot be

Write a test that says whether a squared distance compares two outputs number by number. `None` stands for the number of
texts or of pieces.

<details><summary>Hint 1</summary>

When does a subtraction run although two numbers do not belong together?

</details>

<details><summary>Hint 2</summary>

Neither stretching nor adding an axis may be needed.

</details>

<details><summary>Hint 3</summary>

Compare the two tuples as a whole. `None` in the same place stands for the same number.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "can_compare", "locked": false, "schema_version": 3, "solution": true, "task": false}
def can_compare(answer, target):
    """Whether every number of an answer has its own number in the target.

    Args:
        answer, target: shapes, tuples of int or None.
    Returns:
        bool.
    """
    ### BEGIN SOLUTION
    return tuple(answer) == tuple(target)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "can_compare_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: equal shapes, claim 7
assert can_compare((None, 20), (None, 20)), "a number for each class, twice"
assert not can_compare((None, 384 * 384), (None, 20)), "claim 7"
#: 0.5 points: an axis of length 1 is not stretched
assert not can_compare((None, 1), (None, 20)), "an axis of length 1 would be stretched in silence"
#: 0.5 points: a missing axis is not added
assert not can_compare((20,), (None, 20)), "a missing axis would be added in silence"
print("passed: equal shapes, claim 7, a stretched axis, a missing axis")
print("can_compare: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
#: 0.5 points: three axes
assert can_compare((None, None, 39), (None, None, 39)) and not can_compare((None, 39), (None, None, 39))
assert not can_compare((None, 1, 39), (None, 20, 39))
#: 0.5 points: the order counts, and the target is not stretched
assert not can_compare((None, 20), (20, None)) and not can_compare((None, 20), (None, 1))
#: 0.5 points: random shapes, in lists too
for axes_ in np.random.default_rng(SEED).integers(2, 9, (20, 3)).tolist():
    assert can_compare(axes_, tuple(axes_)) is True
    assert can_compare((*axes_, 5), (*axes_, 6)) is False and can_compare((5, *axes_), (6, *axes_)) is False
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.3 A function and its slope

The text's formula of GELU, $\frac{x}{2}\left(1 + \mathrm{erf}\frac{x}{\sqrt 2}\right)$, can be compared with what the
library computes; whether ReLU makes gradients (梯度) explode can be read off its slope.
"""

# %%
x = tf.constant(np.linspace(-4, 4, 801), tf.float32)
formula = x / 2 * (1 + tf.math.erf(x / np.sqrt(2)))
figure, all_axes = plt.subplots(1, 2, figsize=(7.5, 2.6))
rows = []
for name, function, colour in (("relu", tf.nn.relu, GREY), ("gelu", tf.nn.gelu, ACCENT)):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    slope = tape.gradient(y, x)
    for axes, values, title in zip(all_axes, (y, slope), ("value", "slope")):
        axes.plot(x, values, color=colour, label=name)
        axes.set(title=title, xlabel="x")
    rows.append((name, f"{np.min(slope):.3f}", f"{np.max(slope):.3f}"))
all_axes[0].legend(frameon=False)

# %%
show(("function", "least slope", "largest slope"), rows)
print(f"formula minus library: at most {np.abs(formula - tf.nn.gelu(x)).max():.1e}; MiniLM has: {minilm.config.activation}")
evidence[5, "shapes"] = "half" if float(rows[0][2]) <= float(rows[1][2]) else "holds"

# %% [markdown]
r"""
The formula is right. The reason is not: a slope of ReLU is 0 or 1, so nothing explodes there, while GELU's slope goes
above 1. (That ReLU is flat for negative $x$ is true.) And the model at hand has GELU already, as BERT had. So claim 5
is a true formula inside a wrong story; that is the usual make of a text that convinces. For claim 6 the text names no
quantity that could be measured. It is not wrong; nothing could show that it is.

<details><summary>What came out here</summary>

The slope of ReLU lies between 0.000 and 1.000, that of GELU between -0.129 and 1.129. Formula and library differ by
at most 4.8e-07.

</details>

### 2.4 Two quick looks into a model

Claim 16 says that a word's vector is the same in every sentence. Claim 11 says that a copied layer is a shared layer.
Both are decided in seconds. First one word in two sentences, layer by layer:
"""

# %%
sentences = ["play some jazz", "cancel the play tonight"]
encodings = minilm.tokenizer.encode(sentences, 16)
inputs = {name: tf.constant(value) for name, value in minilm.pad(encodings).items()}
place = [list(row).index(minilm.tokenizer.ids["play"]) for row in inputs["input_word_ids"].numpy()]
states = minilm.features(["hidden_states"])(inputs)["hidden_states"]
cosines = []
for state in states:
    u, v = (state[row, column].numpy() for row, column in enumerate(place))
    cosines.append(float(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
show(("layer", *range(1, len(cosines))), [("cosine of both \"play\"", *(f"{c:.2f}" for c in cosines[1:]))])
evidence[16, "measured here"] = "wrong" if min(cosines[1:]) < 0.99 else "holds"

# %% [markdown]
r"""
A cosine of 1 would mean: the same direction in both sentences. Now a layer copied on top of itself, and one update:
"""

# %%
twice = minilm.keep_layers([0, 0], seed=SEED)
after = finetune(twice, data.subset(num_train=32), seed=SEED, training=small_training.replace(epochs=1, evaluations=0))
for name, model in (("copied", twice), ("after one update", after)):
    kernels = [model.weights()[f"layer_{layer}_query/kernel"] for layer in (0, 1)]
    print(f"{name}: {model.model.count_params():,} parameters; "
          f"largest difference of the two layers {np.abs(kernels[0] - kernels[1]).max():.1e}")
evidence[11, "measured here"] = "wrong" if np.any(kernels[0] != kernels[1]) else "holds"
show(("kind of number", "bytes", "1/3 is stored as"),
     [("FP32", 4, f"{np.float32(1 / 3):.9f}"), ("INT8, steps of 1/127", 1, f"{round(127 / 3) / 127:.9f}")])
evidence[14, "shapes"] = "wrong"

# %% [markdown]
r"""
A copy is a way to begin, not a way to share: the copies part at the first update, and no parameter is saved. (Sharing
as in ALBERT is Lesson 4.) The small table beside it is claim 14: fewer bytes, coarser numbers, lower precision.

<details><summary>What came out here</summary>

The cosine of the two "play" falls from 0.87 after the first layer to 0.55 after the last: a word's vector does depend
on its sentence. The copied layers differ by 6.5e-04 after one update, and the model has as many parameters as before:
a copied layer is no shared layer. Both claims are wrong.

</details>

## 3. What can be built

Claims 8, 9 and 10 are not evidence of anything, but they can be written down so that they compute something. That is
`keras_compress/distillation/multilevel.py`. Its first line says what it is not.

**Levels** (claim 9). Some of the student's layers $s_1, \dots, s_k$ get a head (头) $g_i$ that answers as the teacher
does. $y$ are the teacher's logits:

$$L_d = \frac{1}{k} \sum_{i=1}^{k} \mathrm{MSE}(g_i(h_{s_i}), y), \qquad L = (1 - \alpha)\, L_{CE} + \alpha\, L_d.$$

The head of the last layer is the student's own; the others are thrown away after training. With one level this is
distillation by the squared distance of logits (Tang et al., 2019; Lesson 2). New would be that more levels help more.
**Chain** (claim 10): a second head reads the answer of the first and the next layer, without a gradient into the first.

### Exercise 2 (4 points): the gate as an equation

Claim 8 speaks of two cases. Write one equation for both, and for everything between: $w = 0$ gives $x$, $w = 1$ the
average of $x$ and $\mathrm{MLP}(x)$, and $w = \frac{1}{2}$ lies in the middle of these two.

<details><summary>Hint 1</summary>

Write down the two ends: what stands there for $w = 0$ and for $w = 1$?

</details>

<details><summary>Hint 2</summary>

The way from one end to the other is a straight line in $w$.

</details>

<details><summary>Hint 3</summary>

At the far end each of the two counts half. How much does `mlp_x` count at $w$?

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "gate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gate(x, mlp_x, w):
    """x and the output of an MLP, mixed by a weight.

    Args:
        x, mlp_x: float, (batch, hidden). w: float from 0 to 1.
    Returns:
        float, (batch, hidden).
    """
    ### BEGIN SOLUTION
    return x + w / 2 * (mlp_x - x)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "gate_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
x_, mlp_x_ = tf.constant([[1.0, -2.0]]), tf.constant([[3.0, 0.0]])
#: 0.5 points: w = 0 is x
np.testing.assert_array_equal(gate(x_, mlp_x_, 0.0), x_, err_msg="w = 0 is x, to the bit")
#: 0.5 points: w = 1 is the average
np.testing.assert_allclose(gate(x_, mlp_x_, 1.0), [[2.0, -1.0]], err_msg="w = 1 is the average, not MLP(x)")
#: 0.5 points: halfway between the two
np.testing.assert_allclose(gate(x_, mlp_x_, 0.5), [[1.5, -1.5]], err_msg="halfway between x and the average")
print("passed: shut, open, halfway")
print("gate: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
x_, mlp_x_ = (tf.constant(generator_.normal(size=(4, 8)), tf.float32) for _ in range(2))
#: 1.5 points: the package's gate at any w
for w_ in (0.0, float(generator_.uniform(0.1, 0.9)), 1.0):
    np.testing.assert_allclose(gate(x_, mlp_x_, w_), multilevel.GatedMix(lambda x: mlp_x_, w_)(x_), atol=1e-6)
#: 1 point: the gradient of w
w_ = tf.Variable(0.0)
with tf.GradientTape() as tape_:
    total_ = tf.reduce_sum(gate(x_, mlp_x_, w_))
np.testing.assert_allclose(tape_.gradient(total_, w_), np.sum((mlp_x_ - x_) / 2), rtol=1e-4)
### END HIDDEN TESTS

# %% [markdown]
r"""
### Exercise 3 (3 points): where the levels lie

A student has $M$ layers, counted from 1. Give the layers of $k$ levels, as evenly spaced as whole numbers allow, the
last layer always among them: level $i$ is at $\lfloor iM / k \rfloor$. Claim 4 has up to 9 levels. What does a student
of six layers do with them?

<details><summary>Hint 1</summary>

Try $M = 6$ and $k = 3$ on paper.

</details>

<details><summary>Hint 2</summary>

$i$ runs from 1 to $k$; at $i = k$ the formula gives the last layer by itself.

</details>

<details><summary>Hint 3</summary>

Integer division rounds down. Refuse first: a list that was cut short looks right.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "my_levels", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_levels(num_layers, k):
    """The layers of k levels, rising. Raises ValueError if the student has not so many layers, or k is below 1."""
    ### BEGIN SOLUTION
    if not 1 <= k <= num_layers:
        raise ValueError(f"`k` must be 1 to {num_layers}. Received: {k}.")
    return [i * num_layers // k for i in range(1, k + 1)]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "my_levels_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: the last layer is always a level
assert my_levels(3, 2) == [1, 3] and my_levels(6, 3) == [2, 4, 6], "the last layer is always a level"
#: 0.5 points: one level
assert my_levels(6, 1) == [6], "one level: the last"
#: 0.5 points: nine levels of six layers, and none, are refused
for k_ in (9, 0):
    try:
        my_levels(6, k_)
    except ValueError:
        print(f"passed: {k_} levels of six layers are refused")
    else:
        raise AssertionError(f"{k_} levels of six layers: refuse them, do not clip in silence")
print("my_levels: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
#: 1 point: all students up to twelve layers
for m_ in range(1, 13):
    for k_ in range(1, m_ + 1):
        assert my_levels(m_, k_) == multilevel.choose_levels(m_, k_) and len(set(my_levels(m_, k_))) == k_
#: 0.5 points: one level too many is refused
for m_ in range(1, 13):
    try:
        my_levels(m_, m_ + 1)
    except ValueError:
        continue
    raise AssertionError(f"{m_ + 1} levels of {m_} layers: refuse them")
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. The experiment

The claim that matters is 4, and below it the one that is worth having: **more levels are better than one**. We put it to
the test. The teacher (教师模型) is MiniLM with six layers, fine-tuned; all students have three layers and start from the
same three layers of the teacher, its second, fourth and sixth. All get the same number of updates:

- `spread-3`: the labels alone. This is the baseline (基线): what the start gives without any method;
- `one level`, `two levels`, `three levels`: half labels, half $L_d$;
- `theseus-3`: module replacing, the method that owns the name;
- `both`: module replacing for 60 % of the updates, three levels for the rest.
"""

# %%
if FAST:                                                      # random weights: as deep, but narrow
    narrow = minilm.config.replace(hidden_size=24, num_heads=2, intermediate_size=48)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
teacher = finetune(minilm, data, seed=SEED, training=training)
same = {"seed": SEED, "training": small_training, "num_layers": 3}
models = {"teacher": teacher, "spread-3": truncation.compress(teacher, data, how="last-of-block", **same)}
for k, name in ((1, "one level"), (2, "two levels"), (3, "three levels")):
    models[name] = multilevel.compress(teacher, data, layers="last-of-block", levels=k, **same)
    print(name, models[name].history[-1]["level_layers"])

# %%
models["theseus-3"] = theseus.compress(teacher, data, **same)
parts = [small_training.replace(epochs=share * small_training.epochs) for share in (0.6, 0.4)]
replaced = theseus.compress(teacher, data, finetune_share=0.0, **same | {"training": parts[0]})
models["both"] = multilevel.compress(teacher, data, student=replaced, **same | {"training": parts[1]})
print("updates:", *(part.num_steps(len(data.train.texts)) for part in (small_training, *parts)))

# %%
results = {name: accuracy.evaluate(model, data.test) for name, model in models.items()}
results |= {row["name"]: result for row, result in baselines.baselines(data)}


def minus(name, other):
    """The dict of the paired difference of two models on the same test texts."""
    return accuracy.paired_difference("accuracy", results[name]["scores"], results[other]["scores"])


def points(pair):
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))


# %%
rows = []
for name, result in results.items():
    model = models.get(name)
    rows.append((name, f"{model.model.count_params():,}" if model else "–",
                 f"{accuracy.evaluate(model, data.dev)['value']:.1%}" if model else "–",
                 f"{100 * result['value']:.1f} ± {100 * result['se']:.1f}", result["n"], 1,
                 *("–" if name == other else points(minus(name, other)) for other in ("spread-3", "one level", "teacher"))))
show(("model", "parameters", "dev", "test, % ± SE", "n (test)", "seeds", "minus spread-3", "minus one level",
      "minus teacher"), rows)

# %%
names = [name for name in results if name != "majority"]
figure, axes = plt.subplots(figsize=(6, 2.8))
for place, name in enumerate(names):
    colour = ACCENT if "level" in name else INK if name in ("teacher", "theseus-3", "both") else GREY
    axes.errorbar(100 * results[name]["value"], place, xerr=196 * results[name]["se"], fmt="o", color=colour)
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="test accuracy, % (bars: 95 % intervals)", ylim=(len(names) - .5, -.5));

# %% [markdown]
r"""
How to read it. The last three columns are **paired** differences in points with a 95 % interval (置信区间): both models
answer the same texts. Start with the column *minus one level*: there stands what the second and the third level add.
Then *minus spread-3*: what any of this adds to the labels. Only then *minus teacher*, which is claim 4. An interval that
contains 0 says that this test cannot tell the two apart; it does not say that they are equal.

<details><summary>What came out here</summary>

The second level adds -1.1 points [-2.4, +0.1], the third -0.7 in all [-2.0, +0.7]: no gain was shown. One level is
better than the labels alone, by +1.7 points, two and three cannot be told from them. `theseus-3` is 2.7 points
better than one level. All are worse than the teacher: claim 4 is wrong here.

</details>

One wish is left, an honest one inside claim 5: a model with ReLU instead of GELU is simpler to run in integers. May one
just swap the function in a trained model?
"""

# %%
swapped = teacher.clone(config=teacher.config.replace(activation="relu"))
for name, model in (("teacher, GELU", teacher), ("the same weights, ReLU", swapped)):
    print(f"{name}: {accuracy.evaluate(model, data.dev)['value']:.1%} of {len(data.dev.texts):,} dev texts")

# %% [markdown]
r"""
What is lost there must be learned again; `student_activation="relu"` of the method does that, and the study
`levels-study` measures it.

<details><summary>What came out here</summary>

No: dev accuracy falls from 87.2 to 47.5 %. All weights were fitted to GELU.

</details>

## 5. The matrix

Now the experiment may fill in what was left. A claim of "better" holds if the whole interval lies above 0, is wrong if
it lies below, and else was **not shown**.
"""

# %%
def verdict(pair):
    return "holds" if pair["low"] > 0 else "wrong" if pair["high"] < 0 else "not shown"


evidence[4, "measured here"] = verdict(minus("three levels", "teacher"))
evidence[9, "measured here"] = verdict(minus("three levels", "one level"))
evidence[13, "measured here"] = {"holds": "wrong", "wrong": "holds"}.get(verdict(minus("teacher", "spread-3")), "not shown")
evidence |= {(claim, "shapes"): "half" for claim in (8, 9, 10)}  # they compute something: no more
for claim in (4, 9, 13):
    print(f"claim {claim}: {evidence[claim, 'measured here']}")

# %%
kinds = ["dates", "papers", "the text itself", "shapes", "measured here"]
colours = {"wrong": "#d1432b", "half": "#e0b040", "holds": "#14803c", "not shown": "#b8c0c8"}
figure, axes = plt.subplots(figsize=(6.5, 5))
for (claim, kind), found in evidence.items():
    axes.add_patch(plt.Rectangle((kinds.index(kind) - .45, claim - .42), .9, .84, color=colours[found]))
    axes.text(kinds.index(kind), claim, found, ha="center", va="center", color="white", fontsize=8)
for claim in set(range(1, 17)) - {claim for claim, _ in evidence}:
    axes.text(2, claim, "nothing could show it", ha="center", va="center", color=GREY, fontsize=8)
axes.set(xlim=(-.5, 4.5), ylim=(16.5, .5), ylabel="claim", yticks=range(1, 17))
axes.set_xticks(range(5), kinds)
axes.tick_params(length=0);

# %% [markdown]
r"""
Rows are the claims of Section 1, columns the kinds of evidence. Two things are worth a minute. **Most of the colour
stands left of the last column**: for the greater part of the claims no training was needed, only a library, a shape
and a few lines. And **no row of the text is coloured by the text**, but for the one that contradicts itself. It offers
formulas where evidence is due. Compare your letters from Section 1.

<details><summary>What came out here</summary>

13 cells say *wrong*, 0 say *holds*. Most rows got a *w*. Only two of the sixteen needed the experiment: that all
comes out better, and that more levels help; the latter was not shown. Row 6 is empty: nothing could show it. If you
wrote *e* behind more than a handful, try a library and a shape first next time.

</details>

The rows 8, 9 and 10 in the column *shapes* are yellow: they compute something. Whether that something helps is a
different question, and it is answered in the last column or not at all.

## 6. An honest reading

What may we say after this lesson? Let the numbers write the sentences.
"""

# %%
words = {"holds": "is better than", "wrong": "is worse than", "not shown": "cannot be told from"}
pairs = [("two levels", "one level"), ("three levels", "one level"), ("three levels", "spread-3"),
         ("three levels", "theseus-3"), ("both", "theseus-3"), ("theseus-3", "spread-3"), ("three levels", "teacher")]
for name, other in pairs:
    pair = minus(name, other)
    print(f"On these {pair['n']:,} test texts, with this seed, {name} {words[verdict(pair)]} {other} "
          f"({100 * pair['difference']:+.1f} points).")
print(f"A text's formula was built and run; {sum(found == 'wrong' for found in evidence.values())} cells of evidence "
      f"say \"wrong\", {sum(found == 'holds' for found in evidence.values())} \"holds\".")

# %% [markdown]
r"""
And what may we *not* say?

- **A text that is wrong about fifteen things may be right about the sixteenth.** That is why the loss was built and
  tried, instead of being thrown out with the name.
- **One seed, one made set, one learning rate, one $\alpha$.** A rate that suits one loss need not suit another.
  `python -m keras_compress run levels-study` takes three seeds, a rate for each student chosen on dev, and the three
  kinds of tasks of claim 4: classification, matching and tagging.
- **"Not shown" is not "wrong".** A small effect can hide in an interval. It says that whoever claims the effect still
  owes the evidence.
- **Our reading is one reading.** The text can be read otherwise where it is unclear; what was chosen stands under
  *Departures* in `multilevel.py`. A method that must be guessed cannot be refuted as a whole, which is no point in its
  favour.

The mistake to keep in mind has a short form: *it is on the web, with a formula*. Ask for the shapes, the date, the code,
the baseline and the interval.

## 7. Where to read on

- Xu, Zhou, Ge, Wei, Zhou: *BERT-of-Theseus: Compressing BERT by Progressive Module Replacing*, EMNLP 2020,
  [arXiv:2002.02925](https://arxiv.org/abs/2002.02925); `keras_compress/replacement/theseus.py`.
- Hendrycks, Gimpel: *Gaussian Error Linear Units*, [arXiv:1606.08415](https://arxiv.org/abs/1606.08415).
- Sun, Cheng, Gan, Liu: *Patient Knowledge Distillation for BERT Model Compression*, EMNLP 2019,
  [arXiv:1908.09355](https://arxiv.org/abs/1908.09355): what several levels look like in a paper (Lesson 3).
- Try it: `head="gelu"` and `head="relu"`, `mix=1.0`, `chained=True`, `target="probabilities"`, two layers instead of
  three. Write down what you expect before you run it.
"""

# %% [markdown]
r"""
## 8. In five lines

- Take a text apart into claims, and ask of each what would decide it.
- Dates, shapes, slopes and a few lines of code decide most claims without any training.
- A formula says what is computed, not that it helps. Code that runs need not compare what it should.
- More levels than one were not shown to help: -1.1 and -0.7 points against one level, intervals with 0.
- "Not shown" is not "wrong": whoever claims the effect owes the evidence.
"""

# %% [markdown]
r"""
## 9. Five questions

**1.** `three levels` minus `one level` is -0.7 [-2.0, +0.7]. What may you write?

- **a** More levels do harm.
- **b** The number of levels does not matter.
- **c** This test did not show that more levels help.

<details><summary>Answers, and why</summary>

- **a** No. The interval reaches to +0.7.
- **b** No. A difference of one point in either direction is allowed by these texts and this seed.
- **c** Right. It says what was tried and what came out, and no more.

</details>

**2.** A loss between the shapes (32, 1) and (32, 20) runs and gives a number. Is it right?

- **a** No: one number is compared with all twenty.
- **b** Yes, or else the library would refuse.
- **c** Yes, if the loss falls in training.

<details><summary>Answers, and why</summary>

- **a** Right. The axis of length 1 is stretched without a word.
- **b** No. It refuses only what cannot be stretched to fit.
- **c** No. It falls towards a mean of the targets, which is not what was wanted.

</details>

**3.** Which of these claims needs an experiment?

- **a** "GELU is new and was not in BERT."
- **b** "Three levels are better than one."
- **c** "INT8 is more precise than FP32."

<details><summary>Answers, and why</summary>

- **a** No. Dates and a configuration decide it.
- **b** Right. No date, no shape and no slope can tell. And it needs the baseline with one level.
- **c** No. Store 1/3 in both and look.

</details>

**4.** The text's GELU formula agrees with the library to 4.8e-07. What does this say about claim 5?

- **a** That the claim holds.
- **b** That a right formula can stand in a wrong story.
- **c** That the author tested it.

<details><summary>Answers, and why</summary>

- **a** No. The story around it fails: GELU was in BERT, and ReLU's slope cannot explode.
- **b** Right. Check each part of a claim by itself.
- **c** No. A formula can be copied; there are neither figures nor code.

</details>

**5.** A method is described so vaguely that it cannot be refuted. Is that in its favour?

- **a** Yes: it has survived all tests.
- **b** Yes, until someone shows the contrary.
- **c** No: what nothing could refute, nothing could show either.

<details><summary>Answers, and why</summary>

- **a** No. No test could be made of it as a whole.
- **b** No. The evidence is owed by whoever makes the claim.
- **c** Right. So say how you read it, test that reading, and claim no more.

</details>
"""

# %% [markdown]
r"""
## 10. A challenge

Take a text about a compression method that you find on the web, not a paper. Write down eight of its claims, and
your letters *w*, *h*, *e*, *n* before you look anything up. Decide as many as you can without training, then build
one claim with `multilevel` or a few lines of your own, with its fair baseline. Hand in the matrix.
"""
