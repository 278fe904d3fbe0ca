# %% [markdown]
r"""
# 第 2 课 · 软标签与 DistilBERT：从教师的犹豫里学

**学完这一课，你能够**：读出一个模型在答案之外还知道些什么；说清楚温度对一个预测、对一个梯度各有什么影响；写出
DistilBERT 的三个损失，并为它的学生准备好起点；把一个微调好的 BERT 蒸馏成更小的 BERT，或者另一种结构的模型；最后判断请
这位老师值不值。

**预备知识**：第 1 课，或同等的基础：Python 和 NumPy，Transformer 层，softmax 与交叉熵，知道什么是微调。

**时间**：在双核笔记本 CPU 上计算约 12 分钟，加上练习（共 10 分）约一小时。**随机种子**：全课都是 0。如果启动 Jupyter
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
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation import distilbert
from keras_compress.training.distill import cosine_loss, label_loss, soft_target_loss
from keras_compress.measure import accuracy, baselines, cost
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE, own_rows
from keras_compress.experiment.report import markdown_table
from keras_compress.pruning import layers as truncation
from keras_compress.training.loop import Training, finetune

# %% [markdown]
r"""
全课的设置都放在这里，和第 1 课相同：同样的文本，同样多的更新次数，大模型和小模型各用同样的学习率。这样，两课的数字可以
放在一起看。第 6 节的两个 BiLSTM 另用自己的学习率：`distillation-study` 在开发集（dev）上各试了两个值（全部训练文本，种
子 0），这里取较好的那个。只用标签时是 2e-2（69.7 %，1e-2 为 68.1 %），有教师时是 1e-2（69.1 %，2e-2 为 66.4 %）。
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
## 1. 老师

知识蒸馏（knowledge distillation）是让一个训练好的大模型，即**教师**（teacher），帮忙训练一个小模型，即**学
生**（student）。我们的教师就是第 1 课里的前辈模型：六层的 MiniLM，已经在手机命令上微调好。下面这一格要跑一两分钟。
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
标签对一条文本只说一件事：哪个意图是对的。教师却说了二十件：还包括这条文本**差一点**是什么，以及完全不可能是什么。看看
表里的第二选择，教师的犹豫有没有道理？

## 2. 软标签

### 2.1 温度

犹豫太小，学生很难学到。Hinton 等人（2015，第 2 节）的办法是把它放大：做 softmax 之前，先把 logit $z_i$ 除以**温
度**（temperature）$T$，

$$p_i = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)}.$$

$T = 1$ 时就是平常的预测。$T$ 越大，分布越平缓，而各类的名次不变。这样得到的概率叫做**软标签**（soft targets，也叫软目
标），与之相对的是数据里的硬标签。下图是教师对最后一条文本的预测，只画最可能的八个意图。
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
从哪个温度起，才看得见第一名以外的选择？又从哪个温度起，第一名几乎不再突出？DistilBERT 取 $T = 2$。

一条文本只能算个例。下表看许多条：第一选择的概率，以及熵（entropy），即平均信息量，以奈特（nat）为单位；一边是教师训练时
见过的文本，一边是它没见过的开发集文本。
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
对照“train”和“dev”两列。如果教师对自己训练过的文本更有把握，那么它在这些文本上能传下去的犹豫就更少，而学生听讲时用的偏偏
就是这些文本。这也是有人在额外的文本上做蒸馏的一个理由。

### 2.2 散度还是交叉熵？

从这里起沿用 Hinton 论文的记号：$v_i$ 是教师的 logit，$z_i$ 是学生的；软化之后分别得到 $p_i$ 和 $q_i$。软标签的损失是同
一温度下的 **KL 散度**（Kullback-Leibler divergence）再乘以 $T^2$：

$$L_{\mathrm{soft}} = T^2 \sum_i p_i \ln \frac{p_i}{q_i}
= T^2 \Big( \underbrace{- \sum_i p_i \ln q_i}_{\text{交叉熵}}
- \underbrace{\big( - \sum_i p_i \ln p_i \big)}_{\text{教师的熵}} \Big).$$

