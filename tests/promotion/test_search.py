"""The search for the settings of fine-tuning: on training images alone, resumable, and within its budget."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made import Recorder

from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.assemble import Assembly, assemble, backbone_of
from featx.promotion.batches import CachedBatches
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.history import TrainingHistory
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote
from featx.promotion.search import SettingsSearch, Trial
from featx.promotion.splits import RunSplit, standard_split
from featx.promotion.teacher import Lesson

SETTINGS = FineTuning(search=4, last=2, epochs=4, lr=1e-2, batch_size=8, cached_crops=2, repeats=0)


@pytest.fixture
def assembly(features: FeatureSet) -> Assembly:
    head = Head("logreg", C=0.1).fit(features)
    return assemble(head, features, backbone_of(head))


def search(assembly: Assembly, settings: FineTuning = SETTINGS, **given: object) -> SettingsSearch:
    checkpoint = Checkpoint(Path("model.safetensors"), {})
    split = standard_split(assembly)
    return SettingsSearch(assembly, split, settings, teacher=None, checkpoint=checkpoint, **given)  # type: ignore[arg-type]


def without_time(trials: tuple[Trial, ...]) -> list[Trial]:
    return [dataclasses.replace(trial, seconds=0.0) for trial in trials]


def test_a_search_that_is_killed_goes_on_where_it_was_and_ends_at_the_same_choice(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def kill(trials: list[Trial]) -> None:
        if len(trials) == 3:
            raise Killed

    with pytest.raises(Killed):
        search(assembly, on_trial=kill).run()
    trained: list[FineTuning] = []
    honest = SettingsSearch._train
    monkeypatch.setattr(
        SettingsSearch, "_train", lambda self, fold, settings: trained.append(settings) or honest(self, fold, settings)
    )
    resumed = search(assembly).run()
    assert len(trained) == len(resumed.trials) - 3
    Path("model.safetensors").unlink(missing_ok=True)
    search(assembly).checkpoint.remove()
    whole = search(assembly).run()
    assert without_time(whole.trials) == without_time(resumed.trials)
    assert (whole.changes, whole.why) == (resumed.changes, resumed.why)


def test_a_search_neither_trains_on_nor_looks_at_any_other_than_training_images(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    honest = CachedBatches.__init__

    def record(self: CachedBatches, *given: object, **more: np.ndarray) -> None:
        seen.update(more["train"], more["validation"])
        honest(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(CachedBatches, "__init__", record)
    first = search(assembly).run()
    split = standard_split(assembly)
    assert seen == set(split.train)
    # Other labels of all other images change nothing.
    data, search_again = assembly.data, search(assembly).checkpoint
    labels = data.labels.copy()
    others = np.setdiff1d(np.arange(len(labels)), split.train)
    labels[others] = 1 - labels[others]
    search_again.remove()
    other = dataclasses.replace(assembly, data=dataclasses.replace(data, labels=labels))
    again = SettingsSearch(other, split, SETTINGS, teacher=None, checkpoint=search_again).run()
    assert without_time(again.trials) == without_time(first.trials)


def test_the_given_settings_reach_the_end_and_lose_only_by_a_standard_error(assembly: Assembly) -> None:
    result = search(assembly).run()
    last = [trial for trial in result.trials if trial.stage == 3]
    assert {trial.setting for trial in last} > {0}
    assert {trial.fold for trial in last} == {1, 2}
    finalists = {trial.setting for trial in last}
    losses = {
        setting: np.mean([t.log_loss for t in result.trials if t.setting == setting and t.stage > 1])
        for setting in finalists
    }
    if result.changes:
        chosen = next(t.setting for t in result.trials if t.changes == result.changes)
        assert losses[chosen] < losses[0]
        assert "less than the settings as given" in result.why
    else:
        assert result.settings == SETTINGS
        assert result.why.startswith("the settings as given: ")


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the clock of a search go on by so many seconds each time that it is read: the same happens on any machine."""
    times = itertools.count()
    monkeypatch.setattr("featx.promotion.search.time", SimpleNamespace(perf_counter=lambda: seconds * next(times)))


