"""The tables of several runs: beside each other, as a table of methods, and why two differ."""

from __future__ import annotations

from collections.abc import Sequence

from engine.analysis.differences import Differences
from engine.analysis.screen import (
    Screen,
    Section,
    add_row,
    difference_of,
    spread_of,
    table_of,
)
from engine.report.statistics import DASH, INTERVAL

AT = {"as_is": "as it is", "chosen": "chosen tau"}
CALIBRATION = (
    ("ece", 1, "{:.3f}"),
    ("ece_temperature", 1, "{:.3f}"),
    ("coverage_few", 100, "{:.1f}"),
    ("coverage_few_adjusted", 100, "{:.1f}"),
    ("size", 1, "{:.2f}"),
    ("size_adjusted", 1, "{:.2f}"),
)
"""Fields of the last table of a setting, their scale and form."""


class ComparisonScreen(Screen):
    """Prints what is said of several runs."""

    def comparison(self, found: Section) -> None:
        """Print several runs beside the first."""
        for folder in found["strangers"]:
            self.say(f"{folder}: has other test images, and is not compared")
        if not found["pairs"]:
            return
        self.say(f"beside {found['first']['folder']}, on the same test images")
        refused = found["pairs"][0]["ways"]["as_is"]["mcnemar"].get("refused")
        over = "over images" if refused is None else "over groups"
        table = table_of(
            "Difference in mean recall over classes, run - first",
            "run", "at", "balanced", f"interval {over}", "few",
        )  # fmt: skip
        title = "Difference in accuracy over all images, run - first"
        tests = table_of(
            f"{title}, and McNemar's test of it" if refused is None else title,
            "run", "at", "accuracy", "first alone", "run alone", "p" if refused is None else over,
        )  # fmt: skip
        for pair in found["pairs"]:
            about = pair["run"]
            label = f"{about['loss']}, seed {about['seed']}"
            for way, row in pair["ways"].items():
                change = row["difference"]
                few = change["few"] and f"{100 * change['few'][0]:+.1f}"
                balanced = f"{100 * change['balanced'][0]:+.1f}"
                add_row(table, label, AT[way], balanced, _ends(change["balanced"][1:]), few or DASH)
                test = row["mcnemar"]
                accuracy = f"{100 * test['accuracy_difference']:+.1f}"
                alone = (str(test[f"only_{side}"]) for side in ("first", "second"))
                last = f"{test['p']:.2g}" if refused is None else _ends(test["accuracy_interval"])
                add_row(tests, label, AT[way], accuracy, *alone, last)
        self.show(table)
        self.show(tests)
        self.say("first alone, run alone: images that one of the two has right and the other wrong")
        if refused is not None:
            self.say(f"no p: {refused}")
        for pair in found["pairs"]:
            row = pair["ways"]["as_is"]
            most = row["most_disagreement"]
            self.say(
                f"{pair['run']['folder']}: other answers on {100 * row['disagreement']:.1f} % of "
                f"images, most in {most['class']} ({100 * most['share']:.0f} %)"
            )
        if found["seeds"] is not None:
            units = {"seed": "seeds", "split": "subsets"}[found["seeds"]["unit"]]
            for way, difference in found["seeds"]["differences"].items():
                said = f"{difference_of(difference)} points of balanced accuracy"
                self.say(f"over {difference['n']} {units}, {AT[way]}: {said}")
            self.say(found["seeds"]["scope"])

    def table(self, found: Section) -> None:
        """Print the lines of a table's methods."""
        state = f"{found['finished']} of {found['planned']} runs are finished"
        self.say(f"{found['title']}: {state}; rule {found['rule']}")
        for setting in found["settings"]:
            self.setting(setting, baseline=found["baseline"], alpha=found["alpha"])

    def setting(self, setting: Section, *, baseline: str, alpha: float) -> None:
        """Print the lines of the methods in one setting."""
        self.say(f"{setting['setting']}; {setting['scope']}")
        table = table_of(
            "Balanced accuracy on test", "method", "n", "as it is", "chosen", "tau", "oracle"
        )
        for row in setting["rows"]:
            values = row["values"]
            add_row(
                table,
                row["method"],
                str(row["n"]),
                *(spread_of(values[f], 100, "{:.1f}") for f in ("balanced", "balanced_chosen")),
                DASH if values["tau"] is None else f"{values['tau']['mean']:.2f}",
                spread_of(values["balanced_oracle"], 100, "{:.1f}"),
            )
        self.show(table)
        table = table_of(
            f"Differences to {baseline}, points", "method", "n", "as it is", "chosen tau"
        )
        for row in setting["rows"]:
            found = [row["difference"].get(f) for f in ("balanced", "balanced_chosen")]
            if found[0] is not None:
                cells = (difference_of(cell) for cell in found)
                add_row(table, row["method"], str(found[0]["n"]), *cells)
        if table.row_count:
            self.show(table)
        every = [cell for row in setting["rows"] for cell in row["difference"].values()]
        if any(cell is not None and cell["low"] is not None for cell in every):
            self.say(f"in brackets: 95 % interval, {INTERVAL}")
        promise = f"{100 * (1 - alpha):.4g} %"
        table = table_of(
            f"Calibration, and {promise} prediction sets: coverage of few, mean size", "method",
            "ECE", "scaled", "few", "adj.", "size", "adj.",
        )  # fmt: skip
        for row in setting["rows"]:
            values = row["values"]
            means = [
                DASH if values[f] is None else form.format(scale * values[f]["mean"])
                for f, scale, form in CALIBRATION
            ]
            add_row(table, row["method"], *means)
        self.show(table)
        self.say(
            "scaled: after one temperature; adj.: prevalence-adjusted sets, else marginal ones"
        )

    def differences(self, found: Differences) -> None:
        """Print why two runs differ, and how far their results are apart."""
        first, second = found.runs
        self.say(f"first   {first}")
        self.say(f"second  {second}")
        if found.causes:
            table = table_of("", "cause", "what", "first", "second")
            for cause in found.causes:
                add_row(table, cause.kind, cause.name, cause.first, cause.second)
            self.show(table)
        else:
            self.say("nothing that they recorded differs: keys, data, code, versions, hardware")
        table = table_of("Results on test", "", *found.rules)
        for name, one, two in found.results:
            add_row(table, name.replace("_", " "), f"{one:.4f}", f"{two:.4f}")
        self.show(table)
        for note in found.notes:
            self.say(f"note: {note}")


def _ends(interval: Sequence[float]) -> str:
    """Return the ends of an interval of shares, in points."""
    low, high = (f"{100 * end:+.1f}" for end in interval)
    return f"{low} to {high}"
