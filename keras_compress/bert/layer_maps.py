"""Which layers of a large model a small one keeps, or learns from.

Maps of other methods are these, counted from 1: PKD's "skip" and TinyBERT's "uniform" are "last-of-block", their
"last" and "top" are "top". The checks serve every map.
"""

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
    if not 1 <= keep <= num_layers:
        raise ValueError(
            f"`num_layers` must be 1 to {num_layers}, the model's own. Received: {keep!r}."
        )
    if not isinstance(how, str):
        return rising_layers("The layers kept", how, keep, 0, num_layers - 1)
    if how not in HOW:
        raise ValueError(
            f"The layers kept must be {', '.join(HOW)} or a list of layers. Received: {how!r}."
        )
    layer = {
        "bottom": lambda i: i,
        "top": lambda i: num_layers - keep + i,
        "alternate": lambda i: i * num_layers // keep,
        "last-of-block": lambda i: (i + 1) * num_layers // keep - 1,
        "distilbert": lambda i: int(i * (num_layers - 1) / max(keep - 1, 1) + 0.5),
    }[how]
    return [layer(i) for i in range(keep)]


def rising_layers(what, layers, number, first, last):
    """A list of so many layers, as a list. Raises ValueError unless they are different and in rising order."""
    layers = list(layers)
    if len(layers) != number or layers != sorted({*layers} & {*range(first, last + 1)}):
        raise ValueError(
            f"{what} must be {number} different ones among {first} to {last}, rising. Received: {layers}."
        )
    return layers


def check_multiple(num_layers, num_parts, what, way_out, least=1):
    """Raises ValueError unless `num_layers` can be cut into so many equal parts, `least` or more."""
    if num_parts < least or num_layers % num_parts:
        raise ValueError(
            f"`num_layers` of the large model must be a multiple of the small one's for {what}. "
            f"Received: {num_layers} and {num_parts}. Choose {divisors(num_layers, least)}, or {way_out}."
        )


def divisors(number, least=1):
    """The divisors of a number from `least` on, as words for a message."""
    return ", ".join(str(n) for n in range(least, number + 1) if number % n == 0)
