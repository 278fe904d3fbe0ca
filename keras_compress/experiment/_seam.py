"""Until methods declare their settings: what `method(name).declared` will say."""

import dataclasses
from types import SimpleNamespace

from keras_compress.method import method as old_method
from keras_compress.method import settings_of as old_settings_of
from keras_compress.training.settings import Training


def soft_targets(teacher, dataset, *, seed=0, training=Training(), temperature=2.0, student=None):
    from keras_compress.training.distill import recovered

    with training.scope():
        student = student.clone(seed=seed)
    return recovered(teacher, student, dataset, "distil", temperature, seed=seed, training=training)


def method(name):
    return soft_targets if name == "soft_targets" else old_method(name)


def settings_of(name):
    if name == "soft_targets":
        return {"temperature": 2.0, "student": None}
    return {k: v for k, v in old_settings_of(name).items() if k not in ("recover", "tune")}


def without_recovery(name):
    return {"recover": "none"} if name in ("albert", "define") else {}


def declared(name):
    settings = settings_of(name)
    trains = name not in ("vocabulary", "albert", "from_scratch")
    models = {key: None for key in ("student", "mlm") if key in settings}
    return SimpleNamespace(settings=settings, models=models, trains=trains)


def check_settings(name, common, own):
    for_training = {f.name: f.default for f in dataclasses.fields(Training) if f.name != "folder"}
    for_method = settings_of(name)
    unknown = sorted({*own} - {*for_training, *for_method} | {*common} - {*for_training})
    if unknown:
        known = ", ".join(sorted({*for_training, *for_method}))
        raise ValueError(
            f"Settings of {name} must be among {known}. Received: {', '.join(unknown)}."
        )
    for key in {"student", "mlm", "vectors"} & {*own}:
        if not isinstance(own[key], str):
            raise ValueError(f"`{key}` must be a name or a path. Received: {own[key]!r}.")
    for key, value in {**common, **own}.items():
        kind = (
            int
            if key == "patience" and value is not None
            else type({**for_training, **for_method}[key])
        )
        if kind in (bool, int, float) and type(value) not in (kind, int if kind is float else kind):
            text = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise ValueError(f"`{key}` must be {text}. Received: {value!r}.")
    training = {key: value for key, value in {**common, **own}.items() if key in for_training}
    return training, {key: value for key, value in own.items() if key in for_method}
