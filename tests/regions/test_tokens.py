"""Patch vectors against the towers' own layers, and how masks pool them."""

from regionlab.models.torchvision_cpu import add_timm

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from regionlab.models.encoder import Encoder
from regionlab.models.registry import load_encoder
from regionlab.regions.patch_tokens import (
    CLIP_MEAN,
    CLIP_STD,
    encode_patches,
    encode_region_tokens,
    find_normalization,
    mask_to_grid,
)

import open_clip  # isort: skip

add_timm()

VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 8}
TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
HALF = (0.5, 0.5, 0.5)


def make_encoder(precision="fp32", mean=None, std=None, **vision):
    """An encoder with a tiny tower of random weights, none of them left at a neutral start."""
    dtype = torch.bfloat16 if precision == "bf16" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = open_clip.CLIP(16, VIT | vision, TEXT, cast_dtype=dtype)
        for parameter in model.visual.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    if dtype:
        open_clip.convert_weights_to_lp(model, dtype)
    size = model.visual.image_size
    preprocess = open_clip.image_transform(size, is_train=False, mean=mean, std=std)
    fingerprint = {"weights_sha256": "", "quick_gelu": False, "preprocess": ""}
    fingerprint["precision"] = precision
    return Encoder("tiny", model.eval(), preprocess, None, fingerprint, torch.device("cpu"))


@pytest.fixture(scope="module")
def vit():
    return make_encoder()


