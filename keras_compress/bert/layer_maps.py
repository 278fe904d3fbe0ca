"""Which layers of a large model a small one keeps, or learns from."""

from keras_compress.training.settings import is_whole

HOW = ("bottom", "top", "alternate", "last-of-block", "distilbert")


def select_layers(num_layers, keep, how="bottom"):
    """Which layers stay.

    Args:
        num_layers: layers of the model. keep: how many stay.
        how: "bottom" (0, 1, ..), "top" (the last ones), "alternate" (the first of each block: of 12 -> 6 layers 0, 2,
            4, ..), "last-of-block" (1, 3, 5, ..), "distilbert" (evenly spaced, both ends included: 0, 2, 4, 7, 9, 11),
            or an explicit list of layers, in rising order.
    Returns:
        list of layers, from 0.
    Raises:
        ValueError: if that is not possible.
    """
    if not is_whole(keep, 1, num_layers):
        raise ValueError(
            f"`num_layers` must be 1 to {num_layers}, the model's own. Received: {keep!r}."
        )
    if isinstance(how, (list, tuple)):
        return rising_layers("The layers kept", how, keep, 0, num_layers - 1)
    if how not in HOW:
        raise ValueError(
            f"The layers kept must be {', '.join(HOW)} or a list of layers. Received: {how!r}."
        )
    if how == "alternate":
        return [i * num_layers // keep for i in range(keep)]
    if how == "last-of-block":
        return [(i + 1) * num_layers // keep - 1 for i in range(keep)]
    if how == "distilbert":
        return [int(i * (num_layers - 1) / max(keep - 1, 1) + 0.5) for i in range(keep)]
    return list(range(keep)) if how == "bottom" else list(range(num_layers - keep, num_layers))


def rising_layers(what, layers, number, first, last):
    """A list of so many layers, as a list. Raises ValueError unless they are different ones in rising order."""
    if (
        len(layers) != number
        or not all(is_whole(layer, first, last) for layer in layers)
        or (list(layers) != sorted({*layers}))
    ):
        raise ValueError(
            f"{what} must be {number} different ones among {first} to {last}, rising. "
            f"Received: {list(layers)}."
        )
    return list(layers)


def check_multiple(num_layers, num_parts, what, way_out, least=1):
    """Raises ValueError unless `num_layers` can be cut into so many equal parts, `least` or more."""
    if num_parts < least or num_layers % num_parts:
        choices = ", ".join(str(n) for n in range(least, num_layers + 1) if num_layers % n == 0)
        raise ValueError(
            f"`num_layers` of the large model must be a multiple of the small one's for {what}. "
            f"Received: {num_layers} and {num_parts}. Choose {choices}, or {way_out}."
        )
