"""Every notebook, run by the runner on a small world with one broken picture in it."""

import json
import shutil

import pytest
import yaml

from regionlab.data.prompts import Box, Points, Selection
from regionlab.models.weights import TOYBOX
from regionlab.runs import runner as runs
from regionlab.runs.profiles import load_profile
from regionlab.runs.report import correct_holm
from regionlab.util import paths
from result_intervals import list_unexcused
from toybox.disk import write_class_folders, write_split
from toybox.episodes import write_episodes

SCENES = 60


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace of its own, with the checkout's notebooks and Toybox weights."""
    root = tmp_path_factory.mktemp("a workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REGIONLAB_ROOT", raising=False)
        patch.setattr(paths, "ROOT", root)
        for name, place in {"FIGURES": "figures", "DATA": "data", "RUNS": "data/runs"}.items():
            patch.setattr(paths, name, root / place)
        (root / "data/toybox").mkdir(parents=True)
        shutil.copy(paths.find_root() / "data/claims.csv", root / "data")
        for weights in ("toydir", "composed_text", "composed_combiner", "composed_tuned_combiner"):
            shutil.copy(TOYBOX / f"{weights}.safetensors", root / "data/toybox")
        for weights in ("toyclip", "toysam"):
            shutil.copy(TOYBOX / f"{weights}.safetensors", root / "data/toybox")
        yield root


@pytest.fixture(scope="module")
def world(workspace):
    folder = workspace / "data/small world"
    for split in ("test", "novel", "val"):
        write_split(folder, split, SCENES)
    broken = sorted((folder / "images/test").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:2000])
    return folder


def run_notebooks(workspace, name, notebooks, **parameters):
    """Run notebooks as one profile and return the record and the results of each."""
    profile = {"name": name, "notebooks": [{"notebook": n, "parameters": p} for n, p in notebooks]}
    file = workspace / f"{name}.yaml"
    file.write_text(yaml.safe_dump(profile | {"parameters": parameters}))
    outcomes = runs.run_profile(load_profile(file))
    assert [outcome.status for outcome in outcomes] == ["ok"] * len(notebooks), outcomes
    return {
        n: json.loads((workspace / f"figures/{name}/{n}.json").read_text()) for n, _ in notebooks
    }


@pytest.fixture(scope="module")
def results(workspace, world):
    books = [
        ("01_build_index", {"workers": 1, "batch_size": 16}),
        ("02_search_text_and_image", {"resamples": 100}),
    ]
    return run_notebooks(
        workspace, "small", books,
        dataset="coco", root="data/small world", split="test", precision="fp32",
    )  # fmt: skip


def test_index_notebook_counts_the_broken_picture(results):
    found = results["01_build_index"]["results"]
    assert (found["images"], found["failures"], found["missing_files"]) == (SCENES - 1, 1, 0)
    assert found["finds_itself"] == 1
    assert found["vectors_megabytes"] == pytest.approx((SCENES - 1) * 4 * found["dimensions"] / 1e6)


def test_search_notebook_asks_for_every_indexed_image_once(results):
    found = results["02_search_text_and_image"]["results"]
    assert found["gallery"] == found["text_to_image"]["hit@1"]["n"] == SCENES - 1
    assert found["image_to_image"]["mAP"]["n"] <= SCENES - 1
    assert found["generalization"]["held-out_combinations"]["hit@1"]["n"] == SCENES


def test_search_notebook_finds_what_captions_describe(results):
    found = results["02_search_text_and_image"]["results"]
    assert found["text_to_image"]["hit@5"]["value"] > 0.9
    assert found["text_to_image"]["mAP"]["ci95"][0] > found["image_to_image"]["mAP"]["ci95"][1]


def test_notebooks_note_model_and_index(results):
    records = [results[n]["record"] for n in ("01_build_index", "02_search_text_and_image")]
    assert records[0]["extras"]["index"] == records[1]["extras"]["index"]
    assert records[0]["extras"]["model"]["precision"] == "fp32"


