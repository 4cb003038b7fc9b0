"""Names and defaults that the command line shows before anything heavy is imported. Standard library only."""

from __future__ import annotations

KINDS = ("logreg", "linear", "svm", "ridge", "knn", "centroid", "mlp")
"""The kinds of head that ship with featx, in the order of the command line; ``featx.heads.registry`` defines them."""

KERNELS = ("linear", "rbf")
"""Kernels of an svm head."""

TASKS = ("classification", "multilabel", "regression")
"""What a head may be asked: one class of many, any number of labels, or numbers."""

CALIBRATIONS = ("temperature", "isotonic", "none")
"""How a head's probabilities are made to mean what they say."""

DTYPES = ("float32", "float16")
"""What features may be kept as."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""What a network may compute in. All but the first are part of what features are."""


POOLINGS = ("avg", "max", "gem", "cls", "avg+cls", "flatten")
"""How a layer's map or tokens become one vector. ``--layer NAME:POOLING`` names another than the first."""

ENGINES = ("eager", "compile", "openvino", "onnxruntime")
"""What may run a network. All give the same features, to a relative 1e-4 of each row's norm."""

MAX_SIDE = 2048
"""The largest resize and crop, in pixels: memory grows with the square, and a file from a stranger may ask for it."""

CACHE, MODELS = "cache", "models"
"""Default folders of feature files, and of heads and models."""

UNTRAINED = "untrained"
"""The folder, within that of feature files, of what networks with random weights gave, to compare with."""

FROZEN, INPUT = "frozen", ".input"
"""The folder, within that of feature files, of what the frozen part of a network gave; what such a layer's name ends with."""
