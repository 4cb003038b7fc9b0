"""The search for the settings of fine-tuning: on training images alone, resumable, and within its budget."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from made import Recorder

from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.promotion.assemble import Assembly, assemble, backbone_of
from featx.promotion.batches import CachedBatches
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.model import PromotedModel
from featx.promotion.promotion import promote
from featx.promotion.search import SettingsSearch, Trial
from featx.promotion.splits import standard_split

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


def test_a_budget_leaves_out_settings_and_says_so(assembly: Assembly) -> None:
    recorder = Recorder()
    result = search(assembly, dataclasses.replace(SETTINGS, search=12, budget=1e-3), reporter=recorder).run()
    assert result.n_settings == 2
    assert result.notes[0] == "the budget of 0 s allowed 2 of 12 settings"
    assert {trial.setting for trial in result.trials} == {0}
    assert result.settings.lr == SETTINGS.lr
    assert "when its budget was over" in result.notes[1]


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
