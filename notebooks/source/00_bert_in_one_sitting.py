# %% [markdown]
r"""
# Lesson 0 · A BERT in one sitting, and how to compare two models

**After this lesson you can** follow a sentence through a BERT and name the shape of every step; say what the attention
mask does, and what goes wrong without it; count a model's parameters from its sizes; give an accuracy with its standard
error; compare two models on the same texts; and say how often a difference of one point means nothing.

**You need** Python and NumPy, the product of two matrices, and softmax. No other lesson comes before this one, and all
others build on it.

**Time** less than a minute of computing on a laptop CPU with two cores, an hour with the exercises (10 points).
**Memory** 1 GB. **Seed** 0, everywhere. Nothing is trained. With the environment variable `KERAS_COMPRESS_FAST=1` the
simulations of the second half are shorter, and their numbers mean nothing.
"""

# %%
import os, sys

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.config import BertConfig
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.measure import accuracy, cost

# %% [markdown]
r"""
The model of this course is MiniLM: a BERT of six layers that was trained on sentences. Three classes are enough here.
The classifier (分类器) on top is new, so its weights are random.
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
RED = "#d1432b"
plt.rcParams.update({**STYLE, "figure.dpi": 100, "figure.constrained_layout.use": True})
labels = ("lights", "music", "other")
minilm = weights.load("minilm", task="classification", labels=labels, seed=SEED)
config, tokenizer = minilm.config, minilm.tokenizer


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
# Part 1: a sentence goes through a BERT

## 1. From text to vectors

### 1.1 The tokenizer

A model computes with numbers. The **tokenizer** (分词器) cuts a text into **word pieces** (词片) and gives the number of
each piece in the vocabulary. A frequent word is one piece; a rare word becomes several, and `##` marks a piece that
continues a word. `[CLS]` stands before each text and `[SEP]` after it. `[PAD]`, number 0, fills a short text up.
"""

# %%
long, short = "switch off the lamplight, play some jazz", "play some jazz"
encodings = tokenizer.encode([long, short], 48)
batch = {name: tf.constant(value) for name, value in minilm.pad(encodings).items()}
rows = []
for row, text in enumerate((long, short)):
    ids, mask, types = (batch[name][row].numpy() for name in ("input_word_ids", "input_mask", "input_type_ids"))
    rows += [(text, "piece", *(tokenizer.vocab[i] for i in ids)), ("", "`input_word_ids`", *ids),
             ("", "`input_mask`", *mask), ("", "`input_type_ids`", *types)]
show(("text", "", *range(len(rows[0]) - 2)), rows)
print("each of the three inputs has the shape", tuple(batch["input_word_ids"].shape), "(batch, seq)")

# %% [markdown]
r"""
"lamplight" is not in the vocabulary, "lamp" and "##light" are. `input_mask` says which pieces are real (1) and which are
padding (填充, 0). `input_type_ids` tells the second text of a pair from the first (Lesson 6); here there is one text.

### 1.2 Embeddings

Each piece gets a vector of $H$ numbers. It is the sum of three rows, each from a table of its own: of the piece (word
embedding, 词嵌入), of its position (位置嵌入), of its type. Then **LayerNorm** (层归一化) brings the vector to mean 0 and
variance 1, multiplies by $\gamma$ and adds $\beta$:

$$x_t = \mathrm{LayerNorm}\big(E^{\mathrm{word}}_{w_t} + E^{\mathrm{position}}_t + E^{\mathrm{type}}_{0}\big).$$
"""

# %%
w = minilm.weights()                                          # {name: array}
one = {name: value[:1] for name, value in batch.items()}      # the long text alone
ids = one["input_word_ids"][0].numpy()
x = w["word_embeddings/embeddings"][ids] + w["position_embeddings/embeddings"][:len(ids)]
x = x + w["type_embeddings/embeddings"][0]                    # (seq, hidden)
x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
x = x * w["embeddings_norm/gamma"] + w["embeddings_norm/beta"]
states = minilm.features(["hidden_states"])(one)["hidden_states"]
print(f"by hand {x.shape}, model {tuple(states[0].shape)}: they differ by at most {np.abs(states[0][0] - x).max():.0e}")

# %% [markdown]
r"""
Up to here no piece knows of any other: "play" has the same vector in every text where it stands at the same position.

## 2. Six layers

A layer has two halves. **Attention** (注意力) mixes the vectors of a text's pieces. The **feed-forward** layer (前馈层) then
computes with each vector alone: wider, GELU, narrow again. Each half adds its result to what came in, and normalises.
Here are all shapes of one layer, for one text. Only attention sees more than one piece at a time.
"""

