# %% [markdown]
r"""
# Lesson 1 · BERT-of-Theseus: rebuild a model plank by plank

**After this lesson you can** cut a fine-tuned BERT into modules; train small replacements inside the large model, with
no loss but the task's own; say at every moment which weights move; judge the small model fairly; and put it into a
file for a phone.

**You need** Lesson 0: shapes, mask, intervals. Further Python and NumPy, the idea of a Transformer layer
(attention, feed-forward, residual, layer norm), softmax and cross-entropy. It helps to have fine-tuned a BERT once.

**Time** about 8 minutes of computing on a laptop CPU with two cores, an hour with the exercises (10 points).
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
from keras_compress.bert.layers import AttentionBias
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure import accuracy, baselines, cost
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE, own_rows
from keras_compress.experiment.report import markdown_table
from keras_compress.pruning import layers as truncation
from keras_compress.replacement import theseus
from keras_compress.training.finetune import Training, adamw, finetune, task_loss

# %% [markdown]
r"""
The settings of the whole lesson, in one place. All models get the same number of updates, in batches of the same size.
The small models share a learning rate, the one that serves the baseline `plain-3` best on dev: 2e-4, 4e-4 and 6e-4 gave
43.1, 55.7 and 51.5 %. Training cuts texts after `max_length` word pieces; a warning counts how many that are.
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 32, "num_dev": 20, "num_test": 40} if FAST else {"num_train": 2500}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=3)
small_training = training.replace(learning_rate=4e-4)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. The predecessor: a large model that works

Our task: what does someone want from a phone? The set `assistant` was made for this project from a grammar. It is
built so that single words are not enough: a command may be negated, corrected, or come second in the sentence and
first in time.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
show(("text", "intent"), [(data.train.texts[i], data.labels[data.train.labels[i]]) for i in range(8)])
print({name: len(getattr(data, name).texts) for name in ("train", "dev", "test")}, len(data.labels), "intents")

# %% [markdown]
r"""
Read two or three of them aloud: which words decide, and which ones mislead?

<details><summary>What came out here</summary>

In "quit playing music, sorry, I meant, look up when the concert is" the first command is withdrawn: `event_query`.
In the first text "I never ask you to" cancels the music, and the lamp decides: `light_on`. A model that counts
words sees light and music in both halves and has to guess.

</details>

The method needs a **predecessor** (前辈模型): a model that is already fine-tuned (fine-tuning, 微调) on the task. Ours
is MiniLM, a small pre-trained BERT with six layers. The next cell takes a minute or two.
"""

# %%
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
if FAST:                                                      # random weights: as deep, but narrow
    narrow = minilm.config.replace(hidden_size=24, num_heads=2, intermediate_size=48)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
predecessor = finetune(minilm, data, seed=SEED, training=training)
texts = ["turn off the lights", "don't turn off the lights, play some jazz", "before you play some jazz, call mum"]
probabilities = predecessor.predict(texts)
show(("text", "prediction", "probability"),
     [(text, data.labels[row.argmax()], f"{row.max():.2f}") for text, row in zip(texts, probabilities)])

# %% [markdown]
r"""
Where are its parameters, and where does its computing time go? The two answers differ: looking a word up in a table
multiplies nothing.
"""

# %%
config, length = predecessor.config, training.max_length
in_layers, total = cost.encoder_parameters(config), predecessor.model.count_params()
work = cost.flops(config, length, len(data.labels))
show(("part", "parameters", "share", f"flops at {length} pieces"),
     [("embeddings and classifier", f"{total - in_layers:,}", f"{1 - in_layers / total:.0%}", "almost none"),
      (f"{config.num_layers} layers", f"{in_layers:,}", f"{in_layers / total:.0%}", f"{work / 1e6:,.0f} million")])

# %% [markdown]
r"""
This table is a forecast of what we can win. Half the layers means about half the time, but much less than half off the
file: the table of word pieces stays. (Later lessons shrink that one.)

<details><summary>What came out here</summary>

The table of word pieces and the classifier hold 53 % of the parameters and cost almost no computing. The 6 layers
hold 47 % and do all of the 1,040 million operations.

</details>

## 2. The ship of Theseus

The Athenians kept the ship of Theseus in the harbour for centuries. Whenever a plank rotted they put in a new one,
until not one old plank was left. At every moment it was a ship that floated.

BERT-of-Theseus (Xu et al., 2020) rebuilds a network in this way. Cut the predecessor into **modules** (模块). Give each
module a smaller substitute, its **successor** (传承者). During training, replace modules by their successors at random,
more and more often. A new plank never has to be a ship of its own: from the first step it works among old planks that
know their job, and it learns to fit. In the end all planks are new, and the ship is smaller.

What is missing is remarkable too: no loss compares the two models, as knowledge distillation (知识蒸馏) would. The only
loss is the task's own.

Here are our modules: six layers in three modules, with one new layer for each.
"""

