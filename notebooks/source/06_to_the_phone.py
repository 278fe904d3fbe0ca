# %% [markdown]
r"""
# Lesson 6 · From Keras to the phone: one file, one text, one answer

**After this lesson you can** turn a fine-tuned BERT into a file for a phone; feed it by name and know why; choose the
length of its inputs; tell whether it is still the same model, before anybody ships it; choose between floats, 8 and 4
bits by their sizes, times and answers; and find out what a real client does to the text before the model sees it.

**You need** Lesson 1 (and 0): data, sizes and model are the same. Lesson 5 helps: it explains what the 8 and 4 bits are.

**Time** about 6 minutes of computing on a laptop CPU with two cores, an hour with the exercises (10 points).
**Memory** 3 GB. **Seed** 0, everywhere. Start Jupyter with the environment variable `KERAS_COMPRESS_FAST=1` for a
dry run in under a minute, whose numbers mean nothing.
"""

# %%
import collections, os, sys, tempfile, unicodedata

sys.path.insert(0, "..")                                      # the package of this clone, installed or not
import matplotlib.pyplot as plt
import numpy as np

from keras_compress import datasets
from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure import accuracy
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE
from keras_compress.experiment.report import markdown_table
from keras_compress.training.finetune import Training, finetune
from mobile_export.convert import ExportError, export, exported_model
from mobile_export.litert import Runner

# %% [markdown]
r"""
The settings of the whole lesson, in one place. The model is the large one of Lesson 1; a smaller one goes the same way.
`length` is the number of word pieces that the file will take.
"""

# %%
from IPython.display import Markdown, display

SEED, length = 0, 48
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 32, "num_dev": 20, "num_test": 40} if FAST else {"num_train": 2500, "num_dev": 300}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=length, learning_rate=2e-4, evaluations=1)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. A model to bring along

The cell takes a minute or two.
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
minilm = weights.load("minilm", task=data.task, labels=data.labels, seed=SEED)
if FAST:                                                      # random weights: one layer, and narrow
    narrow = minilm.config.replace(num_layers=1, hidden_size=32, num_heads=2, intermediate_size=64,
                                   initializer_range=0.3)
    minilm = TaskModel(narrow, minilm.tokenizer, data.task, data.labels, seed=SEED)
model = finetune(minilm, data, seed=SEED, training=training)
text = "don't turn off the lights, play some jazz"
encoding, = model.tokenizer.encode([text], length)
print([model.tokenizer.vocab[i] for i in encoding.ids])
print(data.labels[model.predict([text])[0].argmax()])

# %% [markdown]
r"""
## 2. One file

A Keras model is Python objects. A phone has no Python; it has a small runtime, LiteRT (formerly TensorFlow Lite), that
reads one file: a **graph** of operators with all weights, `.tflite`. `export` converts the model, runs the result
against Keras on the dev texts, and only then writes it.
"""

# %%
folder = tempfile.mkdtemp()
files = {file["format"]: file for file in export(model, folder, ("float32", "float16", "int8", "int4"),
                                                 sequence_length=length, dev=data.dev, allow_drift=True)}
runner = Runner(files["float32"]["path"])
operators = collections.Counter(runner.op_names)
show(("operator", "how many in the graph"), operators.most_common(6))
print(f"{len(runner.op_names)} operators of {len(operators)} kinds, in {runner.num_partitions} part(s) for XNNPACK; "
      f"output: {runner.output_shape} probabilities")

# %% [markdown]
r"""
XNNPACK is the library of fast kernels on CPUs. One part means: the whole graph runs there, and nothing goes back and
forth. No operator stands in the list that a phone would have to get from elsewhere ("Flex" or custom ones); `export`
would refuse it.

## 3. Set inputs by name

The graph has three inputs, as every BERT. But in which order? Here are three answers: the order in which tutorials list
them, the order in the file, and that of the file's **signature** (签名), the list of its inputs and outputs by name.
"""

# %%
from ai_edge_litert.interpreter import Interpreter

names = ("input_word_ids", "input_mask", "input_type_ids")
interpreter = Interpreter(files["float32"]["path"])
interpreter.allocate_tensors()
places = interpreter.get_input_details()
signature = interpreter.get_signature_list()["serving_default"]["inputs"]
show(("place", "in tutorials", "in the file", "in the signature", "shape", "type"),
     [(i, names[i], places[i]["name"].removeprefix("serving_default_").split(":")[0], signature[i],
       tuple(places[i]["shape"].tolist()), places[i]["dtype"].__name__) for i in range(3)])

