"""Figures of a search: what is drawn is what the trials found, and little data crashes nothing."""

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from engine.report.figures.style import BLUE, INK
from engine.tuning.figures import best_of_n_figures, search_figures
from engine.tuning.figures.best_of_n import best_of_n
from engine.tuning.figures.drawing import Known, draw, save_all
from engine.tuning.figures.importance import importances
from engine.tuning.figures.map_figure import parameter_map
from engine.tuning.search.schema import Direction
from engine.tuning.study.trials import Objective, front
from tests.tuning._studies import (
    BALANCED,
    NLL,
    conditional,
    hill,
    study_of,
    two_goals,
    with_losses,
)


@pytest.fixture(scope="module")
def hills(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    return study_of(tmp_path_factory.mktemp("hills"), hill, trials=40)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.texts]


# --- map ------------------------------------------------------------------------------------------


def test_the_map_has_every_trial_at_its_place_in_the_colour_of_its_value(
    hills: optuna.Study,
) -> None:
    figure = parameter_map(hills.trials, BALANCED, x="loss.alpha", y="loss.gamma", title="t")
    axes = figure.axes[0]
    (points,) = [found for found in axes.collections if len(found.get_offsets()) == 40]
    expected = [(t.params["loss.alpha"], t.params["loss.gamma"]) for t in hills.trials]
    np.testing.assert_allclose(points.get_offsets(), expected)
    np.testing.assert_array_equal(points.get_array(), [t.value for t in hills.trials])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("loss.alpha", "loss.gamma")
    assert figure.get_suptitle() == "t · 40 trials"


def test_the_heavy_line_is_one_seed_std_below_the_surfaces_best(hills: optuna.Study) -> None:
    figure = parameter_map(
        hills.trials, BALANCED, x="loss.alpha", y="loss.gamma", title="t", seed_std=0.01
    )
    (line,) = [
        found
        for found in figure.axes[0].collections
        if getattr(found, "levels", None) is not None
        and len(found.levels) == 1
        and to_hex(found.get_edgecolor()[0]) == INK
    ]
    (entry,) = legend(figure)
    text, _, best = entry.removesuffix("; hatched: worse than that").rpartition(", ")
    assert text == "within one std over seeds (0.01) of the surface's best"
    assert float(best) == pytest.approx(0.7, abs=0.02)
    assert line.levels[0] == pytest.approx(float(best) - 0.01, abs=0.001)
    # On the hill itself, 0.01 below the top is a gamma of 2 +- 0.7.
    along = np.concatenate([path.vertices for path in line.get_paths()])
    assert 0.9 < along[:, 1].min() < 1.7
    assert 2.3 < along[:, 1].max() < 3.1


def test_a_map_without_measured_noise_says_so(hills: optuna.Study) -> None:
    figure = parameter_map(hills.trials, BALANCED, x="loss.alpha", y="loss.gamma", title="t")
    (entry,) = legend(figure)
    assert "the trials' scatter" in entry
    assert entry.endswith("noise over seeds was not measured; hatched: worse than that")


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_what_is_hatched_is_worse(hills: optuna.Study, direction: Direction) -> None:
    objective = Objective("val/balanced_accuracy", direction)
    figure = parameter_map(
        hills.trials, objective, x="loss.alpha", y="loss.gamma", title="t", seed_std=0.01
    )
    shown = figure.axes[0].collections
    (hatched,) = [found for found in shown if getattr(found, "hatches", None) == ["///"]]
    (line,) = {found.levels[0] for found in shown if len(getattr(found, "levels", ())) == 1}
    low, high = hatched.levels
    assert line == (high if direction == "maximize" else low)


def test_where_all_is_noise_the_map_says_everywhere(hills: optuna.Study) -> None:
    figure = parameter_map(
        hills.trials, BALANCED, x="loss.alpha", y="loss.gamma", title="t", seed_std=1.0
    )
    assert legend(figure)[0].startswith("everywhere within one std over seeds (1)")


