# %% [markdown]
r"""
# 第 5 课 · 量化：同一个模型，更少的位数

**学完这一课，你能够**：亲手用缩放因子和零点把一个张量变成 8 位整数；说清楚为什么权重矩阵的每个输出都该有自己的缩放因子；
让梯度穿过没有斜率的取整来训练；在 8、4、2 位上，在“训练完再量化”和“训练时就量化”之间作出选择；从手机要用的文件里把整数
读出来；并且说清楚模型里的零有什么用，又没有什么用。

**预备知识**：Python 和 NumPy，Transformer 层的基本构造（注意力、前馈网络、层归一化），知道什么是微调，什么是梯度。学过第
1 课会更轻松：数据、规模和大模型都和那里一样。

**时间**：在双核笔记本 CPU 上计算约 15 分钟，加上练习（共 10 分）约一个半小时。**随机种子**：全课都是 0。如果启动 Jupyter
时设置了环境变量 `KERAS_COMPRESS_FAST=1`，全课不到一分钟就能空跑一遍，但那时的数字没有意义。
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
from keras_compress.training.loop import Training, finetune

# %% [markdown]
r"""
全课的设置都放在这里。`training` 用来训练浮点模型，与第 1 课相同。`more` 是用较低的学习率再训练一轮：每个量化模型都多这一
轮，用来对照的浮点模型也一样。
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500, "num_dev": 300}
training = Training(epochs=1 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=1)
more = training.replace(epochs=1, learning_rate=5e-5)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. 亲手做一次 8 位量化

一个 32 位浮点数大约能取四十亿个不同的值。**量化**（quantization）就是只许张量取少数几个等距的值，存的不再是数值本身，而是
“第几个”。下面用一个 5 × 5 的张量把整个过程走一遍。它各列的大小相差很多，这是有意安排的。

相邻两个格点之间的距离叫**缩放因子**（scale）$s$。用 $b$ 位时，最大的整数是 $M = 2^{b-1} - 1$，8 位就是 127；格子有多宽，由
绝对值最大的那个数决定：

$$s = \frac{\max |x|}{M}, \qquad q = \mathrm{round}(x / s), \qquad \hat{x} = s\, q.$$

（Q8BERT 的论文写的是 $S = M / \max |x|$，再拿它去乘，其实是同一套格点。这一课沿用 TFLite 的写法。）
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
比较第一格和第三格，单看颜色，肉眼分不出差别。最后一格的颜色另有标度，只到正负半步为止，没有一个误差超出这个范围。（那句 `assert` 还
和程序包里的 `quantize` 对了一遍，从这里起我们就用它。）

再看第一列的整数。和整个张量里最大的数相比，这一列的值太小，255 个格点里只用得上寥寥几个。补救的办法是每列多花一个浮点数：
**每列各用一个缩放因子**。在一层的权重矩阵（Keras 称为 kernel）里，一列对应一个输出，也叫一个*通道*（channel），所以这种做法称为*逐通道*（per
channel），与*逐张量*（per tensor）相对。换成 4 位，$M = 7$，差别就看得见了。
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
只用一个缩放因子时，第一列全变成了零，也就是说模型会丢掉一个输出；第二列除了 0 只剩下一个值。每列各用一个缩放因子时，误差都
不超过该列最大值的十四分之一，即 7 %。

为什么按输出分，而不按输入分？因为要做乘法。设 $q^x$ 来自输入，$q^w$ 来自权重，

$$y_j = \sum_i x_i w_{ij} \approx \sum_i (s_x q^x_i)(s_j q^w_{ij}) = s_x s_j \sum_i q^x_i q^w_{ij}:$$

只随输出 $j$ 变的缩放因子可以提到求和号外面，里面剩下的全是小整数的乘积，用 32 位累加。手机处理器最擅长算的就是这种和。如果
按每个输入 $i$ 各用一个缩放因子，它就只能留在求和号里面。下面验证：走整数这条路，和用取整后的浮点数去乘，结果一样。
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
## 2. 零点

以零为中心的格子，碰上全是正数的张量就浪费了一半。许多激活值（activation）的范围都偏在一边，TFLite 的办法是把格子平移：范围
$[l, h]$ 必须包含 0，

