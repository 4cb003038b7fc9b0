"""What the folders of a data set mean: splits, classes, folders around them, and layouts with two readings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from featx.data.layout import read_layout
from featx.data.scan import scan_images
from featx.data.split_names import exact_splits, worded_splits
from featx.errors import DatasetError

TWO_SPLITS = "test:a train:a train:b"


def read(files: str) -> tuple[str, tuple[str, ...]]:
    """The split, the class and the number of images of some paths, such as ``test: train:a*2``; and the notes."""
    folders = [path.rpartition("/")[0] for path in files.split()]
    layout = read_layout(Counter(folders), Path("L"))
    places = [layout.places[name] for name in folders if name in layout.places]
    found = sorted(Counter(f"{place.split}:{place.label or ''}" for place in places).items())
    return " ".join(f"{place}*{count}" if count > 1 else place for place, count in found), layout.notes


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ("train_set/a/1 train_set/b/1 test_set/a/1", "test_set is read as the split test, train_set as train"),
        ("train2017/a/1 train2017/b/1 test2017/a/1", "test2017 is read as the split test, train2017 as train"),
        ("trainset/a/1 trainset/b/1 testset/a/1", "testset is read as the split test, trainset as train"),
        ("TrainData/a/1 TrainData/b/1 TestData/a/1", "TestData is read as the split test, TrainData as train"),
        ("my-train/a/1 my-train/b/1 holdout/a/1", "holdout is read as the split test, my-train as train"),
        ("1_Train/a/1 1_Train/b/1 2_TEST/a/1", "1_Train is read as the split train, 2_TEST as test"),
        ("train_val/a/1 train_val/b/1 test/a/1", "test is read as the split test, train_val as train"),
        ("d/train/a/1 d/train/b/1 d/test/a/1", "d/test is read as the split test, d/train as train"),
        ("d/images/train/a/1 d/images/train/b/1 d/images/test/a/1", "d/images/test is read as the split test, d/images/tra"),
        ("d/train_split/train/a/1 d/train_split/train/b/1 d/train_split/test/a/1", "d/train_split/test is read as the split"),
        ("train_1/a/1 train_2/b/1 test_1/a/1", "test_1 is read as the split test, train_1 as train, train_2 as train"),
        ("train/a/1 training/b/1 test/a/1", "test is read as the split test, train as train, training as train"),
    ],
)  # fmt: skip
def test_folders_whose_names_hold_the_word_of_a_split_are_splits_and_a_note_states_it(files: str, note: str) -> None:
    found, notes = read(files)
    assert found == TWO_SPLITS
    assert notes[0].startswith(f"L: {note}")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        # Kaggle: Intel image classification, cat-and-dog, ASL alphabet
        (
            "seg_train/seg_train/a/1 seg_train/seg_train/b/1 seg_test/seg_test/a/1 seg_pred/seg_pred/1",
            "test:a train:a train:b unlabelled:",
        ),
        ("training_set/training_set/a/1 training_set/training_set/b/1 test_set/test_set/a/1", TWO_SPLITS),
        ("alphabet_train/alphabet_train/a/1 alphabet_test/alphabet_test/a_test", "test: train:a"),
        # ImageNet, Tiny ImageNet
        ("I/Data/LOC/train/n1/1 I/Data/LOC/train/n2/1 I/Data/LOC/val/1", "train:n1 train:n2 val:"),
        ("t/train/n1/images/1 t/train/n2/images/1 t/val/images/1", "train:n1 train:n2 val:"),
        # COCO, YOLO
        ("c/images/train2017/1 c/images/val2017/1 c/images/unlabeled2017/1", "train: unlabelled: val:"),
        # a competition: train with classes, test without
        ("train/a/1 train/b/1 test/1 test/2", "test:*2 train:a train:b"),
        ("train/train/1 test1/test1/1", "test: train:"),
        # a folder of one name in each split
        ("train/faces/a/1 train/faces/b/1 test/faces/a/1", TWO_SPLITS),
        # classes around splits
        ("a/train/1 b/train/1 a/test/1", TWO_SPLITS),
        # splits and classes in one name
        ("train_a/1 train_b/1 test_a/1 test_b/1", "test:a test:b train:a train:b"),
        ("a_train/1 b_train/1 c_train/1 a_test/1", "test:a train:a train:b train:c"),
        ("train_x/1 test_y/1", "test: train:"),
        ("trainA/1 trainB/1 testA/1 testB/1", "test:A test:B train:A train:B"),
        # Food-11, and eval for val
        ("training/a/1 validation/a/1 evaluation/a/1", "test:a train:a val:a"),
        ("train_set/a/1 eval_set/a/1", "train:a val:a"),
        # folders around classes
        ("CUB/images/001.x/1 CUB/images/002.y/1", ":001.x :002.y"),
        ("images/1 images/2", ":*2"),
        ("crash-test-dataset/a/1 crash-test-dataset/b/1", ":a :b"),
        ("test_set/a/1 test_set/b/1", "test:a test:b"),
        # domains, or classes with folders of the same names
        ("photo/a/1 photo/b/1 sketch/a/1 sketch/b/1", ":photo*2 :sketch*2"),
        # masks beside images: Pascal VOC, Oxford-IIIT Pet, segmentation data
        ("COVID/images/1 COVID/masks/1 ok/images/1 ok/masks/1", ":COVID :ok"),
        ("V/JPEGImages/1 V/JPEGImages/2 V/SegmentationClass/1 V/SegmentationObject/1", ":*2"),
        ("images/1 images/2 annotations/trimaps/1", ":*2"),
        ("train/images/1 train/masks/1 test/images/1 test/masks/1", "test: train:"),
        ("images/a/1 images/b/1 masks/a/1 masks/b/1", ":a :b"),
        ("b/train/good/1 b/test/good/1 b/test/hole/1 b/ground_truth/hole/1", "test:good test:hole train:good"),
        # numbered parts
        ("images_001/images/1 images_002/images/2", ":*2"),
        ("HAM10000_images_part_1/1 HAM10000_images_part_2/2", ":*2"),
        ("part-1/a/1 part-2/a/2 part-2/b/3 part-3/a/4", ":a*3 :b"),
        # partitions as Hive writes them
        ("label=ant/1 label=fire%20ant/1", ":ant :fire ant"),
        ("split=train/class=a/1 split=test/class=a/1 split=train/class=b/1", TWO_SPLITS),
        ("site=1/label=a/1 site=2/label=b/1 site=2/label=__HIVE_DEFAULT_PARTITION__/1", ": :a :b"),
        # scenes in folders of their initials
        ("a/abbey/1 a/attic/1 b/bakery/shop/1", ":a*2 :b"),
        ("Trainingsdaten/a/1 Trainingsdaten/b/1 Testdaten/a/1", ":Testdaten :Trainingsdaten*2"),
        # a taxonomy
        ("Aves/1/1 Aves/2/1 Plantae/3/1 Plantae/4/1", ":Aves*2 :Plantae*2"),
        # classes whose names hold the word of a split
        ("train/1 car/1", ":car :train"),
        ("train_set/1 misc/1", ":misc :train_set"),
        ("test2017/1 dog/1 cat/1", ":cat :dog :test2017"),
        ("steam_train/1 freight_train/1", ":freight_train :steam_train"),
        ("blood_test/1 urine_test/1", ":blood_test :urine_test"),
        ("train_station/1 test_track/1 cafe/1 airport/1", ":airport :cafe :test_track :train_station"),
    ],
)  # fmt: skip
def test_a_layout_that_is_not_the_plain_one_is_read_with_a_note(files: str, found: str) -> None:
    read_as, notes = read(files)
    assert read_as == found
    assert notes


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ("contest/1 latest/1 medieval/1", ":contest :latest :medieval"),
        ("class_1/1 class_2/1", ":class_1 :class_2"),
        ("masks/1 helmets/1", ":helmets :masks"),
        ("part_1/1 part_3/1", ":part_1 :part_3"),
        ("label=a/1 cat/1", ":cat :label=a"),
        ("test_tube/1 flask/1", ":flask :test_tube"),
        ("0/1 1/1 2/1", ":0 :1 :2"),
        ("Train/a/1 Train/b/1 TEST/a/1", TWO_SPLITS),
        ("train/train/1 train/car/1 test/train/1 test/car/1", "test:car test:train train:car train:train"),
        ("train/test_tube/1 train/flask/1 test/test_tube/1", "test:test_tube train:flask train:test_tube"),
        ("1 2", ":*2"),
        ("blood_test/1 blood_test/2", ":blood_test*2"),
        ("train/images/1 valid/images/1 test/images/1", "test: train: val:"),
        ("a/1 a/deep/2 b/1", ":a*2 :b"),
        ("pretrain/0/1 train/5/1 test/5/1", "pretrain:0 test:5 train:5"),
        ("loose train/1 test/1", "test: train:"),
    ],
)  # fmt: skip
def test_a_plain_layout_is_read_without_a_note(files: str, found: str) -> None:
    assert read(files) == (found, ())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("train/a/1 test/a/1 truths/a/1", "L has folders of splits and beside them truths, which holds images too"),
        ("train_set/a/1 train_set/b/1 test_set/a/1 figures/1", r"beside them figures, .* test_set is read as the split test"),
        ("train2017/1 val2017/1 samples/1", "beside them samples"),
        ("train/a/1 train/b/1 extra/a/1 extra/b/1", "beside them extra"),
        ("d/train/a/1 d/test/a/1 docs/1", r"folders of splits in d \(test, train\), but docs has .* Name the .*L/d, or list"),
        ("a/train/1 a/test/1 b/1", "folders of splits in a .*, but b has images that are in no such folder"),
        ("bottle/train/x/1 bottle/test/y/1 bottle/truth/y/1 cable/train/x/1", "but bottle has images that are in no"),
        ("p/train/a/1 p/train/b/1 p/test/a/1 s/train/a/1 s/test/b/1", r"each of p, s, .* same names .*\(a, b\).* side by side"),
        ("cells/a/1 cells/b/1 cells/cells/a/1 cells/cells/b/1", "L/cells/cells has folders of the same names, so one looks"),
        ("train/a/1 train/b/1 train/train/a/1 train/train/b/1 test/a/1", "one looks like a copy of the other"),
    ],
)  # fmt: skip
def test_a_layout_with_two_readings_is_refused(files: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(files)


def test_the_notes_name_what_was_read_as_what() -> None:
    assert read("train/a/1 train/b/1 test/1 test/2")[1] == (
        "L: the images in test (2) are in no folders of classes, so they have no labels",
    )
    assert read("train/1 car/1")[1] == ("L: train is read as a class, not as a split, because car is not a split",)
    assert read("a/train/1 b/train/1 a/test/1")[1] == ("L: the folders test, train in each class are read as splits",)
    assert read("d/a/1 d/b/1")[1] == ("L: the classes are the folders in d",)
    assert read("x/a/1 x/b/1 y/a/1 y/b/1")[1] == (
        "L: each of x, y is read as a class, and all of them have folders of the same names (a, b). If those are the classes, "
        "name one of the folders around them, or add --label-pattern '(?P<label>[^/]+)/[^/]+$', which takes the folder that "
        "holds each image",
    )
    assert read("images/1 cat/1")[1] == ("L: the folder images is read as a class",)
    assert read("train/images/1 train/masks/1 test/images/1 test/masks/1")[1] == (
        "L: test/masks, train/masks lie beside folders of images and are left out: by the name they hold masks",
    )


def test_a_word_ends_with_its_letters_or_where_lower_case_turns_to_upper() -> None:
    names = [
        "train",
        "valid2",
        "imgTest",
        "TESTING",
        "contest",
        "valley",
        "testament",
        "train_test",
        "pre-train",
        "ététest",
    ]
    assert list(worded_splits(names).values()) == ["train", "val", "test", "test", *[""] * 6]
    assert exact_splits(["Train", "train_set", "Dev"]) == {"Train": "train", "train_set": "", "Dev": "val"}
    assert list(exact_splits(["train", "val", "eval"]).values()) == ["train", "val", "test"]
    assert list(exact_splits(["train", "test", "Evaluation"]).values()) == ["train", "test", "val"]


def test_thumbnails_and_the_bins_of_network_drives_are_no_images(tmp_path: Path) -> None:
    for name in (
        "a/1.jpg",
        "a/@eaDir/1.jpg/thumb.jpg",
        "b/1.jpg",
        "#recycle/b/2.jpg",
        "__MACOSX/a/1.jpg",
        "b/.cache/1.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    images = scan_images(tmp_path)
    assert images.paths.tolist() == ["a/1.jpg", "b/1.jpg"]
    assert images.notes == (f"{tmp_path.name}: 4 left out (4 in hidden folders)",)


def test_a_split_without_images_is_noted(tmp_path: Path) -> None:
    for name in ("train_set/a/1.jpg", "train_set/b/1.jpg", "test_set/a/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    *_, note = scan_images(tmp_path).notes
    assert note == f"the folder of a split 'test_set' has no images: {tmp_path.resolve() / 'test_set'}"