def test_the_map_shows_where_the_search_has_turned_away(tmp_path: Path) -> None:
    trials = study_of(tmp_path, with_losses, trials=9).trials
    figure = parameter_map(trials, BALANCED, x="loss.alpha", y="loss.gamma", title="t")
    (crosses,) = figure.axes[0].lines
    expected = {
        (t.params["loss.alpha"], t.params["loss.gamma"]) for t in trials if t.number % 3 < 2
    }
    assert {tuple(point) for point in crosses.get_xydata().tolist()} == expected
    assert legend(figure) == ["not complete"]


def test_the_map_marks_settings_and_leaves_out_one_that_lacks_a_key(hills: optuna.Study) -> None:
    marks = {
        "chosen: trial 3": {"loss.alpha": 0.5, "loss.gamma": 1.0},
        "default": {"loss.alpha": 0.25},
    }
    figure = parameter_map(
        hills.trials, BALANCED, x="loss.alpha", y="loss.gamma", title="t", marks=marks
    )
    marked = [f for f in figure.axes[0].collections if f.get_offsets().tolist() == [[0.5, 1.0]]]
    assert len(marked) == 1
    assert "chosen: trial 3" in legend(figure)
    assert "default" not in legend(figure)


def test_a_rate_drawn_on_a_logarithmic_scale_has_a_logarithmic_axis(tmp_path: Path) -> None:
    trials = study_of(tmp_path, conditional, trials=12).trials
    figure = parameter_map(trials, BALANCED, x="optim.lr", y="optim.batch_size", title="t")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    low, high = axes.get_xlim()
    assert low < 1e-3 < 1.0 < high


def test_a_choice_is_a_row_of_its_values_without_a_surface(tmp_path: Path) -> None:
    trials = study_of(tmp_path, conditional, trials=12).trials
    figure = parameter_map(trials, BALANCED, x="optim.lr", y="loss", title="t")
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["cross_entropy", "softmax_focal"]
    assert axes.get_title(loc="left") == "no surface: a key is a choice"


def test_trials_of_one_pair_of_choices_lie_beside_each_other(tmp_path: Path) -> None:
    trials = study_of(tmp_path, conditional, trials=12).trials
    figure = parameter_map(trials, BALANCED, x="model.head", y="loss", title="t")
    (points,) = [f for f in figure.axes[0].collections if len(f.get_offsets()) == 12]
    places = np.asarray(points.get_offsets())
    assert len(np.unique(places, axis=0)) == 12
    assert set(np.round(places[:, 1])) == {0, 1}


def test_a_conditional_key_is_mapped_over_the_trials_that_have_it(tmp_path: Path) -> None:
    trials = study_of(tmp_path, conditional, trials=12).trials
    with_gamma = [t for t in trials if "loss.gamma" in t.params]
    assert 0 < len(with_gamma) < 12
    figure = parameter_map(trials, BALANCED, x="loss.gamma", y="optim.lr", title="t")
    assert figure.get_suptitle() == f"t · {len(with_gamma)} trials"


def test_far_worse_trials_share_the_last_colour(hills: optuna.Study) -> None:
    bad = optuna.trial.create_trial(
        params={"loss.alpha": 0.9, "loss.gamma": 5.0},
        distributions=hills.trials[0].distributions,
        value=0.0,
    )
    figure = parameter_map(
        [*hills.trials, bad], BALANCED, x="loss.alpha", y="loss.gamma", title="t"
    )
    (points,) = [f for f in figure.axes[0].collections if len(f.get_offsets()) == 41]
    assert points.norm.vmin > 0.4
    assert points.norm.vmax == max(t.value for t in hills.trials if t.value is not None)


# --- history, best of n, importance, front --------------------------------------------------------


def test_history_has_every_trial_and_the_best_so_far(hills: optuna.Study) -> None:
    figure = search_figures.history(hills.trials, BALANCED, title="t", seed_std=0.01, default=0.65)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    values = [t.value for t in hills.trials]
    np.testing.assert_array_equal(lines["complete"].get_xydata(), list(enumerate(values)))
    assert lines["best so far"].get_ydata()[-1] == max(v for v in values if v is not None)
    assert lines["default, over fresh seeds"].get_ydata()[0] == 0.65
    assert "within one std over seeds (0.01) of the best" in legend(figure)


