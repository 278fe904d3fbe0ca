# %% [markdown]
r"""
# Lesson 3 · PKD and TinyBERT: look inside the teacher

**After this lesson you can** make a small model learn not only what a large one answers but how it gets there; choose
which layer learns from which; mask padding out of a loss and prove it; make training texts without an annotator; and
judge all of that beside small models that had no teacher.

**You need** Lesson 2 (and with it 0 and 1): this one uses the data, the sizes and the large model of Lesson 1, so that
the tables can be laid side by side, and the soft targets of Lesson 2.

**Time** about 20 minutes of computing on a laptop CPU with two cores, an hour and a half with the exercises (10
points); for a first reading leave out Section 4, but run its cells. **Memory** 6 GB. **Seed** 0, everywhere. Start
Jupyter with the environment variable `KERAS_COMPRESS_FAST=1` for a dry run in under a minute, whose numbers mean
nothing.
"""

# %%
import os, sys

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np

from keras_compress import datasets
from keras_compress.backend import keras, tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation import augmentation, pkd, tinybert
from keras_compress.measure import accuracy, baselines
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE, own_rows
from keras_compress.experiment.report import markdown_table
from keras_compress.pruning import layers as truncation
from keras_compress.training import losses
from keras_compress.training.finetune import Training, finetune

# %% [markdown]
r"""
The settings are those of Lesson 1: the same number of updates for all models, in batches of the same size; the small
models learn at a higher rate, the one that Lesson 1 found on dev for `plain-3`. Training cuts texts after `max_length`
word pieces; a warning counts how many that are.
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500}
epochs, evaluations = (1, 1) if FAST else (3, 3)
training = Training(epochs=epochs, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=evaluations)
small_training = training.replace(learning_rate=4e-4)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. The teacher: it knows more than it says

The task is that of Lesson 1: what does someone want from a phone? The **teacher** (教师模型) is MiniLM, a small BERT
with six layers, fine-tuned (fine-tuning, 微调) on 2,500 texts of the set `assistant`, which was made for this project
from a grammar. The cell takes a minute or two.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
if FAST:                                                      # random weights: as deep, but narrow
    narrow = minilm.config.replace(hidden_size=24, num_heads=2, intermediate_size=48)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
teacher = finetune(minilm, data, seed=SEED, training=training)
config = teacher.config
print({name: len(getattr(data, name).texts) for name in ("train", "dev", "test")}, len(data.labels), "intents")
print(config.num_layers, "layers,", config.hidden_size, "wide,", config.num_heads, "heads")

# %% [markdown]
r"""
A label says: this intent, and none of the others. The teacher says more. Its probabilities tell which other intents it
finds possible, and the student (学生模型) can learn from that: this is **knowledge distillation** (知识蒸馏; Hinton et al.,
2015). A **temperature** $T$ (温度) makes the small probabilities visible: $\mathrm{softmax}(z / T)$. Lesson 2 is about
nothing else; here is its essence.
"""

# %%
sentence = "don't turn off the lights, play some jazz"
encoding = teacher.tokenizer.encode([sentence], training.max_length)
logits = teacher.forward(encoding)[0]
soft = [tf.nn.softmax(logits / temperature).numpy() for temperature in (1, 5, 10)]
show((f"\"{sentence}\"", "T = 1", "T = 5", "T = 10"),
     [(data.labels[i], *(f"{probabilities[i]:.3f}" for probabilities in soft)) for i in np.argsort(-logits)[:5]])

# %% [markdown]
r"""
The order stays, the distances shrink. Still, this is one row of numbers per text, read off at the very end. How the
teacher got there stays hidden. Both methods of this lesson open it up. PKD reads one vector in each chosen layer,
TinyBERT those of all tokens, and the attention as well.

## 2. PKD: patience with the teacher

Patient Knowledge Distillation (PKD; Sun et al., 2019) is for a student with fewer layers of the **same width**. Its
loss has three parts:

$$L = (1 - \alpha)\, L_{CE} + \alpha\, L_{DS} + \beta\, L_{PT}.$$

$L_{CE}$ is the cross-entropy with the labels. $L_{DS}$ is the distance from the teacher's softened answers: $T^2$ times
the KL divergence between $\mathrm{softmax}(z^T / T)$ and $\mathrm{softmax}(z^S / T)$. Superscripts say whose: $z^T$ are
the teacher's logits, $z^S$ the student's; the $T$ that divides is the temperature. New is the third part, the
*patience*: the student does not wait for the last layer, but follows the teacher's [CLS], the special piece that BERT
puts before every text, on its way through the layers.

### 2.1 The vectors of [CLS]

Why [CLS]? The classifier reads this vector and no other, so what the model knows about the text must arrive there. We
look at it in all layers, for 32 texts of dev. Beside the teacher we put the student that PKD starts from: the teacher's
three bottom layers, before any training.
"""

# %%
encodings = teacher.tokenizer.encode(data.dev.texts[:32], training.max_length)
inputs = {name: tf.constant(value) for name, value in teacher.pad(encodings).items()}
bottom = teacher.keep_layers(range(3), seed=SEED)


def look_inside(model, inputs):
    """dict: `hidden_states` (list: embeddings, then each layer), `attention_scores` (list), `logits`."""
    return model.features(["hidden_states", "attention_scores", "logits"])(inputs)


theirs, ours = look_inside(teacher, inputs), look_inside(bottom, inputs)
rows = []
for layer, states in enumerate(theirs["hidden_states"]):
    cls = states[:, 0].numpy()                                # (texts, hidden)
    apart = np.linalg.norm(cls - cls.mean(0), axis=-1).mean() / np.linalg.norm(cls.mean(0))
    rows.append((layer or "embeddings", f"{np.linalg.norm(cls, axis=-1).mean():.2f}", f"{apart:.1%}"))
show(("teacher's layer", "length of [CLS]", "a text's distance from the mean of all texts"), rows)

# %% [markdown]
r"""
After the embeddings [CLS] is the same for every text: it has not met the other words yet. The last column says how much
of the vector depends on the text. Look where it is still small: there [CLS] says nearly the same of all texts, and
whoever follows it learns little about any of them. (MiniLM was made to be read through the mean of its tokens; nothing
forced its [CLS] to gather early.) Keep that in mind for the layers that PKD chooses.

<details><summary>What came out here</summary>

In layers 1 to 4 it is 0.1 to 0.9 %: [CLS] says nearly the same of all texts. At 5 it is 29.4 %, at 6 it is 512.6 %.
The classifier's vector is made in the last two layers.

</details>

The lengths matter too. A squared distance between vectors of different lengths measures the lengths first, and layers
with long vectors outvote those with short ones. PKD therefore scales each vector to length 1 and compares directions
only:

$$L_{PT} = \sum_{j=1}^{k-1} \left\| \frac{h^S_j}{\|h^S_j\|_2} - \frac{h^T_{I(j)}}{\|h^T_{I(j)}\|_2} \right\|_2^2.$$

