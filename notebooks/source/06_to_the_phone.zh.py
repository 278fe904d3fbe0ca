# %% [markdown]
r"""
# 第 6 课 · 从 Keras 到手机：一个文件，一句话，一个答案

**学完这一课，你能够**：把微调好的 BERT 变成手机用的文件；按名字给它送输入，并说出为什么；选定输入的长度；在交付之前判断它还是
不是原来那个模型；按大小、时间和答案，在浮点数、8 位和 4 位之间作选择；弄清楚真正的客户端在模型看到文本之前，对文本做了些什
么。

**预备知识**：Python 和 NumPy，知道微调、词片（word piece）和 softmax 是什么。学过第 1 课会更轻松：数据、规模和模型都和那里一
样。8 位和 4 位是怎么回事，见第 5 课。

**时间**：在双核笔记本 CPU 上计算约 6 分钟，加上练习（共 10 分）约一小时。**随机种子**：全课都是 0。如果启动 Jupyter 时设置了
环境变量 `KERAS_COMPRESS_FAST=1`，全课不到一分钟就能空跑一遍，但那时的数字没有意义。
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
from keras_compress.training.loop import Training, finetune
from mobile_export.convert import ExportError, export, exported_model
from mobile_export.litert import Runner

# %% [markdown]
r"""
全课的设置都放在这里。模型就是第 1 课里的大模型；换成小模型，走的路完全一样。`length` 是文件接受多少个词片。
"""

# %%
from IPython.display import Markdown, display

SEED, length = 0, 48
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500, "num_dev": 300}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=length, learning_rate=2e-4, evaluations=1)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. 先准备一个模型

这一格要跑一两分钟。
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
## 2. 一个文件

Keras 模型是一堆 Python 对象。手机上没有 Python，只有一个很小的运行时 LiteRT（原名 TensorFlow Lite），它读的是单独一个文件：由
算子和全部权重组成的**图**（graph），即 `.tflite`。`export` 先转换模型，再在开发集（dev）上把结果与 Keras 对照，通过了才写盘。
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
XNNPACK 是 CPU 上的快速内核库。只有一个部分，说明整张图都在它里面跑，中途不必来回倒腾。清单里也没有手机得另找的算子（“Flex”算
子或自定义算子）；要是有，`export` 会拒绝。

## 3. 按名字送输入

和所有 BERT 一样，这张图有三个输入。可是顺序呢？这里有三个答案：教程里常写的顺序，文件里的顺序，还有文件的**签
名**（signature）里的顺序；签名就是按名字列出的输入和输出。
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
转换器爱怎么排就怎么排（签名是按名字排序的），什么也不保证。如果程序想当然地按自己熟悉的顺序来，会怎样？
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
不报错，也不警告：三个输入形状相同，类型也相同。这里是掩码和类型换了位置，于是填充的位置也参与了注意力计算，每个词都算作第二句的。表里的
准确率跌得越少，反而越糟：一个大多数时候还能答对的文件，随手试三句话是试不出来的。（换一种顺序，词片的编号会送进只有两行的类型表里，
运行时会抱怨 “gather index out of bounds”。那反倒是运气好。）所以，永远**按名字**送。在 Python 里用的是 `get_signature_runner`，`Runner` 就是
这样做的。

### 练习 1（3 分）：从编号到输入

形状是固定的，所以每条文本不是要填充（padding），就是要截断。请写出客户端该做的事。小心一个陷阱：截断之后，结尾仍然必须是原来的
最后一个编号，即 [SEP]。
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
np.testing.assert_array_equal(short["input_word_ids"], [[101, 7, 8, 102, 0, 0]])
np.testing.assert_array_equal(short["input_mask"], [[1, 1, 1, 1, 0, 0]])
np.testing.assert_array_equal(short["input_type_ids"], np.zeros((1, 6)))
assert all(value.dtype == np.int32 for value in short.values()), "the file takes int32 alone"
np.testing.assert_array_equal(fixed_inputs([101, 7, 8, 9, 102], 3)["input_word_ids"], [[101, 7, 102]])
### BEGIN HIDDEN TESTS
whole_, cut_ = (model.tokenizer.encode(data.dev.texts, n) for n in (128, length))
for long_, right_ in zip(whole_, cut_):
    ours_, theirs_ = fixed_inputs(long_.ids, length), runner.inputs(right_)
    assert ours_.keys() == theirs_.keys()
    for name_ in theirs_:
        np.testing.assert_array_equal(ours_[name_], theirs_[name_])
        assert ours_[name_].dtype == np.int32 and ours_[name_].shape == (1, length)
np.testing.assert_array_equal(fixed_inputs(list(range(1, 7)), 6)["input_mask"], np.ones((1, 6)))
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. 多长才够？

为什么要固定形状？静态的图可以一次规划好：内存、内核，一切都提前定下。运行时才定的形状，要么走不了快路，要么得用内置以外的算
子。代价是短文本和长文本一样费时间。所以，长度是一个要靠测量来做的选择。我们把 8 位的形式（int8）按几种长度各导出一份。
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
无论位置有没有填满，时间都随长度增长。请选一个对**你的**文本几乎不用截断的最短长度。那么，填充会不会改变答案？绝不应该：掩码
（mask）把填充的位置从每一次注意力里都去掉了。
"""

