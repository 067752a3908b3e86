"""What the architectures ask of their arguments: checked before anything is built, worded as the ops' errors."""

from collections.abc import Sequence

from jax import Array


def stages(model: str, *, minimum: int = 1, **numbers: Sequence[int]) -> None:
    """Refuse sequences that are empty or not equally long, and numbers below the minimum."""
    if len({len(values) for values in numbers.values()}) > 1:
        got = " and ".join(str(tuple(values)) for values in numbers.values())
        raise ValueError(f"{model}: {' and '.join(numbers)} must be equally long, got {got}. Give each stage both.")
    for name, values in numbers.items():
        if min(values, default=0) < minimum:
            raise ValueError(
                f"{model}: {name} must be numbers of at least {minimum}, got {tuple(values)}. Give one for each stage."
            )


def rate(model: str, name: str, value: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{model}: {name} must be in [0, 1], got {value}. It is the share that is zeroed.")


def picture(model: str, shape: Sequence[int], smallest: int) -> None:
    """Refuse the shape of pictures of which the pools would leave nothing."""
    if len(shape) != 3 or min(shape[:2]) < smallest:
        raise ValueError(
            f"{model}: shape must be (H, W, C), H and W at least {smallest}, got {tuple(shape)}. Resize the pictures,"
            " or take a net of fewer stages."
        )


def maps(model: str, f: Array, expected: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse maps of pictures of another size than the dense layers were made for."""
    if f.shape[1:] != tuple(expected):
        raise ValueError(
            f"{model}: the dense layers take maps {tuple(expected)}, as of pictures of shape={tuple(shape)}, got maps"
            f" {f.shape[1:]}. Build the net with the shape= of your pictures, or resize them."
        )