Each term lies between 0 (same direction) and 4 (opposite). The sum ends at $k - 1$: the student's last layer is left
to the answers.

### Exercise 1 (3 points): patience by hand

Write $L_{PT}$ as the authors' code has it: not the sum over layers and dimensions, but the **mean** over texts, layers
and dimensions.

<details><summary>Hint 1</summary>

In which order: scale, difference, square, mean?

</details>

<details><summary>Hint 2</summary>

Each vector has a length of its own. Along which axis do you take it?

</details>

<details><summary>Hint 3</summary>

Keep that axis (`keepdims`), so that the division broadcasts. One mean over everything comes last.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "patience", "locked": false, "schema_version": 3, "solution": true, "task": false}
def patience(teacher_cls, student_cls):
    """Mean squared difference of the vectors, each scaled to length 1 beforehand.

    Args:
        teacher_cls, student_cls: float, (batch, layers, hidden); no vector is zero.
    Returns:
        float scalar.
    """
    ### BEGIN SOLUTION
    unit = [h / tf.norm(h, axis=-1, keepdims=True) for h in (teacher_cls, student_cls)]
    return tf.reduce_mean(tf.square(unit[1] - unit[0]))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "patience_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
east, north = tf.constant([[[2.0, 0.0, 0.0, 0.0]]]), tf.constant([[[0.0, 5.0, 0.0, 0.0]]])
#: 0.5 points: the mean, at two angles
np.testing.assert_allclose(patience(east, north), 2 / 4, err_msg="a right angle: |u - v|^2 = 2, over 4 dimensions")
np.testing.assert_allclose(patience(east, -east), 4 / 4, err_msg="opposite: |u - v|^2 = 4")
#: 0.5 points: the length does not count
np.testing.assert_allclose(patience(east, 3 * east), 0.0, atol=1e-7, err_msg="the length does not count")
print("patience: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.keras, keras
generator_ = np.random.default_rng(SEED)
cls_t_, cls_s_ = (tf.constant(generator_.normal(size=(5, 3, 8)), tf.float32) for _ in range(2))
reference_ = pkd.patience_loss(tf.unstack(cls_t_, axis=1), tf.unstack(cls_s_, axis=1))
#: 1 point: five texts, three layers
np.testing.assert_allclose(patience(cls_t_, cls_s_), reference_, rtol=1e-5)
#: 0.5 points: each vector has its own length
scales_ = tf.constant(generator_.uniform(0.1, 9.0, size=(5, 3, 1)), tf.float32)
np.testing.assert_allclose(patience(scales_ * cls_t_, cls_s_), reference_, rtol=1e-5)
#: 0.5 points: one number, the same in both directions
assert np.ndim(patience(cls_t_, cls_s_)) == 0
np.testing.assert_allclose(patience(cls_s_, cls_t_), patience(cls_t_, cls_s_), rtol=1e-5)
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.2 Who learns from whom: skip and last

$I(j)$ is the teacher's layer that the student's layer $j$ follows, counted from 1. The paper has two choices for a
teacher with $N$ layers and a student with $k$: **skip**, $I(j) = jN/k$, takes every so-many-th layer; **last**,
$I(j) = N - k + j$, takes the last ones before the end.
"""

# %%
def draw_map(axes, title, learned_from, num_student_layers):
    """Who learns from whom; `learned_from`: {layer of the student: layer of the teacher}, 0 = embeddings."""
    n = config.num_layers
    for x, layers, colour, used in ((0, n, INK, learned_from.values()), (1, num_student_layers, ACCENT, learned_from)):
        for layer in range(layers + 1):
            back, front = (colour, "white") if layer in used else (PALE, INK)
            axes.text(x, layer * n / layers, f"layer {layer}" if layer else "embeddings", ha="center", va="center",
                      color=front, fontsize=8, bbox={"boxstyle": "round,pad=.4", "color": back})
    for ours, theirs in learned_from.items():
        axes.annotate("", (.7, ours * n / num_student_layers), (.3, theirs),
                      arrowprops={"arrowstyle": "->", "color": GREY})
    axes.set(xlim=(-.4, 1.4), ylim=(-.6, n + .6), title=title)
    axes.axis("off")


# %%
figure, all_axes = plt.subplots(1, 2, figsize=(5.8, 2.8))
for axes, strategy in zip(all_axes, ("skip", "last")):
    learned_from = pkd.patient_layers(config.num_layers, 3, strategy)
    draw_map(axes, f"{strategy}: I = {learned_from}", dict(enumerate(learned_from, start=1)), 3)

# %% [markdown]
r"""
Left the teacher, right the student; pale layers take no part. *Skip* spreads the student over the teacher's whole way,
*last* asks it to have gone two thirds of the way after its first layer. For the paper's teacher of 12 layers and a
student of 6, `patient_layers` gives $\{2, 4, 6, 8, 10\}$ and $\{7, 8, 9, 10, 11\}$.

### 2.3 Mean or sum: what $\beta$ means

The paper writes a sum; the authors' code takes the mean. Which of the two you compute changes what a value of $\beta$
means: the values in the authors' scripts (10, 100, 500, 1000) belong to the mean. We compute both for the untrained
student, and beside them the other two parts.
"""

# %%
learned_from = pkd.patient_layers(config.num_layers, 3, "skip")
their_cls = [theirs["hidden_states"][layer][:, 0] for layer in learned_from]
our_cls = [ours["hidden_states"][layer][:, 0] for layer in (1, 2)]
mean, total = (float(pkd.patience_loss(their_cls, our_cls, reduction=how)) for how in ("mean", "sum"))
label = float(losses.label_loss(np.array(data.dev.labels[:32]), ours["logits"]))
answers = float(losses.masked_mean(losses.soft_label_loss(theirs["logits"], ours["logits"], temperature=5.0)))
parts = (("L_CE", label, 0.5), ("L_DS, T = 5", answers, 0.5), ("L_PT, mean", mean, 100.0), ("L_PT, sum", total, 100.0))
show(("part", "value", "factor", "adds to the loss"),
     [(name, f"{value:.5f}", factor, f"{factor * value:.3f}") for name, value, factor in parts])
print(f"sum / mean = {total / mean:.0f} = {len(learned_from)} layers x {config.hidden_size} dimensions")

# %% [markdown]
r"""
The ratio of the last two rows is the number of layers times the width. Whoever takes $\beta$ from one form and the loss
from the other is off by that factor: either nobody hears the patience, or it drowns out the labels. So a paper's factor
is worth nothing without its reduction; whoever uses the sum divides $\beta$ by layers times width.

### 2.4 Distil

Now the whole method in one call. The student starts as the teacher's bottom three layers (the paper's starts from the
*pre-trained* ones: `student="minilm"`), with *skip* and the mean.
"""

# %%
pkd3 = pkd.compress(teacher, data, seed=SEED, training=small_training, num_layers=3)
settings = next(step for step in pkd3.history if step["method"] == "pkd")
print({key: settings[key] for key in ("learned_from", "alpha", "beta", "temperature", "normalize", "reduction")})

# %%
def own_curve(model):
    """The rows of a student's own training, without those of its teacher."""
    return own_rows({"predecessor": teacher.curve, "student": model.curve})["student"]


