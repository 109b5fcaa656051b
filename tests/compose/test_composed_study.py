"""Benchmarks, the ladder on them, and the stages of training on Toybox's triplets."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from regionlab.compose import composers as fusions
from regionlab.compose.benchmark import (
    Benchmark,
    ComposedFeatures,
    find_groups,
    fit_weight,
    load_benchmark,
    load_kinds,
    study_ladder,
)
from regionlab.compose.composers import COMPOSERS, create_composer
from regionlab.compose.files import TEXT, TrainedParts
from regionlab.compose.protocols import CirrProtocol, FashionIqProtocol
from regionlab.compose.stages import Setup
from regionlab.compose.training import CombinerRecipe, TextRecipe
from regionlab.data.triplets import Triplets, make_queries
from regionlab.metrics.stats import compare_paired, mean_with_ci
from regionlab.models.clip import TextFeatures
from regionlab.models.registry import load_encoder
from regionlab.models.weights import WeightsError
from toybox import disk as triplets_on_disk
from toybox.train import STAGES, train_composed, train_model

N = 24
CIRR, UNION = CirrProtocol(), FashionIqProtocol("union")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Benchmarks, of vectors that are drawn


def draw_features(seed, *, q=12, subset=True, d=192, category=""):
    rng = np.random.default_rng(seed)
    names = tuple(f"image{i}" for i in range(N))
    rows = []
    for i in range(q):
        members = [names[j] for j in rng.choice(N, 6, replace=False)]
        words = (f"is red and has {i} dots",)
        rows.append((str(i), *members[:2], words, tuple(members) if subset else ()))
    triplets = Triplets(
        "some", "val", category, make_queries(rows), names, {name: name for name in names}
    )
    return ComposedFeatures(triplets, rng.normal(0, 0.3, (N, d)).astype(np.float32), [])


def make_queries_about(references, subsets=None, name="cirr"):
    images = tuple(sorted({*references, "target", *(i for s in subsets or () for i in s)}))
    rows = [
        (str(i), reference, "target", ("words",), (subsets or [()] * len(references))[i])
        for i, reference in enumerate(references)
    ]
    return Triplets(name, "val", "", make_queries(rows), images, {i: i for i in images})


def label_alike(groups):
    return [groups.index(label) for label in groups]


def test_queries_of_one_subset_are_a_group_in_whatever_order_it_is_told():
    one, other = ("a", "b", "target"), ("c", "d", "target")
    triplets = make_queries_about(["a", "c", "b"], [one, other, one[::-1]])
    assert label_alike(find_groups(triplets)) == [0, 1, 0]


def test_queries_without_subsets_are_a_group_by_their_reference():
    assert label_alike(find_groups(make_queries_about(["a", "b", "a"]))) == [0, 1, 0]


def test_queries_of_one_group_of_toyboxs_scenes_are_a_group_in_either_layout():
    named = make_queries_about(["test-3-0", "test-3-5", "test-13-0"], name="toybox fashioniq")
    assert label_alike(find_groups(named)) == [0, 0, 2]


def draw_composed_vectors(part, seed=0):
    rng = np.random.default_rng(seed)
    near = part.gallery[part.triplets.target_rows]
    return unit(near + 0.1 * rng.normal(size=near.shape)).astype(np.float32)


@pytest.fixture
def cirr():
    return Benchmark(CIRR, {"": draw_features(0)})


@pytest.fixture
def fashioniq():
    sets = {c: draw_features(i, q=8 + 4 * i, subset=False, category=c)
            for i, c in enumerate(("dress", "shirt"))}  # fmt: skip
    return Benchmark(UNION, sets)


def test_a_benchmark_says_what_it_is(cirr, fashioniq):
    assert repr(cirr) == "<Benchmark some val, cirr: 12 queries>"
    assert fashioniq.queries == 8 + 12
    lengths = [np.linalg.norm(p.vectors, axis=1).mean() for p in fashioniq.sets.values()]
    assert fashioniq.image_length == pytest.approx(np.mean(lengths))


def test_failures_of_shared_images_are_listed_once(cirr):
    part = cirr.sets[""]
    lost = [("a", "missing"), ("b", "cut short")]
    sets = {"x": ComposedFeatures(part.triplets, part.vectors, lost),
            "y": ComposedFeatures(part.triplets, part.vectors, lost[:1])}  # fmt: skip
    assert Benchmark(FashionIqProtocol(), sets).failures == lost


def test_cirr_is_measured_by_its_protocol(cirr):
    composed = draw_composed_vectors(cirr.sets[""])
    part = cirr.sets[""]
    measured = cirr.measure({"": composed})
    expected = CIRR.measure(composed, part.gallery, part.triplets)
    assert set(measured[""]) == set(expected)
    for name, hits in expected.items():
        np.testing.assert_array_equal(measured[""][name], hits)
    assert cirr.score(measured) == CIRR.score({"": expected})
    groups = find_groups(part.triplets)
    assert cirr.summarise(measured, seed=0) == {
        name: mean_with_ci(hits, seed=0, groups=groups) for name, hits in expected.items()
    }


def test_fashioniq_is_measured_by_its_protocol_in_the_gallery_that_was_chosen(fashioniq):
    composed = {c: draw_composed_vectors(part) for c, part in fashioniq.sets.items()}
    measured = fashioniq.measure(composed)
    expected = {
        c: UNION.measure(composed[c], part.gallery, part.triplets)
        for c, part in fashioniq.sets.items()
    }
    for category, metrics in expected.items():
        for name, hits in metrics.items():
            np.testing.assert_array_equal(measured[category][name], hits)
    assert fashioniq.score(measured) == UNION.score(expected)
    means = [metrics["hit@10"].mean() for metrics in expected.values()]
    assert fashioniq.summarise(measured, seed=0)["hit@10"]["value"] == pytest.approx(np.mean(means))


def test_composers_are_given_references_and_texts(cirr):
    part = cirr.sets[""]

    def compose(images, texts):
        np.testing.assert_array_equal(images, part.vectors[part.triplets.reference_rows])
        assert texts == part.triplets.texts()
        return unit(images)

    np.testing.assert_array_equal(cirr.compose(compose)[""], unit(part.references))


def test_differences_are_over_the_same_queries(cirr, fashioniq):
    rng = np.random.default_rng(0)
    a, b = ({"": {"hit@1": rng.integers(0, 2, 12).astype(float)}} for _ in range(2))
    found = cirr.compare(a, b, "hit@1", seed=0)
    assert found["value"] == pytest.approx((a[""]["hit@1"] - b[""]["hit@1"]).mean())
    sizes = {c: len(part.triplets) for c, part in fashioniq.sets.items()}
    a = {c: {"hit@10": np.ones(n)} for c, n in sizes.items()}
    b = {c: {"hit@10": np.arange(n) % 2.0} for c, n in sizes.items()}
    found = fashioniq.compare(a, b, "hit@10", seed=0)
    assert found["value"] == pytest.approx(1 / 2)
    assert found["ci95"][0] > 0
    assert found["n"] == 20


def test_intervals_of_cirr_draw_whole_subsets():
    members = [("a", "b", "target"), ("c", "d", "target"), ("e", "f", "target")]
    triplets = make_queries_about(list("abcdef"), [members[i // 2] for i in range(6)])
    benchmark = Benchmark(CIRR, {"": ComposedFeatures(triplets, np.zeros((7, 2)), [])})
    hits, others = np.array([1, 1, 0, 0, 1, 0.0]), np.zeros(6)
    of_subset = {"seed": 0, "groups": [0, 0, 1, 1, 2, 2]}
    found = benchmark.summarise({"": {"hit@1": hits}}, seed=0)["hit@1"]
    assert found == mean_with_ci(hits, **of_subset)
    found = benchmark.compare({"": {"hit@1": hits}}, {"": {"hit@1": others}}, "hit@1", seed=0)
    assert found == compare_paired(hits, others, **of_subset)


# Weights and the ladder


def slow_scores(name, encoder, benchmark, weights):
    part = benchmark.sets[""]
    texts = TextFeatures(encoder).encode_texts(part.triplets.texts())
    fusion = COMPOSERS[name].fusion
    scores = []
    for weight in weights:
        composed = unit(fusion(part.references, texts, weight=weight))
        scores.append(CIRR.score({"": CIRR.measure(composed, part.gallery, part.triplets)}))
    return scores


@pytest.mark.parametrize("name", ["weighted", "slerp"])
def test_the_weight_has_the_best_score_and_is_the_smallest_of_equals(encoder, cirr, name):
    part = cirr.sets[""]
    texts = TextFeatures(encoder).encode_texts(part.triplets.texts())
    wanted = COMPOSERS[name].fusion(part.references, texts, weight=0.4)
    part.vectors[part.triplets.target_rows] = wanted  # some images are the target of several
    weights = (0.0, 0.2, 0.4, 0.6, 1.0)
    weight, scores = fit_weight(name, encoder, cirr, weights=weights)
    assert scores == slow_scores(name, encoder, cirr, weights)
    assert scores[weights.index(weight)] == max(scores) > scores[0]
    assert weight == next(w for w, s in zip(weights, scores, strict=True) if s == max(scores))


def test_the_ladder_is_composed_and_measured_rung_by_rung(encoder, cirr, tmp_path):
    names = ("image", "sum", "slerp")
    study = study_ladder(encoder, cirr, weights={"slerp": 0.3}, names=names, folder=tmp_path)
    part = cirr.sets[""]
    texts = TextFeatures(encoder).encode_texts(part.triplets.texts())
    expected = {
        "image": part.references,
        "sum": fusions.add(part.references, texts),
        "slerp": fusions.slerp(part.references, texts, weight=0.3),
    }
    assert list(study.composed) == list(names)
    for name, vectors in expected.items():
        np.testing.assert_allclose(study.composed[name][""], unit(vectors), atol=1e-5)
    assert set(study.summarise(seed=0)["sum"]) == set(study.measured["sum"][""])
    found = study.compare("sum", "image", "hit@5", seed=0)
    hits = [study.measured[name][""]["hit@5"].mean() for name in ("sum", "image")]
    assert found["value"] == pytest.approx(hits[0] - hits[1])


# From files


def write_fashioniq(root):
    """Write two categories that hold the same pictures, in another order."""
    names = [f"i{i}" for i in range(5)]
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for name in names:
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    for category, order in (("dress", names), ("shirt", names[::-1])):
        pair = {"candidate": "i0", "target": "i3", "captions": ["is red", "has dots"]}
        for kind, content in (("captions/cap", [pair]), ("image_splits/split", order)):
            file = root / f"{kind}.{category}.val.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(content))


def test_categories_of_the_same_images_in_another_order_keep_their_rows(encoder, tmp_path):
    write_fashioniq(tmp_path)
    benchmark = load_benchmark(encoder, "fashioniq", tmp_path, gallery="union")
    assert benchmark.protocol == UNION
    dress, shirt = (benchmark.sets[c] for c in ("dress", "shirt"))
    np.testing.assert_allclose(dress.vectors, shirt.vectors[::-1], atol=1e-5)
    expected = encoder.encode_images(tmp_path / "images" / "i0.png", unit=False)
    for part in (dress, shirt):
        np.testing.assert_allclose(part.references, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("coco",), {}, "data must be one of 'cirr', 'fashioniq', 'toybox', got 'coco'"),
        (("cirr",), {}, "cirr needs root, the folder that it lies in"),
        (("toybox",), {"layout": "coco"}, "layout must be one of .*, got 'coco'"),
        (("toybox",), {"split": "dev"}, "'dev'"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(encoder, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(encoder, *arguments, **options)


# Toybox


@pytest.fixture(scope="module")
def toybox(tmp_path_factory):
    """Toybox's own places for triplets, moved to a folder of the test and made small."""
    root = tmp_path_factory.mktemp("toybox")
    with pytest.MonkeyPatch.context() as patch:
        for split in triplets_on_disk.ROOTS:
            patch.setitem(triplets_on_disk.ROOTS, split, root / f"{split}-changes")
        patch.setitem(triplets_on_disk.GROUPS, "val", 4)
        patch.setitem(triplets_on_disk.GROUPS, "train", 4)
        yield root


