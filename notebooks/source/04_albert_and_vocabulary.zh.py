# %% [markdown]
r"""
# 第 4 课 · ALBERT 与词表：BERT 的字节都花在哪里

**学完这一课，你能够**：说清 BERT 的参数在哪里，时间又花在哪里；把词表矩阵拆成两个瘦矩阵，并量出丢了多少；让各层共用一套
权重，并分清这样省下了什么、什么一点没省；删掉数据里从不出现的词片，而词片全都留着的文本，答案一位也不变；最后，把这些模型都和一
个“什么也没压缩、只是也多训练了一轮”的模型放在一起比较。

**预备知识**：Python 和 NumPy，Transformer 层（注意力、前馈网络、层归一化），知道什么是微调，什么是奇异值。学过第 1 课会更
轻松：数据和大模型都与那里相同。

**时间**：在双核笔记本 CPU 上计算约 20 分钟，加上练习（共 10 分）约一小时。**随机种子**：全课都是 0。如果启动 Jupyter
时设置了环境变量 `KERAS_COMPRESS_FAST=1`，全课不到一分钟就能空跑一遍，但那时的数字没有意义。
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
from keras_compress.training.loop import Training, finetune

# %% [markdown]
r"""
全课的设置都放在这里。`training` 用来训练大模型，和第 1 课相同；压缩了词表的模型都接受 `recovery` 这种短训练；只剩几层（甚至
一层）权重的模型则用 `longer`：三轮，学习率也更高，因为只训练一轮恢复不了多少。
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500}
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
## 1. 参数在哪里，时间又花在哪里

设一个 BERT 有 $V$ 个词片（word piece）、$P$ 个位置、$T$ 种片段类型，隐层宽度 $H$，前馈层宽度 $f$，共 $L$ 层。每个词片先到
**词表矩阵**（word table）里查出一行，这个矩阵有 $V \times H$ 个数；然后再算 $L$ 层。一个层归一化有 $2 H$ 个参数；池化层是
[CLS] 上的一个全连接层，有的模型没有。设文本有 $n$ 个词片，一次乘加算两次运算，查表不算运算：

| 部分 | 参数 | 运算 |
|---|---|---|
| 词表矩阵 | $V H$ | 0 |
| 位置和类型 | $(P + T + 2) H$ | 0 |
| 注意力，各层合计 | $L\,(4 H^2 + 6 H)$ | $L\,(8 n H^2 + 4 n^2 H)$ |
| 前馈网络，各层合计 | $L\,(2 H f + f + 3 H)$ | $L\,4 n H f$ |
| 池化层（pooler） | $H^2 + H$ | $2 H^2$ |
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
（其中的 `assert` 是在和程序包对账，程序包的测试会逐个权重地数。）下面看三个模型：英文 BERT-base，30,522 个词片；中文
BERT-base，21,128 个；还有这一课用的 MiniLM，六层，比较窄。
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
左右两图对照着看。词表矩阵只占字节，查一行不用做任何运算；运算全在各层里。至于字节，宽而深的模型大半在各层里，小模型则相反。
所以值得看三种不同的省法，各对着一块：**分解**词表矩阵，**共享**各层权重，**裁剪**词表。前两种出自 ALBERT（Lan 等，
2020）。请记住，这三种都不会让任何一层算得更快。

大模型照第 1 课的办法再微调一遍：
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
## 2. 分解词表矩阵

### 2.1 两个瘦矩阵

一个词片的那一行有 $H$ 个数，是因为各层要这么宽，并不是一个词片需要这么多。ALBERT（3.1 节）只给它 $E < H$ 个数，再用一个所
有词片共用的矩阵把它映射到 $H$ 维：

$$V \times H \quad\longrightarrow\quad V \times E \;+\; E \times H.$$

### 练习 1（3 分）：什么时候划算？