def draw_parts(axes, rows, parts, **style):
    """Parts of a loss over the updates. parts: {name in the rows: (name in the legend, factor)}."""
    for (name, (label, factor)), colour, dashes in zip(parts.items(), (ACCENT, INK, GREY), ("-", "--", ":")):
        points = [(row["step"], factor * row[name]) for row in rows if name in row]
        axes.plot(*zip(*points), color=colour, linestyle=dashes, label=label, **style)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


# %%
figure, all_axes = plt.subplots(2, 1, figsize=(7.5, 4.2), sharex=True)
alpha, beta = settings["alpha"], settings["beta"]
draw_parts(all_axes[0], own_curve(pkd3), {"label": (r"$(1 - \alpha) L_{CE}$", 1 - alpha),
                                          "soft": (r"$\alpha L_{DS}$", alpha), "patience": (r"$\beta L_{PT}$", beta)})
draw_parts(all_axes[1], own_curve(pkd3), {"dev": ("dev accuracy, %", 100)}, marker="o")
all_axes[0].set(yscale="log", ylabel="adds to the loss")
all_axes[1].set(xlabel="update", ylabel="dev accuracy, %");

# %% [markdown]
r"""
Each line is a part as it enters the sum, on a logarithmic scale. Look for two things. Which part is the largest at the
start, and which at the end? And which one stops falling first? A part that lies still may be learned, outvoted, or out
of this student's reach. (The height of a line is not the strength of its pull: that is the gradient (梯度).)

<details><summary>What came out here</summary>

$L_{CE}$ is the largest at the start, with $L_{DS}$ close behind; at the end the two are equal. The patience lies
still from the first update on. It is outvoted: before training it added 0.006, the other two 1.505 and 0.819.
*Skip* reads layers 2 and 4, where [CLS] hardly depends on the text (0.3 and 0.9 %). So `pkd-3` is close to ordinary
distillation, and this lesson does not show what patience can do.

</details>

## 3. TinyBERT: everything inside

TinyBERT (Jiao et al., 2020) compares far more, and at every token: what leaves the embeddings, the attention scores of
every head, the hidden states (隐状态) after every chosen layer, and last the answers. And the student may be *thinner*
than its teacher.

### 3.1 The layer map

For a teacher with $N$ layers and a student with $M$, $g(m)$ says from which layer the student's layer $m$ learns;
$g(0) = 0$ are the embeddings. The paper compares three maps: **uniform**, $g(m) = mN/M$; **top**, $g(m) = m + N - M$;
**bottom**, $g(m) = m$.
"""

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(8.5, 2.8))
for axes, how in zip(all_axes, ("uniform", "top", "bottom")):
    g = tinybert.map_layers(config.num_layers, 3, how)
    draw_map(axes, f"{how}: g = {g}", dict(enumerate(g)), 3)

# %% [markdown]
r"""
Ask of each map what it leaves out. *Top* tells the student nothing of the teacher's first layers, *bottom* nothing of
its last ones; the embeddings are compared in all three. *Uniform* is what TinyBERT uses, and so do we. Compare with
*skip* of PKD: the same layers, but here the student's last layer has one to learn from as well.

### Exercise 2 (3 points): the layer map

Write $g(1), \dots, g(M)$. A uniform map exists only if $M$ divides $N$; otherwise say so, with a `ValueError`, instead
of rounding in silence.

<details><summary>Hint 1</summary>

Three formulas stand above the figure in Section 3.1.

</details>

<details><summary>Hint 2</summary>

$m$ runs from 1 to $M$, and $g(0)$ is not part of the answer.

</details>

<details><summary>Hint 3</summary>

Check the remainder of $N$ by $M$ before dividing, and for `uniform` alone.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "my_layer_map", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_layer_map(num_layers, num_student_layers, how):
    """The teacher's layers that the student's layers 1 .. M learn from, counted from 1.

    Args:
        num_layers: N, of the teacher. num_student_layers: M, at most N. how: "uniform", "top" or "bottom".
    Returns:
        list of M ints.
    Raises:
        ValueError: if `how` is "uniform" and M does not divide N.
    """
    ### BEGIN SOLUTION
    if how == "uniform" and num_layers % num_student_layers:
        raise ValueError(f"{num_student_layers} does not divide {num_layers}.")
    n, m = num_layers, num_student_layers
    return [{"uniform": layer * n // m, "top": layer + n - m, "bottom": layer}[how] for layer in range(1, m + 1)]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "my_layer_map_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: three maps, counted from 1
assert my_layer_map(12, 4, "uniform") == [3, 6, 9, 12]
assert my_layer_map(12, 4, "top") == [9, 10, 11, 12]
assert my_layer_map(12, 4, "bottom") == [1, 2, 3, 4]
#: 0.5 points: no uniform map is refused
try:
    my_layer_map(12, 5, "uniform")
except ValueError:
    print("my_layer_map: visible checks passed (1 of 3 points)")
else:
    raise AssertionError("12 layers on 5: there is no uniform map")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
#: 1 point: other sizes, all three maps
for m_ in range(1, 9):
    n_ = int(m_ * generator_.integers(1, 5))
    for how_ in ("uniform", "top", "bottom"):
        assert my_layer_map(n_, m_, how_) == tinybert.map_layers(n_, m_, how_)[1:], (n_, m_, how_)
#: 0.5 points: top and bottom need no divisor
assert my_layer_map(12, 5, "top") == [8, 9, 10, 11, 12] and my_layer_map(7, 2, "bottom") == [1, 2]
#: 0.5 points: every map that does not exist is refused
for n_, m_ in ((7, 2), (12, 8), (5, 3)):
    try:
        my_layer_map(n_, m_, "uniform")
    except ValueError:
        continue
    raise AssertionError(f"{n_} layers on {m_}: there is no uniform map")
### END HIDDEN TESTS

# %% [markdown]
r"""
### 3.2 Attention, side by side

