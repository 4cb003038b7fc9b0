"""Hugging Face data sets as image sets: folders that ``datasets`` has saved, and data sets of the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serving
from listings import label_names
from row_files import pets, png, pyarrow

from featx.data.file_bytes import image_key
from featx.data.openers import open_store
from featx.data.scan import scan_images
from featx.data.sources.hub import hub_name, is_hub_name
from featx.errors import DatasetError, ImageError

datasets = pytest.importorskip("datasets", reason="needs datasets, of Hugging Face")
datasets.disable_progress_bars()


def dataset(count: int = 8, start: int = 0, **further: Any) -> Any:
    """A data set of images with the labels cat and dog in turn."""
    columns = {
        "image": [{"bytes": png(number), "path": f"pet_{number}.png"} for number in range(start, start + count)],
        "label": [number % 2 for number in range(start, start + count)],
    }
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    types = {name: values[0] for name, values in further.items()}
    return datasets.Dataset.from_dict(
        {**columns, **{name: values[1] for name, values in further.items()}},
        features=datasets.Features({**features, **types}),
    )


# Folders


def test_a_saved_data_set_of_several_splits_and_shards(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=dataset(8), validation=dataset(2, 50))
    saved.save_to_disk(tmp_path / "pets", num_shards={"train": 3, "validation": 1})
    images = scan_images(tmp_path / "pets")
    assert (images.name, images.root) == ("pets", str(tmp_path / "pets"))
    assert images.paths[:2].tolist() == ["train/0/pet_0.png", "train/1/pet_1.png"]
    assert images.paths[-1] == "validation/1/pet_51.png"
    assert label_names(images) == ["cat", "dog"] * 5
    assert images.splits.tolist() == ["train"] * 8 + ["val"] * 2
    read = [open_store(images.root).read(str(path)).data for path in images.paths]
    assert read == [png(number) for number in (*range(8), 50, 51)]
    assert images.facts().sizes.tolist() == [len(data) for data in read]


def test_rows_have_the_order_of_the_data_set_that_was_shuffled_selected_and_sorted(tmp_path: Path) -> None:
    shuffled = dataset(10).shuffle(seed=1).select(range(7)).sort("label")
    shuffled.save_to_disk(tmp_path / "pets")
    images = scan_images(tmp_path / "pets")
    expected = [shuffled.cast_column("image", datasets.Image(decode=False))[row]["image"]["bytes"] for row in range(7)]
    assert [images.file(row).read().data for row in range(7)] == expected


def test_a_file_of_indices_as_old_versions_saved_it_decides_the_rows(tmp_path: Path) -> None:
    dataset(4).save_to_disk(tmp_path / "pets")
    order = pyarrow.table({"indices": pyarrow.array([3, 0, 2], pyarrow.uint64())})
    with (
        pyarrow.OSFile(str(tmp_path / "pets" / "indices.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, order.schema) as writer,
    ):
        writer.write_table(order)
    state = json.loads((tmp_path / "pets" / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "pets" / "state.json").write_text(json.dumps(state))
    images = scan_images(tmp_path / "pets")
    assert [images.file(row).read().data for row in range(3)] == [png(3), png(0), png(2)]
    assert images.paths.tolist() == ["0/pet_3.png", "1/pet_0.png", "2/pet_2.png"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state.json": None}, r"there is no .*train/state\.json; copy the whole folder"),
        (
            {"data-00000-of-00001.arrow": None},
            r"^1 file of the data set is not there: .*data-00000-of-00001\.arrow; copy",
        ),
        ({"data-00000-of-00001.arrow": 900}, r"data-00000-of-00001\.arrow is not an Arrow file that can be read: "),
        ({"data-00000-of-00001.arrow": 0}, r"data-00000-of-00001\.arrow is not an Arrow file that can be read: "),
        ({"state.json": 20}, r"state\.json cannot be read: "),
    ],
)
def test_a_saved_folder_that_is_not_whole_is_refused_in_a_line(
    tmp_path: Path, changed: dict[str, int | None], message: str
) -> None:
    datasets.DatasetDict(train=dataset(3)).save_to_disk(tmp_path / "pets")
    for name, keep in changed.items():
        file = tmp_path / "pets" / "train" / name
        data = file.read_bytes()
        file.unlink()
        if keep is not None:
            file.write_bytes(data[:keep])
    with pytest.raises(DatasetError, match=message):
        scan_images(tmp_path / "pets")


def test_a_saved_folder_without_splits_has_that_of_its_name_or_of_its_origin(tmp_path: Path) -> None:
    datasets.DatasetDict(train=dataset(3), test=dataset(2, 10)).save_to_disk(tmp_path / "pets")
    images = scan_images(tmp_path / "pets" / "test")
    assert (images.paths.tolist(), images.splits.tolist()) == (["0/pet_10.png", "1/pet_11.png"], ["test", "test"])
    images = scan_images(tmp_path / "pets" / "train")
    assert set(images.splits) == {""}
    assert images.notes == ("all images are in the split train, so featx splits them by their content",)


def test_the_columns_of_a_saved_data_set_are_told_as_those_of_parquet(tmp_path: Path) -> None:
    tags = datasets.Sequence(datasets.ClassLabel(names=["wild", "tame"]))
    mask = [{"bytes": png(90 + n), "path": None} for n in range(2)]
    pair = dataset(
        2, mask=(datasets.Image(), mask), tags=(tags, [[0, 1], []]), age=(datasets.Value("float32"), [1.5, 2.0])
    )
    pair.save_to_disk(tmp_path / "pets")
    with pytest.raises(
        DatasetError, match=r"pets: the columns 'image' and 'mask' hold images; --image-column image names"
    ):
        scan_images(tmp_path / "pets")
    images = scan_images(tmp_path / "pets", image_column="mask", label_column="tags")
    assert images.paths.tolist() == ["0", "1"]
    assert label_names(images) == ["tame|wild", "|"]
    assert {name: cells.tolist() for name, cells in images.columns.items()} == {
        "label": ["cat", "dog"],
        "age": ["1.5", "2"],
    }
    assert open_store(images.root).read("1").data == png(91)
    wide = dataset(2, fine=(datasets.ClassLabel(names=["a", "b"]), [0, 1])).rename_column("label", "coarse")
    wide.save_to_disk(tmp_path / "two")
    with pytest.raises(DatasetError, match=r"'coarse' and 'fine' may hold the labels; --label-column coarse names"):
        scan_images(tmp_path / "two")


def test_images_that_a_data_set_names_by_their_paths_are_read_there(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.png").write_bytes(png(len(label) + ord(label[0])))
    paths = [str(tmp_path / "photos" / label / "1.png") for label in ("dog", "cat")]
    named = datasets.Dataset.from_dict({"image": paths, "label": ["dog", "cat"]}).cast_column("image", datasets.Image())
    named.save_to_disk(tmp_path / "saved")
    images = scan_images(tmp_path / "saved")
    assert label_names(images) == ["dog", "cat"]
    assert [images.file(row).read().data for row in (0, 1)] == [Path(path).read_bytes() for path in paths]


def test_a_row_without_an_image_fails_alone(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": png(0), "path": None}, None], "label": ["a", None]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "pets")
    images = scan_images(tmp_path / "pets")
    assert (images.facts().sizes.tolist(), label_names(images)) == ([len(png(0)), -1], ["a", None])
    with pytest.raises(ImageError, match=r"^is missing: the row has no image$"):
        images.file(1).read()
    for path in ("9", "-1", "train/0", "", "x"):
        assert images.store.facts([path]).sizes.tolist() == [-1]


def test_a_data_set_that_is_saved_again_is_read_again(tmp_path: Path) -> None:
    dataset(3).save_to_disk(tmp_path / "pets")
    store = open_store(str(tmp_path / "pets"))
    before = store.facts(["0", "1"])
    assert store.read("0").data == png(0)
    dataset(2, 10).save_to_disk(tmp_path / "other")
    shutil.rmtree(tmp_path / "pets")
    (tmp_path / "other").rename(tmp_path / "pets")
    assert store.read("0").data == png(10)
    now = store.facts(["0", "1", "2"])
    assert (now.mtimes[:2] != before.mtimes).all()
    assert now.sizes[2] == -1
    assert scan_images(tmp_path / "pets").facts().mtimes.tolist() == now.mtimes[:2].tolist()


# The hub

SCAN = """
import json, sys
from featx.data.openers import open_store
from featx.data.scan import scan_images
from featx.errors import DatasetError

