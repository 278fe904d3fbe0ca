# %% [markdown]
r"""
# Lesson 2 · Soft targets and DistilBERT: learn from a teacher's doubts

**After this lesson you can** read what a model knows beyond its answer; say what a temperature does to a prediction and
to a gradient; write the three losses of DistilBERT and start its student; distil a fine-tuned BERT into a smaller one,
or into a model of another kind; and judge whether the teacher was worth its cost.

**You need** Lesson 1 (and 0), or the same ground: Python and NumPy, the Transformer layer, softmax and
cross-entropy, what fine-tuning is.

**Time** about 12 minutes of computing on a laptop CPU with two cores, an hour with the exercises (10 points).
**Memory** 5 GB. **Seed** 0, everywhere. Start Jupyter with the environment variable `KERAS_COMPRESS_FAST=1` for a
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
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation import distilbert
from keras_compress.training.losses import cosine_loss, label_loss, masked_mean, soft_cross_entropy, soft_label_loss
from keras_compress.measure import accuracy, baselines, cost
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE, own_rows
from keras_compress.experiment.report import markdown_table
from keras_compress.pruning import layers as truncation
from keras_compress.training.finetune import Training, finetune

# %% [markdown]
r"""
The settings of the whole lesson, in one place. They are those of Lesson 1, so that the numbers of the two lessons may
stand side by side: the same texts, the same number of updates, the same learning rates for the large model and for the
small ones. The two BiLSTMs of Section 6 learn at rates of their own, each at the better one of the two that the study
`distillation-study` tried on dev (all training texts, seed 0): 2e-2 on the labels alone (69.7 %; 1e-2: 68.1 %), 1e-2
with the teacher (69.1 %; 2e-2: 66.4 %).
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=3)
small_training = training.replace(learning_rate=4e-4)
bilstm_training, guided_bilstm_training = (training.replace(learning_rate=rate) for rate in (2e-2, 1e-2))
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. The teacher

In knowledge distillation (知识蒸馏) a **teacher** (教师模型), large and trained, helps to train a **student** (学生模型),
small. Our teacher is what Lesson 1 called the predecessor: MiniLM with six layers, fine-tuned on commands for a phone.
The next cell takes a minute or two.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
if FAST:                                                      # random weights: as deep, but narrow
    narrow = minilm.config.replace(hidden_size=24, num_heads=2, intermediate_size=48)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
teacher = finetune(minilm, data, seed=SEED, training=training)
texts = ["turn off the lights", "don't turn off the lights, play some jazz", "before you play some jazz, call mum"]
rows = []
for text, p in zip(texts, teacher.predict(texts)):
    first, second, *_ = np.argsort(-p)
    rows.append((text, data.labels[first], f"{p[first]:.3f}", data.labels[second], f"{p[second]:.3f}"))
show(("text", "prediction", "probability", "second choice", "probability"), rows)

# %% [markdown]
r"""
A label says one thing about a text: which intent is right. The teacher says twenty: also what the text is *nearly*, and
what it is not at all. Look at the second choices. Does the teacher's doubt make sense to you?

<details><summary>What came out here</summary>

Yes, mostly. The second choice is the opposite command or one that the text mentions: `light_on` (0.011 and 0.006)
and `music_play` (0.005). But all of them are tiny: the first choices have 0.945 to 0.952.

</details>

## 2. Soft targets

### 2.1 Temperature

Small doubts are hard to learn from. Hinton et al. (2015, Section 2) make them visible: divide the logits
$z_i$ by a **temperature** (温度) $T$ before the softmax,

$$p_i = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)}.$$

At $T = 1$ this is the usual prediction. The larger $T$, the softer it gets; the order of the classes stays. These
probabilities are the **soft targets** (软标签), as opposed to the hard label. Here is the teacher's prediction for the
last text, its eight most likely intents.
"""

# %%
z = teacher.forward(teacher.tokenizer.encode(texts[-1:], training.max_length))[0]
order = np.argsort(-z)[:8]
figure, all_axes = plt.subplots(1, 4, figsize=(9.5, 2.6), sharey=True)
for axes, temperature in zip(all_axes, (1, 2, 5, 20)):
    p = tf.nn.softmax(z / temperature).numpy()[order]
    axes.barh(range(8), p, color=[INK] + [ACCENT] * 7)
    for place, share in enumerate(p):
        axes.text(share + .02, place, f"{share:.3f}", va="center", fontsize=8, color=GREY)
    axes.set(title=f"T = {temperature}", xlabel="probability", xlim=(0, 1.3), xticks=(0, .5, 1), ylim=(7.6, -.6))
    axes.grid(False)
all_axes[0].set_yticks(range(8), [data.labels[i] for i in order]);

# %% [markdown]
r"""
From which temperature on can one see the other choices at all? And from which on does the first one hardly stand out
any more? DistilBERT takes $T = 2$.

<details><summary>What came out here</summary>

At $T = 2$ the other bars can be seen, and the first still leads clearly. At $T = 20$ nothing stands out. But this
text hardly raises doubts: the other bars are nearly equal at every temperature. The order is kept, the lesson in it
is small. Section 2.1 goes on with many texts for that reason.

</details>

One text is an anecdote. The next table looks at many: the probability of the first choice, and the entropy (熵), the
mean surprise in nats, of texts that the teacher was trained on and of dev texts, which it was not.
"""

# %%
def logits_of(model, split, count=400):
    """The logits of the first texts of a split: float32 (n, classes)."""
    return np.stack(model.forward(model.tokenizer.encode(split.texts[:count], training.max_length)))


seen, unseen = logits_of(teacher, data.train), logits_of(teacher, data.dev)
rows = []
for temperature in (1, 2, 5, 20):
    both = [tf.nn.softmax(logits / temperature).numpy() for logits in (seen, unseen)]
    rows.append((temperature, *(f"{p.max(-1).mean():.2f}" for p in both),
                 *(f"{-(p * np.log(p)).sum(-1).mean():.2f}" for p in both)))
show(("T", "first choice, train", "first choice, dev", "entropy, train", "entropy, dev"), rows)
print(f"{len(seen)} and {len(unseen)} texts; entropy if all classes are equally likely: {np.log(len(data.labels)):.2f}")

