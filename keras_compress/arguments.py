"""The verbs of the command line and their options. Nothing heavy is imported for it."""

import argparse
import dataclasses

from keras_compress.training.settings import Training

TRAINING_HELP = {
    "epochs": "passes over the training texts",
    "batch_size": "texts per update",
    "max_length": "longest text in pieces; the rest is cut off",
    "learning_rate": "peak learning rate",
    "warmup": "share of the updates in which the learning rate rises",
    "weight_decay": "decoupled weight decay",
    "clip_norm": "largest global norm of the gradients",
    "patience": "stop after so many evaluations on dev without a better one",
    "evaluations": "how often dev is looked at in each stage",
    "strategy": "none, or mirrored: all devices (with TF_CONFIG set: all workers) share each batch",
    "cache_teacher": "distillation: run the teacher once per text in each stage and keep its outputs on disk",
}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one; texts that tell it themselves stay as they are."""

    def _get_help_string(self, action):
        plain = (
            action.default is None
            or action.default is False
            or action.default == []
            or "default" in action.help
        )
        return action.help if plain else super()._get_help_string(action)


def _seed(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"a seed must be a whole number of 0 or more. Received: {text!r}"
        )
    return int(text)


def _seeds(text):
    return [_seed(item) for item in text.split(",")]


def parser():
    """All verbs with their options; nothing heavy is imported for it."""
    top = argparse.ArgumentParser(
        prog="keras_compress", description="BERT compression, paper by paper."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, text, *groups):
        one = verbs.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", formatter_class=_Help
        )
        for group in groups:
            group(one)
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        return one

    def data(one):
        default = {"run": "the recipe's", "export": "none, random ids are compared"}
        default = default.get(one.prog.split()[-1], "assistant")
        one.add_argument(
            "--data",
            default=None,
            metavar="NAME|DIR",
            help="assistant, apidocs, a downloaded set, or a "
            f"folder with train.tsv, dev.tsv, test.tsv, labels.txt (default: {default})",
        )
        one.add_argument(
            "--task",
            choices=("classification", "matching", "tagging", "unlabelled"),
            default=None,
            help="task of a built-in set; other sets know theirs (default: classification). Unlabelled "
            "text makes a masked-LM model",
        )
        one.add_argument("--language", choices=("en", "zh"), default="en", help="of assistant")

    def source(one):
        one.add_argument(
            "--from",
            dest="source",
            required=True,
            metavar="SOURCE",
            help="minilm; bilstm, a new small one; a folder of ours, of Hugging Face (safetensors) or of "
            "Google's BERT; a bert4keras .h5 file",
        )

    def out(one):
        one.add_argument("--out", required=True, metavar="DIR", help="folder to write")
        one.add_argument("--overwrite", action="store_true", help="replace what the folder holds")

    def training(one):
        for field in dataclasses.fields(Training):
            if field.default is False:
                one.add_argument(
                    "--" + field.name.replace("_", "-"),
                    action="store_true",
                    help=TRAINING_HELP[field.name],
                )
            elif field.name in TRAINING_HELP:
                kind = int if field.name == "patience" else type(field.default)
                choices = ("none", "mirrored") if field.name == "strategy" else None
                one.add_argument(
                    "--" + field.name.replace("_", "-"),
                    type=kind,
                    default=field.default,
                    choices=choices,
                    help=TRAINING_HELP[field.name],
                    metavar=None if choices else kind.__name__.upper(),
                )
        one.add_argument(
            "--seed",
            type=_seed,
            default=0,
            help="of initial weights, data order, dropout and draws",
        )

    def new_head(one):
        one.add_argument(
            "--new-head", action="store_true", help="leave out the classifier that the source has"
        )

    def pooling(one):
        one.add_argument(
            "--pooling",
            choices=("pooler", "cls", "mean"),
            default=None,
            help="what the classifier reads (default: as the source was trained)",
        )

    one = verb(
        "run",
        "run a recipe from texts to a report with exported models, or a study",
        data,
        new_head,
    )
    one.add_argument(
        "recipe",
        nargs="?",
        default="theseus",
        help="a recipe's name (see `methods`) or a TOML file",
    )
    one.add_argument(
        "--from",
        dest="source",
        default=None,
        metavar="SOURCE",
        help="weights instead of minilm, such as a folder with your own BERT. Fine-tuned for the labels "
        "of the data, it is the predecessor as it is, and the baseline plain-K, which needs "
        "pre-trained weights, is left out; with --new-head it is fine-tuned anew",
    )
    one.add_argument(
        "--length",
        type=int,
        default=None,
        metavar="INT",
        help="longest text in pieces, in training and in the exported files (default: the recipe's)",
    )
    one.add_argument(
        "--num-layers",
        type=int,
        default=None,
        metavar="INT",
        help="layers of the small models (default: the recipe's)",
    )
    one.add_argument(
        "--learning-rate",
        type=float,
        default=None,
        metavar="FLOAT",
        help="of all steps (default: the recipe's, found for MiniLM; wider models want lower ones)",
    )
    one.add_argument(
        "--out", default=None, metavar="DIR", help="report folder (default: runs/<recipe>-<time>)"
    )
    one.add_argument(
        "--quick",
        action="store_true",
        help="a small part of the data: shows the path, gives no results",
    )
    again = one.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run that was stopped: --out, or the one last at work",
    )
    again.add_argument(
        "--overwrite", action="store_true", help="replace the run that the folder holds"
    )
    one.add_argument("--seed", type=_seed, default=0, help="of everything random")
    one.add_argument(
        "--strategy", choices=("none", "mirrored"), default="none", help=TRAINING_HELP["strategy"]
    )
    one.add_argument(
        "--allow-drift", action="store_true", help="write int8 files that drift too far, marked"
    )
    one.add_argument(
        "--seeds",
        type=_seeds,
        default=None,
        metavar="0,1,2",
        help="a study's seeds (default: the recipe's)",
    )
    one.add_argument(
        "--only", default=None, metavar="STEP,..", help="a study's steps (default: all)"
    )
    one.add_argument(
        "--fixed-lr", action="store_true", help="a study: the recipe's learning rates, no grid"
    )
    one = verb("table", "print the table of a study from its cells, without training")
    one.add_argument("study", help="a study's name, or a folder of cells")
    one.add_argument("--picture", default=None, metavar="FILE.png", help="write its picture, too")

    one = verb(
        "train", "fine-tune a BERT on a task", source, data, out, new_head, pooling, training
    )
    one = verb(
        "compress",
        "compress a model with one method",
        source,
        data,
        out,
        new_head,
        pooling,
        training,
    )
    one.add_argument("method", help="see `methods`")
    one.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the method, e.g. num_layers=3 (see `methods METHOD`); may be repeated",
    )
    one = verb("export", "write .tflite files, each checked against Keras", source, data, out)
    one.add_argument(
        "--formats",
        default="float32,int8",
        help="of float32, float16, int8, int8_per_tensor, int4, int2, onnx_float32, onnx_int8",
    )
    one.add_argument(
        "--onnx", action="store_true", help="float32.onnx and int8.onnx for ONNX Runtime, too"
    )
    one.add_argument("--length", type=int, default=64, help="fixed sequence length in pieces")
    one.add_argument(
        "--allow-drift", action="store_true", help="write int8 files that drift too far, marked"
    )
    one = verb(
        "evaluate",
        "measure a model, or an exported file with its model, on a labelled split",
        source,
        data,
    )
    one.add_argument("--split", choices=("train", "dev", "test"), default="test", help="the split")
    one.add_argument(
        "--tflite",
        default=None,
        metavar="FILE",
        help="an exported file of this model, .tflite or .onnx",
    )
    one = verb("benchmark", "time exported files on this machine, side by side")
    one.add_argument("files", nargs="+", metavar="FILE", help="exported files, .tflite or .onnx")
    one.add_argument(
        "--from",
        dest="source",
        default=None,
        metavar="SOURCE",
        help="the model that they come from: times the same graph as tf.function and in Keras, too",
    )
    one.add_argument("--threads", type=int, default=1, help="threads of the runtime")
    one.add_argument(
        "--runs", type=int, default=50, help="forward passes per file, after 10 to warm up"
    )
    one = verb(
        "serve", "show two exported models side by side on a web page, on this machine alone"
    )
    one.add_argument("folder", metavar="RUN", help="folder of a run, or of exported files")
    one.add_argument(
        "--port", type=int, default=8000, help="of http://127.0.0.1; 0: any that is free"
    )
    one = verb("predict", "label texts from the command line, or from stdin, one a line", source)
    one.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts; the two of a pair are separated by a tab"
    )
    one = verb("data", "show data sets, or download a public one", data)
    one.add_argument(
        "action", choices=("show", "download"), help="show counts and examples, or download"
    )
    one.add_argument(
        "name",
        nargs="?",
        default=None,
        help="what to show, as --data; or to download: sst2, mrpc, tnews",
    )
    one = verb("methods", "list methods and recipes, or tell about one method")
    one.add_argument("method", nargs="?", default=None, help="a method's name")
    return top