映射还带一个偏置，又是 $H$ 个数。请写出这样做省下了词表矩阵参数的多大一部分。$E$ 小于多少时才是正数？
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
np.testing.assert_allclose(saved_share(100, 10, 2), 1 - (200 + 20 + 10) / 1000)
np.testing.assert_allclose(saved_share(21128, 768, 128), 0.8272, atol=1e-4)       # Chinese BERT-base: 16.2 M -> 2.8 M
assert saved_share(30522, 384, 384) < 0                                           # as wide as before: only more
### BEGIN HIDDEN TESTS
for v_, h_, e_ in ((30522, 384, 64), (500, 32, 7), (1000, 100, 91)):
    wide_ = BertConfig(vocab_size=v_, hidden_size=h_, num_heads=1)
    gone_ = cost.parameters(wide_) - cost.parameters(wide_.replace(embedding_size=e_))
    np.testing.assert_allclose(saved_share(v_, h_, e_), gone_ / (v_ * h_))
assert saved_share(1000, 100, 90) > 0 > saved_share(1000, 100, 91)                # E < H (V - 1) / (V + H) = 90.8
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.2 最好的两个因子

ALBERT 的两个因子是从头训练的。我们手上已有一个训练好的词表矩阵，要找的是乘积与它最接近的两个瘦矩阵。Eckart 和 Young
（1936）给出了答案：做**奇异值分解**（singular value decomposition，SVD），只留前 $E$ 项。丢掉的正是后面那一截奇异值
$\sigma_i$，相对于矩阵自身的范数就是

$$\text{error}(E) = \sqrt{\frac{\sum_{i > E} \sigma_i^2}{\sum_i \sigma_i^2}}.$$

误差有多大，要看是什么样的矩阵。形状相同的随机矩阵，没有任何结构可用。
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
蓝线比灰线低多少？这段距离就是这个词表矩阵所具有的结构，分解能利用的也只有这么多。如果两条线挨得很近，说明它并不是两个瘦
矩阵的乘积，只能指望上面各层受得住这点误差。

### 练习 2（4 分）：亲手做 SVD

请用 `np.linalg.svd` 写出两个因子；误差只许用奇异值来算，不要把因子乘起来。
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
narrow_, projection_, error_ = best_factors(example, 2)
np.testing.assert_allclose(narrow_ @ projection_, np.diag([3.0, 0.0, 6.0]), atol=1e-9)
np.testing.assert_allclose(error_, 2 / 7)                                         # sqrt(4 / (36 + 9 + 4))
assert narrow_.shape == (3, 2) and projection_.shape == (2, 3)
### BEGIN HIDDEN TESTS
numbers_ = np.random.default_rng(1).normal(size=(30, 8)) ** 3
for size_ in range(1, 9):
    narrow_, projection_, error_ = best_factors(numbers_, size_)
    rest_ = np.linalg.norm(numbers_ - narrow_ @ projection_) / np.linalg.norm(numbers_)
    np.testing.assert_allclose(error_, rest_, atol=1e-9)
    np.testing.assert_allclose(error_, albert.factorize_table(numbers_, size_)[2], atol=1e-6)
    basis_ = np.linalg.qr(np.random.default_rng(size_).normal(size=(8, size_)))[0]        # any other projection
    assert np.linalg.norm(numbers_ - numbers_ @ basis_ @ basis_.T) / np.linalg.norm(numbers_) >= error_ - 1e-9
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.3 误差的代价

词表矩阵有误差，不等于模型就出错。`albert.factorize` 只换词表矩阵，其余原样不动，也还没有训练。位置和类型在映射之后、宽度为
$H$ 的地方才加上去，并在那里做归一化，这样各层看到的还是它们习惯的东西。（ALBERT 是在映射之前、宽度为 $E$ 的地方加的。）
"""

# %%
def show_widths(importance=None):
    rows = []
    for size in sorted({NARROW // 2, NARROW, WIDE, (WIDE + table.shape[1]) // 2}):
        model, error = albert.factorize(predecessor, size, importance, seed=SEED)
        found = accuracy.evaluate(model, data.dev)
        change = accuracy.paired_difference("accuracy", found["scores"], on_dev["scores"])
        rows.append((size, f"{saved_share(*table.shape, size):.0%}", f"{model.model.count_params():,}", f"{error:.2f}",
                     percent(found), f"{100 * change['difference']:+.1f}"))
    show(("E", "saved of the table", "parameters", "relative error", "dev without training, %", "minus predecessor"), rows)


show_widths()

# %% [markdown]
r"""
把 *relative error* 和 *minus predecessor* 两列放在一起看。这里模型受不住这样的误差：不训练的话，表中最小的误差也要付出约十个
百分点；矩阵再窄，学到的东西就所剩无几。训练一轮能恢复多少，第 5 节见分晓。

