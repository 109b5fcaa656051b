"""The training of both stages: loss, batches, epochs, and that a run cut off ends the same."""

import json
import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from regionlab.compose.combiner import Combiner
from regionlab.compose.training import (
    CombinerRecipe,
    TextRecipe,
    TrainingSet,
    choose_parameters,
    contrastive_loss,
    encode_wordings,
    run_epochs,
    sample_batches,
    train_combiner,
    tune_text,
)
from regionlab.models.clip import TextFeatures, text_parameters
from regionlab.models.registry import load_encoder

WORDS = ("make the ring green", "remove the star", "add two dots", "on grass", "move it up")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sample_training_set(d=192, count=10, forms=2, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.5, (2, count, d)).astype(np.float32)
    wordings = [tuple(f"{WORDS[(i + f) % 5]} {i}" for f in range(forms)) for i in range(count)]
    return TrainingSet(*images, wordings, 1.5)


# The loss


def lose_slowly(predicted, targets):
    losses = []
    for i, query in enumerate(predicted):
        cosines = [q_dot(query, target) for target in targets]
        exponents = np.exp(100 * (np.array(cosines) - max(cosines)))
        losses.append(-np.log(exponents[i] / exponents.sum()))
    return np.mean(losses)


def q_dot(a, b):
    return sum(a * b) / np.sqrt(sum(a * a)) / np.sqrt(sum(b * b))


def test_the_loss_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    targets = rng.normal(0, 3, (7, 5))
    predicted = targets + rng.normal(0, 1, (7, 5))
    found = contrastive_loss(torch.from_numpy(predicted), torch.from_numpy(targets))
    assert found.item() == pytest.approx(lose_slowly(predicted, targets))


def test_the_loss_asks_for_the_target_among_targets_not_for_the_query_among_queries():
    predicted = torch.tensor([[1.0, 0], [1, 0]])
    targets = torch.eye(2)
    assert contrastive_loss(predicted, targets).item() == pytest.approx(50)
    assert contrastive_loss(targets, predicted).item() == pytest.approx(np.log(2))


# Batches


def test_batches_hold_all_rows_once():
    rows = np.concatenate(list(sample_batches(12, 4, np.random.default_rng(0))))
    assert sorted(rows) == list(range(12))
    assert rows.tolist() != list(range(12))


