"""Typical wrong answers: what the grader must give for each, and at the same time the common misconceptions.

{exercise: [(points, body of the function)]}; the signature is the lesson's.
"""

MUTANTS = {
    "mix_texts": [
        # multiply and add: 0 NaN = NaN
        (
            1.5,
            "r = tf.cast(r, tf.float32)[:, None, None]\nreturn r * scc + (1 - r) * prd",
        ),
        # the sides changed places
        (0, "return tf.where(r[:, None, None], prd, scc)"),
        # one draw for the whole batch
        (0.5, "return scc if bool(r[0]) else prd"),
    ],
    "curriculum": [
        # a number alone
        (1.5, "return min(1.0, k * step + base)"),
        # never stops
        (0, "return k * np.asarray(step) + base"),
        # the example's numbers, whatever is asked
        (1, "return np.minimum(1.0, 0.0006 * np.asarray(step) + 0.3)"),
        # counts updates from 1
        (0, "return np.minimum(1.0, k * (np.asarray(step) + 1) + base)"),
    ],
    "expected_updates": [
        # the rate at the start stands for all
        (1.5, "return float(num_steps * schedule(0))"),
        # the rate at the end stands for all
        (1.5, "return float(num_steps * schedule(num_steps - 1))"),
        # counts updates from 1
        (2, "return float(sum(schedule(step) for step in range(1, num_steps + 1)))"),
        # whole updates
        (2.5, "return int(sum(schedule(step) for step in range(num_steps)) + 1e-9)"),
    ],
    "soft_loss": [
        # exp(1000)
        (
            2,
            "p, q = (np.exp(z / temperature) for z in (teacher_logits, student_logits))\n"
            "p, q = (e / e.sum(-1, keepdims=True) for e in (p, q))\n"
            "return float(temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=-1)))",
        ),
        # without T^2
        (
            1,
            "a, b = (z / temperature - np.max(z / temperature, -1, keepdims=True) for z in (teacher_logits, student_logits))\n"
            "a, b = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (a, b))\n"
            "return float(np.mean(np.sum(np.exp(a) * (a - b), axis=-1)))",
        ),
        # the sum over texts
        (
            0.5,
            "a, b = (z / temperature - np.max(z / temperature, -1, keepdims=True) for z in (teacher_logits, student_logits))\n"
            "a, b = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (a, b))\n"
            "return float(temperature**2 * np.sum(np.exp(a) * (a - b)))",
        ),
        # student and teacher changed places
        (
            1,
            "b, a = (z / temperature - np.max(z / temperature, -1, keepdims=True) for z in (teacher_logits, student_logits))\n"
            "a, b = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (a, b))\n"
            "return float(temperature**2 * np.mean(np.sum(np.exp(a) * (a - b), axis=-1)))",
        ),
    ],
    "direction_loss": [
        # NaN times 0
        (
            2.5,
            "a, b = (h / np.linalg.norm(h, axis=-1, keepdims=True) for h in (teacher, student))\n"
            "return float(((1 - (a * b).sum(-1)) * mask).sum() / mask.sum())",
        ),
        # padding counts
        (
            0.5,
            "a, b = (h / np.linalg.norm(h, axis=-1, keepdims=True) for h in (teacher, student))\n"
            "return float((1 - (a * b).sum(-1)).mean())",
        ),
        # every text counts alike
        (
            1.5,
            "a, b = (h / np.linalg.norm(h, axis=-1, keepdims=True) for h in (teacher, student))\n"
            "return float(np.mean([(1 - (a * b).sum(-1))[i][m == 1].mean() for i, m in enumerate(mask)]))",
        ),
        # lengths count
        (0, "return float((1 - (teacher * student).sum(-1))[mask == 1].mean())"),
    ],
    "spread": [
        # Python's round, which rounds 2.5 to 2
        (
            1.5,
            "if keep == 1:\n    return [0]\n"
            "return [round(i * (num_layers - 1) / (keep - 1)) for i in range(keep)]",
        ),
        # one layer: divides by 0
        (2, "return [int(i * (num_layers - 1) / (keep - 1) + 0.5) for i in range(keep)]"),
        # rounds down
        (
            1,
            "if keep == 1:\n    return [0]\n"
            "return [i * (num_layers - 1) // (keep - 1) for i in range(keep)]",
        ),
    ],
    "patience": [
        # the sum over dimensions
        (
            1,
            "a, b = (h / tf.norm(h, axis=-1, keepdims=True) for h in (teacher_cls, student_cls))\n"
            "return tf.reduce_mean(tf.reduce_sum(tf.square(a - b), -1))",
        ),
        # lengths count
        (0.5, "return tf.reduce_mean(tf.square(teacher_cls - student_cls))"),
        # the cosine
        (
            1,
            "a, b = (h / tf.norm(h, axis=-1, keepdims=True) for h in (teacher_cls, student_cls))\n"
            "return tf.reduce_mean(1 - tf.reduce_sum(a * b, -1))",
        ),
        # one length for everything
        (
            1.5,
            "a, b = (h / tf.norm(h) for h in (teacher_cls, student_cls))\n"
            "return tf.reduce_mean(tf.square(a - b))",
        ),
    ],
    "my_layer_map": [
        # rounds in silence
        (
            2,
            "n, m = num_layers, num_student_layers\n"
            'return [{"uniform": i * n // m, "top": i + n - m, "bottom": i}[how] for i in range(1, m + 1)]',
        ),
        # counts from 0
        (
            1,
            "n, m = num_layers, num_student_layers\n"
            'if how == "uniform" and n % m:\n    raise ValueError\n'
            'return [{"uniform": i * n // m, "top": i + n - m, "bottom": i}[how] - 1 for i in range(1, m + 1)]',
        ),
        # refuses the other maps too
        (
            2.5,
            "n, m = num_layers, num_student_layers\n"
            "if n % m:\n    raise ValueError\n"
            'return [{"uniform": i * n // m, "top": i + n - m, "bottom": i}[how] for i in range(1, m + 1)]',
        ),
        # an assertion is no ValueError
        (
            2,
            "n, m = num_layers, num_student_layers\n"
            'assert how != "uniform" or n % m == 0\n'
            'return [{"uniform": i * n // m, "top": i + n - m, "bottom": i}[how] for i in range(1, m + 1)]',
        ),
    ],
    "masked_attention": [
        # NaN times 0
        (
            2.5,
            "real = tf.cast(mask, tf.float32)\n"
            "pairs = (real[:, None, :, None] * real[:, None, None, :]) * tf.ones_like(teacher_scores)\n"
            "return tf.reduce_sum(pairs * tf.square(student_scores - teacher_scores)) / tf.reduce_sum(pairs)",
        ),
        # keys alone
        (
            0.5,
            "keys = tf.broadcast_to(tf.cast(mask, tf.bool)[:, None, None, :], tf.shape(teacher_scores))\n"
            "return tf.reduce_mean(tf.square(tf.boolean_mask(student_scores - teacher_scores, keys)))",
        ),
        # divides by all pairs
        (
            0.5,
            "real = tf.cast(mask, tf.bool)\n"
            "pairs = real[:, None, :, None] & real[:, None, None, :]\n"
            "return tf.reduce_mean(tf.where(pairs, tf.square(student_scores - teacher_scores), 0.0))",
        ),
        # every text counts alike
        (
            1.5,
            "means = []\n"
            "for t, s, m in zip(teacher_scores, student_scores, mask):\n"
            "    n = int(tf.reduce_sum(m))\n"
            "    means.append(tf.reduce_mean(tf.square(t - s)[:, :n, :n]))\n"
            "return tf.reduce_mean(means)",
        ),
    ],
    "saved_share": [
        # forgets the bias
        (
            0.5,
            "return 1 - (vocab_size * embedding_size + embedding_size * hidden_size) / (vocab_size * hidden_size)",
        ),
        # what stays
        (
            0,
            "return (vocab_size * embedding_size + (embedding_size + 1) * hidden_size) / (vocab_size * hidden_size)",
        ),
        # per cent
        (
            1,
            "return 100 - 100 * (vocab_size * embedding_size + (embedding_size + 1) * hidden_size)"
            " / (vocab_size * hidden_size)",
        ),
        # forgets the projection
        (0, "return 1 - embedding_size / hidden_size"),
    ],
    "best_factors": [
        # the squared error
        (
            2.5,
            "u, s, v = np.linalg.svd(table, full_matrices=False)\n"
            "return u[:, :size] * s[:size], v[:size], float((s[size:] ** 2).sum() / (s**2).sum())",
        ),
        # forgets the singular values
        (
            2,
            "u, s, v = np.linalg.svd(table, full_matrices=False)\n"
            "return u[:, :size], v[:size], float(np.sqrt((s[size:] ** 2).sum() / (s**2).sum()))",
        ),
        # transposes the projection
        (
            1.5,
            "u, s, v = np.linalg.svd(table, full_matrices=False)\n"
            "return u[:, :size] * s[:size], v[:size].T, float(np.sqrt((s[size:] ** 2).sum() / (s**2).sum()))",
        ),
    ],
    "shared_start": [
        # layer l to group l mod G
        (
            0,
            "groups = [kernels[g::num_groups] for g in range(num_groups)]\n"
            'made = [np.mean(g, axis=0) if how == "mean" else g[0] for g in groups]\n'
            "return [made[i % num_groups] for i in range(len(kernels))]",
        ),
        # one entry for each group
        (
            0,
            "size = len(kernels) // num_groups\n"
            "groups = [kernels[first:first + size] for first in range(0, len(kernels), size)]\n"
            'return [np.mean(g, axis=0) if how == "mean" else g[0] for g in groups]',
        ),
        # the last one
        (
            2,
            "size = len(kernels) // num_groups\n"
            "groups = [kernels[first:first + size] for first in range(0, len(kernels), size)]\n"
            'return [np.mean(g, axis=0) if how == "mean" else g[-1] for g in groups for _ in g]',
        ),
        # the sum
        (
            1.5,
            "size = len(kernels) // num_groups\n"
            "groups = [kernels[first:first + size] for first in range(0, len(kernels), size)]\n"
            'return [np.sum(g, axis=0) if how == "mean" else g[0] for g in groups for _ in g]',
        ),
    ],
    "affine": [
        # the range is not widened
        (
            2,
            "low, high = float(x.min()), float(x.max())\n"
            "scale = (high - low) / (2**bits - 1) or 1.0\n"
            "bottom = -(2 ** (bits - 1))\n"
            "zero = round(bottom - low / scale)\n"
            "return np.clip(np.round(x / scale).astype(int) + zero, bottom, -bottom - 1), scale, zero",
        ),
        # all zeros: 0 / 0
        (
            2.5,
            "low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)\n"
            "scale = (high - low) / (2**bits - 1)\n"
            "bottom = -(2 ** (bits - 1))\n"
            "zero = round(bottom - low / scale)\n"
            "return np.clip(np.round(x / scale).astype(int) + zero, bottom, -bottom - 1), scale, zero",
        ),
        # a symmetric grid
        (
            1.5,
            "top = 2 ** (bits - 1) - 1\n"
            "scale = float(np.abs(x).max()) / top or 1.0\n"
            "return np.round(x / scale).astype(int), scale, 0",
        ),
        # floats
        (
            2.5,
            "low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)\n"
            "scale = (high - low) / (2**bits - 1) or 1.0\n"
            "bottom = -(2 ** (bits - 1))\n"
            "zero = round(bottom - low / scale)\n"
            "return np.clip(np.round(x / scale) + zero, bottom, -bottom - 1), scale, zero",
        ),
    ],
    "clipped": [
        # passes everywhere
        (
            1.5,
            "return x + tf.stop_gradient(quantize(x, largest, bits) * (largest / levels(bits)) - x)",
        ),
        # passes nowhere
        (1.5, "return quantize(x, largest, bits) * (largest / levels(bits))"),
        # does not round
        (1, "return tf.clip_by_value(x, -largest, largest)"),
        # the ends excluded
        (
            3,
            "inside = tf.where(tf.abs(x) < largest, x, tf.stop_gradient(x))\n"
            "return inside + tf.stop_gradient(quantize(x, largest, bits) * (largest / levels(bits)) - inside)",
        ),
    ],
    "unpack": [
        # the high half first
        (
            0.5,
            "shifts = np.arange(8 - bits, -1, -bits)\n"
            "values = (packed[:, None] >> shifts & (2**bits - 1)).ravel()[:count].astype(int)\n"
            "return np.where(values >= 2 ** (bits - 1), values - 2**bits, values)",
        ),
        # no negative numbers
        (
            0,
            "return (packed[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)).ravel()[:count].astype(int)",
        ),
        # padding of the last byte
        (
            1,
            "values = (packed[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)).ravel().astype(int)\n"
            "return np.where(values >= 2 ** (bits - 1), values - 2**bits, values)",
        ),
        # 4 bits alone
        (
            1.5,
            "values = np.stack([packed & 15, packed >> 4], 1).ravel()[:count].astype(int)\n"
            "return np.where(values >= 8, values - 16, values)",
        ),
        # the lowest number taken for a positive one
        (
            0.5,
            "values = (packed[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)).ravel()[:count].astype(int)\n"
            "return np.where(values > 2 ** (bits - 1), values - 2**bits, values)",
        ),
    ],
    "fixed_inputs": [
        # cuts [SEP] off
        (
            2,
            "ids = list(ids)[:length]\n"
            "padding = [0] * (length - len(ids))\n"
            'rows = {"input_word_ids": ids + padding, "input_mask": [1] * len(ids) + padding,'
            ' "input_type_ids": [0] * length}\n'
            "return {name: np.array([row], np.int32) for name, row in rows.items()}",
        ),
        # 64 bits
        (
            1,
            "ids = list(ids) if len(ids) <= length else [*ids[:length - 1], ids[-1]]\n"
            "padding = [0] * (length - len(ids))\n"
            'rows = {"input_word_ids": ids + padding, "input_mask": [1] * len(ids) + padding,'
            ' "input_type_ids": [0] * length}\n'
            "return {name: np.array([row]) for name, row in rows.items()}",
        ),
        # padding is attended to
        (
            1.5,
            "ids = list(ids) if len(ids) <= length else [*ids[:length - 1], ids[-1]]\n"
            'rows = {"input_word_ids": ids + [0] * (length - len(ids)), "input_mask": [1] * length,'
            ' "input_type_ids": [0] * length}\n'
            "return {name: np.array([row], np.int32) for name, row in rows.items()}",
        ),
        # no axis for the batch
        (
            0,
            "ids = list(ids) if len(ids) <= length else [*ids[:length - 1], ids[-1]]\n"
            "padding = [0] * (length - len(ids))\n"
            'rows = {"input_word_ids": ids + padding, "input_mask": [1] * len(ids) + padding,'
            ' "input_type_ids": [0] * length}\n'
            "return {name: np.array(row, np.int32) for name, row in rows.items()}",
        ),
    ],
    "early_check": [
        # asks whether it is too large
        (
            2,
            "mean_dp = float(np.abs(after - before).max(-1).mean())\n"
            "return float(np.mean(before.argmax(-1) == after.argmax(-1))), mean_dp, not mean_dp > max_mean_dp",
        ),
        # the mean over classes
        (
            2.5,
            "mean_dp, finite = float(np.abs(after - before).mean()), np.isfinite([before, after]).all()\n"
            "return float(np.mean(before.argmax(-1) == after.argmax(-1))), mean_dp,"
            " bool(finite and mean_dp <= max_mean_dp)",
        ),
        # the limit is a constant
        (
            2.5,
            "mean_dp, finite = float(np.abs(after - before).max(-1).mean()), np.isfinite([before, after]).all()\n"
            "return float(np.mean(before.argmax(-1) == after.argmax(-1))), mean_dp, bool(finite and mean_dp <= 0.05)",
        ),
        # NumPy's bool
        (
            1,
            "mean_dp, finite = np.abs(after - before).max(-1).mean(), np.isfinite([before, after]).all()\n"
            "return np.mean(before.argmax(-1) == after.argmax(-1)), mean_dp, finite & (mean_dp <= max_mean_dp)",
        ),
    ],
    "normalise": [
        # lower case alone
        (1, "return text.lower()"),
        # no lower case
        (
            1,
            'return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")',
        ),
        # a space for what is invisible
        (
            2.5,
            'kinds = [(c, unicodedata.category(c)) for c in unicodedata.normalize("NFD", text)]\n'
            'return "".join(" " if k in ("Zs", "Cf") else c for c, k in kinds if k != "Mn").lower()',
        ),
        # ASCII alone
        (0, 'return text.encode("ascii", "ignore").decode().lower()'),
    ],
    "can_compare": [
        # the last axis decides
        (1.5, "return answer[-1] == target[-1]"),
        # the number of axes decides
        (0.5, "return len(answer) == len(target)"),
        # broadcasting is allowed
        (
            1.5,
            "return len(answer) == len(target) and all(a == b or 1 in (a, b) for a, b in zip(answer, target))",
        ),
    ],
    "gate": [
        # the gate of Section 3 of the paper
        (0.5, "return (1 - w) * x + w * mlp_x"),
        # two cases, nothing between
        (1, "return x if w == 0 else (x + mlp_x) / 2"),
        # adds the average to x
        (0.5, "return x + w * (x + mlp_x) / 2"),
    ],
    "my_levels": [
        # clips in silence
        (2, "k = min(k, num_layers)\nreturn [i * num_layers // k for i in range(1, k + 1)]"),
        # counts from 0
        (
            1,
            "if not 1 <= k <= num_layers:\n    raise ValueError\n"
            "return [i * num_layers // k - 1 for i in range(1, k + 1)]",
        ),
        # rounds up
        (
            1.5,
            "if not 1 <= k <= num_layers:\n    raise ValueError\n"
            "return [-(-i * num_layers // k) for i in range(1, k + 1)]",
        ),
    ],
}
