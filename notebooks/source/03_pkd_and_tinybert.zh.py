# %% [markdown]
r"""
# 第 3 课 · PKD 与 TinyBERT：深入教师内部

**学完这一课，你能够**：让小模型不但学大模型答了什么，还学它是怎样一步步得出答案的；决定学生的哪一层向教师的哪一层学；把
填充位置从损失里屏蔽掉，并且证明确实屏蔽干净了；不靠人工标注造出更多训练文本；再把这一切与没有教师的小模型放在一起，公正
地评价。

**预备知识**：Python 和 NumPy，Transformer 层的基本构造（注意力、前馈网络、残差、层归一化），softmax 与交叉熵。学过第
1、2 课会更轻松：这一课沿用第 1 课的数据、规模和大模型，所以几课的结果表可以并排对照；软标签则是第 2 课的内容。

**时间**：在双核笔记本 CPU 上计算约 20 分钟，加上练习（共 10 分）约一个半小时；初读可以略过第 4 节的文字，但其中的代码要
运行。**随机种子**：全课都是 0。如果启动 Jupyter 时设置了环境变量 `KERAS_COMPRESS_FAST=1`，全课不到一分钟就能空跑一遍，
但那时的数字没有意义。
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
from keras_compress.training import distill as distiller
from keras_compress.distillation import augmentation, pkd, tinybert
from keras_compress.measure import accuracy, baselines
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE, own_rows
from keras_compress.experiment.report import markdown_table
from keras_compress.pretraining.masked_lm import masked_lm
from keras_compress.pruning import layers as truncation
from keras_compress.training.loop import Training, finetune

# %% [markdown]
r"""
设置与第 1 课相同：所有模型的更新次数相同，批大小也相同；小模型的学习率更高一些，就是第 1 课在开发集上为
`plain-3` 选出来的那个值。训练时，超过 `max_length` 个词片（word piece）的部分会被截掉，程序会警告截了
多少条。
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
## 1. 老师：它知道的比说出口的多

任务和第 1 课一样：听懂一个人想让手机做什么。**教师模型**（teacher）是 MiniLM，一个只有六层的小型 BERT，在数据集
`assistant` 的 2,500 条文本上微调（fine-tuning）过；这个数据集是为本项目用语法规则生成的，这一课用它的英文部分。下面这
一格要跑一两分钟。
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
标签只说：是这个意图，别的都不是。教师说得更多：它给出的概率还透露了它觉得哪些别的意图也有可能，**学生模
型**（student）可以从中学到东西。这就是**知识蒸馏**（knowledge distillation；Hinton 等，2015）。小的概率平时看不见，
用**温度**（temperature）$T$ 可以把它们放大出来：$\mathrm{softmax}(z / T)$。第 2 课整课讲的就是这个，这里只取其要点。
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
名次没变，差距缩小了。可是说到底，每条文本也就这么一行数，而且是在终点才读到的；教师一路是怎么走过来的，仍然看不见。这一
课的两个方法都要把这一段打开来看：PKD 在选定的层各读一个向量，TinyBERT 读所有词片的向量，外加注意力。

## 2. PKD：耐心地跟着老师走

耐心知识蒸馏（Patient Knowledge Distillation，PKD；Sun 等，2019）针对的是层数更少、但**宽度相同**的学生。它的损失由三
部分组成：

$$L = (1 - \alpha)\, L_{CE} + \alpha\, L_{DS} + \beta\, L_{PT}.$$

$L_{CE}$ 是与标签的交叉熵。$L_{DS}$ 是与教师软化后的答案之间的距离，即 $\mathrm{softmax}(z^T / T)$ 与
$\mathrm{softmax}(z^S / T)$ 的 KL 散度，再乘以 $T^2$。上标表示归属：$z^T$ 是教师的 logit，$z^S$ 是学生的；作除数的 $T$
是温度。新的是第三部分，也就是所谓的*耐心*：学生不必等到最后一层才听教师的，而是跟着教师的 [CLS]（BERT 放在每条文本最前
面的特殊词片）一层一层往上走。

### 2.1 [CLS] 向量

