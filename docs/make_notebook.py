"""Run the notebook of docs/notebooks, and write its output into it and onto a page; ``--check`` tells whether both are new.

python docs/make_notebook.py [--check]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parent
NOTEBOOK = DOCS / "notebooks" / "scikit-learn.ipynb"
PAGE = NOTEBOOK.with_suffix(".md")
NOTE = "*`make docs` writes this page from the notebook [scikit-learn.ipynb](scikit-learn.ipynb), which it runs.*\n"


def run(notebook: Any) -> Any:
    """Run the cells in a new folder, and keep the text that they print and return.

    Args:
        notebook: as nbformat reads it. It is changed.
    """
    for name in ("PYTHONWARNINGS", "FORCE_COLOR"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_text_alone, cell.outputs) if output]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def _text_alone(output: Any) -> Any:
    """The output as text; None for what is written to stderr."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if "data" in output:
        output.data = {"text/plain": output.data["text/plain"]}
    return output


def page(notebook: Any) -> str:
    """The notebook as Markdown: code in fences, and what it printed below."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        texts = [
            output.text if output.output_type == "stream" else output.data["text/plain"] for output in cell.outputs
        ]
        if printed := "".join(texts).rstrip():
            parts.append(f"```text\n{printed}\n```")
    return "\n\n".join([parts[0], NOTE.rstrip(), *parts[1:]]) + "\n"


def main() -> None:
    """Write both files, or compare them."""
    stored = NOTEBOOK.read_text()
    done = run(nbformat.reads(stored, as_version=4))  # type: ignore[no-untyped-call]
    text: str = nbformat.writes(done, indent=1)  # type: ignore[no-untyped-call]
    made = {NOTEBOOK: text.rstrip() + "\n", PAGE: page(done)}
    if "--check" in sys.argv[1:]:
        old = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
        if old:
            sys.exit(f"{' and '.join(old)} are out of date; run python docs/make_notebook.py")
        return
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