found = {}
for name in sys.argv[1:]:
    try:
        images = scan_images(name)
        facts = images.facts()
        found[name] = {
            "root": images.root, "name": images.name, "notes": images.notes, "paths": images.paths.tolist(),
            "splits": images.splits.tolist(), "labels": images.labels.tolist(),
            "facts": [facts.sizes.tolist(), facts.mtimes.tolist(), facts.ctimes.tolist()],
            "keys": [open_store(images.root).read(path).key.hex() for path in images.paths],
        }
    except DatasetError as error:
        found[name] = str(error)
print(json.dumps(found))
"""

NAMES = (
    *("hf://org/pets", "hf://org/pets@test", "hf://org/pets@test+train", "hf://datasets/org/pets@main"),
    *("hf://org/two/full", "hf://org/folder"),
    *("hf://org/two", "hf://org/two/fall", "hf://org/pets@tset", "hf://org/pets?revision=v9"),
    *("hf://org/script", "hf://org/empty", "hf://org/gated", "hf://org/none"),
)


class HubUser:
    """A user with a cache of their own, who scans data sets in a process of their own."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home

    def scan(self, *names: str, **variables: str) -> dict[str, Any]:
        own = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home / "hf"), "FEATX_HOME": str(self.home / "featx")}
        environment = {**os.environ, **own, **variables}
        environment.pop("HF_DATASETS_CACHE", None)
        ran = subprocess.run(
            [sys.executable, "-c", SCAN, *names], env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stderr == ""
        found: dict[str, Any] = json.loads(ran.stdout)
        return found


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubUser]:
    folder = tmp_path_factory.mktemp("hub")
    with serving() as hub:
        one, two = (pets(folder / f"{n}.parquet", 4, 10 * n).read_bytes() for n in (1, 2))
        hub.repos["org/pets"] = {"data/train-00000-of-00001.parquet": one, "data/test-00000-of-00001.parquet": two}
        configs = "configs:\n- config_name: small\n  data_files: small/*\n- config_name: full\n  data_files: full/*\n"
        hub.repos["org/two"] = {
            "README.md": f"---\n{configs}---\n".encode(),
            "small/train.parquet": one,
            "full/train.parquet": two,
        }
        hub.repos["org/folder"] = {"train/cat/1.png": png(1), "train/dog/2.png": png(2), "test/dog/3.png": png(3)}
        hub.repos["org/script"] = {"script.py": b"raise SystemExit"}
        hub.repos["org/empty"] = {"README.md": b"# Nothing"}
        hub.gated.add("org/gated")
        yield HubUser(hub, folder)