# %%
module_map = theseus.cut_into_modules(config.num_layers, 3)
figure, axes = plt.subplots(figsize=(8, 2.6))
for i, members in enumerate(module_map):
    middle = np.mean(members)
    axes.add_patch(plt.Rectangle((members[0] - .45, 1.6), len(members) - .1, 1.3, color=PALE))
    axes.text(middle, 3.05, f"module {i}", ha="center", color=GREY)
    for layer in members:
        axes.text(layer, 2.25, f"layer {layer}", ha="center", va="center", color="white",
                  bbox={"boxstyle": "round,pad=.6", "color": INK})
    axes.annotate("", (middle, .95), (middle, 1.6), arrowprops={"arrowstyle": "->", "color": ACCENT})
    axes.text(middle, .5, f"successor {i}", ha="center", va="center", color="white",
              bbox={"boxstyle": "round,pad=.6", "color": ACCENT})
axes.set(xlim=(-.6, config.num_layers - .4), ylim=(0, 3.4))
axes.axis("off");

# %% [markdown]
r"""
Everything that is not in a box, the embeddings and the classifier, both ships share.

## 3. The gate

In front of every module stands a **gate** (门): a coin that falls on *successor* with the **replacing rate** $p$
(替换率). With $y_i$ for what enters module $i$, the paper's Section 3.1 says

$$r_i \sim \mathrm{Bernoulli}(p), \qquad y_{i+1} = r_i \cdot \mathrm{scc}_i(y_i) + (1 - r_i) \cdot \mathrm{prd}_i(y_i).$$

In the package this is the layer `ModuleMix`; `build_theseus` puts one in the place of each module. We turn dropout off
here, so that what we see is the gate alone. Each successor starts as a copy of the last layer of its own module (the
authors start from the predecessor's bottom layers: `start="bottom"`).
"""

# %%
calm = {"dropout": 0.0, "attention_dropout": 0.0}
old = predecessor.clone(config=config.replace(**calm))
new = old.keep_layers([module[-1] for module in module_map], seed=SEED)
mixed, mixes = theseus.build_theseus(old, new, module_map, seed=SEED)
print([layer.name for layer in mixed.layers])

# %% [markdown]
r"""
### 3.1 How often does it open?

A draw depends on nothing but seed, step and module. So a run that was interrupted draws the same when it goes on, and
two machines that share a batch draw alike. We ask the gates for their draws at many steps.
"""

# %%
def draws(rate, num_steps):
    """r_i of every module at steps 0, 1, ...: bool, (num_steps, modules)."""
    rows = []
    for step in range(num_steps):
        for mix in mixes:
            mix.rate.assign(rate)
            mix.step.assign(step)
        rows.append([bool(mix.draw()) for mix in mixes])
    return np.array(rows)


half = draws(0.5, 400)
figure, axes = plt.subplots(figsize=(8, 1.3))
axes.imshow(half[:60].T, cmap="Blues", vmax=1.4, aspect="auto")
axes.set(xlabel="update", yticks=range(3), yticklabels=["module 0", "module 1", "module 2"])
axes.grid(False)

# %% [markdown]
r"""
Blue: the successor works in this update. With three modules there are eight different ships; every update trains one
of them. Now the frequencies, each with its standard error $\sqrt{p(1-p)/n}$: two of three should lie within one
standard error of the rate, nearly all within two. (The three rows look at the same coins, so if one is off, its
neighbours tend to be off in the same direction.)

<details><summary>What came out here</summary>

The largest distance from the rate is 1.4 standard errors, so the coins are fair. Modules 0 and 1 lie below the rate
in all three rows: the rows share their random numbers.

</details>
"""

# %%
rows = []
for rate in (0.3, 0.5, 0.7):
    drawn = half if rate == 0.5 else draws(rate, 400)
    error = (rate * (1 - rate) / len(drawn)) ** 0.5
    off = np.abs(drawn.mean(0) - rate) / error
    rows.append((rate, *(f"{share:.3f}" for share in drawn.mean(0)), f"{error:.3f}", f"{off.max():.1f}"))
show(("rate", "module 0", "module 1", "module 2", "standard error", "largest distance, in standard errors"), rows)