@pytest.fixture(scope="module")
def toyclip():
    return load_encoder("toyclip", device="cpu", precision="fp32")


def test_toybox_is_read_in_both_layouts(encoder, toybox):
    cirr = load_benchmark(encoder, "toybox")
    fashioniq = load_benchmark(encoder, "toybox", layout="fashioniq")
    assert (cirr.queries, len(cirr.sets[""].vectors)) == (24, 24)
    assert fashioniq.queries == 24
    assert set(fashioniq.sets) == {"attribute", "ground", "things"}
    first, *others = fashioniq.sets.values()
    assert all(part.vectors is first.vectors for part in others)  # encoded once
    np.testing.assert_array_equal(first.vectors, cirr.sets[""].vectors)


def test_kinds_of_change_are_told_for_toybox_alone(encoder, toybox):
    for layout in ("cirr", "fashioniq"):
        benchmark = load_benchmark(encoder, "toybox", layout=layout)
        kinds = load_kinds(benchmark, "toybox")
        assert {c: len(k) for c, k in kinds.items()} == {
            c: len(part.triplets) for c, part in benchmark.sets.items()
        }
    assert set(kinds["ground"]) <= {"ground", "combined"}
    assert load_kinds(benchmark, "cirr", "anywhere") is None


SMALL = {
    "text": TextRecipe(epochs=2, batch=8, learning_rate=3e-4, amp="bf16", dtype="int8"),
    "combiner": CombinerRecipe(epochs=2, batch=8, projection=1, hidden=1, learning_rate=1e-3),
}