DistilBERT 的论文写的是交叉熵（而且漏印了负号），作者的程序算的却是 KL 散度。这有关系吗？我们让分类头还没训练过的 MiniLM
回答同样的文本，两种都算出来。
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
    (kl, by_kl), (ce, by_ce) = (value_and_gradient(lambda z: soft_target_loss(z_teacher, z, temperature, kind))
                                for kind in ("kl", "ce"))
    p = tf.nn.softmax(seen / temperature).numpy()
    entropy = -(p * np.log(p)).sum(-1).mean()
    rows.append((temperature, f"{ce:.3f}", f"{kl:.3f}", f"{ce - kl:.3f}", f"{temperature**2 * entropy:.3f}",
                 f"{np.abs(by_kl - by_ce).max():.0e}", f"{np.abs(by_kl).max():.2f}"))
show(("T", "cross-entropy", "KL", "their difference", "T² × teacher's entropy", "largest difference of gradients",
      "largest gradient"), rows)

# %% [markdown]
r"""
两个值相差的正是教师的熵，而学生左右不了教师的熵；所以除去舍入误差，两者的梯度相同。不过要拿来**看**，还是 KL 散度好：
无论温度多高，它恰好在学生与教师一致时等于 0。

### 2.3 为什么乘 T²？

写出对学生某个 logit 的梯度就明白了：

$$\frac{\partial\, \mathrm{KL}}{\partial z_i} = \frac{1}{T} (q_i - p_i).$$

明面上有一个 $1/T$，另一个藏在 $q_i - p_i$ 里：两个预测越软，彼此就越接近。所以 KL 散度的梯度（gradient）按 $1/T^2$ 缩
小，而标签损失的梯度与 $T$ 毫无关系。如果混合时不乘这个因子，温度一调高，软标签就没有声音了。
"""

# %%
temperatures = np.geomspace(0.5, 100, 16)
by_soft = [size(value_and_gradient(lambda z: soft_target_loss(z_teacher, z, t))[1]) for t in temperatures]
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
比较虚线和标签损失那条线：$T = 1$ 时怎样，$T = 20$ 时又怎样？有了这个因子，软标签才保得住自己的音量。

**Hinton 极限**（他们论文的 2.1 节）：当 $T$ 很大时，取 $\exp(x) \approx 1 + x$。设有 $N$ 个类，并把两个模型的 logit 各
自平移到均值为 0，就得到

$$T^2\, \frac{\partial\, \mathrm{KL}}{\partial z_i} \;\longrightarrow\; \frac{z_i - v_i}{N}.$$

这不正是 logit 之差的平方的梯度吗？温度很高的 softmax 要求学生照抄教师的所有 logit，连那些极负、满是噪声的也要抄；温度低
一些，绝无可能的类就可以不管。那么，多高才算高？
"""

# %%
rows = []
for temperature in (1.0, 10.0, 100.0, 1000.0):
    _, gradient = value_and_gradient(lambda z: soft_target_loss(z_teacher, z, temperature))
    rows.append((f"{temperature:.0f}", f"{np.linalg.norm(gradient - limit) / np.linalg.norm(limit):.4f}"))
show(("T", "distance of the gradient from the limit, relative"), rows)

# %% [markdown]
r"""
### 练习 1（3 分）：亲手写软标签损失

请用 NumPy 写出 2.2 节的损失。小心一个陷阱：$\exp(1000)$ 是无穷大。从一条文本的所有 logit 中减去同一个数，softmax 不
变；减去哪个数才安全？
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
ours, theirs = np.log([[0.75, 0.25]]), np.log([[0.5, 0.5]])
np.testing.assert_allclose(soft_loss(ours, theirs, 1.0), 0.1308, atol=1e-4)     # .75 ln 1.5 + .25 ln .5
np.testing.assert_allclose(soft_loss(ours, theirs, 2.0), 0.1454, atol=1e-4)     # 4 (.634 ln 1.268 + .366 ln .732)
np.testing.assert_allclose(soft_loss(ours, ours + 5.0, 3.0), 0.0, atol=1e-9)    # a constant changes no softmax
far = np.array([[1000.0, 0.0], [0.0, 0.0]])                                     # exp(1000) is infinite
np.testing.assert_allclose(soft_loss(far, far[:, ::-1], 1.0), 500.0, err_msg="the mean of 1,000 and 0")
### BEGIN HIDDEN TESTS
generator = np.random.default_rng(0)
a_, b_ = generator.normal(scale=3.0, size=(2, 7, 20))
for t_ in (0.5, 1.0, 4.0, 20.0):
    expected_ = float(soft_target_loss(tf.constant(a_), tf.constant(b_), t_))
    np.testing.assert_allclose(soft_loss(a_, b_, t_), expected_, rtol=1e-6)
    np.testing.assert_allclose(soft_loss(np.vstack([a_, a_]), np.vstack([b_, a_]), t_), expected_ / 2, rtol=1e-6)
