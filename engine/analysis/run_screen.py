"""The tables of one analyzed run."""

from __future__ import annotations

from engine.analysis.groups import GROUPS, LINES
from engine.analysis.screen import (
    Screen,
    Section,
    add_row,
    share,
    shares_of,
    table_of,
    with_interval,
)
from engine.config.messages import counted
from engine.report.statistics import DASH

SHOWN = 8
"""Rows of the lists of confusions and of mistakes; the file has all."""

PRIORS = ("forward 50", "forward 10", "uniform", "backward 10", "backward 50")


class RunScreen(Screen):
    """Prints the sections of one run."""

    def run(self, found: Section) -> None:
        """Print all sections of one run."""
        about = found["run"]
        sizes = ", ".join(f"{n} {group}" for group, n in about["group_sizes"].items())
        rule = f"rule {about['rule']}, epoch {about['epoch']}"
        self.say(f"{about['folder']}")
        self.say(f"{about['title']}: {about['loss']}, seed {about['seed']}, {rule}")
        number = about["num_test_groups"]
        in_groups = "" if number is None else f" in {counted(number, 'group')}"
        self.say(
            f"{counted(about['num_test'], 'test image')}{in_groups}, "
            f"{about['num_val'] or 'no'} validation images; classes: {sizes}"
        )
        over = "images" if about["num_test_groups"] is None else "groups"
        self._adjustment(found["logit_adjustment"], over=over)
        self._calibration(found["calibration"], over=over)
        self._thresholds(found["thresholds"])
        self._priors(found["test_priors"], over=over)
        self._shift(found["label_shift"])
        self._classifiers(found["classifiers"], as_is=found["logit_adjustment"]["as_is"])
        self._sets(found["prediction_sets"])
        self._confusions(found["confusions"])
        for note in about["notes"]:
            self.say(f"note: {note}")

    def _adjustment(self, section: Section, *, over: str) -> None:
        table = table_of("Logit adjustment: mean recall of the classes, test", "", "tau", *LINES)
        own, oracle = section["own_tau"], section["oracle"]
        add_row(table, "as it is", f"{own:.2f}", *shares_of(section["as_is"], LINES))
        chosen = section["chosen"]
        if chosen is not None:
            add_row(
                table,
                "chosen on validation",
                f"{chosen['tau']:.2f}",
                *shares_of(chosen["test"], LINES),
            )
        add_row(
            table, "oracle, no result", f"{oracle['tau']:.2f}", *shares_of(oracle["test"], LINES)
        )
        self.show(table)
        if chosen is None:
            self.say(f"no tau is chosen: {section['refused']}")
            return
        gain = chosen["gain"]["balanced"]
        self.say(f"gain of the choice in balanced accuracy: {with_interval(gain)} over {over}")
        if chosen["tau"] in (section["taus"][0], section["taus"][-1]):
            self.say("that tau is the last one tried: one further out may be better still")

    def _calibration(self, section: Section, *, over: str) -> None:
        table = table_of(
            "Calibration on test: ECE in 15 bins",
            "", "NLL", "ECE", f"over {over}", "chance", "mass", "class",
        )  # fmt: skip
        for name, way in section["ways"].items():
            add_row(table, name, *_errors(way["groups"]["all"]))
        for group in GROUPS:
            for name in ("as is", "temperature"):
                row = section["ways"].get(name, {"groups": {}})["groups"].get(group)
                if row is not None:
                    add_row(table, f"{group}, {name}", *_errors(row))
        self.show(table)
        self.say("chance: the ECE of a calibrated classifier on so many images, by luck alone")
        self.say("mass: bins of equally many images; class: mean over the classes' probabilities,")
        self.say("each against all images")
        self.say("many, medium, few: all images of these classes; as they are picked by the true")
        self.say("class, a calibrated classifier has an ECE above 0 there: no 0 to read against")
        if "vector" in section["ways"]:
            own, other = (
                100 * section["ways"][way]["balanced_accuracy"] for way in ("as is", "vector")
            )
            self.say(f"vector scaling changes balanced accuracy from {own:.1f} to {other:.1f}")
            if not section["ways"]["vector"]["converged"]:
                self.say("vector scaling has not converged: its numbers are those of the last step")
        if "refused" in section:
            self.say(f"nothing is scaled: {section['refused']}")

    def _thresholds(self, section: Section) -> None:
        if "refused" in section:
            self.say(f"no threshold is chosen: {section['refused']}")
            return
        table = table_of(
            "F1 on test, a class against the rest, mean over classes",
            "threshold", "macro F1", *GROUPS,
        )  # fmt: skip
        for name, label in (("half", "0.5"), ("chosen", "chosen on validation, by class")):
            add_row(table, label, *shares_of(section["macro_f1"][name], LINES))
        self.show(table)

    def _priors(self, section: Section, *, over: str) -> None:
        table = table_of("Accuracy under other test priors", "long tail", "as it is", "prior known")
        for row in section["rows"]:
            if row["prior"] in PRIORS:
                cells = (
                    f"{share(row[way]['value'])} ± {share(row[way]['error'])}"
                    for way in ("as_is", "known")
                )
                add_row(table, row["prior"], *cells)
        self.show(table)
        self.say(f"±: standard error over {over}; prior assumed: {section['assumed_source']}")
        self._warn_of_prior(section, 'the column "prior known"')

    def _warn_of_prior(self, section: Section, columns: str) -> None:
        """Say where the probabilities do not carry the prior that the columns take them to."""
        key = section["balanced_by"]
        if key is not None:
            self.say(f"{key} has changed that prior: {columns} may correct too much")

    def _shift(self, section: Section) -> None:
        table = table_of(
            "Label shift: accuracy with an estimated prior, distance to the true one",
            "prior of test", "as it is", "EM", "BBSE", "true prior", "EM off", "BBSE off",
        )  # fmt: skip
        for row in section["rows"]:
            accuracy, estimates = row["accuracy"], row["estimates"]
            add_row(
                table,
                row["prior"],
                *(share(accuracy.get(way)) for way in ("as_is", "em", "bbse", "true")),
                *(
                    f"{estimates[way]['total_variation']:.3f}" if way in estimates else DASH
                    for way in ("em", "bbse")
                ),
            )
        self.show(table)
        self.say("off: half the sum of absolute differences to the true prior (total variation)")
        if "temperature" in section:
            self.say(
                f"log-probabilities are divided by {section['temperature']:.2f} first, fitted to "
                "validation weighted"
            )
            self.say("to the training shares: numbers need not be those of the table above")
        if not all(row["estimates"]["em"]["has_converged"] for row in section["rows"]):
            self.say("EM has not converged: its numbers are those of the last step")
        self._warn_of_prior(section, "EM and BBSE")
        if "refused" in section:
            self.say(f"{section['refused']}")

    def _classifiers(self, section: Section, *, as_is: Section) -> None:
        if "refused" in section:
            self.say(f"no other classifier is chosen: {section['refused']}")
            return
        table = table_of(
            "Other classifiers, chosen on validation: recall on test", "", "setting", *LINES
        )
        add_row(table, "as it is", "", *shares_of(as_is, LINES))
        refused: dict[str, list[str]] = {}
        for name, row in section.items():
            label = name.replace("_", " ")
            if "refused" in row:
                refused.setdefault(row["refused"], []).append(label)
            else:
                setting = row["setting"]
                word = f"{setting:.2f}" if isinstance(setting, float) else str(setting or "")
                add_row(table, label, word, *shares_of(row["test"], LINES))
        self.show(table)
        for name in ("weight_scaling", "reranking"):
            if not section[name]["converged"]:
                label = name.replace("_", " ")
                self.say(f"{label} has not converged: its numbers are those of the last step")
        for why, names in refused.items():
            self.say(f"{', '.join(names)}: {why}")

    def _sets(self, section: Section) -> None:
        if "refused" in section:
            self.say(f"no prediction sets: {section['refused']}")
            return
        promise = 100 * (1 - section["alpha"])
        table = table_of(
            f"Prediction sets for {promise:.4g} %: coverage on test, mean size",
            "", "all", *GROUPS, "macro", "worst", "size", "few",
        )  # fmt: skip
        for name, way in section["ways"].items():
            groups = way["groups"]
            sizes = [groups[g] and f"{groups[g]['size']:.2f}" for g in ("all", "few")]
            add_row(
                table,
                name,
                *(share(groups[g] and groups[g]["coverage"]) for g in ("all", *GROUPS)),
                *shares_of(way, ("macro_coverage", "least_class_coverage")),
                *(size or DASH for size in sizes),
            )
        self.show(table)
        self.say("all, many, medium, few: of all their images; macro: mean over classes; worst:")
        self.say("the class with the least; size: mean of all images, and of those of few classes")
        fewest = section["held_out"]["fewest"]
        self.say(
            f"a class needs {section['least_images']} validation images for a threshold of its own,"
        )
        self.say(
            f"and {section['images_needed']} for coverage above "
            f"{promise - 100 * section['tolerance']:.4g} % in 95 of 100 draws; the "
            f"fewest have {fewest}"
        )

    def _confusions(self, section: Section) -> None:
        table = table_of(
            "Where the images of a group go, shares of all of them", "group", "right", *GROUPS
        )
        for name, row in section["groups"].items():
            add_row(table, name, *shares_of(row, ("right", *GROUPS)))
        self.show(table)
        table = table_of(
            "Classes that lose most to a more frequent one", "class", "taken for", "images", "share"
        )
        for row in section["towards_the_head"][:SHOWN]:
            add_row(
                table,
                row["true_name"],
                row["predicted_name"],
                str(row["images"]),
                share(row["share"]),
            )
        self.show(table)
        if "superclasses" in section:
            self._superclasses(section)
        heading = "file" if any("file" in row for row in section["surest_mistakes"]) else "index"
        table = table_of("Surest mistakes", heading, "class", "taken for", "confidence")
        for row in section["surest_mistakes"][:SHOWN]:
            names = (row.get("file", str(row["index"])), row["true"], row["predicted"])
            add_row(table, *names, f"{row['confidence']:.4f}")
        self.show(table)

    def _superclasses(self, section: Section) -> None:
        parts = ("right", "inside", "outside")
        table = table_of("Mistakes by superclass", "group", *parts)
        for name, row in section["within_superclass"].items():
            if row is not None:
                add_row(table, "all" if name == "balanced" else name, *shares_of(row, parts))
        self.show(table)
        table = table_of(
            "Superclasses, the most mistaken first",
            "superclass", "classes", "train", *parts, "taken for",
        )  # fmt: skip
        rows = [row for row in section["superclasses"] if row["right"] is not None]
        for row in sorted(rows, key=lambda row: row["right"])[:SHOWN]:
            counts = (str(row["classes"]), str(row["train_images"]))
            shares = shares_of(row, parts)
            add_row(table, row["superclass"], *counts, *shares, row["mostly_taken_for"] or DASH)
        self.show(table)


def _errors(row: Section) -> list[str]:
    """Return likelihood and calibration errors of one line."""
    width, mass, each = (row[f"ece_{kind}"] for kind in ("equal_width", "equal_mass", "classwise"))
    interval = f"{width['low']:.3f} to {width['high']:.3f}"
    expected = width["expected_if_calibrated"]
    chance = DASH if expected is None else f"{expected:.3f}"
    by_class = DASH if each is None else f"{each['ece']:.3f}"
    ece = [f"{error['ece']:.3f}" for error in (width, mass)]
    return [f"{row['nll']:.3f}", ece[0], interval, chance, ece[1], by_class]
