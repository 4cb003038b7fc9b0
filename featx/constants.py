"""Names and defaults that the command line needs before anything heavy is imported. Standard library only."""

from __future__ import annotations

KINDS = ("logreg", "linear", "svm", "ridge", "knn", "centroid", "bilinear", "mlp")
"""The kinds of head that ship with featx, in the order of the command line; ``featx.heads.registry`` defines them."""

ZERO_SHOT = "zeroshot"
"""The kind of head that is made of the texts of its classes, without training images; also what logreg may be anchored to."""

DEFAULT_TEMPLATE = "a photo of a {}"
"""The sentence that the name of a class is put into where none is given."""

KERNELS = ("linear", "rbf")
"""The kernels of an svm head."""

TASKS = ("classification", "multilabel", "regression")
"""The tasks of a head: one class of many, any number of labels, or numbers."""

DEFAULT_KINDS = {"classification": "logreg", "multilabel": "logreg", "regression": "ridge"}
"""The kind of head that is fitted for each task where none is named."""

CALIBRATIONS = ("temperature", "isotonic", "none")
"""The ways to calibrate a head's probabilities."""

DUPLICATE_FIXES = ("group", "drop")
"""What a corrected table does with duplicates within a split: a group for each set, or all but one dropped."""

LEAK_FIXES = ("move", "drop", "keep")
"""What a corrected table does with duplicates across splits: all moved to the earliest of train, val and test; those in the
earlier splits dropped; or nothing."""

MAPS = ("pca", "tsne")
"""The ways to place the images of an inspection on a map."""

EXPECTED = "expected"
"""The number of suggested labels that stands for those that confident learning counts as wrong."""

TOOLS = ("embedding-atlas",)
"""The tools that features can be exported for."""

MAPS = ("pca", "tsne")
"""The ways to place images on a map."""

EXPORT_PRECISIONS = ("float32", "float16", "int8")
"""The precisions of the network of an exported model."""

EXPORT_PIXELS = ("thumbnail", "full", "none")
"""What an export has of each image: a small JPEG, the file, or nothing."""

DTYPES = ("float32", "float16")
"""The dtypes that features may be stored in."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""The precisions that a network may compute in. Each gives other features, so it is part of their identity."""


POOLINGS = ("avg", "max", "gem", "cls", "avg+cls", "flatten")
"""The ways to pool a layer's map or tokens into one vector, described at ``layer_spec.LayerNode``; the first is the default."""

MAX_SIDE = 2048
"""The largest resize and crop, in pixels. Memory grows with its square, and a foreign file may name any number."""

MAX_CHANNELS = 1024
"""The most channels of a network's input."""

FITS = ("crop", "pad", "squash")
"""How an image of another shape becomes the network's input."""

TRACKERS = ("mlflow", "wandb", "tensorboard")
"""The tools that runs can be tracked by."""

CACHE, MODELS = "cache", "models"
"""The default folders of feature files, and of heads and models."""

UNTRAINED = "untrained"
"""The subfolder of the cache for features of networks with random weights, which ``advise`` compares with."""

EMBEDDED = "embedded"
"""The subfolder of the cache for features of images that belong to no data set."""

FROZEN, INPUT = "frozen", ".input"
"""The subfolder of the cache for the outputs of a network's frozen part, and the ending of such a layer's name."""

FOREIGN = "foreign"
"""The word before the identity, and the name of the part of a backbone, of features that another tool computed."""

JOINT = "joint"
"""The source of a backbone that is several side by side, whose features are those of each, one after the other."""

FEW_HELD_OUT = 200
"""Held-out images below which cross-validation tells more than they do, so that a fit adds it by itself."""