@pytest.fixture(scope="module")
def online(user: HubUser) -> dict[str, Any]:
    return user.scan(*NAMES)


def test_a_data_set_of_the_hub_is_listed_with_its_splits_and_classes(online: dict[str, Any]) -> None:
    found = online["hf://org/pets"]
    assert (found["root"], found["name"]) == ("hf://org/pets", "pets")
    assert found["paths"][0] == "test/0/pet_20.png"
    assert found["paths"][-1] == "train/3/pet_13.png"
    assert found["splits"] == ["test"] * 4 + ["train"] * 4
    assert found["labels"] == [0, 1] * 4
    assert found["keys"] == [image_key(png(number)).hex() for number in (20, 21, 22, 23, 10, 11, 12, 13)]
    sizes, mtimes, ctimes = found["facts"]
    assert sizes == [len(png(number)) for number in (20, 21, 22, 23, 10, 11, 12, 13)]
    assert (len(set(mtimes)), set(ctimes)) == (2, {0})


def test_splits_revisions_and_configurations_are_chosen_by_the_name(online: dict[str, Any]) -> None:
    assert online["hf://org/pets@test"]["splits"] == ["test"] * 4
    assert online["hf://org/pets@test"]["name"] == "pets-test"
    assert online["hf://org/pets@test+train"]["keys"] == online["hf://org/pets"]["keys"]
    assert online["hf://datasets/org/pets@main"]["root"] == "hf://org/pets?revision=main"
    assert online["hf://datasets/org/pets@main"]["facts"] == online["hf://org/pets"]["facts"]
    assert online["hf://org/two/full"]["name"] == "two-full"
    assert online["hf://org/two/full"]["keys"] == [image_key(png(number)).hex() for number in (20, 21, 22, 23)]