非得付这么大代价吗？SVD 把从没用到的词片和最常见的词片同样对待。那就让每一行的平方误差按词片在训练文本里的次数来计：次数除以
平均次数，再为没见过的词片加一。这叫**加权 SVD**（weighted SVD）：各行先乘上这个数的平方根，由这些行的 SVD 得到另一个映射，各行
本身则原样投影。相对误差会怎么变，准确率又会怎么变？
"""

# %%
show_widths(albert.row_importance("counts", data, predecessor.tokenizer))

# %% [markdown]
r"""
宽度相同，参数也一样多。把两张表逐行对照，先看误差，再看准确率。要紧的不是矩阵丢了多少，而是丢了哪一部分。
`albert.compress` 默认就这样给各行加权；要普通的 SVD，就写 `row_weights="none"`。

### 2.4 比线性更好的映射？

从 $E$ 到 $H$ 的映射不一定只是一个矩阵。DeFINE（Mehta 等，2020）把它做深，叫 **HGT**（hierarchical group transformation，
分层分组变换）：几个薄层，每层再分成若干组。我们的三种映射都恰好从 SVD 的位置出发；后两种再逐个词片去拟合原来的词表矩阵，
不用任何文本。（这里所有词片同等对待；`define.compress` 则像上面那样加权。）
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
就这种误差来说，线性映射不可能胜过 SVD；最后一列比它前面那列低多少，“深”在这里就值多少，第三列则是为此付出的参数。这类映射算出来的向量只
取决于词片本身，所以可以对文本中的每个词片现算，也可以一次算好，**折叠**（fold）回一个普通的词表矩阵。要么小，要么像原来一
样快，不可兼得。

## 3. 共享各层

### 3.1 一层，反复使用

ALBERT 的第二种省法，是让各层使用同一套权重：可以全部共享，也可以只共享注意力，或只共享前馈网络；可以从头到尾共享，也可以
只在相邻几层组成的组内共享。图中的数字表示用的是第几层的权重。
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
### 练习 3（3 分）：共享的权重从哪里开始