def test_a_rest_that_fills_no_batch_is_left_out():
    batches = list(sample_batches(11, 4, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(set(np.concatenate(batches))) == 8


def test_fewer_triplets_than_a_batch_are_refused():
    assert len(list(sample_batches(4, 4, np.random.default_rng(0)))) == 1
    with pytest.raises(ValueError, match="3 triplets do not fill a batch of 4"):
        sample_batches(3, 4, np.random.default_rng(0))


# Training sets and recipes


def test_a_training_set_must_be_of_the_same_triplets():
    with pytest.raises(ValueError, match=r"\(2, 3\) references, \(3, 3\) targets and 2 wordings"):
        TrainingSet(np.zeros((2, 3)), np.zeros((3, 3)), [("a",)] * 2, 1.0)
    with pytest.raises(ValueError, match="and 1 wordings are not of the same triplets"):
        TrainingSet(np.zeros((2, 3)), np.zeros((2, 3)), [("a",)], 1.0)


def test_all_triplets_have_the_same_number_of_wordings():
    with pytest.raises(ValueError, match="same number of wordings"):
        TrainingSet(np.zeros((2, 3)), np.zeros((2, 3)), [("a",), ("a", "b")], 1.0)


def test_a_digest_tells_features_words_and_what_is_said_apart():
    def digest(change=lambda training_set: None, *about):
        training_set = sample_training_set(d=3)
        change(training_set)
        return training_set.digest(*about)

    def change_reference(training_set):
        training_set.references[1, 2] += 1

    def change_target(training_set):
        training_set.targets[1, 2] += 1

    def change_words(training_set):
        training_set.wordings[3] = ("other", "words")

    changes = (lambda training_set: None, change_reference, change_target, change_words)
    digests = [digest(change) for change in changes] + [digest(changes[0], "space")]
    assert len(set(digests)) == 5
    assert digest() == digests[0]


@pytest.mark.parametrize("recipe", [TextRecipe, CombinerRecipe])
@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 0), ("batch", 0), ("validate_every", 0), ("patience", 0), ("epochs", 1.5),
     ("learning_rate", 0.0), ("learning_rate", float("nan")), ("dtype", "int4")],
)  # fmt: skip
def test_a_recipe_is_refused_before_anything_is_trained(recipe, setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be .*{value}"):
        recipe(**{setting: value})


def test_an_unknown_mixed_precision_is_refused():
    with pytest.raises(ValueError, match="unknown amp 'fp8'; known: none, bf16, fp16"):
        TextRecipe(amp="fp8")


# Epochs


@dataclass(frozen=True)
class Script:
    seed: int = 0
    epochs: int = 6
    validate_every: int = 1
    patience: int = 100


class Run:
    """A run whose weight is the number of the epoch, and whose scores are given."""

    def __init__(self, folder, scores, *, losses=(), data="these", **recipe):
        self.folder, self.scores, self.losses = folder, list(scores), list(losses)
        self.data, self.recipe = data, Script(**recipe)
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.draws = []

    def start(self):
        return run_epochs(
            self.model, self.optimizer, self.recipe, name="part", folder=self.folder,
            data=self.data, take_epoch=self.take_epoch, validate=self.validate,
        )  # fmt: skip

    def take_epoch(self, rng):
        self.draws.append((int(rng.integers(1000)), torch.rand(1).item()))
        with torch.no_grad():
            self.model.weight += 1
        return self.losses[len(self.draws) - 1] if self.losses else 0.5

    def validate(self):
        score = self.scores[round(self.model.weight.item()) - 1]
        if score == "stop":
            raise KeyboardInterrupt
        return {"score": score, "other": 0.123456789}


def test_the_model_is_left_with_the_weights_of_the_best_validation(tmp_path):
    run = Run(tmp_path, [0.1, 0.3, 0.2, 0.3, 0.2, 0.1])
    found = run.start()
    assert (found["best_epoch"], found["best_score"]) == (2, 0.3)  # the first of equals
    assert run.model.weight.item() == 2
    assert found["epoch"] == 6
    assert [v["score"] for v in found["validation"]] == [0.1, 0.3, 0.2, 0.3, 0.2, 0.1]
    assert found["validation"][0] == {"epoch": 1, "score": 0.1, "other": 0.12346}
    assert found["curve"][-1] == {"epoch": 6, "loss": 0.5}
    assert (found["recipe"]["epochs"], found["device"]) == (6, "cpu")


def test_scores_that_are_all_negative_have_a_best_too(tmp_path):
    run = Run(tmp_path, [-3.0, -1.0, -2.0], epochs=3)
    assert run.start()["best_epoch"] == 2
    assert run.model.weight.item() == 2


def test_training_stops_early_once_patience_is_over(tmp_path):
    run = Run(tmp_path, [0.1, 0.5, 0.4, 0.4, 0.4, 0.9], patience=3)
    found = run.start()
    assert (found["epoch"], found["best_epoch"]) == (5, 2)
    assert run.model.weight.item() == 2


def test_validation_is_every_so_often_and_at_the_end(tmp_path):
    found = Run(tmp_path, [0.0] * 7, epochs=7, validate_every=3).start()
    assert [v["epoch"] for v in found["validation"]] == [3, 6, 7]
    assert len(found["curve"]) == 7


def test_each_epoch_has_random_numbers_of_its_own_and_the_callers_are_left_alone(tmp_path):
    first, again = (Run(tmp_path / name, [0.0] * 6) for name in "ab")
    other = Run(tmp_path / "c", [0.0] * 6, seed=1)
    before = torch.get_rng_state()
    for run in (first, again, other):
        run.start()
    assert torch.equal(torch.get_rng_state(), before)
    assert first.draws == again.draws
    assert len({*first.draws, *other.draws}) == 12


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_epoch(tmp_path, loss):
    run = Run(tmp_path, [0.1, 0.2, 0.3, 0.4], losses=[0.5, 0.5, loss], epochs=4)
    with pytest.raises(FloatingPointError, match=f"part: the loss of epoch 3 is {loss}"):
        run.start()
    again = Run(tmp_path, [0.1, 0.2, 0.3, 0.4], epochs=4)
    assert again.start()["best_epoch"] == 4
    assert len(again.draws) == 2


def test_a_run_cut_off_ends_as_one_that_was_not(tmp_path):
    scores = [0.1, 0.4, 0.3, 0.2, 0.1, 0.0]
    whole = Run(tmp_path / "whole", scores, patience=3)
    expected = whole.start()
    cut = Run(tmp_path / "cut", [*scores[:3], "stop"], patience=3)
    with pytest.raises(KeyboardInterrupt):
        cut.start()
    rest = Run(tmp_path / "cut", scores, patience=3)
    found = rest.start()
    assert rest.draws == whole.draws[3:]
    assert found | {"seconds": 0} == expected | {"seconds": 0}
    assert rest.model.weight.item() == 2


def test_a_finished_run_trains_no_more(tmp_path):
    first = Run(tmp_path, [0.1, 0.3, 0.2], epochs=3)
    expected = first.start()
    again = Run(tmp_path, [], epochs=3)
    assert again.start() == expected
    assert again.draws == []
    assert again.model.weight.item() == 2


@pytest.mark.parametrize("change", [{"data": "others"}, {"seed": 1}])
def test_a_checkpoint_of_other_triplets_or_another_recipe_is_not_taken_up(tmp_path, change, capsys):
    Run(tmp_path, [0.1] * 6).start()
    assert capsys.readouterr().out == ""
    run = Run(tmp_path, [0.1] * 6, **change)
    run.start()
    assert len(run.draws) == 6
    assert "of another recipe or other triplets: training starts over" in capsys.readouterr().out


def test_the_curve_is_saved_for_people_after_each_epoch(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, [0.1, 0.2, "stop"]).start()
    saved = json.loads((tmp_path / "part.json").read_text())
    assert saved["recipe"]["epochs"] == 6
    assert [row["epoch"] for row in saved["curve"]] == [1, 2]
    assert saved["validation"][1]["score"] == 0.2
    assert not list(tmp_path.glob("*.tmp"))


# Both stages, cut off


def read_checkpoint(folder, name):
    saved = torch.load(folder / f"{name}.pt", weights_only=True)
    saved["state"]["seconds"] = 0
    return saved


def assert_same(a, b):
    """Compare nested dictionaries and lists with tensors, bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def stop_in(call, measure, stop):
    """Return `measure`, but in its call of that number `stop` comes first."""
    calls = iter(range(1, 1000))

    def measure_or_stop(model):
        if next(calls) == call:
            stop()
        return measure(model)

    return measure_or_stop


def interrupt():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def measure_combiner(combiner: Combiner):
    training_set = sample_training_set(seed=1)
    found = combiner.compose(training_set.references, training_set.targets)
    return {"score": float((found * training_set.targets).sum(1).mean())}


def stage_two(encoder, folder, measure=measure_combiner, *, texts="", **changes):
    recipe = {"epochs": 4, "batch": 4, "projection": 1, "hidden": 1, "learning_rate": 1e-3,
              "validate_every": 1}  # fmt: skip
    return train_combiner(
        encoder, TextFeatures(encoder).encode_texts, sample_training_set(),
        CombinerRecipe(**recipe | changes),
        folder=folder, weights=folder / "combiner.safetensors", measure=measure, texts=texts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def combiner_run(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("combiner")
    return folder, stage_two(encoder, folder)


def assert_ends_alike(folder, found, expected_folder, expected, name):
    assert_same(read_checkpoint(folder, name), read_checkpoint(expected_folder, name))
    assert found | {"seconds": 0} == expected | {"seconds": 0}
    weights = [f / f"{name}.safetensors" for f in (folder, expected_folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_stage_two_cut_off_in_validation_ends_with_the_same_bits(encoder, tmp_path, combiner_run):
    with pytest.raises(KeyboardInterrupt):
        stage_two(encoder, tmp_path, stop_in(3, measure_combiner, interrupt))
    assert not (tmp_path / "combiner.safetensors").exists()
    torch.rand(5)  # other random numbers are no matter
    assert_ends_alike(tmp_path, stage_two(encoder, tmp_path), *combiner_run, "combiner")


def test_stage_two_killed_ends_with_the_same_bits(encoder, tmp_path, combiner_run):
    child = os.fork()
    if child == 0:
        try:
            stage_two(encoder, tmp_path, stop_in(2, measure_combiner, kill))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert read_checkpoint(tmp_path, "combiner")["state"]["epoch"] == 1
    assert_ends_alike(tmp_path, stage_two(encoder, tmp_path), *combiner_run, "combiner")


def test_stage_two_is_not_that_of_another_seed(encoder, tmp_path, combiner_run):
    found = stage_two(encoder, tmp_path, seed=1)
    assert found["curve"] != combiner_run[1]["curve"]


def test_a_combiner_for_another_tuned_text_encoder_is_trained_anew(encoder, tmp_path, capsys):
    stage_two(encoder, tmp_path, texts="one")
    stage_two(encoder, tmp_path, texts="one")
    assert "starts over" not in capsys.readouterr().out
    stage_two(encoder, tmp_path, texts="another")
    assert "training starts over" in capsys.readouterr().out


def test_triplets_are_encoded_wording_by_wording(encoder):
    training_set, encode = sample_training_set(count=3), TextFeatures(encoder).encode_texts
    encoded = encode_wordings(training_set, encode, encoder.device)
    assert encoded.texts.shape == (3, 2, encoder.dim)
    expected = [[encode([text])[0] for text in forms] for forms in training_set.wordings]
    np.testing.assert_allclose(encoded.texts, expected, atol=1e-5)
    np.testing.assert_array_equal(encoded.references, training_set.references)
    np.testing.assert_array_equal(encoded.targets, training_set.targets)
    assert len(encoded) == 3


def measure_texts(encode):
    return {"score": float(encode(list(WORDS))[:, :5].sum())}


@pytest.fixture
def load(encoder_file):
    return lambda **how: load_encoder(
        f"toyclip/{encoder_file}", device="cpu", precision="fp32", **how
    )


def stage_one(encoder, folder, measure=measure_texts, **changes):
    recipe = {"epochs": 3, "batch": 4, "learning_rate": 1e-3}
    return tune_text(
        encoder, sample_training_set(), TextRecipe(**recipe | changes),
        folder=folder, weights=folder / "text.safetensors", measure=measure,
    )  # fmt: skip


@pytest.mark.parametrize(("amp", "batch"), [("none", 4), ("fp16", 2)])
def test_stage_one_cut_off_in_validation_ends_with_the_same_bits(load, tmp_path, amp, batch):
    changes = {"amp": amp, "batch": batch}
    expected = stage_one(load(), tmp_path / "whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        stage_one(load(), tmp_path, stop_in(2, measure_texts, interrupt), **changes)
    cut = read_checkpoint(tmp_path, "text")
    assert cut["state"]["epoch"] == 1
    assert cut["optimizer"]["state"]  # fp16 has found a scale that steps are taken with
    found = stage_one(load(), tmp_path, **changes)
    assert_ends_alike(tmp_path, found, tmp_path / "whole", expected, "text")


# Stage 1


def test_stage_one_tunes_the_text_tower_alone(load, tmp_path):
    encoder = load()
    before = {name: t.clone() for name, t in encoder.model.state_dict().items()}
    curve = stage_one(encoder, tmp_path, epochs=8, batch=10, learning_rate=3e-4)["curve"]
    changed = {n for n, t in encoder.model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == set(text_parameters(encoder.model))
    assert curve[-1]["loss"] < curve[0]["loss"] / 2


def test_frozen_parts_stay_as_they_are(load, tmp_path):
    encoder = load()
    before = {name: t.clone() for name, t in encoder.model.state_dict().items()}
    stage_one(encoder, tmp_path, epochs=1, freeze="token_embedding,resblocks.1")
    changed = {n for n, t in encoder.model.state_dict().items() if not torch.equal(t, before[n])}
    frozen = {n for n in before if "token_embedding" in n or "resblocks.1." in n}
    assert frozen
    assert changed == set(text_parameters(encoder.model)) - frozen


def test_checkpointing_trains_alike(load, tmp_path):
    expected = stage_one(load(), tmp_path / "without", epochs=2)
    found = stage_one(load(), tmp_path / "with", epochs=2, checkpointing=True)
    assert [row["loss"] for row in found["curve"]] == pytest.approx(
        [row["loss"] for row in expected["curve"]], rel=1e-4
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_mixed_precision_comes_close(load, tmp_path, checkpointing):
    plain = stage_one(load(), tmp_path / "plain", epochs=2, learning_rate=1e-4)
    mixed = stage_one(
        load(), tmp_path / "mixed", epochs=2, learning_rate=1e-4, amp="bf16",
        checkpointing=checkpointing,
    )  # fmt: skip
    expected = [row["loss"] for row in plain["curve"]]
    found = [row["loss"] for row in mixed["curve"]]
    assert found == pytest.approx(expected, rel=0.02)
    assert found != expected


def test_an_encoder_that_is_not_in_fp32_is_refused(encoder_file, tmp_path):
    encoder = load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="bf16")
    with pytest.raises(ValueError, match="tuning needs an encoder in fp32, .* is in bf16"):
        stage_one(encoder, tmp_path)


def test_the_file_holds_the_weights_of_the_best_epoch(load, tmp_path):
    scores = iter([0.1, 0.3, 0.2])
    encoder = load()
    stage_one(encoder, tmp_path, lambda encode: {"score": next(scores)})
    best = read_checkpoint(tmp_path, "text")["best"]
    own = encoder.model.state_dict()
    assert all(torch.equal(own[name.removeprefix("model.")], t) for name, t in best.items())
    again = iter([0.1, 0.3])
    early = load()
    stage_one(early, tmp_path / "early", lambda encode: {"score": next(again)}, epochs=2)
    assert all(torch.equal(early.model.state_dict()[name], own[name]) for name in own)


# Which parameters are tuned


def test_all_of_the_text_tower_is_tuned_by_default(encoder):
    assert set(choose_parameters(encoder)) == set(text_parameters(encoder.model))


def test_parts_of_names_are_left_out(encoder):
    chosen = choose_parameters(encoder, "embedding,resblocks.3")
    left_out = set(text_parameters(encoder.model)) - set(chosen)
    assert {"token_embedding.weight", "positional_embedding"} < left_out
    assert {n for n in left_out if "embedding" not in n} == {
        n for n in text_parameters(encoder.model) if n.startswith("transformer.resblocks.3.")
    }


def test_a_part_that_is_in_no_name_is_refused(encoder):
    with pytest.raises(ValueError, match="freeze='resblock.3' is in no name of the text tower"):
        choose_parameters(encoder, "embedding,resblock.3")


def test_freezing_everything_is_refused(encoder):
    with pytest.raises(ValueError, match="leaves nothing to tune"):
        choose_parameters(encoder, "embedding,transformer,ln_final,projection")