def test_a_data_set_of_image_files_has_the_classes_of_its_folders(online: dict[str, Any]) -> None:
    found = online["hf://org/folder"]
    assert found["paths"] == ["test/0/3.png", "train/0/1.png", "train/1/2.png"]
    assert (found["labels"], found["splits"]) == ([1, 0, 1], ["test", "train", "train"])
    assert found["keys"] == [image_key(png(number)).hex() for number in (3, 1, 2)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf://org/two",
            "hf://org/two has no default configuration; it has small, full: name one as hf://org/two/small",
        ),
        (
            "hf://org/two/fall",
            "hf://org/two/fall has no configuration 'fall'; it has small, full: name one as hf://org/two/small",
        ),
        ("hf://org/pets@tset", "hf://org/pets@tset: there is no split 'tset'; found train, test; did you mean test?"),
        (
            "hf://org/pets?revision=v9",
            "hf://org/pets?revision=v9: there is no revision 'v9'; "
            "https://huggingface.co/datasets/org/pets/commits/main lists them",
        ),
        (
            "hf://org/script",
            "hf://org/script is made by a program of its own, which featx never runs; ?revision=refs/convert/parquet names its "
            "copy as Parquet, where the hub has one",
        ),
        ("hf://org/empty", "hf://org/empty has no files that datasets can read"),
        (
            "hf://org/gated",
            "hf://org/gated is gated: accept its terms at https://huggingface.co/datasets/org/gated; hf auth login, or the "
            "variable HF_TOKEN, grants access",
        ),
        (
            "hf://org/none",
            "there is no data set 'org/none' on the Hugging Face Hub, or it is private; hf auth login, or the variable "
            "HF_TOKEN, grants access. Expected hf://ORG/NAME, and after it /CONFIGURATION, @SPLIT and ?revision=REVISION where "
            "they are needed",
        ),
    ],
)
def test_what_the_hub_refuses_is_one_line(online: dict[str, Any], name: str, message: str) -> None:
    assert online[name] == message


def test_without_a_network_the_cache_counts_and_its_images_are_unchanged(user: HubUser, online: dict[str, Any]) -> None:
    before = len(user.hub.requests)
    offline = user.scan("hf://org/pets", "hf://org/pets@test", "hf://org/none", "hf://org/two/full", HF_HUB_OFFLINE="1")
    assert len(user.hub.requests) == before
    for name in ("hf://org/pets", "hf://org/pets@test", "hf://org/two/full"):
        assert {**offline[name], "notes": []} == {**online[name], "notes": []}
        assert offline[name]["notes"][0].startswith(
            f"{name}: the Hugging Face Hub cannot be reached, so the copy in the cache is used (commit "
        )
    assert offline["hf://org/none"] == (
        "hf://org/none: the Hugging Face Hub cannot be reached, and no copy is in the cache of this machine "
        f"({user.home}/hf/datasets); run once with a network and without HF_HUB_OFFLINE, or set HF_ENDPOINT to a mirror"
    )


def test_a_new_commit_is_noticed_by_the_next_scan(user: HubUser, online: dict[str, Any], tmp_path: Path) -> None:
    assert online
    user.hub.repos["org/pets"] = {
        **user.hub.repos["org/pets"],
        "data/test-00000-of-00001.parquet": pets(tmp_path / "x.parquet", 4, 30).read_bytes(),
    }
    now, before = user.scan("hf://org/pets")["hf://org/pets"], online["hf://org/pets"]
    assert now["keys"][:4] == [image_key(png(number)).hex() for number in (30, 31, 32, 33)]
    assert now["keys"][4:] == before["keys"][4:]
    assert not set(now["facts"][1]) & set(before["facts"][1])


@pytest.mark.parametrize(
    "name", ["hf://", "hf://a/b@", "hf://a/b@train[:10%]", "hf://a/b?x=1", "hf://a b/c", "hf://a/../b"]
)
def test_a_malformed_name_is_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(
        DatasetError, match=r"^hf://.* does not name a data set.*; expected hf://ORG/NAME, and after it "
    ):
        hub_name(name)


@pytest.mark.parametrize(
    "name",
    ["hf://datasets/org/name/data/x.parquet", "hf://datasets/org/name@main/train", "hf://buckets/org/x", "s3://a/b"],
)
def test_files_and_folders_of_a_repository_are_no_data_set(name: str) -> None:
    assert not is_hub_name(name)


def test_datasets_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"^reading hf://org/pets needs datasets: pip install 'featx\[hf\]'$"):
        scan_images("hf://org/pets")