为什么偏偏是 [CLS]？因为分类器只读这一个向量，模型对文本的全部了解最后都要汇集到这里。我们取开发集（dev）里的 32 条文
本，看看各层的 [CLS]。教师旁边再放一个学生，也就是 PKD 的起点：教师最底下的三层，还没有经过任何训练。
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
刚从词嵌入层出来时，所有文本的 [CLS] 都一样，因为它还没有见过别的词。最后一列说的是这个向量有多大一部分随文本而变。看看
哪些层的数值还很小：在那里，[CLS] 对所有文本说的话都差不多，跟着它学，学不到多少关于文本的东西。（MiniLM 原本是按所有词
片的平均来读的，没有谁逼着它的 [CLS] 早早地汇集信息。）PKD 选层的时候，请想起这一点。

长度也有关系。两个向量长度不同的时候，平方距离首先量到的是长度之差，向量长的层就会压过向量短的层。PKD 因此先把每个向量
缩放到长度 1，只比方向：

$$L_{PT} = \sum_{j=1}^{k-1} \left\| \frac{h^S_j}{\|h^S_j\|_2} - \frac{h^T_{I(j)}}{\|h^T_{I(j)}\|_2} \right\|_2^2.$$

每一项都在 0（方向相同）与 4（方向相反）之间。求和只到 $k - 1$：学生的最后一层留给答案去管。

### 练习 1（3 分）：亲手写出耐心损失

请按作者程序里的写法实现 $L_{PT}$：不是对层和维度求和，而是对文本、层和维度一起取**平均**。
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
np.testing.assert_allclose(patience(east, north), 2 / 4, err_msg="a right angle: |u - v|^2 = 2, over 4 dimensions")
np.testing.assert_allclose(patience(east, -east), 4 / 4, err_msg="opposite: |u - v|^2 = 4")
np.testing.assert_allclose(patience(east, 3 * east), 0.0, atol=1e-7, err_msg="the length does not count")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(0)
cls_t_, cls_s_ = (tf.constant(generator_.normal(size=(5, 3, 8)), tf.float32) for _ in range(2))
reference_ = pkd.patience_loss(tf.unstack(cls_t_, axis=1), tf.unstack(cls_s_, axis=1))
np.testing.assert_allclose(patience(cls_t_, cls_s_), reference_, rtol=1e-5)
scales_ = tf.constant(generator_.uniform(0.1, 9.0, size=(5, 3, 1)), tf.float32)
np.testing.assert_allclose(patience(scales_ * cls_t_, cls_s_), reference_, rtol=1e-5)
np.testing.assert_allclose(patience(cls_s_, cls_t_), reference_, rtol=1e-5)
assert np.ndim(patience(cls_t_, cls_s_)) == 0
### END HIDDEN TESTS

# %% [markdown]
r"""
### 2.2 谁向谁学：skip 与 last

$I(j)$ 表示学生的第 $j$ 层跟随教师的第几层，从 1 数起。设教师有 $N$ 层，学生有 $k$ 层，论文给出两种选
法：**skip**，$I(j) = jN/k$，每隔几层取一层；**last**，$I(j) = N - k + j$，取临近结尾的那几层。
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
for axes, strategy in zip(all_axes, pkd.MAPS):
    learned_from = pkd.patient_layers(config.num_layers, 3, strategy)
    draw_map(axes, f"{strategy}: I = {learned_from}", dict(enumerate(learned_from, start=1)), 3)

# %% [markdown]
r"""
左边是教师，右边是学生，浅色的层不参与。*skip* 让学生走完教师的整条路，*last* 则要求学生走完一层就到达全程的三分之二。论
文里教师 12 层、学生 6 层，这时 `patient_layers` 给出的是 $\{2, 4, 6, 8, 10\}$ 和 $\{7, 8, 9, 10, 11\}$。

### 2.3 求和还是平均：$\beta$ 到底是多大