# %% [markdown]
r"""
Compare *train* and *dev*. Where the teacher is surer of the texts that it was trained on, it has fewer doubts left to
pass on, and it is on these very texts that the student will listen. It is one reason to distil on additional texts.

<details><summary>What came out here</summary>

It is surer of what it was trained on: 0.95 against 0.88 for the first choice, 0.35 against 0.59 nats of entropy. At
$T = 2$ the two are close (2.13 and 2.26). At $T = 20$ both are at 2.99 of at most 3.00: nearly uniform.

</details>

### 2.2 Divergence or cross-entropy?

From here on, as in Hinton's paper, $v_i$ are the teacher's logits and $z_i$ the student's; softened, they give $p_i$
and $q_i$. The loss of the soft targets is the **Kullback-Leibler divergence** (KL 散度) at one temperature, times $T^2$:

$$L_{\mathrm{soft}} = T^2 \sum_i p_i \ln \frac{p_i}{q_i}
= T^2 \Big( \underbrace{- \sum_i p_i \ln q_i}_{\text{cross-entropy}}
- \underbrace{\big( - \sum_i p_i \ln p_i \big)}_{\text{the teacher's entropy}} \Big).$$

DistilBERT's paper writes cross-entropy (and prints it without its minus sign); the authors' code computes KL. Does it
matter? We let MiniLM under a new, untrained head answer the same texts and measure both.
"""

# %%
z_teacher, z_student = tf.constant(seen), tf.constant(logits_of(minilm, data.train))
hard = tf.constant(data.train.labels[:len(seen)])


def value_and_gradient(loss):
    """A loss of the student's logits, and for each text the gradient with respect to them: float, (batch, classes)."""
    with tf.GradientTape() as tape:
        tape.watch(z_student)
        value = loss(z_student)
    return float(value), len(seen) * tape.gradient(value, z_student).numpy()        # the loss is a mean over texts


def size(gradient):
    return np.linalg.norm(gradient, axis=-1).mean()


# %%
rows = []
for temperature in (1.0, 2.0, 5.0, 20.0):
    kl, by_kl = value_and_gradient(lambda z: masked_mean(soft_label_loss(z_teacher, z, temperature)))
    ce, by_ce = value_and_gradient(lambda z: masked_mean(temperature**2 * soft_cross_entropy(z_teacher, z, temperature)))
    p = tf.nn.softmax(seen / temperature).numpy()
    entropy = -(p * np.log(p)).sum(-1).mean()
    rows.append((temperature, f"{ce:.3f}", f"{kl:.3f}", f"{ce - kl:.3f}", f"{temperature**2 * entropy:.3f}",
                 f"{np.abs(by_kl - by_ce).max():.0e}", f"{np.abs(by_kl).max():.2f}"))
show(("T", "cross-entropy", "KL", "their difference", "T² × teacher's entropy", "largest difference of gradients",
      "largest gradient"), rows)

# %% [markdown]
r"""
The two values differ by the teacher's entropy, on which the student has no influence; so the gradients are the same but
for rounding. KL is the better one to *look at*: it is 0 exactly when the student agrees, at every temperature.

### 2.3 Why T²?

The gradient with respect to a student's logit shows it:

$$\frac{\partial\, \mathrm{KL}}{\partial z_i} = \frac{1}{T} (q_i - p_i).$$

One $1/T$ stands there. Another one hides in $q_i - p_i$: the softer the two predictions, the closer they are. So the
gradient (梯度) of KL falls like $1/T^2$, while the gradient of the labels' loss knows nothing of $T$. Mixed without the
factor, soft targets would fall silent as soon as one turns the temperature up.
"""

# %%
temperatures = np.geomspace(0.5, 100, 16)
by_soft = [size(value_and_gradient(lambda z: masked_mean(soft_label_loss(z_teacher, z, t)))[1]) for t in temperatures]
by_label = size(value_and_gradient(lambda z: label_loss(hard, z))[1])
limit = (z_student - tf.reduce_mean(z_student, -1, keepdims=True)
         - z_teacher + tf.reduce_mean(z_teacher, -1, keepdims=True)).numpy() / len(data.labels)
figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.loglog(temperatures, by_soft, color=ACCENT, marker="o", label="T² KL")
axes.loglog(temperatures, by_soft / temperatures**2, color=ACCENT, linestyle="--", marker="s", label="KL alone")
axes.axhline(by_label, color=INK, linestyle="-.", label="label loss")
axes.axhline(size(limit), color=GREY, linestyle=":", label="Hinton's limit of T² KL")
axes.set(xlabel="temperature T", ylabel="size of the gradient, mean over texts")
axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1));

# %% [markdown]
r"""
Compare the dashed line with the label loss's at $T = 1$ and at $T = 20$. With the factor $T^2$, the gradient of the
soft targets does not vanish as the temperature rises.

<details><summary>What came out here</summary>

At $T = 1$ the dashed line meets the label loss: both gradients are about equally large. At $T = 20$ the gradient of
KL alone is about a thousand times smaller. With the factor $T^2$ it stays within a factor of about three.

</details>

**Hinton's limit** (Section 2.1 of their paper): for large $T$ take $\exp(x) \approx 1 + x$. With $N$ classes, and
logits shifted so that each model's have mean 0, it follows that

$$T^2\, \frac{\partial\, \mathrm{KL}}{\partial z_i} \;\longrightarrow\; \frac{z_i - v_i}{N}.$$

But that is the gradient of a squared difference of logits. A hot softmax asks the student to copy all of the teacher's
logits, the very negative and noisy ones too; a cool one lets it ignore classes that are out of the question. How hot is
hot?

<details><summary>What came out here</summary>

DistilBERT's temperature is not hot: at 10 the gradient is still 0.2930 from the limit, relative to its length, and
only at 100 is it 0.0255. With twenty classes, temperatures below 10 are something else than copying logits.

</details>
"""

# %%
rows = []
for temperature in (1.0, 10.0, 100.0, 1000.0):
    _, gradient = value_and_gradient(lambda z: masked_mean(soft_label_loss(z_teacher, z, temperature)))
    rows.append((f"{temperature:.0f}", f"{np.linalg.norm(gradient - limit) / np.linalg.norm(limit):.4f}"))
show(("T", "distance of the gradient from the limit, relative"), rows)