# %% [markdown]
r"""
The converter orders as it likes (the signature is sorted by name), and promises nothing. What happens to a program that
trusts the order it knows?
"""

# %%
def by_place(inputs):
    """One forward pass that trusts the order of `names`."""
    for place, name in zip(places, names):
        interpreter.set_tensor(place["index"], inputs[name])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


encodings, rows = model.tokenizer.encode(data.dev.texts, length), []
for title, run in (("by name", lambda inputs: runner.run(inputs)[0]), ("by place", by_place)):
    p = np.stack([run(runner.inputs(encoding)) for encoding in encodings])
    rows.append((title, f"{(p.argmax(-1) == np.array(data.dev.labels)).mean():.1%}", f"{p.max(-1).mean():.2f}"))
show(("inputs set", "dev accuracy", "mean probability of the answer"), rows)

# %% [markdown]
r"""
No error, no warning: all three have the same shape and type. Here mask and types have changed places, so padding was
attended to, and every word counted as part of a second text. The smaller the loss in the table, the worse: a file
that still answers most texts is found out by nobody who tries three. (With another order the word ids would go into
the table of types, and the runtime would complain of a "gather index out of bounds". That would be luck.) So: **by
name**, always. In Python that is `get_signature_runner`, as `Runner` uses it.

<details><summary>What came out here</summary>

Dev accuracy falls from 89.0 to 86.7 %, the mean probability from 0.87 to 0.84. Nobody notices that with three
sentences.

</details>

### Exercise 1 (3 points): from ids to inputs

The shapes are fixed, so each text must be padded (填充) or cut. Write what a client has to do. One trap is set: a text
that is cut must still end with its last id, [SEP].

<details><summary>Hint 1</summary>

Two cases: the text is shorter than the inputs, or longer.

</details>

<details><summary>Hint 2</summary>

When cutting, keep one place for the last id.

</details>

<details><summary>Hint 3</summary>

Start from zeros of shape (1, length) and the right type, and fill the front.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "fixed_inputs", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fixed_inputs(ids, length):
    """One text as the three inputs of the file.

    Args:
        ids: list of int, from [CLS] to [SEP]. length: of the inputs, at least 2. Padding has id 0.
    Returns:
        dict: `input_word_ids`, `input_mask` (1 = text, 0 = padding), `input_type_ids` (all 0); int32, (1, length).
    """
    ### BEGIN SOLUTION
    ids = list(ids) if len(ids) <= length else [*ids[:length - 1], ids[-1]]
    padding = [0] * (length - len(ids))
    rows = {"input_word_ids": ids + padding, "input_mask": [1] * len(ids) + padding, "input_type_ids": [0] * length}
    return {name: np.array([row], np.int32) for name, row in rows.items()}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "fixed_inputs_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
short = fixed_inputs([101, 7, 8, 102], 6)
#: 0.5 points: a short text is padded
np.testing.assert_array_equal(short["input_word_ids"], [[101, 7, 8, 102, 0, 0]])
np.testing.assert_array_equal(short["input_mask"], [[1, 1, 1, 1, 0, 0]])
np.testing.assert_array_equal(short["input_type_ids"], np.zeros((1, 6)))
#: 0.5 points: int32 of the shape (1, length)
assert all(value.dtype == np.int32 and value.shape == (1, 6) for value in short.values()), "int32, (1, 6)"
#: 0.5 points: a text that is cut ends with [SEP]
np.testing.assert_array_equal(fixed_inputs([101, 7, 8, 9, 102], 3)["input_word_ids"], [[101, 7, 102]])
print("fixed_inputs: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
def check_(size):
    """A text of `size` pieces in inputs of length 16."""
    ids = [101, *np.random.default_rng(SEED).integers(200, 30000, size - 2).tolist(), 102]
    kept = (ids if size <= 16 else ids[:15] + [102]) + [0] * (16 - size)
    wanted = {"input_word_ids": kept, "input_mask": [int(i < size) for i in range(16)], "input_type_ids": [0] * 16}
    found = fixed_inputs(ids, 16)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], [wanted[name]])
        assert found[name].dtype == np.int32


#: 1 point: texts that fit, also exactly
for size_ in (2, 9, 15, 16):
    check_(size_)
#: 0.5 points: texts that do not fit
for size_ in (17, 18, 40):
    check_(size_)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. How long?

Why fixed shapes at all? A static graph can be planned once: memory, kernels, everything; shapes that change at run time
cost the fast path, or need operators that are not built in. The price: a short text costs as much as a long one. So the
length is a choice to be measured. We export the 8-bit form (int8) at several lengths.
"""

# %%
from mobile_export.benchmark import benchmark