$$s = \frac{h - l}{2^b - 1}, \qquad z = \mathrm{round}\Big(-2^{b-1} - \frac{l}{s}\Big), \qquad
q = \mathrm{clamp}\big(\mathrm{round}(x / s) + z\big), \qquad \hat{x} = s\, (q - z).$$

整数 $z$ 叫**零点**（zero point），它代表 0。这里 $2^b$ 个整数全部用上，从 $-2^{b-1}$ 到 $2^{b-1} - 1$。为什么 0 必须恰好落在
格点上？因为填充、掩码，还有激活函数输出的零实在太常见了，在这里出一点误差，就会一遍又一遍地重复。

### 练习 1（3 分）：缩放因子与零点

请写出这四个公式。小心两个陷阱：范围可能不包含 0，要先扩大；张量也可能全是零（这时缩放因子取 1）。
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
q_, s_, z_ = affine(np.array([-1.0, 0.0, 1.55]))
np.testing.assert_allclose((s_, z_), (0.01, -28), err_msg="2.55 / 255, and -128 + 100")
np.testing.assert_array_equal(q_, [-128, -28, 127], "the ends of the range are the ends of the grid, and 0 is z")
q_, s_, z_ = affine(np.array([0.5, 2.55]))
np.testing.assert_allclose((s_, z_), (0.01, -128), err_msg="the range is widened to hold 0")
np.testing.assert_array_equal(q_, [-78, 127])
### BEGIN HIDDEN TESTS
for bits_ in (8, 4, 2):
    for shift_ in (-9.0, -0.7, 0.0, 0.4, 30.0):
        values_ = np.random.default_rng(2).normal(size=(40, 7)) + shift_
        q_, s_, z_ = affine(values_, bits_)
        assert q_.shape == values_.shape and np.issubdtype(q_.dtype, np.integer) and s_ > 0 and z_ == int(z_)
        assert q_.min() >= -(2 ** (bits_ - 1)) and q_.max() <= 2 ** (bits_ - 1) - 1
        assert np.abs(s_ * (q_ - z_) - values_).max() <= s_ / 2 * (1 + 1e-9)
        again_ = affine(np.append(values_, 0.0), bits_)
        assert again_[0][-1] == again_[2], "0 must lie on the grid exactly"
q_, s_, z_ = affine(np.zeros(3))
assert s_ == 1.0 and (s_ * (q_ - z_) == 0).all()
### END HIDDEN TESTS