# %% [markdown]
r"""
### Exercise 1 (3 points): soft targets by hand

Write the loss of Section 2.2 with NumPy. One trap is set: $\exp(1000)$ is infinite. Subtracting the same number from
all logits of a text changes no softmax; which number makes it safe?

<details><summary>Hint 1</summary>

Two steps: softmax at the temperature for both, then the sum over classes and the mean over texts.

</details>

<details><summary>Hint 2</summary>

Which number makes every exponent at most 0? It differs from text to text.

</details>

<details><summary>Hint 3</summary>

Do not take the logarithm of a probability that may be 0. Work with $\ln$ of the softmax: shifted logits minus the
logarithm of their summed exponentials.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "soft_loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
def soft_loss(teacher_logits, student_logits, temperature):
    """T^2 KL(teacher || student) at one temperature, mean over texts.

    Args:
        teacher_logits, student_logits: float arrays, (batch, classes); values may be as large as 1,000.
        temperature: positive float T.
    Returns:
        float, in nats.
    """
    ### BEGIN SOLUTION
    logs = []
    for logits in (teacher_logits / temperature, student_logits / temperature):
        safe = logits - logits.max(axis=-1, keepdims=True)
        logs.append(safe - np.log(np.exp(safe).sum(axis=-1, keepdims=True)))
    return float(temperature**2 * np.mean(np.sum(np.exp(logs[0]) * (logs[0] - logs[1]), axis=-1)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "soft_loss_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: one text by hand, at two temperatures
ours, theirs = np.log([[0.75, 0.25]]), np.log([[0.5, 0.5]])
np.testing.assert_allclose(soft_loss(ours, theirs, 1.0), 0.1308, atol=1e-4)     # .75 ln 1.5 + .25 ln .5
np.testing.assert_allclose(soft_loss(ours, theirs, 2.0), 0.1454, atol=1e-4)     # 4 (.634 ln 1.268 + .366 ln .732)
np.testing.assert_allclose(soft_loss(ours, ours + 5.0, 3.0), 0.0, atol=1e-9)    # a constant changes no softmax
#: 0.5 points: logits of 1,000
far = np.array([[1000.0, 0.0], [0.0, 0.0]])                                     # exp(1000) is infinite
np.testing.assert_allclose(soft_loss(far, far[:, ::-1], 1.0), 500.0, err_msg="the mean of 1,000 and 0")
print("soft_loss: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
#: banned: tf, keras, soft_label_loss, soft_cross_entropy
generator_ = np.random.default_rng(SEED)
a_, b_ = generator_.normal(scale=3.0, size=(2, 7, 20))
wanted_ = lambda t: float(masked_mean(soft_label_loss(tf.constant(a_), tf.constant(b_), t)))
#: 1 point: random logits at four temperatures
for t_ in (0.5, 1.0, 4.0, 20.0):
    np.testing.assert_allclose(soft_loss(a_, b_, t_), wanted_(t_), rtol=1e-6)
#: 0.5 points: the mean over texts
np.testing.assert_allclose(soft_loss(np.vstack([a_, a_]), np.vstack([b_, a_]), 4.0), wanted_(4.0) / 2, rtol=1e-6)
#: 0.5 points: each text has its own maximum
apart_ = np.array([[1000.0, 0.0], [0.0, 1.0]])
with np.errstate(all="raise", under="ignore"):
    large_ = soft_loss(apart_, apart_[:, ::-1], 1.0)
np.testing.assert_allclose(large_, (1000 + np.tanh(0.5)) / 2, rtol=1e-9)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 3. Three losses

DistilBERT (Sanh et al., 2019, Section 2) adds up three:

| loss | between | says |
|---|---|---|
| $L_{\mathrm{soft}}$ | the teacher's and the student's logits | answer as the teacher does, doubts included |
| $L_{\mathrm{label}}$ | the student's logits and the truth | and be right |
| $L_{\mathrm{cos}}$ | the last hidden states (隐状态) of the two | and let your inner vectors point where its point |

The first we know. The second is the cross-entropy of the student's own task: the masked words when it is pre-trained
(Section 9), the labels when, as here, it learns a task. The third is, over all tokens that are not padding,

$$L_{\mathrm{cos}} = \mathrm{mean}\,\big(1 - \cos(h_{\mathrm{student}}, h_{\mathrm{teacher}})\big).$$

It compares directions alone; how long a vector is does not matter. For this, student and teacher must have hidden
states of the same width: DistilBERT's student is as wide as its teacher, and only half as deep.

With which factors? The authors' code has
$L = 5 L_{\mathrm{soft}} + 2 L_{\mathrm{label}} + 1 L_{\mathrm{cos}}$ and $T = 2$, and an author confirms it
(huggingface/transformers, issue 2013); the equal factors in an example of their README belong to that example. They
are the package's defaults, too: `soft_weight`, `label_weight`, `cosine_weight` and `temperature`.

### Exercise 2 (4 points): directions, without the padding

Write $L_{\mathrm{cos}}$ with NumPy. Short texts are padded to the length of the longest in the batch. What a model
computes at padding is noise, so it must not count: not in the sum, not in the number that one divides by, and not even
when it is NaN.

<details><summary>Hint 1</summary>

First one cosine per token, then a mean over the tokens that count.

</details>

<details><summary>Hint 2</summary>

`NaN` times 0 is `NaN`. Choose the real tokens before you compute anything.

</details>

<details><summary>Hint 3</summary>

A truth array as index, `x[mask == 1]`, gives an array (tokens, hidden) for the whole batch.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "direction_loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
def direction_loss(teacher, student, mask):
    """1 - cosine of teacher's and student's hidden states, mean over all real tokens of the batch.

    Args:
        teacher, student: float arrays, (batch, seq, hidden); at padding anything, even a NaN.
        mask: int array, (batch, seq); 1 = real token, 0 = padding.
    Returns:
        float in [0, 2].
    """
    ### BEGIN SOLUTION
    a, b = teacher[mask == 1], student[mask == 1]                   # (real tokens, hidden)
    cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return float(np.mean(1.0 - cosine))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "direction_loss_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
ours = np.array([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
theirs = np.array([[[0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]]])                      # orthogonal 1, parallel 0, opposite 2
#: 0.5 points: three angles; the length does not count
np.testing.assert_allclose(direction_loss(ours, theirs, np.array([[1, 1, 1]])), 1.0)
np.testing.assert_allclose(direction_loss(ours, 7.0 * ours, np.array([[1, 1, 1]])), 0.0, atol=1e-9)
#: 0.5 points: the mean is over real tokens
np.testing.assert_allclose(direction_loss(ours, theirs, np.array([[1, 1, 0]])), 0.5)
#: 0.5 points: a NaN in the padding leaves no trace
broken = np.where(np.array([1, 1, 0])[None, :, None] == 1, theirs, np.nan)
np.testing.assert_allclose(direction_loss(ours, broken, np.array([[1, 1, 0]])), 0.5, err_msg="padding left a trace")
print("direction_loss: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.keras, keras
generator_ = np.random.default_rng(SEED)
h_t_, h_s_ = generator_.normal(size=(2, 4, 6, 5))
real_ = (np.arange(6) < np.array([[6], [1], [4], [2]])).astype(int)             # texts of unequal length
expected_ = float(masked_mean(cosine_loss(tf.constant(h_t_), tf.constant(h_s_)), tf.constant(real_)))
#: 1 point: texts of unequal length, all real tokens alike
np.testing.assert_allclose(direction_loss(h_t_, h_s_, real_), expected_, rtol=1e-6)
#: 1 point: NaN in the padding of teacher and student
noise_t_, noise_s_ = (np.where(real_[..., None] == 1, h, np.nan) for h in (h_t_, h_s_))
np.testing.assert_allclose(direction_loss(noise_t_, noise_s_, real_), expected_, rtol=1e-6)
#: 0.5 points: more padding changes nothing
longer_ = [np.pad(x, ((0, 0), (0, 3)) + ((0, 0),) * (x.ndim - 2), constant_values=9 * (x.ndim > 2)) for x in
           (h_t_, h_s_, real_)]
np.testing.assert_allclose(direction_loss(*longer_), expected_, rtol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. Where the student starts

### 4.1 Which layers

A student could start from random numbers. DistilBERT's starts from its teacher: embeddings and head are copied, and
some of the layers. "One layer out of two", says the paper; the authors' script takes layers 0, 2, 4, 7, 9 and 11 of
twelve. `select_layers` knows this rule and others.
"""