@pytest.fixture
def setup(toybox, tmp_path):
    return Setup("toyclip", "toybox", folder=tmp_path, padding="none", layout="cirr")


def test_both_stages_are_chosen_by_the_protocols_own_score(setup, toyclip, tmp_path):
    for stage in ("text", "fine_tuned_combiner"):
        found = setup.train(stage, SMALL[stage.rsplit("_", 1)[-1]])
        best = max(found["validation"], key=lambda v: v["score"])
        assert found["best_score"] == best["score"]
        expected = (best["hit@5"] + best["subset_hit@1"]) / 2
        assert best["score"] == pytest.approx(expected, abs=1e-5)
    validation_set = load_benchmark(toyclip, "toybox")
    composer = create_composer("fine_tuned_combiner", toyclip, folder=tmp_path)
    score = validation_set.score(validation_set.measure(validation_set.compose(composer.compose)))
    assert score == pytest.approx(found["best_score"], abs=0.1)  # but for precision


def test_training_has_two_captions_a_triplet_and_validation_one(setup):
    assert len(setup.training_set) == 24
    assert {len(forms) for forms in setup.training_set.wordings} == {4}
    assert setup.validation_set.protocol.name == "cirr"
    lengths = np.linalg.norm(setup.training_set.references, axis=1)
    assert setup.training_set.image_length == pytest.approx(lengths.mean(), rel=0.05)


