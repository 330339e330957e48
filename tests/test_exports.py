from __future__ import annotations

import ast
import types
from pathlib import Path

import pytest

import ws_middleware

PACKAGE = Path(ws_middleware.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_each_is_in_all_once() -> None:
    assert len(set(ws_middleware.__all__)) == len(ws_middleware.__all__)


def test_the_public_names_are_those_in_all() -> None:
    public = {
        name
        for name, value in vars(ws_middleware).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name != "annotations"
    }
    assert public | {"__version__"} == set(ws_middleware.__all__)


def test_a_star_import_brings_them_all() -> None:
    namespace: dict[str, object] = {}
    exec("from ws_middleware import *", namespace)
    namespace.pop("__builtins__")
    assert set(namespace) == set(ws_middleware.__all__)


def test_the_version_is_a_version() -> None:
    assert [part.isdigit() for part in ws_middleware.__version__.split(".")] == [True] * 3


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_public_has_a_docstring(path: Path) -> None:
    module = ast.parse(path.read_text("utf-8"))
    missing = [
        each.name
        for each in module.body
        if isinstance(each, Definition)
        and not each.name.startswith("_")
        and not ast.get_docstring(each)
    ]
    assert missing == []
    assert ast.get_docstring(module)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_all_of_a_module_names_what_it_defines(path: Path) -> None:
    module = ast.parse(path.read_text("utf-8"))
    if path.name == "__init__.py":
        return
    exported: list[str] = []
    defined: set[str] = set()
    for each in module.body:
        if isinstance(each, Definition):
            defined.add(each.name)
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            defined.add(each.target.id)
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            name = each.targets[0].id
            defined.add(name)
            if name == "__all__":
                exported = list(ast.literal_eval(each.value))
        elif isinstance(each, (ast.Import, ast.ImportFrom)):
            defined.update(alias.asname or alias.name for alias in each.names)
    assert exported
    assert set(exported) <= defined