# %% [markdown]
r"""
## 3. 真实模型上的格子

我们的模型是六层的 MiniLM，和第 1 课一样在手机命令上微调，也和那里一样记作 `predecessor`（前辈模型）。下面这一格要跑一两分钟。
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
真实权重的误差有多大？分别看逐张量和逐通道，8、4、2 位：误差相对于权重矩阵有多大，又有多少权重变成了零。
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
左图：曲线低的地方，如果只用一个缩放因子，那些输出就只分得到一部分格点。右图：GELU 的输出从不低于 −0.17，以零为中心的格子会把
将近一半的格点花在根本不出现的值上。所以 TFLite 的权重用逐通道的缩放因子而不用零点，激活值则用一个零点和一个缩放因子。

注意右图里拖得很长的尾巴：一个很大的值，就决定了其他所有值的缩放因子。

## 4. 训练之后：直接取整

最简单的办法是**训练后量化**（post-training quantization）：拿训练好的权重，取整，完事。`export` 做的就是这个，逐通道各用一个
缩放因子。在这样的文件里，层与层之间的激活值仍是浮点数；每次矩阵乘法先按每个词元自己的取值范围把输入量化（*动态范围*，dynamic
range），做整数乘法，再还原成浮点数。所以不需要事先知道任何范围。

`export` 会在开发集（dev）上把每个文件与 Keras 逐条对照，偏差太大的不予写盘。这一课偏要看看那些文件，所以打开 `allow_drift`。
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
（4 位和 2 位的文件里，词表矩阵用 4 位，每行一个缩放因子；偏置和层归一化仍是浮点数。所以最后一步省不了多少。）

从哪一行起，取整开始伤到准确率？这一课的后半就从那里开始。

## 5. 取整没有斜率

既然取整有害，那就让模型在训练时就尝到它的滋味：用取整后的权重计算，让权重自己挪到取整伤害不大的地方去。这就是**量化感知训
练**（quantization-aware training，QAT）。其中的**伪量化**（fake quantization）指 $x \to s\, \mathrm{round}(x / s)$ 这个运算：
仍是浮点数，但只取格点上的值。

可是有个障碍。取整是一段阶梯，几乎处处是平的，梯度（gradient）为零，权重永远不会动。**直通估计**（straight-through
estimator，STE）干脆把阶梯当成它的对角线：前向照样取整，反向让梯度原样通过，$d \hat{x} / dx = 1$。
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
这样编出来的梯度管用吗？看一个小例子：100 个神经元（neuron），各有 16 个 3 位的权重，各有自己的目标。它们的输入彼此相似，所以
一个权重的取整误差可以由另一个来弥补。三种做法：用取整本身的梯度；用浮点数训练，最后取整；直通估计。我们量的始终是用取整后的
权重算出的损失，对所有神经元取平均。
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
点线一动不动。另外两条要看终点：一边是浮点数的最优解再取整，一边是**连同取整一起**选出来的权重。

Q8BERT 的作者（Zafrir 等，2019）让梯度处处通过，`fake_quantize` 也是这样，连被截断到格子两端的值也不例外。另一些人则在那里把
梯度挡住：这样的值反正改变不了结果，何必再推它？

### 练习 2（4 分）：直通，但不出范围

请写一个伪量化，取值与 `fake_quantize` 相同，梯度在范围之内（含两端）为 1，在范围之外为 0。`tf.stop_gradient(y)` 的值等于
`y`，但没有梯度；`quantize` 给出整数。
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
np.testing.assert_allclose(got, [-1.0, -1 / 3, 1 / 3, 1.0, 1.0], rtol=1e-6, err_msg="the values of fake_quantize")
np.testing.assert_array_equal(tape.gradient(got, some), [0, 1, 1, 1, 0], "nothing passes outside of the range")
### BEGIN HIDDEN TESTS
many_ = tf.constant(np.random.default_rng(3).normal(size=(50, 4)), tf.float32)
for bits_ in (8, 4, 2):
    with tf.GradientTape(persistent=True) as tape_:
        tape_.watch(many_)
        ours_ = tf.reduce_sum(fake_quantize_clipped(many_, 0.9, bits_) ** 2)
        theirs_ = tf.reduce_sum(tf.quantization.fake_quant_with_min_max_args(many_, -0.9, 0.9, bits_, True) ** 2)
    np.testing.assert_allclose(ours_, theirs_, rtol=1e-4)
    np.testing.assert_allclose(tape_.gradient(ours_, many_), tape_.gradient(theirs_, many_), atol=1e-4)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 6. 用更少的位数训练：动态路线

现在来真的。取 `activations="dynamic"` 时，训练中只量化权重，每个输出一个缩放因子，每次更新都重新算；激活值留给运行时去量化，和
第 4 节一样。最后把权重真正放到格点上（`bake`），得到的是一个普通的模型，它的文件里存的正是训练时用的那些整数。

所有模型都从同一个微调好的模型出发，再训练一轮。对照（control）组也一样，只是用浮点数，记作 `control`：没有它，就分不清哪些是
量化训练的功劳，哪些只是多训练一轮的功劳。
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
训练对权重做了什么？取一个权重矩阵，以每个输出的缩放因子为单位。浅色：微调好的模型的权重落在哪里。蓝色：用 4 位和 2 位训练出
来的权重落在哪里。
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
那么，训练到底有没有改变这些整数？还是说直接取整也会得到同样的结果？对照组能回答一半：它也移动过。
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
变了的整数很少，2 位的时候几乎不比对照组多。所以 QAT 赢得的好处，也许多半来自没有压到这么少位的部分：缩放因子、层归一化、偏置和
词表矩阵。

## 7. 静态路线：TF-MOT

论文走得更远：训练时激活值也取整到 8 位，所用的范围在训练途中收集，然后**固定**下来（static，静态）。这样，文件就能从一次乘法到
下一次乘法都用整数计算。（完全不懂浮点数的硬件要求更多：这里的 LayerNorm、softmax 和分类器仍是浮点。）我们用的是 TensorFlow
模型优化工具包（TF-MOT），它把 `quantized_layers` 标注过的层逐个包起来。都有哪些层？
"""