def test_the_second_stage_on_tuned_texts_needs_the_first(setup):
    with pytest.raises(WeightsError, match="there is no .*composed_text.safetensors"):
        setup.train("fine_tuned_combiner", SMALL["combiner"])


def test_an_unknown_stage_is_refused(setup):
    with pytest.raises(ValueError, match="stage must be one of 'text', 'combiner', 'fine_tuned_c"):
        setup.train("sum", SMALL["combiner"])


def test_training_of_other_triplets_starts_over(toybox, tmp_path, capsys):
    for groups, starts_over in ((4, False), (4, False), (3, True)):
        setup = Setup("toyclip", "toybox", folder=tmp_path, padding="none", groups=groups)
        setup.train("combiner", SMALL["combiner"])
        assert ("training starts over" in capsys.readouterr().out) == starts_over


def test_toyboxs_parts_are_trained_in_their_order(toybox, toyclip, tmp_path):
    for name in STAGES:
        weights = tmp_path / f"{name}.safetensors"
        found = train_composed(name, {"steps": 1}, tmp_path / "cache", weights)
        assert (found["step"], found["epoch"], found["recipe"]["groups"]) == (1, 1, 4)
        assert (tmp_path / f"{name}.safetensors").stat().st_size < 3e6
        assert (tmp_path / "cache" / "checkpoints" / f"{name}.pt").is_file()
    parts = TrainedParts(toyclip, tmp_path)
    assert parts.path(TEXT).is_file()
    for name in ("fine_tuned_sum", "combiner", "fine_tuned_combiner"):
        composer = create_composer(name, toyclip, folder=tmp_path)
        assert composer.compose(np.ones((1, toyclip.dim)), ["make the ring green"]).shape == (
            1,
            192,
        )


def test_a_trial_leaves_record_and_card_of_its_own(toybox, tmp_path):
    record = train_model("composed_combiner", folder=tmp_path, scenes=24, steps=2)
    trial = tmp_path / "cache" / "trial"
    assert record == json.loads((trial / "composed_combiner.json").read_text())
    assert not (tmp_path / "composed_combiner.safetensors").exists()
    assert (record["steps"], record["recipe"]["groups"], len(record["curve"])) == (2, 4, 2)
    card = (trial / "README.md").read_text()
    assert "## composed_combiner" in card
    assert "4 groups of six scenes" in card
    assert "| epochs | 2 |" in card
    best = max(v["score"] for v in record["validation"])
    assert f"{best:.3f}" in card
    assert "text-to-image" not in card