What attention a model pays can be drawn: for every token (row, the *query*) the scores of all tokens (columns, the
*keys*). TinyBERT compares the scores $A = QK^\top / \sqrt{d_k}$ *before* the softmax, head by head, so teacher and
student must have the same number of heads. Here is one head for one sentence; the pictures in a column share one colour
scale, darker is higher. The student is the one that `compress` starts from: the teacher's layers $g(1), \dots, g(M)$,
untrained. So two pictures above each other come from the same weights; only what the layer reads is different, because
the layers between are gone.
"""

# %%
one_text = {name: tf.constant(value) for name, value in teacher.pad(encoding).items()}
pieces = [teacher.tokenizer.vocab[piece] for piece in encoding[0].ids]
g = tinybert.map_layers(config.num_layers, 3, "uniform")
spread = teacher.keep_layers([layer - 1 for layer in g[1:]], seed=SEED)


def maps(model, layers, head=0):
    """Attention scores of one head for the sentence: {"layer 1": (seq, seq), ...}; layers from 1."""
    scores = look_inside(model, one_text)["attention_scores"]
    return {f"layer {layer}": scores[layer - 1][0, head].numpy() for layer in layers}


# %%
def draw_maps(rows):
    """A row of attention maps per model. rows: {name: what `maps` returns}."""
    figure, grid = plt.subplots(len(rows), 3, figsize=(7.5, 2.5 * len(rows)), sharex=True, sharey=True)
    for column, scores in enumerate(zip(*(row.values() for row in rows.values()))):
        for line, picture in enumerate(scores):
            grid[line, column].imshow(picture, cmap="Blues", vmin=np.min(scores), vmax=np.max(scores))
            grid[line, column].grid(False)
    for line, (name, row) in zip(grid, rows.items()):
        for axes, title in zip(line, row):
            axes.set_title(f"{name}, {title}", fontsize=9)
        line[0].set_yticks(range(len(pieces)), pieces, fontsize=7)
    for axes in grid[-1]:
        axes.set_xticks(range(len(pieces)), pieces, fontsize=7, rotation=90)
    figure.supxlabel("key: the token that is looked at", fontsize=9)
    figure.supylabel("query: the token that looks", fontsize=9)


# %%
draw_maps({"teacher": maps(teacher, g[1:]), "student before": maps(spread, (1, 2, 3))})

# %% [markdown]
r"""
Compare each picture with the one below it. Vertical stripes are tokens that everyone looks at, a diagonal is a token
that looks at itself or at its neighbour. Note that the loss is stricter than it need be: adding one number to a whole
row changes the scores, but not the softmax.

<details><summary>What came out here</summary>

The untrained student has lost the structure: the teacher's dark columns and blocks have become even. The weights
are the same, so it is the missing layers between that make the difference. For layer 1 the loss over 32 texts is
3.6198.

</details>

### 3.3 The losses, and the padding