# %% [markdown]
r"""
### 3.2 What does it let through?

We send real sentences into each module and look at what comes out on either side. With the rate at 0 the gate must give
the predecessor's hidden states (隐状态) exactly, with the rate at 1 the successor's. How far are the two apart before
any training?
"""

# %%
batch = old.pad(old.tokenizer.encode(data.train.texts[:32], training.max_length))
inputs = {name: tf.constant(value) for name, value in batch.items()}
hidden = old.features(["hidden_states"])(inputs)["hidden_states"]      # embeddings, then after every layer
bias = AttentionBias()(inputs["input_mask"])


def distance(a, b):
    """|a - b| / |b| over real tokens. (batch, seq, hidden) twice -> float."""
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]
    return float(tf.norm((a - b) * mask) / tf.norm(b * mask))


# %%
rows, before = [], []
for mix, members in zip(mixes, module_map):
    y = [hidden[members[0]], bias]
    prd, scc = mix.predecessor(y), mix.successor(y)
    exact = []
    for rate, side in ((0.0, prd), (1.0, scc)):
        mix.rate.assign(rate)
        exact.append("yes" if distance(mix(y, training=True), side) == 0 else "no")
    before.append(distance(scc, prd))
    rows.append((mix.name, *exact, f"{before[-1]:.2f}", f"{distance(y[0], prd):.2f}"))
show(("module", "rate 0 = predecessor", "rate 1 = successor", "successor from predecessor", "input from predecessor"),
     rows)

# %% [markdown]
r"""
The fourth column is the relative distance between the two sides, the fifth that between what enters a module and what
leaves it. Where the fourth is not smaller than the fifth, the untrained successor would do no better than a plank that
lets everything pass. Keep the fourth column in mind; Section 6 returns to it.

<details><summary>What came out here</summary>

The fourth column is smaller everywhere: 0.64 against 0.77, 0.63 against 0.90, 0.76 against 1.55. One layer of the
predecessor, copied, already does part of its module's work. Yet each successor is still far from it.

</details>

### Exercise 1 (3 points): a gate for every text

Our gate draws once per batch. One could as well draw once per *text*. Write the equation above for that case. One trap
is set: $0 \cdot \mathrm{NaN}$ is $\mathrm{NaN}$, so multiply-and-add lets a broken branch poison the healthy one.

<details><summary>Hint 1</summary>

`r` has one axis, the outputs have three. Which axes does `r` lack, and where?

</details>

<details><summary>Hint 2</summary>

Give `r` the shape (batch, 1, 1). Then it applies to all pieces and all hidden values of its text.

</details>

<details><summary>Hint 3</summary>

Do not compute with both sides: select. `tf.where` takes a condition and two tensors.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "mix_texts", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mix_texts(r, scc, prd):
    """The output of a module with one draw per text. The side not drawn leaves no trace, not even a NaN.

    Args:
        r: bool, (batch,); true = successor.
        scc, prd: float, (batch, seq, hidden); the outputs of the successor and of the predecessor's module.
    Returns:
        float, (batch, seq, hidden).
    """
    ### BEGIN SOLUTION
    return tf.where(r[:, None, None], scc, prd)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "mix_texts_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: each text gets the side that was drawn for it
got = mix_texts(tf.constant([True, False]), tf.ones((2, 3, 4)), tf.zeros((2, 3, 4)))
assert got.shape == (2, 3, 4), "every text keeps its shape"
np.testing.assert_array_equal(got[0], np.ones((3, 4)), "the first text was drawn: successor")
np.testing.assert_array_equal(got[1], np.zeros((3, 4)), "the second was not: predecessor")
#: 0.5 points: a NaN of the side not drawn leaves no trace
healthy = mix_texts(tf.constant([False]), tf.fill((1, 3, 4), np.nan), tf.ones((1, 3, 4)))
np.testing.assert_array_equal(healthy, np.ones((1, 3, 4)), "the successor was not drawn, and is broken")
print("mix_texts: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
scc_, prd_ = generator_.normal(size=(2, 6, 3, 4)).astype("float32")
drawn_ = generator_.permutation([True, True, False, False, True, False])
expected_ = np.stack([s if d else p for d, s, p in zip(drawn_, scc_, prd_)])
#: 1 point: six texts with random outputs
np.testing.assert_allclose(mix_texts(tf.constant(drawn_), tf.constant(scc_), tf.constant(prd_)), expected_, rtol=1e-6)
#: 1 point: NaN on either side leaves no trace
for broken_ in (scc_, prd_):
    broken_[drawn_ if broken_ is prd_ else ~drawn_] = np.nan
np.testing.assert_allclose(mix_texts(tf.constant(drawn_), tf.constant(scc_), tf.constant(prd_)), expected_, rtol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. How fast to replace

The rate need not stay the same. The paper compares a constant rate, which jumps to 1 at the end, with a **curriculum**
(课程) that starts low and rises linearly, $p(t) = \min(1, kt + b)$ (Section 3.3). `cosine` is ours, for comparison. The
figure uses the numbers of the authors' example, $b = 0.3$ and $k = 0.0006$ per update.
"""

