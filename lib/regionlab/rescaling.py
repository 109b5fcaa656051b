"""A mistake that is easily made: pixels brought to [0, 1] twice, so that hardly any is left.

S1's code turns pictures into tensors in [0, 1] (ToTensor) and hands them to a processor that
divides by 255 again. Nothing fails; every picture just becomes almost black. That would explain
the 28 % it prints for CIFAR-10. It is a reading of the code: S1 does not say it.
"""

from regionlab.embedding import Encoder


class _Darken:
    """Divide pixels by 255; a step of a preprocessing."""

    def __call__(self, pixels):
        return pixels / 255

    def __repr__(self) -> str:
        return "Rescale(1 / 255)"


def rescale_twice(encoder: Encoder) -> Encoder:
    """Return the encoder with S1's probable mistake in its preprocessing.

    Pixels are divided by 255 once more, between their conversion to [0, 1] and the
    normalisation. The model is shared, the space is another one. Use it in fp32: in bf16 the
    differences that are left fall below the rounding.

    Raises
    ------
    ValueError
        If the preprocessing has no step that normalises.
    """
    steps = list(encoder.preprocess.transforms)
    places = [i for i, step in enumerate(steps) if type(step).__name__ == "Normalize"]
    if len(places) != 1:
        raise ValueError(f"one step should normalise in the preprocessing of {encoder}: {steps}")
    steps.insert(places[0], _Darken())
    preprocess = type(encoder.preprocess)(steps)
    return Encoder(
        f"{encoder.name}, rescaled twice",
        encoder.model,
        preprocess,
        encoder.tokenizer,
        {**encoder.fingerprint, "preprocess": " ".join(repr(preprocess).split())},
        encoder.device,
    )
