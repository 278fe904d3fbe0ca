import pytest

from keras_compress.training.settings import Training


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "`epochs` must be greater than 0. Received: 0"),
        ({"epochs": float("inf")}, "`epochs` must be a finite number"),
        ({"warmup": 1.0}, "`warmup` must be less than 1"),
        ({"weight_decay": -1.0}, "`weight_decay` must be greater than or equal to 0"),
        ({"batch_size": True}, "`batch_size` must be a valid integer. Received: True"),
        ({"patience": 2, "evaluations": 0}, "`patience` needs `evaluations` on dev. Received: 0"),
        ({"strategy": "tpu"}, "`strategy` must be 'none' or 'mirrored'. Received: 'tpu'"),
    ],
)
def test_settings_are_checked(change, message):
    for make in (Training, Training().replace):
        with pytest.raises(ValueError, match=message):
            make(**change)


def test_number_of_updates():
    training = Training(epochs=2.5, batch_size=4)
    assert training.num_steps(10) == 8  # 2.5 x 3 batches = 7.5
    assert training.replace(epochs=0.01).num_steps(10) == 1


def test_history_says_how_a_model_was_trained_and_not_where():
    told = Training(folder="somewhere", checkpoint_every=7, max_unknown=0.9).settings()
    assert "folder" not in told and "checkpoint_every" not in told
    assert told == Training().settings()