# %%
steps = np.arange(1800)
schedules = {"constant": theseus.constant_rate(0.5, 1500), "linear": theseus.linear_rate(0.3, 0.0006),
             "cosine": theseus.cosine_rate(0.3, 1167)}
figure, axes = plt.subplots(figsize=(6, 2.8))
for (name, schedule), colour, dashes in zip(schedules.items(), (GREY, ACCENT, INK), ("--", "-", ":")):
    axes.plot(steps, [schedule(int(step)) for step in steps], color=colour, linestyle=dashes, label=name)
axes.set(xlabel="update", ylabel="replacing rate p(t)", ylim=(0, 1.05))
axes.legend(frameon=False);

# %% [markdown]
r"""
Whatever the path, it must end at 1 and stay there for a while: only then do the successors train as the crew that will
sail alone. Note that $k$ is *per update*. Who doubles the batch size halves the number of updates, and must double $k$.

### Exercise 2 (3 points): the curriculum

Write $p(t)$ for a number or a whole array of updates.

<details><summary>Hint 1</summary>

Two steps: a straight line, then a ceiling.

</details>

<details><summary>Hint 2</summary>

Python's `min` compares two single numbers. You need the smaller one at every place of an array.

</details>

<details><summary>Hint 3</summary>

NumPy has a function for it that takes a number as well as an array: `np.minimum`.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "curriculum", "locked": false, "schema_version": 3, "solution": true, "task": false}
def curriculum(step, base=0.3, k=0.0006):
    """The linear replacing rate of the paper's Section 3.3.

    Args:
        step: number of the update, from 0; an int or an array of any shape.
        base: the rate b at step 0. k: growth per update.
    Returns:
        float or float array of the shape of `step`, never above 1.
    """
    ### BEGIN SOLUTION
    return np.minimum(1.0, k * np.asarray(step) + base)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "curriculum_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: single updates of the authors' example
np.testing.assert_allclose(curriculum(0), 0.3)
np.testing.assert_allclose(curriculum(1000), 0.9)                   # 0.0006 * 1000 + 0.3
np.testing.assert_allclose(curriculum(5000), 1.0)
#: 0.5 points: an array of updates
np.testing.assert_allclose(curriculum(np.array([0, 1000, 5000])), [0.3, 0.9, 1.0])
print("curriculum: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(SEED)
base_, k_ = generator_.uniform(0.1, 0.5), generator_.uniform(5e-4, 1e-3)
#: 1 point: single updates with other b and k
for step_ in range(0, 3000, 50):
    np.testing.assert_allclose(curriculum(step_, base_, k_), theseus.linear_rate(base_, k_)(step_))
#: 1 point: arrays of any shape with other b and k
steps_ = generator_.integers(0, 3000, (2, 3, 4))
np.testing.assert_allclose(curriculum(steps_, k=k_, base=base_), np.minimum(1.0, base_ + k_ * steps_))
### END HIDDEN TESTS

# %% [markdown]
r"""
### Exercise 3 (4 points): the hidden warm-up

A successor that is not drawn gets a gradient (梯度) of zero: it learns nothing from that batch. From how many updates,
out of `num_steps`, does one successor learn, on average? The answer explains why the authors compare the curriculum with
the warm-up (预热) of a learning rate.

<details><summary>Hint 1</summary>

In one update with the rate $p$, how often is a successor trained, on average?

</details>

<details><summary>Hint 2</summary>

The mean of a sum is the sum of the means. Which numbers are summed?

</details>

<details><summary>Hint 3</summary>