# %%
from keras_compress.bert.layer_maps import HOW, select_layers

figure, all_axes = plt.subplots(1, 2, figsize=(9, 2.4), width_ratios=(2, 1), sharey=True)
for axes, (num_layers, keep) in zip(all_axes, ((12, 6), (6, 3))):
    for row, how in enumerate(HOW):
        kept = select_layers(num_layers, keep, how)
        for layer in range(num_layers):
            axes.text(layer, row, layer, ha="center", va="center", color="white" if layer in kept else GREY, fontsize=9,
                      bbox={"boxstyle": "round,pad=.35", "color": ACCENT if layer in kept else PALE})
    axes.set(xlim=(-.7, num_layers - .3), ylim=(len(HOW) - .4, -.6), xticks=[], title=f"{keep} of {num_layers}")
    axes.grid(False)
all_axes[0].set_yticks(range(len(HOW)), HOW);

# %% [markdown]
r"""
The row `distilbert` is the only one here that keeps both ends: the first layer, which knows the embeddings, and the
last, which knows the head. Between them the steps are as even as whole numbers allow.

### Exercise 3 (3 points): both ends included

Write this rule for any two numbers. Halves are rounded up; beware, Python's `round` rounds 2.5 to 2. And what if only
one layer stays?

<details><summary>Hint 1</summary>

Where would the layers lie if fractions were allowed?

</details>

<details><summary>Hint 2</summary>

The first is 0, the last `num_layers - 1`; between them there are `keep - 1` equal steps.

</details>

<details><summary>Hint 3</summary>

Rounding halves up means: add a half, then round down. Treat a single layer first, or you divide by zero.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "spread", "locked": false, "schema_version": 3, "solution": true, "task": false}
def spread(num_layers, keep):
    """Layers evenly spaced from the first to the last, both included; halves are rounded up.

    Args:
        num_layers: layers of the teacher. keep: how many the student starts from, 1 to `num_layers`.
    Returns:
        list of `keep` ints, rising, from 0; [0] if only one stays.
    """
    ### BEGIN SOLUTION
    if keep == 1:
        return [0]
    return [int(i * (num_layers - 1) / (keep - 1) + 0.5) for i in range(keep)]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "spread_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: the authors' six of twelve; all stay
assert list(spread(12, 6)) == [0, 2, 4, 7, 9, 11], "the authors' six of twelve"
assert list(spread(4, 4)) == [0, 1, 2, 3], "all stay"
#: 0.5 points: halves are rounded up
assert list(spread(6, 3)) == [0, 3, 5], "2.5 is rounded up"
#: 0.5 points: only one layer stays
assert list(spread(6, 1)) == [0], "the first"
print("spread: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
from keras_compress.bert.layer_maps import select_layers
#: 1 point: all pairs up to 24 layers
for layers_ in range(2, 25):
    for keep_ in range(2, layers_ + 1):
        assert list(spread(layers_, keep_)) == select_layers(layers_, keep_, "distilbert"), (layers_, keep_)
#: 0.5 points: one layer of any number
assert all(list(spread(layers_, 1)) == [0] for layers_ in range(1, 25))
### END HIDDEN TESTS

# %% [markdown]
r"""
### 4.2 Without token types

BERT adds three vectors per token: of the word, of the position, and of the **token type** (片段类型), which tells the
first text of a pair from the second. DistilBERT drops the token types, and the pooler, a dense layer that BERT has
between [CLS] (the special piece before every text) and the classifier. (Our teacher has no pooler: its classifier reads
[CLS] directly.) But a BERT adds the vector of type 0 to *every* token of a single text. If the table is just thrown
away, the student misses something from its first step.

There is an exact way out: that vector is the same at every position, so it can move into the position table.
`without_token_types` does so. We compare the hidden states after every layer: once with the vector moved, once with
the vector lost. All six layers are kept here, so without loss nothing may change.
"""

# %%
moved = distilbert.without_token_types(teacher, seed=SEED)
lost = moved.clone(seed=SEED)
lost.set_weights(teacher.weights(), only=["position_embeddings/embeddings"])     # the table as it was
batch = teacher.pad(teacher.tokenizer.encode(data.train.texts[:32], training.max_length))
inputs = {name: tf.constant(value) for name, value in batch.items()}
real = tf.cast(inputs["input_mask"], tf.float32)[..., None]
theirs, with_it, without_it = (model.features(["hidden_states"])(inputs)["hidden_states"]
                               for model in (teacher, moved, lost))
rows = [("embeddings" if i == 0 else f"layer {i - 1}", f"{tf.reduce_max(abs(a - h) * real):.0e}",
         f"{tf.norm((a - h) * real) / tf.norm(h * real):.0e}", f"{tf.norm((b - h) * real) / tf.norm(h * real):.3f}")
        for i, (h, a, b) in enumerate(zip(theirs, with_it, without_it))]
show(("after", "moved: largest difference", "moved: relative distance", "lost: relative distance"), rows)

# %% [markdown]
r"""
The first two columns are rounding. The last is what the student would have to learn again if the vector were lost, as
it is in the authors' code. Whether that changes answers, count for yourself:

<details><summary>What came out here</summary>

With the vector lost, 160 of 200 dev texts keep the teacher's answer; with the vector moved, 200. Yet the table
holds only 768 of 22,573,076 parameters. Few parameters can matter much.

</details>
"""

# %%
some = data.dev.texts[:200]
answers = {name: model.predict(some).argmax(-1) for name, model in
           (("teacher", teacher), ("moved", moved), ("lost", lost))}
show(("type-0 vector", "parameters", f"same answer as the teacher, of {len(some)} dev texts"),
     [(name, f"{model.model.count_params():,}", int((answers[name] == answers["teacher"]).sum()))
      for name, model in (("moved", moved), ("lost", lost))])
print(f"teacher: {teacher.model.count_params():,} parameters; token types: "
      f"{teacher.weights()['type_embeddings/embeddings'].size:,} of them")

# %% [markdown]
r"""
## 5. Distil

Before the long run, one look at what the student starts with. These are the three losses of the untrained student
(layers 0, 3 and 5 of the teacher) on one batch of dev, each with its factor.
"""

# %%
first = next(iter(data.batches("dev", teacher.tokenizer, 128, training.max_length)))


def three_losses(model, batch=first, temperature=2.0):
    """The losses of DistilBERT, by name, of a student on one batch; its texts are read as when predicting."""
    inputs, labels = batch
    theirs, ours = (m.features(["hidden_states", "logits"])(inputs) for m in (teacher, model))
    cosine = cosine_loss(theirs["hidden_states"][-1], ours["hidden_states"][-1])
    return {"soft": float(masked_mean(soft_label_loss(theirs["logits"], ours["logits"], temperature))),
            "label": float(label_loss(labels, ours["logits"])),
            "cosine": float(masked_mean(cosine, inputs["input_mask"]))}


factors = {"soft": 5.0, "label": 2.0, "cosine": 1.0}
start = three_losses(distilbert.without_token_types(teacher.keep_layers(select_layers(6, 3, "distilbert"))))
show(("loss", "value", "factor", "product"),
     [(name, f"{start[name]:.3f}", factor, f"{factor * start[name]:.2f}") for name, factor in factors.items()])

# %% [markdown]
r"""
Now the whole method in one call. The teacher runs without dropout (随机失活) and receives no gradient; only the student
is updated.
"""

# %%
student = distilbert.compress(teacher, data, seed=SEED, training=small_training, num_layers=3)
settings = next(step for step in student.history if step["method"] == "distilbert")
print({key: settings[key] for key in ("layers", "temperature", "soft_weight", "label_weight", "cosine_weight")})
end = three_losses(student)
show(("loss", "at the start", "distilled"), [(name, f"{start[name]:.3f}", f"{end[name]:.3f}") for name in factors])

# %% [markdown]
r"""
And on the way? Above, the three parts of the training loss with their factors, which add up to what was minimised; in
the middle each part relative to its first value; below, accuracy on dev.
"""

# %%
curve = own_rows({"predecessor": teacher.curve, "distilbert-3": student.curve})["distilbert-3"]
steps = [row["step"] for row in curve]
colours = dict(zip(factors, (ACCENT, INK, GREY)))
figure, all_axes = plt.subplots(3, 1, figsize=(6.4, 6), sharex=True)
all_axes[0].stackplot(steps, [[f * row[name] for row in curve] for name, f in factors.items()], labels=factors,
                      colors=[colours[name] for name in factors], alpha=.8)
all_axes[0].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
for (name, colour), dashes in zip(colours.items(), ("-", "--", ":")):
    all_axes[1].plot(steps, [row[name] / max(curve[0][name], 1e-9) for row in curve], color=colour, linestyle=dashes)
all_axes[2].plot(*zip(*[(row["step"], 100 * row["dev"]) for row in curve if "dev" in row]), color=ACCENT, marker="o")
for axes, label in zip(all_axes, ("factor × loss", "share of first value", "dev accuracy, %")):
    axes.set_ylabel(label)
axes.set_xlabel("update");

# %% [markdown]
r"""
Three things to look for. Which part is the largest at first, and which at the end? A large part is not always a strong
one: what moves the weights is its gradient. Which part falls least? If it is the cosine: the angle need not become 0 at
every token, since the classifier reads [CLS] alone. And does dev accuracy still rise where the losses have become flat?

<details><summary>What came out here</summary>

Soft is the largest all along: before training 9.47 of the sum, with 4.00 for the labels and 0.69 for the cosine.
Soft and label fall together; the cosine falls least, on dev from 0.686 to 0.237. Dev accuracy still rises by about
two points in the last third, where the losses are flat.

</details>

## 6. A student of another kind

Soft targets need nothing but logits, so the student may be of any kind. Tang et al. (2019) took a **BiLSTM** (双向
LSTM), two recurrent networks that read the text from either end; their loss was the squared difference of the logits,
which Section 2.3 met as Hinton's limit. We stay with soft targets. A BiLSTM has no attention, no positions, and no
hidden states that could be compared with BERT's, so the cosine loss is left out. Ours starts from MiniLM's word
vectors; all else is new.

We train it twice from the same start: on the labels alone, and with the teacher.
"""

# %%
lstm = weights.load("bilstm", task=data.task, labels=data.labels, seed=SEED)
if FAST:
    tiny = lstm.config.replace(hidden_size=24, num_heads=2, intermediate_size=4)
    lstm = TaskModel(tiny, lstm.tokenizer, data.task, data.labels, seed=SEED)
bilstm = finetune(lstm, data, seed=SEED, training=bilstm_training)
bilstm_distilled = distilbert.compress(teacher, data, seed=SEED, training=guided_bilstm_training, student=lstm,
                                       num_layers=1, cosine_weight=0.0)
for name, model in (("labels alone", bilstm), ("with the teacher", bilstm_distilled)):
    print(f"{name:>17}: dev, %:", " → ".join(f"{100 * row['dev']:.1f}" for row in model.curve if "dev" in row))

# %% [markdown]
r"""
## 7. Was it worth it? Fair baselines

A small model needs company to be judged. The small BERTs are all of one size (but for the token types) and get the same
number of updates, on the same batches, at the same learning rate:

