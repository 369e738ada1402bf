"""The order of the tests, of which the longest begin first, and a place for what they cache."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
# Two processes share the tests file by file (see the Makefile): a long one that began last would be
# waited for alone. Measured with `--durations`; a file that is not here is short.
LONGEST = [
    ROOT / name
    for name in (
        "test_resume.py",
        "test_processes.py",
        "training/test_checkpoint.py",
        "training/test_catalogue.py",
        "report/test_trackers.py",
        "training/test_selection.py",
        "tables/test_reproduce.py",
        "tables/test_stages.py",
        "test_readme.py",
        "losses/test_conformance.py",
        "tuning/test_proposals.py",
        "test_train.py",
        "test_extending_page.py",
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first and leave the order within a file alone."""
    missing = [path for path in LONGEST if not path.is_file()]
    assert not missing, f"tests/conftest.py names files that are not there: {missing}"
    rank = {path: place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(autouse=True, scope="session")
def _own_data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what runs cache out of the user's own folder, where nothing says where it goes."""
    with pytest.MonkeyPatch.context() as patch:
        if "DATA_ROOT" not in os.environ:
            patch.setenv("DATA_ROOT", str(tmp_path_factory.mktemp("data_root")))
        yield