with np.errstate(all="raise", under="ignore"):
    large_ = soft_loss(np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]]), 1.0)
np.testing.assert_allclose(large_, 1000.0)
apart_ = np.array([[1000.0, 0.0], [0.0, 1.0]])                                  # each text has its own maximum
np.testing.assert_allclose(soft_loss(apart_, apart_[:, ::-1], 1.0), (1000 + np.tanh(0.5)) / 2, rtol=1e-9)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 3. 三个损失

DistilBERT（Sanh 等，2019，第 2 节）把三个损失加起来：

| 损失 | 比较什么 | 意思是 |
|---|---|---|
| $L_{\mathrm{soft}}$ | 教师和学生的 logit | 照老师那样回答，连犹豫也学 |
| $L_{\mathrm{label}}$ | 学生的 logit 和真实标签 | 还要答对 |
| $L_{\mathrm{cos}}$ | 两者最后一层的隐状态（hidden states） | 内部的向量也要朝老师的方向 |

第一个已经认识了。第二个是学生自己那个任务的交叉熵：预训练时是被遮住的词（第 9 节），像这里这样学具体任务时就是标签。第
三个对所有不是填充的词片（token）取平均：

$$L_{\mathrm{cos}} = \mathrm{mean}\,\big(1 - \cos(h_{\mathrm{student}}, h_{\mathrm{teacher}})\big).$$

它只比方向，向量有多长无所谓。为此，学生和教师的隐状态必须一样宽：DistilBERT 的学生和教师同宽，只是深度减半。

三个损失各乘多少？作者的程序取 $L = 5 L_{\mathrm{soft}} + 2 L_{\mathrm{label}} + 1 L_{\mathrm{cos}}$ 和 $T = 2$，一位作
者也确认过（huggingface/transformers 的 issue 2013）；他们 README 的一个示例里三个系数相等，那只是那个示例的设置。这些
也是我们程序包的默认值：`soft_weight`、`label_weight`、`cosine_weight` 和 `temperature`。

### 练习 2（4 分）：只比方向，不算填充

请用 NumPy 写出 $L_{\mathrm{cos}}$。短文本要填充（padding）到同一批里最长的长度。模型在填充位置上算出来的东西只是噪声，
所以一概不算数：求和时不算，做除数的个数里不算，哪怕那里是 NaN 也不受影响。
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
np.testing.assert_allclose(direction_loss(ours, theirs, np.array([[1, 1, 1]])), 1.0)
np.testing.assert_allclose(direction_loss(ours, theirs, np.array([[1, 1, 0]])), 0.5)
broken = np.where(np.array([1, 1, 0])[None, :, None] == 1, theirs, np.nan)
np.testing.assert_allclose(direction_loss(ours, broken, np.array([[1, 1, 0]])), 0.5, err_msg="padding left a trace")
np.testing.assert_allclose(direction_loss(ours, 7.0 * ours, np.array([[1, 1, 1]])), 0.0, atol=1e-9)
### BEGIN HIDDEN TESTS
generator = np.random.default_rng(1)
h_t_, h_s_ = generator.normal(size=(2, 4, 6, 5))
real_ = (np.arange(6) < np.array([[6], [1], [4], [2]])).astype(int)             # texts of unequal length
expected_ = float(cosine_loss(tf.constant(h_t_), tf.constant(h_s_), tf.constant(real_)))
np.testing.assert_allclose(direction_loss(h_t_, h_s_, real_), expected_, rtol=1e-6)
noise_t_, noise_s_ = (np.where(real_[..., None] == 1, h, np.nan) for h in (h_t_, h_s_))
np.testing.assert_allclose(direction_loss(noise_t_, noise_s_, real_), expected_, rtol=1e-6)
longer_ = [np.pad(x, ((0, 0), (0, 3)) + ((0, 0),) * (x.ndim - 2), constant_values=9 * (x.ndim > 2)) for x in
           (h_t_, h_s_, real_)]