- `distilbert-3`: this lesson;
- `labels-3`: the same start, layers 0, 3 and 5 without token types, trained on the labels alone. The difference between
  the two is what the two losses with the teacher and their factors add;
- `truncated-3`: the bottom three layers of the teacher, trained on the labels, as in Lesson 1;
- `plain-3`: the bottom three layers of the *pre-trained* model, trained on the labels.

Beside them the two BiLSTMs of Section 6; above them the teacher; below them two that need no BERT: TF-IDF with a linear
model, and the most frequent class.
"""

# %%
small = {"seed": SEED, "training": small_training, "num_layers": 3}
models = {"teacher": teacher, "distilbert-3": student,
          "labels-3": truncation.compress(moved, data, how="distilbert", **small),
          "truncated-3": truncation.compress(teacher, data, **small),
          "plain-3": truncation.compress(minilm, data, **small),
          "bilstm": bilstm, "bilstm-distilled": bilstm_distilled}
results = {name: accuracy.evaluate(model, data.test) for name, model in models.items()}
results |= {row["name"]: result for row, result in baselines.baselines(data)}

# %%
def percent(result):
    return f"{100 * result['value']:.1f} ± {100 * result['se']:.1f}"


def paired(name, other):
    """`name` minus `other` on the same test texts."""
    return accuracy.paired_difference("accuracy", results[name]["scores"], results[other]["scores"])


def points(pair):
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))


# %%
rows = []
for name, result in results.items():
    model = models.get(name)
    rows.append((name, f"{model.model.count_params():,}" if model else "–",
                 percent(accuracy.evaluate(model, data.dev)) if model else "–", percent(result),
                 points(paired("distilbert-3", name)) if name != "distilbert-3" else "–"))
show(("model", "parameters", "dev, % ± SE", "test, % ± SE", "distilbert-3 minus this, points [95 %]"), rows)
print(f"bilstm-distilled minus bilstm, test: {points(paired('bilstm-distilled', 'bilstm'))} points")
print(f"dev: {len(data.dev.texts):,} texts, test: {len(data.test.texts):,} texts, one seed")

# %% [markdown]
r"""
How to read it. **SE** is the standard error over the examples: what other test texts would change. The last column is
**paired**: both models answer the same texts, and only the texts on which they differ count. An interval that contains
0 does not say that two models are equal; it says that this test cannot tell them apart. Dev had a say in the settings,
and dev and test hold other phrasings and other words: where the two disagree, do not read too much into either.

Start with `labels-3`: that row, and no other, is about the soft targets and the cosine loss. The row `truncated-3`
mixes two things, the teacher's voice and the choice of the layers; compare `labels-3` with it to see the second alone.

<details><summary>What came out here</summary>

`distilbert-3` against `labels-3`: +1.3 points, [-0.1, +2.8]. The test cannot tell them apart. `labels-3` against
`truncated-3`: +2.1 points. So a good part of the gain over `truncated-3` (+3.4) comes from the choice of layers,
without a teacher's voice. The BiLSTM gains +7.6 points on test and nothing on dev (66.6 and 67.5 %): a warning, not
a result.

</details>
"""

# %%
names = [name for name in results if name != "majority"]
figure, axes = plt.subplots(figsize=(6, 3))
for place, name in enumerate(names):
    colour = ACCENT if name in ("distilbert-3", "bilstm-distilled") else INK if name == "teacher" else GREY
    axes.errorbar(100 * results[name]["value"], place, xerr=196 * results[name]["se"], fmt="o", color=colour)
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="test accuracy, % (bars: 95 % intervals; blue: with the teacher's help)", ylim=(len(names) - .5, -.5));

# %% [markdown]
r"""
Has the student become *like* its teacher? Accuracy does not say. We count how often a model gives the teacher's answer
on test, and how often it does so where the teacher is *wrong*. Even a model that heard no
teacher will share some of its mistakes: where the same texts mislead both, or where it started from the same weights.
"""

# %%
said, right = results["teacher"]["predictions"], results["teacher"]["scores"]
rows = []
for name in list(models)[1:]:
    same = results[name]["predictions"] == said
    rows.append((name, f"{100 * same.mean():.1f}", f"{100 * same[right].mean():.1f}" if right.any() else "–",
                 f"{100 * same[~right].mean():.1f}" if not right.all() else "–"))
show(("model", "teacher's answer, %", "... where the teacher is right", "... where it is wrong"), rows)
print(f"the teacher is right on {right.sum():,} test texts and wrong on {(~right).sum():,}")

# %% [markdown]
r"""
Compare `distilbert-3` with `labels-3`, and `bilstm-distilled` with `bilstm`, in the last column. Where the distilled
one has the larger share, that hints that it has taken over errors along with the doubts; but mind how few texts the
last column rests on.

<details><summary>What came out here</summary>

In both pairs the distilled model shares *fewer* of the teacher's mistakes: 47.6 against 52.1 %, and 35.8 against
43.1 %. So nothing here hints that it took over errors. The last column rests on 288 texts, and `truncated-3`
without a teacher shares most (57.6 %).

</details>

## 8. What it cost

A method costs twice: once in training, and again with every text at inference (推理). The operations are counted, not
timed, so they are the same on every machine; for an update on one text we reckon, as a rule of thumb, one forward pass
of the student for its answer and two for its gradients, and, if there is a teacher, one forward pass of the teacher.
"""

# %%
folder, length, rows = tempfile.mkdtemp(), training.max_length, []
flops = {name: cost.flops(model.config, length, len(data.labels)) / 1e6 for name, model in models.items()}
for name, model in models.items():
    model.save(f"{folder}/{name}")
    guided = name in ("distilbert-3", "bilstm-distilled")
    rows.append((name, f"{model.model.count_params():,}", f"{cost.encoder_parameters(model.config):,}",
                 f"{os.path.getsize(f'{folder}/{name}/model.safetensors') / 1e6:.1f}", f"{flops[name]:,.0f}",
                 f"{3 * flops[name] + guided * flops['teacher']:,.0f}"))
show(("model", "parameters", "of these in layers", "MB", f"Mflops to answer {length} pieces", "Mflops to train"), rows)

# %% [markdown]
r"""
Look at the columns one by one. In the file the table of words weighs most, and DistilBERT's recipe does not touch it:
same vocabulary, same width. In answering, half the layers is about half the work. In training, the teacher's forward
pass comes on top; it is the same in every epoch, so `Training(cache_teacher=True)` runs it once per text and keeps the
answers. The BiLSTM counts fewest operations, but it must read one piece after the other, which no counting of
operations shows. (Lesson 1 shows how to measure time in a file for a phone.)

