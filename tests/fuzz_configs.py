"""Run random configs, and report by cause what does not end as it should.

    python -m tests.fuzz_configs --number 1500 --seed 0

A config is drawn from the schema with its odd values, and now and then a wrong one. It ends in
mistakes, each one line that names a key, with nothing written; or in a run with finite numbers, or
one that names its divergence. Of a finished run everything is read back: the config, its
fingerprint, the summary, and the predictions by the model that ``load_run`` finds. After mistakes
the keys that they name are left out, until the config runs. ``--only 17`` repeats one case and
prints its command.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests._examination import examine, make_folder
from tests._random_configs import draw_case


def _report(ended: Counter[str], by_cause: Mapping[str, list[tuple[int, str]]]) -> None:
    print(", ".join(f"{count} {outcome}" for outcome, count in ended.most_common()))
    for cause, cases in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(cases)} x {cause}: {', '.join(str(n) for n, _ in cases[:8])}")
        print(cases[0][1].strip()[-1500:])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="run random configs")
    parser.add_argument("--number", type=int, default=100, help="how many cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="of all cases")
    parser.add_argument("--only", type=int, help="one case, with its command")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this time")
    return parser.parse_args()


def main() -> int:
    """Run the cases; return 1 if something was found."""
    asked = _arguments()
    last = asked.first + asked.number
    numbers = range(asked.first, last) if asked.only is None else [asked.only]
    ended: Counter[str] = Counter()
    by_cause: dict[str, list[tuple[int, str]]] = defaultdict(list)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(Path(scratch) / "images")
        for number in numbers:
            if time.monotonic() - began > asked.seconds:
                print(f"stopped before case {number}")
                break
            case = draw_case(number, seed=asked.seed, folder=str(folder))
            if asked.only is not None:
                print(case)
            root = Path(scratch) / "runs"
            case_began = time.monotonic()
            found = examine(case, root, number=number)
            shutil.rmtree(root, ignore_errors=True)
            ended.update({"cases": 1, **Counter(found.outcomes)})
            if ended["cases"] % 25 == 0:
                print(f"{ended['cases']} of {len(numbers)}: {dict(ended)}", flush=True)
            if (took := time.monotonic() - case_began) > 10:
                by_cause["takes longer than 10 s"].append((number, f"{took:.0f} s {case}"))
            for cause, details in found.problems:
                by_cause[cause].append((number, details))
                print(f"{number}: {cause}\n{details.strip()[-1500:]}", flush=True)
    _report(ended, by_cause)
    return 1 if by_cause else 0


if __name__ == "__main__":
    sys.exit(main())
