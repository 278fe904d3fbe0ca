# %% [markdown]
r"""
# 第 1 课 · BERT-of-Theseus：一块一块地换船板

**学完这一课，你能够**：把微调好的 BERT 切成模块；让小的替换件直接在大模型内部训练，除任务本身的损失之外不加任何损失；
随时说清楚哪些权重在动、哪些不动；公正地评价得到的小模型；最后把它导出成手机能用的文件。

**预备知识**：Python 和 NumPy，Transformer 层的基本构造（注意力、前馈网络、残差、层归一化），softmax 与交叉熵。微调过一次
BERT 的话会更轻松。

**时间**：在双核笔记本 CPU 上计算约 8 分钟，加上练习（共 10 分）约一小时。**随机种子**：全课都是 0。如果启动 Jupyter
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
from keras_compress.bert.layers import AttentionBias
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure import accuracy, baselines, cost
from keras_compress.experiment.plots import ACCENT, GREY, INK, PALE, STYLE, own_rows
from keras_compress.experiment.report import markdown_table
from keras_compress.pruning import layers as truncation
from keras_compress.replacement import theseus
from keras_compress.training.loop import Training, adamw, finetune, task_loss

# %% [markdown]
r"""
全课的设置都放在这里。所有模型的更新次数相同，批大小也相同。几个小模型共用一个学习率（learning rate），取在开发集上对基线
`plain-3` 最有利的那个：2e-4、4e-4、6e-4 分别得到 43.1、55.7、51.5 %。训练时，超过 `max_length` 个词片（word piece）的部分会被截掉，
程序会警告截了多少条。
"""

# %%
from IPython.display import Markdown, display

SEED = 0
FAST = os.environ.get("KERAS_COMPRESS_FAST") == "1"
tf.config.run_functions_eagerly(FAST)                         # for a handful of updates no graph pays
sizes = {"num_train": 64, "num_dev": 40, "num_test": 60} if FAST else {"num_train": 2500}
training = Training(epochs=2 if FAST else 3, batch_size=32, max_length=48, learning_rate=2e-4, evaluations=3)
small_training = training.replace(learning_rate=4e-4)
plt.rcParams.update({**STYLE, "figure.dpi": 80, "figure.constrained_layout.use": True})


def show(header, rows):
    """A table in the notebook."""
    display(Markdown(markdown_table(header, rows)))


# %% [markdown]
r"""
## 1. 前辈模型：一个能干活的大模型

任务是：听懂一个人想让手机做什么。数据集 `assistant` 是为本项目用语法规则生成的（这一课用它的英文部分）。它有意做得让
单个的词靠不住：命令可能被否定、被改口，也可能说在后面、却要先做。
"""

# %%
data = datasets.load("assistant").subset(**sizes, seed=SEED)
show(("text", "intent"), [(data.train.texts[i], data.labels[data.train.labels[i]]) for i in range(8)])
print({name: len(getattr(data, name).texts) for name in ("train", "dev", "test")}, len(data.labels), "intents")

# %% [markdown]
r"""
挑两三句念一念：哪些词决定了意图，哪些词会把人带偏？

这个方法需要一个**前辈模型**（predecessor），也就是已经在任务上微调（fine-tuning）好的模型。我们用 MiniLM，一个只有六层
的小型预训练 BERT。下面这一格要跑一两分钟。
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
它的参数都在哪里？计算时间又花在哪里？这两个问题的答案并不一样：查词向量表是不做乘法的。
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
这张表预告了我们能省下多少。层数减半，时间大约减半；文件却远远缩不到一半，因为词表那一大块还在。（后面的课再来压缩它。）

## 2. 忒修斯之船

雅典人把忒修斯的船在港口里保存了好几百年。哪块木板朽了，就换上一块新的，直到原来的木板一块也不剩。而在任何时刻，它都是一
艘浮在水上的船。

BERT-of-Theseus（Xu 等，2020）就是这样改造网络的。先把前辈模型切成若干**模块**（module），给每个模块配一个更小的替身，叫做
它的**传承者**（successor）。训练时随机地用传承者顶替模块，顶替得越来越频繁。新木板从来不必独自成为一艘船：从第一步起，它
身边就是一群熟门熟路的老木板，它只要学会跟它们配合。最后木板全是新的，船也变小了。

还有一点值得注意：没有任何损失去比较两个模型，这与知识蒸馏（knowledge distillation）不同。唯一的损失就是任务本身的损失。