lengths = (8, 16) if FAST else (16, 32, 48, 64)
sized = {n: export(model, f"{folder}/{n}.tflite", ("int8",), sequence_length=n, allow_drift=True)[0] for n in lengths}
times = benchmark(*(sized[n]["path"] for n in lengths), runs=20 if FAST else 100)
pieces = np.array([len(encoding.ids) for encoding in model.tokenizer.encode(data.test.texts, 128)])
at_length = {n: accuracy.evaluate(exported_model(sized[n]["path"], model), data.test) for n in lengths}
show(("length", "texts cut", "test, % ± SE", "median, ms", "90th percentile, ms"),
     [(n, f"{(pieces > n).mean():.1%}", f"{100 * at_length[n]['value']:.1f} ± {100 * at_length[n]['se']:.1f}",
       f"{time['latency_ms_p50']:.2f}", f"{time['latency_ms_p90']:.2f}") for n, time in zip(lengths, times)])
print(f"{times[0]['device']}; threads: {times[0]['threads']}; {len(pieces):,} test texts")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.7))
left.hist(pieces, bins=np.arange(2, pieces.max() + 2), color=PALE)
for n in lengths:
    left.axvline(n, color=ACCENT, linestyle="--")
left.set(xlabel="word pieces of a test text (dashed: lengths)", ylabel="texts")
right.plot(lengths, [time["latency_ms_p50"] for time in times], color=ACCENT, marker="o")
for n, time in zip(lengths, times):
    right.annotate(f"{100 * at_length[n]['value']:.1f} %", (n, time["latency_ms_p50"]), (0, 9), ha="center", fontsize=9,
                   textcoords="offset points")
right.set(xlabel="length (label: test accuracy)", ylabel="median, ms", xlim=(0, 1.15 * max(lengths)),
          ylim=(0, 1.3 * max(time["latency_ms_p50"] for time in times)));

# %% [markdown]
r"""
Time grows with the length, whether the places are filled or not. Choose the smallest length that cuts almost nothing of
*your* texts. And does padding change an answer? It must not: the mask takes padded places out of every attention.

<details><summary>What came out here</summary>

At 16 pieces 71.4 % of the texts are cut, and the accuracy is 57.1 %. At 32 it is 80.3 %, at 48 and 64 both 80.6 %,
while the time grows from 2.63 to 3.61 and 4.67 ms. For these texts 48 is a good choice, 32 perhaps a better one.
Padding changes no answer: the next cell finds 1.9e-09.

</details>
"""

# %%
alone = model.predict([text])[0]
for n in (32, 48, 64) if not FAST else (16, 48):
    padded = model.forward(model.tokenizer.encode([text, " ".join([text] * 9)], n))[0]
    print(f"padded to {n}: largest difference of a probability {np.abs(tf.nn.softmax(padded) - alone).max():.1e}")

# %% [markdown]
r"""
## 5. Is it still the same model?

Between Keras and the file lie a converter, other kernels, and perhaps a rounding to few bits. **Parity** (一致性) is
checked in three ways, always on the same texts for both (for floats
the first 200 do): how far the probabilities are apart ($|\Delta p|$, the largest of a
text), how often both give the same answer (agreement, 一致率), and how the accuracy moves.
"""

# %%
show(("format", "texts", "largest |Δp|", "mean |Δp|", "largest difference of logits", "same answer"),
     [(name, file["num_examples"], f"{file['max_dp']:.1e}", f"{file['mean_dp']:.1e}",
       f"{file['max_dlogit']:.1e}" if file["max_dlogit"] is not None else "–", f"{file['agreement']:.1%}")
      for name, file in files.items()])

# %% [markdown]
r"""
For floats the logits can be asked for closeness: they differ by rounding in another order. (Why logits? A softmax that
is sure of itself hides errors.) For few bits closeness is not to be had; there counts whether the *answers* stay. Which
answers change? We put each dev text at its **margin**: the probability of Keras' first choice minus that of the second.
"""

# %%
before = tf.nn.softmax(np.stack(model.forward(encodings))).numpy()
ordered = np.sort(before, axis=-1)
margin = ordered[:, -1] - ordered[:, -2]
figure, all_axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axes, name in zip(all_axes, ("int8", "int4")):
    after = np.stack(Runner(files[name]["path"]).forward(encodings))
    dp, flipped = np.abs(after - before).max(-1), after.argmax(-1) != before.argmax(-1)
    axes.plot(np.linspace(0.01, 1), np.linspace(0.005, 0.5), color=PALE, zorder=0)
    axes.scatter(margin[~flipped], dp[~flipped], s=9, color=GREY, label=f"same answer: {(~flipped).sum()}")
    axes.scatter(margin[flipped], dp[flipped], s=30, color=ACCENT, marker="x", label=f"another: {flipped.sum()}")
    axes.set(title=name, xlabel="margin in Keras", yscale="log")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -.22), ncols=2)
