"""Which fingerprints are of the same split, where earlier versions made them in another way."""

from __future__ import annotations

from collections.abc import Iterable


def todays_names(made: Iterable[tuple[str, Iterable[str]]]) -> dict[str, str]:
    """Return for each fingerprint of earlier versions the one that the same split has today.

    One that they gave to several splits, which they did not tell apart, is not among them.

    Args:
        made: of each run the fingerprint of its split, and those that earlier versions gave it.
    """
    found: dict[str, set[str]] = {}
    for today, formers in made:
        for former in formers:
            found.setdefault(former, set()).add(today)
    names = {former: min(every) for former, every in found.items() if len(every) == 1}
    # Nothing of today takes the name of another.
    return {former: today for former, today in names.items() if former not in names.values()}
