# %% [markdown]
r"""
# Lesson 4 · ALBERT and the vocabulary: where BERT keeps its bytes

**After this lesson you can** say where the parameters of a BERT are, and where its time goes; split the word table into
two factors, and measure what is lost; let layers share their weights, and tell what that saves and what it does not;
drop the word pieces that the data never use, so that a text whose pieces all stay keeps its answer to the last bit; and
compare all of this with a model that did nothing but train one epoch more.

**You need** Lesson 1 (and 0): the data and the large model are the same. Further what a singular value is.

**Time** about 20 minutes of computing on a laptop CPU with two cores, an hour with the exercises (10 points).
**Memory** 6 GB. **Seed** 0, everywhere. Start Jupyter with the environment variable `KERAS_COMPRESS_FAST=1` for a
dry run in under a minute, whose numbers mean nothing.
"""

# %%
import os, sys, tempfile

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np

from keras_compress import datasets
from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.factorization import albert, define
from keras_compress.measure import accuracy, baselines, cost
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.pruning import layers as truncation, vocabulary
from keras_compress.training.finetune import Training, finetune

# %% [markdown]
r"""
The settings of the whole lesson, in one place. `training` makes the large model, as in Lesson 1; `recovery` is the
short training of every model whose word table was compressed, and `longer` that of every model with fewer layers' worth
of weights: three epochs at a higher rate, since one brings little back.
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 32, "num_dev": 20, "num_test": 40} if FAST else {"num_train": 2500}
NARROW, WIDE = (8, 16) if FAST else (64, 128)                 # two widths of the word table
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=3)
recovery = training.replace(epochs=1, evaluations=1)
longer = training.replace(learning_rate=5e-4, evaluations=1)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. Where the parameters are, and where the time goes

A BERT with $V$ word pieces, $P$ positions, $T$ token types, hidden size $H$, feed-forward size $f$ and $L$ layers looks
up each piece in a **word table** (词表矩阵) of $V \times H$ numbers, and then computes $L$ layers. A layer
normalisation has $2 H$ parameters; the pooler, which some models leave out, is a dense layer on [CLS]. For a text of
$n$ pieces a multiply-add counts as two operations; to look something up costs none.

| part | parameters | operations |
|---|---|---|
| word table | $V H$ | 0 |
| positions and types | $(P + T + 2) H$ | 0 |
| attention, all layers | $L\,(4 H^2 + 6 H)$ | $L\,(8 n H^2 + 4 n^2 H)$ |
| feed-forward, all layers | $L\,(2 H f + f + 3 H)$ | $L\,4 n H f$ |
| pooler | $H^2 + H$ | $2 H^2$ |
"""

# %%
def anatomy(config, n=64):
    """{part: (parameters, operations for a text of n pieces)} of a BERT without a classifier."""
    h, f, layers = config.hidden_size, config.intermediate_size, config.num_layers
    found = {"word table": (config.vocab_size * h, 0),
             "positions, types": ((config.max_position_embeddings + config.type_vocab_size + 2) * h, 0),
             "attention": (layers * (4 * h * h + 6 * h), layers * (8 * n * h * h + 4 * n * n * h)),
             "feed-forward": (layers * (2 * h * f + f + 3 * h), layers * 4 * n * h * f),
             "pooler": (h * h + h, 2 * h * h) if config.pooling == "pooler" else (0, 0)}
    assert [sum(column) for column in zip(*found.values())] == [cost.parameters(config), cost.flops(config, n)]
    return found


# %% [markdown]
r"""
(The `assert` compares with the package, which counts weight by weight in its tests.) Three models: BERT-base in
English, with 30,522 pieces, in Chinese, with 21,128, and the six narrow layers of MiniLM, with which we work.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
configs = {"BERT-base, English": BertConfig(), "BERT-base, Chinese": BertConfig(vocab_size=21128),
           "MiniLM": minilm.config}
colours = {"word table": ACCENT, "positions, types": "#9cc3ee", "attention": INK, "feed-forward": GREY, "pooler": PALE}
figure, panels = plt.subplots(1, 2, figsize=(9.5, 2.4), sharey=True)
for place, (axes, what, unit) in enumerate(zip(panels, ("parameters", "operations"), (1e6, 1e9))):
    for row, config in enumerate(configs.values()):
        amounts = [amount[place] for amount in anatomy(config).values()]
        starts = np.cumsum([0, *amounts[:-1]]) / sum(amounts)
        axes.barh([row] * len(amounts), np.divide(amounts, sum(amounts)), left=starts, color=list(colours.values()))
        axes.text(1.01, row, f"{sum(amounts) / unit:.1f} {'M' if place == 0 else 'G'}", va="center", fontsize=9)
    axes.set(title=what, yticks=range(3), yticklabels=list(configs), ylim=(2.6, -.6), xticks=(0, .5, 1), xlim=(0, 1.15))
    axes.grid(False)

# %%
figure, axes = plt.subplots(figsize=(9.5, .3))
axes.axis("off")
axes.legend([plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()], list(colours), ncols=5,
            frameon=False, loc="center")
for name, config in configs.items():
    table, _ = anatomy(config)["word table"]
    print(f"{name:20} the word table holds {table:>10,} of {cost.parameters(config):>11,} parameters "
          f"({table / cost.parameters(config):.0%})")

# %% [markdown]
r"""
Compare left and right. The word table is a matter of bytes: looking up a row takes no operations. The layers take them
all; their bytes are the larger share in a wide, deep model, and the smaller one in a small model. So three different
savings are worth a look, one for each block: **factorise** the table, **share** the layers' weights, **prune** the
vocabulary. The first two are from ALBERT (Lan et al., 2020). None of them makes a layer faster; keep that in mind.