all_axes[0].set_ylabel("|Δp|")
print(f"margins below 0.1: {(margin < 0.1).mean():.1%} of the texts")

# %% [markdown]
r"""
An answer can only change if the errors of two classes add up to the margin or more, so $2 |\Delta p|$ must reach it:
only above the pale line. Crosses on the left are texts on which the model was of two minds anyway; there another
answer does little harm. Crosses on the right are another matter: the model was sure, and the file says something
else. The test accuracy of Section 6 tells what it comes to.

<details><summary>What came out here</summary>

With 8 bits 98.7 % of the answers stay, and all crosses lie at small margins. With 4 bits 92.7 % stay, and crosses
lie at every margin, some where Keras was nearly certain. That is why `export` calls it drift although the test
accuracy hardly moves.

</details>

A file may also be plainly broken. `export` then writes nothing and says why. Rounding to 2 bits without training for
it (Lesson 5) is a good way to ruin a model:
"""

# %%
try:
    export(model, f"{folder}/ruined.tflite", ("int2",), sequence_length=length, dev=data.dev)
    print("written")
except ExportError as error:
    print("refused:", error)

# %% [markdown]
r"""
Check *early*: before the app is built around the file, and on every conversion, by a program. A person looks once.

### Exercise 2 (3 points): an early check

Write such a check. One trap is set: NaN. Every comparison with NaN is false, so a check that asks whether something is
*too large* lets a broken file pass.

<details><summary>Hint 1</summary>

Three results: one compares two `argmax`, one takes a mean, one is a question with yes or no.

</details>

<details><summary>Hint 2</summary>

Largest over classes first, then the mean over texts.

</details>

<details><summary>Hint 3</summary>

Ask whether all is well, not whether something is bad; and make a Python `bool` of what NumPy answers.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "early_check", "locked": false, "schema_version": 3, "solution": true, "task": false}
def early_check(before, after, max_mean_dp=0.05):
    """Compares a file's probabilities with those of Keras.

    Args:
        before, after: float arrays, (texts, classes), of Keras and of the file. max_mean_dp: limit of mean |dp|.
    Returns:
        (agreement 0-1, mean over texts of the largest probability difference, passed): passed, a Python bool, is True
        if all values are finite and the mean is at most the limit.
    """
    ### BEGIN SOLUTION
    agreement = float(np.mean(before.argmax(-1) == after.argmax(-1)))
    mean_dp = float(np.abs(after - before).max(-1).mean())
    return agreement, mean_dp, bool(np.isfinite(before).all() and np.isfinite(after).all() and mean_dp <= max_mean_dp)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "early_check_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
keras_says = np.array([[0.9, 0.1], [0.6, 0.4]])
#: 0.5 points: agreement and mean difference
np.testing.assert_allclose(early_check(keras_says, keras_says)[:2], (1.0, 0.0))
np.testing.assert_allclose(early_check(keras_says, np.array([[0.8, 0.2], [0.4, 0.6]]))[:2], (0.5, 0.15))      # .1, .2
#: 0.5 points: passed or not
assert early_check(keras_says, keras_says)[2] is True
assert early_check(keras_says, np.array([[0.8, 0.2], [0.4, 0.6]]))[2] is False, "0.15 is above 0.05"
#: 0.5 points: NaN must not pass
assert early_check(keras_says, np.array([[0.9, 0.1], [np.nan, np.nan]]))[2] is False, "NaN must not pass"
print("early_check: visible checks passed (1.5 of 3 points)")
### BEGIN HIDDEN TESTS
#: 0.5 points: the largest difference of each text, with five classes
generator_ = np.random.default_rng(SEED)
p_, q_ = generator_.dirichlet(np.ones(5), size=(2, 40))
wanted_ = (p_.argmax(1) == q_.argmax(1)).mean(), np.abs(p_ - q_).max(1).mean()
np.testing.assert_allclose(early_check(p_, q_)[:2], wanted_)
#: 0.5 points: infinite values and a broken Keras must not pass
assert early_check(np.full((2, 2), np.inf), np.full((2, 2), np.inf))[2] is False
assert early_check(np.array([[np.nan, 0.1], [0.6, 0.4]]), keras_says)[2] is False
#: 0.5 points: another limit
assert early_check(keras_says, keras_says[:, ::-1], 0.9)[2] is True                # 0.8 and 0.2: 0.5
assert early_check(keras_says, keras_says[:, ::-1], max_mean_dp=0.4)[2] is False
### END HIDDEN TESTS

# %% [markdown]
r"""
## 6. Which format?