Ask `schedule` for the rate of each update. The first has the number 0, the last `num_steps - 1`.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "expected_updates", "locked": false, "schema_version": 3, "solution": true, "task": false}
def expected_updates(schedule, num_steps):
    """Expected number of updates in which one given successor is trained.

    Args:
        schedule: function from the number of an update (an int, from 0) to the replacing rate.
        num_steps: number of updates.
    Returns:
        float.
    """
    ### BEGIN SOLUTION
    return float(sum(schedule(step) for step in range(num_steps)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "expected_updates_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
#: 1 point: a constant rate
np.testing.assert_allclose(expected_updates(theseus.constant_rate(0.5), 100), 50.0)
#: 0.5 points: a rate that jumps to 1
np.testing.assert_allclose(expected_updates(theseus.constant_rate(0.5, steps=60), 100), 70.0)      # 30 + 40
print("expected_updates: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: 1.5 points: a rising rate
np.testing.assert_allclose(expected_updates(theseus.linear_rate(0.4, 0.2), 5), 3.8)                # .4 .6 .8 1 1
#: 0.5 points: no updates at all
assert expected_updates(theseus.linear_rate(0.3, 0.1), 0) == 0
#: 0.5 points: as many as 400 coins fall on the successor
rates_ = np.array([theseus.linear_rate(0.2, 0.002)(t) for t in range(400)])
count_ = (np.random.default_rng(SEED).random(400) < rates_).sum()
error_ = (rates_ * (1 - rates_)).sum() ** 0.5
assert abs(count_ - expected_updates(theseus.linear_rate(0.2, 0.002), 400)) < 5 * error_
### END HIDDEN TESTS

# %% [markdown]
r"""
## 5. What is frozen and what moves

The paper trains nothing but the successors. The predecessor's layers are frozen (冻结), and so are the embeddings and
the classifier that both share. Believing is good, looking is better: we take one update in which exactly one module is
drawn, and compare all weights before and after.
"""

# %%
step = int(np.argmax(half.sum(axis=1) == 1))
for mix in mixes:
    mix.rate.assign(0.5)
    mix.step.assign(step)
optimizer = adamw(training.replace(weight_decay=0.0), num_steps=10)       # decay alone would move every weight a little
mixed.compile(optimizer, task_loss(data.task), jit_compile=False)
old_before, new_before = old.weights(), new.weights()
mixed.train_on_batch(inputs, np.array(data.train.labels[:32]))
print(f"update {step} drew successor {half[step].argmax()}")

# %%
def largest_change(after, earlier, start):
    """Number of values in the layers whose name starts so, and their largest change."""
    names = [name for name in after if name.startswith(start)]
    return sum(after[name].size for name in names), max(np.abs(after[name] - earlier[name]).max() for name in names)


parts = [("predecessor, all layers", old, old_before, "layer_")]
parts += [(f"successor {i}", new, new_before, f"layer_{i}_") for i in range(len(module_map))]
parts += [("word embeddings", new, new_before, "word_embeddings"), ("classifier", new, new_before, "classifier")]
found = [(title, *largest_change(model.weights(), earlier, start)) for title, model, earlier, start in parts]
show(("part", "values", "largest change", ""),
     [(title, f"{count:,}", f"{change:.1e}", "moved" if change else "") for title, count, change in found])

# %% [markdown]
r"""
One row says *moved*, and it is the successor that was drawn. This holds for the first update. The gradient of a
successor that is not drawn is zero, not absent. So once a successor has been drawn, Adam's momentum moves it in every
later update, drawn or not. It does so in the authors' code, too. Weight decay, which we left out above, moves all
successors a little; the authors' script sets it to 0.

## 6. Rebuild the ship

Now the whole method in one call. `compress` starts afresh from the predecessor: successors from the ends of their
modules, a linear curriculum, and in the last part of the updates a fine-tuning of the successors alone, embeddings and
classifier included. What went in is not changed; what comes out is a model of its own.
"""

# %%
small = theseus.compress(predecessor, data, seed=SEED, training=small_training, num_layers=3)
settings = next(step for step in small.history if step["method"] == "theseus")
print({key: settings[key] for key in ("module_map", "start", "schedule", "rate", "full_at", "finetune_share")})
print(f"{predecessor.config.num_layers} layers -> {small.config.num_layers}")

# %% [markdown]
r"""
What happened on the way? The model that is measured on dev is always the successors alone, also while the training
still mixes.
"""

# %%
curve = own_rows({"predecessor": predecessor.curve, "theseus-3": small.curve})["theseus-3"]
panels = (("replacing_rate", "replacing rate", 1), ("loss", "training loss", 1), ("dev", "dev accuracy, %", 100))
figure, all_axes = plt.subplots(3, 1, figsize=(6, 5.4), sharex=True)
boundary = max(row["step"] for row in curve if row["stage"] == "replace")
for axes, (key, label, factor) in zip(all_axes, panels):
    points = [(row["step"], factor * row[key]) for row in curve if key in row]
    axes.plot(*zip(*points), color=ACCENT, marker="o" if key == "dev" else None)
    axes.axvline(boundary, color=GREY, linestyle=":")
    axes.set_ylabel(label)
all_axes[0].set_ylim(0, 1.05)
axes.set_xlabel("update (dotted: from here on, the successors alone are fine-tuned)");

# %% [markdown]
r"""
Compare the loss and the accuracy. While the rate is low the loss belongs to a ship of mostly old planks, and says
little about the new ones; dev accuracy shows how they do alone. Look at what the last stage adds: it is the reason why
the method does not end with the replacing.

<details><summary>What came out here</summary>

The loss is already low in the first updates, while the successors alone are right on little more than three fifths
of dev. Their accuracy climbs as the rate climbs. The last stage adds about three points more, up to 80.0 % on dev.

</details>

No loss ever compared a successor with its module. Did it learn to imitate the module all the same? We measure the
distance of Section 3.2 again, with the trained successors.
"""

# %%
_, trained = theseus.build_theseus(old, small.clone(config=small.config.replace(**calm)), module_map)
after = [distance(mix.successor([hidden[m[0]], bias]), mix.predecessor([hidden[m[0]], bias]))
         for mix, m in zip(trained, module_map)]
figure, axes = plt.subplots(figsize=(5, 2.6))
axes.bar(np.arange(3) - .2, before, .38, color=PALE, label="before training")
axes.bar(np.arange(3) + .2, after, .38, color=ACCENT, label="after")
axes.set(xticks=range(3), xticklabels=[f"module {i}" for i in range(3)], ylabel="|scc - prd| / |prd|")
axes.grid(False, axis="x")
axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1));

# %% [markdown]
r"""
Where the blue bar is the shorter one, working among old planks has taught the new plank to do what the old one did,
although nobody asked for it. Where it is not, the successors have found another way to the same labels, above all in
the last module, of which the task needs only the class.

<details><summary>What came out here</summary>

All three blue bars are shorter. Before training the distances were 0.64, 0.63 and 0.76. Module 0 gained most;
module 1 moved little. So the successors did come to imitate their modules in part, without a loss that asks for it.

</details>

## 7. Was it worth it? Fair baselines

A small model needs company to be judged. All four small ones have the same size and get the same number of updates at
the same learning rate:

- `theseus-3`: this lesson;
- `plain-3`: the bottom three layers of the *pre-trained* model, fine-tuned in the usual way;
- `truncated-3`: the bottom three layers of the *fine-tuned* predecessor, fine-tuned on, as is usual;
- `spread-3`: the last layers of its three blocks instead, fine-tuned on. It starts where the successors started, so the
  difference between the two is how they were trained: by replacing, with embeddings and classifier frozen until the
  last stage, or all at once.

Above them the predecessor; below them two that need no BERT: TF-IDF with a linear model, and the most frequent class.
"""

# %%
models = {"predecessor": predecessor, "theseus-3": small,
          "plain-3": truncation.compress(minilm, data, seed=SEED, training=small_training, num_layers=3),
          "truncated-3": truncation.compress(predecessor, data, seed=SEED, training=small_training, num_layers=3),
          "spread-3": truncation.compress(predecessor, data, seed=SEED, training=small_training, num_layers=3,
                                          how="last-of-block")}
results = {name: accuracy.evaluate(model, data.test) for name, model in models.items()}
results |= {row["name"]: result for row, result in baselines.baselines(data)}

# %%
def percent(result):
    return f"{100 * result['value']:.1f} ± {100 * result['se']:.1f}"


def points(pair):
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))


