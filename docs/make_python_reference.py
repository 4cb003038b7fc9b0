"""Write docs/python.md from the public names of featx; ``--check`` tells whether it is up to date.

python docs/make_python_reference.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

import featx

PAGE = Path(__file__).resolve().parent / "python.md"
HEADER = """# Python

`make docs` writes this page from the public names of `featx`. Each name is loaded on first use: `import featx` loads neither
torch nor scikit-learn.
"""
SECTIONS = {
    "Images and backbones": ("scan_images", "ImageSet", "Transform", "load_backbone", "Backbone"),
    "Features": (
        "extract",
        "Extraction",
        "FeatureSet",
        "FeatureFile",
        "export_features",
        "FeatureExport",
        "import_features",
        "FeatureImport",
    ),
    "Heads": ("fit_head", "Fit", "Head", "register_head"),
    "Reports": (
        "evaluate",
        "ClassificationReport",
        "MultiLabelReport",
        "RegressionReport",
        "CrossValidated",
        "PairedTest",
    ),
    "Comparing and advising": ("rank", "Ranking", "advise", "Advice"),
    "Promotion": ("promote", "FineTuning", "Promotion", "PromotedModel"),
    "Prediction": (
        "load_model",
        "predict",
        "iter_predictions",
        "write_predictions",
        "WrittenPredictions",
        "Prediction",
    ),
    "Progress and errors": ("Reporter", "FeatxError"),
}
OTHERS = "Other names"


def page() -> str:
    """The whole page as Markdown, with a directive of mkdocstrings for each name."""
    public = [name for name in featx.__all__ if not name.startswith("_")]
    placed = {name for names in SECTIONS.values() for name in names}
    sections = {**SECTIONS, OTHERS: tuple(name for name in public if name not in placed)}
    parts = [HEADER]
    for title, names in sections.items():
        if present := [name for name in names if name in public]:
            parts += [f"## {title}\n", *(f"::: featx.{name}\n" for name in present)]
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE.name} is out of date: run make docs")
    PAGE.write_text(page(), encoding="utf-8")
