"""Training toyclip: what it draws on, that it resumes exactly, and what it leaves behind."""

import json
import math
import re
import shutil
from dataclasses import asdict, replace

import regionlab.models.torchvision_cpu  # noqa: F401

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from regionlab.cli import main
from regionlab.models import training
from regionlab.models.clip import CONFIG, create_toyclip, encode_tokens
from toybox import pool as pool_module
from toybox import toyclip as train_clip
from toybox import train as train_cli
from toybox.pool import MEAN_COLOR, open_pool, show_object
from toybox.render import render_scene
from toybox.toyclip import Batches, Recipe, train, validate
from toybox.train import make_record, write_card
from toybox.world import COLORS, COMBINATIONS, SEEN, SYNONYMS, sample_scene, scene_rng

SIDE = json.loads(CONFIG.read_text())["vision_cfg"]["image_size"]
MODELS = list(train_cli.TRAINERS)
TINY = Recipe(scenes=40, steps=4, batch=8, object_batch=4, warmup=1, save_every=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("toyclip")


@pytest.fixture(scope="module")
def result(folder):
    return train(TINY, cache=folder, weights=folder / "toyclip.safetensors")


@pytest.fixture
def cache(folder, result, tmp_path):
    """A cache with the rendered pictures and no checkpoint."""
    shutil.copytree(folder, tmp_path / "cache", ignore=shutil.ignore_patterns("toyclip*"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def toyclip():
    torch.manual_seed(0)
    model, preprocess, tokenizer = create_toyclip()
    return model.eval(), preprocess, tokenizer


@pytest.fixture(scope="module")
def pool(folder, result):
    return open_pool(folder / "pool-train", seed=0, split="train", count=40, side=SIDE)


@pytest.fixture
def no_compute(monkeypatch):
    losses = {"captions": 0.0, "objects": 0.0}
    monkeypatch.setattr(train_clip, "_train_step", lambda *_: losses)


# --- the pool of pictures ---------------------------------------------------------------


def shrink(image):
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def draw_scenes(count):
    for number in range(count):
        rng = scene_rng(0, "train", number)
        scene = sample_scene(rng)
        yield scene, *render_scene(scene, rng)


def test_pool_holds_the_scenes_of_its_split(pool):
    assert pool.scenes.shape == pool.objects.shape == (40, SIDE, SIDE, 3)
    for row, (_, image, _) in enumerate(draw_scenes(5)):
        np.testing.assert_array_equal(pool.scenes[row], shrink(image))


def test_single_objects_of_the_pool_show_the_thing_they_are_named_after(pool):
    erased = []
    for row, (scene, image, masks) in enumerate(draw_scenes(40)):
        names = [COMBINATIONS.index(thing.combination) for thing in scene.things]
        assert pool.object_names[row] in names
        for name, mask in zip(names, masks, strict=True):
            if np.array_equal(pool.objects[row], shrink(image * mask[..., None])):
                erased.append(name == pool.object_names[row])
    assert len(erased) >= 4 and all(erased)


def test_captions_of_the_pool_are_of_its_scenes(pool):
    for five, (scene, _, _) in zip(pool.captions, draw_scenes(40), strict=True):
        assert len(five) == 5
        for caption in five:
            told = set(COLORS) & set(re.findall(r"\w+", caption))
            assert told == {thing.color for thing in scene.things}


def test_single_objects_show_no_held_out_combination(pool):
    assert {COMBINATIONS[n] for n in pool.object_names} <= set(SEEN)


def test_pool_is_rendered_once(folder, result, monkeypatch):
    monkeypatch.setattr(pool_module, "_render_pool", None)
    open_pool(folder / "pool-train", seed=0, split="train", count=40, side=SIDE)


@pytest.mark.parametrize("change", [{"seed": 1}, {"count": 5}, {"split": "val"}, {"version": 2}])
def test_pool_of_another_world_is_rendered_anew(tmp_path, monkeypatch, change):
    wanted = {"seed": 0, "split": "train", "count": 4, "side": 16}
    before = open_pool(tmp_path, **wanted).scenes.copy()
    monkeypatch.setattr(pool_module, "VERSION", change.pop("version", 1))
    rendered = []
    render = pool_module._render_pool
    monkeypatch.setattr(pool_module, "_render_pool", lambda *a: rendered.append(render(*a)))
    after = open_pool(tmp_path, **{**wanted, **change}).scenes
    assert len(rendered) == 1
    assert np.array_equal(before, after) == (not change)


# --- one thing shown alone --------------------------------------------------------------

IMAGE = np.random.default_rng(0).integers(1, 256, (40, 60, 3), dtype=np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[10:20, 30:50] = True


def show(view):
    return show_object(IMAGE, MASK, view, np.random.default_rng(0))


def test_erased_view_is_black_outside_the_mask():
    np.testing.assert_array_equal(show("erased"), IMAGE * MASK[..., None])


def test_blurred_view_changes_only_what_is_outside():
    shown = show("blurred")
    np.testing.assert_array_equal(shown[MASK], IMAGE[MASK])
    assert shown[~MASK].std() < 0.5 * IMAGE[~MASK].std()


@pytest.mark.parametrize(
    ("view", "around"),
    [("erased crop", (0, 0, 0)), ("mean crop", MEAN_COLOR), ("plain crop", None)],
)
def test_cropped_views_are_squares_around_the_thing(view, around):
    shown = show(view)
    side = len(shown)
    assert shown.shape == (side, side, 3)
    assert 20 <= side <= 1.4 * 20 + 1
    assert {tuple(pixel) for pixel in IMAGE[MASK]} <= {tuple(p) for p in shown.reshape(-1, 3)}
    if around:
        assert (shown[0] == around).all() and (shown[-1] == around).all()


# --- batches ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batches(pool, toyclip):
    _, preprocess, tokenizer = toyclip
    return Batches(pool, tokenizer, preprocess, TINY, torch.device("cpu"))


def test_batch_depends_on_its_step_alone(batches, pool, toyclip):
    _, preprocess, tokenizer = toyclip
    other = Batches(pool, tokenizer, preprocess, TINY, torch.device("cpu"))
    batches.draw(0)
    first, again, next_one = batches.draw(3), other.draw(3), batches.draw(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["captions"], next_one["captions"])


def test_batch_depends_on_the_seed(pool, toyclip, batches):
    _, preprocess, tokenizer = toyclip
    other = Batches(pool, tokenizer, preprocess, replace(TINY, seed=1), torch.device("cpu"))
    assert not torch.equal(batches.draw(3)["scenes"], other.draw(3)["scenes"])


def find_rows(pictures, shown, batches):
    """Rows of the pool whose pictures these are, brightness aside."""
    every = batches.normalize(pictures).flatten(1)
    every, shown = (x - x.mean(1, keepdim=True) for x in (every, shown.flatten(1)))
    return torch.nn.functional.cosine_similarity(shown[:, None], every[None], dim=2).argmax(1)


def decode(tokens, tokenizer):
    text = tokenizer.decode([int(token) for token in tokens if token])
    return text.replace("<start_of_text>", "").replace("<end_of_text>", "").strip()


def plain(text):
    return text.replace(" ", "")


def test_captions_of_a_batch_belong_to_its_pictures(batches, pool, toyclip):
    tokenizer = toyclip[2]
    batch = batches.draw(7)
    rows = find_rows(pool.scenes, batch["scenes"], batches).tolist()
    assert len(set(rows)) == TINY.batch
    for row, tokens in zip(rows, batch["captions"], strict=True):
        assert plain(decode(tokens, tokenizer)) in map(plain, pool.captions[row])


def test_single_objects_of_a_batch_have_their_names(batches, pool):
    batch = batches.draw(7)
    rows = find_rows(pool.objects, batch["objects"], batches).tolist()
    names = [COMBINATIONS.index(SEEN[name]) for name in batch["object_names"].tolist()]
    assert names == pool.object_names[rows].tolist()


def test_names_of_a_batch_are_those_of_all_seen_combinations(batches, toyclip):
    names = [decode(tokens, toyclip[2]) for tokens in batches.draw(7)["names"]]
    assert len(names) == len(SEEN)
    for name, (shape, color, _) in zip(names, SEEN, strict=True):
        assert color in name.split()
        assert any(word in name for word in (shape, *SYNONYMS.get(shape, ())))


# --- training ---------------------------------------------------------------------------


def test_record_of_training_is_complete(result):
    assert result["recipe"] == asdict(TINY)
    assert (result["device"], result["step"]) == ("cpu", 4)
    assert result["seconds"] > 0
    assert [point["step"] for point in result["curve"]] == [0, 1, 2, 3]
    for point in result["curve"]:
        assert set(point) == {"step", "captions", "objects"}
        assert all(math.isfinite(value) for value in point.values())
    assert [point["step"] for point in result["validation"]] == [2, 4]
    assert all(0 <= point["hit@1"] <= 1 for point in result["validation"])
    json.dumps(result, allow_nan=False)


def test_first_losses_are_those_of_chance(result):
    first = result["curve"][0]
    assert first["captions"] == pytest.approx(math.log(8), rel=0.35)
    assert first["objects"] == pytest.approx(math.log(len(SEEN)), rel=0.25)


def test_interrupted_training_goes_on_to_the_same_weights(cache, folder, result, monkeypatch):
    weights = cache / "toyclip.safetensors"
    draw = Batches.draw
    drawn = []

    def interrupt(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return draw(self, step)

    def watch(self, step):
        drawn.append(step)
        return draw(self, step)

    monkeypatch.setattr(Batches, "draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, cache=cache, weights=weights)
    assert not weights.exists()
    monkeypatch.setattr(Batches, "draw", watch)
    resumed = train(TINY, cache=cache, weights=weights)
    assert drawn == [2, 3]
    assert weights.read_bytes() == (folder / "toyclip.safetensors").read_bytes()
    for key in ("curve", "validation", "step", "recipe"):
        assert resumed[key] == result[key]


def test_finished_training_is_not_repeated(folder, result, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(train_clip, "_train_step", None)
    again = train(TINY, cache=tmp_path, weights=tmp_path / "again.safetensors")
    assert again == result
    names = ("again.safetensors", "toyclip.safetensors")
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


def test_checkpoint_of_another_recipe_is_not_resumed(cache, no_compute, capsys):
    weights = cache / "toyclip.safetensors"
    train(replace(TINY, steps=2), cache=cache, weights=weights)
    assert "another recipe" not in capsys.readouterr().out
    longer = train(TINY, cache=cache, weights=weights)
    assert [point["step"] for point in longer["curve"]] == [0, 1, 2, 3]
    assert "toyclip.pt is of another recipe: training starts over" in capsys.readouterr().out


def test_another_seed_gives_other_weights(cache, folder, result, no_compute):
    train(replace(TINY, seed=1), cache=cache, weights=cache / "other.safetensors")
    assert (cache / "other.safetensors").read_bytes() != (
        folder / "toyclip.safetensors"
    ).read_bytes()


def test_learning_rate_warms_up_and_falls_to_zero():
    recipe = Recipe(steps=110, warmup=10, learning_rate=1.0)
    rates = [training.learning_rate(recipe, step) for step in range(110)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[60] == pytest.approx(1 / 2)
    assert 0 < rates[-1] < 0.001


def test_matrices_decay_and_biases_do_not(toyclip):
    decayed, kept = training.make_optimizer(toyclip[0], TINY).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (TINY.weight_decay, 0)
    assert {p.ndim for p in kept["params"]} <= {0, 1}
    count = len(decayed["params"]) + len(kept["params"])
    assert count == len(list(toyclip[0].parameters()))


# --- weights and texts ------------------------------------------------------------------


def test_weights_load_through_open_clips_factory(folder, result):
    path = folder / "toyclip.safetensors"
    model, _, _ = open_clip.create_model_and_transforms("toyclip", pretrained=str(path))
    saved, loaded = load_file(path), model.state_dict()
    assert set(saved) == set(loaded)
    assert {t.dtype for t in saved.values() if t.ndim > 1} == {torch.float16}
    assert all(torch.equal(saved[name].to(loaded[name].dtype), loaded[name]) for name in saved)
    assert path.stat().st_size < 24e6


@pytest.mark.parametrize(
    "texts",
    [
        ["a red star on sand"],
        ["", "a red star", "three things on sand: two red stars and a big blue box with dots"],
    ],
)
def test_encode_tokens_equals_the_models_own_text_encoding(toyclip, texts):
    model, _, tokenizer = toyclip
    tokens = tokenizer(texts)
    with torch.inference_mode():
        torch.testing.assert_close(
            encode_tokens(model, tokens), model.encode_text(tokens), rtol=1e-4, atol=1e-5
        )


def test_encode_tokens_handles_texts_that_fill_the_context(toyclip):
    model, _, tokenizer = toyclip
    tokens = tokenizer(["star " * 100, "a red star"])
    assert tokens[0, -1] != 0
    with torch.inference_mode():
        torch.testing.assert_close(
            encode_tokens(model, tokens), model.encode_text(tokens), rtol=1e-4, atol=1e-5
        )


def test_validation_is_text_to_image_hit_at_1(pool, batches, toyclip):
    model, preprocess, tokenizer = toyclip
    rng = np.random.default_rng(0)
    texts = [five[int(rng.integers(5))] for five in pool.captions]
    with torch.inference_mode():
        images = model.encode_image(batches.normalize(pool.scenes), normalize=True)
        queries = model.encode_text(tokenizer(texts), normalize=True)
    hits = [int(query @ images.T @ torch.eye(40)[row] >= (query @ images.T).max())
            for row, query in enumerate(queries)]  # fmt: skip
    assert validate(model, pool, tokenizer, batches) == pytest.approx(np.mean(hits))


# --- record, card and command -----------------------------------------------------------


def make_result(steps=45):
    curve = [{"step": i, "captions": 1.0, "objects": 2.0} for i in range(steps)]
    validation = [{"step": 20, "hit@1": 0.25}, {"step": steps, "hit@1": 0.625}]
    return {"recipe": asdict(Recipe()), "device": "cpu", "step": steps, "seconds": 1234.56,
            "curve": curve, "validation": validation}  # fmt: skip


def write_weights(path):
    shapes = {"visual.conv.weight": (3, 5), "visual.bn.running_mean": (9,),
              "text_projection": (7, 2), "logit_scale": ()}  # fmt: skip
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


@pytest.mark.parametrize(
    ("steps", "kept"), [(1, [0]), (20, [0, 19]), (41, [0, 20, 40]), (45, [0, 20, 40, 44])]
)
def test_record_keeps_every_20th_loss_and_the_last(tmp_path, steps, kept):
    record = make_record(make_result(steps), write_weights(tmp_path / "toyclip.safetensors"))
    assert [point["step"] for point in record["curve"]] == kept


def test_record_tells_weights_from_others(tmp_path):
    record = make_record(make_result(), write_weights(tmp_path / "toyclip.safetensors"))
    assert record["parameters"] == {"total": 3 * 5 + 7 * 2 + 1, "image_encoder": 3 * 5}
    assert record["bytes"] == (tmp_path / "toyclip.safetensors").stat().st_size
    assert re.fullmatch("[0-9a-f]{64}", record["sha256"])
    assert record["versions"]["torch"].startswith("2.13.0")
    assert record["device"].startswith("cpu (")
    json.dumps(record, allow_nan=False)


def test_record_does_not_name_another_processor_than_the_one_used(tmp_path):
    result = {**make_result(), "device": "cuda"}
    record = make_record(result, write_weights(tmp_path / "toyclip.safetensors"))
    assert record["device"].startswith("cuda")


def test_card_says_what_a_user_must_know(tmp_path):
    record = make_record(make_result(), write_weights(tmp_path / "toyclip.safetensors"))
    text = write_card(tmp_path, [record]).read_text(encoding="utf-8")
    for part in ("40,000 scenes", "| seed | 0 |", "1,235 s (21 min)", record["device"], "0.625",
                 record["sha256"], "MIT", "Intended use", "Limits", "make train", "--fresh",
                 "learning_rate 0.001"):  # fmt: skip
        assert part in text, part
    assert str(tmp_path) not in text


def test_card_describes_every_model_it_is_given(tmp_path):
    record = make_record(make_result(), write_weights(tmp_path / "toyclip.safetensors"))
    other = {**record, "model": "toysam", "validation": [{"step": 9, "mean IoU": 0.5}]}
    text = write_card(tmp_path, [record, other]).read_text(encoding="utf-8")
    assert re.findall("^## (.*)$", text, re.M) == ["toyclip", "toysam", "Licence"]
    assert "| mean IoU | 0.500 |" in text


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """Runs of a trainer that only writes weights, and a folder of their own."""
    runs = []

    def trainer(changes, cache, weights):
        runs.append((changes, cache.relative_to(tmp_path).as_posix()))
        weights.parent.mkdir(parents=True, exist_ok=True)
        write_weights(weights)
        return make_result()

    monkeypatch.setattr(train_cli, "FOLDER", tmp_path)
    monkeypatch.setattr(train_cli, "TRAINERS", {"toyclip": trainer})
    return runs


def test_command_writes_weights_record_and_card(trainings, tmp_path, capsys):
    assert main(["train"]) == 0
    assert trainings == [({}, "cache")]
    written = {"toyclip.safetensors", "toyclip.json", "README.md"}
    assert {path.name for path in tmp_path.iterdir()} == written
    record = json.loads((tmp_path / "toyclip.json").read_text())
    assert record["sha256"] in (tmp_path / "README.md").read_text()
    assert record["sha256"] in capsys.readouterr().out


def test_command_trains_all_models_unless_one_is_named(trainings, tmp_path, monkeypatch):
    trained = []

    def remember(name):
        def train(changes, cache, weights):
            trained.append(name)
            write_weights(weights)
            return make_result()

        return train

    monkeypatch.setattr(train_cli, "TRAINERS", {name: remember(name) for name in MODELS})
    assert main(["train"]) == main(["train", "--model", "toysam"]) == 0
    assert trained == [*MODELS, "toysam"]


def test_trial_leaves_the_published_weights_alone(trainings, tmp_path):
    assert main(["train", "--scenes", "40", "--steps", "3"]) == 0
    assert trainings == [({"scenes": 40, "steps": 3}, "cache/trial")]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert (tmp_path / "cache/trial/toyclip.safetensors").exists()


@pytest.mark.parametrize(("arguments", "left"), [([], True), (["--fresh"], False)])
def test_fresh_training_forgets_the_checkpoint(trainings, tmp_path, arguments, left):
    checkpoint = tmp_path / "cache/checkpoints/toyclip.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    main(["train", *arguments])
    assert checkpoint.exists() == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "clip"], "unknown Toybox model 'clip'; known: toyclip"),
        (["--steps", "0"], "Invalid value for '--steps'"),
        (["--scenes", "many"], "Invalid value for '--scenes'"),
    ],
)
def test_command_refuses_what_makes_no_sense(trainings, capsys, arguments, message):
    assert main(["train", *arguments]) == 2
    assert message.replace("'", "") in capsys.readouterr().err.replace("'", "")
    assert trainings == []


def test_interrupted_command_says_how_to_go_on(trainings, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(train_cli.TRAINERS, "toyclip", interrupt)
    assert main(["train"]) == 130
    assert "goes on from its last checkpoint" in capsys.readouterr().err


def test_unknown_model_is_told_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'toynet'; known: toyclip"):
        train_cli.train_model("toynet", folder=tmp_path)


def test_registered_trainer_trains_toyclip(tmp_path, no_compute):
    record = train_cli.train_model("toyclip", folder=tmp_path, scenes=3, steps=1)
    assert (record["model"], record["steps"]) == ("toyclip", 1)
    assert record["recipe"] == asdict(Recipe(scenes=3, steps=1))
    assert record["parameters"]["total"] > 3e6