def make_image(height=40, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def watch_input(module, run):
    """Return what `module` is given while `run()` runs."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    run()
    handle.remove()
    return seen[0]


def box_mask(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


# ViT


@torch.inference_mode()
def test_vit_patches_are_the_last_blocks_values_without_its_attention(vit):
    image, visual = make_image(32, 32), vit.model.visual
    last = visual.transformer.resblocks[-1]
    x = watch_input(last, lambda: vit.encode_images(image))[0, 1:]
    value_weight, value_bias = last.attn.in_proj_weight[64:], last.attn.in_proj_bias[64:]
    value = linear(layer_norm(x, (32,), last.ln_1.weight, last.ln_1.bias), value_weight)
    x = x + linear(value + value_bias, last.attn.out_proj.weight, last.attn.out_proj.bias)
    hidden = layer_norm(x, (32,), last.ln_2.weight, last.ln_2.bias)
    hidden = gelu(linear(hidden, last.mlp.c_fc.weight, last.mlp.c_fc.bias))
    x = x + linear(hidden, last.mlp.c_proj.weight, last.mlp.c_proj.bias)
    x = layer_norm(x, (32,), visual.ln_post.weight, visual.ln_post.bias) @ visual.proj
    patches = encode_patches(vit, image)
    assert (patches.shape, patches.dtype) == ((4, 4, 16), np.float32)
    np.testing.assert_allclose(patches, x.numpy().reshape(4, 4, 16), atol=2e-5)


@pytest.mark.parametrize(
    "vision",
    [
        {"ls_init_value": 0.3},
        {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        {"qk_norm": True, "scale_attn_inner": True, "scale_attn": True, "scale_heads": True},
        {"image_size": (32, 16)},
    ],
)
@torch.inference_mode()
def test_kinds_of_vit_agree_with_their_last_block_masked_to_the_diagonal(vision):
    encoder = make_encoder(**vision)
    visual = encoder.model.visual
    image = make_image(*visual.image_size)
    last = visual.transformer.resblocks[-1]
    x = watch_input(last, lambda: encoder.encode_images(image))
    diagonal = torch.full((x.shape[1], x.shape[1]), -torch.inf).fill_diagonal_(0)
    x = visual.ln_post(last(x, attn_mask=diagonal))[0, 1:] @ visual.proj
    patches = encode_patches(encoder, image)
    assert patches.shape[:2] == (4, visual.image_size[1] // 8)
    np.testing.assert_allclose(patches.reshape(-1, 16), x.numpy(), atol=2e-5)


def test_a_vit_keeps_its_native_size_at_any_scale(vit):
    image = make_image()
    np.testing.assert_array_equal(
        encode_patches(vit, image, scale=3), encode_patches(vit, image, scale=1)
    )


def test_half_precision_gives_nearly_the_same_in_float32():
    image = make_image()
    exact, half = (encode_patches(make_encoder(p), image) for p in ("fp32", "bf16"))
    assert half.dtype == np.float32
    cosines = (exact * half).sum(2) / np.linalg.norm(exact, axis=2) / np.linalg.norm(half, axis=2)
    assert 0.99 < cosines.min() < 0.99999


# ResNet


@torch.inference_mode()
def test_resnet_patches_are_the_attention_pools_values(encoder):
    image, pool = make_image(128, 128), encoder.model.visual.attnpool
    features = watch_input(pool, lambda: encoder.encode_images(image))
    expected = features[0].flatten(1).T @ pool.v_proj.weight.T + pool.v_proj.bias
    expected = expected @ pool.c_proj.weight.T + pool.c_proj.bias
    patches = encode_patches(encoder, image, scale=1)
    assert patches.shape == (4, 4, encoder.dim)
    np.testing.assert_allclose(patches.reshape(16, -1), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_uniform_attention_without_positions_makes_the_image_vector_their_mean():
    encoder = load_encoder("toyclip", device="cpu", precision="fp32")
    pool, image = encoder.model.visual.attnpool, make_image(128, 128)
    for parameter in (pool.q_proj.weight, pool.q_proj.bias, pool.positional_embedding):
        parameter.data.zero_()
    mean = encode_patches(encoder, image, scale=1).mean((0, 1))
    whole = encoder.encode_images(image)[0]
    np.testing.assert_allclose(mean / np.linalg.norm(mean), whole, atol=1e-5)


def test_a_larger_input_makes_a_resnets_grid_finer(encoder):
    assert encode_patches(encoder, make_image()).shape == (8, 8, encoder.dim)
    assert encode_patches(encoder, make_image(), scale=3).shape == (12, 12, encoder.dim)


# Towers and preprocessing


@pytest.mark.parametrize(
    ("vision", "kind"),
    [
        ({"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160}, "TimmModel"),
        (
            {"attentional_pool": True, "attn_pooler_heads": 4},
            "VisionTransformer with attentional pooling",
        ),
        ({"layers": 1}, "VisionTransformer of one block"),
    ],
)
def test_a_tower_without_known_patch_tokens_is_named(vision, kind):
    with pytest.raises(ValueError, match=f"its image tower is a {kind}, .*another region encod"):
        encode_patches(make_encoder(**vision), make_image())


def test_a_scale_below_one_is_refused(encoder):
    with pytest.raises(ValueError, match="scale must be at least 1, got 0"):
        encode_patches(encoder, make_image(), scale=0)


def test_an_image_of_the_native_size_is_preprocessed_as_the_encoder_does():
    encoder = make_encoder(mean=HALF, std=(0.2, 0.3, 0.4))
    image, visual = make_image(32, 32), encoder.model.visual
    ours = watch_input(visual.conv1, lambda: encode_patches(encoder, image))
    theirs = watch_input(visual.conv1, lambda: encoder.encode_images(image))
    torch.testing.assert_close(ours, theirs)


def test_a_wide_image_is_squashed_not_cropped(vit):
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :10] = 255  # what a central square would lose
    pixels = watch_input(vit.model.visual.conv1, lambda: encode_patches(vit, image))
    assert pixels.shape[2:] == (32, 32)
    assert (pixels[0, 0, :, :4] > 1.5).all()
    assert (pixels[0, 0, :, 8:] < -1.5).all()


def test_normalization_is_the_encoders_own_or_clips(vit):
    assert find_normalization(make_encoder(mean=HALF, std=HALF)) == (HALF, HALF)
    other = make_encoder()
    other.preprocess = lambda image: torch.zeros(3, 32, 32)
    assert find_normalization(other) == find_normalization(vit) == (CLIP_MEAN, CLIP_STD)


# Pooling


def test_cover_of_cells_that_cut_pixels_apart():
    centre = box_mask((3, 3), 1, 1, 2, 2)
    np.testing.assert_allclose(mask_to_grid(centre, (2, 2)), np.full((2, 2), 1 / 9))
    corner = box_mask((3, 3), 0, 0, 2, 1)
    np.testing.assert_allclose(mask_to_grid(corner, (2, 2)), [[1.5 / 2.25, 0], [0.5 / 2.25, 0]])


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 5), (12, 8)])
@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (3, 5)])
def test_cover_is_the_mean_of_the_mask_enlarged_to_whole_cells(size, grid):
    mask = np.random.default_rng(1).random(size) < 0.5
    large = np.kron(mask, np.ones(grid))  # every cell is now size[0] by size[1] whole pixels
    expected = large.reshape(grid[0], size[0], grid[1], size[1]).mean((1, 3))
    np.testing.assert_allclose(mask_to_grid(mask, grid), expected, atol=1e-12)


def test_a_regions_vector_is_the_mean_of_its_patches_by_their_cover(vit):
    image, size = make_image(32, 32), (32, 32)
    patches = encode_patches(vit, image)
    masks = [
        np.ones(size, bool),
        box_mask(size, 8, 16, 16, 24),
        box_mask(size, 0, 0, 8, 12),  # all of the first patch, half of the next
        box_mask(size, 31, 0, 32, 1),  # a single pixel
    ]
    means = [patches.mean((0, 1)), patches[1, 2], (patches[0, 0] * 2 + patches[0, 1]) / 3]
    means.append(patches[3, 0])
    expected = np.stack([mean / np.linalg.norm(mean) for mean in means])
    vectors = encode_region_tokens(vit, image, masks)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
