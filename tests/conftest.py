"""Fixtures and options shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite golden files with today's figures"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real measurements and traces beside the checkout; skips where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("measurements and traces (../shared/data) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def silicon() -> Path:
    """Folder of the package aiconfigurator_core; skips where the extra `silicon` is missing."""
    package = pytest.importorskip("aiconfigurator_core", reason="extra 'silicon' not installed")
    return Path(package.__file__).parent