def test_history_tells_pruned_trials_and_those_without_a_value_from_complete_ones(
    tmp_path: Path,
) -> None:
    figure = search_figures.history(
        study_of(tmp_path, with_losses, trials=9).trials, BALANCED, title="t"
    )
    lines = {line.get_label(): line.get_xdata().tolist() for line in figure.axes[0].lines}
    assert lines["complete"] == [2, 5, 8]
    assert lines["pruned, at its last value"] == [0, 3, 6]
    assert lines["no finite value"] == [1, 4, 7]


def test_history_of_one_trial_has_ticks_at_whole_numbers(hills: optuna.Study) -> None:
    figure = search_figures.history(hills.trials[:1], BALANCED, title="t")
    assert np.all(figure.axes[0].get_xticks() % 1 == 0)


def test_one_diverged_trial_does_not_flatten_the_history(hills: optuna.Study) -> None:
    bad = optuna.trial.create_trial(
        params={}, distributions={}, value=-50.0, state=optuna.trial.TrialState.COMPLETE
    )
    figure = search_figures.history([*hills.trials, bad], BALANCED, title="t")
    low, high = figure.axes[0].get_ylim()
    assert low > 0.3
    assert high < 0.8
    assert any("1 far worse" in text for text in legend(figure))


def test_best_of_n_is_the_closed_form_over_the_value_of_every_trial_that_ended(
    tmp_path: Path,
) -> None:
    trials = study_of(tmp_path, with_losses, trials=9).trials
    figure = best_of_n_figures.best_of_n_curve(trials, BALANCED, title="t")
    whole = [t.value for t in trials if t.state.name == "COMPLETE"]
    worst = min(whole)  # what those count as that did not end whole: a pruned one had 0.1
    values = [t.value if t.state.name == "COMPLETE" else worst for t in trials]
    assert (len(whole), values.count(worst)) == (3, 7)
    expected = best_of_n(values, direction="maximize")
    mean = next(line for line in figure.axes[0].lines if line.get_color() == BLUE)
    np.testing.assert_array_equal(mean.get_ydata(), expected.mean)