The large model, once more fine-tuned as in Lesson 1:
"""

# %%
if FAST:                                                      # random weights, narrow and shallow
    narrow = minilm.config.replace(hidden_size=24, num_layers=2, num_heads=2, intermediate_size=48)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
predecessor = finetune(minilm, data, seed=SEED, training=training)


def percent(result):
    return f"{100 * result['value']:.1f} ± {100 * result['se']:.1f}"


on_dev = accuracy.evaluate(predecessor, data.dev)
print(f"predecessor: dev {percent(on_dev)} % of {on_dev['n']:,} texts")

# %% [markdown]
r"""
## 2. Factorise the word table

### 2.1 Two thin matrices

A piece's row has $H$ numbers because the layers want that width, not because a piece needs so many. ALBERT (Section
3.1) gives it $E < H$ numbers, and maps them to $H$ with one matrix that all pieces share:

$$V \times H \quad\longrightarrow\quad V \times E \;+\; E \times H.$$

### Exercise 1 (3 points): when does it pay?

The projection has a bias of $H$ numbers, too. Write which share of the table's parameters is saved. Below which $E$ is
it positive?

<details><summary>Hint 1</summary>

Count the numbers in both versions: once the table, once the two factors.

</details>

<details><summary>Hint 2</summary>

Do not forget the bias, which all pieces share.

</details>

<details><summary>Hint 3</summary>

The share saved is 1 minus new divided by old.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "saved_share", "locked": false, "schema_version": 3, "solution": true, "task": false}
def saved_share(vocab_size, hidden_size, embedding_size):
    """Share of the word table's parameters that factorising saves; negative where it costs some.

    Args:
        vocab_size, hidden_size, embedding_size: V, H and E.
    Returns:
        float, at most 1.
    """
    ### BEGIN SOLUTION
    after = vocab_size * embedding_size + embedding_size * hidden_size + hidden_size
    return 1 - after / (vocab_size * hidden_size)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "saved_share_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: a small table by hand, with the bias
np.testing.assert_allclose(saved_share(100, 10, 2), 1 - (200 + 20 + 10) / 1000)
#: 0.5 points: a table of real size; as wide as before
np.testing.assert_allclose(saved_share(21128, 768, 128), 0.8272, atol=1e-4)       # Chinese BERT-base: 16.2 M -> 2.8 M
assert saved_share(30522, 384, 384) < 0                                           # as wide as before: only more
print("saved_share: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
#: 1 point: what the package counts
generator_ = np.random.default_rng(SEED)
for v_, h_, e_ in zip(*(generator_.integers(low, high, 5) for low, high in ((500, 30000), (100, 800), (2, 90)))):
    wide_ = BertConfig(vocab_size=int(v_), hidden_size=int(h_), num_heads=1)
    gone_ = cost.parameters(wide_) - cost.parameters(wide_.replace(embedding_size=int(e_)))
    np.testing.assert_allclose(saved_share(int(v_), int(h_), int(e_)), gone_ / (v_ * h_))
#: 1 point: from which E on it costs
assert saved_share(1000, 100, 90) > 0 > saved_share(1000, 100, 91)                # E < H (V - 1) / (V + H) = 90.8
assert saved_share(11, 10, 4) > 0 > saved_share(11, 10, 5)                        # 4.76; without the bias 5.24
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.2 The best factors

ALBERT trains the factors from scratch. We have a trained table, and want the two thin matrices whose product is nearest
to it. Eckart and Young (1936) say which: cut the **singular value decomposition** (奇异值分解, SVD) after $E$ terms. What is
lost is the tail of the singular values $\sigma_i$; relative to the table's own norm

$$\text{error}(E) = \sqrt{\frac{\sum_{i > E} \sigma_i^2}{\sum_i \sigma_i^2}}.$$

How much that is depends on the table. A random table of the same shape has no structure that could be used.
"""

# %%
table = predecessor.weights()["word_embeddings/embeddings"]
random_table = np.random.default_rng(SEED).normal(size=table.shape)
figure, axes = plt.subplots(figsize=(5.6, 3))
for name, numbers, colour, dashes in (("trained table", table, ACCENT, "-"),
                                      ("random table", random_table, GREY, "--")):
    squares = np.linalg.svd(numbers, compute_uv=False).astype(np.float64) ** 2
    errors = np.sqrt(np.maximum(0, 1 - np.cumsum(squares) / squares.sum()))
    axes.plot(range(1, len(errors) + 1), errors, color=colour, linestyle=dashes, label=name)
    print(f"{name}: " + ", ".join(f"E = {size}: {errors[size - 1]:.2f}" for size in (NARROW, WIDE)))
axes.set(xlabel="E", ylabel="relative error of the best factors", ylim=(0, 1.05))
axes.legend(frameon=False);

# %% [markdown]
r"""
How far is the blue line below the grey one? The distance is the structure that this table has, and it is all that a
factorisation can use. If the two lie near each other, the table is no neat product of two thin matrices, and we must
hope for the layers above to put up with the error.

<details><summary>What came out here</summary>

At $E = 64$ the error is 0.74 for the trained table and 0.90 for a random one; at 128 it is 0.58 and 0.79. There is
structure, but not much: the table is no neat product of two thin matrices.

</details>

### Exercise 2 (4 points): the SVD by hand

Write the factors with `np.linalg.svd`, and the error from the singular values alone, without multiplying the factors.

<details><summary>Hint 1</summary>

The SVD gives three parts, and NumPy gives the singular values largest first.

</details>

<details><summary>Hint 2</summary>

Ask for the short form (`full_matrices=False`), or the left part becomes V by V.

</details>

<details><summary>Hint 3</summary>

Keep the first `size` columns, values and rows. The singular values may go into either factor, but only once.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "best_factors", "locked": false, "schema_version": 3, "solution": true, "task": false}
def best_factors(table, size):
    """The best factors of rank E: table ~ narrow @ projection.

    Args:
        table: float array, (V, H). size: E, 1 to min(V, H).
    Returns:
        (narrow (V, E), projection (E, H), relative error as a float: norm of the rest over norm of the table).
    """
    ### BEGIN SOLUTION
    u, s, v = np.linalg.svd(table, full_matrices=False)
    return u[:, :size] * s[:size], v[:size], float(np.sqrt((s[size:] ** 2).sum() / (s ** 2).sum()))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "best_factors_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