Bytes, time and answers, all together. The times come from one call that runs the files in turns, so that all meet the
same disturbances. The last column is paired with the float file: only texts on which the two differ count.
"""

# %%
timings = dict(zip(files, benchmark(*(file["path"] for file in files.values()), runs=20 if FAST else 100)))
results = {name: accuracy.evaluate(exported_model(file["path"], model), data.test) for name, file in files.items()}
base, rows = timings["float32"]["latency_ms_p50"], []
for name, file in files.items():
    pair = accuracy.paired_difference("accuracy", results[name]["scores"], results["float32"]["scores"])
    change = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * pair[key] for key in ("difference", "low", "high")))
    rows.append((name, f"{file['bytes'] / 1e6:.1f}", f"{file['gzip_bytes'] / 1e6:.1f}",
                 f"{timings[name]['latency_ms_p50']:.2f}", f"{base / timings[name]['latency_ms_p50']:.2f}",
                 f"{100 * results[name]['value']:.1f} ± {100 * results[name]['se']:.1f}", change))
show(("format", "MB", "MB, gzip", "median, ms", "times as fast", "test, % ± SE", "minus float32, points [95 %]"), rows)

# %%
figure, axes = plt.subplots(figsize=(5.6, 3))
for (name, file), side in zip(files.items(), (9, -15, 9, -15)):
    x, y = file["bytes"] / 1e6, timings[name]["latency_ms_p50"]
    axes.plot(x, y, "o", color=INK if name == "float32" else ACCENT)
    axes.annotate(f"{name}, {100 * results[name]['value']:.1f} %", (x, y), (0, side), ha="center", fontsize=9,
                  textcoords="offset points")
axes.set(xlabel="file, MB (label: test accuracy)", ylabel="median, ms", ylim=(0, 1.3 * base),
         xlim=(0, 1.2 * files["float32"]["bytes"] / 1e6));

# %% [markdown]
r"""
Two questions to the picture. Which steps save bytes only, and which one saves time as well? (Weights of 16-bit floats
are widened to 32 bits when the file is loaded, those of 4 bits to 8 before each product.) And which loss of accuracy can this test tell from none?

<details><summary>What came out here</summary>

16-bit floats save bytes only (45.1 MB, 9.25 ms). int8 saves both: 23.1 MB and 3.18 instead of 9.37 ms. int4 saves
bytes again (12.3 MB) and next to no time (3.01 ms). Neither loss can be told from none: -0.2 [-0.6, +0.2] and -0.5
[-1.8, +0.7] points.

</details>

## 7. The text: what a client does

So far *we* made the ids. On the phone the client does it, and must do it exactly as the model learned it. For that, the
vocabulary and the labels travel in the file: `export` appends them as a zip archive, and tells in the **metadata**
(元数据) what they are for.
"""

# %%
import zipfile

from ai_edge_litert.schema_py_generated import Model
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

with zipfile.ZipFile(files["int8"]["path"]) as archive:
    for name in archive.namelist():
        lines = archive.read(name).decode().splitlines()
        print(f"{name}: {len(lines):,} lines, such as {lines[-3:]}")
root = Model.GetRootAsModel(open(files["int8"]["path"], "rb").read())
entry = next(e for e in map(root.Metadata, range(root.MetadataLength())) if e.Name() == b"TFLITE_METADATA")
metadata = schema.ModelMetadataT.InitFromPackedBuf(root.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
print(metadata.description.decode())
print([tensor.name.decode() for tensor in metadata.subgraphMetadata[0].inputTensorMetadata])

# %% [markdown]
r"""
The client calls the inputs by other names, and finds them by the order in the metadata. Now it is its turn: MediaPipe's
`TextClassifier`, the same on Android, iOS, in browsers and in Python. It gets the file and a text, and nothing else.
"""

# %%
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python import text as tasks


def client(name):
    options = tasks.TextClassifierOptions(base_options=BaseOptions(model_asset_path=files[name]["path"]))
    return tasks.TextClassifier.create_from_options(options)


def ask(classifier, sentence):
    """The client's probabilities, in the order of our labels."""
    found = {c.category_name: c.score for c in classifier.classify(sentence).classifications[0].categories}
    return np.array([found[label] for label in data.labels])


