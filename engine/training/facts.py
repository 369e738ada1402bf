"""What a run recorded of its data, read without the libraries that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.config.mistakes import ConfigError


def read_facts(run: str | Path) -> dict[str, Any]:
    """Read what ``facts_of`` recorded of a run's data; all classes if it recorded nothing.

    Raises:
        ConfigError: environment.json is missing or holds no facts.
    """
    path = Path(run).expanduser() / "environment.json"
    try:
        environment = json.loads(path.read_bytes())
        facts = dict(environment["facts"])
        every = list(range(len(facts["class_names"])))
        usual = {"known_classes": every, "taught_classes": [], "predicted_classes": every}
        usual |= {"whole_fingerprint": environment["split_fingerprint"]}
        usual |= {"test_shape": facts["image_shape"]}
        return {**usual, "fingerprint": environment["fingerprint"], **facts}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path}: is missing or damaged; put it back"]) from error