pairs = {name: accuracy.paired_difference("accuracy", results["theseus-3"]["scores"], result["scores"])
         for name, result in results.items() if name != "theseus-3"}
rows = []
for name, result in results.items():
    model, pair = models.get(name), pairs.get(name)
    rows.append((name, f"{model.model.count_params():,}" if model else "–",
                 percent(accuracy.evaluate(model, data.dev)) if model else "–", percent(result),
                 points(pair) if pair else "–"))
show(("model", "parameters", "dev, % ± SE", "test, % ± SE", "theseus-3 minus this, points [95 %]"), rows)
print(f"dev: {len(data.dev.texts):,} texts, test: {len(data.test.texts):,} texts, one seed")

# %% [markdown]
r"""
How to read it. **SE** is the standard error over the examples: what other test texts would change. The last column is
**paired**: both models answer the same texts, and only the texts on which they differ count. That makes the interval
narrower than the two errors would suggest. An interval that contains 0 does not say that two models are equal; it says
that this test cannot tell them apart.

Compare the columns *dev* and *test* as well. They need not put the models in the same order: in this set the two hold
other phrasings and other words, and dev had a say in the settings. Two sets of texts that disagree are a warning not to
read too much into either.

<details><summary>What came out here</summary>

`theseus-3` is the best small model on both. Behind it the order turns: on dev `spread-3` leads `truncated-3` (77.9
and 75.2 %), on test it is the other way round (72.1 and 72.9 %). `plain-3` is no better than TF-IDF, which needs no
BERT: 57.8 and 58.1 %.

</details>
"""

