"""What no source file may do: name a device, read unsafely, skip a test, know a local path."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests._source_tree import ROOT, Rule, calls, files, keyword, sources, violations


def cuda_calls(tree: ast.Module) -> Iterator[ast.AST]:
    """`x.cuda()` and devices written out as text, as in `.to("cuda")` and `device="cuda:0"`."""
    for name, call in calls(tree):
        values = [*call.args, *(k.value for k in call.keywords)]
        texts = [
            v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)
        ]
        if name.endswith(".cuda") or any(re.fullmatch(r"(cuda|mps)(:\d+)?", t) for t in texts):
            yield call


def unsafe_yaml(tree: ast.Module) -> Iterator[ast.AST]:
    """YAML loaders that can build any object; a subclass of SafeLoader is safe."""
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and safe & {ast.unparse(base) for base in node.bases}:
            safe.add(node.name)
    for name, call in calls(tree):
        if name in {"yaml.load", "yaml.load_all"}:
            loader = keyword(call, "Loader") or ast.unparse(call.args[-1])
            if loader not in safe:
                yield call
        elif name.startswith(("yaml.unsafe_load", "yaml.full_load")):
            yield call


def unsafe_torch_load(tree: ast.Module) -> Iterator[ast.AST]:
    """`torch.load` that may run code from the file."""
    for name, call in calls(tree):
        if name == "torch.load" and keyword(call, "weights_only") != "True":
            yield call


def pickles(tree: ast.Module) -> Iterator[ast.AST]:
    """Readers of pickles, NumPy's among them."""
    for name, call in calls(tree):
        if name in {"pickle.load", "pickle.loads"} or keyword(call, "allow_pickle") == "True":
            yield call


def skipped_tests(tree: ast.Module) -> Iterator[ast.AST]:
    """Tests that may not run, or that wait."""
    avoided = ("pytest.skip", "pytest.mark.skip", "pytest.xfail", "pytest.mark.xfail", "time.sleep")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name.startswith(avoided) or name == "pytest.importorskip":
                yield node


def without_assertion(tree: ast.Module) -> Iterator[ast.AST]:
    """Test functions in which nothing can fail but by accident."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            names = [name.split(".")[-1] for name, _ in calls(node)]
            checks = any(
                n.startswith(("assert_", "check_")) or n in {"raises", "warns"} for n in names
            )
            if not checks and not any(isinstance(inner, ast.Assert) for inner in ast.walk(node)):
                yield node


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (cuda_calls, "x.cuda()", "x.is_cuda"),
        (cuda_calls, "x.to('cuda:1')", "x.to(device)"),
        (cuda_calls, "torch.zeros(1, device='mps')", "torch.zeros(1, device=device)"),
        (unsafe_yaml, "yaml.load(text, Loader=yaml.Loader)", "yaml.safe_load(text)"),
        (
            unsafe_yaml,
            "class L(yaml.Loader): pass\nyaml.load(text, Loader=L)",
            "class L(yaml.SafeLoader): pass\nyaml.load(text, Loader=L)",
        ),
        (unsafe_yaml, "yaml.full_load(text)", "yaml.safe_load_all(text)"),
        (unsafe_torch_load, "torch.load(path)", "torch.load(path, weights_only=True)"),
        (unsafe_torch_load, "torch.load(path, weights_only=False)", "torch.save(x, path)"),
        (pickles, "pickle.load(file)", "json.load(file)"),
        (pickles, "np.load(path, allow_pickle=True)", "np.load(path)"),
        (
            skipped_tests,
            "@pytest.mark.skipif(True)\ndef test_x(): ...",
            "@pytest.mark.slow\nclass A: ...",
        ),
        (skipped_tests, "def test_x():\n    time.sleep(1)", "time.monotonic()"),
        (without_assertion, "def test_x():\n    f()", "def test_x():\n    assert f()"),
        (
            without_assertion,
            "def test_x():\n    f()",
            "def test_x():\n    np.testing.assert_equal(1, 1)",
        ),
    ],
)
def test_the_rules_below_tell_bad_source_from_good(rule: Rule, bad: str, good: str) -> None:
    assert len(list(rule(ast.parse(bad)))) == 1
    assert list(rule(ast.parse(good))) == []


def test_only_the_runtime_module_names_a_device() -> None:
    importable = [p for p in sources() if p.relative_to(ROOT).parts[0] != "tests"]
    others = [path for path in importable if path != ROOT / "engine/training/runtime.py"]
    assert violations(cuda_calls, others) == []


def test_yaml_is_read_by_safe_loaders_alone() -> None:
    assert violations(unsafe_yaml, sources()) == []


def test_torch_files_are_read_as_weights_only() -> None:
    assert violations(unsafe_torch_load, sources()) == []


def test_pickles_are_read_by_data_sets_alone() -> None:
    others = [path for path in sources() if path.relative_to(ROOT).parts[0] != "data"]
    assert violations(pickles, others) == []


def test_no_test_is_skipped_expected_to_fail_or_asleep() -> None:
    assert violations(skipped_tests, sources("tests")) == []


def test_every_test_asserts_something() -> None:
    assert violations(without_assertion, sources("tests")) == []


def test_no_file_knows_a_path_of_somebodys_machine() -> None:
    somewhere = re.compile(rb"(?<![\w.)}~*-])/(?:home|root|work|tmp|Users)/\w")
    kinds = {"", ".cff", ".csv", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
    texts = [path for path in files() if path.suffix in kinds]
    assert texts
    assert [str(path) for path in texts if somewhere.search(path.read_bytes())] == []