这就是我们的模块：六层切成三个模块，每个模块配一个新的层。
"""

# %%
module_map = theseus.even_modules(config.num_layers, 3)
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
没画在框里的部分，也就是词嵌入和分类器，由两艘船共用。

## 3. 门

每个模块前面都有一道**门**（gate），好比抛一枚硬币：以概率 $p$ 落在传承者那一面，$p$ 叫做**替换率**（replacing rate）。记
$y_i$ 为第 $i$ 个模块的输入，论文 3.1 节写道：

$$r_i \sim \mathrm{Bernoulli}(p), \qquad y_{i+1} = r_i \cdot \mathrm{scc}_i(y_i) + (1 - r_i) \cdot \mathrm{prd}_i(y_i).$$

在我们的程序包里，这就是 `ModuleMix` 层；`build_theseus` 在每个模块的位置上放一个。这里先把 dropout 关掉，好让我们看到的
只是门的作用。每个传承者的初值是它那个模块最后一层的副本（作者的做法是取前辈模型最底下的几层，
即 `start="bottom"`）。
"""

# %%
calm = {"dropout": 0.0, "attention_dropout": 0.0}
old = predecessor.clone(config=config.replace(**calm))
new = old.keep_layers([module[-1] for module in module_map], seed=SEED)
mixed, mixes = theseus.build_theseus(old, new, module_map, seed=SEED)
print([layer.name for layer in mixed.layers])

# %% [markdown]
r"""
### 3.1 门开得有多频繁？

每次抽签只取决于种子、步数和模块编号。所以中断后再继续的训练会抽到同样的结果，分担同一批数据的两台机器也会抽到同样的结果。
我们来问问这几道门在许多步里抽到了什么。
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
蓝色表示这一次更新由传承者上场。三个模块一共能拼出八艘不同的船，每次更新训练其中的一艘。下面看频率，并附上标准误
（standard error）$\sqrt{p(1-p)/n}$：大约三分之二的频率与替换率相差在一个标准误之内，几乎全部在两个之内。
（三行看的是同一批硬币，所以一行偏了，相邻的行往往朝同一个方向偏。）
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
### 3.2 门放过去的是什么？

我们把真实的句子送进每个模块，看看两边各输出什么。替换率为 0 时，门必须原样给出前辈模型的隐状态（hidden states）；为 1 时，
必须原样给出传承者的。在训练之前，两者相差多远？
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
第四列是两边输出的相对距离，第五列是模块的输入与输出的相对距离。如果某一行的第四列不比第五列小，那么未经训练的传承者还不如
一块“什么都原样放行”的木板。请记住第四列，第 6 节还会用到。

### 练习 1（3 分）：每条文本一道门

我们的门是每一批数据抽一次签，其实也可以给每条**文本**各抽一次。请写出这种情形下的上述公式。小心一个陷阱：
$0 \cdot \mathrm{NaN}$ 仍是 $\mathrm{NaN}$，所以“先乘后加”会让出了毛病的那一支污染健康的那一支。
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
got = mix_texts(tf.constant([True, False]), tf.ones((2, 3, 4)), tf.zeros((2, 3, 4)))
assert got.shape == (2, 3, 4), "every text keeps its shape"
np.testing.assert_array_equal(got[0], np.ones((3, 4)), "the first text was drawn: successor")
np.testing.assert_array_equal(got[1], np.zeros((3, 4)), "the second was not: predecessor")
### BEGIN HIDDEN TESTS
generator = np.random.default_rng(0)
scc_, prd_ = generator.normal(size=(2, 5, 3, 4)).astype("float32")
drawn_ = np.array([True, False, False, True, False])
expected_ = np.stack([s if d else p for d, s, p in zip(drawn_, scc_, prd_)])
np.testing.assert_allclose(mix_texts(tf.constant(drawn_), tf.constant(scc_), tf.constant(prd_)), expected_, rtol=1e-6)
broken_ = np.where(drawn_[:, None, None], scc_, np.nan).astype("float32")
poisoned_ = mix_texts(tf.constant(drawn_), tf.constant(broken_), tf.constant(prd_))
np.testing.assert_allclose(poisoned_, expected_, rtol=1e-6)
### END HIDDEN TESTS

# %% [markdown]
r"""
## 4. 换得多快

替换率不必一成不变。论文比较了两种：一种是常数，到最后一下子跳到 1；另一种叫**课程**（curriculum），从较低的值起线性上升，
$p(t) = \min(1, kt + b)$（3.3 节）。`cosine` 是我们加上作比较的。图中用的是作者示例里的数值：$b = 0.3$，每次更新
$k = 0.0006$。
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
无论走哪条路，最后都要到 1，并且停留一段时间：只有这时，传承者们才作为将来独自远航的那班船员一起训练。注意 $k$ 是**每次更新**
的增量：批大小加倍，更新次数就减半，$k$ 也就得加倍。

