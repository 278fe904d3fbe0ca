# %% [markdown]
r"""
# Lesson 5 · Quantization: the same model in fewer bits

**After this lesson you can** put a tensor into 8-bit integers by hand, with a scale and a zero point; say why a
weight matrix wants one scale per output; train through a rounding that has no slope; choose between quantizing after
training and training with quantized numbers, at 8, 4 and 2 bits; read the integers out of a file for a phone; and say
what zeros in a model are good for, and what not.

**You need** Lesson 1 (and 0): data, sizes and large model are the same. Further what a gradient is.

**Time** about 15 minutes of computing on a laptop CPU with two cores, an hour and a half with the exercises (10
points). **Memory** 5 GB. **Seed** 0, everywhere. Start Jupyter with the environment variable
`KERAS_COMPRESS_FAST=1` for a dry run in under a minute, whose numbers mean nothing.
"""

# %%
import os, sys, tempfile

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np

from keras_compress import datasets
from keras_compress.backend import keras, tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure import accuracy
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.quantization import q8bert
from keras_compress.bert.fake_quant import fake_quantize, largest, levels, quantize
from keras_compress.training.finetune import Training, finetune

# %% [markdown]
r"""
The settings of the whole lesson, in one place. `training` makes the float model, as in Lesson 1. `more` is one further
epoch at a lower rate: that is what every quantized model gets, and a float model for comparison too.
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 32, "num_dev": 20, "num_test": 40} if FAST else {"num_train": 2500, "num_dev": 300}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=1)
more = training.replace(epochs=1, learning_rate=5e-5)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. Eight bits by hand

A 32-bit float can take some four billion values. To **quantize** (量化) a tensor is to allow it only a few, evenly
spaced, and to store which one instead of the value. Here is all of it, for a tensor of 5 × 5. Its columns are of very
different size, on purpose.

The distance between two neighbours of the grid is the **scale** (缩放因子) $s$. With $b$ bits the largest integer is
$M = 2^{b-1} - 1$, so for 8 bits 127, and the largest value decides:

$$s = \frac{\max |x|}{M}, \qquad q = \mathrm{round}(x / s), \qquad \hat{x} = s\, q.$$

(Q8BERT's paper writes $S = M / \max |x|$ and multiplies by it; it is the same grid. This lesson writes the scale as
TFLite does.)
"""

# %%
x = np.random.default_rng(SEED).normal(size=(5, 5)) * [0.03, 0.1, 0.3, 1.0, 1.0]
scale = np.abs(x).max() / 127
q = np.round(x / scale).astype(np.int8)
back = scale * q


def draw(axes, values, title, limit, form):
    """A small matrix as coloured squares, each with its number."""
    axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
    for (row, column), value in np.ndenumerate(values):
        dark = abs(value) > 0.6 * limit
        axes.text(column, row, format(value, form), ha="center", va="center", fontsize=7,
                  color="white" if dark else INK)
    axes.set(title=title, xticks=(), yticks=())
    axes.grid(False)


# %%
figure, all_axes = plt.subplots(1, 4, figsize=(10.5, 2.9))
draw(all_axes[0], x, "before: floats", np.abs(x).max(), ".3f")
draw(all_axes[1], q, f"integers, scale {scale:.4f}", 127, "d")
draw(all_axes[2], back, "after: scale × integer", np.abs(x).max(), ".3f")
draw(all_axes[3], back - x, "error", scale / 2, ".3f")
assert np.abs(back - x).max() <= scale / 2 and np.array_equal(q, quantize(x, largest(x)).numpy())
print(f"{x.astype(np.float32).nbytes} bytes -> {q.nbytes} bytes and one scale; "
      f"largest error {np.abs(back - x).max():.4f}, half a scale is {scale / 2:.4f}")

# %% [markdown]
r"""
Compare the first and the third square: by their colours no eye can tell them apart. The last one has a colour scale of
its own, plus or minus half a step, and no error leaves it. (The `assert` also compares with `quantize` of the package,
which we use from here on.)

But look at the integers of the first column. Its values are small beside the largest of the tensor, so they get few of
the 255 levels. The remedy costs one float per column: **a scale for every column**. In a layer's kernel, as Keras
calls the weight matrix, a column is an output, or *channel* (通道), hence *per channel* as opposed to *per tensor*. With
4 bits, $M = 7$, the difference can be seen.
"""

# %%
def rounded(w, bits, axis=None):
    """w on its grid of so many bits. axis None: one scale; 0: one for every column."""
    return fake_quantize(tf.constant(w), largest(w, axis), bits).numpy()


columns = np.abs(x).max(axis=0)
figure, all_axes = plt.subplots(1, 4, figsize=(10.5, 2.9))
for axes, axis, name in zip(all_axes.reshape(2, 2), (None, 0), ("one scale", "one per column")):
    after = rounded(x, 4, axis)
    draw(axes[0], after, f"4 bits, {name}", np.abs(x).max(), ".3f")
    draw(axes[1], (after - x) / columns, "error / largest of column", 0.5, ".0%")

# %% [markdown]
r"""
With one scale the first column has become zero altogether: a model would have lost this output. The second knows one
value besides 0. With a scale per column no error is above a fourteenth, 7 %, of the column's largest value.

<details><summary>What came out here</summary>

The sum of integers reaches 27,053, far below the limit of 32 bits. Both paths agree but for the last bits of a
double (1.1e-16). The rounding itself costs 3.3e-03.

</details>

Why per output, and not per input? Because of the product. With $q^x$ for what comes in and $q^w$ for the kernel,

$$y_j = \sum_i x_i w_{ij} \approx \sum_i (s_x q^x_i)(s_j q^w_{ij}) = s_x s_j \sum_i q^x_i q^w_{ij}:$$

a scale that depends on the output $j$ alone comes out of the sum, and all that is left inside are products of small
integers, added up in 32 bits. That sum is what a phone's processor does fast. A scale per input $i$ would have to stay
inside. We check that the integer path gives what the rounded floats give:
"""

