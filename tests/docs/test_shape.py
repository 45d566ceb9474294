"""The measures of the house: what one can read at a time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("ganserve", "service", "training") for path in (ROOT / package).rglob("*.py"))
MODULE, CLASS, FUNCTION = 400, 200, 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_class_or_function_is_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert node.end_lineno is not None
            most = CLASS if isinstance(node, ast.ClassDef) else FUNCTION
            assert node.end_lineno - node.lineno < most, node.name