The same formulas reproduce a published size. For BERT-base and the student that the paper made of it:
"""

# %%
from keras_compress.bert.config import BertConfig

base = cost.parameters(BertConfig())
distil = cost.parameters(BertConfig(num_layers=6, type_vocab_size=0, pooling="cls"))
print(f"BERT-base: {base:,} parameters; DistilBERT: {distil:,} ({distil / base - 1:+.0%})")

# %% [markdown]
r"""
The authors' README states 66 million parameters, 40 % fewer than BERT-base: the same, rounded.

## 9. The general stage

What we have done so far distils *on a task*. DistilBERT itself is something else: a **general** (通用) student, distilled
once on plain text with no labels, that anybody can fine-tune later for any task. The three losses stay; the task is
now the **masked language model** (掩码语言模型, MLM), BERT's own.

### 9.1 Masked words

Of all pieces 15 % are drawn. Of these, 80 % are replaced by [MASK], 10 % by a random piece, and 10 % stay as they are;
the model must say what stood there (Devlin et al., 2019, Section 3.1). The draw is made anew in every epoch. Bold: what
the model is asked about.
"""

# %%
from keras_compress.pretraining.masking import each_piece, mask_words

tokenizer, text = teacher.tokenizer, data.train.texts[1]
line = teacher.pad(tokenizer.encode([text], training.max_length))
line = {name: tf.constant(value) for name, value in line.items()}
rows = []
for epoch in range(4):
    changed, targets = mask_words(line, each_piece(line, tokenizer), tokenizer, (SEED, epoch))
    pieces = [tokenizer.vocab[index] for index in changed["input_word_ids"][0].numpy()]
    rows.append((" ".join(f"**{piece}**" if target >= 0 else piece
                          for piece, target in zip(pieces, targets[0].numpy())), epoch))
show((text, "epoch"), rows)

# %% [markdown]
r"""
Why not always [MASK]? Because a fine-tuned model never meets that piece, and a model that knows it is asked only at
[MASK] has no reason to understand the others. Do the shares hold? We draw many times, and count in standard errors.
With `words` from the data set instead of `each_piece` a word is drawn as a whole, all its pieces at once; the shares
stay.
"""

# %%
inputs, words = next(iter(data.batches("train", tokenizer, 64, training.max_length, words=True)))
original, rows = inputs["input_word_ids"].numpy(), []
for title, groups in (("each piece", each_piece(inputs, tokenizer)), ("whole words", words)):
    counts = np.zeros(4)
    for draw in range(400):
        changed, targets = mask_words(inputs, groups, tokenizer, (SEED, draw))
        changed, asked = changed["input_word_ids"].numpy(), targets.numpy() >= 0
        masked = changed == tokenizer.ids["[MASK]"]
        other = asked & ~masked & (changed != original)
        counts += asked.sum(), masked.sum(), other.sum(), (groups.numpy() >= 0).sum()
    drawn, masked, random, total = counts
    shares = drawn / total, masked / drawn, random / drawn, 1 - (masked + random) / drawn
    rows.append((title, *(f"{share:.3f} ± {(share * (1 - share) / n) ** .5:.3f}"
                          for share, n in zip(shares, (total, drawn, drawn, drawn)))))
show(("drawn", "of all pieces (0.15)", "[MASK] (0.8)", "random piece (0.1)", "unchanged (0.1)"), rows)

# %% [markdown]
r"""
(For whole words the errors are somewhat too small: the pieces of a word are not drawn independently.)

<details><summary>What came out here</summary>

They hold: 0.150 of all pieces are drawn, and of these 0.798 become [MASK], 0.100 another piece, 0.102 stay; all lie
within two standard errors.

</details>

### 9.2 Three losses over the vocabulary

The logits now have one place for every piece of the vocabulary, and there is a prediction at every token. So the soft
targets are no longer twenty numbers per text, but some thirty thousand per token: a rich lesson, and most of the
computing. The authors take the soft targets of all tokens; `tokens="masked"` takes those of the masked ones alone,
which is several times as fast.

The teacher needs a head for masked words. MiniLM comes without one, so we train a new head on the encoder as it is,
with `masked_lm`, and then distil. This is a demonstration that shows the parts at work, with one epoch over our few
texts and without their labels: the real stage takes a corpus. The paper used English Wikipedia and BookCorpus, and
about 90 hours on eight V100.
"""

# %%
from keras_compress.pretraining.masked_lm import masked_lm

prose = datasets.Dataset("commands", "unlabelled", (), *(
    datasets.Split(split.texts, list(range(len(split.texts)))) for split in (data.train, data.dev)))
brief = small_training.replace(epochs=1, evaluations=1)
mlm_teacher = masked_lm(minilm, prose, seed=SEED, training=brief, train="head")
general = distilbert.distilbert_general(mlm_teacher, prose, seed=SEED, training=brief, num_layers=3, tokens="masked")
begin, *_, last = own_rows({"predecessor": mlm_teacher.curve, "general-3": general.curve})["general-3"]
show(("update", "soft", "label (masked words)", "cosine"),
     [(row["step"], *(f"{row[name]:.2f}" for name in factors)) for row in (begin, last)])
print(f"masked pieces of dev guessed: teacher {mlm_teacher.curve[-1]['dev']:.1%}, student {last['dev']:.1%}; "
      f"vocabulary: {len(tokenizer.vocab):,} pieces")

# %% [markdown]
r"""
Compare the label loss with $\ln$ of the vocabulary's size, which is what blind guessing costs, and remember what the
teacher is here: an encoder under a head that has had one epoch. From here the way to a task is that of every
pre-trained model: a new head, and fine-tuning.

<details><summary>What came out here</summary>

The label loss falls from 6.70 to 5.07 nats; blind guessing costs 10.33. The student even guesses more masked pieces
than its teacher (13.5 and 8.6 %): all its weights learned, while only the teacher's head did.

</details>
"""

# %%
ready = weights.with_head(general, data.task, data.labels, seed=SEED)
print(f"blind guessing: {np.log(len(tokenizer.vocab)):.2f} nats")
print(f"{ready.config.num_layers} layers, task {ready.task}, new: {', '.join(ready.history[-1]['new'])}")

# %% [markdown]
r"""
## 10. An honest reading