# %%
clients, rows = {name: client(name) for name in ("float32", "int8", "int4")}, []
some = data.test.texts[:300]
for name, classifier in clients.items():
    theirs = np.stack([ask(classifier, sentence) for sentence in some])
    ours = exported_model(files[name]["path"], model).predict(some)
    same = (theirs.argmax(-1) == ours.argmax(-1)).mean()
    rows.append((name, len(some), f"{same:.1%}", f"{np.abs(theirs - ours).max():.1e}"))
show(("file", "test texts", "same answer as our tokenizer and LiteRT", "largest |Δp|"), rows)

# %% [markdown]
r"""
Both sides run the same file. Where they differ, it is the tokenizer's doing, or that of kernels of another version. But
the texts of this set are tidy. People's are not:
"""

# %%
untidy = ["TURN OFF THE LIGHTS", "play some café music", "ÜBER to the airport", "play\u00a0some\u00a0jazz",
          "turn\u200b off the lights", "set an alarm for 7\uff1a30", "turn off the lights 🙏", "play \u97f3\u4e50",
          "call n\u0303ora"]
rows = []
for sentence in untidy:
    theirs, ours = ask(clients["float32"], sentence), model.predict([sentence], max_length=length)[0]
    rows.append((repr(sentence), f"{np.abs(theirs - ours).max():.1e}", data.labels[ours.argmax()],
                 data.labels[theirs.argmax()] if theirs.argmax() != ours.argmax() else "the same"))
show(("text", "largest |Δp|", "Keras", "client"), rows)

# %% [markdown]
r"""
The two **normalise** (规范化) differently. BERT's own tokenizer, on which the model was trained, takes accents off
letters, lower-cases all alphabets, drops invisible characters and knows many kinds of space. The client lower-cases
ASCII only, and leaves the rest as it is; "café" then becomes other pieces than those that the model knows from its
training. Nothing fails. Look in the table for what it costs: an accent may cost little, an unbreakable space, as web
pages and keyboards put it in, glues words together.

<details><summary>What came out here</summary>

Seven texts hardly move: "café" shifts a probability by 2.0e-03. "ñ" written as two characters shifts it by 5.4e-02.
The unbreakable spaces turn `music_play` into `music_stop`, by 9.3e-01.

</details>

The remedy is to do it before the client sees the text.

### Exercise 3 (4 points): normalise first

Write that step. `unicodedata.normalize("NFD", text)` splits letters from their accents; `unicodedata.category(c)` tells
what a character is: accents are `"Mn"`, invisible format characters `"Cf"`, spaces of all kinds `"Zs"`.

<details><summary>Hint 1</summary>

Which order: lower case, split, drop, replace?

</details>

<details><summary>Hint 2</summary>

Go through the characters after splitting, and decide by category.

</details>

<details><summary>Hint 3</summary>

Two categories vanish, one becomes an ordinary space, all others stay.

</details>
"""

# %% nbgrader={"grade": false, "grade_id": "normalise", "locked": false, "schema_version": 3, "solution": true, "task": false}
def normalise(text):
    """A text as BERT's uncased tokenizer normalises it, so that a client which does less sees the same words.

    Args:
        text: str.
    Returns:
        str: lower case, no accents, no format characters; every space an ordinary one.
    """
    ### BEGIN SOLUTION
    kinds = [(c, unicodedata.category(c)) for c in unicodedata.normalize("NFD", text)]
    return "".join(" " if kind == "Zs" else c for c, kind in kinds if kind not in ("Mn", "Cf")).lower()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "normalise_check", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