# %%
incoming = np.random.default_rng(SEED + 1).normal(size=(3, 5))
q_x, q_w = quantize(incoming, largest(incoming)).numpy(), quantize(x, largest(x, 0)).numpy()
sums = q_x.astype(np.int32) @ q_w.astype(np.int32)
by_integers = sums * (np.abs(incoming).max() / 127) * (np.abs(x).max(axis=0) / 127)
by_floats = rounded(incoming, 8) @ rounded(x, 8, 0)
print(f"largest sum: {np.abs(sums).max():,} of {2**31 - 1:,}; largest difference of the two paths: "
      f"{np.abs(by_integers - by_floats).max():.1e}; from the product of floats: "
      f"{np.abs(by_floats - incoming @ x).max():.1e}")

# %% [markdown]
r"""
## 2. The zero point

A grid around zero wastes half of its levels on values that are all positive. Where a range is lopsided, as of many
activations (激活值), TFLite moves the grid: from the range $[l, h]$, which must contain 0,

$$s = \frac{h - l}{2^b - 1}, \qquad z = \mathrm{round}\Big(-2^{b-1} - \frac{l}{s}\Big), \qquad
q = \mathrm{clamp}\big(\mathrm{round}(x / s) + z\big), \qquad \hat{x} = s\, (q - z).$$

The integer $z$ is the **zero point** (零点): the one that stands for 0. Here all $2^b$ integers are used, from
$-2^{b-1}$ to $2^{b-1} - 1$. Why must 0 lie exactly on the grid? Because padding, masks and the zeros of an activation
function are so frequent: an error there would be made again and again.

### Exercise 1 (3 points): scale and zero point

Write the four formulas. Two traps are set: the range may not contain 0 until you widen it, and a tensor may be all
zeros (its scale is then 1).

<details><summary>Hint 1</summary>

First fix the range, then the scale, then the zero point.

</details>

<details><summary>Hint 2</summary>

Widening means: the lower end is never above 0, the upper end never below it.

</details>

<details><summary>Hint 3</summary>

If both ends are 0, set the scale to 1 before you divide. `np.clip` clamps; the result must be integers.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "affine", "locked": false, "schema_version": 3, "solution": true, "task": false}
def affine(x, bits=8):
    """Quantizes with a zero point.

    Args:
        x: float array. bits: 2 or more.
    Returns:
        (int array of the shape of `x`, scale > 0, zero point as an int).
    """
    ### BEGIN SOLUTION
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    bottom = -(2 ** (bits - 1))
    zero = round(bottom - low / scale)
    return np.clip(np.round(x / scale).astype(int) + zero, bottom, -bottom - 1), scale, zero
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "affine_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: scale, zero point and integers of a lopsided range
q_, s_, z_ = affine(np.array([-1.0, 0.0, 1.55]))
np.testing.assert_allclose((s_, z_), (0.01, -28), err_msg="2.55 / 255, and -128 + 100")
np.testing.assert_array_equal(q_, [-128, -28, 127], "the ends of the range are the ends of the grid, and 0 is z")
#: 0.5 points: a range without 0 is widened
q_, s_, z_ = affine(np.array([0.5, 2.55]))
np.testing.assert_allclose((s_, z_), (0.01, -128), err_msg="the range is widened to hold 0")
np.testing.assert_array_equal(q_, [-78, 127])
#: 0.5 points: a tensor that is all zeros
q_, s_, z_ = affine(np.zeros(3))
assert s_ == 1.0 and (s_ * (q_ - z_) == 0).all(), "the scale is then 1, and every value 0"
print("affine: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
cases_ = [(bits, generator_.normal(size=(40, 7)) + shift) for bits in (8, 4, 2) for shift in (-9, -0.7, 0, 0.4, 30)]
#: 0.5 points: integers, of which all are used
for bits_, values_ in cases_:
    q_, s_, z_ = affine(values_, bits_)
    assert q_.shape == values_.shape and np.issubdtype(q_.dtype, np.integer) and s_ > 0 and z_ == int(z_)
    assert q_.min() >= -(2 ** (bits_ - 1)) and q_.max() <= 2 ** (bits_ - 1) - 1
    assert np.ptp(q_) == 2**bits_ - 1 or values_.min() > 0 or values_.max() < 0
#: 0.5 points: no error above half a step
for bits_, values_ in cases_:
    q_, s_, z_ = affine(values_, bits_)
    assert np.abs(s_ * (q_ - z_) - values_).max() <= s_ / 2 * (1 + 1e-9)
#: 0.5 points: 0 lies on the grid exactly
for bits_, values_ in cases_:
    q_, s_, z_ = affine(values_, bits_)
    assert -(2 ** (bits_ - 1)) <= z_ <= 2 ** (bits_ - 1) - 1, "the zero point is one of the integers"
    again_ = affine(np.append(values_, 0.0), bits_)
    assert again_[0][-1] == again_[2], "0 must lie on the grid exactly"
### END HIDDEN TESTS

# %% [markdown]
r"""
## 3. The grids on a real model

Our model is MiniLM with six layers, fine-tuned on commands for a phone, as in Lesson 1; as there, it is called
`predecessor`. The next cell takes a minute or two.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
if FAST:                                                      # random weights: one layer, and narrow
    narrow = minilm.config.replace(num_layers=1, hidden_size=32, num_heads=2, intermediate_size=64)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
predecessor = finetune(minilm, data, seed=SEED, training=training)
table = predecessor.weights()["word_embeddings/embeddings"]
kernels = {name: w for name, w in predecessor.weights().items() if name.endswith("/kernel")}
print(f"{len(kernels)} kernels with {sum(w.size for w in kernels.values()):,} weights, word table: {table.size:,}; "
      f"all parameters: {predecessor.model.count_params():,}")

# %% [markdown]
r"""
How large are the errors of real kernels? Per tensor and per channel, at 8, 4 and 2 bits: the size of the error relative
to the kernel, and how many weights become zero.
"""

# %%
rows = []
for bits in (8, 4, 2):
    for axis, name in ((None, "tensor"), (0, "channel")):
        after = {key: rounded(w, bits, axis) for key, w in kernels.items()}
        errors = [np.linalg.norm(after[key] - w) / np.linalg.norm(w) for key, w in kernels.items()]
        zeros = sum((w == 0).sum() for w in after.values()) / sum(w.size for w in after.values())
        rows.append((bits, 2 * levels(bits) + 1, name, *(f"{share:.1%}" for share in (np.median(errors), max(errors),
                                                                                     zeros))))
