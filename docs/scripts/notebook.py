"""Run the cells of examples/own_module.ipynb and keep what they show, without Jupyter.

cd examples && python ../docs/scripts/notebook.py own_module.ipynb
"""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def run_cells(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells in one namespace and put their outputs into the notebook; return the namespace."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        body = ast.parse("".join(cell["source"]))
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(body, f"<cell {count}>", "exec"), scope)
            value = (
                None if last is None else eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), scope)
            )
        cell["execution_count"] = count
        cell["outputs"] = []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": text})
        if value is not None:
            data = {"text/plain": repr(value).splitlines(keepends=True)}
            if hasattr(value, "_repr_html_"):
                data["text/html"] = value._repr_html_().splitlines(keepends=True)
            shown = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
            cell["outputs"].append(shown)
    return scope


def main(path: Path) -> None:
    """Run a notebook and write it with its outputs."""
    sys.path.insert(0, str(path.parent.absolute()))
    notebook = json.loads(path.read_text("utf-8"))
    run_cells(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