#: 0.5 points: lower case in all alphabets
assert normalise("OLE 7:30!") == "ole 7:30!" and normalise("\u0416") == "\u0436", "not ASCII alone"
#: 0.5 points: no accents, however they are written
assert normalise("caf\u00e9") == "cafe" and normalise("\u00fcber") == "uber"
assert normalise("e\u0301") == "e", "an accent may be a character of its own"
#: 0.5 points: ordinary spaces, nothing invisible
assert normalise("play\u00a0some\u3000jazz") == "play some jazz" and normalise("ja\u200bzz\ufeff") == "jazz"
print("normalise: visible checks passed (1.5 of 4 points)")
### BEGIN HIDDEN TESTS
#: 1 point: capitals with accents in three alphabets
assert normalise("ΆΛΦΑ Ёлка İ") == "αλφα елка i" and normalise("CAFÉ OLÉ") == "cafe ole"
#: 1 point: BERT's own tokenizer sees no difference
from tokenizers.normalizers import BertNormalizer
bert_ = BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=True)
pool_ = list("aZñÉüÅçΩйЖ7!? ") + ["\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "\u00ad", "o\u0308"]
for _ in range(50):
    untidy_ = "".join(np.random.default_rng([SEED, _]).choice(pool_, 12))
    assert normalise(untidy_) == bert_.normalize_str(untidy_), repr(untidy_)
#: 0.5 points: what needs no change stays
assert normalise("\u97f3\u4e50 7:30!") == "\u97f3\u4e50 7:30!" and normalise("") == ""
assert normalise("tab\tand\nline").split() == ["tab", "and", "line"]
### END HIDDEN TESTS

# %%
from mobile_export.metadata import mediapipe_compatible

before_, after_ = (max(np.abs(ask(clients["float32"], step(sentence)) - model.predict([sentence], max_length=length)[0])
                       .max() for sentence in untidy) for step in (str, mediapipe_compatible))
print(f"largest |Δp| of the untidy texts: {before_:.1e} as they are, {after_:.1e} normalised first")

# %% [markdown]
r"""
## 8. On the phone

With MediaPipe's library `com.google.mediapipe:tasks-text` the whole of it is, in Kotlin, about this:

    val classifier = TextClassifier.createFromFile(context, "int8.tflite")          // in the app's assets
    val result = classifier.classify(normalise("Turn off the lights"))
    val best = result.classificationResult().classifications()[0].categories()[0]   // categoryName(), score()

This snippet was *not* run here: this lesson ran on a computer. What was run is the same file under the same client's
Python version, and the same runtime. Times on a phone differ, from one phone to the next, too; measure there.

The app needs `normalise` in its own language. The package has this step ready for Python, for more kinds of characters:
`mobile_export.metadata.mediapipe_compatible`; its file tells what even that does not mend.

The client holds on to one text, one label. For tags, for pairs of texts, or for a vocabulary with upper case, take
LiteRT itself, the inputs of Exercise 1 and a tokenizer that follows the model's; MediaPipe's metadata are then left out,
and `export` says why.

## 9. The contract, and an app of your own

A runtime and a file are not yet an app. Exercises 1 and 3 showed what stands between: which number a piece has, what
happens to case and accents, which input is which, how long a text may be, and what the numbers that come out are called.
An app whose author guesses one of these does not fail. It answers worse, on some texts, and nobody is told.

So `export` writes it down beside the files, for every task: a **contract** (约定) between the model and whoever runs it.

| file | what it settles |
|---|---|
| `vocab.txt`, `labels.txt` | the number of each piece, the name of each output |
| `model.json` | the task, the names and lengths of the inputs, what the tokenizer does to a text; of each file its SHA-256, and how far it was from Keras |
| `parity.json` | about fifty texts, untidy ones among them, with the inputs and outputs that they must come to |

The last one is written on request (`export --vectors`), and it is what makes a contract of the rest: **a tokenizer in
another language is not believed, it is tested**, text by text. Section 5 put the same question to the file; here it is
put to the client.

With these files there is an app already:

    python -m keras_compress export --from small --data my-data --out phone --android my-app
    python -m keras_compress android my-app

The first line copies the Android project of `mobile_export/android/` to `my-app`, with your model in it; the folder
opens in Android Studio. The second prints the commands that bring it to a phone. Read it from the inside out:

- `library/` is plain Kotlin without Android: the tokenizer, the inputs, the answers, a test of itself against
  `parity.json`. It is the third tokenizer that you meet here, after Python's and MediaPipe's. It follows `model.json`,
  so it can do what MediaPipe's cannot: tags, pairs, upper case, accents.
- `app/` is what one sees: it classifies while one types, tags, compares models, and takes their times.

Two kinds of certainty are mixed here, and it pays to keep them apart. What the library makes of a text was *computed*
on this side, and compared with Python. What a phone makes of the app was not: there was no phone. The project's own page
says of every part whether it was run, or only checked by a compiler. If you have a phone, its times come without any
app, too: `benchmark --adb`.

Suppose that an app's first version passes all of `parity.json`, and a user writes that it is wrong on her texts. What
may be different, and where would you look first?

<details><summary>An answer</summary>

The vectors hold fifty texts. Hers may have a character that none of them has, or be longer than the file's length, so
that its end was cut. Or the app is right, and so is the file: then the *model* is wrong on her texts, and Python will say
the same. That is the first thing to look at, because it takes one line.

</details>

## 10. An honest reading
"""

# %%
for name in ("int8", "int4"):
    pair = accuracy.paired_difference("accuracy", results[name]["scores"], results["float32"]["scores"])
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"{name}: {files['float32']['bytes'] / files[name]['bytes']:.1f} times as small, "
          f"{base / timings[name]['latency_ms_p50']:.2f} times as fast; on {pair['n']:,} test texts it {verdict} the "
          f"float file ({100 * pair['difference']:+.1f} points)")