What may we say after this lesson? Let the numbers write the sentences.
"""

# %%
def say(name, other):
    pair = paired(name, other)
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"On these {pair['n']:,} test texts, with this seed, {name} {verdict} {other} "
          f"({100 * pair['difference']:+.1f} points).")


for other in results:
    if other != "distilbert-3":
        say("distilbert-3", other)
say("labels-3", "truncated-3")
say("bilstm-distilled", "bilstm")

# %% [markdown]
r"""
And what may we *not* say?

- **One seed is one pupil.** The intervals know nothing of other seeds. Data order and dropout could have fallen
  otherwise, and small models often differ between seeds by about as much as methods differ from each other.
  `python -m keras_compress run distillation-study` takes all texts and public sets; there the BiLSTM's gain does not show
  (`data/results`).
- **Nothing was tuned for the method.** Temperature and factors are the authors', made for another stage and far more
  text; the learning rate of the small BERTs was found for one without a teacher. For the BiLSTM that would have
  mattered: the one with a teacher wants the other rate. Other values may turn a result either way. To choose them is to
  look at dev, never at test.
- **Equal updates are not equal cost.** `distilbert-3` also runs the teacher, see Section 8. What you save, you save at
  inference, again with every text.
- **The student heard its teacher on the teacher's own training texts** (Section 2.1 shows how much doubt was left
  there). Texts without labels are of no use to fine-tuning, but a teacher can answer them; this lesson does not try
  that on the task.
- **`assistant` is a made set.** Its sentences come from a grammar; claims about methods rest on public sets. For the
  general student, the authors' README (since January 2020, when an error in their evaluation was corrected) reports a
  mean of 77.0 on GLUE's dev sets, where BERT-base has 79.5. That student was made by the general stage on a large
  corpus; nothing in this lesson confirms or contradicts it.

## 11. Where to read on

- Hinton, Vinyals, Dean: *Distilling the Knowledge in a Neural Network*, 2015,
  [arXiv:1503.02531](https://arxiv.org/abs/1503.02531). Sections 2 and 2.1 are our Section 2.
- Sanh, Debut, Chaumond, Wolf: *DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter*, 2019,
  [arXiv:1910.01108](https://arxiv.org/abs/1910.01108). Section 2 has the losses and the start.
- Tang et al.: *Distilling Task-Specific Knowledge from BERT into Simple Neural Networks*, 2019,
  [arXiv:1903.12136](https://arxiv.org/abs/1903.12136).
- `keras_compress/distillation/distilbert.py` and `keras_compress/training/distill.py`: the docstrings map equations to names and admit where
  we depart from the paper. Look for `stop_gradient`: what would happen without it?
- Try it: `temperature=1.0` or `8.0`, `label_weight=0.0`, `cosine_weight=0.0`, `layers="bottom"`, two layers instead of
  three. Write down what you expect before you run it.
"""

# %% [markdown]
r"""
## 12. In five lines

- Soft targets are the teacher's probabilities at a temperature. They say what a text is nearly.
- KL and cross-entropy differ by the teacher's entropy, so their gradients are equal. The factor $T^2$ keeps the
  gradient from vanishing.
- DistilBERT adds three losses (factors 5, 2, 1) and starts from every second layer of its teacher.
- Here `distilbert-3` is 1.3 points above `labels-3`, which started alike: too little for this test to tell them
  apart.
- The teacher costs time in training (2,601 against 1,561 Mflops per text and update), nothing in answering.
"""

# %% [markdown]
r"""
## 13. Five questions

**1.** What do soft targets tell the student that labels do not?

- **a** Which texts the teacher gets wrong.
- **b** How near the wrong classes are to this text.
- **c** How the teacher's layers reach the answer.

<details><summary>Answers, and why</summary>

- **a** No. The teacher's probabilities do not say whether it is right.
- **b** Right. That is in the small probabilities, which the temperature makes visible.
- **c** No. They are read at the very end. Lesson 3 looks inside.

</details>

**2.** Someone raises $T$ from 2 to 20 "because more temperature means more knowledge". What happens?

- **a** The student sees classes that were hidden at lower temperatures.
- **b** The student's own predictions become softer for good.
- **c** Targets become nearly uniform, and the loss a comparison of all logits.

<details><summary>Answers, and why</summary>

- **a** No. Every class has a probability above 0 at each temperature; the order is the same.
- **b** No. The temperature is used in the loss alone; the student answers at 1.
- **c** Right. Here the entropy is 2.99 of 3.00 then. Noise in very negative logits counts as much as the rest.

</details>

**3.** A paper trains with cross-entropy to soft targets, its code with KL, at the same factor and temperature. Do
the students differ?

- **a** No: the difference does not depend on the student.
- **b** Yes: cross-entropy is much larger and outweighs the labels.
- **c** Yes: only KL is 0 for a perfect student.

<details><summary>Answers, and why</summary>

- **a** Right. It is the teacher's entropy. Section 2.2 measured equal gradients.
- **b** No. Its value is larger, its gradient is not. Updates follow gradients.
- **c** No. True of the values, but a constant does not change where the minimum lies.

</details>

**4.** `distilbert-3` is 3.4 points better than `truncated-3`. How much of this may be credited to the teacher?

- **a** All of it: `truncated-3` had no teacher.
- **b** None: the interval against `labels-3` contains 0.
- **c** Rather the 1.3 points over `labels-3`, and even these are not certain.

<details><summary>Answers, and why</summary>

- **a** No. It also starts from other layers. Two things changed at once.
- **b** No. An interval with 0 inside does not prove that there is no effect.
- **c** Right. `labels-3` has the same start, so this row isolates the teacher; its interval reaches from -0.1 to
  +2.8.

</details>

**5.** Why is the vector of token type 0 moved into the position table?

- **a** To save 768 parameters.
- **b** Every token of a single text received it, so without it all later layers read something else.
- **c** Because the student must tell the two texts of a pair apart.

<details><summary>Answers, and why</summary>

- **a** No. Dropping the table saves them in any case, lost or moved.
- **b** Right. Lost, it changes 40 of 200 answers; moved, none.
- **c** No. Just that is given up: one type for all.

</details>
"""

# %% [markdown]
r"""
## 14. A challenge

A teacher can answer texts without labels. Take the training texts that the lesson left out (the set has more than
2,500), hide their labels, and distil on them: `label_weight=0.0`, same number of updates. Compare with
`distilbert-3`, and with `labels-3` on as many labelled texts. Before you run it, use the entropies of Section 2.1
to predict which wins.
"""