example = np.diag([3.0, 2.0, 6.0])                                                # singular values 6, 3, 2
#: 0.5 points: the product of the factors
narrow_, projection_, error_ = best_factors(example, 2)
np.testing.assert_allclose(narrow_ @ projection_, np.diag([3.0, 0.0, 6.0]), atol=1e-9)
#: 0.5 points: the relative error
np.testing.assert_allclose(best_factors(example, 2)[2], 2 / 7)                    # sqrt(4 / (36 + 9 + 4))
#: 0.5 points: the shapes of the factors
narrow_, projection_, error_ = best_factors(example, 2)
assert narrow_.shape == (3, 2) and projection_.shape == (2, 3)
print("best_factors: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.linalg
numbers_ = np.random.default_rng(SEED).normal(size=(30, 8)) ** 3
rest_ = lambda size: np.linalg.norm(numbers_ - np.matmul(*best_factors(numbers_, size)[:2])) / np.linalg.norm(numbers_)
#: 1 point: no other factors come nearer
for size_ in range(1, 8):
    np.testing.assert_allclose(rest_(size_), albert.factorize_table(numbers_, size_)[2], atol=1e-6)
#: 1 point: the error from the singular values, for every E
for size_ in range(1, 8):
    np.testing.assert_allclose(best_factors(numbers_, size_)[2], albert.factorize_table(numbers_, size_)[2], atol=1e-6)
#: 0.5 points: all of the rank leaves no error
assert rest_(8) < 1e-9 and abs(best_factors(numbers_, 8)[2]) < 1e-9
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.3 What the error costs

An error of a table is not yet an error of the model. `albert.factorize` replaces the table and leaves all else as it
was; nothing is trained yet. Positions and types are added after the projection, at width $H$, and are normalised there,
so that the layers find what they are used to. (ALBERT adds them before, at width $E$.)
"""

# %%
def show_widths(importance=None):
    rows = []
    for size in sorted({NARROW // 2, NARROW, WIDE, (WIDE + table.shape[1]) // 2}):
        model, error = albert.factorize(predecessor, size, importance, seed=SEED)
        found = accuracy.evaluate(model, data.dev)
        change = accuracy.paired_difference("accuracy", found["scores"], on_dev["scores"])
        saved = (cost.parameters(predecessor.config) - cost.parameters(model.config)) / table.size
        rows.append((size, f"{saved:.0%}", f"{model.model.count_params():,}", f"{error:.2f}",
                     percent(found), f"{100 * change['difference']:+.1f}"))
    show(("E", "saved of the table", "parameters", "relative error", "dev without training, %", "minus predecessor"), rows)


show_widths()

# %% [markdown]
r"""
Read the columns *relative error* and *minus predecessor* together. Here the model does not put up with the error: even
the smallest in the table costs about ten points before training, and at narrow widths most of what was learned is gone.
Section 5 shows how much one epoch of training wins back.

Must it cost so much? The SVD treats a piece that no text uses like the most frequent one. So give the
squared error of each row a weight, $c_v / \bar c + 1$: $c_v$ counts the piece in the training texts, $\bar c$ is the mean
count, and the 1 is for pieces never seen. This is a **weighted SVD** (加权 SVD). Each row is multiplied by the root of its
weight; the SVD of these rows gives another projection, and the rows themselves are projected as they are. What will happen to the relative error, and what to the accuracy?

<details><summary>What came out here</summary>

The error rises, and so does the accuracy. At $E = 128$ the error goes from 0.58 to 0.63, dev from 45.5 to 87.0 %.
At 64 it goes from 0.74 to 0.79, dev from 17.7 to 83.0 %. The error is moved to rows that no text uses.

</details>
"""

# %%
show_widths(albert.row_importance("counts", data, predecessor.tokenizer))

# %% [markdown]
r"""
The same widths, as many parameters. Compare both tables row by row, first the errors, then the accuracies. What matters
is not how much of a table is lost but which part of it. `albert.compress` weights the rows so, unless it is told
`row_weights="none"`.

### 2.4 A better map than a linear one?

The map from $E$ to $H$ need not be one matrix. DeFINE (Mehta et al., 2020) makes it deep, with an **HGT** (hierarchical
group transformation): several thin layers, each split into groups. Our three adapters start exactly where the SVD is;
the MLP and the HGT are then fitted to the old table, piece by piece, without any text. (Here all pieces count alike;
`define.compress` weights them as above.)
"""

# %%
rows = []
for adapter in ("linear", "mlp", "hgt"):
    config = predecessor.config.replace(embedding_size=NARROW, adapter=adapter)
    _, errors = define.fit_adapter(config, table, 5 if FAST else 300, seed=SEED)
    shapes = "; ".join(f"{inputs} → {outputs}, {groups} group{'s' * (groups > 1)}" for inputs, outputs, groups in
                       config.adapter_shapes)
    extra = cost.parameters(config) - cost.parameters(config.replace(adapter="linear"))
    rows.append((adapter, shapes, f"{extra:+,}", f"{errors['svd_error']:.3f}", f"{errors['fit_error']:.3f}"))
show(("adapter", "transforms", "parameters more", "error of the SVD", "after the fit"), rows)

# %% [markdown]
r"""
In this error no linear map can beat the SVD; whatever the last column wins over the one before it is what depth is
worth here, and the third column is its price. A vector that an adapter makes depends on the piece alone. So it can be
computed for each token of a text, or **folded** (折叠) back into a plain table once and for all: small, or as quick as
before, not both.

<details><summary>What came out here</summary>

Little: the MLP brings the error from 0.741 to 0.739, the HGT to 0.726, for 66,360 parameters more.

</details>

## 3. Share the layers

### 3.1 One layer, used again and again

ALBERT's second saving: layers use the same weights. All of them, the attention alone, or the feed-forward network
alone; over the whole depth, or within groups of neighbours. In the picture a number is the layer whose weights are
used.
"""

# %%
figure, all_axes = plt.subplots(1, 4, figsize=(9.5, 2.6), sharey=True)
depth = predecessor.config.num_layers
for axes, (sharing, groups) in zip(all_axes, (("all", 1), ("attention", 1), ("ffn", 1), ("all", 2))):
    config = predecessor.config.replace(sharing=sharing, num_groups=groups)
    for column, part in enumerate(("attention", "ffn")):
        for layer in range(depth):
            owner = config.owner(layer, part)
            axes.text(column, layer, owner, ha="center", va="center", color="white" if owner == layer else GREY,
                      fontsize=9, bbox={"boxstyle": "round,pad=.35", "color": ACCENT if owner == layer else PALE})
    axes.set(title=f"{sharing}, {groups} group{'s' * (groups > 1)}: {cost.encoder_parameters(config) / 1e6:.1f} M",
             xlim=(-.7, 1.7), ylim=(-.6, depth - .4), xticks=(0, 1), xticklabels=("attention", "ffn"))
    axes.grid(False)
all_axes[0].set(ylabel="layer", yticks=range(depth));

# %% [markdown]
r"""
### Exercise 3 (3 points): where shared weights start

ALBERT shares from the first update on. We have $L$ trained layers, which are all different, and $G$ groups: layer $l$
belongs to group $\lfloor l\,G / L \rfloor$. A group's weights can start as the **mean** of its layers or as its
**first** layer. Write what each layer computes with.

<details><summary>Hint 1</summary>

First find the group of each layer, then what the group starts with.

</details>

<details><summary>Hint 2</summary>

The group is an integer division: multiply first, divide afterwards.

</details>

<details><summary>Hint 3</summary>

Return $L$ arrays, not $G$: a group's array stands there once for each of its layers.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "shared_start", "locked": false, "schema_version": 3, "solution": true, "task": false}
def shared_start(kernels, num_groups, how):
    """The weights that each layer uses after sharing.

    Args:
        kernels: list of L float arrays of one shape, one per layer. num_groups: G, which divides L.
        how: "mean" or "first".
    Returns:
        list of L float arrays; those of one group are equal.
    """
    ### BEGIN SOLUTION
    size = len(kernels) // num_groups
    groups = [kernels[first:first + size] for first in range(0, len(kernels), size)]
    return [np.mean(group, axis=0) if how == "mean" else group[0] for group in groups for _ in group]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "shared_start_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
four = [np.array([1.0]), np.array([3.0]), np.array([10.0]), np.array([20.0])]
#: 0.5 points: the mean of two neighbours; a group for every layer
np.testing.assert_allclose(np.ravel(shared_start(four, 2, "mean")), [2, 2, 15, 15])
np.testing.assert_allclose(np.ravel(shared_start(four, 4, "mean")), [1, 3, 10, 20])
#: 0.5 points: the first of two neighbours
np.testing.assert_allclose(np.ravel(shared_start(four, 2, "first")), [1, 1, 10, 10])
print("shared_start: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
kernels_ = list(np.random.default_rng(SEED).normal(size=(12, 3, 2)))
members_ = lambda layer, groups: [k for l, k in enumerate(kernels_) if l * groups // 12 == layer * groups // 12]
#: 1 point: means of random matrices
for groups_ in (1, 3, 6):
    wanted_ = [np.mean(members_(layer_, groups_), axis=0) for layer_ in range(12)]
    np.testing.assert_allclose(shared_start(kernels_, groups_, "mean"), wanted_)
#: 0.5 points: first layers of random matrices
for groups_ in (1, 3, 6):
    wanted_ = [members_(layer_, groups_)[0] for layer_ in range(12)]
    np.testing.assert_allclose(shared_start(kernels_, groups_, "first"), wanted_)
#: 0.5 points: an entry for every layer, equal in a group, and the input stays
before_ = np.array(kernels_)
for how_ in ("mean", "first"):
    found_ = np.array(shared_start(kernels_, 3, how_))
    assert found_.shape == (12, 3, 2) and all((found_[i] == found_[i - i % 4]).all() for i in range(12))
np.testing.assert_array_equal(kernels_, before_)
### END HIDDEN TESTS

# %% [markdown]
r"""
What is left of the model then? Not trained yet, and on dev:
"""

# %%
rows = []
for sharing, groups, how in (("attention", 1, "mean"), ("ffn", 1, "mean"), ("all", 1, "mean"), ("all", 1, "first"),
                             ("all", depth // 2, "mean")):
    model = albert.share_layers(predecessor, sharing, groups, how, seed=SEED)
    found = accuracy.evaluate(model, data.dev)
    rows.append((sharing, groups, how, f"{model.model.count_params():,}", percent(found)))
show(("shared", "groups", "start", "parameters", "dev without training, %"), rows)
print(f"predecessor: {percent(on_dev)} %; guessing: about {1 / len(data.labels):.0%}")

# %% [markdown]
r"""
Untrained, sharing leaves little of the model. One layer for six guesses, whether it starts from the mean or from the
first layer; three groups, or the feed-forward network alone, keep a little; attention alone keeps next to nothing. Why is
not measured here; one guess is that heads and hidden units stand in no common order from layer to layer. Where a row is
near guessing, the training that follows is more a new beginning than a recovery. ALBERT shares from the start.

<details><summary>What came out here</summary>

One layer for six: 5.6 % from the mean, 5.0 % from the first layer, where guessing has 5 %. The feed-forward network
alone keeps 26.2 %, three groups 22.7 %, attention alone 6.4 %. The predecessor has 87.2 %.

</details>

### 3.2 The gradient of a shared weight

Shared weights are one variable with $L$ uses, and its gradient is the sum over them. We compare with a copy of the
model in which every layer has weights of its own, equal ones: it computes the same, and must learn differently.
"""

# %%
shared = albert.share_layers(predecessor, "all", seed=SEED)
shared = shared.clone(config=shared.config.replace(dropout=0.0, attention_dropout=0.0))
copy = shared.keep_layers(range(depth))                       # each layer with weights of its own
inputs, labels = next(iter(data.batches("train", predecessor.tokenizer, 16, training.max_length)))
norms = {}
for name, model in (("shared", shared), ("copy", copy)):
    with tf.GradientTape() as tape:
        logits = model.model(inputs, training=False)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    kernels = [layer.kernel for layer in model.model.layers if layer.name.endswith("_query")]
    norms[name] = [gradient.numpy() for gradient in tape.gradient(loss, kernels)]
print(f"variables: shared {len(norms['shared'])}, copy {len(norms['copy'])}")
gap = np.abs(norms["shared"][0] - sum(norms["copy"])).max()
print(f"size of the shared gradient {np.linalg.norm(norms['shared'][0]):.2e}, of the copy's "
      + ", ".join(f"{np.linalg.norm(g):.2e}" for g in norms["copy"]) + f"; shared minus their sum: {gap:.0e}")

# %% [markdown]
r"""
### 3.3 Bytes, and no time

Now the promise that is most often misunderstood. A shared model has few parameters, and still computes every layer. To
see it, we export three models: the predecessor, the one that shares all, and one that really has a single layer
(`truncated-1`). The weights do not matter here, so nothing is trained.
"""

# %%
from mobile_export.benchmark import benchmark
from mobile_export.convert import export, exported_model

folder = tempfile.mkdtemp()
models = {"predecessor": predecessor, "shared-all": shared, "truncated-1": predecessor.keep_layers([0], seed=SEED)}
files = [export(model, f"{folder}/{name}.tflite", ("float32",), sequence_length=training.max_length,
                cls_only=False)[0] for name, model in models.items()]          # as `cost.flops` counts: layers in full
timings = benchmark(*(file["path"] for file in files), runs=5 if FAST else 50)
amounts = {"parameters": [model.model.count_params() for model in models.values()],
           "bytes of the file": [file["bytes"] for file in files],
           "operations": [cost.flops(model.config, training.max_length, len(data.labels)) for model in models.values()],
           "time": [timing["latency_ms_p50"] for timing in timings]}

# %%
figure, axes = plt.subplots(figsize=(7.5, 2.8))
for place, (name, colour) in enumerate(zip(models, (INK, ACCENT, GREY))):
    shares = [values[place] / values[0] for values in amounts.values()]
    bars = axes.bar(np.arange(len(amounts)) + .27 * (place - 1), shares, .25, color=colour, label=name)
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], fontsize=8, padding=2)
axes.set(xticks=range(len(amounts)), xticklabels=list(amounts), ylabel="predecessor = 1", ylim=(0, 1.25))
axes.grid(False, axis="x")
axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
print(f"{timings[0]['device']}; {timings[0]['threads']} thread; {timings[0]['sequence_length']} pieces; median of "
      f"{timings[0]['runs']} runs: " + ", ".join(f"{timing['latency_ms_p50']:.1f} ms" for timing in timings))

# %% [markdown]
r"""
Read the two blocks on the left: does sharing save what dropping five layers saves? A file that stored the shared
weights once per use would be as large as the predecessor's. Then the two on the right: what does it save of the
operations, and of the time? The honest rival of a shared model, byte for byte, is `truncated-1`: compare their times,
too. Section 5 shows who wins on accuracy.

<details><summary>What came out here</summary>

Sharing all layers saves what dropping five saves: about two fifths of parameters and bytes. Of the operations it
saves none, and of the time next to nothing: 11.1 ms against the predecessor's 11.3. `truncated-1` takes 2.0 ms.

</details>

## 4. Prune the vocabulary

### 4.1 Which pieces are used?

The word table holds a row for each of the pieces, and a phone's assistant will hardly ever meet most of them. We count
what the training texts use.
"""

# %%
counts = data.piece_counts(predecessor.tokenizer)
ordered = np.sort(counts)[::-1]
used = int((counts > 0).sum())
figure, axes = plt.subplots(figsize=(5.6, 2.6))
axes.semilogx(np.arange(1, len(ordered) + 1), np.cumsum(ordered) / ordered.sum(), color=ACCENT)
axes.axvline(used, color=GREY, linestyle=":")
axes.set(xlabel="pieces, most frequent first (dotted: the last one that occurs)", ylabel="share of all tokens")
print(f"{used:,} of {len(counts):,} pieces occur in {len(data.train.texts):,} texts; the {used // 10:,} most frequent "
      f"ones are {ordered[:used // 10].sum() / ordered.sum():.0%} of all tokens")

# %% [markdown]
r"""
The rule of `vocabulary.compress`: keep special pieces, all single characters, so that any word can still be spelled,
and what occurs at least `min_count` times. The rows of the others are cut out of the table, and the pieces that stay
get new numbers.

### 4.2 The same answers, to the last bit

WordPiece takes the longest piece that fits. If all pieces of a text are kept, the text is cut as before, each piece
finds its old row under a new number, and the model computes exactly what it computed. Exactly? We compare bits.
"""

# %%
fewer = vocabulary.compress(predecessor, data, seed=SEED)
texts = data.train.texts[:500]
before, after = (np.stack(model.forward(model.tokenizer.encode(texts, training.max_length)))
                 for model in (predecessor, fewer))
print(f"pieces {len(predecessor.tokenizer.vocab):,} -> {len(fewer.tokenizer.vocab):,}, parameters "
      f"{predecessor.model.count_params():,} -> {fewer.model.count_params():,} "
      f"({fewer.model.count_params() / predecessor.model.count_params() - 1:+.0%})")
print(f"{len(texts)} texts, {before.size:,} logits; equal to the last bit: {np.mean(before == after):.1%}; "
      f"largest difference {np.abs(before - after).max():.1e}")

# %% [markdown]
r"""
### 4.3 And words that training never showed?

They fall apart into smaller pieces, whose rows mean something else. `assistant` is built to show this: its dev and test
texts have words that no training text has. We split dev by whether all pieces of a text stayed.

<details><summary>What came out here</summary>

First the bits from above: of 10,000 logits 100.0 % are equal, with 11,809,556 in place of 22,573,076 parameters.

</details>
"""

# %%
def pieces(model, text):
    return [model.tokenizer.vocab[index] for index in model.tokenizer.encode([text], 512)[0].ids[1:-1]]


changed = np.array([pieces(predecessor, text) != pieces(fewer, text) for text in data.dev.texts])
for index in np.flatnonzero(changed)[:3]:
    print("   ->   ".join(" ".join(pieces(model, data.dev.texts[index])) for model in (predecessor, fewer)))
now = accuracy.evaluate(fewer, data.dev)
rows = [(name, int(group.sum()), *(f"{scores[group].mean():.1%}" if group.any() else "–" for scores in
                                   (on_dev["scores"], now["scores"])))
        for name, group in (("cut as before", ~changed), ("cut otherwise", changed), ("all", changed | ~changed))]
show(("dev texts", "number", "predecessor", "pruned, without training"), rows)

# %% [markdown]
r"""
In the first row nothing can change. The whole loss is in the second one, and its size depends on how much of the
language the training texts have shown. So count pieces on as much text as you have, labelled or not, and look how many
texts of dev are cut otherwise before you trust the figure. (The rate of unknown pieces tells nothing: with all
characters kept, hardly anything is unknown.) `keep` adds the words that your application must know.

<details><summary>What came out here</summary>

776 of 1000 dev texts are cut otherwise, and on these the accuracy falls from 85.2 to 74.6 %. On the other 224 it
stays at 94.2 %. Those were the easier ones before pruning already.

</details>

How far may one go? `min_count` drops rare pieces as well:

<details><summary>What came out here</summary>

The first step does nearly everything: from 30,522 to 2,492 pieces, from 87.2 to 79.0 %. Asking for 5 occurrences
drops only a few pieces more (2,447) and costs little more (78.2 %).

</details>
"""

# %%
rows = []
for min_count in (0, 1, 2, 5):
    model = vocabulary.compress(predecessor, data, min_count=min_count, seed=SEED)
    rows.append((min_count, f"{len(model.tokenizer.vocab):,}", f"{model.model.count_params():,}",
                 f"{model.history[-1]['cut_otherwise']:.1%}", percent(accuracy.evaluate(model, data.dev))))
show(("min_count", "pieces", "parameters", "dev texts cut otherwise", "dev without training, %"), rows)

# %% [markdown]
r"""
## 5. Recover, and compare

Now the compressed models are trained on the labels (`finetune`): those with another word table for one epoch,
and so is a model to which nothing was done, `control`: without it we would take for recovery what is only one epoch
more. The factors are weighted, but for `plain`; `stacked` is pruned first, then factorised. Shared layers need more:
they get three epochs at a higher rate, and so does their rival `truncated-1`. Compare these three with each other first.
"""

# %%
def recovered(model, training=recovery, **settings):
    small = albert.compress(model, data, seed=SEED, **settings) if settings else model
    return finetune(small, data, seed=SEED, training=training)


made = {"predecessor": predecessor, "control": recovered(predecessor), "vocabulary": recovered(fewer),
        f"factorised-{WIDE}": recovered(predecessor, embedding_size=WIDE),
        f"plain-{WIDE}": recovered(predecessor, embedding_size=WIDE, row_weights="none"),
        f"factorised-{NARROW}": recovered(predecessor, embedding_size=NARROW),
        "stacked": recovered(fewer, embedding_size=WIDE),
        "shared-attention": recovered(predecessor, longer, sharing="attention"),
        "shared-all": recovered(predecessor, longer, sharing="all"),
        "truncated-1": truncation.compress(predecessor, data, seed=SEED, training=longer, num_layers=1)}
results = {name: accuracy.evaluate(model, data.test) for name, model in made.items()}
results |= {row["name"]: result for row, result in baselines.baselines(data)}

# %%
def paired(name, other):
    return accuracy.paired_difference("accuracy", results[name]["scores"], results[other]["scores"])


def points(pair):
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))


rows = []
for name, result in results.items():
    model = made.get(name)
    rows.append((name, f"{model.model.count_params() / 1e6:.1f} M" if model else "–",
                 percent(accuracy.evaluate(model, data.dev)) if model else "–", percent(result),
                 points(paired(name, "control")) if name != "control" else "–"))
show(("model", "parameters", "dev, % ± SE", "test, % ± SE", "minus control, points [95 %]"), rows)
print(f"dev: {len(data.dev.texts):,} texts, test: {len(data.test.texts):,} texts, one seed")

# %%
figure, axes = plt.subplots(figsize=(7, 3.4))
for name, model in made.items():
    colour = INK if name in ("predecessor", "control") else GREY if name == "truncated-1" else ACCENT
    size, result = model.model.count_params() / 1e6, results[name]
    axes.errorbar(size, 100 * result["value"], 196 * result["se"], fmt="o", color=colour, linewidth=1)
    axes.annotate(name, (size, 100 * result["value"]), (6, 4), textcoords="offset points", fontsize=8, color=colour)
axes.axhline(100 * results["tfidf"]["value"], color=GREY, linestyle="--", linewidth=1)
axes.set(xlabel="parameters, millions (dashed: TF-IDF, without BERT)", ylabel="test accuracy, % (bars: 95 %)");

# %% [markdown]
r"""
How to read it. **SE** is the standard error over the examples. The last column is **paired** (配对): both models answer
the same texts, and only the texts on which they differ count. An interval that contains 0 does not say that two models
are equal; it says that this test cannot tell them apart.

Look at `predecessor` and `control` first: their difference is what one epoch more is worth, for nothing. Does dev say
the same as test? Then compare `vocabulary` with Section 4.3: what did its epoch win back? Training texts do not contain
the words that fell apart. And compare the factorised models with Section 2.3: the weighted one of $E = 128$ had more on dev
*before* this epoch. Our guess, not measured here: a model that has lost next to nothing has little to win from more labels, and
something to forget, what it knows of words that the labels do not show. `soft_targets` learns from
the predecessor's answers, too; factorization-study compares both ways, with a learning rate chosen on
dev for each. Then look at `shared-all` and `truncated-1`, which weigh the same, trained alike and do not
take the same time. (They and `shared-attention` trained three epochs, `control` one: for them it is no control of equal
length.) Which models lie below the dashed line, where no BERT is needed at all? And `stacked`: are the losses of its two
steps simply added?

<details><summary>What came out here</summary>

One epoch more is worth +3.0 points on test, and nothing on dev (87.2 and 87.3 %). `vocabulary` won nothing back:
79.3 % on dev after its epoch, 79.0 before. `factorised-128` had 87.0 before and 85.4 after. `factorised-64` beats
`factorised-128` on test (80.5 and 77.6 %) and loses on dev (83.5 and 85.4 %): no order can be read from that.
`shared-all` and `truncated-1` cannot be told apart (52.1 and 50.5 %). These two and `shared-attention` lie below
TF-IDF (58.1 %). `stacked` loses 13.9 points, its parts 10.3 and 6.2: here less than the sum.

</details>

## 6. Into a file for a phone

The savings multiply with the one of Lesson 1's Section 8, numbers of 8 bits. `export` compares each file with Keras
on dev before it is written.
"""

# %%
rows = []
for name in ("predecessor", "stacked"):
    for file in export(made[name], f"{folder}/{name}", ("float32", "int8"), sequence_length=training.max_length,
                       dev=data.dev):
        rows.append((name, file["format"], f"{file['bytes'] / 1e6:.1f}", f"{file['gzip_bytes'] / 1e6:.1f}",
                     f"{file['agreement']:.1%}"))
show(("model", "format", "MB", "MB after gzip", "same answer as Keras"), rows)
phone = exported_model(f"{folder}/stacked/int8.tflite", made["stacked"])
on_phone = accuracy.evaluate(phone, data.test)
change = accuracy.paired_difference("accuracy", on_phone["scores"], results["stacked"]["scores"])
print(f"stacked: Keras {percent(results['stacked'])} %, int8 file {percent(on_phone)} %, difference {points(change)}")

# %% [markdown]
r"""
## 7. An honest reading

What may we say after this lesson? Let the numbers write the sentences.
"""

# %%
def say(name, other):
    pair = paired(name, other)
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"On these {pair['n']:,} test texts, with this seed, {name} {verdict} {other} "
          f"({100 * pair['difference']:+.1f} points).")