show(("bits", "levels", "a scale per", "median error of a kernel", "largest", "zeros"), rows)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 2.9))
for colour, name in ((ACCENT, "layer_0_output/kernel"), (INK, "layer_0_query/kernel")):
    tops = np.sort(np.abs(kernels[name]).max(axis=0))
    left.plot(np.linspace(0, 100, len(tops)), tops / tops[-1], color=colour, label=name)
left.set(xlabel="outputs, sorted (%)", ylabel="largest weight / largest of all", ylim=(0, 1.05))
left.legend(frameon=False, fontsize=8)
dense = predecessor.model.get_layer("layer_0_intermediate").output
batch = predecessor.pad(predecessor.tokenizer.encode(data.dev.texts[:32], training.max_length))
gelu = keras.Model(predecessor.model.input, dense)(batch).numpy()[batch["input_mask"] == 1]
right.hist(gelu.ravel(), bins=120, color=PALE, log=True)
for end in (gelu.min(), gelu.max()):
    right.axvline(end, color=ACCENT, linestyle="--")
right.set(xlabel="after GELU, layer 0 (dashed: the range)", ylabel="values");

# %% [markdown]
r"""
Left: where the line is low, a single scale gives an output only part of the levels. Right: what leaves GELU is never
below −0.17; a grid around zero would spend nearly half of its levels on values that do not occur. That is why TFLite
gives weights a scale per channel and no zero point, and activations a zero point and one scale.

<details><summary>What came out here</summary>

A scale per channel halves the typical error at 8 bits (1.6 to 0.8 %). For the worst kernel it brings 39.5 down to
2.1 %. With 2 bits it does not help: 83.9 % error, and 92.2 % of the weights are zero.

</details>

Note the tail on the right: a single large value sets the scale for all others.

## 4. After training: just round

The simplest method is **post-training quantization** (训练后量化): take the trained weights, round them, done. `export`
does that, with a scale per channel. In these files activations are floats between the layers; each product quantizes
what comes in by the range that each token has (*dynamic range*, 动态范围), multiplies integers, and gives floats
back. No range has to be known beforehand.

`export` compares each file with Keras on dev texts and refuses those that drift too far. We want to see those too:
`allow_drift`.
"""

# %%
from mobile_export.benchmark import benchmark
from mobile_export.convert import export, exported_model

folder, files = tempfile.mkdtemp(), {}


def add_files(name, model, *formats):
    """Exports a model, measures each file on the test texts, and notes it in `files` under (name, format)."""
    for file in export(model, f"{folder}/{name}", formats, sequence_length=training.max_length, dev=data.dev,
                       allow_drift=True):
        result = accuracy.evaluate(exported_model(file["path"], model), data.test)
        files[name, file["format"]] = {**file, "result": result}


def percent(result):
    return f"{100 * result['value']:.1f} ± {100 * result['se']:.1f}"


# %%
add_files("predecessor", predecessor, "float32", "int8", "int4", "int2")
show(("format", "MB", "× smaller", "same answer as Keras", "test, % ± SE", "refused?"),
     [(file["format"], f"{file['bytes'] / 1e6:.1f}", f"{files['predecessor', 'float32']['bytes'] / file['bytes']:.1f}",
       f"{file['agreement']:.1%}", percent(file["result"]), "yes" if file["drift"] else "")
      for file in files.values()])

# %% [markdown]
r"""
(In the files of 4 and 2 bits the word table has 4 bits, with a scale per row; biases and layer norms stay floats. That
is why the last step saves so little.)

From which row on does the rounding hurt? There the second half of the lesson begins.

<details><summary>What came out here</summary>

Only from 2 bits on: 8.0 % of the test texts. At 8 bits 80.6 %, at 4 bits 80.3 %, with 80.8 % in floats: this test
cannot tell them from the float file. `export` refuses 4 bits all the same, since 92.7 % equal answers
are too few for it.

</details>

## 5. Rounding has no slope

If rounding hurts, let the model feel it while it trains: compute with the rounded weights, and let the weights move to
where rounding does little harm. This is **quantization-aware training** (量化感知训练, QAT). **Fake quantization**
(伪量化) is the operation $x \to s\, \mathrm{round}(x / s)$: floats that take only the values of the grid.

One thing stands in the way. Rounding is a staircase: flat nearly everywhere, so its gradient (梯度) is zero and no
weight would ever move. The **straight-through estimator** (直通估计, STE) goes on as if the staircase were its
diagonal: forward it rounds, backward it passes the gradient through, $d \hat{x} / dx = 1$.
"""

# %%
line = tf.linspace(-1.6, 1.6, 321)
with tf.GradientTape(persistent=True) as tape:
    tape.watch(line)
    stairs = tf.round(tf.clip_by_value(line, -1.0, 1.0) * 3.0) / 3.0              # 3 bits, M = 3
    straight = fake_quantize(line, 1.0, bits=3)
slopes = [tape.gradient(y, line, unconnected_gradients=tf.UnconnectedGradients.ZERO) for y in (stairs, straight)]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.7))
left.plot(line, line, color=GREY, linestyle=":", label="x")
left.plot(line, straight, color=ACCENT, label="rounded, 3 bits")
right.plot(line, slopes[0], color=INK, linestyle="--", label="of the rounding")
right.plot(line, slopes[1], color=ACCENT, label="straight through")
left.set(xlabel="x", title="forward")
right.set(xlabel="x", title="gradient", ylim=(-.1, 1.7))
for axes in (left, right):
    axes.legend(frameon=False, fontsize=9, loc="upper left")

# %% [markdown]
r"""
Does such a made-up gradient help? A toy: 100 neurons (神经元), each with 16 weights of 3 bits and a target of its own.
Their inputs resemble each other, so one weight's rounding error can be made good by another's. Three ways: the
gradient of the rounding itself; training in floats, and rounding afterwards; straight-through. What we measure is
always the loss with rounded weights, mean over the neurons.
"""