np.testing.assert_allclose(direction_loss(*longer_), expected_, rtol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. 学生从哪里起步

### 4.1 取哪些层

学生可以从随机数开始。DistilBERT 的学生则从教师开始：词嵌入和输出头照搬，层取其中几个。论文说“每两层取一层”，作者的脚本
却取十二层中的第 0、2、4、7、9、11 层。`select_layers` 认得这条规则，也认得别的规则。
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
在这几种取法里，只有 `distilbert` 那一行首尾都留：第一层熟悉词嵌入，最后一层熟悉输出头。中间的间隔，在整数允许的范围内
尽量均匀。

### 练习 3（3 分）：首尾都留

请对任意两个数写出这条规则。恰好一半时向上取整；当心，Python 的 `round` 会把 2.5 变成 2。还有，如果只留一层呢？
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
assert list(spread(12, 6)) == [0, 2, 4, 7, 9, 11], "the authors' six of twelve"
assert list(spread(6, 3)) == [0, 3, 5], "2.5 is rounded up"
assert list(spread(4, 4)) == [0, 1, 2, 3], "all stay"
### BEGIN HIDDEN TESTS
for layers_ in range(1, 25):
    for keep_ in range(1, layers_ + 1):
        assert list(spread(layers_, keep_)) == select_layers(layers_, keep_, "distilbert"), (layers_, keep_)
### END HIDDEN TESTS

# %% [markdown]
r"""
### 4.2 去掉片段类型

BERT 给每个词片加三个向量：词的、位置的，还有**片段类型**（token type）的，后者用来区分一对文本里的第一条和第二
条。DistilBERT 去掉了片段类型，也去掉了池化层（pooler），也就是 [CLS]（每条文本最前面的特殊词片）与分类器之间的那个全连
接层。（我们的教师没有池化层，分类器直接读 [CLS]。）可是对单条文本，BERT 会给**每一个**词片都加上类型 0 的向量。如果把这
张表一扔了之，学生从第一步起就少了一点东西。

有一个精确的办法：这个向量在每个位置上都一样，所以可以并进位置表里，`without_token_types` 就是这样做的。我们逐层比较隐
状态：一次把这个向量挪过去，一次把它丢掉。这里六层全都留着，所以只要没有丢东西，什么都不应该变。
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
前两列只是舍入误差。最后一列是：如果像作者的程序那样丢掉这个向量，学生就得重新学回来多少。这会不会改变答案，自己数一
数：
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
## 5. 蒸馏

开跑之前，先看看学生带着什么起步。下面是尚未训练的学生（教师的第 0、3、5 层）在开发集的一批文本上的三个损失，以及各自的
系数。
"""

# %%
first = next(iter(data.batches("dev", teacher.tokenizer, 128, training.max_length)))


def three_losses(model, batch=first, temperature=2.0):
    """The losses of DistilBERT, by name, of a student on one batch; its texts are read as when predicting."""
    inputs, labels = batch
    theirs, ours = (m.features(["hidden_states", "logits"])(inputs) for m in (teacher, model))
    return {"soft": float(soft_target_loss(theirs["logits"], ours["logits"], temperature)),
            "label": float(label_loss(labels, ours["logits"])),
            "cosine": float(cosine_loss(theirs["hidden_states"][-1], ours["hidden_states"][-1], inputs["input_mask"]))}


factors = {"soft": 5.0, "label": 2.0, "cosine": 1.0}
start = three_losses(distilbert.without_token_types(teacher.keep_layers(select_layers(6, 3, "distilbert"))))
show(("loss", "value", "factor", "product"),
     [(name, f"{start[name]:.3f}", factor, f"{factor * start[name]:.2f}") for name, factor in factors.items()])

# %% [markdown]
r"""
现在用一次调用走完整个方法。教师运行时不用 dropout（随机失活），也得不到梯度；被更新的只有学生。
"""

# %%
student = distilbert.compress(teacher, data, seed=SEED, training=small_training, num_layers=3)
settings = next(step for step in student.history if step["method"] == "distilbert")
print({key: settings[key] for key in ("layers", "temperature", "weights")})
end = three_losses(student)
show(("loss", "at the start", "distilled"), [(name, f"{start[name]:.3f}", f"{end[name]:.3f}") for name in factors])

# %% [markdown]
r"""
途中又怎样呢？上图是训练损失的三个部分，各自乘了系数，加起来就是被最小化的量；中图是每个部分与自己最初的值之比；下图是
开发集准确率。
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
有三件事值得看。哪个部分起初最大，最后又是哪个？数值大的不一定力气大：推动权重的是它的梯度。哪个部分降得最少？如果是余
弦：夹角不必在每个词片上都降到 0，因为分类器只读 [CLS]。还有，当损失已经变平的时候，开发集准确率还在升吗？

## 6. 另一种学生

软标签只需要 logit，所以学生可以是任何结构。Tang 等人（2019）用的是 **BiLSTM**（双向 LSTM）：两个循环网络，分别从头和从
尾读文本；他们的损失是 logit 之差的平方，也就是 2.3 节里的 Hinton 极限。我们仍用软标签。BiLSTM 没有注意力，没有位置，也
没有可以与 BERT 相比的隐状态，所以不用余弦损失。我们的 BiLSTM 从 MiniLM 的词向量起步，其余部分都是新的。

从同一个起点训练两次：一次只用标签，一次有教师帮忙。
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
## 7. 值不值？公平的基线

要评价一个小模型，得给它找几个对手。几个小 BERT 大小相同（只差片段类型那张小表），更新次数、每一批的内容和学习率也都相
同：

- `distilbert-3`：这一课的模型；
- `labels-3`：起点相同（第 0、3、5 层，没有片段类型），但只用标签训练。它与上一个之差，就是有老师参与的那两项损失
  连同它们的系数带来的；
- `truncated-3`：教师最底下三层，用标签训练，和第 1 课一样；
- `plain-3`：**预训练**模型最底下三层，用标签训练。

旁边是第 6 节的两个 BiLSTM，上面有教师，下面有两个不用 BERT 的基线（baseline）：TF-IDF 加线性模型，以及永远回答出现最多
的那一类。
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
怎样读这张表？**SE** 是对样本而言的标准误：换一批测试文本，结果会变动多少。最后一列是**配对**（paired）比较：两个模型回
答同样的文本，只有答得不一样的文本才算数。区间包含 0，并不是说两个模型一样好，而是说这次测试分不出高下。开发集参与过挑
选设置，开发集和测试集的句式与用词又各不相同；两边意见不一的地方，不要过度解读。

先看 `labels-3`：只有这一行说的是软标签和余弦损失。`truncated-3` 那一行混着两件事，老师的声音和层的取法；拿 `labels-3`
与它相比，才单独看得到后一件。
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
学生变得**像**老师了吗？准确率回答不了。我们数一数：在测试集上，一个模型有多少次给出与教师相同的答案；在教师答**错**的
地方，又有多少次。没听过任何老师的模型，也会和教师犯一些同样的错：有的文本把两者都引错了路，有的模型和教师出自同样的权
重。
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
看最后一列，拿 `distilbert-3` 与 `labels-3` 比，拿 `bilstm-distilled` 与 `bilstm` 比。如果蒸馏出来的那一个比例更高，这提
示它在学犹豫的同时也接过了错误；不过要留意，最后一列依据的文本并不多。

## 8. 代价是多少

一个方法要付两次代价：训练时一次，推理（inference）时每来一条文本又一次。这里数的是运算次数，不是计时，所以在哪台机器上
都一样。用一条文本做一次更新，按经验估算：学生前向一遍得到答案，求梯度相当于再算两遍；如果有教师，再加教师的一遍前向。
"""

# %%
folder, length, rows = tempfile.mkdtemp(), training.max_length, []
flops = {name: cost.flops(model.config, length, len(data.labels)) / 1e6 for name, model in models.items()}
for name, model in models.items():
    model.save(f"{folder}/{name}")
    guided = name in ("distilbert-3", "bilstm-distilled")
    rows.append((name, f"{model.model.count_params():,}", f"{cost.encoder_parameters(model.config):,}",
                 f"{cost.file_bytes(f'{folder}/{name}/model.safetensors') / 1e6:.1f}", f"{flops[name]:,.0f}",
                 f"{3 * flops[name] + guided * flops['teacher']:,.0f}"))
show(("model", "parameters", "of these in layers", "MB", f"Mflops to answer {length} pieces", "Mflops to train"), rows)

# %% [markdown]
r"""
一列一列地看。文件里最重的是词表矩阵，而 DistilBERT 的做法碰都没碰它：词表照旧，宽度照旧。回答时，层数减半，计算量约减
半。训练时还要加上教师的前向计算；它在每一轮里都一样，所以 `Training(cache_teacher=True)` 让教师对每条文本只算一遍，把答
案存起来。BiLSTM 的运算次数最少，但它必须一个词片接一个词片地读，这一点数运算次数是看不出来的。（怎样测量手机文件的耗
时，见第 1 课。）

同样的公式能算出一个发表过的大小。对 BERT-base，以及论文由它得到的学生：
"""

# %%
from keras_compress.bert.config import BertConfig

base = cost.parameters(BertConfig())
distil = cost.parameters(BertConfig(num_layers=6, type_vocab_size=0, pooling="cls"))
print(f"BERT-base: {base:,} parameters; DistilBERT: {distil:,} ({distil / base - 1:+.0%})")

# %% [markdown]
r"""
作者的 README 写的是 6,600 万（66M）个参数，比 BERT-base 少 40 %，就是上面的数取整。

## 9. 通用阶段

到此为止，我们都是**在一个任务上**蒸馏。DistilBERT 本身却是另一回事：一个**通用**（general）的学生，只在没有标签的普通
文本上蒸馏一次，以后谁都可以拿它去微调任何任务。三个损失照旧，任务换成 BERT 自己的任务：**掩码语言模型**（masked
language model，MLM）。

### 9.1 遮住的词

从所有词片中抽出 15 %。其中 80 % 换成 [MASK]，10 % 换成随机的词片，10 % 保持原样；模型要说出原来是什么（Devlin
等，2019，3.1 节）。每一轮都重新抽签。粗体就是要模型回答的地方。
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
为什么不全换成 [MASK]？因为微调之后的模型再也见不到这个词片；而且，如果模型知道只有 [MASK] 才会被提问，就没有理由去理解
别的词片。比例对不对？我们抽许多次，用标准误来衡量。如果不用 `each_piece`，而用数据集给出的 `words`，就是把一个词的所有
词片一起抽，比例不变。
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
（整词抽取的标准误略微偏小，因为同一个词的几个词片不是独立抽取的。）

### 9.2 整个词表上的三个损失

这时 logit 在词表的每个词片上各有一个，而且每个位置都有一次预测。所以软标签不再是每条文本二十个数，而是每个位置三万来
个：信息丰富得多，计算量也主要花在这里。作者对所有位置都用软标签；`tokens="masked"` 只取被遮住的位置，速度是前者的好几
倍。

教师需要一个会填词的输出头。MiniLM 没有带，所以我们用 `masked_lm` 在原封不动的编码器上训练一个新的头，然后再蒸馏。这只
是演示各个部件怎样配合：不用标签，在我们这点文本上过一轮。真正的通用阶段要用大语料；论文用的是英文维基百科和
BookCorpus，在八块 V100 上跑了约 90 小时。
"""

# %%
from keras_compress.pretraining.masked_lm import masked_lm

prose = datasets.Dataset("commands", "unlabelled", (), *(
    datasets.Split(split.texts, list(range(len(split.texts)))) for split in (data.train, data.dev)))
brief = small_training.replace(epochs=1, evaluations=1)
mlm_teacher = masked_lm(minilm, prose, seed=SEED, training=brief, train="head")
general = distilbert.compress(mlm_teacher, prose, seed=SEED, training=brief, num_layers=3, tokens="masked")
begin, *_, last = own_rows({"predecessor": mlm_teacher.curve, "general-3": general.curve})["general-3"]
show(("update", "soft", "label (masked words)", "cosine"),
     [(row["step"], *(f"{row[name]:.2f}" for name in factors)) for row in (begin, last)])
print(f"masked pieces of dev guessed: teacher {mlm_teacher.curve[-1]['dev']:.1%}, student {last['dev']:.1%}; "
      f"vocabulary: {len(tokenizer.vocab):,} pieces")

# %% [markdown]
r"""
拿标签损失和词表大小的 $\ln$ 比一比，后者是闭着眼睛瞎猜的代价；也别忘了这里的教师是什么：编码器加上一个只训练了一轮的新
输出头。从这里到具体任务的路，和所有预训练模型一样：换一个新的头，然后微调。
"""

# %%
ready = weights.with_head(general, data.task, data.labels, seed=SEED)
print(f"blind guessing: {np.log(len(tokenizer.vocab)):.2f} nats")
print(f"{ready.config.num_layers} layers, task {ready.task}, new: {', '.join(ready.history[-1]['new'])}")

# %% [markdown]
r"""
## 10. 如实解读结果

学完这一课，我们可以说什么？让数字自己来写句子。
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
那么，什么话**不能**说呢？

- **一个种子只是一个学生。** 这些区间对别的种子一无所知。数据顺序和 dropout 都可能是另一个样子；小模型在不同种子之间的
  差别，常常和方法之间的差别一样大。`python -m keras_compress run distillation-study` 用上全部文本和公开数据集；在那里，
  BiLSTM 的提升就看不出来了（见 README）。
- **没有为这个方法调过任何设置。** 温度和系数是作者的，为另一个阶段、为多得多的文本而定；小 BERT 的学习率是为没有教师的
  模型选的。换成 BiLSTM，这就不是小事：有教师的那一个要的是另一个学习率。换别的值，结果可能朝任何一边变。要挑，就看开发
  集，绝不看测试集。
- **更新次数相同，不等于代价相同。** `distilbert-3` 还要跑教师，见第 8 节。省下来的是推理的开销，而这笔开销每来一条文本
  就能省一次。
- **学生听课用的，正是教师训练时用过的文本**（那里还剩多少犹豫，见 2.1 节）。没有标签的文本，微调用不上，教师却照样能回
  答；这一课没有在任务上试这一点。
- **`assistant` 是人工构造的数据。** 句子来自语法规则；关于方法优劣的结论要靠公开数据集。至于通用的学生，作者的
  README（2020 年 1 月他们改正了评测中的一个错误，以此后的为准）报告 GLUE 开发集平均 77.0，BERT-base 为 79.5。那个学生出
  自大语料上的通用阶段，这一课既不能证实、也不能反驳它。

## 11. 接着读什么

- Hinton、Vinyals、Dean：*Distilling the Knowledge in a Neural
  Network*，2015，[arXiv:1503.02531](https://arxiv.org/abs/1503.02531)。它的第 2 节和 2.1 节就是我们的第 2 节。
- Sanh、Debut、Chaumond、Wolf：*DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
  lighter*，2019，[arXiv:1910.01108](https://arxiv.org/abs/1910.01108)。损失和起点都在第 2 节。
- Tang 等：*Distilling Task-Specific Knowledge from BERT into Simple Neural
  Networks*，2019，[arXiv:1903.12136](https://arxiv.org/abs/1903.12136)。
- `keras_compress/distillation/distilbert.py` 和 `distiller.py`：文件开头的说明把公式和名字一一对应起来，也承认哪里与论
  文不同。找一找 `stop_gradient`：没有它会怎样？
- 动手试试：`temperature=1.0` 或 `8.0`、`label_weight=0.0`、`cosine_weight=0.0`、`layers="bottom"`，或者只留两层。运行
  之前先写下你的预测。
"""