With $H$ for the hidden states, $E$ for what leaves the embeddings, $h$ heads and a matrix $W$ of which more below (the
paper has one for $E$ and one for $H$; the authors' code, like ours, has one for all, with a bias):

$$L_{embd} = \mathrm{MSE}(E^S W, E^T), \quad L_{hidn} = \mathrm{MSE}(H^S W, H^T), \quad
L_{attn} = \frac{1}{h} \sum_{i=1}^{h} \mathrm{MSE}(A_i^S, A_i^T),$$

$$L_{pred} = -\mathrm{softmax}(z^T / t) \cdot \log\mathrm{softmax}(z^S / t).$$

$L_{attn}$ and $L_{hidn}$ are summed over the student's layers; all factors are 1. Now the trap. Texts of a batch are
padded (padding, 填充) to one length, and a model computes hidden states and scores for the padding too. They mean
nothing, but an MSE over everything takes them in. We pad the same 32 texts to three lengths and watch one layer's
losses.
"""

# %%
rows = []
for length in (inputs["input_mask"].shape[1], 48, 96):
    padded = {name: tf.constant(value) for name, value in teacher.pad(encodings, length).items()}
    mask, inside = padded["input_mask"], [look_inside(model, padded) for model in (teacher, spread)]
    share = float(tf.reduce_mean(tf.cast(mask, tf.float32)))
    scores = [found["attention_scores"][layer - 1] for found, layer in zip(inside, (g[1], 1))]
    states = [found["hidden_states"][layer] for found, layer in zip(inside, (g[1], 1))]
    values = (tinybert.attention_loss(*scores, mask), tinybert.attention_loss(*scores, mask, "reference"),
              tf.reduce_mean(tf.square(scores[1] - scores[0])), tinybert.hidden_loss(*states, mask),
              tinybert.hidden_loss(*states, mask, "reference"))
    rows.append((length, f"{share:.0%}", *(f"{value:.4f}" for value in values)))
show(("padded to", "real tokens", "attn, masked", "attn, authors' code", "attn, over all", "hidn, masked",
      "hidn, over all"), rows)

# %% [markdown]
r"""
The texts are the same in all rows, so a loss has no business changing. The two masked columns do not. The other three
move with the share of padding, and with it, during training, the weight of the loss: from batch to batch, for no reason
that lies in the texts. The authors' code sets the scores of padded *keys* to 0 in both models but divides by all
entries and keeps the padded *queries* (the columns of a score map are keys, its rows queries). Ours leaves out both and
divides by the number of pairs of real tokens; `reduction="reference"` is theirs.

Looking at a table is not a proof. A better one: write anything at all into the padding, and see that the loss stays.

### Exercise 3 (4 points): attention loss with a mask

Write $L_{attn}$ of one layer: the mean of $(A^S - A^T)^2$ over all heads and all pairs of **real** tokens of the batch.
Whatever stands in the padding, even a NaN, must leave no trace.

<details><summary>Hint 1</summary>

A pair counts if both its query and its key are real.

</details>

<details><summary>Hint 2</summary>

From `mask` make an array (batch, 1, seq, seq) of such pairs; each text has one for all heads.

</details>

<details><summary>Hint 3</summary>

Choose with `tf.where` before you square or multiply: NaN times 0 is NaN. Divide by pairs times heads.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "masked_attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
def masked_attention(teacher_scores, student_scores, mask):
    """Mean squared difference of the scores over heads and over pairs of real tokens.

    Args:
        teacher_scores, student_scores: float, (batch, heads, seq, seq); query rows, key columns.
        mask: int32, (batch, seq); 1 = real token, 0 = padding. Every text has a real token.
    Returns:
        float scalar.
    """
    ### BEGIN SOLUTION
    real = tf.cast(mask, tf.bool)
    pairs = tf.broadcast_to(real[:, None, :, None] & real[:, None, None, :], tf.shape(teacher_scores))
    return tf.reduce_mean(tf.square(tf.boolean_mask(student_scores - teacher_scores, pairs)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "masked_attention_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
zeros, steps = tf.zeros((1, 1, 2, 2)), tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]])
#: 0.5 points: without padding
np.testing.assert_allclose(masked_attention(zeros, steps, tf.constant([[1, 1]])), 30 / 4)   # 1 + 4 + 9 + 16, 4 pairs
#: 0.5 points: queries and keys of the padding do not count
np.testing.assert_allclose(masked_attention(zeros, steps, tf.constant([[1, 0]])), 1.0)      # one real token, one pair
#: 0.5 points: a NaN in the padding leaves no trace
broken = tf.constant([[[[1.0, np.nan], [np.nan, np.nan]]]])
np.testing.assert_allclose(masked_attention(zeros, broken, tf.constant([[1, 0]])), 1.0, err_msg="padding left a trace")
print("masked_attention: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.keras, keras
generator_ = np.random.default_rng(SEED)
scores_t_, scores_s_ = (tf.constant(generator_.normal(size=(3, 2, 6, 6)), tf.float32) for _ in range(2))
mask_ = tf.constant([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
wanted_ = tinybert.attention_loss(scores_t_, scores_s_, mask_)
#: 1 point: texts of unequal length, all pairs alike
np.testing.assert_allclose(masked_attention(scores_t_, scores_s_, mask_), wanted_, rtol=1e-5)
#: 1 point: NaN in the padding of teacher and student
real_ = tf.cast(mask_, tf.bool)
pairs_ = real_[:, None, :, None] & real_[:, None, None, :]
poisoned_ = [tf.where(pairs_, scores, np.nan) for scores in (scores_t_, scores_s_)]
np.testing.assert_allclose(masked_attention(*poisoned_, mask_), wanted_, rtol=1e-5)
#: 0.5 points: more padding changes nothing
further_ = [tf.pad(scores, [[0, 0], [0, 0], [0, 2], [0, 2]], constant_values=99.0 * k) for k, scores in
            enumerate((scores_t_, scores_s_))]
np.testing.assert_allclose(masked_attention(*further_, tf.pad(mask_, [[0, 0], [0, 2]])), wanted_, rtol=1e-5)
### END HIDDEN TESTS

# %% [markdown]
r"""
### 3.4 A thinner student

Attention maps have the same shape in a thin model and a wide one, given the same number of heads: (heads, tokens,
tokens). Hidden states have not. So the student's are sent through a **projection** (投影), the matrix $W$, which is
trained with the student and thrown away afterwards. Here is a student of half the width, still with random weights.
"""

# %%
half = {"hidden_size": config.hidden_size // 2, "intermediate_size": config.intermediate_size // 2}
thin = tinybert.thin_student(teacher, 3, **half, seed=SEED)
projection = keras.layers.Dense(config.hidden_size, name="projection")
inside = look_inside(thin, inputs)
projected = projection(inside["hidden_states"][1])
show(("", "teacher", "thin student", "thin student, projected"),
     [("hidden states", theirs["hidden_states"][g[1]].shape, inside["hidden_states"][1].shape, projected.shape),
      ("attention scores", theirs["attention_scores"][g[1] - 1].shape, inside["attention_scores"][0].shape, "–")])
show(("", "parameters"), [("teacher", f"{teacher.model.count_params():,}"), ("student, three layers, same width",
     f"{spread.model.count_params():,}"), ("student, three layers, half the width", f"{thin.model.count_params():,}"),
     ("projection (only while training)", f"{projection.count_params():,}")])

# %% [markdown]
r"""
Half the width halves the word table too, which fewer layers cannot do: that is what a thin student is for. The price: a
thin student cannot be cut out of the teacher. It starts from random weights, and the paper gives it a *general* stage
first, on Wikipedia with a pre-trained teacher, before it sees the task. `compress` does the same when you hand it
unlabelled data; it takes much text and much time. In this lesson the student keeps its width, and the projection starts
as the identity.

### 3.5 Two sub-stages

On the task TinyBERT learns in two steps. First *inside*: embeddings, attention and hidden states, no answers. Then
*answers*: $L_{pred}$ alone. Note what is missing: a label occurs in neither. `compress` splits the updates between the
two by `inside_share`. A student of the teacher's width starts from the teacher's layers $g(1), \dots, g(M)$, as in
Section 3.2.
"""

# %%
tiny3 = tinybert.compress(teacher, data, seed=SEED, training=small_training, num_layers=3)
settings = next(step for step in tiny3.history if step["method"] == "tinybert")
print({key: settings[key] for key in ("learned_from", "losses", "reduction", "temperature", "num_inside")})
print("projection in the result:", any("projection" in name for name in tiny3.weights()))
probabilities = teacher.predict(data.train.texts[:500])
entropy = float(-np.sum(probabilities * np.log(probabilities + 1e-12), axis=-1).mean())

# %%
curve = own_curve(tiny3)
figure, all_axes = plt.subplots(3, 1, figsize=(7.5, 6), sharex=True)
draw_parts(all_axes[0], curve, {name: (f"$L_{{{name}}}$", 1) for name in ("embd", "attn", "hidn")})
draw_parts(all_axes[1], curve, {"pred": ("$L_{pred}$", 1)})
draw_parts(all_axes[2], curve, {"dev": ("dev accuracy, %", 100)}, marker="o")
all_axes[0].set_yscale("log")
all_axes[1].axhline(entropy, color=GREY, linestyle="--")
for axes, label in zip(all_axes, ("loss", "loss, nats", "dev accuracy, %")):
    axes.set_ylabel(label)
    axes.axvline(max(row["step"] for row in curve if row["stage"] == "inside"), color=GREY, linestyle=":")
all_axes[2].set_xlabel("update (dotted: from here on the answers; dashed: the teacher's entropy)");

# %% [markdown]
r"""
Three things to look for. First, how far the inner losses fall, and which of them hardly moves: the student's dropout is
on and the teacher's is off, so that even between two equal models no loss would be 0. Second, dev accuracy left of the
dotted line: there the classifier is still the teacher's own, which no loss of that stage touches, so the curve says how
well the teacher's classifier can read the student's states. It reads them as they are, while $L_{hidn}$ compares them
after $W$: what the projection has learned to correct, the classifier does not see. Third, $L_{pred}$: it is a
cross-entropy, and the least that is possible is not 0 but the teacher's entropy, the dashed line (measured on 500
training texts without dropout).

<details><summary>What came out here</summary>

Attention and hidden losses fall several times over; $L_{embd}$ does not fall at all, it rises a little. Dev
accuracy climbs above three quarters without any answer being asked for, since the inside is what the classifier reads. It
drops at first when the answers begin, and ends at 79.0 %. $L_{pred}$ stays above the dashed line.

</details>

### 3.6 Attention, after

The same sentence, the same head. The last stage no longer asks for the attention, so what you see is what outlived it.
"""

# %%
draw_maps({"teacher": maps(teacher, g[1:]), "student before": maps(spread, (1, 2, 3)),
           "student after": maps(tiny3, (1, 2, 3))})

# %% [markdown]
r"""
In which columns has the lowest picture come closer to the top one? Try another head (`head=3`): one sentence and one
head are an anecdote. Section 5.2 has the numbers for 32 texts and all heads.

<details><summary>What came out here</summary>

In all three: the teacher's stripe at the comma (layer 4) and the dark block after it (layer 6) are back in layers 2
and 3. It holds for 32 texts and all heads, too: 0.925, 1.543 and 2.674, where the untrained student had 3.620,
3.527 and 6.699.

</details>

### 3.7 What the teacher's help costs

In every update the teacher runs too. It need not: it says the same about the same text in every epoch, so with
`Training(cache_teacher=True)` it runs once per text in each stage, and its outputs are read from disk later. What would
have to be kept?
"""

# %%
num_tokens = data.lengths("train", teacher.tokenizer, training.max_length).astype(float)
numbers = [("PKD: logits and [CLS] of 2 layers", len(num_tokens) * (len(data.labels) + 2 * config.hidden_size)),
           ("TinyBERT: 4 hidden states", 4 * config.hidden_size * num_tokens.sum()),
           ("TinyBERT: 3 attention maps", 3 * config.num_heads * np.square(num_tokens).sum())]
show(("outputs", "MB", "kB per text"),
     [(name, f"{4e-6 * count:,.1f}", f"{4e-3 * count / len(num_tokens):,.1f}") for name, count in numbers])

# %% [markdown]
r"""
Attention grows with the *square* of the length, hidden states with the length, PKD's vectors not at all. For long texts
and large teachers this decides which method you can afford.

<details><summary>What came out here</summary>

PKD needs 7.9 MB for these texts, TinyBERT 274.2 MB for the hidden states and 133.1 MB for the attention.

</details>

## 4. More texts: augmentation

A teacher answers any text, not only those of the training set. So TinyBERT makes more of them, by **data augmentation**
(数据增强): a masked-LM model (掩码语言模型) proposes other words for the words of a text, and copies are made in which each word
is exchanged with probability $p_t = 0.4$ for one of its candidates. The paper takes $K = 15$ candidates a word and
$N_a = 20$ copies a text.

### 4.1 A model that fills in words

MiniLM was published without the head that scores all words for a masked place; we must train one. The cheap way is the
head alone (`train="head"`) on an encoder that stays as it is. The text: sentences from the documentation of the
installed libraries, which are on every machine. We train a second one with all its weights, on the task's own training
texts (the labels are not used), from where the first stopped.
"""

# %%
from keras_compress.pretraining.masked_lm import masked_lm

few = {"num_train": 32, "num_dev": 8} if FAST else {"num_train": 3200, "num_dev": 200}
docs = datasets.load("apidocs", task="unlabelled").subset(**few, seed=SEED)
own = datasets.Dataset("assistant texts", "unlabelled", (), data.train, data.dev).subset(**few, seed=SEED)
filling = Training(epochs=1, batch_size=32, max_length=48, learning_rate=5e-3, evaluations=1)
head_only = masked_lm(minilm, docs, seed=SEED, training=filling, train="head")
whole = masked_lm(head_only, own, seed=SEED, training=filling.replace(epochs=2, learning_rate=5e-4), train="all")
curves = {"head alone, documentation": head_only.curve, "all weights, our texts": whole.curve[len(head_only.curve):]}
show(("masked-LM model", "updates", "loss at first", "at last", "masked pieces guessed, dev of the same texts"),
     [(name, rows[-1]["step"], f"{rows[0]['loss']:.2f}", f"{rows[-1]['loss']:.2f}", f"{rows[-1]['dev']:.1%}")
      for name, rows in curves.items()])

# %% [markdown]
r"""
The two percentages are measured on different texts, so do not subtract them. The words tell more.

### 4.2 Candidates

For every word of one piece the model sees the text with this word masked. Words of several pieces get their nearest
neighbours in the word table instead (in the paper: by GloVe vectors). Stop words and what is not alphabetic stay as
they are.
"""

# %%
finders = {name: augmentation.Candidates(model) for name, model in zip(curves, (head_only, whole))}
examples = ["turn off the lights in the kitchen", "remind me to call mum before I text Anna", sentence]
found = {name: find(examples) for name, find in finders.items()}
rows = []
for place, text in enumerate(examples):
    columns = [{(first, last): words for first, last, words in texts[place]} for texts in found.values()]
    for first, last in columns[-1]:
        rows.append((text[first:last], *(", ".join(column.get((first, last), "–")[:6]) for column in columns)))
show(("word", *found), rows)

# %% [markdown]
r"""
Read down a column, then along a row. If a column offers much the same words at every place, its model has learned how
frequent words are, but not to read the gap. If the candidates fit the gap but come from another world, it has read too
much documentation. A helper for augmentation must know the language of the task. (The authors have a full BERT with its
own pre-trained head; ours is a stopgap that a laptop can make.) And look for what is missing: *don't*, since a word
with an apostrophe never changes, so that a copy keeps its negation; and stop words, to which the authors' list counts
*off* and *before*. We go on with the second model.

<details><summary>What came out here</summary>

The head alone offers *the, a, of* everywhere: it guesses 10.1 % of the masked pieces, by frequency. The second
model offers *bathroom* for *kitchen* and *music* for *jazz*. But also *stop* for *play*, and *heating* for
*lights*: words that fit the gap and change the command.

</details>

### 4.3 What augmentation does to number and meaning

More copies give more texts, but equal ones are dropped. And does a copy still mean what its text meant? The candidates
were chosen to fit the gap, and *stop* fits where *start* stood. We ask the teacher: to how many copies does it give the
answer that it gave to the text itself?
"""

# %%
some = data.train.texts[:10 if FAST else 100]
slots, answers, rows = finders["all weights, our texts"](some), teacher.predict(some).argmax(-1), []
for chance, number in ((0.1, 3), (0.4, 1), (0.4, 3), (0.4, 20), (0.8, 3)):
    random = np.random.default_rng(SEED)
    copies = [(copy, answer) for text, slot, answer in zip(some, slots, answers) for copy in sorted(
        {augmentation.change(text, slot, random, chance) for _ in range(number)} - {text})]
    kept = np.mean(teacher.predict([copy for copy, _ in copies]).argmax(-1) == [answer for _, answer in copies])
    rows.append((chance, number, len(some), len(some) + len(copies), (1 + number) * len(some), f"{kept:.0%}"))
show(("chance of a word", "copies asked for", "texts before", "texts after", "if all copies differed",
      "teacher's answer kept"), rows)

# %% [markdown]
r"""
Where the last column is below 100 %, an inherited label would be doubtful. For TinyBERT that is no harm in itself: its
losses ask the *teacher* about the copy, not the label of the text it came from. For ordinary fine-tuning it is one. So
the comparison below has both: TinyBERT with copies, and a student that learns from the same copies under their
inherited labels.

<details><summary>What came out here</summary>

At the chance 0.4 the teacher keeps its answer for 63 to 72 % of the copies, at 0.8 for 40 %. So about a third of
the inherited labels are doubtful.

</details>

Up to three copies of each text; the number of updates stays what it was, so each single text is seen less often.
(`tinybert.compress` does the same when given `copies` and `mlm`.)
"""

# %%
more = augmentation.augmented(data, whole, copies=3, seed=SEED)
updates = small_training.num_steps(len(data.train.texts))
num_batches = -(-len(more.train.texts) // small_training.batch_size)
same_updates = small_training.replace(epochs=updates / num_batches)
print(f"{len(data.train.texts):,} -> {len(more.train.texts):,} texts;",
      f"{updates} -> {same_updates.num_steps(len(more.train.texts))} updates")
tiny3_copies = tinybert.compress(teacher, more, seed=SEED, training=same_updates, num_layers=3)

# %% [markdown]
r"""
## 5. Was it worth it? Fair baselines

### 5.1 The table

All small models have the same size and get the same number of updates at the same learning rate. Beside the three
distilled ones there are four that saw nothing but labels:

- `plain-3`: the bottom three layers of the *pre-trained* model, fine-tuned in the usual way;
- `truncated-3`: the bottom three layers of the *fine-tuned* teacher, fine-tuned on. `pkd-3` starts from exactly these
  weights, so the difference is the method, and nothing else;
- `spread-3`: the teacher's layers $g(1), g(2), g(3)$, fine-tuned on. These are the weights from which `tinybert-3`
  starts;
- `spread-3, copies`: the same, on the augmented texts.

Above them the teacher; below them two that need no BERT: TF-IDF with a linear model, and the most frequent class.
"""

# %%
models = {"teacher": teacher, "pkd-3": pkd3, "tinybert-3": tiny3, "tinybert-3, copies": tiny3_copies}
for name, origin, how, texts, settings in (("plain-3", minilm, "bottom", data, small_training),
                                           ("truncated-3", teacher, "bottom", data, small_training),
                                           ("spread-3", teacher, "last-of-block", data, small_training),
                                           ("spread-3, copies", teacher, "last-of-block", more, same_updates)):
    models[name] = truncation.compress(origin, texts, seed=SEED, training=settings, num_layers=3, how=how)
results = {name: accuracy.evaluate(model, data.test) for name, model in models.items()}
results |= {row["name"]: result for row, result in baselines.baselines(data)}

# %%
def percent(result):
    return f"{100 * result['value']:.1f} ± {100 * result['se']:.1f}"


def minus(name, other):
    """Accuracy of one model minus another's on the same test texts, in points, with a 95 % interval."""
    pair = accuracy.paired_difference("accuracy", results[name]["scores"], results[other]["scores"])
    return "–" if name == other else "{:+.1f} [{:+.1f}, {:+.1f}]".format(
        *(100 * pair[key] for key in ("difference", "low", "high")))


# %%
rows = []
for name, result in results.items():
    model = models.get(name)
    rows.append((name, f"{model.model.count_params():,}" if model else "–",
                 percent(accuracy.evaluate(model, data.dev)) if model else "–", percent(result), result["n"], 1,
                 minus("pkd-3", name), minus("tinybert-3", name)))
show(("model", "parameters", "dev, % ± SE", "test, % ± SE", "n (test)", "seeds", "pkd-3 minus this [95 %]",
      "tinybert-3 minus this [95 %]"), rows)
print(f"dev: {len(data.dev.texts):,} texts; differences in points, on the test texts")

# %% [markdown]
r"""
How to read it. **SE** is the standard error (标准误) over the examples: what other test texts would change. The last two
columns are **paired**: both models answer the same texts, and only the texts on which they differ count. An interval
that contains 0 does not say that two models are equal; it says that this test cannot tell them apart.

Go first to the row that has the same start: `truncated-3` for PKD, `spread-3` for TinyBERT. Those two need no large
model running beside them and no new loss. Where a method's interval against its row contains 0, the method has not
shown here that it is worth its effort; where it lies below 0, the method has done harm on these texts, with this seed.
Then compare *dev* and *test*: the two hold other phrasings and other words and need not put the models in the same
order.

<details><summary>What came out here</summary>

`pkd-3` against `truncated-3`: +0.3 [-1.3, +1.9]. `tinybert-3` against `spread-3`: +0.9 [-0.8, +2.5]. Neither method
has shown here that it is worth its effort. The copies did not help TinyBERT (+0.1), and `spread-3` fell from 72.1
to 70.7 % with them: doubtful labels.

</details>
"""

# %%
names = [name for name in results if name != "majority"]
figure, axes = plt.subplots(figsize=(6, 3.2))
for place, name in enumerate(names):
    colour = ACCENT if name.startswith(("pkd", "tinybert")) else INK if name == "teacher" else GREY
    axes.errorbar(100 * results[name]["value"], place, xerr=196 * results[name]["se"], fmt="o", color=colour)
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="test accuracy, % (bars: 95 % intervals)", ylim=(len(names) - .5, -.5));

# %% [markdown]
r"""
### 5.2 Did they learn to imitate?

Accuracy asks for the labels; the losses asked for something else. We measure that something on the 32 texts of dev:
$L_{PT}$ of [CLS] as in PKD, $L_{attn}$ of each layer as in TinyBERT. The last column is the share of test texts to
which a model gives the teacher's answer, right or wrong. The first two rows are the two starts, before any training.
"""

# %%
def imitation(model):
    """L_PT, and L_attn of each layer, over the 32 texts of dev."""
    inside, mask = look_inside(model, inputs), inputs["input_mask"]
    cls = [inside["hidden_states"][layer][:, 0] for layer in (1, 2)]
    return [pkd.patience_loss(their_cls, cls)] + [tinybert.attention_loss(
        theirs["attention_scores"][g[m] - 1], inside["attention_scores"][m - 1], mask) for m in (1, 2, 3)]


# %%
untrained, rows = {"bottom layers, untrained": bottom, "spread layers, untrained": spread}, []
for name in (*untrained, "truncated-3", "pkd-3", "spread-3", "tinybert-3", "tinybert-3, copies"):
    model = untrained.get(name) or models[name]
    answers = results[name] if name in results else accuracy.evaluate(model, data.test)
    same = accuracy.agreement(answers["predictions"], results["teacher"]["predictions"])
    patient, *attentive = imitation(model)
    rows.append((name, f"{patient:.5f}", *(f"{loss:.3f}" for loss in attentive), f"{same:.1%}"))
show(("model", "L_PT", *(f"L_attn, layer {m}" for m in (1, 2, 3)), "answers as the teacher"), rows)

# %% [markdown]
r"""
Look at what each method was *not* asked for. PKD never saw an attention map; TinyBERT saw [CLS] as one token among
many, and through the projection, which is gone here; `truncated-3` and `spread-3` saw neither. And compare the columns
with the table above: a model that imitates better inside need not answer better. The inside was a means; a means can
succeed and miss the end.

<details><summary>What came out here</summary>

TinyBERT's attention is by far the nearest to its teacher's, and it gives the teacher's answer most often (84.5 %).
Yet its accuracy is 73.0 %, that of `truncated-3` 72.9 %, whose attention is the farthest in layer 1 (18.820).
`pkd-3` did not lower $L_{attn}$ either: it was never asked.

</details>

## 6. An honest reading

What may we say after this lesson? Let the numbers write the sentences.
"""

# %%
pairs = [(name, other) for name, same_start in (("pkd-3", "truncated-3"), ("tinybert-3", "spread-3"))
         for other in (same_start, "plain-3", "teacher", "majority")]
pairs += [("tinybert-3", "pkd-3"), ("tinybert-3, copies", "tinybert-3"), ("tinybert-3, copies", "spread-3, copies")]
for name, other in pairs:
    pair = accuracy.paired_difference("accuracy", results[name]["scores"], results[other]["scores"])
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"On these {pair['n']:,} test texts, with this seed, {name} {verdict} {other} "
          f"({100 * pair['difference']:+.1f} points).")

# %% [markdown]
r"""
And what may we *not* say?

- **One seed is one course of lessons.** The intervals know nothing of other seeds, and small models often differ
  between seeds by about as much as methods differ from each other; `python -m keras_compress run distillation-study`
  takes more seeds and public sets; there copies show no gain either
  (`data/results`). And of eleven comparisons at 95 %, one may well be off by chance alone.
- **This is not the papers' setting.** Their teachers have 12 layers; PKD's student starts from pre-trained layers,
  TinyBERT's thin student from the general stage. Our students start from the teacher itself and know much already: that
  may leave a method little to add. And the factors ($\alpha$, $\beta$, $T$, `inside_share`) are the package's defaults;
  PKD's authors choose theirs from a grid, on dev.
- **PKD against TinyBERT** is not method against method: they start from different layers. Only a comparison with the
  same start speaks of the method.
- **One learning rate for all small models** is simple, but not fair to the last point. A sum of losses has another
  scale than a cross-entropy, and may want another rate.
- **`assistant` is a made set.** It shows that the path works and what kind of error a small model makes; claims about
  methods rest on public sets.
- **Equal updates are not equal cost.** In distillation the large model runs beside the small one in every update (or
  once per text, with room on the disk), and augmentation needs a third model. What is saved is saved at inference
  (推理).

## 7. Where to read on

- Sun, Cheng, Gan, Liu: *Patient Knowledge Distillation for BERT Model Compression*, EMNLP 2019,
  [arXiv:1908.09355](https://arxiv.org/abs/1908.09355); `keras_compress/distillation/pkd.py`.
- Jiao, Yin, Shang, Jiang, Chen, Li, Wang, Liu: *TinyBERT: Distilling BERT for Natural Language Understanding*, Findings
  of EMNLP 2020, [arXiv:1909.10351](https://arxiv.org/abs/1909.10351); `keras_compress/distillation/tinybert.py` and
  `augmentation.py`.
- `keras_compress/training/distill.py`: the engine under both. Which method needs which outputs, and where is it
  made sure that the teacher gets no gradient?
- Try it: `layer_map="last"` for PKD; `beta=0.0`, and you have ordinary distillation; for TinyBERT
  `layer_map="top"`, `losses=("attn",)`, `inside_share=0.0`, or the thin student of Section 3.4 with many more updates.
  Write down what you expect before you run it.
- Your own data: `python -m keras_compress run --data FOLDER`; the form of the folder is in `data/README.md`.
"""

# %% [markdown]
r"""
## 8. In five lines

- PKD follows the teacher's [CLS] in chosen layers; TinyBERT compares every token, and the attention scores before
  the softmax.
- A factor has a meaning only with its reduction: sum and mean differ by 768 here.
- Padding must leave no trace in a loss. Write a NaN into it and look.
- TinyBERT imitated its teacher well, and was not measurably better than its own start, fine-tuned: +0.9 points,
  interval with 0.
- Copies of texts change meaning. A teacher can answer them; an inherited label is doubtful.
"""

# %% [markdown]
r"""
## 9. Five questions

**1.** In this lesson $\beta = 100$ and $L_{PT}$ adds 0.006. What follows?

- **a** Patience does not work.
- **b** The run cannot speak about patience.
- **c** The student imitates [CLS] perfectly.

<details><summary>Answers, and why</summary>

- **a** No. It was hardly tried: before training it is 0.3 % of the sum.
- **b** Right. Two other parts outvote it. A fair test needs a $\beta$ that gives it weight, or layers where [CLS]
  says something.
- **c** No. It was that small before training, because [CLS] is nearly the same for all texts there.

</details>

**2.** A paper gives $\beta = 500$ and writes a sum; its code takes a mean. You write a sum. Which $\beta$ gives the
code's loss here?

- **a** 500 divided by layers times width.
- **b** 500: the minimum is the same.
- **c** 500 divided by the batch size.

<details><summary>Answers, and why</summary>

- **a** Right. The sum is that many times the mean, so the factor must be that much smaller.
- **b** No. Of this part alone, yes. But it is added to others, and its weight counts.
- **c** No. Both forms are means over texts. They differ in layers and dimensions.

</details>

**3.** Why do the scores need no projection in a thinner student, while hidden states do?

- **a** Scores are already normalised by the softmax.
- **b** The last stage corrects them anyway.
- **c** Their shape depends on heads and tokens, not on the width.

<details><summary>Answers, and why</summary>

- **a** No. They are compared *before* the softmax.
- **b** No. The last stage compares answers only.
- **c** Right. Section 3.4: (32, 12, 42, 42) for both.

</details>

**4.** The loss over everything is 3.4573 at length 42 and 4.8973 at 96, for the same texts. What is the harm in
training?

- **a** None: padding has no gradient.
- **b** The loss's weight changes from batch to batch with the padding, and noise is learned.
- **c** The model can no longer be padded differently on a phone.

<details><summary>Answers, and why</summary>

- **a** No. It has: the squared difference at padding is part of the mean.
- **b** Right. Neither lies in the texts. The masked loss stays at 3.6198.
- **c** No. The mask inside the model is untouched; this is about the loss.

</details>

**5.** `tinybert-3` answers as its teacher in 84.5 %, `truncated-3` in 78.9 %; their accuracies are 73.0 and 72.9 %.
How can that be?

- **a** It agrees more where the teacher is wrong, too.
- **b** Agreement was measured on other texts.
- **c** One of the two numbers must be wrong.

<details><summary>Answers, and why</summary>

- **a** Right. Agreement counts shared mistakes. Imitating better is not answering better.
- **b** No. Both are over the test texts.
- **c** No. Both can hold: the teacher itself is right on 80.8 %.

</details>
"""

# %% [markdown]
r"""
## 10. A challenge

Give patience a fair trial: three students with `beta=0.0`, `beta=100.0` and `beta=10000.0`, each with *skip* and
*last*, all with the same updates. Draw the share of each part in the sum. Which of the six hears its teacher's
[CLS]? Does it answer better than the one with `beta=0.0`, by a paired interval?
"""