### 练习 2（3 分）：课程

请写出 $p(t)$，它既要接受一个数，也要接受一整个由步数组成的数组。
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
np.testing.assert_allclose(curriculum(0), 0.3)
np.testing.assert_allclose(curriculum(1000), 0.9)                   # 0.0006 * 1000 + 0.3
np.testing.assert_allclose(curriculum(5000), 1.0)
### BEGIN HIDDEN TESTS
all_ = curriculum(np.arange(3000))
assert all_.shape == (3000,) and int(np.argmax(all_ >= 1.0)) == 1167        # (1 - 0.3) / 0.0006 = 1166.7
np.testing.assert_allclose(all_, [theseus.linear_rate(0.3, 0.0006)(t) for t in range(3000)])
np.testing.assert_allclose(curriculum(np.array([[0, 1], [2, 9]]), base=0.5, k=0.2), [[0.5, 0.7], [0.9, 1.0]])
### END HIDDEN TESTS

# %% [markdown]
r"""
### 练习 3（4 分）：暗藏的预热

没被抽中的模块得不到梯度（gradient），所以它的传承者在那次更新里不动。在 `num_steps` 次更新中，一个传承者平均能得到多少次
更新？想清楚答案，就明白作者为什么拿课程与学习率的预热（warm-up）相比。
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
np.testing.assert_allclose(expected_updates(theseus.constant_rate(0.5), 100), 50.0)
np.testing.assert_allclose(expected_updates(theseus.constant_rate(0.5, steps=60), 100), 70.0)      # 30 + 40
### BEGIN HIDDEN TESTS
np.testing.assert_allclose(expected_updates(theseus.linear_rate(0.4, 0.2), 5), 3.8)                # .4 .6 .8 1 1
assert expected_updates(theseus.linear_rate(0.3, 0.1), 0) == 0
gate_, count_, rising_ = mixes[0], 0, theseus.linear_rate(0.2, 0.002)
for step_ in range(400):
    gate_.rate.assign(rising_(step_))
    gate_.step.assign(step_)
    count_ += int(gate_.draw())
error_ = sum(rising_(t) * (1 - rising_(t)) for t in range(400)) ** 0.5
assert abs(count_ - expected_updates(rising_, 400)) < 4 * error_
### END HIDDEN TESTS

# %% [markdown]
r"""
## 5. 哪些冻结，哪些在动

论文只训练传承者。前辈模型的各层是冻结（frozen）的，两边共用的词嵌入和分类器也是。眼见为实：我们做一次恰好只抽中一个
模块的更新，然后逐一比较更新前后的所有权重。
"""

# %%
step = int(np.argmax(half.sum(axis=1) == 1))
for mix in mixes:
    mix.rate.assign(0.5)
    mix.step.assign(step)
optimizer = adamw(training, num_steps=10, cls=theseus.DrawnAdamW)       # leaves alone what was not drawn
optimizer.follow(mixes)
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
只有一行写着 *moved*，正是被抽中的那个传承者。这并不像看上去那么理所当然：即使没有梯度，Adam 也会靠动量继续推着其他传承者往前走。
`DrawnAdamW` 则让它们原地不动，和作者的程序一致。

## 6. 把船换完

现在用一次调用走完整个方法。`compress` 从前辈模型重新开始：传承者取自各自模块的最后一层，替换率走线性课程，最后一部分更新用来单独
微调传承者，这时词嵌入和分类器也一起训练。传进去的模型不会被改动，得到的是一个独立的模型。
"""

# %%
small = theseus.compress(predecessor, data, seed=SEED, training=small_training, num_layers=3)
settings = next(step for step in small.history if step["method"] == "theseus")
print({key: settings[key] for key in ("module_map", "start", "schedule", "rate", "full_at", "finetune_share")})
print(f"{predecessor.config.num_layers} layers -> {small.config.num_layers}")