def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge settings without training them, by logits of chance; an epoch takes one second."""

    def logits(self: SettingsSearch, fold: RunSplit, settings: FineTuning) -> tuple[np.ndarray, TrainingHistory]:
        rng = np.random.default_rng([len(fold.train), round(1e6 * settings.lr)])
        entry = {"epoch": 0, "loss": 1.0, "log_loss": 1.0, "accuracy": 0.5, "seconds": 1.0}
        return rng.normal(size=(len(fold.validation), 2)), TrainingHistory([entry, entry])

    monkeypatch.setattr(SettingsSearch, "_train", logits)
    monkeypatch.setattr(SettingsSearch, "_cache", lambda _: None)


def test_a_budget_leaves_out_settings_and_says_so(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, 0.1)
    untrained(monkeypatch)
    recorder = Recorder()
    result = search(assembly, dataclasses.replace(SETTINGS, search=12, budget=40), reporter=recorder).run()
    trained = [trial.setting for trial in result.trials if trial.stage == 1]
    assert 3 < len(trained) < 12
    assert result.notes[0] == f"the budget of 40 s allowed {len(trained)} of 12 settings"
    assert f"trying {len(trained)} of 12 settings on folds of the 26 training images takes about" in recorder.notes[-1]


def test_a_budget_ends_the_trial_in_which_it_is_over_even_that_of_the_given_settings(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch, 1.0)
    tight = dataclasses.replace(SETTINGS, budget=4)
    result = search(assembly, tight).run()
    assert (result.n_settings, result.trials, result.changes, result.settings) == (0, (), {}, tight)
    assert result.why == (
        "the settings as given: the budget of 4 s ended the search before there was anything to compare them with"
    )
    assert result.notes == ("the search ended after 0 trials, when its budget of 4 s was over",)
    assert result.seconds <= 6
    listed: list[object] = []
    assert search(assembly, tight, on_trial=listed.append).run() == result, "a search that is over stays over"
    assert listed == [[]], "the table has its header"


def test_a_search_that_is_over_chooses_among_the_settings_that_were_judged_on_the_same_folds(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.promotion.search.candidates", lambda *_, **__: [{}, {"lr": 0.02}])
    untrained(monkeypatch)
    over, honest = [0], SettingsSearch._require_time

    def require_time(self: SettingsSearch) -> None:
        self._progress.is_over = len(self._progress.trials) >= over[0]
        honest(self)

    monkeypatch.setattr(SettingsSearch, "_require_time", require_time)
    for over[0], folds in ((1, 0), (2, 1), (3, 1), (4, 2), (9, 3)):
        own = search(assembly, dataclasses.replace(SETTINGS, budget=1e6))
        own.checkpoint.remove()
        result = own.run()
        assert len(result.trials) == min(over[0], 6)
        given = [t.log_loss for t in result.trials if not t.setting][:folds]
        other = [t.log_loss for t in result.trials if t.setting][:folds]
        n_images = sum(len(fold.validation) for fold in own._folds[:folds])
        assert ("ended the search before there was anything" in result.why) == (folds == 0)
        if folds and f"on {n_images} training images" not in result.why:
            assert f"log loss {np.mean(given):.2f}"[:-1] in result.why
        assert bool(result.changes) <= (sum(other) < sum(given))


def test_a_search_that_is_killed_after_its_first_trial_tries_as_many_settings_as_one_that_is_not(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Recorder):
        def milestone(self, sentence: str) -> None:
            raise SystemExit(sentence)

    ticking(monkeypatch, 0.1)
    untrained(monkeypatch)
    short = dataclasses.replace(SETTINGS, search=12, budget=40)
    with pytest.raises(SystemExit, match="trial 1: "):
        search(assembly, short, reporter=Killed()).run()
    first = [note for note in search(assembly, short).run().notes if "allowed" in note]
    search(assembly, short).checkpoint.remove()
    ticking(monkeypatch, 0.1)
    assert first == [note for note in search(assembly, short).run().notes if "allowed" in note] != []


def test_the_settings_that_were_found_are_trained_stored_and_listed(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg", C=0.1).fit(features)
    head.save("models/head.safetensors")
    monkeypatch.setattr("featx.promotion.search.candidates", lambda *_, **__: [{}, {"lr": 0.02, "ema": 0.5}])
    result = promote("models/head.safetensors", finetune=True, settings=dataclasses.replace(SETTINGS, search=2))
    assert result.run is not None
    assert result.run.search is not None
    stored = PromotedModel.load(result.path).metadata
    assert json.loads(json.dumps(stored["search"])) == json.loads(json.dumps(result.as_dict()["search"]))
    assert result.path.name.endswith("--repeats0--search2.safetensors")
    with result.path.with_suffix(".search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["log_loss"] for row in rows] == [str(trial.log_loss) for trial in result.run.search.trials]
    assert rows[1]["changes"] == "--lr 0.02 --ema 0.5"
    assert result.run.seconds > result.run.search.seconds > 0
    gained = 100 * (result.run.report.accuracy - result.head_report.accuracy)
    assert result.run.gain_per_minute == pytest.approx(gained / (result.run.seconds / 60))
    assert not list(Path("models").glob("*.checkpoint"))


def test_a_teacher_that_has_seen_the_labels_of_a_fold_judges_no_settings(assembly: Assembly) -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    class Listening:
        name = "listening"

        def lesson(self, _: Assembly, train: np.ndarray, unseen: np.ndarray) -> Lesson:
            asked.append((train, unseen))
            return Lesson(np.zeros((len(assembly.features), 2)), np.zeros(len(unseen), dtype=np.int64))

    own = search(assembly)
    own.teacher = Listening()  # type: ignore[assignment]
    folds = own._split_training_images()
    for (train, unseen), fold in zip(asked, folds, strict=True):
        np.testing.assert_array_equal(train, fold.train)
        np.testing.assert_array_equal(unseen, fold.validation)


def test_a_search_with_nothing_to_vary_is_refused_before_a_pass_over_images(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featx.promotion.promotion.prove", lambda _: pytest.fail("images were read"))
    given = FineTuning(
        search=2, last=1, epochs=3, lr=0.02, backbone_lr=0.2, augment="none", mixup=0.1, label_smoothing=0.2,
        weight_decay=0.5, ema=0.5,
    )  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"--search has nothing to vary, since all of --augment, .*--weight-decay were"
    ):
        promote(assembly.head, finetune=True, settings=given)
    with pytest.raises(SettingsError, match="--last 9 is more than the 4 blocks"):
        promote(assembly.head, finetune=True, settings=FineTuning(last=9))
