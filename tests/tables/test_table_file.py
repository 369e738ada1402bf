"""Tables as YAML: which runs they mean, and what is wrong with them, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.config.selection_rules import catalogue
from engine.tables import table_file
from engine.tables.cells import cells, select
from engine.tables.table_file import read_table_file
from tests.tables._tables import cells_of, content, write_table


def mistakes(folder: Path, **changes: Any) -> tuple[str, ...]:
    """What reading and resolving the changed table complains of."""
    path = write_table(folder, **changes)
    with pytest.raises(ConfigError) as caught:
        cells(read_table_file(path))
    return tuple(line.replace(f"{path}: ", "") for line in caught.value.mistakes)


def test_a_table_is_methods_by_settings_by_seeds_the_first_seed_of_all_first(
    tmp_path: Path,
) -> None:
    found = cells_of(write_table(tmp_path, subset_seeds=[4, 7]))
    rows = [(c.seed, c.subset_seed, c.setting, c.method) for c in found]
    assert rows == [
        (seed, subset, setting, method)
        for seed in (0, 1)
        for subset in (4, 7)
        for setting in ("factor 8", "factor 2")
        for method in ("cross_entropy", "focal")
    ]


def test_paired_seeds_go_hand_in_hand(tmp_path: Path) -> None:
    path = write_table(tmp_path, subset_seeds=[4, 7], pairing="paired")
    assert read_table_file(path).seed_pairs == [(0, 4), (1, 7)]
    assert len(cells_of(path)) == 8


def test_the_words_of_a_cell_given_to_train_are_its_run(tmp_path: Path) -> None:
    for cell in cells_of(write_table(tmp_path)):
        assert fingerprint(load(overrides=cell.words)) == cell.fingerprint == cell.folder.name
        assert cell.config.seed == cell.seed
        assert (cell.config.loss.name == "softmax_focal") == (cell.method == "focal")


def test_files_of_settings_come_before_those_of_methods(tmp_path: Path) -> None:
    (tmp_path / "method.yaml").write_text("optim: {lr: 0.7}")
    (tmp_path / "setting.yaml").write_text("optim: {lr: 0.3, momentum: 0.5}")
    path = write_table(
        tmp_path,
        base=["data=synthetic"],
        methods={"fast": [str(tmp_path / "method.yaml")], "usual": []},
        settings={"other": [str(tmp_path / "setting.yaml")]},
        baseline="usual",
    )
    optims = {c.method: c.config.optim for c in cells_of(path)}
    assert [(optims[m].lr, optims[m].momentum) for m in ("fast", "usual")] == [
        (0.7, 0.5),
        (0.3, 0.5),
    ]


def test_tables_draw_no_figures_and_ask_for_no_wandb_unless_they_say_so(tmp_path: Path) -> None:
    usual = cells_of(write_table(tmp_path))[0].config.track
    assert (usual.wandb, usual.figures) == ("disabled", False)
    base = content(tmp_path)["base"]
    asked = cells_of(write_table(tmp_path, base=[*base, "track.figures=true"]))[0]
    assert (asked.config.track.wandb, asked.config.track.figures) == ("disabled", True)
    assert not any(word.startswith("track.") for word in asked.words)


def test_threads_are_settled_unless_the_table_does_and_stand_among_the_words(
    tmp_path: Path,
) -> None:
    base = [w for w in content(tmp_path)["base"] if not w.startswith("runtime.threads")]
    free = cells_of(write_table(tmp_path, base=base))[0].with_threads(3)
    assert free.config.runtime.threads == 3
    assert free.words[-1] == "runtime.threads=3"
    fixed = cells_of(write_table(tmp_path))[0]
    assert fixed.with_threads(3) == fixed


def test_only_a_method_or_a_method_in_a_setting(tmp_path: Path) -> None:
    found = cells_of(write_table(tmp_path))
    assert {c.method for c in select(found, "focal")} == {"focal"}
    assert len(select(found, "focal", "factor 2")) == 2
    with pytest.raises(ConfigError) as caught:
        select(found, "focl", "factor 3")
    assert [line.partition(";")[0] for line in caught.value.mistakes] == [
        "--only: no method 'focl' (did you mean focal?)",
        "--only: no setting 'factor 3' (did you mean factor 8?)",
    ]


def test_every_mistake_in_the_file_is_one_line_with_the_nearest_key(tmp_path: Path) -> None:
    found = mistakes(tmp_path, sedes=[1], rule="best", seeds=[], methods={"a/b": []})
    assert [line.partition(":")[0] for line in found] == [
        "methods.a/b",
        "seeds",
        "rule",
        "sedes",
    ]
    assert found[-1] == "sedes: unknown key (did you mean seeds?)"
    assert all(f"'{rule}'" in found[2] for rule in catalogue())


def test_a_recipe_is_told_from_a_table_and_leads_to_that_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, tables = tmp_path / "tiny.yaml", tmp_path / "papers"
    recipe.write_text("data: digits\nmodel: cifar_resnet8\nseed: 3\n")
    monkeypatch.setattr(table_file, "PAPERS", tables)
    monkeypatch.chdir(tmp_path)
    for there, ends in ((False, "tables are in experiments/papers"), (True, "papers/tiny.yaml")):
        if there:
            tables.mkdir()
            write_table(tables)
        with pytest.raises(ConfigError) as caught:
            read_table_file(recipe)
        (line,) = caught.value.mistakes
        assert line.startswith(f"{recipe}: a recipe for train.py, not a table; ")
        assert line.endswith(ends)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "metric: val/accuracy\nspace: {loss.gamma: {float: [0, 5]}}\n",
            "a search file for sweep.py",
        ),
        ("cluster: local\njobs: 2\n", "a file for --submit"),
        ("cross_entropy: {imbalanced: [optim.lr=0.1]}\n", "a file of another kind"),
        ("name: photos\nchannels: [conda-forge]\n", "a file of another kind"),
        ("", "an empty file"),
    ],
    ids=["search", "cluster", "tuned", "environment", "empty"],
)
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, text: str, kind: str) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_table_file(other)
    (line,) = caught.value.mistakes
    assert line.startswith(f"{other}: {kind}")
    assert "not a table" in line


def test_a_table_with_a_recipes_key_is_still_a_table(tmp_path: Path) -> None:
    assert mistakes(tmp_path, data="digits") == ("data: unknown key",)


def test_words_are_a_list(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, methods={"cross_entropy": "loss=cross_entropy"})
    assert line == "methods.cross_entropy: input should be a valid list"


def test_what_is_missing_is_named_with_its_meaning(tmp_path: Path) -> None:
    without = {k: v for k, v in content(tmp_path).items() if k != "baseline"}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(without))
    with pytest.raises(ConfigError, match=r"baseline: is missing \(the method that others"):
        read_table_file(path)


def test_a_missing_name_is_that_of_the_file(tmp_path: Path) -> None:
    without = {k: v for k, v in content(tmp_path).items() if k != "name"}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(without))
    with pytest.raises(ConfigError) as caught:
        read_table_file(path)
    (line,) = caught.value.mistakes
    assert line == f"{path}: name: is missing; write name: tiny, as the file is called"


def test_names_that_lead_nowhere_are_mistakes(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        name="other",
        baseline="cross_entropi",
        published=[{"paper": "LDAM", "table": "Table 2", "methods": {"focel": "Focal"}}],
        seeds=[0, 0],
        subset_seeds=[1],
        pairing="paired",
    )
    assert found == (
        "name=other: must be that of the file, tiny",
        "baseline=cross_entropi: no such method (did you mean cross_entropy?); "
        "one of cross_entropy, focal",
        "published.0.methods.focel: no such method of this table (did you mean focal?)",
        "seeds: the same seed twice",
        "pairing=paired: needs as many subset_seeds as seeds, not 1 for 2",
    )


def test_a_mistake_in_a_run_is_said_once_with_the_part_of_the_table_it_is_in(
    tmp_path: Path,
) -> None:
    methods = {"cross_entropy": [], "focal": ["loss=softmax_focal", "loss.gama=1"]}
    settings = {"one": ["data.imbalance.factor=8"], "two": ["data.imbalance.fctor=2"]}
    assert mistakes(tmp_path, methods=methods, settings=settings) == (
        "tiny: methods.focal: loss.gama: unknown key (did you mean loss.gamma?)",
        "tiny: settings.two: data.imbalance.fctor: unknown key "
        "(did you mean data.imbalance.factor?)",
    )


def test_two_cells_that_are_the_same_run_are_a_mistake(tmp_path: Path) -> None:
    methods = {"cross_entropy": [], "again": ["loss=cross_entropy"]}
    first, second = mistakes(tmp_path, methods=methods)
    assert first.startswith(
        "tiny: cross_entropy / factor 8 and again / factor 8 are the same run ("
    )
    assert "factor 2" in second


def test_the_rule_val_needs_a_validation_split(tmp_path: Path) -> None:
    base = [w for w in content(tmp_path)["base"] if not w.startswith("data.validation")]
    (line,) = mistakes(tmp_path, base=[*base, "data.validation.per_class=null"])
    assert line.endswith("rule=val: the run has no validation split; set rule: last")


def test_options_of_train_have_no_place_among_the_words(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, methods={"cross_entropy": [], "focal": ["--fresh"]})
    assert line == "tiny: methods.focal: options such as --seeds have no place in a table"