# %%
generator = np.random.default_rng(SEED)
inputs = tf.constant(generator.normal(size=(256, 1)) + 0.5 * generator.normal(size=(256, 16)), tf.float32)
target = inputs @ tf.constant(generator.normal(size=(16, 100)), tf.float32)
ways = {"gradient of the rounding": lambda w: quantize(w, 2.0, 3) * (2.0 / 3), "floats": lambda w: w,
        "straight-through": lambda w: fake_quantize(w, 2.0, 3)}
curves = {}
for name, forward in ways.items():
    w, curves[name] = tf.Variable(tf.zeros((16, 100))), []
    for step in range(200):
        with tf.GradientTape() as tape:
            loss = 100 * tf.reduce_mean((inputs @ forward(w) - target) ** 2)              # each neuron has its own
        gradient = tape.gradient(loss, w)
        w.assign_sub((0.03 * (1 - step / 200)) * (tf.zeros_like(w) if gradient is None else gradient))
        curves[name].append(float(tf.reduce_mean((inputs @ fake_quantize(w, 2.0, 3) - target) ** 2)))

# %%
figure, axes = plt.subplots(figsize=(6.4, 2.7))
for (name, curve), colour, dashes in zip(curves.items(), (GREY, INK, ACCENT), (":", "--", "-")):
    axes.plot(curve, color=colour, linestyle=dashes, label=f"{name}: {curve[-1]:.3f} at the end")
axes.set(xlabel="update", ylabel="loss with rounded weights", yscale="log")
axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1));

# %% [markdown]
r"""
The dotted line never moves. Between the other two, look at the end: a float optimum, rounded, against weights that were
chosen *with* the rounding.

<details><summary>What came out here</summary>

At the end straight-through lies lower; the legend gives the figures. For most of the run it lies *above* the
floats: its weights jump between two neighbours of the grid as long as the learning rate is large. It wins once the
rate has fallen.

</details>

The authors of Q8BERT (Zafrir et al., 2019) pass the gradient everywhere, as `fake_quantize` does, also for values that
were clamped to the end of the grid. Others stop it there: such a value cannot change the result, so why push it on?

### Exercise 2 (4 points): straight-through, but not outside

Write a fake quantization with the values of `fake_quantize`, whose gradient is 1 inside of the range, ends included,
and 0 outside. `tf.stop_gradient(y)` has the value of `y` and no gradient; `quantize` gives the integers.

<details><summary>Hint 1</summary>

Two things to get right: the value and the gradient. Begin with the value.

</details>

<details><summary>Hint 2</summary>

Take something whose slope is 1 inside and 0 outside, and add a correction to its value that has no gradient.

</details>

<details><summary>Hint 3</summary>

Clipping has that slope; check what TensorFlow gives at the very ends. The value is integer times scale.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "clipped", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fake_quantize_clipped(x, largest, bits=8):
    """x on the symmetric grid of `largest`, with a straight-through gradient inside [-largest, largest] alone.

    Args:
        x: float tensor. largest: positive float, the end of the range. bits: 2 or more.
    Returns:
        float tensor of the shape of `x`.
    """
    ### BEGIN SOLUTION
    inside = tf.clip_by_value(x, -largest, largest)
    return inside + tf.stop_gradient(quantize(x, largest, bits) * (largest / levels(bits)) - inside)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "clipped_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
some = tf.constant([-2.0, -0.4, 0.3, 1.0, 1.7])
with tf.GradientTape() as tape:
    tape.watch(some)
    got = fake_quantize_clipped(some, 1.0, bits=3)
#: 0.5 points: the values
np.testing.assert_allclose(got, [-1.0, -1 / 3, 1 / 3, 1.0, 1.0], rtol=1e-6, err_msg="the values of fake_quantize")
#: 1 point: the gradient inside, at the end and outside
np.testing.assert_array_equal(tape.gradient(got, some), [0, 1, 1, 1, 0], "nothing passes outside of the range")
print("fake_quantize_clipped: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.quantization
many_ = tf.constant(np.random.default_rng(SEED).normal(size=(50, 4)), tf.float32)
reference_ = lambda bits: tf.quantization.fake_quant_with_min_max_args(many_, -0.9, 0.9, bits, True)
#: 1 point: the values at 8, 4 and 2 bits
for bits_ in (8, 4, 2):
    np.testing.assert_allclose(fake_quantize_clipped(many_, 0.9, bits_), reference_(bits_), atol=1e-6)
#: 1.5 points: the gradients at 8, 4 and 2 bits
for bits_ in (8, 4, 2):
    with tf.GradientTape(persistent=True) as tape_:
        tape_.watch(many_)
        ours_ = tf.reduce_sum(fake_quantize_clipped(many_, 0.9, bits_) ** 2)
        theirs_ = tf.reduce_sum(reference_(bits_) ** 2)
    np.testing.assert_allclose(tape_.gradient(ours_, many_), tape_.gradient(theirs_, many_), atol=1e-4)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 6. Training with few bits: the dynamic route

Now the real thing. With `activations="dynamic"` only weights are quantized while training, one scale per output, anew
at every update; activations are left to the runtime, as in Section 4. At the end the weights are put on their grid for
good (`bake`): the result is a plain model, whose file stores the very integers it was trained with.

All start from the same fine-tuned model and train one epoch more. The `control` (对照) does so too, in floats: without
it one could not tell what the quantized training brought from what one more epoch brought.
"""

# %%
control = finetune(predecessor, data, seed=SEED, training=more)
add_files("control", control, "float32", "int8", "int4", "int2")
settings = {"seed": SEED, "training": more}
dynamic = {}
for bits in (8, 4, 2):
    dynamic[bits] = q8bert.compress(predecessor, data, bits=bits, activations="dynamic", **settings)
    add_files(f"QAT dynamic, {bits} bits", dynamic[bits], f"int{bits}")
    column = dynamic[bits].weights()["layer_0_query/kernel"][:, 0]
    print(f"{bits} bits: {len(np.unique(column))} different values among the {len(column)} weights of one output")