# %%
n, h, heads, f = len(ids), config.hidden_size, config.num_heads, config.intermediate_size
rows = [("what comes in", "one vector per piece", (1, n, h)),
        ("query, key, value", "three matrices; the vector is cut into heads", (1, heads, n, h // heads)),
        ("scores, probabilities", "each piece with each piece, in every head", (1, heads, n, n)),
        ("context", "mean of the values, weighted; heads joined again", (1, n, h)),
        ("add and normalise", "one more matrix, then what came in is added", (1, n, h)),
        ("inside of the feed-forward layer", "matrix and GELU", (1, n, f)),
        ("what goes out", "matrix, what came in added, normalised", (1, n, h))]
show(("step", "what happens", "shape"), rows)
print(f"{config.num_layers} layers; shapes of the hidden states: {[tuple(state.shape) for state in states]}")

# %% [markdown]
r"""
The shape $(1, n, H)$ never changes from layer to layer. This is why layers can be left out, repeated or exchanged, and
half of this course lives on that. What changes are the vectors. The picture compares each piece's vector after every
layer with the same piece's vector before the first one, by the cosine (余弦): 1 means the same direction.
"""

# %%
unit = [state[0].numpy() / np.linalg.norm(state[0], axis=-1, keepdims=True) for state in states]
similar = np.array([(layer * unit[0]).sum(-1) for layer in unit])               # (7, seq)
figure, axes = plt.subplots(figsize=(7.2, 2.8))
picture = axes.imshow(similar, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
for (row, column), value in np.ndenumerate(similar):
    axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > .9 else INK)
axes.set_xticks(range(n), [tokenizer.vocab[i] for i in ids], rotation=30)
axes.set_yticks(range(7), ["embeddings", *(f"after layer {k}" for k in range(1, 7))])
for row in range(7):
    axes.text(n - .35, row, f"(1, {n}, {h})", va="center", fontsize=8, color=GREY)
axes.grid(False)
axes.tick_params(length=0)
print("after layer 6:", ", ".join(f"{tokenizer.vocab[i]} {value:.2f}" for i, value in zip(ids, similar[-1])))

# %% [markdown]
r"""
*How much of a piece's own vector is left after each layer, and the shape, which stays.*

Which pieces move away fastest from where they began? And which of all vectors would you read to classify the text?

<details><summary>What came out here</summary>

No piece keeps its direction; the text around it takes over. The comma and `[SEP]` keep least (0.23 and 0.16), "jazz" and
"lamp" keep more (0.47 and 0.45). `[CLS]` stays close to its start for five layers and moves in the last (0.63). No vector
belongs to the text as a whole, so a model must be told what to read: BERT reads `[CLS]`, others the mean (Section 4).

</details>

## 3. Attention and its mask

For one head, with queries $Q$, keys $K$ and values $V$ of $d = H / A$ columns each ($A$ heads):

$$S = \frac{Q K^\top}{\sqrt d} + M, \qquad P = \mathrm{softmax}(S), \qquad \text{context} = P V.$$

Row $i$ of $P$ says how much piece $i$ takes from every piece. $M$ is the mask (掩码): 0 where the key is a real piece, a
large negative number where it is padding, so that $e^{S}$ is 0 there. First without padding, by hand against the model:
"""

# %%
def heads_of(name, x):
    """A dense layer of layer 0, cut into heads: (seq, hidden) -> (heads, seq, head size)."""
    y = x @ w[f"layer_0_{name}/kernel"] + w[f"layer_0_{name}/bias"]
    return y.reshape(len(x), heads, h // heads).transpose(1, 0, 2)


q, k, v = (heads_of(name, x) for name in ("query", "key", "value"))
scores = q @ k.transpose(0, 2, 1) / np.sqrt(h // heads)       # (heads, seq, seq)
probabilities = tf.nn.softmax(scores).numpy()
context = (probabilities @ v).transpose(1, 0, 2).reshape(n, h)  # (seq, hidden)
models = minilm.features(["attention_scores"])(one)["attention_scores"][0][0]
print(f"scores by hand {scores.shape}: they differ from the model's by at most {np.abs(scores - models).max():.0e}")
print(f"context {context.shape}; each row of the probabilities sums to {probabilities.sum(-1).min():.3f}")

# %% [markdown]
r"""
### 3.1 What goes wrong without the mask

Texts of a batch are padded to one length. `[PAD]` has a vector like every other piece, and attention would read it. We
tell the model that padding is real, by a mask of ones, and look at the first layer: how much of its attention does the
short text spend on padding?
"""

# %%
def attention_of(inputs):
    """Probabilities of the first layer, mean of its heads: (batch, seq, seq)."""
    scores = minilm.features(["attention_scores"])(inputs)["attention_scores"][0]
    bias = -1e4 * (1 - tf.cast(inputs["input_mask"], tf.float32))[:, None, None, :]
    return tf.reduce_mean(tf.nn.softmax(scores + bias), axis=1).numpy()


unmasked = {**batch, "input_mask": tf.ones_like(batch["input_mask"])}
real, names = len(encodings[1].ids), [tokenizer.vocab[i] for i in batch["input_word_ids"][1].numpy()]
figure, all_axes = plt.subplots(1, 2, figsize=(7.2, 2.5), sharey=True)
for axes, title, inputs in zip(all_axes, ("with the mask", "without the mask"), (batch, unmasked)):
    p = attention_of(inputs)[1, :real]                        # the short text's real pieces, (5, seq)
    axes.imshow(p, cmap="Blues", vmin=0, vmax=.6)
    axes.set(title=title, yticks=range(real), yticklabels=names[:real])
    axes.set_xticks(range(len(names)), names, rotation=60)
    axes.grid(False)
    print(f"{title}: {p[:, real:].sum(-1).mean():.0%} of the attention goes to padding")

# %% [markdown]
r"""
*What each piece of the short text (rows) takes from each column, first layer, mean of the twelve heads.*

What does this do to the answer? We pad "play some jazz" further and further, and compare its `[CLS]` vector after the
last layer with that of the text alone. The last columns are the probability of the first class, under the random
classifier: it need not be right, but it must not depend on padding.
"""

# %%
rows = []
for length in (5, 8, 16, 32, 64):
    padded = {name: tf.constant(value) for name, value in minilm.pad(encodings[1:], length).items()}
    cells = [length]
    for mask in (padded["input_mask"], tf.ones_like(padded["input_mask"])):
        outputs = minilm.features(["hidden_states", "logits"])({**padded, "input_mask": mask})
        cls = outputs["hidden_states"][-1][0, 0].numpy()
        alone = cls if length == 5 else alone
        cosine = cls @ alone / np.linalg.norm(cls) / np.linalg.norm(alone)
        cells += [f"{cosine:.4f}", f"{tf.nn.softmax(outputs['logits'])[0, 0]:.4f}"]
    rows.append([cells[i] for i in (0, 1, 3, 2, 4)])
show(("padded to", "cosine of [CLS], mask", "cosine, no mask", "p(lights), mask", "p(lights), no mask"), rows)

# %% [markdown]
r"""
With the mask the answer is the same to four digits, whatever the length. Without it, **the answer depends on the longest
text in the batch**. No error is raised, and training can hide the mistake: the model learns to live with the padding of
its batches. On a phone each text is padded to another, fixed length, and the answers change.

<details><summary>What came out here</summary>

Padded from 5 to 11 pieces, the short text spends 39 % of the first layer's attention on padding. The cosine of `[CLS]` falls to
0.9658 at 8 pieces and to 0.6881 at 64; with the mask it is 1.0000 throughout.

</details>

### Exercise 1 (4 points): a softmax that sees no padding

Write the softmax with its mask. Three traps: a score of 0 is not a probability of 0, since $e^0 = 1$; setting
probabilities to 0 *after* the softmax leaves rows that no longer sum to 1; and minus infinity turns a text without any
real piece into NaN. Mask the keys (last axis), not the queries.

<details><summary>Hint 1</summary>

Where must the numbers of padded keys end up: before the softmax or after it?

</details>

<details><summary>Hint 2</summary>

`mask` is (batch, seq), the scores have four axes. On which of them do the keys lie?

</details>

<details><summary>Hint 3</summary>

Add a large but finite negative number where the mask is 0, and nothing where it is 1.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "masked_softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
def masked_softmax(scores, mask):
    """Attention probabilities, with padded keys left out.

    Args:
        scores: float tensor, (batch, heads, seq, seq): queries, then keys.
        mask: int tensor, (batch, seq), 1 = real piece.
    Returns:
        float tensor, (batch, heads, seq, seq). Rows sum to 1.
    """
    ### BEGIN SOLUTION
    bias = -1e4 * (1.0 - tf.cast(mask, tf.float32))           # (batch, seq)
    return tf.nn.softmax(scores + bias[:, None, None, :])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "masked_softmax_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
scores_ = tf.math.log([[[[1.0, 3.0, 4.0], [2.0, 2.0, 1.0], [1.0, 1.0, 5.0]]]])  # (1, 1, 3, 3): e^S is 1, 3, 4, ...
found_ = masked_softmax(scores_, tf.constant([[1, 1, 0]]))[0, 0]
#: 0.5 points: padding gets nothing
np.testing.assert_allclose(found_[:, 2], [0, 0, 0], atol=1e-6, err_msg="the third piece is padding")
#: 0.5 points: what is left sums to 1
np.testing.assert_allclose(found_[:2, :2], [[.25, .75], [.5, .5]], atol=1e-6, err_msg="1 : 3 and 2 : 2")
#: 0.5 points: a text without a real piece stays finite
assert np.isfinite(masked_softmax(scores_, tf.constant([[0, 0, 0]]))).all(), "NaN would spread through the model"
print("masked_softmax: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.keras, keras, np.ma, tf.nn.weighted_moments
random_ = np.random.default_rng(SEED)
lengths_ = random_.integers(2, 7, 4)
many_ = tf.constant(random_.normal(scale=2.0, size=(4, 3, 7, 7)), tf.float32)
mask_ = tf.constant((np.arange(7) < lengths_[:, None]).astype(np.int32))
#: 1.5 points: as if the padding were cut off
for row_, length_ in enumerate(lengths_):
    cut_ = tf.nn.softmax(many_[row_, :, :, :length_])
    np.testing.assert_allclose(masked_softmax(many_, mask_)[row_, :, :, :length_], cut_, atol=1e-6)
#: 0.5 points: scores of padding do not matter
loud_ = tf.where(tf.cast(mask_, tf.bool)[:, None, None, :], many_, 90.0)
np.testing.assert_allclose(masked_softmax(loud_, mask_), masked_softmax(many_, mask_), atol=1e-6)
#: 0.5 points: without padding it is the softmax
np.testing.assert_allclose(masked_softmax(many_, tf.ones((4, 7), tf.int32)), tf.nn.softmax(many_), atol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. From vectors to an answer

**Pooling** (池化) makes one vector of a text's $n$ vectors: the first one, of `[CLS]`, or the mean. A mean needs the mask
as much as attention does. The **classifier** is one more matrix: a number for each class, the **logits**; softmax turns
them into probabilities.
"""

# %%
outputs = minilm.features(["hidden_states", "pooled", "logits"])(batch)
last, mask = outputs["hidden_states"][-1].numpy(), batch["input_mask"].numpy()[:, :, None]
right, wrong = (last * mask).sum(1) / mask.sum(1), last.mean(1)                 # (batch, hidden) each
by_hand = outputs["pooled"].numpy() @ w["classifier/kernel"] + w["classifier/bias"]
show(("what", "shape"), [("last hidden states", last.shape), ("pooled: [CLS]", tuple(outputs["pooled"].shape)),
                         ("pooled: mean", right.shape), ("logits", by_hand.shape)])
print(f"logits by hand and of the model differ by at most {np.abs(by_hand - outputs['logits']).max():.0e}")
print("probabilities of the two texts:", *(" ".join(f"{p:.3f}" for p in row) for row in tf.nn.softmax(by_hand)), sep="\n")
for row, text in enumerate((long, short)):
    cosine = (right[row] @ wrong[row]) / np.linalg.norm(right[row]) / np.linalg.norm(wrong[row])
    print(f"{text!r}: cosine of the means with and without the mask {cosine:.3f}")

# %% [markdown]
r"""
That is the whole model. Fine-tuning (微调) changes its numbers, and compression (压缩) makes them fewer, or smaller. So how
many are there?

## 5. Counting parameters

With $V$ pieces, $P$ positions, $T$ types, width $H$, inner width $F$, $L$ layers and $C$ classes. A dense layer from $a$ to
$b$ has $ab$ weights and $b$ biases; a LayerNorm has $2H$ numbers, and there is one after the embeddings:

| part | parameters |
|---|---|
| embeddings | $(V + P + T) H + 2H$ |
| attention of a layer | $4 (H^2 + H)$ for query, key, value and output, $2H$ for LayerNorm |
| feed-forward of a layer | $(HF + F) + (FH + H)$, $2H$ for LayerNorm |
| classifier | $HC + C$ |

The number of heads does not occur: heads cut the vector, they add nothing.
"""

# %%
def parts(c, num_labels):
    """{part: number of parameters}, from the sizes alone."""
    H, F, L = c.hidden_size, c.intermediate_size, c.num_layers
    return {"word embeddings": c.vocab_size * H,
            "positions, types, norm": (c.max_position_embeddings + c.type_vocab_size + 2) * H,
            "attention": L * (4 * (H * H + H) + 2 * H),
            "feed-forward": L * (H * F + F + F * H + H + 2 * H),
            "classifier": H * num_labels + num_labels}


base = BertConfig(pooling="cls")                              # the sizes of BERT-base
counts = {"MiniLM": parts(config, 3), "BERT-base": parts(base, 3)}
rows = [(part, *(f"{count[part]:,}" for count in counts.values())) for part in counts["MiniLM"]]
totals = [sum(count.values()) for count in counts.values()]
show(("part", *counts), rows + [("by hand", *(f"{total:,}" for total in totals)),
                                ("the model, the package", f"{minilm.model.count_params():,}", f"{cost.parameters(base, 3):,}")])

# %%
figure, axes = plt.subplots(figsize=(7.2, 2.1))
for place, (name, count) in enumerate(counts.items()):
    left = 0
    for colour, (part, number) in zip((ACCENT, "#7fb0e8", INK, GREY, RED), count.items()):
        share = 100 * number / sum(count.values())
        axes.barh(place, share, left=left, color=colour, label=part if place == 0 else None)
        if share > 3:
            axes.text(left + share / 2, place, f"{share:.0f} %", ha="center", va="center", color="white", fontsize=9)
        left += share
axes.set_yticks(range(2), [f"{name}\n{total / 1e6:.1f} million" for name, total in zip(counts, totals)])
axes.set(xlabel="share of the parameters, %", xlim=(0, 100), ylim=(1.6, -.6))
figure.legend(frameon=False, fontsize=9, ncol=5, loc="outside upper center", columnspacing=1)
axes.grid(False)

# %%
half = config.of_layers([0, 1, 2])                            # three of the six layers
print(f"three of six layers: {cost.parameters(half, 3) / totals[0]:.0%} of the parameters, "
      f"{cost.flops(half, len(ids), 3) / cost.flops(config, len(ids), 3):.0%} of the multiplications")

# %% [markdown]
r"""
*Where the parameters lie. The classifier is too small to be seen.*

Suppose you keep three of MiniLM's six layers. By how much does the number of parameters shrink, and by how much the
work? Which part would you compress first?

<details><summary>What came out here</summary>

With three of six layers 76 % of the parameters are left, but 50 % of the multiplications. The reason is the blue bar: half
of MiniLM's parameters are word embeddings, which are looked up and never multiplied. In BERT-base it is the layers that
weigh most. So for a small file compress the embeddings (Lesson 4), for speed the layers (Lessons 1 to 3).

</details>

### Exercise 2 (3 points): count a BERT

Write the count as one function. The traps are small numbers: biases, and the LayerNorms, of which a layer has two and
the embeddings one.

<details><summary>Hint 1</summary>

The table above has everything. Write each row as one line.

</details>

<details><summary>Hint 2</summary>

What occurs once, and what occurs `L` times?

</details>

<details><summary>Hint 3</summary>

If you are off by little, count the biases of a dense layer from $a$ to $b$, and the LayerNorms.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "count_parameters", "locked": false, "schema_version": 3, "solution": true, "task": false}
def count_parameters(V, P, T, H, F, L, C):
    """All parameters of a BERT without a pooler, under a classifier.

    Args:
        V, P, T: rows of the tables of pieces, positions, types. H: width. F: inner width of the feed-forward layer.
        L: layers. C: classes.
    Returns:
        int.
    """
    ### BEGIN SOLUTION
    attention = 4 * (H * H + H) + 2 * H
    feed_forward = (H * F + F) + (F * H + H) + 2 * H
    return (V + P + T) * H + 2 * H + L * (attention + feed_forward) + H * C + C
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "count_parameters_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: a tiny BERT by hand
assert count_parameters(10, 4, 2, 2, 3, 1, 2) == 91, "embeddings 36, attention 28, feed-forward 21, classifier 6"
#: 0.5 points: MiniLM to the last parameter
assert count_parameters(30522, 512, 2, 384, 1536, 6, 3) == 22_566_531, "MiniLM with three classes"
print("passed: a tiny BERT, MiniLM")
print("count_parameters: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
#: banned: tf.keras, cost, weights
random_ = np.random.default_rng(SEED)
V_, P_, T_, H_, F_, L_, C_ = (int(size_) for size_ in random_.integers(2, 60, 7))
sizes_ = {"V": V_, "P": P_, "T": T_, "H": H_, "F": F_, "L": L_, "C": C_}
more_ = lambda **new_: count_parameters(**{**sizes_, **new_}) - count_parameters(**sizes_)
#: 0.5 points: one more row of a table
assert more_(V=V_ + 1) == more_(P=P_ + 1) == more_(T=T_ + 1) == H_
#: 0.5 points: one more class
assert more_(C=C_ + 1) == H_ + 1
#: 0.5 points: one more layer
assert more_(L=L_ + 1) == 4 * H_**2 + 9 * H_ + 2 * H_ * F_ + F_
#: 0.5 points: random sizes, against the package
config_ = BertConfig(vocab_size=V_, max_position_embeddings=P_, type_vocab_size=T_, hidden_size=H_, num_heads=1,
                     intermediate_size=F_, num_layers=L_, pooling="cls")
assert count_parameters(**sizes_) == cost.parameters(config_, C_)
### END HIDDEN TESTS

# %% [markdown]
r"""
# Part 2: which of two models is better?

Every lesson ends with a table of accuracies. A table without its uncertainty invites wrong conclusions, so this part
asks how large that uncertainty is. We need to know the truth for that. So we **simulate** the answers: every text has
an ease, every seed of a method its luck, and an answer is right if ease, luck and chance together are large enough.

Ease is common to all models: what is hard for one is hard for the others. The numbers are set so that two seeds behave
about as those of a real method: `spread-3`, three layers of MiniLM, fine-tuned (study `distillation-study`, 1,500 test texts of
`assistant`, three seeds: 75.7, 77.0 and 75.2 %). There two seeds answer 9.1 % of the texts differently, and the standard
deviation (标准差) of the seeds is 0.9 points.
"""

# %%
LUCK, CHANCE, N, TRUTH = 0.025, 0.28, 1500, 0.76              # spreads; number of test texts; the true accuracy
SCALE = np.sqrt(1 + LUCK**2 + CHANCE**2)
random = np.random.default_rng(SEED)


def answers(ease, truth, seeds, luck=LUCK):
    """Whether the seeds of a method answer the texts rightly: bool (seeds, n); its mean over many is `truth`."""
    own = luck * random.normal(size=(seeds, 1)) + CHANCE * random.normal(size=(seeds, len(ease)))
    return ease + own + SCALE * stats.norm.ppf(truth) > 0


first, second = tests = [random.normal(size=N) for _ in range(2)]    # the ease of the texts of two test sets
twenty = answers(first, TRUTH, 20)
differ = np.mean([np.mean(a != b) for i, a in enumerate(twenty) for b in twenty[:i]])
print(f"two seeds answer {differ:.1%} of the texts differently; "
      f"standard deviation of 20 seeds {100 * twenty.mean(1).std(ddof=1):.2f} points")

# %% [markdown]
r"""
## 6. The standard error of an accuracy

A test set is a sample. With another sample of $n$ texts the accuracy $p$ would be another one; its typical distance
from the true one is the **standard error** (标准误)

$$\mathrm{SE} = \sqrt{\frac{p (1 - p)}{n}},$$

and $p \pm 1.96\, \mathrm{SE}$ is an interval that covers the truth for 95 of 100 test sets (confidence interval, 置信区间).
Is that so? We draw many test sets for one model.
"""

# %%
rows = []
for n in (100, 500, 1500, 10_000):
    drawn = np.array([answers(random.normal(size=n), TRUTH, 1, luck=0).mean() for _ in range(100 if FAST else 2000)])
    se = np.sqrt(drawn * (1 - drawn) / n)
    covered = np.mean(np.abs(drawn - TRUTH) < 1.96 * se)
    formula = 100 * np.sqrt(TRUTH * (1 - TRUTH) / n)
    rows.append((f"{n:,}", f"{formula:.2f}", f"{100 * drawn.std():.2f}", f"± {1.96 * formula:.1f}", f"{covered:.1%}"))
show(("texts n", "SE by the formula, points", "spread of the drawn accuracies", "95 % interval", "covers the truth"), rows)
print(f"texts needed for ± 1 point: {int(np.ceil(1.96**2 * TRUTH * (1 - TRUTH) / .01**2)):,}")

# %% [markdown]
r"""
For half the error you need four times the texts. And 76.27 % is no more certain than 76 %: with 1,500 texts the first
digit after the point is noise, the second is decoration.

The formula knows of texts alone. What about seeds? Below are 20 seeds of one method on two test sets. An interval that
does not contain the true accuracy of the method is red.
"""

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(7.2, 3.2), sharey=True, sharex=True)
for axes, right, name in zip(all_axes, (twenty, answers(second, TRUTH, 20)), ("test set 1", "test set 2")):
    missed = []
    for place, row in enumerate(right):
        value, se = accuracy.value_and_error("accuracy", row[None])
        missed.append(abs(value - TRUTH) > 1.96 * se)
        axes.errorbar(100 * value, place, xerr=196 * se, fmt="o", color=RED if missed[-1] else INK, markersize=4)
    mean, best = 100 * right.mean(), 100 * right.mean(1).max()
    axes.axvline(100 * TRUTH, color=ACCENT, linestyle="--")
    axes.set(title=name, xlabel="accuracy, % (bars: 95 % intervals)")
    print(f"{name}: mean {mean:.1f} %, best of 20 seeds {best:.1f} %, truth {100 * TRUTH:.1f} %; "
          f"{sum(missed)} of 20 intervals miss the truth")
all_axes[0].set(ylabel="seed", yticks=range(0, 20, 5));

# %% [markdown]
r"""
*20 seeds of one method on two test sets. Dashed: the true accuracy of the method.*

Why do all dots of the right panel lie on one side of the dashed line? And what does "the best of 20 seeds" tell
you?

<details><summary>What came out here</summary>

All intervals of a panel rest on the same texts, so they err together. Test set 2 happens to be hard: the mean of 20 seeds is
74.0 %, and 7 of 20 intervals miss the truth, 76.0 %. More seeds do not help against that; more texts do. The best of 20
seeds has 77.7 and 75.5 %: only chance lies between it and the mean. So report the mean, and choose no seed on the test set.

</details>

## 7. Two models on the same texts

The obvious way to compare: two accuracies, two standard errors, $\mathrm{SE}^2 = \mathrm{SE}_a^2 + \mathrm{SE}_b^2$. This is
the **unpaired** (不配对) comparison, right for two test sets. But both models answer the *same* texts, and what is hard for
one is hard for the other. So take the difference text by text, $d_i = a_i - b_i$, which is 1, 0 or -1. The **paired** (配对)
comparison uses its mean and its standard error:

$$\bar d \pm 1.96\, \frac{\mathrm{SD}(d_i)}{\sqrt n}.$$

All texts on which both are right, or both wrong, give 0, and add no noise. Now 20 pairs of seeds, all 40 **of the same
method**: no difference of methods is there to be found.
"""

# %%
def unpaired(a, b):
    """The dict of an unpaired comparison of two models."""
    (value_a, se_a), (value_b, se_b) = (accuracy.value_and_error("accuracy", right[None]) for right in (a, b))
    difference, half = value_a - value_b, 1.96 * np.hypot(se_a, se_b)
    return {"difference": difference, "low": difference - half, "high": difference + half}


def paired(a, b):
    return accuracy.paired_difference("accuracy", a, b)


def significant(pair):
    return pair["low"] > 0 or pair["high"] < 0


# %%
pairs = list(zip(answers(first, TRUTH, 20), answers(first, TRUTH, 20)))
figure, all_axes = plt.subplots(1, 2, figsize=(7.2, 3.2), sharey=True, sharex=True)
for axes, compare in zip(all_axes, (unpaired, paired)):
    found = [compare(a, b) for a, b in pairs]
    for place, pair in enumerate(found):
        colour = RED if significant(pair) else INK
        axes.plot([100 * pair["low"], 100 * pair["high"]], [place, place], color=colour, linewidth=1.2)
        axes.plot(100 * pair["difference"], place, "o", color=colour, markersize=4)
    axes.axvline(0, color=ACCENT, linestyle="--")
    axes.set(title=compare.__name__, xlabel="difference, points (95 % intervals)")
    half, large = np.mean([p["high"] - p["low"] for p in found]) / 2, sum(abs(p["difference"]) > .0099 for p in found)
    print(f"{compare.__name__}: ± {100 * half:.1f} points; {large} of 20 differ by a point or more, "
          f"{sum(map(significant, found))} without 0 inside")
all_axes[0].set(ylabel="pair of seeds", yticks=range(0, 20, 5));

# %% [markdown]
r"""
*20 pairs of seeds of one method, compared in two ways. Red: the interval does not contain 0.*

The paired interval is half as wide, from the same answers. Yet it calls more pairs different than the 1 of 20 that 95 %
promise, though all are of one method. Is it wrong?

<details><summary>What came out here</summary>

Unpaired ± 3.1 points, paired ± 1.6. In 9 of 20 pairs the accuracies differ by a point or more; 4 of 20 paired intervals
leave 0 out. They are not wrong: these two *models* do differ, since each seed has its own luck, and other texts would
show it again. But the *methods* are the same. The interval knows of texts, and nothing of seeds.

</details>

### Exercise 3 (3 points): a paired interval

Write the paired comparison with NumPy. NumPy does not subtract truth values; make numbers of them first. And do not
forget what the standard deviation must be divided by.

<details><summary>Hint 1</summary>

First the difference text by text, then its mean.

</details>

<details><summary>Hint 2</summary>

Spread of the differences and spread of their mean are not the same.

</details>

<details><summary>Hint 3</summary>

Turn the truth values into floats; the standard error has $\sqrt n$ below the line.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "paired_interval", "locked": false, "schema_version": 3, "solution": true, "task": false}
def paired_interval(a, b):
    """Accuracy of a minus accuracy of b on the same texts, with a 95 % interval.

    Args:
        a, b: bool arrays, (n,): whether a model answers each text rightly.
    Returns:
        (difference, low, high): floats, as shares (0.01 is a point).
    """
    ### BEGIN SOLUTION
    d = np.asarray(a, float) - np.asarray(b, float)
    half = 1.96 * d.std() / np.sqrt(len(d))
    return d.mean(), d.mean() - half, d.mean() + half
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "paired_interval_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
a_ = np.arange(100) < 80
#: 0.5 points: 5 of 100 texts differ
b_ = a_ ^ (np.arange(100) % 20 == 0)                          # b loses four texts and wins one: -3 points
found_ = paired_interval(a_, b_)
np.testing.assert_allclose(found_, [.03, -.01343, .07343], atol=5e-4, err_msg="SD sqrt(.05 - .03^2), divided by 10")
#: 0.5 points: a model against itself
np.testing.assert_allclose(paired_interval(a_, a_), [0, 0, 0], err_msg="the same answers: no doubt at all")
print("passed: 5 of 100 texts differ, a model against itself")
print("paired_interval: visible checks passed (1 of 3 points)")
### BEGIN HIDDEN TESTS
#: banned: accuracy, stats, tf
random_ = np.random.default_rng(SEED)
a_, b_, c_ = random_.random((3, 400)) < [[.9], [.7], [.6]]
#: 1 point: as the package has it
for x_, y_ in ((a_, b_), (b_, a_), (b_, c_)):
    pair_ = accuracy.paired_difference("accuracy", x_, y_)
    np.testing.assert_allclose(paired_interval(x_, y_), [pair_[k_] for k_ in ("difference", "low", "high")], atol=1e-4)
#: 0.5 points: a minus b
assert paired_interval(a_, c_)[0] > 0 > paired_interval(c_, a_)[0]
#: 0.5 points: four times the texts, half the width
one_, four_ = paired_interval(a_, b_), paired_interval(np.tile(a_, 4), np.tile(b_, 4))
np.testing.assert_allclose((four_[2] - four_[1]) / (one_[2] - one_[1]), 0.5, rtol=1e-2)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 8. How often is a point "significant"?

A paper says: our method is one point better, and the difference is significant. How often would such a sentence be
written? We repeat the comparison many times, with new texts and new seeds, for true differences of 0, 1, 2 and 3
points, in five ways:

- *unpaired* and *paired*, one seed each;
- *paired, 3 seeds*: each text's answers are averaged over three seeds first;
- *agree, 3 seeds*: as before, and the three differences of the seeds must say the same by a $t$ interval,
  $\bar D \pm t\, \mathrm{SD}(D) / \sqrt k$ with $k = 3$ and $t = 4.30$;
- *agree, 10 seeds*: the same with $k = 10$ and $t = 2.26$.
"""

# %%
def seeds_agree(a, b):
    """Whether the seeds' differences of two methods, bool (seeds, n) each, have a t interval without 0."""
    by_seed = a.mean(1) - b.mean(1)
    k = len(by_seed)
    return abs(by_seed.mean()) > stats.t.ppf(.975, k - 1) * by_seed.std(ddof=1) / np.sqrt(k)


def five_ways(a, b):
    """Whether two methods are told apart, by the five ways."""
    few, many = significant(paired(a[:3], b[:3])), significant(paired(a, b))
    one = significant(unpaired(a[0], b[0])), significant(paired(a[0], b[0]))
    return *one, few, few and seeds_agree(a[:3], b[:3]), many and seeds_agree(a, b)


# %%
WAYS, shares = ("unpaired", "paired", "paired, 3 seeds", "agree, 3 seeds", "agree, 10 seeds"), {}
for points in (0, 1, 2, 3):
    eases = [random.normal(size=N) for _ in range(20 if FAST else 1000)]
    found = [five_ways(answers(e, TRUTH + points / 100, 10), answers(e, TRUTH, 10)) for e in eases]
    shares[points] = np.mean(found, axis=0)
show(("true difference, points", *WAYS), [(p, *(f"{share:.0%}" for share in row)) for p, row in shares.items()])

# %%
figure, axes = plt.subplots(figsize=(7.2, 2.9))
looks = zip((GREY, RED, INK, ACCENT, ACCENT), (":", "-", "-.", "--", "-"), "so^vD")
for way, (colour, line, marker), values in zip(WAYS, looks, zip(*shares.values())):
    axes.plot([*shares], 100 * np.array(values), color=colour, linestyle=line, marker=marker, label=way)
axes.axhline(5, color=PALE)
axes.set(xlabel="true difference of the methods, points", ylabel='called "significant", %', xticks=[*shares], ylim=(0, 103))
axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1));

# %% [markdown]
r"""
*How often a difference is called significant, with 1,500 test texts. Pale line: the 5 % that a 95 % interval allows.*

Read the row of 0 first: these are the false alarms. Then the row of 1: who finds the one point that is there?

<details><summary>What came out here</summary>

With one seed the paired interval calls the same method different in 25 % of the cases; averaging three seeds does not help
(26 %), because the interval becomes narrower, too. Where the seeds must agree, it is 4 %, but then three seeds find the
one true point in 11 % of the cases. Ten seeds find it in 56 %, and two points in 99 %. The unpaired comparison is blind:
6 %. So a single point on 1,500 texts with one seed says next to nothing.

</details>

## 9. An honest reading

Let the numbers write the sentences.
"""

# %%
alarm, power = shares[0], shares[1]
print(f"With {N:,} texts, one seed and the paired interval, two runs of the same method are called different in "
      f"{alarm[1]:.0%} of the cases; unpaired in {alarm[0]:.0%}.")
print(f"A true point is found in {power[0]:.0%} of the cases unpaired, in {power[1]:.0%} paired. Where the seeds must agree, "
      f"it is found in {power[3]:.0%} with three seeds, in {power[4]:.0%} with ten, at {alarm[4]:.0%} false alarms.")
drawn = answers(first, TRUTH, 20).mean(1)
print(f"The best of 20 seeds lies {100 * (drawn.max() - drawn.mean()):.1f} points above their mean, and nothing was improved.")

# %% [markdown]
r"""
And what may we *not* say?

- **A simulation shows what follows from its assumptions.** Here all seeds of a method have the same spread, and a better
  method is better on all texts alike. Real methods win on some kinds of texts and lose on others.
- **"Significant" is not "large", and "not significant" is not "equal".** Give the difference with its interval, and let
  the reader judge.
- **The paired interval speaks of these two models.** Whether the *method* is better is a question about seeds. The
  lessons take one seed, since they must be quick, and say so. The studies of this project take three.
- **The test set is one.** More seeds do not make up for few texts, nor more texts for one seed.

In short: *more digits are not more certainty*. Write the accuracy, the number of texts, the number of seeds, and the
paired difference from the fair baseline.

## 10. Where to read on

- Devlin, Chang, Lee, Toutanova: *BERT: Pre-training of Deep Bidirectional Transformers*, NAACL 2019,
  [arXiv:1810.04805](https://arxiv.org/abs/1810.04805); `keras_compress/bert/encoder.py`.
- Vaswani et al.: *Attention Is All You Need*, NeurIPS 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762);
  `keras_compress/bert/layers.py`.
- Dror, Baumer, Shlomov, Reichart: *The Hitchhiker's Guide to Testing Statistical Significance in NLP*, ACL 2018.
- Dodge et al.: *Fine-Tuning Pretrained Language Models: Weight Initializations, Data Orders, and Early Stopping*,
  [arXiv:2002.06305](https://arxiv.org/abs/2002.06305): how much seeds matter. `keras_compress/measure/accuracy.py`.
- Try it: `LUCK = 0` in Section 8; 500 and 10,000 texts; five seeds. Write down what you expect before you
  run it.
"""

# %% [markdown]
r"""
## 11. In five lines

- A text becomes (1, n, 384), and this shape stays through all layers: so layers can be left out, repeated,
  exchanged.
- The mask keeps padding out of attention. Without it the answer depends on the longest text of the batch.
- Half of MiniLM's parameters are word embeddings, which are looked up and never multiplied.
- Compare two models text by text: paired, the interval is half as wide (± 1.6 against ± 3.1 points).
- The interval knows of texts, not of seeds: with one seed the same method is "different" in 25 % of the cases.
"""

# %% [markdown]
r"""
## 12. Five questions

**1.** Why must the mask act *before* the softmax?

- **a** After it the gradient would be zero.
- **b** After it the rows no longer sum to 1.
- **c** It makes no difference if padding has the id 0.

<details><summary>Answers, and why</summary>

- **a** No. A mask after the softmax passes gradients, too. The rows are the trouble.
- **b** Right. The share of padding would be lost instead of going to real pieces.
- **c** No. `[PAD]` has a vector as every piece; its number means nothing.

</details>

**2.** You drop three of MiniLM's six layers. What is left?

- **a** Half of the parameters and half of the work.
- **b** 76 % of both.
- **c** 76 % of the parameters and 50 % of the multiplications.

<details><summary>Answers, and why</summary>

- **a** No. The word embeddings stay whole.
- **b** No. Embeddings cost no multiplications, so the work falls with the layers.
- **c** Right. Bytes and time are different questions. Lesson 4 goes on with that.

</details>

**3.** A paper reports 76.27 % on 1,500 texts. What does the second digit after the point tell?

- **a** Nothing: the standard error is about a hundred times as large.
- **b** The model is better than one with 76.2 %.
- **c** The test was done carefully.

<details><summary>Answers, and why</summary>

- **a** Right. More digits are not more certainty.
- **b** No. A difference of less than a tenth of a point is one text in 1,500.
- **c** No. Care shows in the number of texts and seeds, and in the interval.

</details>

**4.** Why is the paired interval narrower than the unpaired one?

- **a** It uses twice as many texts.
- **b** What is hard for one model is hard for the other; such texts give a difference of 0.
- **c** It ignores the texts on which both are wrong.

<details><summary>Answers, and why</summary>

- **a** No. Both use the same answers to the same texts.
- **b** Right. The noise that both share falls out.
- **c** No. They count, with 0, in mean and in number of texts.

</details>

**5.** A method with one seed is "significantly better" by one point, paired, 1,500 texts. What do you believe?

- **a** The method is better with 95 % certainty.
- **b** Nothing at all.
- **c** These two models differ; about the method I would ask for more seeds.

<details><summary>Answers, and why</summary>

- **a** No. The interval says nothing about seeds.
- **b** No. These two models do differ, most likely; only the step to the method is missing.
- **c** Right. Of the same method one in four pairs is called different.

</details>
"""

# %% [markdown]
r"""
## 13. A challenge

Halve the false alarms of the column *paired* in Section 8 (true difference 0) without making the power at 2 points
worse. You may change the rule, not the number of answers: three seeds, 1,500 texts. Write down your rule before you
simulate it, and say what it costs at 1 point.
"""