# %%
names = [name for name in results if name != "majority"]
figure, axes = plt.subplots(figsize=(6, 2.6))
for place, name in enumerate(names):
    colour = ACCENT if name == "theseus-3" else INK if name == "predecessor" else GREY
    axes.errorbar(100 * results[name]["value"], place, xerr=196 * results[name]["se"], fmt="o", color=colour)
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="test accuracy, % (bars: 95 % intervals)", ylim=(len(names) - .5, -.5));

# %% [markdown]
r"""
## 8. Into a file for a phone

`export` writes the model as a TFLite file, as 32-bit floats or with weights quantized (量化) to 8-bit integers. Before
anything is written, each file is run against Keras on the dev texts: an export that drifts fails.
"""

# %%
from mobile_export.benchmark import benchmark
from mobile_export.convert import export, exported_model

folder = tempfile.mkdtemp()
files = []
for name in ("predecessor", "theseus-3"):
    files += [{"model": name, **file} for file in export(models[name], f"{folder}/{name}", ("float32", "int8"),
                                                         sequence_length=training.max_length, dev=data.dev)]
timings = benchmark(*(file["path"] for file in files))
show(("model", "format", "MB", "median, ms", "90th percentile, ms", "same answer as Keras"),
     [(file["model"], file["format"], f"{file['bytes'] / 1e6:.1f}", f"{time['latency_ms_p50']:.1f}",
       f"{time['latency_ms_p90']:.1f}", f"{file['agreement']:.1%}") for file, time in zip(files, timings)])
print(f"{timings[0]['device']}; threads: {timings[0]['threads']}; {timings[0]['sequence_length']} pieces per text")

# %% [markdown]
r"""
Two savings multiply here. Fewer layers save time; smaller numbers save bytes. Compare with the forecast of Section 1:
the file of the three-layer model is far more than half the size of the other one in the same format, because the word
table came along, while the time falls with the number of layers. A phone is slower than this machine; the *ratios*
carry over, roughly.

<details><summary>What came out here</summary>

As 32-bit floats the file shrinks from 89.9 to 68.6 MB, and the time from 9.8 to 4.2 ms. With 8-bit weights it
shrinks from 23.1 to 17.6 MB, and from 3.3 to 1.5 ms. Both together: from 89.9 to 17.6 MB, and from 9.8 to 1.5 ms.
These are times of this machine; none was taken on a phone.

</details>

The very file that a phone would load, once more on the test set:
"""

# %%
phone = exported_model(files[-1]["path"], small)
on_phone = accuracy.evaluate(phone, data.test)
change = accuracy.paired_difference("accuracy", on_phone["scores"], results["theseus-3"]["scores"])
print(f"theseus-3: Keras {percent(results['theseus-3'])} %, int8 file {percent(on_phone)} %, "
      f"difference {points(change)} points")
for text, row in zip(texts, phone.predict(texts)):
    print(f"{data.labels[row.argmax()]:>16}  {row.max():.2f}  {text}")

# %% [markdown]
r"""
## 9. An honest reading

What may we say after this lesson? Let the numbers write the sentences.
"""

# %%
for name, pair in pairs.items():
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"On these {pair['n']:,} test texts, with this seed, theseus-3 {verdict} {name} "
          f"({100 * pair['difference']:+.1f} points).")

