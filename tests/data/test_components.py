import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

import data
from data import Augment, Imbalance, Validation, data_root

NAMES = sorted(
    path.stem for path in Path(data.__file__).parent.glob("*.py") if not path.stem.startswith("_")
)
# The keys that all data sets share; a data set may have defaults of its own for them.
SHARED_KEYS = {
    f"{section}.{key.name}"
    for section, axis in (
        ("imbalance", Imbalance),
        ("validation", Validation),
        ("augment", Augment),
    )
    for key in dataclasses.fields(axis)
}


def component(name: str) -> type:
    class_name = "".join(word.capitalize() for word in name.split("_"))
    found: type = getattr(importlib.import_module(f"data.{name}"), class_name)
    return found


def test_data_sets_are_found() -> None:
    assert {"digits", "image_folder", "synthetic"} < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_one_public_class_of_its_own_name(name: str) -> None:
    module = importlib.import_module(f"data.{name}")
    public = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and key[0] != "_"
    ]
    assert public == [component(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_a_default_and_a_line_of_help(name: str) -> None:
    subject = component(name)
    keys = [
        parameter
        for parameter in inspect.signature(subject).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert all(key.default is not key.empty for key in keys)
    help_text = inspect.getdoc(subject) or ""
    assert all(f"    {key.name}: " in help_text for key in keys)


@pytest.mark.parametrize("name", NAMES)
def test_shared_defaults_name_shared_keys(name: str) -> None:
    assert set(getattr(component(name), "shared_defaults", {})) <= SHARED_KEYS


def test_the_data_root_is_the_variable_else_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    assert data_root() == tmp_path / ".cache/tailfocus"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root() == tmp_path / "cache/tailfocus"
    monkeypatch.setenv("DATA_ROOT", "~/sets")
    assert data_root() == tmp_path / "sets"