@pytest.fixture(scope="module")
def more(workspace, world, results):
    """Results of the notebooks about maps, probes, neighbours, films and the papers' numbers."""
    write_class_folders(workspace / "data/classes", per_class=6)
    write_episodes(workspace / "data/films", count=2, seconds=40)
    books = [
        ("07_embedding_map", {"dataset": "coco", "root": "data/small world"}),
        ("08_svm_probe", {"dataset": "classes", "root": "data/classes", "split": "",
                          "gammas": [0.01, 1.0], "originals": 0}),
        ("09_label_by_neighbours", {"limit_gallery": 200, "limit_queries": 50}),
        ("15_search_video", {"root": "data/films"}),
        ("11_engines_and_scale", {"dataset": "coco", "root": "data/small world",
                                  "sizes": [200, 2000], "cells": [0, 16], "queries": 20,
                                  "limits": {"HNSW32": 10_000, "chroma": 200},
                                  "paper": {"images": 50, "encoder": "toyclip", "batch": 16,
                                            "timed": 2}}),
        ("12_paper_claims", {"results_of": "small"}),
    ]  # fmt: skip
    return run_notebooks(workspace, "more", books, resamples=50)


def test_probe_notebook_reads_classes_from_vectors(more):
    found = more["08_svm_probe"]["results"]["test"]
    chance = found["most frequent class"]["accuracy"]["value"]
    assert found["scaled SVM gamma auto"]["accuracy"]["value"] > 5 * chance


def test_neighbour_notebook_labels_digits(more):
    ways = more["09_label_by_neighbours"]["results"]["ways"]
    assert ways["CLIP"]["top1"]["n"] == 50
    assert ways["CLIP"]["among"]["value"] >= ways["CLIP"]["top1"]["value"] > 0.3


def test_scale_notebook_measures_every_engine_at_each_size(more):
    engines = more["11_engines_and_scale"]["results"]["engines"]
    assert set(engines["200"]) == {"exact", "Flat", "HNSW32", "chroma"}
    assert set(engines["2000"]) == {"exact", "Flat", "IVF16,Flat", "IVF16,SQ8", "HNSW32"}
    assert engines["2000"]["exact"]["recall"]["value"] == 1
    assert engines["2000"]["IVF16,Flat"]["chosen_at"] >= 0.99


def test_scale_notebook_measures_recall_on_queries_that_chose_nothing(more):
    for of_size in more["11_engines_and_scale"]["results"]["engines"].values():
        for engine in of_size.values():
            kinds = [engine["recall_image"], engine["recall_text"]]
            assert engine["recall"] == min(kinds, key=lambda one: one["value"])
            assert engine["recall"]["n"] == 20  # the other 20 of each kind


def test_claims_notebook_judges_every_number(more):
    found = more["12_paper_claims"]["results"]
    assert found["numbers"] == 321
    assert found["verdicts"]["arithmetically impossible"] == 30
    assert found["measured"] >= 4  # digits are not measured in MNIST's place


@pytest.fixture(scope="module")
def regions(workspace, world):
    """Results of the notebooks about regions; the selection is a box and a click."""
    image = sorted((world / "images/test").iterdir())[0]
    prompts = (Box(10, 10, 120, 120), Points(((180, 180),)))
    Selection(load_ids(world)[image.name], (256, 256), prompts).save(workspace / "selection.json")
    books = [
        ("05_compare_region_encodings", {"encodings": ["crop", "tokens"], "images": 30}),
        ("04_compare_prompts", {}),
        ("19_match_several_objects", {"pairs": 8, "betas": [0.0, 0.1]}),
        ("03_search_by_region", {"selection": "selection.json"}),
        ("06_compare_methods", {"baselines": {"DIR": "toydir"}}),
        ("10_composed_search", {"dataset": "toybox", "root": "", "groups": 12, "panels": 1}),
        ("20_compose_with_regions", {"groups": 12, "selection": "selection.json"}),
        ("13_relevance_feedback", {"rounds": 3, "page": 5}),
        ("14_user_ratings", {"baselines": {"DIR": "toydir"}, "per_rater": 6,
                             "simulated_raters": 4}),
    ]  # fmt: skip
    return run_notebooks(
        workspace, "regions", books,
        dataset="coco", root="data/small world", split="test", precision="fp32",
        count=12, val_images=20, resamples=50,
    )  # fmt: skip