论文写的是求和，作者的程序取的却是平均。用哪一种，$\beta$ 的含义就跟着变：作者脚本里的取值（10、100、500、1000）是配合
平均用的。我们对还没训练的学生把两种都算出来，旁边再放上损失的另外两部分。
"""

# %%
learned_from = pkd.patient_layers(config.num_layers, 3, "skip")
their_cls = [theirs["hidden_states"][layer][:, 0] for layer in learned_from]
our_cls = [ours["hidden_states"][layer][:, 0] for layer in (1, 2)]
mean, total = (float(pkd.patience_loss(their_cls, our_cls, reduction=how)) for how in ("mean", "sum"))
label = float(distiller.label_loss(np.array(data.dev.labels[:32]), ours["logits"]))
answers = float(distiller.soft_target_loss(theirs["logits"], ours["logits"], temperature=5.0))
parts = (("L_CE", label, 0.5), ("L_DS, T = 5", answers, 0.5), ("L_PT, mean", mean, 100.0), ("L_PT, sum", total, 100.0))
show(("part", "value", "factor", "adds to the loss"),
     [(name, f"{value:.5f}", factor, f"{factor * value:.3f}") for name, value, factor in parts])
print(f"sum / mean = {total / mean:.0f} = {len(learned_from)} layers x {config.hidden_size} dimensions")

# %% [markdown]
r"""
最后两行之比，正好是层数乘以宽度。如果 $\beta$ 取自一种写法，损失却用了另一种，就会错上这么多倍：要么耐心那一项根本听
不见，要么它把标签淹没掉。所以论文里的一个系数，离开了它的归约方式（求和还是平均）就毫无意义；用求和形式的人，要把
$\beta$ 除以层数与宽度之积。

### 2.4 开始蒸馏

现在用一次调用走完整个方法。学生的起点是教师最底下的三层（论文里的起点是**预训练**模型的那几层，即
`student="minilm"`），选 *skip*，取平均。
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
每条线是某一部分乘上系数、真正进入总和的数值，纵轴是对数刻度。请留意两件事：开始时哪一部分最大，结束时又是哪一部分？哪一
部分最先不再下降？一条不再下降的线，可能是学会了，可能是被别的部分压住了，也可能是这个学生学不来。（线的高低并不等于拉力
的大小，拉力要看梯度（gradient）。）

## 3. TinyBERT：内部的一切

TinyBERT（Jiao 等，2020）比的东西多得多，而且每个词片都要比：词嵌入层的输出、每个头的注意力分数、选定各层之后的隐状态
（hidden states），最后才是答案。而且学生可以比教师更*瘦*。

### 3.1 层映射

设教师有 $N$ 层，学生有 $M$ 层，$g(m)$ 表示学生的第 $m$ 层向教师的第几层学；$g(0) = 0$ 是词嵌入。论文比较了三种映
射：**uniform**，$g(m) = mN/M$；**top**，$g(m) = m + N - M$；**bottom**，$g(m) = m$。
"""

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(8.5, 2.8))
for axes, how in zip(all_axes, tinybert.MAPS):
    g = tinybert.map_layers(config.num_layers, 3, how)
    draw_map(axes, f"{how}: g = {g}", dict(enumerate(g)), 3)

# %% [markdown]
r"""
对每一种映射都问一句：它漏掉了什么？*top* 完全不告诉学生教师最前面几层做了什么，*bottom* 则不说最后几层；词嵌入在三种映
射里都要比较。TinyBERT 用的是 *uniform*，我们也用它。与 PKD 的 *skip* 对照一下：取的层是一样的，只是在这里，学生的最后一
层也有了学习的对象。

### 练习 2（3 分）：层映射

请写出 $g(1), \dots, g(M)$。只有 $M$ 能整除 $N$ 时才有均匀的映射；否则就用 `ValueError` 说出来，不要悄悄地取整了事。
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
assert my_layer_map(12, 4, "uniform") == [3, 6, 9, 12]
assert my_layer_map(12, 4, "top") == [9, 10, 11, 12]
assert my_layer_map(12, 4, "bottom") == [1, 2, 3, 4]
try:
    my_layer_map(12, 5, "uniform")
except ValueError:
    pass
else:
    raise AssertionError("12 layers on 5: there is no uniform map")
### BEGIN HIDDEN TESTS
for n_, m_ in ((6, 3), (6, 6), (12, 1), (24, 8)):
    for how_ in tinybert.MAPS:
        assert my_layer_map(n_, m_, how_) == tinybert.map_layers(n_, m_, how_)[1:], (n_, m_, how_)
assert my_layer_map(12, 5, "top") == [8, 9, 10, 11, 12] and my_layer_map(7, 2, "bottom") == [1, 2]
### END HIDDEN TESTS

