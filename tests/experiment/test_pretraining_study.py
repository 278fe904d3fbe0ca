"""The study of pre-training, with its own steps on tiny data: one ALBERT, two seeds, from random weights to cells."""

from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.compare import study_table
from keras_compress.experiment.recipe import read_recipe
from keras_compress.experiment.study import run_study
from tests import samples
from tests.samples import corpus

SMALL = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 16,
    "embedding_size": 8,
}


def test_the_study_from_random_weights_to_cells(tmp_path):
    samples.data(tmp_path / "one")
    samples.model(tmp_path / "bert")
    text = corpus(8, 4).train
    lines = [line + "\n" * (1 + (k % 4 == 3)) for k, line in enumerate(text.texts)]
    (tmp_path / "corpus.txt").write_text("".join(lines), encoding="utf-8")
    recipe = read_recipe("pretraining-study")
    recipe["training"] |= {"max_length": 16, "epochs": 1, "batch_size": 4}
    for step in recipe["steps"]:
        step["from"] = str(tmp_path / "bert") if step["from"] == "minilm" else step["from"]
        if "data" in step:
            step |= {"data": str(tmp_path / "corpus.txt"), "epochs": 1}
        if "config" in step:
            step["config"] = {key: SMALL.get(key, value) for key, value in step["config"].items()}
    cells, _ = run_study(
        recipe,
        data=[str(tmp_path / "one")],
        only=["albert-all-sop"],
        weights=tmp_path / "weights",
        results=tmp_path / "results",
    )
    ours = [cell for cell in cells if cell["method"] == "albert-all-sop"]
    assert [cell["seed"] for cell in ours] == [0, 1]
    for cell in ours:
        assert [step["name"] for step in cell["steps"]] == [
            "words",
            "bert",
            "albert",
            "pretrained-albert-all-sop",
            "albert-all-sop",
        ]
        pretrained = cell["settings"][0]
        assert (
            pretrained["method"] == "pretrain"
            and pretrained["seed"] == cell["seed"]
            and cell["parameters"] > 0
        )
        assert pretrained["steps_per_second"] > 0 and pretrained["sentence_task"] == "sop"
    saved = [
        TaskModel.load(path) for path in sorted((tmp_path / "weights").glob("corpus-pretrained-*"))
    ]
    assert len(saved) == 2 and saved[0].config.sharing == "all" and saved[0].config.table_size == 8
    name = "layer_0_query/kernel"
    assert (
        abs(saved[0].weights()[name] - saved[1].weights()[name]).max() > 0.01
    )  # each seed has its own start
    row = next(line for line in study_table(cells).splitlines() if "| albert-all-sop |" in line)
    assert f"| {ours[0]['parameters']:,} | " in row