def load_ids(world):
    """Return the image id of each file of the test split."""
    images = json.loads((world / "annotations/instances_test.json").read_text())["images"]
    return {image["file_name"]: str(image["id"]) for image in images}


def test_prompt_notebook_finds_masks_and_images(regions):
    found = regions["04_compare_prompts"]["results"]
    assert found["gallery"] == SCENES - 1
    assert found["mask_iou"]["box"]["value"] > 0.8
    assert found["mask_iou"]["box"]["n"] == 12
    assert found["region_vs_image"]["map_difference"]["value"] > 0.3
    assert found["wrong_ground_wins"]["region_to_region"]["value"] < 0.5


def test_matching_notebook_measures_two_objects_and_both_overlaps(regions):
    found = regions["19_match_several_objects"]["results"]
    precision = found["two_objects"]["set_matching_regions"]["mAP"]
    assert precision["n"] + precision.get("n_undefined", 0) == 8
    assert found["rol"]["map_difference"]["n"] == found["rol_of_masks"]["map_difference"]["n"] == 12


def test_method_notebook_compares_all_on_the_same_queries(regions):
    methods = regions["06_compare_methods"]["results"]["methods"]
    assert {"DIR", "DIR_box_crop", "CLIP-only", "SAM-CLIP"} <= set(methods)
    assert {methods[name]["mAP"]["n"] for name in methods} == {12}
    assert methods["SAM-CLIP"]["mAP"]["value"] > methods["DIR"]["mAP"]["value"]


def test_encoding_notebook_compares_what_it_was_given(regions):
    found = regions["05_compare_region_encodings"]["results"]
    assert set(found["encodings"]) == {"crop", "tokens"}
    assert found["encodings"]["crop"]["mAP"]["value"] > 0.5
    assert found["recommended"] in found["encodings"]


def test_composed_notebook_climbs_the_ladder_in_both_layouts(regions):
    found = regions["10_composed_search"]["results"]
    assert found["queries"] == {"cirr": 72, "fashioniq": 72}
    for layout, metric in (("cirr", "hit@5"), ("fashioniq", "hit@10")):
        values = {name: measures[metric]["value"] for name, measures in found[layout].items()}
        assert values["fine_tuned_combiner"] > values["sum"] > values["text"]


def test_composed_notebook_changes_regions_by_words(regions):
    found = regions["20_compose_with_regions"]["results"]["regions"]
    assert found["weighted"]["value"] > found["image"]["value"]


def test_feedback_notebook_measures_every_round_of_each_method(regions):
    found = regions["13_relevance_feedback"]["results"]
    assert set(found["rounds"]) == {"region", "whole_image", "words"}
    for methods in found["rounds"].values():
        assert set(methods) == {"rocchio", "logistic"}
        assert all(set(rounds) == {"0", "1", "2", "3"} for rounds in methods.values())
    assert found["gain_after"] == 3


def test_rating_notebook_says_that_its_raters_are_simulated(workspace, regions):
    found = regions["14_user_ratings"]["results"]
    assert found["simulated"] is True
    assert (found["raters"], found["ratings"] + found["skipped"]) == (4, 4 * 6 * 3)
    assert set(found["SIMULATED_methods"]) == {"DIR", "CLIP-only", "SAM-CLIP"}
    for name in ("14_ratings", "14_shares", "14_table"):
        assert "SIMULATED" in (workspace / f"figures/regions/{name}.json").read_text()


def test_rating_notebook_tests_nothing_about_simulated_raters(regions):
    found = regions["14_user_ratings"]["results"]
    names = [name for name in found if name.endswith(("methods", "lead_of_SAM-CLIP", "agreement"))]
    assert len(names) == 3 and all(name.startswith("SIMULATED_") for name in names)
    leads = found["SIMULATED_lead_of_SAM-CLIP"].values()
    assert len(leads) == 2 and not any("p_value" in lead for lead in leads)


def test_feedback_notebook_corrects_all_its_tests(regions):
    found = regions["13_relevance_feedback"]["results"]["rounds"]
    gains = [r["gain"] for of in found.values() for rs in of.values() for r in rs.values()
             if "gain" in r]  # fmt: skip
    assert [g["p_holm"] for g in gains] == correct_holm([g["p_value"] for g in gains])