# %% [markdown]
r"""
What has training done to the weights? We take one kernel, in units of each output's scale. Pale: where the
predecessor's weights lie. Blue: where those lie that were trained with 4 and with 2 bits.
"""

# %%
name = "layer_0_output/kernel"
figure, all_axes = plt.subplots(1, 2, figsize=(9, 2.7))
for axes, bits in zip(all_axes, (4, 2)):
    free, tuned = ((model.weights()[name] / largest(model.weights()[name], 0) * levels(bits)).numpy().ravel()
                   for model in (predecessor, dynamic[bits]))
    axes.hist(free, bins=150, range=(-levels(bits), levels(bits)), color=PALE, label="predecessor")
    integers, counts = np.unique(np.round(tuned), return_counts=True)
    bar = axes.twinx()
    bar.bar(integers, counts / len(tuned), width=0.02 * levels(bits), color=ACCENT)
    bar.set(ylim=(0, 1.15 * counts.max() / len(tuned)), ylabel="share (blue)")
    bar.grid(False)
    axes.set(title=f"{bits} bits", xlabel="weight / scale", yticks=(), xticks=(-levels(bits), 0, levels(bits)))

# %% [markdown]
r"""
And did training change the integers at all, or would rounding have given the same? The control answers half of the
question: it moved as well.
"""

# %%
rows = []
for bits in (8, 4, 2):
    integers = {}
    for title, model in (("before", predecessor), ("control", control), ("QAT", dynamic[bits])):
        integers[title] = np.concatenate([quantize(model.weights()[name], largest(model.weights()[name], 0), bits)
                                          .numpy().ravel() for name in kernels])
    rows.append((bits, *(f"{(integers[title] != integers['before']).mean():.2%}" for title in ("control", "QAT")),
                 f"{(integers['QAT'] == 0).mean():.1%}"))
show(("bits", "integers changed by the control", "changed by QAT", "zeros after QAT"), rows)

# %% [markdown]
r"""
Few integers changed, with 2 bits hardly more than in the control. So much of what QAT wins may come from all that is
not rounded so coarsely: scales, layer norms, biases, the word table.

<details><summary>What came out here</summary>

At 8 bits QAT changed 13.48 % of the integers and the control 13.43 %; at 2 bits 0.08 and 0.06 %. So few integers
changed at 2 bits that much of the later gain must lie in the rest; this was not tested.

</details>

## 7. The static route: TF-MOT

The paper goes further: activations are rounded while training too, to 8 bits, by ranges that are collected on the way
and then **fixed** (static, 静态). The file can then compute from one product to the next in integers. (Hardware that
knows no floats at all needs more: LayerNorm, softmax and the classifier stay floats here.) We use the TensorFlow Model
Optimization Toolkit (TF-MOT): it wraps each layer that `quantized_layers` annotates. Which ones?
"""

# %%
static = q8bert.compress(predecessor, data, start_step=0 if FAST else 10, **settings)
add_files("QAT static, 8 bits", static, "int8")
ranges = {name: float(value) for name, value in static.weights().items() if name.endswith("_range")}
print(f"{len(ranges)} ranges of activations, {len(kernels) - 1} kernels of 8 bits; the classifier stays float")
print("layer 0:", ", ".join(sorted({name.split("/")[0] for name in ranges if name.startswith("layer_0")})))

# %% [markdown]
r"""
A range is a moving average (滑动平均) of the largest value of each batch. The first batch sets it, then

$$r \leftarrow r - (1 - d)\,(r - \max |x|).$$

With $d$ close to 1 it is steady, and remembers its first value for long. How long?

<details><summary>What came out here</summary>

With 0.9999 the first batch still counts for 99.2 % after the 79 updates of this lesson, with 0.99 for 45.2 %, with
0.9 for nothing.

</details>
"""

# %%
updates = more.num_steps(len(data.train.texts))
show(("d", f"weight of the first batch after {updates} updates", "after 10,000"),
     [(d, f"{d**updates:.1%}", f"{d**10_000:.1%}") for d in (0.9, 0.99, 0.9999)])

# %% [markdown]
r"""
The authors' 0.9999 is for long training; our short one takes 0.99. These are the ranges that it collected:
"""

# %%
kinds = {}
for name, value in ranges.items():
    layer, _, kind = name.split("/")[0].removeprefix("layer_").partition("_")
    if layer.isdigit():
        kinds.setdefault(kind, {}).setdefault(int(layer), []).append(value)
kinds = sorted(kinds.items(), key=lambda pair: max(map(max, pair[1].values())))
figure, axes = plt.subplots(figsize=(7.5, 3))
for place, (kind, by_layer) in enumerate(kinds):
    for layer, values in by_layer.items():
        axes.text(max(values), place, layer, ha="center", va="center", color="white", fontsize=8,
                  bbox={"boxstyle": "circle,pad=.25", "color": ACCENT, "alpha": .75})
axes.set_yticks(range(len(kinds)), [kind for kind, _ in kinds])
axes.set(xscale="log", xlabel="range (number: layer)", ylim=(-.6, len(kinds) - .4),
         xlim=(.5 * min(ranges.values()), 2 * max(ranges.values())));

# %% [markdown]
r"""
One scale serves all words and all places of a tensor. The wider its range, the coarser the step for all the small
values in it. That is the weak point of the static route. The top row is the worst: `output`, what the feed-forward
network gives back. In the study's model, quantized alone and before any training, these six tensors cost more
accuracy than all others together (`data/results/README.md` has the figures). And Q8BERT's grid is symmetric for activations, too: its
zero point is 0, so the half that GELU leaves unused (Section 3) stays unused. Q-BERT takes the smallest and the
largest value instead, with a zero point as in Section 2.

## 8. What the file really stores

"8-bit training" is a simulation, in floats. Does the phone's file hold the integers that were trained? We read them out
of it. A `.tflite` file is a flatbuffer: a list of tensors, each with name, type, shape and a buffer of bytes.
"""

# %%
from ai_edge_litert.schema_py_generated import Model, TensorType

BITS = {TensorType.INT8: 8, TensorType.INT4: 4, TensorType.INT2: 2}