# %% [markdown]
r"""
途中发生了什么？在开发集（dev）上测的始终是只由传承者组成的模型，哪怕训练时两种木板还混在一起。
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
对照着看损失和准确率。替换率还低的时候，损失属于一艘大半是老木板的船，几乎说明不了新木板的水平；开发集准确率才说明它们单独上阵
会怎样。再看最后一个阶段又添了多少：这就是为什么换完木板还不能收工。

没有任何损失拿传承者与它的模块作过比较。那么它有没有自己学会模仿呢？我们用训练好的传承者，再量一次 3.2 节的距离。
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
哪里的蓝柱更短，就说明新木板在老木板中间干活的时候学会了老木板的本事，尽管没人要求它这样做。哪里的蓝柱没有变短，就说明传承者
找到了通向同样标签的另一条路；最后一个模块尤其如此，因为任务只要从它那里得到类别。

## 7. 值不值？公平的基线

要评价一个小模型，得给它找几个对手。四个小模型大小相同，更新次数和学习率也相同：

- `theseus-3`：这一课的模型；
- `plain-3`：取**预训练**模型最底下三层，照常微调；
- `truncated-3`：取**微调好的**前辈模型最底下三层，继续微调，这是通常的做法；
- `spread-3`：改取前辈模型三段各自的最后一层，继续微调。它的起点就是传承者的起点，所以两者之差只在训练方式：
  是逐步替换、最后一个阶段之前一直冻结词嵌入和分类器，还是一次全部微调。

上面有前辈模型，下面有两个不用 BERT 的基线（baseline）：TF-IDF 加线性模型，以及永远回答出现最多的那一类。
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
怎样读这张表？**SE** 是对样本而言的标准误：换一批测试文本，结果会变动多少。最后一列是**配对**（paired）比较：两个模型回答同样的
文本，只有答得不一样的文本才算数，因此区间比单看两个标准误时要窄。区间包含 0，并不是说两个模型一样好，而是说这次测试分不出高下。

再把 *dev* 和 *test* 两列对照着看。它们给模型排出的名次不一定相同：在这个数据集里，两边的句式和用词各不相同，而且开发集还参与过
挑选设置。两组文本给出的结论不一致，就是在提醒我们：对哪一份都不要过度解读。
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
## 8. 装进手机能用的文件

`export` 把模型写成 TFLite 文件，可以用 32 位浮点数，也可以把权重量化（quantization）成 8 位整数。写盘之前，每个文件都会在
开发集上与 Keras 逐条对照：偏差太大的导出会直接报错。
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
这里省在两处：层数少了，省时间；每个数的位数少了，省字节。与第 1 节的预告对照一下：同样的格式，三层模型的文件远大于原来的一半，因为
词表原封不动地跟了过来；时间则随层数一起下降。手机比这台机器慢，但**比值**大体仍然成立。

再用手机将要加载的那个文件，原样跑一遍测试集：
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
## 9. 如实解读结果

学完这一课，我们可以说什么？让数字自己来写句子。
"""

# %%
for name, pair in pairs.items():
    verdict = "cannot be told from" if pair["low"] <= 0 <= pair["high"] else (
        "is better than" if pair["difference"] > 0 else "is worse than")
    print(f"On these {pair['n']:,} test texts, with this seed, theseus-3 {verdict} {name} "
          f"({100 * pair['difference']:+.1f} points).")

# %% [markdown]
r"""
那么，什么话**不能**说呢？

- **一个种子只是一次航行。** 这些区间对别的种子一无所知。数据顺序、dropout 和门的抽签都可能是另一个样子；小模型在不同种子之间的
  差别，常常和方法之间的差别一样大。要对方法下结论，得跑好几个种子，`python -m keras_compress run theseus-study` 就是做这件事的。
- **所有小模型用同一个学习率**，简单，却不算彻底公平：普通的小模型和压缩得到的小模型，想要的学习率可能不同。上面那个研究会在
  开发集上为每个方法各选一个。
- **`assistant` 是造出来的数据。** 句子来自语法规则。它能说明这条路走得通，也能说明小模型爱犯哪类错误；关于方法优劣的结论，
  要靠公开数据集。
- **更新次数相同，不等于代价相同。** Theseus 还需要先有一个微调好的前辈模型；替换率低的时候，一次更新还要跑许多老的层。省下来的
  是推理（inference）的开销，而这笔开销每来一条文本就能省一次。

## 10. 接着读什么

- Xu、Zhou、Ge、Wei、Zhou：*BERT-of-Theseus: Compressing BERT by Progressive Module Replacing*，EMNLP 2020，
  [arXiv:2002.02925](https://arxiv.org/abs/2002.02925)。这一课对应 3.1 至 3.3 节；论文的实验在公开数据集上比较了当时的各种方法。
- `keras_compress/replacement/theseus.py`：同样的内容，大约 250 行；文件开头的说明把公式和名字一一对应起来。找一找 `tf.cond`：
  为什么只计算抽中的那一边？
- 动手试试：`module_map=[[0], [1, 2], [3, 4, 5]]`、`schedule="constant"`、`gate="uniform"`，或者只留两层。运行之前先写下你的预测。
- 用你自己的数据：`python -m keras_compress run --data FOLDER`，文件夹的格式见 `data/README.md`。
"""