def test_composed_notebook_counts_scenes_that_are_alike_once(regions):
    found = regions["10_composed_search"]["results"]
    assert found["groups"] == {"cirr": 12, "fashioniq": 12}


@pytest.mark.parametrize("runs_of", ["results", "more", "regions"])
def test_results_have_an_interval_or_are_excused_from_it(request, runs_of):
    found = request.getfixturevalue(runs_of)
    bare = {name: list_unexcused(name, one["results"]) for name, one in found.items()}
    assert bare == {name: [] for name in found}


def test_search_notebook_measures_held_out_combinations_alone(world, results):
    alone = results["02_search_text_and_image"]["results"]["generalization_one_object"]
    annotations = json.loads((world / "annotations/instances_novel.json").read_text())
    held = [one["image_id"] for one in annotations["annotations"]]
    count = sum(held.count(image_id) == 1 for image_id in set(held))
    assert alone["held-out_combinations"]["hit@1"]["n"] == count > 1
    values = [alone[f"{kind}_combinations"]["hit@1"]["value"] for kind in ("held-out", "usual")]
    assert alone["difference"]["hit@1"]["value"] == pytest.approx(values[0] - values[1])


def test_rating_notebook_without_ratings_says_so_and_draws_none(workspace, world):
    books = [("14_user_ratings", {"baselines": {}, "count": 6, "per_rater": 3})]
    found = run_notebooks(
        workspace, "unrated", books,
        dataset="coco", root="data/small world", split="test", precision="fp32",
    )["14_user_ratings"]["results"]  # fmt: skip
    assert (found["simulated"], found["ratings"], found["methods"]) == (False, 0, {})
    page = (workspace / "data/runs/unrated/14_user_ratings/14_user_ratings.html").read_text()
    assert "There are no ratings to show" in page
    assert not (workspace / "figures/unrated/14_ratings.png").exists()


def test_region_notebook_replays_the_selection(workspace, regions):
    replayed = regions["03_search_by_region"]["results"]["selection"]
    saved = Selection.load(workspace / "selection.json")
    assert (replayed["image"], replayed["parts"]) == (saved.image, len(saved.prompts))
    assert replayed["image"] not in replayed["found"]


@pytest.mark.parametrize(
    "name",
    [
        "03_selection",
        "03_one_object",
        "03_two_objects",
        "03_algebra",
        "04_masks",
        "04_prompt_types",
        "04_region_or_image",
        "04_similarities",
        "05_pictures",
        "05_encodings",
        "05_by_size_and_ground",
        "06_measures",
        "06_all_methods",
        "06_time",
        "10_weights",
        "10_ladder",
        "10_kinds",
        "10_panels",
        "10_space",
        "13_example",
        "13_rounds",
        "13_frozen",
        "14_sheet",
        "14_ratings",
        "14_shares",
        "19_two_objects",
        "19_rol",
        "20_region",
        "20_region_map",
    ],
)
def test_notebooks_about_regions_draw_their_figures(workspace, regions, name):
    assert (workspace / f"figures/regions/{name}.png").stat().st_size > 5_000
    assert json.loads((workspace / f"figures/regions/{name}.json").read_text())["figure"]["caption"]


@pytest.mark.parametrize(
    "name",
    [
        "01_samples",
        "01_runtime",
        "02_measures",
        "02_similarities",
        "02_panels",
        "02_generalization",
    ],
)
def test_notebooks_draw_their_figures(workspace, results, name):
    assert (workspace / f"figures/small/{name}.png").stat().st_size > 5_000
    assert json.loads((workspace / f"figures/small/{name}.json").read_text())["figure"]["caption"]


def test_index_notebook_runs_on_a_folder_of_ones_own(workspace):
    write_class_folders(workspace / "data/my pictures", per_class=1)
    books = [("01_build_index", {"dataset": "folder", "split": ""})]
    found = run_notebooks(workspace, "mine", books, root="data/my pictures", limit=20)
    assert found["01_build_index"]["results"]["images"] == 20