# %% [markdown]
r"""
### 3.2 并排看注意力

模型把注意力放在哪里，是可以画出来的：每一行是一个词片（query），各列是它给所有词片（key）打的分数。TinyBERT 比较的是
softmax *之前*的分数 $A = QK^\top / \sqrt{d_k}$，而且一个头一个头地比，所以教师和学生的头数必须相同。下面是一个句子、一
个头；同一列的图共用一个颜色刻度，颜色越深分数越高。学生就是 `compress` 的起点：教师的第 $g(1), \dots, g(M)$ 层，还没训
练。所以上下两张图出自同样的权重；不同的只是这一层读到的东西，因为中间那些层已经拿掉了。
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
把每张图与它下面的那张对照着看。竖条纹说明大家都盯着那个词片；对角线说明词片看的是自己或邻居。还要注意，这个损失比实际
需要的更严格：给一整行分数都加上同一个数，分数变了，softmax 却不变。

### 3.3 各项损失，以及填充

记 $H$ 为隐状态，$E$ 为词嵌入层的输出，$h$ 为头数，$W$ 是一个后面还要细说的矩阵（论文里 $E$ 和 $H$ 各有一个；作者的程序
和我们一样，共用一个，带偏置）：

$$L_{embd} = \mathrm{MSE}(E^S W, E^T), \quad L_{hidn} = \mathrm{MSE}(H^S W, H^T), \quad
L_{attn} = \frac{1}{h} \sum_{i=1}^{h} \mathrm{MSE}(A_i^S, A_i^T),$$

$$L_{pred} = -\mathrm{softmax}(z^T / t) \cdot \log\mathrm{softmax}(z^S / t).$$

前三种是内部损失，$L_{attn}$ 和 $L_{hidn}$ 要对学生的各层求和，系数全是 1。陷阱就在这里：一批文本要用填充（padding）补到
同样的长度，而模型对填充位置也照样算出隐状态和分数。这些数没有任何含义，可是对所有位置取 MSE，就把它们也算了进去。我们把
同样的 32 条文本补到三种长度，看看某一层的各项损失怎么变。
"""

# %%
rows = []
for length in (inputs["input_mask"].shape[1], 48, 96):
    padded = {name: tf.constant(value) for name, value in teacher.pad(encodings, length).items()}
    mask, inside = padded["input_mask"], [look_inside(model, padded) for model in (teacher, spread)]
    share = float(tf.reduce_mean(tf.cast(mask, tf.float32)))
    scores = [found["attention_scores"][layer - 1] for found, layer in zip(inside, (g[1], 1))]
    states = [found["hidden_states"][layer] for found, layer in zip(inside, (g[1], 1))]
    losses = (tinybert.attention_loss(*scores, mask), tinybert.attention_loss(*scores, mask, "reference"),
              tf.reduce_mean(tf.square(scores[1] - scores[0])), tinybert.hidden_loss(*states, mask),
              tinybert.hidden_loss(*states, mask, "reference"))
    rows.append((length, f"{share:.0%}", *(f"{loss:.4f}" for loss in losses)))
show(("padded to", "real tokens", "attn, masked", "attn, authors' code", "attn, over all", "hidn, masked",
      "hidn, over all"), rows)