ALBERT 从第一次更新起就共享。而我们手上有 $L$ 个各不相同、已经训练好的层，要分成 $G$ 组：第 $l$ 层属于第
$\lfloor l\,G / L \rfloor$ 组。一组的权重可以从组内各层的平均值（**mean**）开始，也可以从组内第一层（**first**）开始。请写
出每一层计算时所用的权重。
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
np.testing.assert_allclose(np.ravel(shared_start(four, 2, "mean")), [2, 2, 15, 15])
np.testing.assert_allclose(np.ravel(shared_start(four, 2, "first")), [1, 1, 10, 10])
np.testing.assert_allclose(np.ravel(shared_start(four, 4, "mean")), [1, 3, 10, 20])
### BEGIN HIDDEN TESTS
ours_ = predecessor.weights()
kernels_ = [ours_[f"layer_{layer_}_output/kernel"] for layer_ in range(depth)]
for groups_, how_ in ((1, "mean"), (depth // 2, "mean"), (depth // 2, "first")):
    shared_ = albert.share_layers(predecessor, "all", groups_, how_)
    for layer_, expected_ in enumerate(shared_start(kernels_, groups_, how_)):
        used_ = shared_.weights()[f"layer_{shared_.config.owner(layer_, 'ffn')}_output/kernel"]
        np.testing.assert_allclose(used_, expected_, atol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
这样一来，模型还剩下什么本事？先不训练，在开发集（dev）上看看：
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
不训练的话，共享之后模型就所剩无几了。拿一层顶六层，无论从平均值还是从第一层开始，都等于瞎猜；分成三组，或者只共享前馈网络，还
能剩下一点；只共享注意力，几乎什么也不剩。原因这里没有测过；一个猜测是，各层的注意力头和隐单元排列次序互不相干。接近瞎猜的那几
行，之后的训练与其说是恢复，不如说是重新开始。ALBERT 则从一开始就共享。

### 3.2 共享权重的梯度

共享的权重是一个变量，用了 $L$ 次，它的梯度（gradient）就是各次使用的梯度之和。我们拿一个副本来比：副本里每一层都有自己的
权重，数值相等；两者算出来的东西一样，学起来却必定不一样。
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
### 3.3 省字节，不省时间

现在来看最常被误解的一点。共享之后参数很少，可是每一层照样要算。为了看清楚，我们导出三个模型：前辈模型，全部共享的模型，还
有真正只有一层的模型（`truncated-1`）。这里权重是什么都无所谓，所以什么也不训练。
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
先看左边两组柱子：共享省下的，是不是和扔掉五层省下的一样多？如果文件把共享的权重每用一次就存一份，它就会和前辈模型一样
大。再看右边两组：运算省了多少，时间又省了多少？按字节论，共享模型真正的对手是 `truncated-1`：也比一比它们的时间。谁更
准，第 5 节见分晓。

## 4. 裁剪词表

### 4.1 哪些词片有人用？

词表矩阵里每个词片都占一行，而其中的大多数，手机助手几乎一辈子也碰不到。数一数训练文本用了哪些。
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
`vocabulary.compress` 的规则是：特殊词片留下；单个字符全部留下，这样任何词都还拼得出来；出现次数不少于 `min_count` 的留下。
其余词片的那些行从词表矩阵里删去，留下的词片重新编号。

### 4.2 答案一位也不变

WordPiece 切词时，总是取能匹配上的最长词片。如果一条文本的词片全都留着，切法就和原来一样，每个词片用新编号找到的还是原来
那一行，模型算出来的东西也就和原来完全一样。真的完全一样吗？我们逐位比较。
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
### 4.3 那么训练里没见过的词呢？

它们会碎成更小的词片，而这些小词片的向量表示的是别的意思。`assistant` 就是为了看出这一点而造的：开发集和测试集里有些词，训练
文本里一次也没有。我们按“词片是否全都留着”把开发集分成两份。
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
第一行不可能有任何变化，准确率的下降全在第二行；下降多少，要看训练文本覆盖了多少词汇。所以，手头有多少文本就用多少来数词
片，有没有标签都行；相信这些数字之前，先看看开发集里有多少文本切法变了。（未知词片的比例说明不了什么：单个字符全都留着，
几乎什么都不算未知。）应用必须认识的词，可以用 `keep` 留下。

可以裁到什么程度？提高 `min_count`，少见的词片也会删掉：
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
## 5. 恢复，再比较

现在，压缩后的模型都用标签再训练（`recover="finetune"`）。换了词表的模型训练一轮；什么也没压缩的 `control` 也训练一轮：没有它，
我们就会把“只是多训练了一轮”误认为“恢复”。除 `plain` 以外，因子都加了权；`stacked` 是先裁剪词表，再分解。共享层一轮不够，要用更高的学习率训练三轮；它们的对手
`truncated-1` 也一样。这三个模型，先拿它们互相比较。
"""

# %%
settings = {"seed": SEED, "training": recovery, "recover": "finetune"}
sharing = {"seed": SEED, "training": longer, "recover": "finetune"}
made = {"predecessor": predecessor, "control": finetune(predecessor, data, seed=SEED, training=recovery),
        "vocabulary": vocabulary.compress(predecessor, data, seed=SEED, training=recovery, tune=True),
        f"factorised-{WIDE}": albert.compress(predecessor, data, embedding_size=WIDE, **settings),
        f"plain-{WIDE}": albert.compress(predecessor, data, embedding_size=WIDE, row_weights="none", **settings),
        f"factorised-{NARROW}": albert.compress(predecessor, data, embedding_size=NARROW, **settings),
        "stacked": albert.compress(fewer, data, embedding_size=WIDE, **settings),
        "shared-attention": albert.compress(predecessor, data, sharing="attention", **sharing),
        "shared-all": albert.compress(predecessor, data, sharing="all", **sharing),
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
怎样读这张表？**SE** 是对样本而言的标准误。最后一列是**配对**（paired）比较：两个模型回答同样的文本，只有答得不一样的文本才算
数。区间包含 0，并不是说两个模型一样好，而是说这次测试分不出高下。

先看 `predecessor` 和 `control`：两者之差就是仅仅多训练一轮带来的提升。dev 和测试集说的一样吗？再拿 `vocabulary` 和 4.3 节对
照：这一轮恢复了多少？训练文本里本来就没有那些碎掉的词。分解过的模型，拿去和 2.3 节对照：加权、$E = 128$ 的那个，dev 上的准确率
在这一轮训练**之前**反而更高。我们的猜测（这里没有测过）：几乎没丢什么的模型，多看一遍标签也学不到多少，倒可能忘掉一些东西，也就
是标签没有覆盖到的词。`albert.compress` 默认还向前辈模型的答案学习（`recover="distil"`）；factorization-study 比较了两种恢复办法，学习率都在 dev 上
选定。然后看 `shared-all` 和 `truncated-1`：大小相同，训练也相同，快慢却不
同。（它们和 `shared-attention` 训练了三轮，`control` 只有一轮，对它们来说不算等长的对照。）哪些模型落在虚线以下，也就是还不如
不用 BERT？最后看 `stacked`：两步各自造成的下降，是简单相加吗？

## 6. 装进手机能用的文件

第 1 课第 8 节还有一种省法，就是用 8 位的数；它和这些省法合在一起，效果相乘。写盘之前，`export` 会在开发集上逐个核对各文
件与 Keras 的答案。
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
## 7. 如实解读结果

学完这一课，我们可以说什么？让数字自己来写句子。
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
那么，什么话**不能**说呢？

- **这不是 ALBERT。** 论文是在大语料上从头训练分解、共享的模型，并且用省下的字节把模型做宽。我们是把训练好的 BERT 改成这样，
  只给几轮时间恢复。在这里行不通的，在那里也许行得通；从头训练是什么样子，`python -m keras_compress run pretraining-study`
  在小规模上演示。
- **只有一个种子，学习率也没有在开发集上选过。** 完整的实验会在开发集上为每个方法各选一个学习率，用更多的种子和另一个数据集重
  复：`python -m keras_compress run factorization-study` 和 `python -m keras_compress run sharing-study`。
- **裁剪词表是对将来文本的一次下注。** 测试集上的数字只对这样的文本成立。来一个新词要付多大代价，4.3 节表格的第二行已经说了。
- **`assistant` 是人工构造的数据**，有意留出了训练里没有的词。在普通文本上，裁剪造成的下降要小一些：SST-2 的开发集只降
  0.2 个百分点；`assistant` 在同一次试验里降 7.2（`data/results/README.md`），在 4.3 节里降 8.2；关于方法优劣的结论，要靠公开数据集。

## 8. 接着读什么

- Lan、Chen、Goodman、Gimpel、Sharma、Soricut：*ALBERT: A Lite BERT for Self-supervised Learning of Language
  Representations*，ICLR 2020，[arXiv:1909.11942](https://arxiv.org/abs/1909.11942)。这一课对应 3.1 节；论文的第三个想法，即
  判断句子的先后次序，在 `keras_compress/pretraining.py` 里。
- Mehta、Koncel-Kedziorski、Rastegari、Hajishirzi：*DeFINE: Deep Factorized Input Token Embeddings for Neural Sequence
  Modeling*，ICLR 2020，[arXiv:1911.12385](https://arxiv.org/abs/1911.12385)。
- `keras_compress/factorization/albert.py` 和 `keras_compress/pruning/vocabulary.py`：两个文件都只有一百多行；开头的说明交代了
  我们在哪些地方和论文不同。
- 动手试试：`recover="distil"`（还向前辈模型的答案学习）、`num_groups=3`、`how="first"`、`scripts=["LATIN"]`，以及
  `define.compress` 配上 `adapter="hgt"`。运行之前先写下你的预测。
"""