# %%
alone = model.predict([text])[0]
for n in (32, 48, 64) if not FAST else (16, 48):
    padded = model.forward(model.tokenizer.encode([text, " ".join([text] * 9)], n))[0]
    print(f"padded to {n}: largest difference of a probability {np.abs(tf.nn.softmax(padded) - alone).max():.1e}")

# %% [markdown]
r"""
## 5. 还是原来那个模型吗？

从 Keras 到文件，中间隔着转换器、另一套内核，也许还有把数值压到几位的取整。**一致性**（parity）要从三方面查，而且两边用的始终是同样
的文本（浮点文件只取前 200 条）：概率相差多少（$|\Delta p|$，取一条文本上的最大值），两边给出相同答案的比例（一致率，agreement），还有准确率变了多少。
"""

# %%
show(("format", "texts", "largest |Δp|", "mean |Δp|", "largest difference of logits", "same answer"),
     [(name, file["num_examples"], f"{file['max_dp']:.1e}", f"{file['mean_dp']:.1e}",
       f"{file['max_dlogit']:.1e}" if file["max_dlogit"] is not None else "–", f"{file['agreement']:.1%}")
      for name, file in files.items()])

# %% [markdown]
r"""
浮点数可以要求 logit 相近：差别只来自运算次序不同带来的舍入误差。（为什么看 logit？因为 softmax 太有把握的时候，会把误差盖住。）位数少了就谈
不上相近，要看的是**答案**变不变。哪些答案会变？我们把开发集的每条文本放在它的**间隔**（margin）上：Keras 的第一选择与第二选择的
概率之差。
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
只有两个类的误差加起来达到间隔那么大，答案才会变，所以 $2 |\Delta p|$ 不能小于间隔：只有浅色线以上才有可能。左边的叉，是模型原
本就拿不定主意的文本，换个答案害处不大。右边的叉就不同了：模型很有把握，文件却另说一套。加起来有多大影响，第 6 节的测试准确率会
告诉你。

文件也可能干脆就是坏的。这时 `export` 什么也不写，并说明原因。没有为 2 位专门训练（见第 5 课）就取整到 2 位，是毁掉一个模型的好
办法：
"""

# %%
try:
    export(model, f"{folder}/ruined.tflite", ("int2",), sequence_length=length, dev=data.dev)
    print("written")
except ExportError as error:
    print("refused:", error)

# %% [markdown]
r"""
要查就**早**查：在围着这个文件把应用做出来之前就查，而且每转换一次都由程序来查。人只会看一次。

### 练习 2（3 分）：早做检查

请写出这样一个检查。小心一个陷阱：NaN。与 NaN 作任何比较，结果都是假，所以只问某个数是不是*太大*的检查，会放过坏文件。
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
np.testing.assert_allclose(early_check(keras_says, keras_says), (1.0, 0.0, True))
np.testing.assert_allclose(early_check(keras_says, np.array([[0.8, 0.2], [0.4, 0.6]])), (0.5, 0.15, False))   # .1, .2
np.testing.assert_allclose(early_check(keras_says, np.array([[0.8, 0.2], [0.6, 0.4]]), 0.05), (1.0, 0.05, True))
assert early_check(keras_says, np.array([[0.9, 0.1], [np.nan, np.nan]]))[2] is False, "NaN must not pass"
### BEGIN HIDDEN TESTS
for name_ in ("int8", "int4"):
    found_ = early_check(before, np.stack(Runner(files[name_]["path"]).forward(encodings)))
    np.testing.assert_allclose(found_[:2], (files[name_]["agreement"], files[name_]["mean_dp"]), rtol=1e-4)
    assert found_[2] == (files[name_]["mean_dp"] <= 0.05)
assert early_check(np.full((2, 2), np.inf), np.full((2, 2), np.inf))[2] is False
assert early_check(keras_says, keras_says[:, ::-1], 0.9)[2] is True
### END HIDDEN TESTS

# %% [markdown]
r"""
## 6. 选哪种格式？

大小、时间和答案，放在一起看。时间来自同一次调用，各个文件轮流跑，遇到的干扰也就相同。最后一列与浮点文件作配对比较：只有两者答
得不一样的文本才算数。
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
对着图问两个问题：哪些步骤只省字节，哪一步连时间也省了？（16 位浮点权重在载入文件时就展开成 32 位，4 位的权重在每次乘法之前拆成 8 位。）
还有，哪些准确率的损失，这次测试根本看不出来？

## 7. 文本：客户端做了什么