for name in made:
    if name not in ("predecessor", "control"):
        say(name, "control")
say("control", "predecessor")
say("shared-all", "truncated-1")
say(f"factorised-{NARROW}", f"factorised-{WIDE}")
say(f"factorised-{WIDE}", f"plain-{WIDE}")

# %% [markdown]
r"""
And what may we *not* say?

- **This is not ALBERT.** The paper trains factorised, shared models from scratch on a large corpus, and makes them
  wider for the bytes that it saves. We turned a trained BERT into one, with few epochs to recover. What fails here may
  work there; `python -m keras_compress run pretraining-study` shows, on a small scale, how it goes from scratch.
- **One seed, and learning rates that nobody chose on dev.** The studies choose a rate for each, and repeat with more
  seeds and a second data set: `python -m keras_compress run factorization-study` and
  `python -m keras_compress run sharing-study`.
- **A pruned vocabulary is a bet on future texts.** The figure on test holds for texts like these. A new word costs what
  the second row of Section 4.3 says.
- **`assistant` is a made set**, with held-out words by design. On ordinary text the loss of pruning is smaller:
  0.2 points on SST-2's dev, where `assistant` loses 7.2 in the same trial (`data/results/README.md`) and 8.2 in Section
  4.3; claims about methods rest on public sets.

## 8. Where to read on

- Lan, Chen, Goodman, Gimpel, Sharma, Soricut: *ALBERT: A Lite BERT for Self-supervised Learning of Language
  Representations*, ICLR 2020, [arXiv:1909.11942](https://arxiv.org/abs/1909.11942). Section 3.1 is this lesson; its
  third idea, the order of sentences, is in `keras_compress/pretraining/masked_lm.py`.
- Mehta, Koncel-Kedziorski, Rastegari, Hajishirzi: *DeFINE: Deep Factorized Input Token Embeddings for Neural Sequence
  Modeling*, ICLR 2020, [arXiv:1911.12385](https://arxiv.org/abs/1911.12385).
- `keras_compress/factorization/albert.py` and `keras_compress/pruning/vocabulary.py`: both in little more than 100
  lines; the docstrings admit where we depart from the papers.
- Try it: `soft_targets` in place of `finetune`, which learns from the predecessor's answers, too; `num_groups=3`; `how="first"`;
  `scripts=["LATIN"]`; `define.compress` with `adapter="hgt"`. Write down what you expect before you run it.
"""