# %%
static = q8bert.compress(predecessor, data, start_step=0 if FAST else 10, **settings)
add_files("QAT static, 8 bits", static, "int8")
ranges = {name: float(value) for name, value in static.weights().items() if name.endswith("_range")}
print(f"{len(ranges)} ranges of activations, {len(kernels) - 1} kernels of 8 bits; the classifier stays float")
print("layer 0:", ", ".join(sorted({name.split("/")[0] for name in ranges if name.startswith("layer_0")})))

# %% [markdown]
r"""
范围是每批最大值的滑动平均（moving average）。第一批直接定下初值，以后

$$r \leftarrow r - (1 - d)\,(r - \max |x|).$$

$d$ 越接近 1，范围越稳，对第一个值也记得越久。有多久？
"""

# %%
updates = more.num_steps(len(data.train.texts))
show(("d", f"weight of the first batch after {updates} updates", "after 10,000"),
     [(d, f"{d**updates:.1%}", f"{d**10_000:.1%}") for d in (0.9, 0.99, 0.9999)])

# %% [markdown]
r"""
作者取 0.9999，那是为长时间训练准备的；我们训练得短，取 0.99。下面是收集到的范围：
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
一个缩放因子要管一个张量里所有的词、所有的分量。范围越宽，留给其中那些小数值的步子就越粗。这是静态路线的软肋。最上面一
行最糟：`output`，也就是前馈网络的输出。在对比实验的模型上，训练之前单单量化这六个张量，损失的准确率就比其余所有张量加起来还多（数字见
`data/results/README.md`）。而且 Q8BERT 对激活值用的也是对称的格子，零点就是 0，所以 GELU 用不上的那一半格点（第 3 节）
仍然闲着。Q-BERT 则取最小值和最大值，并像第 2 节那样用上零点。

## 8. 文件里到底存了什么

“8 位训练”是用浮点数做的模拟。手机要用的文件里，存的真是训练时的那些整数吗？我们把它们读出来。`.tflite` 文件是一个
flatbuffer：一张张量的清单，每个张量有名字、类型、形状，还有一块装着字节的缓冲区。
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
8 位的字节照原样读就行。4 位时两个整数合用一个字节，2 位时四个，排在前面的放在低位。负数用补码（two's complement）表示：4 位
时，15 就是 −1，8 就是 −8。

### 练习 3（3 分）：拆包

请把字节变回整数。`>>` 用来移位，`&` 用来取出几位，两者都能作用于整个数组。
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
np.testing.assert_array_equal(unpack(np.array([0xE3, 0x07], np.uint8), 4, 3), [3, -2, 7], "low half first; 0xE = 14")
np.testing.assert_array_equal(unpack(np.array([0b11_01_00_10], np.uint8), 2, 4), [-2, 0, 1, -1])
np.testing.assert_array_equal(unpack(np.array([127, 129], np.uint8), 8, 2), [127, -127])
### BEGIN HIDDEN TESTS
for bits_ in (8, 4, 2):
    wanted_ = np.random.default_rng(4).integers(-(2 ** (bits_ - 1)), 2 ** (bits_ - 1), 101)
    padded_ = np.pad(wanted_ & (2**bits_ - 1), (0, -101 % (8 // bits_))).reshape(-1, 8 // bits_)
    packed_ = (padded_ << np.arange(0, 8, bits_)).sum(axis=1).astype(np.uint8)
    np.testing.assert_array_equal(unpack(packed_, bits_, 101), wanted_)
### END HIDDEN TESTS

# %% [markdown]
r"""
现在与 Keras 模型里的整数对照：对每个权重矩阵，在文件里找一个和它相同的整数最多的矩阵。另外再加一个文件：同一个 8 位模型，但用
`fuse=True` 转换。TensorFlow 的转换器默认就是这样做的，它会把层归一化的系数 gamma 乘进后面的权重矩阵里。
"""

# %%
export(dynamic[8], f"{folder}/fused", ("int8",), sequence_length=training.max_length, fuse=True, allow_drift=True)
cases = [(f"QAT dynamic, {bits} bits", bits, dynamic[bits], 0) for bits in dynamic]
rows = []
for name, bits, model, axis in (*cases, ("QAT static, 8 bits", 8, static, None), ("fused", 8, dynamic[8], 0)):
    stored = [unpack(packed, width, np.prod(shape)).reshape(shape)
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
如果第三列等于第二列，文件就是训练出来的那个模型，一个整数都不差。（分类器没有计入，它在静态的文件里是浮点数。）静态的文件里可
能有几个整数差 1：这些权重正好落在两个格点中间，只差浮点数的最后一位，转换器和训练时一个往上、一个往下取整。再看 *fused* 那一
行：凡是乘进了 gamma 的地方，权重就离开了训练时的格点，又被取整了一次。所以程序包把它关掉了；直接使用转换器的人要心里有数。

## 9. 值不值？

每种位数都有三条路可走：直接把微调好的模型取整；把对照组取整，它和别的模型训练得一样久，只是用浮点数；或者就用这么多位来训练
（QAT）。所有结果都是用文件在同样的测试文本上量出来的。
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
最后一列才是公平的比较：起点相同，更新次数相同，位数相同，不同的只有训练方式。倒数第二列说的是降低位数总共损失了多少。区间包
含 0，意思是这次测试分不出两者的高下。

*static* 那一行是与 8 位的动态范围相比：输给后者的部分，就是固定范围、层间只用整数、整个权重矩阵只用一个缩放因子（而不是每个输出一个）
的代价。

## 10. 零不会让任何东西变快

还有一种让模型“变小”的流行做法，叫**幅值剪枝**（magnitude pruning；Zhu 与 Gupta，2017）：把每个权重矩阵里最小的权重置零，随着
训练越置越多，比例按下式上升：

$$s(t) = s_f + (s_i - s_f) \Big( 1 - \frac{t - t_0}{t_1 - t_0} \Big)^3.$$

仍然用 TF-MOT，同样的起点，同样一轮，直到 80 % 的权重都是零。在手机上能得到什么好处？我们来量：文件大小，像下载时那样用 `gzip`
压缩之后的大小，还有时间；时间在一次调用里轮流测量。
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
把蓝色的条和它上面那一条比较。文件里的数一个也没少，其中大部分是 0，只有压缩程序看得出来。处理器乘 0 和乘别的数一样卖力：稠密
的矩阵乘法从不问一个数值不值得算。要利用零，得有专门为此写的内核，而且零至少要成行、成块。到哪里都能让模型变快的，是整块整块地
拿掉：层（第 1 至 3 课）、宽度（第 3 课）。

再看 4 位和 2 位那两行。文件更小了，可是比 8 位的更快吗？运行时在做乘法之前，要先把权重拆成 8 位：在这台机器上，4 位
几乎不省时间，2 位反而慢得多。

## 11. 如实解读结果

让数字自己来写句子。
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
那么，什么话**不能**说呢？

- **只有一个种子，一个造出来的数据集。** 区间对别的种子一无所知，而 `assistant` 来自语法规则。要看多个种子和公开数据集，请运行
  `python -m keras_compress run quantization-study`。
- **一轮很短。** 更新次数再多一些，2 位得到的好处也许比 8 位多。学习率大家都一样，没有为谁专门调过。这么少的更新次数，对
  80 % 的零也算不上公平的考验；不过文件大小和用时不会因此改变。
- **时间是这台机器的时间。** int8 能快多少，要看处理器有哪些指令。这些时间只能互相比较；真正要用哪台设备，就到哪台设备上去量。
- **2 位不等于十六分之一。** 词表矩阵仍用 4 位，层归一化和偏置仍是浮点数，词表和标签也都装在文件里。

## 12. 接着读什么

- Zafrir、Boudoukh、Izsak、Wasserblat：*Q8BERT: Quantized 8Bit BERT*，2019，
  [arXiv:1910.06188](https://arxiv.org/abs/1910.06188)；程序见 `keras_compress/quantization/q8bert.py` 和 `fake_quant.py`，文件
  开头的说明把公式和名字一一对应起来。
- Jacob 等：*Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*，2018，
  [arXiv:1712.05877](https://arxiv.org/abs/1712.05877)：TFLite 的缩放因子和零点就出自这里。
- Zhu 与 Gupta：*To prune, or not to prune*，2017，[arXiv:1710.01878](https://arxiv.org/abs/1710.01878)。
- 动手试试：`bits=4` 配 `activations="static"`；`decay=0.9999`；`sparsity=0.95`。运行之前先写下你的预测。
- 第 6 课把这样的文件带到手机上。
"""