# %% [markdown]
r"""
每一行用的都是同样的文本，损失没有道理变化。带 *masked* 的两列确实不变。另外三列则随填充所占的比例而变，训练时损失的分量
也就跟着一批一批地变，而这种变化与文本毫无关系。作者的程序在两个模型里都把填充的*键*（key）的分数置为 0，但除数仍是全部
元素的个数，填充的*查询*（query）也没有去掉（分数图的列是键，行是查询）。我们把两者都去掉，再除以真实词片对的个数；想用
作者的写法，就设 `reduction="reference"`。

看一张表还算不上证明。更好的办法是：往填充位置里随便写什么，损失都不变。

### 练习 3（4 分）：带掩码的注意力损失

请写出一层的 $L_{attn}$：$(A^S - A^T)^2$ 对所有的头、对一批文本里所有**真实**词片对的平均。填充位置上不管写着什么，哪
怕是 NaN，都不得留下痕迹。
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
np.testing.assert_allclose(masked_attention(zeros, steps, tf.constant([[1, 1]])), 30 / 4)   # 1 + 4 + 9 + 16, 4 pairs
np.testing.assert_allclose(masked_attention(zeros, steps, tf.constant([[1, 0]])), 1.0)      # one real token, one pair
broken = tf.constant([[[[1.0, np.nan], [np.nan, np.nan]]]])
np.testing.assert_allclose(masked_attention(zeros, broken, tf.constant([[1, 0]])), 1.0, err_msg="padding left a trace")
### BEGIN HIDDEN TESTS
generator_ = np.random.default_rng(1)
scores_t_, scores_s_ = (tf.constant(generator_.normal(size=(3, 2, 6, 6)), tf.float32) for _ in range(2))
mask_ = tf.constant([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
wanted_ = tinybert.attention_loss(scores_t_, scores_s_, mask_)
np.testing.assert_allclose(masked_attention(scores_t_, scores_s_, mask_), wanted_, rtol=1e-5)
np.testing.assert_allclose(masked_attention(scores_s_, scores_t_, mask_), wanted_, rtol=1e-5)
further_ = [tf.pad(scores, [[0, 0], [0, 0], [0, 2], [0, 2]], constant_values=99.0 * k) for k, scores in
            enumerate((scores_t_, scores_s_))]
np.testing.assert_allclose(masked_attention(*further_, tf.pad(mask_, [[0, 0], [0, 2]])), wanted_, rtol=1e-5)
### END HIDDEN TESTS

# %% [markdown]
r"""
### 3.4 更瘦的学生

只要头数相同，瘦模型和宽模型的注意力图形状就一样：（头，词片，词片）。隐状态就不同了，所以学生的隐状态要先经过一个**投
影**（projection），也就是矩阵 $W$；它和学生一起训练，训练完就扔掉。下面这个学生宽度减半，权重还是随机的。
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
宽度减半，词表矩阵也跟着减半，这是减少层数做不到的：瘦学生的好处就在这里。代价是：瘦学生没法从教师身上切下来，只能从随机权
重起步。所以在接触任务之前，论文先让它经历一个**通用**阶段：用维基百科的文本，跟预训练的教师学。给 `compress` 无标签数
据，它做的就是这件事，只是要很多文本、很多时间。这一课里学生保持原来的宽度，投影从单位矩阵起步。

### 3.5 两个小阶段

在任务数据上，TinyBERT 分两步学。第一步叫 *inside*，学内部：词嵌入、注意力、隐状态，不学答案。第二步叫 *answers*，只有
$L_{pred}$。注意少了什么：两步里都没有出现标签。更新次数怎样分给这两步，由 `compress` 的参数 `inside_share` 决定。宽度
与教师相同的学生，从教师的第 $g(1), \dots, g(M)$ 层起步，和 3.2 节一样。
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
draw_parts(all_axes[0], curve, {name: (f"$L_{{{name}}}$", 1) for name in tinybert.PARTS})
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
有三处值得看。第一，各项内部损失降了多少，哪一项几乎没动：学生开着 dropout，教师关着，所以哪怕两个模型一模一样，也没有哪
项损失会是 0。第二，虚线左边的开发集准确率：这时的分类器还是教师自己的，第一步的任何损失都碰不到它，所以这段曲线说的是教
师的分类器能把学生的隐状态读懂几分。分类器直接读这些状态，而 $L_{hidn}$ 比较的是经过 $W$ 之后的：投影学会纠正的部分，分
类器看不到。第三，$L_{pred}$ 是交叉熵，它的最小值不是 0，而是教师的熵，也就是那条水平的虚线（在 500 条训练文本上测得，不
开 dropout）。

### 3.6 再看注意力

还是那个句子，还是那个头。第二步已经不再要求注意力相像，所以你看到的，是经过第二步之后还留下来的。
"""

# %%
draw_maps({"teacher": maps(teacher, g[1:]), "student before": maps(spread, (1, 2, 3)),
           "student after": maps(tiny3, (1, 2, 3))})

# %% [markdown]
r"""
哪几列里，最下面的图向最上面的图靠近了？换一个头试试（`head=3`）：一个句子、一个头，只能算个例。32 条文本、所有的头的
数字，见 5.2 节。

### 3.7 请老师帮忙要花多少