# %% [markdown]
r"""
## 9. In five lines

- The word table is bytes and no operations; the layers are all of the operations.
- Factorising: what counts is not how much of the table is lost but whether texts use it.
- Sharing layers saves parameters and bytes, and no time.
- Pruning the vocabulary keeps an answer to the last bit where all pieces stay, and costs accuracy where words fall
  apart.
- `control` had one epoch more and nothing compressed: +3.0 points on test. Without it this would pass for recovery.
"""

# %% [markdown]
r"""
## 10. Five questions

**1.** A model shares one layer's weights over all six. What does a phone gain?

- **a** A sixth of the time, since there is one layer.
- **b** A smaller file at the same speed.
- **c** Less memory for activations.

<details><summary>Answers, and why</summary>

- **a** No. Each of the six uses is computed. The file ran in 11.1 instead of 11.3 ms.
- **b** Right. The weights are stored once and used six times.
- **c** No. Every use still makes its own activations.

</details>

**2.** The weighted SVD has the larger error (0.63 against 0.58) and the better model (87.0 against 45.5 %). Why?

- **a** The error counts all rows alike; the model reads few of them.
- **b** The weights act as a regulariser, like dropout.
- **c** Dev is noisy; the difference is chance.

<details><summary>Answers, and why</summary>

- **a** Right. 511 of 30,522 pieces occur in the training texts. Their rows became more exact.
- **b** No. Nothing was trained between the two tables.
- **c** No. The difference is more than forty points; the standard errors are 1.1 and 1.6.

</details>

**3.** Why does this lesson have a `control`?

- **a** To choose the learning rate.
- **b** To have a model without a teacher.
- **c** To separate what one more epoch brings from what compression costs.

<details><summary>Answers, and why</summary>

- **a** No. Nothing is chosen by it; it takes the rate of `recovery`.
- **b** No. No model of this lesson has one.
- **c** Right. Against the predecessor `factorised-64` seems to lose 0.3 points; against `control` it loses 3.3.

</details>

**4.** A friend prunes the vocabulary and checks the share of unknown pieces: 0 %. "So nothing is lost." What is
wrong?

- **a** Known letters are not known words: 776 of 1000 dev texts were cut otherwise.
- **b** Nothing: the answers are the same to the last bit.
- **c** The share must be counted on the training texts.

<details><summary>Answers, and why</summary>

- **a** Right. With all single characters kept, hardly anything is unknown. Count texts that are cut otherwise.
- **b** No. Only where all pieces of the text stayed.
- **c** No. There all pieces stay by construction; that says even less.

</details>

**5.** Untrained, one shared layer in place of six guesses (5.6 %). What does this show about ALBERT?

- **a** That sharing cannot work.
- **b** Nothing: here layers that had become different were averaged.
- **c** That ALBERT needs one layer only.

<details><summary>Answers, and why</summary>

- **a** No. ALBERT shares from its first update on, so its layers never become different.
- **b** Right. It shows that trained layers cannot be exchanged for their mean.
- **c** No. It computes all of its layers, with one set of weights.

</details>
"""

# %% [markdown]
r"""
## 11. A challenge

Make a model with at most 12.0 M parameters that has more than 79.3 % on dev, with one epoch of `recovery`. You may
count pieces on any text without looking at dev or test labels, use `keep`, another $E$, and `soft_targets`. Then
measure once on test, with the interval against `vocabulary`.
"""