到目前为止，编号都是**我们**算的。到了手机上，这件事由客户端来做，而且必须和模型训练时做得一模一样。为此，词表和标签就装在文
件里：`export` 把它们作为一个 zip 压缩包附在后面，并在**元数据**（metadata）里说明它们的用途。
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
客户端给输入起了别的名字，靠元数据里的顺序找到它们。现在轮到它上场了：MediaPipe 的 `TextClassifier`，在 Android、iOS、浏览器和
Python 里都是同一个。给它的只有文件和一句话，再没有别的。
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
两边跑的是同一个文件，如有差别，不是来自分词器，就是来自版本不同的内核。不过，这个数据集的文本都很整齐，真人打的字可不是这样：
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
两边的**规范化**（normalise）不一样。模型训练时用的是 BERT 自己的分词器，它会去掉字母上的重音符号，把各种文字都转成小写，丢掉看
不见的字符，还认得好多种空格。这个客户端只把 ASCII 字母转成小写，其余原样保留；于是 “café” 切出来的词片，和模型训练时见过的
就不同了。什么也没有报错。代价请看表：一个重音符号也许无伤大雅，一个不换行空格（网页和输入法常常带进来）却会把几个词粘成一个。

补救的办法，是在客户端看到文本之前先做好。

### 练习 3（4 分）：先规范化

请写出这一步。`unicodedata.normalize("NFD", text)` 把字母和重音符号拆开；`unicodedata.category(c)` 说明一个字符属于哪一类：重音符
号是 `"Mn"`，看不见的格式字符是 `"Cf"`，各种空格是 `"Zs"`。
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
assert normalise("Café OLÉ") == "cafe ole"
assert normalise("ÜBER") == "uber", "all alphabets in lower case, not ASCII alone"
assert normalise("e\u0301") == "e", "an accent may be a character of its own"
assert normalise("play\u00a0some\u3000jazz") == "play some jazz" and normalise("ja\u200bzz\ufeff") == "jazz"
assert normalise("\u97f3\u4e50 7:30!") == "\u97f3\u4e50 7:30!"
### BEGIN HIDDEN TESTS
assert normalise("ΆΛΦΑ Ёлка İ") == "αλφα елка i" and normalise("") == ""
assert normalise("tab\tand\nline").split() == ["tab", "and", "line"]
for sentence_ in [*untidy, *data.test.texts[:20]]:
    ids_ = [encoding_.ids for encoding_ in model.tokenizer.encode([sentence_, normalise(sentence_)], length)]
    assert ids_[0] == ids_[1], "BERT's tokenizer must see no difference"
    theirs_ = ask(clients["float32"], normalise(sentence_))
    np.testing.assert_allclose(theirs_, model.predict([sentence_], max_length=length)[0], atol=1e-4)
### END HIDDEN TESTS

# %%
before_, after_ = (max(np.abs(ask(clients["float32"], step(sentence)) - model.predict([sentence], max_length=length)[0])
                       .max() for sentence in untidy) for step in (str, normalise))
print(f"largest |Δp| of the untidy texts: {before_:.1e} as they are, {after_:.1e} normalised first")

# %% [markdown]
r"""
## 8. 到手机上去

用 MediaPipe 的库 `com.google.mediapipe:tasks-text`，整件事用 Kotlin 写大致是这样：

    val classifier = TextClassifier.createFromFile(context, "int8.tflite")          // in the app's assets
    val result = classifier.classify(normalise("Turn off the lights"))
    val best = result.classificationResult().classifications()[0].categories()[0]   // categoryName(), score()

这段代码在这里**没有**运行过，因为这一课是在电脑上跑的。跑过的是同一个文件、同一个客户端的 Python 版本和同一个运行时。手机上的时
间会不同，各款手机之间也不同，请到手机上去量。

应用里要用它自己的语言再写一遍 `normalise`。这一步程序包里有现成的 Python 版，考虑的字符更多：
`mobile_export.metadata.mediapipe_compatible`；连它也补救不了的，写在那个文件的开头。

这个客户端只管一条文本对一个标签。要做标注，要处理句对，或者词表区分大小写，就直接用 LiteRT，加上练习 1 的输入和自备的分词
器；这时 `export` 不写元数据，并说明原因。

## 9. 如实解读结果
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
那么，什么话**不能**说呢？

- **一致率不是准确率。** 一个文件可以答案不同却同样好，也可以在整齐的文本上答案全都相同，在不整齐的文本上却出错。
- **这些文本不是你的用户写的。** `assistant` 是造出来的数据，没有错别字，也没有重音符号。
- **时间的比值搬到手机上只是大体成立**；处理器有专门指令的，int8 得到的好处更多。
- **只有一个种子，一个模型。** 4 位要付出什么代价，因模型而异。

## 10. 接着读什么

- `mobile_export/convert.py`（图和各项检查），`metadata.py`（客户端读什么），`litert.py`（按名字送输入）；位数是怎么回事，见第 5
  课。
- 命令行：`python -m keras_compress export --help`，还有 `benchmark --help`。
- MediaPipe 的文本分类指南：<https://ai.google.dev/edge/mediapipe/solutions/text/text_classifier>。
- 动手试试：把第 1 课的三层模型做成 `.tflite` 文件；长度取 128；自己写一句话，在词中间放一个表情符号。运行之前先写下你的预测。
"""