def stored_kernels(path):
    """[(name, bits, bytes as stored, shape)] of the integer matrices in a file."""
    model = Model.GetRootAsModel(open(path, "rb").read())
    graph, found = model.Subgraphs(0), []
    for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
        packed = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if tensor.Type() in BITS and tensor.ShapeLength() == 2 and np.size(packed) > 1:
            found.append((tensor.Name().decode(), BITS[tensor.Type()], packed, tuple(tensor.ShapeAsNumpy())))
    return found


for name, bits, packed, shape in stored_kernels(files["QAT dynamic, 4 bits", "int4"]["path"])[:3]:
    print(f"{name.split(';')[0]}: {shape[0]} x {shape[1]} integers of {bits} bits in {packed.size:,} bytes: "
          f"{packed[:6].tolist()} ...")

# %% [markdown]
r"""
Bytes of 8 bits are read as they are. With 4 bits two integers share a byte, with 2 bits four; the first one stands in
the lowest bits. Negative numbers are in two's complement (补码): with 4 bits, 15 means −1 and 8 means −8.

### Exercise 3 (3 points): unpack

Turn the bytes into integers. Useful: `>>` shifts bits, `&` masks them, and both work on arrays.

<details><summary>Hint 1</summary>

How many integers are in a byte, and by how many bits is each shifted?

</details>

<details><summary>Hint 2</summary>

Shifting by an array makes a table (bytes, integers per byte). Mask, then read it row by row.

</details>

<details><summary>Hint 3</summary>

The sign comes last: from half of $2^b$ on, subtract $2^b$. Beware, `uint8` knows no negative numbers.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "unpack", "locked": false, "schema_version": 3, "solution": true, "task": false}
def unpack(packed, bits, count):
    """The integers in packed bytes.

    Args:
        packed: uint8 array, (bytes,). bits: 8, 4 or 2. count: number of integers; the last byte may hold fewer.
    Returns:
        int array, (count,), values from -2^(bits - 1) to 2^(bits - 1) - 1.
    """
    ### BEGIN SOLUTION
    values = (packed[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)).ravel()[:count].astype(int)
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "unpack_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: 4 bits, low half first, two's complement
np.testing.assert_array_equal(unpack(np.array([0xE3, 0x07], np.uint8), 4, 3), [3, -2, 7], "low half first; 0xE = 14")
#: 0.5 points: 2 and 8 bits
np.testing.assert_array_equal(unpack(np.array([0b11_01_00_10], np.uint8), 2, 4), [-2, 0, 1, -1])
np.testing.assert_array_equal(unpack(np.array([127, 129], np.uint8), 8, 2), [127, -127])
print("unpack: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
def check_(bits):
    """101 integers, the ends of the range among them."""
    end = 2 ** (bits - 1)
    wanted = np.append(np.random.default_rng(SEED).integers(-end, end, 99), [-end, end - 1])
    padded = np.pad(wanted & (2**bits - 1), (0, -101 % (8 // bits))).reshape(-1, 8 // bits)
    packed = (padded << np.arange(0, 8, bits)).sum(axis=1).astype(np.uint8)
    np.testing.assert_array_equal(unpack(packed, bits, 101), wanted)


#: 1 point: 101 integers of 4 bits
check_(4)
#: 0.5 points: 101 integers of 2 bits
check_(2)
#: 0.5 points: 101 integers of 8 bits
check_(8)
### END HIDDEN TESTS

# %% [markdown]
r"""
Now compare with the integers of the Keras models: for each kernel we look for the matrix in the file that has most
integers in common with it. One more file joins in: the same 8-bit model, converted with `fuse=True`. That is how
TensorFlow's converter works by default: it multiplies LayerNorm's factor gamma into the kernels that follow.
"""

# %%
export(dynamic[8], f"{folder}/fused", ("int8",), sequence_length=training.max_length, fuse=True, allow_drift=True)
cases = [(f"QAT dynamic, {bits} bits", bits, dynamic[bits], 0) for bits in dynamic]
rows = []
for name, bits, model, axis in (*cases, ("QAT static, 8 bits", 8, static, None), ("fused", 8, dynamic[8], 0)):
    stored = [((packed[:, None] << np.arange(8 - width, -1, -width)).astype(np.int8).ravel()[:np.prod(shape)]
               >> (8 - width)).reshape(shape)                     # up to the top of a byte, and down with the sign
              for _, width, packed, shape in stored_kernels(f"{folder}/{name}/int{bits}.tflite")]
    off = []
    for w in (w for key, w in model.weights().items() if key in kernels and key != "classifier/kernel"):
        wanted = quantize(w, largest(w, axis), bits).numpy().T
        alike = [found for found in stored if found.shape == wanted.shape]
        off.append(np.abs(max(alike, key=lambda found: (found == wanted).sum()) - wanted))
    rows.append((name, len(off), sum(not o.any() for o in off), f"{sum((o > 0).sum() for o in off):,}",
                 f"{sum(o.size for o in off):,}", int(max(o.max() for o in off))))
show(("file", "kernels", "exactly the trained ones", "integers that differ", "of", "by at most"), rows)

# %% [markdown]
r"""
Where the third column equals the second, the file is the trained model, integer by integer. (The classifier is left
out: it is a float in the static file.) In the static file a few may be off by one: weights that lie in the middle
between two levels but for the last bit of a float, where converter and training round to different sides. Now the row
*fused*: where gamma was multiplied in, the weights have left the grid on which they were trained, and were rounded a
second time. That is why the package switches it off; who uses the plain converter should know.

<details><summary>What came out here</summary>

The three dynamic files hold exactly what was trained: 36 of 36 kernels. In the static one 51 of 10,616,832 integers
are off, by at most 1. In the fused one 4,937,928 are, by up to 106.

</details>

## 9. Was it worth it?