每次更新，教师也要跟着跑一遍。其实不必：同一条文本，它在每一轮说的话都一样。设了 `Training(cache_teacher=True)`，教师在
每个阶段对每条文本只跑一次，以后从硬盘读它的输出就行。那么要存下多少东西呢？
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
注意力随长度的*平方*增长，隐状态随长度增长，PKD 的向量则与长度无关。文本一长、教师一大，用得起哪个方法就由这个决定了。

## 4. 更多的文本：数据增强

教师能回答任何文本，不只是训练集里的那些。于是 TinyBERT 用**数据增强**（data augmentation）来造更多的文本：由一个掩码
语言模型（masked-LM model）为文本中的词提出替换词，再造出若干副本，副本里的每个词以概率 $p_t = 0.4$ 换成它的某个候选
词。论文为每个词取 $K = 15$ 个候选词，为每条文本造 $N_a = 20$ 个副本。

### 4.1 一个会填空的模型

MiniLM 发布的时候不带“给被遮住的位置上所有词打分”的那个输出头，我们得自己训练一个。便宜的做法是只训练这个头
（`train="head"`），编码器保持原样；所用的文本是本机已安装程序库的文档里的句子，每台机器上都有。然后从它停下的地方接着
来，用任务自己的训练文本（不用标签）训练第二个模型，这回所有的权重都动。
"""

# %%
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
两个百分数是在不同的文本上测的，所以别拿来相减。还是看词更说明问题。

### 4.2 候选词

词如果只有一个词片，就把它遮住，让模型看剩下的文本来猜；词如果由几个词片组成，就改取它在词向量表里的近邻（论文用的是
GloVe 词向量）。停用词和不全是字母的词保持原样。
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
先竖着看一列，再横着看一行。如果一列里处处都是差不多的那几个词，说明这个模型只学到了词的频率，并没有读懂空位的上下文。如
果候选词放得进空位，却像是从另一个世界来的，说明它文档读得太多了。给数据增强当帮手的模型，必须懂得任务的语言。（作者用的
是完整的 BERT，自带预训练好的输出头；我们这个是笔记本电脑也造得出来的代用品。）再看看表里缺了什么：没有 *don't*，因为带
撇号的词从不改动，所以副本不会丢掉否定；也没有停用词，而停用词表里有 *off*、*before*，奇怪的是还有 *call*。下面用第二个
模型继续。

### 4.3 增强之后：数量与含义

副本越多，文本越多，但重复的会去掉。还有：副本的意思还和原文一样吗？候选词只求放得进空位，而原来是 *start* 的地方，放
*stop* 也通顺。我们来问教师：有多少副本，它给出的答案和给原文的一样？
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
最后一列不到 100 % 的地方，照抄原文的标签就靠不住了。对 TinyBERT 来说，这本身不碍事：它的损失问的是*教师*怎样看这个副
本，而不是原文的标签。对普通的微调，这就碍事了。所以下面的比较两样都有：用副本训练的 TinyBERT，以及用同样的副本、照抄
标签来学的学生。

每条文本至多造三个副本；更新次数保持不变，所以每条文本被看到的次数少了。（给 `tinybert.compress` 传入 `copies` 和
`mlm`，做的是同一件事。）
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
## 5. 值不值？公平的基线

### 5.1 结果表

所有小模型大小相同，更新次数和学习率也相同。除了三个蒸馏出来的，还有四个只见过标签的：

- `plain-3`：取**预训练**模型最底下三层，照常微调；
- `truncated-3`：取**微调好的**教师最底下三层，继续微调。`pkd-3` 的起点就是这些权重，一个数都不差，所以两者之差只来自
  方法；
- `spread-3`：取教师的第 $g(1), g(2), g(3)$ 层，继续微调。`tinybert-3` 的起点就是这些权重；
- `spread-3, copies`：同上，但用增强后的文本。

上面有教师，下面有两个不用 BERT 的基线（baseline）：TF-IDF 加线性模型，以及永远回答出现最多的那一类。
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
怎样读这张表？**SE** 是对样本而言的标准误（standard error）：换一批测试文本，结果会变动多少。最后两列是**配
对**（paired）比较：两个模型回答同样的文本，只有答得不一样的文本才算数。区间包含 0，并不是说两个模型一样好，而是说这次
测试分不出高下。

先看起点相同的那一行：PKD 看 `truncated-3`，TinyBERT 看 `spread-3`。这两个模型训练时不用大模型在旁边陪跑，也不用新的损
失。哪个方法与自己那一行比较的区间包含 0，就说明那个方法在这里没能证明自己值得费这番功夫；如果整个区间都在 0 以下，那么
在这些文本上、以这个种子，它帮了倒忙。再把 *dev* 和 *test* 对照着看：两边的句式和用词不同，给模型排出的名次也不一定相
同。
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
### 5.2 它们学会模仿了吗？

准确率问的是标签，损失要求的却是另一回事。我们就在开发集的那 32 条文本上量一量这另一回事：像 PKD 那样量 [CLS] 的
$L_{PT}$，像 TinyBERT 那样量每层的 $L_{attn}$。最后一列是在多少测试文本上，模型的答案与教师相同，不管对错。头两行是两
种起点，还没有训练。
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
看看各个方法*没有*被要求做的事：PKD 从没见过注意力图；TinyBERT 只把 [CLS] 当作许多词片中的一个，而且是隔着投影看的，这里
投影已经去掉；`truncated-3` 和 `spread-3` 两样都没见过。再与上面的结果表对照：内部模仿得更像的模型，答得未必更好。内部只
是手段；手段可以成功，目的却落空。

## 6. 如实解读结果

学完这一课，我们可以说什么？让数字自己来写句子。
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
那么，什么话**不能**说呢？

- **一个种子只是上了一轮课。** 这些区间对别的种子一无所知；小模型在不同种子之间的差别，常常和方法之间的差别一样大；
  `python -m keras_compress run distillation-study` 会跑更多种子，并用上公开数据集；在那里，副本带来的提升就看不出来了
  （见 README）。再说，十一个 95 % 的
  比较里，完全可能有一个只是碰巧显得有差别。
- **这不是论文里的条件。** 论文的教师有 12 层；PKD 的学生从预训练的层起步，TinyBERT 的瘦学生从通用阶段起步。我们的学生是
  从教师身上切下来的，一开始就懂得很多，留给方法去添的也许就不多了。还有那些系数
  （$\alpha$、$\beta$、$T$、`inside_share`），用的都是程序包的默认值；PKD 的作者则是在开发集上从一组取值里挑选的。
- **PKD 对 TinyBERT，比的不只是方法**：两者起步用的层不同。只有起点相同的比较，才说得上是在比方法。
- **所有小模型用同一个学习率**，简单，却不算彻底公平：几项损失之和，与单独一个交叉熵，数值的尺度不同，想要的学习率也可
  能不同。
- **`assistant` 是人工构造的数据。** 它能说明这条路走得通，也能说明小模型爱犯哪类错误；关于方法优劣的结论，要靠公开数据
  集。
- **更新次数相同，不等于代价相同。** 蒸馏时，每次更新大模型都要在旁边跟着跑（硬盘够大的话，每条文本只跑一次）；数据增
  强还要用到第三个模型。省下来的是推理（inference）的开销。

## 7. 接着读什么

- Sun、Cheng、Gan、Liu：*Patient Knowledge Distillation for BERT Model Compression*，EMNLP
  2019，[arXiv:1908.09355](https://arxiv.org/abs/1908.09355)；`keras_compress/distillation/pkd.py`。
- Jiao、Yin、Shang、Jiang、Chen、Li、Wang、Liu：*TinyBERT: Distilling BERT for Natural Language
  Understanding*，Findings of EMNLP
  2020，[arXiv:1909.10351](https://arxiv.org/abs/1909.10351)；`keras_compress/distillation/tinybert.py` 和
  `augmentation.py`。
- `keras_compress/distillation/distiller.py`：两个方法共用的引擎。哪个方法需要哪些输出？教师得不到梯度，这一点是在哪里
  保证的？
- 动手试试：PKD 的 `layer_map="last"`；`beta=0.0`，那就成了普通的蒸馏；TinyBERT 的
  `layer_map="top"`、`losses=("attn",)`、`inside_share=0.0`，或者让 3.4 节的瘦学生训练久得多。运行之前先写下你的预测。
- 用你自己的数据：`python -m keras_compress run --data FOLDER`，文件夹的格式见 `data/README.md`。
"""
