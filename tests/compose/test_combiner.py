"""The Combiner: its forward from the published formulas, its sizes, dropout, and arrays."""

import numpy as np
import pytest
import torch

from regionlab.compose.combiner import Combiner, CombinerSize
from regionlab.compose.training import CombinerRecipe, EncodedTriplets, create_combiner, take_epoch

D = 6
RECIPE = CombinerRecipe(batch=8, learning_rate=1e-3, projection=2, hidden=3)


@pytest.fixture
def combiner():
    return create_combiner(D, RECIPE)


def draw(count, seed=0, d=D):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 3, (count, d)).astype(np.float32) for _ in range(2)]


def compose_slowly(combiner, images, texts):
    """One query at a time, in float64, from c, v and lambda as the authors define them."""
    w = {name: t.double().numpy() for name, t in combiner.state_dict().items()}

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def relu(x):
        return np.maximum(x, 0)

    out = []
    for i, t in zip(images.astype(float), texts.astype(float), strict=True):
        c = np.concatenate([relu(linear("project_text.0", t)), relu(linear("project_image.0", i))])
        v = linear("combine.1", relu(linear("combine.0.0", c)))
        share = 1 / (1 + np.exp(-linear("mix.1", relu(linear("mix.0.0", c)))))
        query = v + share * t + (1 - share) * i
        out.append(query / np.sqrt((query**2).sum()))
    return np.array(out)


def test_forward_is_that_of_the_formulas(combiner):
    images, texts = draw(20)
    expected = compose_slowly(combiner, images, texts)
    found = combiner.eval()(torch.from_numpy(images), torch.from_numpy(texts))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(combiner.compose(images, texts), expected, atol=1e-5)


@pytest.mark.parametrize(("bias", "share"), [(100.0, 1.0), (-100.0, 0.0), (0.0, 0.5)])
def test_the_share_is_that_of_the_text(combiner, bias, share):
    with torch.no_grad():
        for layer in (combiner.combine[1], combiner.mix[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        combiner.mix[1].bias.fill_(bias)
    images, texts = draw(3)
    expected = share * texts + (1 - share) * images
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(combiner.compose(images, texts), expected, atol=1e-6)


def test_layers_of_the_usual_size_are_four_and_eight_times_the_width():
    with torch.device("meta"):
        combiner = Combiner(CombinerSize(640))
    shapes = {name: tuple(p.shape) for name, p in combiner.named_parameters() if p.ndim == 2}
    assert shapes == {
        "project_text.0.weight": (2560, 640),
        "project_image.0.weight": (2560, 640),
        "combine.0.0.weight": (5120, 5120),
        "combine.1.weight": (640, 5120),
        "mix.0.0.weight": (5120, 5120),
        "mix.1.weight": (1, 5120),
    }


@pytest.mark.parametrize("size", [(0,), (-1,), (6, 0), (6, 1, 2.5), ("6",)])
def test_a_size_that_is_no_whole_number_from_1_is_refused(size):
    with pytest.raises(ValueError, match="whole number from 1 up"):
        CombinerSize(*size)


def test_dropout_is_for_training_only(combiner):
    images, texts = map(torch.from_numpy, draw(4))
    combiner.train()
    torch.manual_seed(0)
    assert not torch.equal(combiner(images, texts), combiner(images, texts))
    combiner.eval()
    assert torch.equal(combiner(images, texts), combiner(images, texts))


def test_dropout_leaves_out_units_of_all_four_layers(combiner):
    layers = [m for m in combiner.modules() if isinstance(m, torch.nn.Dropout)]
    assert [layer.p for layer in layers] == [0.5] * 4
    still = create_combiner(D, CombinerRecipe(dropout=0.0, projection=2, hidden=3))
    images, texts = map(torch.from_numpy, draw(4))
    assert torch.equal(still.train()(images, texts), still.eval()(images, texts))


def test_composing_arrays_needs_no_call_of_eval_and_keeps_order(combiner):
    images, texts = draw(7)
    whole = combiner.train().compose(images, texts)
    np.testing.assert_allclose(combiner.compose(images, texts, batch=2), whole, atol=1e-6)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_no_queries_compose_to_none(combiner):
    empty = np.empty((0, D), np.float32)
    assert combiner.compose(empty, empty).shape == (0, D)


def test_fewer_texts_than_images_are_refused(combiner):
    images, texts = draw(7)
    with pytest.raises(ValueError, match="zip"):
        combiner.compose(images, texts[:2], batch=2)


# Training it


def test_the_seed_decides_the_first_weights_and_leaves_other_numbers_alone():
    before = torch.get_rng_state()
    first, again = create_combiner(D, RECIPE), create_combiner(D, RECIPE)
    other = create_combiner(D, CombinerRecipe(seed=1, projection=2, hidden=3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.combine[1].weight, again.combine[1].weight)
    assert not torch.equal(first.combine[1].weight, other.combine[1].weight)


def sample_triplets(count=64, forms=3, d=D):
    """Draw triplets whose target is the sum of reference and any wording."""
    rng = np.random.default_rng(0)
    images, texts = (rng.normal(0, 3, (count, d)).astype(np.float32) for _ in range(2))
    wordings = np.repeat(texts[:, None], forms, 1)
    return EncodedTriplets(*map(torch.from_numpy, (images, images + 3 * texts, wordings)))


def test_an_epoch_after_the_other_lowers_the_loss(combiner):
    optimizer = torch.optim.Adam(combiner.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    losses = [take_epoch(combiner, optimizer, sample_triplets(), 16, rng) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_an_epoch_uses_every_wording_of_a_triplet(combiner):
    training_set = sample_triplets(count=8, forms=3)
    training_set.texts.requires_grad_(True)
    optimizer = torch.optim.Adam(combiner.parameters())
    rng = np.random.default_rng(0)
    used = torch.zeros(8, 3, dtype=torch.bool)
    for _ in range(30):
        training_set.texts.grad = None
        take_epoch(combiner, optimizer, training_set, 8, rng)
        now = training_set.texts.grad.abs().sum(-1) > 0
        assert (now.sum(1) == 1).all()  # one of them in each epoch
        used |= now
    assert used.all()
