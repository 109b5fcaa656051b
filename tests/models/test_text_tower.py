"""The text tower by itself: as far as the words reach, in order of length, with tuned weights."""

import copy

import numpy as np
import pytest
import torch

from regionlab.models.clip import (
    TextFeatures,
    TextTower,
    encode_by_length,
    encode_tokens,
    fast_attention,
    text_parameters,
)

from open_clip.model import CLIP, CustomTextCLIP  # isort: skip

TEXTS = [
    "add a small plain red star above the large dotted blue ring and take away the green square",
    "red",
    "make the ring green",
    "the same but on grass",
    "two stars",
]
BOTH = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8,
                                       "patch_size": 16}}  # fmt: skip
TEXT = {"context_length": 12, "vocab_size": 50, "width": 16, "heads": 2, "layers": 2}


@pytest.fixture
def tokens(encoder):
    return encoder.tokenize(TEXTS)


def draw_tokens(lengths, context=12, seed=0):
    """Draw rows of tokens of 1 to 48, closed by 49, then zeros."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), context, dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[: length - 1] = torch.randint(1, 49, (length - 1,), generator=generator)
        row[length - 1] = 49
    return tokens


@pytest.fixture
def build():
    def build(kind, **text):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(**BOTH, text_cfg=TEXT | text).eval()

    return build


def assert_close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


# Encoding


@torch.inference_mode()
@pytest.mark.parametrize("rows", [slice(None), slice(1, 2), slice(2, 4)])
def test_tokens_are_encoded_as_by_the_model(encoder, tokens, rows):
    assert_close(
        encode_tokens(encoder.model, tokens[rows]), encoder.model.encode_text(tokens[rows])
    )


@torch.inference_mode()
def test_a_text_that_fills_the_context_is_encoded_as_by_the_model(build):
    model, tokens = build(CLIP), draw_tokens([12, 3])
    assert_close(encode_tokens(model, tokens), model.encode_text(tokens))


@torch.inference_mode()
def test_what_follows_the_longest_text_is_not_computed(build):
    model, tokens = build(CLIP), draw_tokens([5, 7])
    expected = model.encode_text(tokens)
    model.positional_embedding[7:] = torch.nan
    assert not model.encode_text(tokens).isfinite().all()
    assert_close(encode_tokens(model, tokens), expected)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kind", "text"),
    [(CLIP, {"no_causal_mask": True}), (CLIP, {"pool_type": "last"}), (CustomTextCLIP, {})],
)
def test_towers_of_another_build_are_asked_as_they_are(build, kind, text):
    model, tokens = build(kind, **text), draw_tokens([5, 7])
    assert torch.equal(encode_tokens(model, tokens), model.encode_text(tokens))


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_encoding_in_order_of_length_equals_one_by_one(encoder, tokens, chunk):
    tower = TextTower(encoder.model)
    expected = torch.cat([encoder.model.encode_text(row[None]) for row in tokens])
    assert_close(encode_by_length(tower, tokens, chunk=chunk), expected)


def test_texts_of_like_length_go_together():
    seen = []

    def tower(tokens):
        seen.append(tokens.argmax(-1).tolist())
        return tokens[:, :1].float()

    tokens = draw_tokens([9, 2, 5, 3, 8])
    encoded = encode_by_length(tower, tokens, chunk=2)
    assert seen == [[1, 2], [4, 7], [8]]
    assert torch.equal(encoded, tokens[:, :1].float())


def collect_gradients(model, tokens, **how):
    model = copy.deepcopy(model)
    model.set_grad_checkpointing(how.get("checkpointing", False))
    direction = torch.linspace(-1, 1, 8)
    with fast_attention():
        if how.get("by_length"):
            encoded = encode_by_length(TextTower(model), tokens, chunk=2)
        else:
            encoded = model.encode_text(tokens)
        ((encoded * direction).sum(1) ** 2 * torch.arange(1.0, len(tokens) + 1)).sum().backward()
    return {name: p.grad for name, p in text_parameters(model).items()}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_model_with_and_without_checkpointing(build, checkpointing):
    model, tokens = build(CLIP), draw_tokens([9, 2, 5, 3, 8])
    expected = collect_gradients(model, tokens)
    found = collect_gradients(model, tokens, by_length=True, checkpointing=checkpointing)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


# Tuned weights beside the model's own


@pytest.fixture
def tuned(encoder):
    own = text_parameters(encoder.model)
    generator = torch.Generator().manual_seed(1)
    names = ["token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.weight", "ln_final.bias"]
    return {
        name: own[name].detach() + 0.05 * torch.randn(own[name].shape, generator=generator)
        for name in names
    }


def test_without_weights_features_are_the_encoders_own(encoder):
    expected = encoder.encode_texts(TEXTS, unit=False)
    found = TextFeatures(encoder).encode_texts(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        TextFeatures(encoder).encode_texts(TEXTS, batch_size=2), expected, atol=1e-5
    )


def test_with_weights_features_are_those_of_a_model_that_has_them(encoder, tuned, tokens):
    replaced = copy.deepcopy(encoder.model)
    replaced.load_state_dict(tuned, strict=False)
    with torch.inference_mode():
        expected = replaced.encode_text(tokens).numpy()
    found = TextFeatures(encoder, tuned).encode_texts(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - encoder.encode_texts(TEXTS, unit=False)).max() > 0.01


def test_the_frozen_model_is_untouched_afterwards(encoder, tuned):
    before = {name: t.clone() for name, t in encoder.model.state_dict().items()}
    frozen, features = TextFeatures(encoder), TextFeatures(encoder, tuned)
    first = frozen.encode_texts(TEXTS)
    features.encode_texts(TEXTS)
    np.testing.assert_array_equal(frozen.encode_texts(TEXTS), first)
    after = encoder.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_model_is_untouched_where_encoding_fails(encoder, tuned):
    first = encoder.encode_texts(TEXTS)
    with pytest.raises(IndexError):
        TextFeatures(encoder, tuned)._encode(torch.full((1, 64), 10**6))
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), first)


def test_no_texts_give_no_features(encoder):
    assert TextFeatures(encoder).encode_texts([]).shape == (0, encoder.dim)


def test_text_parameters_are_all_but_image_tower_and_scale(encoder):
    named = dict(encoder.model.named_parameters())
    rest = set(named) - set(text_parameters(encoder.model))
    assert "logit_scale" in rest
    assert all(name.startswith("visual.") for name in rest - {"logit_scale"})
    assert "text_projection" in text_parameters(encoder.model)


@pytest.mark.parametrize("name", ["logit_scale", "visual.conv1.weight", "transformer.nothing"])
def test_weights_that_are_not_the_text_towers_are_refused(encoder, name):
    with pytest.raises(ValueError, match=f"has no weight '{name}' in its text tower"):
        TextFeatures(encoder, {name: torch.zeros(1)})


def test_weights_of_another_shape_are_refused(encoder):
    with pytest.raises(ValueError, match=r"ln_final.bias of .* has shape \(192,\), got \(7,\)"):
        TextFeatures(encoder, {"ln_final.bias": torch.zeros(7)})
