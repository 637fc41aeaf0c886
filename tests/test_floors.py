"""A module imports only from floors below its own; nothing goes up, sideways or round."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "costsim"

FLOOR = {
    **dict.fromkeys(
        ["units", "errors", "files", "loading", "library", "dtypes", "quantity"], 1
    ),
    **dict.fromkeys(["hardware", "models"], 2),
    "kernels": 3,
    "ops": 4,
    "engine": 5,
    **dict.fromkeys(["serving", "economics", "training", "sparsity"], 6),
    **dict.fromkeys(["planning", "validation"], 7),
    "reports": 8,
    "cli": 9,
    "__main__": 9,
}
# Packages that share a floor may not import one another, but for those said here.
SAME_FLOOR_ALLOWED = {
    ("sparsity", "training"),
    ("sparsity", "economics"),
    ("training", "economics"),
    ("validation", "planning"),
}
FORBIDDEN_LIBRARIES = {
    "matplotlib": 8,
    "rich": 8,
    "click": 9,
}


def unit_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Every imported module name of a file with its line, inside functions too."""
    found: list[tuple[str, int]] = []
    package = ".".join(("costsim", *path.relative_to(PACKAGE).with_suffix("").parts))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: -node.level]
                base = ".".join([*parts, base]) if base else ".".join(parts)
            found.append((base, node.lineno))
            if base == "costsim":
                found += [(f"costsim.{alias.name}", node.lineno) for alias in node.names]
    return found


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_from_floors_below(path: Path) -> None:
    unit = unit_of(path)
    assert unit in FLOOR, f"{unit} stands on no floor: add it to the table of the architecture"
    for name, line in imports_of(path):
        where = f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        library = name.split(".")[0]
        if library in FORBIDDEN_LIBRARIES:
            assert FLOOR[unit] >= FORBIDDEN_LIBRARIES[library], where
        if not name.startswith("costsim.") or unit == "__main__":
            continue
        other = name.split(".")[1]
        if other in ("__version__", unit) or other not in FLOOR:
            continue
        below = FLOOR[other] < FLOOR[unit] or (FLOOR[other] == FLOOR[unit] == 1)
        assert below or (unit, other) in SAME_FLOOR_ALLOWED, where


def test_no_import_cycles_between_modules() -> None:
    """Cycles at module level break whoever imports the second half first."""
    names = {
        ".".join(("costsim", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): p
        for p in MODULES
    }
    edges = {n: {i for i, _ in imports_of(p) if i in names and i != n} for n, p in names.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name):], name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_below_the_command_line_prints(path: Path) -> None:
    if FLOOR[unit_of(path)] >= 9:
        return
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and path.name != "__main__.py"
    ]
    assert not calls, f"{path.relative_to(PACKAGE)} prints at lines {calls}"
