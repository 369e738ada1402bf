"""Who imports whom, what things are called, and that importing has no side effects."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests._source_tree import PACKAGES, ROOT, files, sources

SCRIPTS = {"train", "sweep", "reproduce", "predict", "analyze"}
OURS = {*PACKAGES, *SCRIPTS, "benchmarks", "docs", "experiments", "tests"}
# Each room of the engine imports those before it, and never one after it.
ROOMS = (
    "config",
    "cluster",
    "training",
    "report",
    "card",
    "prediction",
    "tuning",
    "tables",
    "analysis",
)
# The same holds inside engine/tuning.
TUNING = ("search", "study", "figures", "confirm")


def imports(path: Path, root: Path = ROOT) -> set[str]:
    """Dotted names of all that a file imports, at any depth; relative ones resolved."""
    package = path.relative_to(root).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*base, *(node.module or "").split("."))
            module = ".".join(part for part in parts if part)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def top(name: str) -> str:
    return name.split(".")[0]


def test_imports_are_found_at_any_depth_and_relative_ones_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "losses").mkdir()
    module = tmp_path / "losses/focal.py"
    module.write_text(
        "import torch.nn\nfrom . import _base\nfrom ._weights import w\nfrom ..engine import loop\n"
        "def f():\n    from data.digits import Digits\n"
    )
    expected = {
        "torch.nn",
        "losses._base",
        "losses._weights.w",
        "engine.loop",
        "data.digits.Digits",
    }
    assert imports(module, root=tmp_path) == expected


@pytest.mark.parametrize("package", ["data", "losses", "models"])
def test_a_package_imports_nothing_of_ours_but_itself(package: str) -> None:
    foreign = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(package)
        for name in imports(path)
        if top(name) in OURS - {package}
    }
    assert foreign == set()


def room_imports(room: str) -> dict[str, set[str]]:
    """What each file of a room imports of ours, as `package` or `engine.room`."""
    inside = [path for path in sources("engine") if path.relative_to(ROOT).parts[1] == room]
    assert inside, room
    return {
        str(path.relative_to(ROOT)): {
            ".".join(name.split(".")[: 2 if top(name) == "engine" else 1])
            for name in imports(path)
            if top(name) in OURS
        }
        for path in inside
    }


def test_the_engine_is_its_rooms() -> None:
    folders = {path.relative_to(ROOT).parts[1] for path in sources("engine")}
    assert folders - {"__init__.py"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_before_it(room: str) -> None:
    rooms = {f"engine.{name}" for name in ROOMS[: ROOMS.index(room) + 1]}
    packages = set() if room in ("config", "report") else {"data", "losses", "models"}
    scripts = {"train"} if room in ("tuning", "tables") else set()
    wrong = {
        f"{path}: {name}"
        for path, names in room_imports(room).items()
        for name in names - rooms - packages - scripts
    }
    assert wrong == set()


@pytest.mark.parametrize("folder", TUNING)
def test_a_folder_of_tuning_imports_only_the_folders_before_it(folder: str) -> None:
    inside = [p for p in sources("engine") if p.relative_to(ROOT).parts[1:3] == ("tuning", folder)]
    assert inside, folder
    allowed = {f"engine.tuning.{name}" for name in TUNING[: TUNING.index(folder) + 1]}
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in inside
        for name in imports(path)
        if name.startswith("engine.tuning.") and ".".join(name.split(".")[:3]) not in allowed
    }
    assert wrong == set()


def test_the_script_of_a_run_stands_above_training_and_report_alone() -> None:
    used = {".".join(n.split(".")[:2]) for n in imports(ROOT / "train.py") if top(n) == "engine"}
    assert used == {"engine.config", "engine.cluster", "engine.training", "engine.report"}


def test_losses_need_only_torch_so_that_the_folder_can_be_copied() -> None:
    # Triton comes with PyTorch, or is done without.
    allowed = {"torch", "triton", "annotated_types", "losses", *sys.stdlib_module_names}
    used = {top(name) for path in sources("losses") for name in imports(path)}
    assert used - allowed == set()
    assert "torch" in used


def test_a_loss_takes_another_by_a_relative_import_which_the_code_hash_follows() -> None:
    files = [path for path in sources("losses") if path.parent == ROOT / "losses"]
    public = {path.stem for path in files if not path.stem.startswith("_")}
    assert public
    for path in files:
        absolute = [name for name in imports(path) if name.startswith("losses.")]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        relative = {
            f"losses.{node.module}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level == 1
        }
        taken = {".".join(name.split(".")[:2]) for name in absolute}
        assert taken <= relative, path.name
        if path.stem.startswith("_") and path.stem != "__init__":
            assert {name.split(".")[1] for name in taken} & public == set(), path.name


def test_nothing_has_a_name_that_says_nothing() -> None:
    empty_words = {"util", "utils", "common", "helper", "helpers", "core", "misc"}
    named = {part for path in files() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert {name for name in named if empty_words & set(name.strip("_").split("_"))} == set()


WITNESS = """
import importlib, os, random, sys
import numpy, torch
import rich.console  # draws from Python's generator as it is imported
sys.argv = ["prog", "--an-option-that-nobody-knows"]
random.seed(17), numpy.random.seed(17), torch.manual_seed(17)
def state():
    generators = (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist())
    return (generators, sys.argv[:], torch.get_default_dtype(), torch.get_num_threads(),
            torch.cuda.is_initialized(), os.getcwd())
for name in sys.stdin.read().split():
    before = state()
    importlib.import_module(name)
    if state() != before:
        print(name)
"""


@pytest.fixture(scope="module")
def import_side_effects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The modules, of ours and one planted last, whose import changes a global state."""
    planted = tmp_path_factory.mktemp("planted")
    (planted / "seeds_when_imported.py").write_text("import torch\ntorch.manual_seed(0)\n")
    paths = sources(*PACKAGES)
    modules = [path.relative_to(ROOT).with_suffix("").parts for path in paths]
    names = [".".join(parts).removesuffix(".__init__") for parts in modules]
    found_in = os.pathsep.join([str(ROOT), str(planted)])
    result = subprocess.run(
        [sys.executable, "-c", WITNESS],
        input="\n".join([*names, "seeds_when_imported"]),
        env=os.environ | {"PYTHONPATH": found_in},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_importing_a_module_seeds_nothing_parses_nothing_and_leaves_cuda_alone(
    import_side_effects: list[str],
) -> None:
    assert set(import_side_effects) - {"seeds_when_imported"} == set()


def test_a_module_that_seeds_when_imported_is_seen(import_side_effects: list[str]) -> None:
    assert "seeds_when_imported" in import_side_effects


def test_the_story_of_a_run_is_short_has_no_inner_functions_and_knows_no_ranks() -> None:
    tree = ast.parse((ROOT / "train.py").read_text(encoding="utf-8"))
    (run,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run")
    assert run.end_lineno is not None
    assert run.end_lineno - run.lineno + 1 <= 150
    inside = [n for n in ast.walk(run) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    assert inside == [run]
    named = {n.attr for n in ast.walk(run) if isinstance(n, ast.Attribute)}
    assert named & {"is_main", "on_main", "rank", "world", "processes"} == set()
    assert {"draw", "reweight", "update", "train_epoch"} <= named