# %% [markdown]
r"""
And what may we *not* say?

- **Agreement is not accuracy.** A file may give other answers and be as good, or the same ones on tidy texts and fail
  on untidy ones.
- **These texts are not your users'.** `assistant` is a made set without typing errors or accents.
- **Ratios of times carry over to a phone only roughly**, and int8 gains more where the processor has instructions for
  it.
- **One seed, one model.** What 4 bits cost depends on the model.

## 11. Where to read on

- `mobile_export/graph.py` and `parity.py` (the graph and its checks), `metadata.py` (what the client reads), `litert.py` (by name);
  Lesson 5 on what the bits are.
- On the command line: `python -m keras_compress export --help`, and `benchmark --help`. The contract in full:
  `mobile_export/README.md`; iOS, Flutter, React Native and the Raspberry Pi: `mobile_export/PLATFORMS.md`.
- MediaPipe's guide to text classification: <https://ai.google.dev/edge/mediapipe/solutions/text/text_classifier>.
- Try it: a `.tflite` file of the three-layer model of Lesson 1; the length 128; a text of your own with an emoji in the
  middle of a word. Write down what you expect before you run it.
"""

# %% [markdown]
r"""
## 12. In five lines

- A phone reads one file: a graph of operators with its weights. Set its inputs by name.
- The length is fixed and costs time for every text. Choose it by measuring cuts, accuracy and milliseconds.
- Parity has three sides: probabilities, equal answers, accuracy. Check it by a program, on every export.
- int8 was 3.9 times as small and 2.95 times as fast; its loss cannot be told from none.
- A client that treats text otherwise does not fail. It answers worse on some texts, in silence.
"""

# %% [markdown]
r"""
## 13. Five questions

**1.** Mask and types were swapped, and dev accuracy fell by about two points only. Why is the small loss bad news?

- **a** It shows that the mask is superfluous.
- **b** A fault that keeps most answers is found by no one who tries a few.
- **c** It means that the file was damaged.

<details><summary>Answers, and why</summary>

- **a** No. Padding was attended to, and answers changed. Lesson 0 shows what that does to short texts.
- **b** Right. Only a comparison on many texts shows it, and only if someone makes it.
- **c** No. The file is right; the program fed it wrongly.

</details>

**2.** Why does a text of 5 pieces take as long as one of 48?

- **a** The graph always computes all places.
- **b** The tokenizer needs most of the time.
- **c** Short texts are repeated until they fill the length.

<details><summary>Answers, and why</summary>

- **a** Right. The mask keeps padding out of the answer, not out of the computing.
- **b** No. The times here are of the graph alone.
- **c** No. They are filled with padding.

</details>

**3.** int4 agrees with Keras on 92.7 %, yet loses only 0.5 points [-1.8, +0.7]. How do these go together?

- **a** One of the two was measured wrongly.
- **b** Accuracy counts only texts on which both agree.
- **c** Some answers became wrong, and nearly as many right.

<details><summary>Answers, and why</summary>

- **a** No. They are measured on dev and test, but that does not explain it.
- **b** No. It counts all texts.
- **c** Right. Agreement is not accuracy. Users of the old file will still notice the changes.

</details>

**4.** A check says: refuse if `mean_dp > 0.05`. A broken file gives NaN. What happens?

- **a** It is refused, since NaN is not a small number.
- **b** It passes, since the comparison is false.
- **c** Python raises an error.

<details><summary>Answers, and why</summary>

- **a** No. NaN is not compared by size: the answer is false.
- **b** Right. So ask whether all values are finite and the mean is at most the limit.
- **c** No. Comparing with NaN raises nothing.

</details>

**5.** "play\u00a0some\u00a0jazz" is answered rightly in Keras and wrongly by the client. Where is the remedy?

- **a** Before the client sees the text: normalise as in training.
- **b** In the file: export as floats.
- **c** In training: add such spaces to the texts.

<details><summary>Answers, and why</summary>

- **a** Right. Then both cut it into the same pieces; the largest difference became 1.8e-07.
- **b** No. The float file was asked. The words were glued before it saw them.
- **c** No. BERT's tokenizer makes ordinary spaces of them, so the model would never see them.

</details>
"""

# %% [markdown]
r"""
## 14. A challenge

Find a text of at most eight words on which the client and Keras give different answers although `normalise` of
Exercise 3 was applied. Say which step of the two tokenizers differs, and whether `mediapipe_compatible` mends it.
Then write the three texts that you would add to `parity.json`.
"""