Three ways to each number of bits: round the fine-tuned model; round the control, which has trained as long as the
others but in floats; or train with the bits (QAT). All are measured as files, on the same test texts.
"""

# %%
figure, axes = plt.subplots(figsize=(6.8, 3.2))
ways = {"predecessor": ("rounded after training", GREY, "s", -.12), "control": ("control, rounded", INK, "^", 0),
        "QAT dynamic, {} bits": ("QAT, dynamic", ACCENT, "o", .12)}
for name, (label, colour, marker, shift) in ways.items():
    found = [files[name.format(bits), f"int{bits}"]["result"] for bits in (8, 4, 2)]
    axes.errorbar(np.arange(3) + shift, [100 * r["value"] for r in found], [196 * r["se"] for r in found],
                  fmt=marker, color=colour, label=label)
result = files["QAT static, 8 bits", "int8"]["result"]
axes.errorbar(.24, 100 * result["value"], 196 * result["se"], fmt="D", color=ACCENT, mfc="white", label="QAT, static")
axes.axhline(100 * files["control", "float32"]["result"]["value"], color=PALE, zorder=0, label="control, floats")
axes.set(xticks=range(3), xticklabels=("8 bits", "4 bits", "2 bits"), ylabel="test accuracy, % (95 %)")
axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1));

# %%
def points(pair):
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))


def paired(one, other):
    """One file's test accuracy minus another's, on the same texts."""
    return accuracy.paired_difference("accuracy", *(files[key]["result"]["scores"] for key in (one, other)))


reference, rows, pairs = ("control", "float32"), [], {}
for key, file in files.items():
    fair = ("control", key[1]) if key[0].startswith("QAT") else None
    pairs |= {key: paired(key, fair)} if fair else {}
    rows.append((*key, f"{file['bytes'] / 1e6:.1f}", percent(file["result"]),
                 points(paired(key, reference)) if key != reference else "–", points(pairs[key]) if fair else "–"))
show(("model", "format", "MB", "test, % ± SE", "minus control in floats [95 %]", "minus control, same bits"), rows)
print(f"{len(data.test.texts):,} test texts, one seed")

# %% [markdown]
r"""
The last column is the fair one: same start, same number of updates, same bits; only the training differs. The last but
one says what the bits cost altogether. An interval that contains 0 means: this test cannot tell the two apart.

<details><summary>What came out here</summary>

At 8 and 4 bits there is nothing for QAT to win back: -0.3 [-0.8, +0.3] and +0.1 [-0.8, +1.1]. At 2 bits it gains
+14.4 points, and still answers 21.7 % only. The static row loses 3.8. It differs in three things at once, so this
table cannot say which one costs them.

</details>

The row *static* is set beside 8 bits with dynamic ranges: what it loses against those is the price of fixed ranges,
of integers between the layers, and of one scale per kernel instead of one per output.

## 10. Zeros make nothing faster

Another popular way to a "smaller" model is **magnitude pruning** (幅值剪枝; Zhu and Gupta, 2017): the smallest weights of
every kernel become zeros, more and more of them while training, along

$$s(t) = s_f + (s_i - s_f) \Big( 1 - \frac{t - t_0}{t_1 - t_0} \Big)^3.$$

With TF-MOT again, from the same start, for one epoch, to 80 % zeros. What does it bring on a phone? We measure: the
file, the file after `gzip` as for a download, and the time, all in one call, in turns.
"""

# %%
from keras_compress.pruning import magnitude

sparse = magnitude.compress(predecessor, data, seed=SEED, training=more, sparsity=0.8)
add_files("80 % zeros", sparse, "float32", "int8")
timed = [(name, form) for form in ("float32", "int8") for name in ("control", "80 % zeros")]
timed += [("QAT static, 8 bits", "int8"), ("QAT dynamic, 4 bits", "int4"), ("QAT dynamic, 2 bits", "int2")]
timings = dict(zip(timed, benchmark(*(files[key]["path"] for key in timed), runs=20 if FAST else 100)))
base = timings["control", "float32"]["latency_ms_p50"]
show(("model", "format", "MB", "MB after gzip", "median, ms", "90th percentile", "times as fast", "test, % ± SE"),
     [(*key, f"{files[key]['bytes'] / 1e6:.1f}", f"{files[key]['gzip_bytes'] / 1e6:.1f}",
       f"{time['latency_ms_p50']:.2f}", f"{time['latency_ms_p90']:.2f}", f"{base / time['latency_ms_p50']:.2f}",
       percent(files[key]["result"])) for key, time in timings.items()])
print(f"zeros in the pruned kernels: {magnitude.zeros(sparse):.1%}, in the control's: {magnitude.zeros(control):.1%}; "
      f"{timings['control', 'int8']['device']}, {training.max_length} pieces, 1 thread")

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(9.5, 2.4), sharey=True)
names = [f"{name}, {form}" for name, form in timed]
for axes, values, label in zip(all_axes, ([files[key]["bytes"] / 1e6 for key in timed],
                                          [files[key]["gzip_bytes"] / 1e6 for key in timed],
                                          [timings[key]["latency_ms_p50"] for key in timed]),
                               ("file, MB", "after gzip, MB", "median, ms")):
    axes.barh(range(len(timed)), values, color=[ACCENT if "zeros" in name else PALE for name in names])
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.1f}", va="center", fontsize=8)
    axes.set(xlabel=label, xlim=(0, 1.2 * max(values)), ylim=(len(timed) - .5, -.5))
    axes.grid(False)
all_axes[0].set_yticks(range(len(timed)), names, fontsize=8);

# %% [markdown]
r"""
Compare the blue bars with the one above each. The file holds as many numbers as before; that most of them are 0 is
seen by a compressing program alone. And the processor multiplies by 0 as diligently as by anything else: a dense
product asks no number whether it is worth the trouble. To make use of zeros takes routines written for them, and at
least rows or blocks of zeros. What makes a model faster everywhere is to take whole parts out: layers (Lessons 1 to
3), width (Lesson 3).

<details><summary>What came out here</summary>

Zeros do not shrink the file (89.9 MB both) nor the time (9.52 against 9.61 ms); only the zipped file is smaller
(55.0 against 82.7 MB). 4 bits take 3.07 ms where 8 bits take 3.27; 2 bits take 5.62. That 80 % zeros answer 37.7 %
says little about pruning: one epoch is far too short for it.

</details>