def test_comparison_draws_one_curve_a_search_and_names_its_trials() -> None:
    values = {"focal": [0.1, 0.3, 0.2], "ldam": [0.4, 0.2]}
    figure = best_of_n_figures.comparison(values, BALANCED, title="t")
    curves = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(curves) == ["focal, 3 trials", "ldam, 2 trials"]
    np.testing.assert_allclose(curves["ldam, 2 trials"], [0.3, 0.4])
    dashes = {str(line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(dashes) == 2


def test_importance_ranks_the_key_that_matters_first(hills: optuna.Study) -> None:
    found = importances(hills.trials, BALANCED)
    assert found is not None
    assert list(found) == ["loss.gamma", "loss.alpha"]
    assert sum(share.value for share in found.values()) == pytest.approx(1)
    assert all(0 <= s.low <= s.value <= s.high <= 1 for s in found.values())
    figure = search_figures.importance_bars(found, title="t", note="n")
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [found["loss.alpha"].value, found["loss.gamma"].value]


def test_importance_is_what_optuna_finds_in_a_study_of_these_trials(hills: optuna.Study) -> None:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    quantile = max(0.1, 5 / len(hills.trials))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    expected = get_param_importances(hills, evaluator=evaluator)
    found = importances(hills.trials, BALANCED)
    assert found is not None
    assert {key: share.value for key, share in found.items()} == pytest.approx(expected)


def test_importance_for_a_metric_to_be_small_ranks_the_same(hills: optuna.Study) -> None:
    turned = [
        optuna.trial.create_trial(
            params=t.params, distributions=t.distributions, value=-float(t.values[0])
        )
        for t in hills.trials
    ]
    assert importances(turned, NLL) == importances(hills.trials, BALANCED)


def test_the_front_is_what_no_trial_beats_in_both(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_goals, trials=25, directions=["maximize", "minimize"])
    found = front(study.trials, (BALANCED, NLL))
    assert sorted(found) == sorted(t.number for t in study.best_trials)
    figure = search_figures.pareto_front(study.trials, (BALANCED, NLL), front=found, title="t")
    axes = figure.axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    on = sorted(study.trials[n].values for n in found)
    np.testing.assert_array_equal(lines["front: no trial beats both values"], on)
    assert len(lines["other trials"]) == 25 - len(found)
    assert {text.get_text() for text in axes.texts} <= {str(n) for n in found}


# --- all of them ----------------------------------------------------------------------------------


def test_all_figures_of_a_search_are_saved_as_png_and_pdf(
    hills: optuna.Study, tmp_path: Path
) -> None:
    known = Known([0.01], [0.65], {"default": {"loss.alpha": 0.25, "loss.gamma": 2.0}})
    drawn = draw(hills.trials, [BALANCED], title="digits", known=known)
    assert list(drawn.figures) == [
        "history",
        "best_of_n",
        "importance",
        "map_loss.alpha_loss.gamma",
    ]
    assert drawn.notes == []
    save_all(drawn, tmp_path)
    assert len(list(tmp_path.iterdir())) == 8
    for name in drawn.figures:
        with Image.open(tmp_path / f"{name}.png") as image:
            image.load()
            assert all(300 < side < 2500 for side in image.size), (name, image.size)
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_the_first_map_is_alpha_by_gamma_and_many_keys_do_not_make_hundreds(tmp_path: Path) -> None:
    def many(trial: optuna.trial.Trial) -> float:
        for key in ("optim.lr", "loss.beta", "loss.gamma", "a", "b", "loss.alpha"):
            trial.suggest_float(key, 0.1, 1)
        return float(trial.params["optim.lr"])

    drawn = draw(study_of(tmp_path, many, trials=3).trials, [BALANCED], title="t")
    maps = [name for name in drawn.figures if name.startswith("map")]
    assert maps[0] == "map_loss.alpha_loss.gamma"
    assert len(maps) == 6
    assert any("6 maps of 15 pairs" in note for note in drawn.notes)


@pytest.mark.parametrize("trials", [1, 3, 12])
def test_conditional_and_categorical_keys_and_few_trials_draw_what_they_can(
    tmp_path: Path, trials: int
) -> None:
    drawn = draw(study_of(tmp_path, conditional, trials=trials).trials, [BALANCED], title="t")
    assert {"history", "best_of_n"} <= drawn.figures.keys()
    assert ("importance" in drawn.figures) == (trials >= 10)
    if trials < 10:
        assert f"no importance of keys for val/balanced_accuracy: {trials} of 10 trials" in (
            drawn.notes
        )
    for figure in drawn.figures.values():
        figure.draw_without_rendering()


def test_two_metrics_have_their_own_figures_and_a_front(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_goals, trials=3, directions=["maximize", "minimize"])
    drawn = draw(study.trials, (BALANCED, NLL), title="t")
    assert {"history_balanced_accuracy", "history_nll", "pareto"} <= drawn.figures.keys()
    drawn.figures["pareto"].draw_without_rendering()


@pytest.mark.parametrize("objective", ["lost", "one key", "equal values"])
def test_what_cannot_be_drawn_is_said(tmp_path: Path, objective: str) -> None:
    def lost(trial: optuna.trial.Trial) -> float:
        trial.suggest_float("a", 0, 1)
        raise optuna.TrialPruned

    def one_key(trial: optuna.trial.Trial) -> float:
        return math.sin(trial.suggest_float("a", 0, 1))

    def equal(trial: optuna.trial.Trial) -> float:
        return 0.5 + 0 * (trial.suggest_float("a", 0, 1) + trial.suggest_float("b", 0, 1))

    functions = {"lost": lost, "one key": one_key, "equal values": equal}
    drawn = draw(study_of(tmp_path, functions[objective], trials=12).trials, [BALANCED], title="t")
    expected = {
        "lost": "no figure: no trial has ended with a finite value",
        "one key": "no map for val/balanced_accuracy: no two keys were searched together",
    }
    assert objective not in expected or expected[objective] in drawn.notes
    assert ("history" in drawn.figures) == (objective != "lost")