# %% [markdown]
r"""
And what may we *not* say?

- **One seed is one voyage.** The intervals know nothing of other seeds. Data order, dropout and gates could have fallen
  otherwise, and small models often differ between seeds by about as much as methods differ from each other. A claim
  about a method needs several seeds; `python -m keras_compress run theseus-study` does that.
- **One learning rate for all small models** is simple, but not fair to the last point: plain and compressed models may
  want different ones. The study chooses a rate for each, on dev.
- **`assistant` is a made set.** Its sentences come from a grammar. It shows that the path works and what kind of error
  a small model makes; claims about methods rest on public sets.
- **Equal updates are not equal cost.** Theseus also needs the fine-tuned predecessor, and while the rate is low an
  update runs many of the old layers. What you save, you save at inference (推理), again with every text.

## 10. Where to read on

- Xu, Zhou, Ge, Wei, Zhou: *BERT-of-Theseus: Compressing BERT by Progressive Module Replacing*, EMNLP 2020,
  [arXiv:2002.02925](https://arxiv.org/abs/2002.02925). Sections 3.1 to 3.3 are this lesson; their experiments compare
  the methods of their time on public sets.
- `keras_compress/replacement/theseus.py`: the same in some 280 lines; the docstring maps equations to names. Look for
  `tf.cond`: why is only the drawn side computed?
- Try it: `module_map=[[0], [1, 2], [3, 4, 5]]`, `schedule="constant"`, `gate="uniform"`, two layers instead of three.
  Write down what you expect before you run it.
- Your own data: `python -m keras_compress run --data FOLDER`; the form of the folder is in `data/README.md`.
"""

# %% [markdown]
r"""
## 11. In five lines

- Cut the predecessor into modules, and give each a smaller successor. A gate draws which of the two works in an
  update.
- The task's loss is the only loss. Until the last stage only the successors move.
- The replacing rate must reach 1 and stay there, so that the successors learn to work without the old layers.
- Here `theseus-3` has 76.5 % on test: 4.3 points below the predecessor, 4.4 above `spread-3`, which started from
  the same layers. One seed.
- Half of the layers takes less than half of the time, but still three quarters of the bytes: the word table stays.
"""

# %% [markdown]
r"""
## 12. Five questions

**1.** In one update only successor 1 is drawn. What gives it its gradient?

- **a** The distance between its output and that of module 1.
- **b** The task's loss, through the frozen layers above it.
- **c** Nothing: the layers above are frozen, and stop the gradient.

<details><summary>Answers, and why</summary>

- **a** No. That would be distillation. Theseus has no loss that compares the two models.
- **b** Right. Frozen weights do not move, but the gradient passes through them.
- **c** No. Freezing stops updates, not gradients. Section 5 shows that successor 0 moved below frozen layers.

</details>

**2.** Early in the training the loss is low. What does that say about the small model?

- **a** It is nearly as good as the predecessor already.
- **b** The learning rate is too low, since the loss hardly has to fall.
- **c** Little: mostly old layers compute it.

<details><summary>Answers, and why</summary>

- **a** No. Measured alone, it is far below at that time: look at the panel of dev accuracy.
- **b** No. The loss is low because trained layers do most of the work, whatever the rate.
- **c** Right. The loss belongs to the mixture. Only dev accuracy of the successors alone speaks of the small model.

</details>

**3.** Which baseline tells what the *replacing* is worth?

- **a** `spread-3`: same first weights, same number of updates.
- **b** `plain-3`: it has never seen the predecessor.
- **c** The predecessor: it is what was replaced.

<details><summary>Answers, and why</summary>

- **a** Right. The two differ in how they were trained, by replacing or all at once.
- **b** No. It also starts from other weights. The 18.7 points mix a better start with the replacing.
- **c** No. It has twice the layers. That comparison tells what the small size costs.

</details>

**4.** `theseus-3` minus `truncated-3` is +3.6 [+1.4, +5.8]. What does the interval allow you to say?

- **a** With other seeds Theseus wins, too, 95 times of 100.
- **b** `theseus-3` is right wherever `truncated-3` is right.
- **c** On other texts of this kind, this one model would most likely be ahead again.

<details><summary>Answers, and why</summary>

- **a** No. The interval knows of texts. No other seed was run (Lesson 0, Section 7).
- **b** No. It is a difference of means. Each is right on some texts where the other fails.
- **c** Right. That is what it covers: these two models, other texts.

</details>

**5.** In the package `tf.cond` computes only the side that was drawn. What is the main gain?

- **a** The successor gets a larger gradient.
- **b** Time: the other side would be computed and thrown away.
- **c** The draws become independent of each other.

<details><summary>Answers, and why</summary>

- **a** No. The gradient is the same: the other side would be multiplied by 0.
- **b** Right. As the rate rises, more and more updates run the short side alone. A NaN of the other side stays out,
  too.
- **c** No. The draws depend on seed, step and module, whatever is computed afterwards.

</details>
"""

# %% [markdown]
r"""
## 13. A challenge

Get more than 80.0 % on dev with three layers and the same number of updates. You may change `schedule`, `rate`,
`full_at`, `finetune_share`, `start` and `module_map`, nothing else. Choose on dev, then measure once on test, with
the paired interval against `theseus-3`. Repeat with two more seeds: is the gain larger than the spread of the
seeds?
"""