Look at the rows of 4 and 2 bits as well. The files are smaller; are they faster than the 8-bit one? The runtime unpacks
the weights to 8 bits before it multiplies: here 4 bits save hardly any time, and 2 bits cost a lot.

## 11. An honest reading

Let the numbers write the sentences.
"""

# %%
for key, pair in pairs.items():
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"{key[0]}: on these {pair['n']:,} test texts, with this seed, it {verdict} the control rounded to {key[1]} "
          f"({100 * pair['difference']:+.1f} points).")
for form in ("float32", "int8"):
    ours, theirs = (timings[name, form] for name in ("80 % zeros", "control"))
    print(f"80 % zeros, {form}: file × {files['80 % zeros', form]['bytes'] / files['control', form]['bytes']:.2f}, "
          f"after gzip × {files['80 % zeros', form]['gzip_bytes'] / files['control', form]['gzip_bytes']:.2f}, "
          f"time × {ours['latency_ms_p50'] / theirs['latency_ms_p50']:.2f}")

# %% [markdown]
r"""
And what may we *not* say?

- **One seed, one made set.** The intervals know nothing of other seeds, and `assistant` comes from a grammar.
  `python -m keras_compress run quantization-study` takes several seeds and a public set.
- **One epoch is short.** More updates may help 2 bits more than 8. The learning rate was the same for all, and tuned
  for none. So few updates are no fair trial of 80 % zeros either; file and time would be the same.
- **Times are those of this machine.** How much int8 gains depends on the processor's instructions. Compare times with
  each other only, and measure on the device that counts.
- **2 bits are not a sixteenth.** The word table keeps 4 bits, norms and biases stay floats, and vocabulary and labels
  travel in the file.

## 12. Where to read on

- Zafrir, Boudoukh, Izsak, Wasserblat: *Q8BERT: Quantized 8Bit BERT*, 2019,
  [arXiv:1910.06188](https://arxiv.org/abs/1910.06188); in code `keras_compress/quantization/q8bert.py` and
  `fake_quant.py`, whose docstrings map equations to names.
- Jacob et al.: *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, 2018,
  [arXiv:1712.05877](https://arxiv.org/abs/1712.05877): scale and zero point as TFLite has them.
- Zhu and Gupta: *To prune, or not to prune*, 2017, [arXiv:1710.01878](https://arxiv.org/abs/1710.01878).
- Try it: `bits=4` with `activations="static"`; `decay=0.9999`; `sparsity=0.95`. Write down what you expect before you
  run it.
- Lesson 6 takes such a file to the phone.
"""

# %% [markdown]
r"""
## 13. In five lines

- Quantizing keeps the index of an evenly spaced grid: a scale, and for lopsided ranges a zero point.
- A kernel wants a scale per output: it leaves the sum, and one large channel ruins no other.
- Rounding has no slope; straight-through passes the gradient as if it were the identity.
- Here 8 and 4 bits cost nothing that this test can see, so QAT had nothing to win. At 2 bits it won 14.4 points, to
  21.7 %.
- Fewer bits save bytes. Time they save only where the processor computes with them; zeros save none.
"""

# %% [markdown]
r"""
## 14. Five questions

**1.** Why may a scale depend on the output of a kernel, but not well on its input?

- **a** Only a factor that is the same for all terms leaves the sum.
- **b** There are more inputs than outputs.
- **c** Inputs are activations, and these have no scale.

<details><summary>Answers, and why</summary>

- **a** Right. Inside remain products of small integers, which the processor adds fast.
- **b** No. In most kernels here there are as many, and storage is not the reason.
- **c** No. They have one: $s_x$ stands in the formula.

</details>

**2.** At 4 bits QAT and plain rounding of the control differ by +0.1 [-0.8, +1.1]. What follows?

- **a** QAT does not work.
- **b** QAT and rounding are equal at 4 bits.
- **c** Where rounding costs next to nothing, training with it has nothing to win back.

<details><summary>Answers, and why</summary>

- **a** No. At 2 bits it gains 14.4 points with the same code.
- **b** No. The interval allows from -0.8 to +1.1 points. It does not show equality.
- **c** Right. In 4 bits the rounded control has 80.3 %, in floats 81.3 %; that difference cannot be told from none.

</details>

**3.** The straight-through gradient is not the true gradient of rounding. Why use it?

- **a** It is the average of the true gradient over many batches.
- **b** The true one is zero, so no weight would move; this one points the way of the float model.
- **c** It makes the weights land on the grid.

<details><summary>Answers, and why</summary>

- **a** No. The true one is 0 nearly everywhere, and so is its average.
- **b** Right. That it helps is not proved. The toy of Section 5 shows it on one example.
- **c** No. The forward rounding does that; the weights themselves stay floats until `bake`.

</details>

**4.** The file of 2 bits is the smallest and takes 5.62 ms, that of 8 bits 3.27 ms. Why?

- **a** The runtime unpacks the weights to 8 bits before it multiplies.
- **b** The model of 2 bits needs more layers.
- **c** Its many zeros are slow to multiply.

<details><summary>Answers, and why</summary>

- **a** Right. Fewer bytes are read, but the computing is the same and the unpacking comes on top.
- **b** No. All files have the same six layers.
- **c** No. Zeros take as long as other numbers: Section 10.

</details>

**5.** "Our file is int8, so it computes in integers only." What does this lesson say?

- **a** True: all tensors are 8-bit integers.
- **b** Not so: in a dynamic file only the products are computed in integers.
- **c** True, once the zero point is 0.

<details><summary>Answers, and why</summary>

- **a** No. Biases and layer norms are floats, and so are activations between the layers of a dynamic file.
- **b** Right. Even the static file keeps LayerNorm, softmax and classifier as floats.
- **c** No. The zero point shifts the grid; it does not decide which operators are integer.

</details>
"""

# %% [markdown]
r"""
## 15. A challenge

The static file differs from the dynamic one in three things: fixed ranges, rounded activations, one scale per
kernel. Find out which costs the 3.8 points: change one thing at a time, with the same start and the same updates,
and give each step its paired interval. Where no setting of `q8bert.compress` separates two of them, say so, and say
what you could compare instead.
"""
