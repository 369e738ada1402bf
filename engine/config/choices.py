"""Choices that are files: the samplers, class-weight schemes, schedules and heads there are.

A choice is made by one key, its selector, whose values are the files of a package. Each file's own
keys join the section of the selector, and have no effect while another file is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from engine.config import components
from engine.config.components import Component, Key
from engine.config.mistakes import ComponentError


@dataclass(frozen=True)
class Choice:
    """One key whose values are the files of a package.

    Attributes:
        selector: the full key, ``sampler.name``.
        package: ``data.samplers``.
        default: the value that is chosen when nobody chooses; where it is not a file it means none.
        meaning: the help of the selector.
        components: what each file says of itself, by its name.
    """

    selector: str
    package: str
    default: str
    meaning: str
    components: Mapping[str, Component]

    @property
    def section(self) -> str:
        """The section of the selector: ``sampler``."""
        return self.selector.rpartition(".")[0]

    @property
    def names(self) -> tuple[str, ...]:
        """All values of the selector, the default first."""
        return (self.default, *(name for name in self.components if name != self.default))

    def fact(self, name: str, fact: str) -> Any:
        """Return what the component ``name`` states as ``fact``; None if it is not a file."""
        component = self.components.get(name)
        return None if component is None else component.class_facts.get(fact)

    def owners(self) -> dict[str, tuple[str, ...]]:
        """Return ``{full key: the files that have it}`` for the keys of the files."""
        found: dict[str, tuple[str, ...]] = {}
        for name, component in self.components.items():
            for key in component.keys:
                full = f"{self.section}.{key.name}"
                found[full] = (*found.get(full, ()), name)
        return found

    def fields(self) -> dict[str, Any]:
        """Return the selector and the keys of all files, for ``pydantic.create_model``.

        Raises:
            ComponentError: two files have a key of one name, but not with one meaning.
        """
        own: dict[str, Key] = {}
        for component in self.components.values():
            for key in component.keys:
                other = own.setdefault(key.name, key)
                if (other.annotation, other.default) != (key.annotation, key.default):
                    raise ComponentError(
                        components.path_of(
                            components.folder(self.package) / f"{component.name}.py"
                        ),
                        "has another range or default than in another file of this folder; give "
                        "it another name",
                        key=key.name,
                    )
        owners = self.owners()
        annotation: Any = Literal.__getitem__(self.names)
        selector = Field(default=self.default, description=self.meaning)
        return {self.selector.rpartition(".")[2]: (annotation, selector)} | {
            key.name: (
                key.annotation,
                Field(
                    default=key.default,
                    description=f"{', '.join(owners[f'{self.section}.{key.name}'])}: {key.help}",
                ),
            )
            for key in own.values()
        }


def _choice(selector: str, package: str, *, default: str, meaning: str) -> Choice:
    # A file that cannot be read is no reason to refuse runs that choose another one.
    found = components.read_all(package).components
    return Choice(selector, package, default, meaning, found)


CHOICES = (
    _choice(
        "sampler.name",
        "data.samplers",
        default="instance",
        meaning="how an epoch draws training images",
    ),
    _choice("model.head", "models.heads", default="linear", meaning="from features to logits"),
    _choice(
        "model.tune",
        "models.tuning",
        default="full",
        meaning="what of the backbone is trained, beside the head; full: all of it",
    ),
    _choice(
        "reweight.scheme",
        "losses.weights",
        default="none",
        meaning="class weights from the training counts n, or as listed",
    ),
    _choice(
        "schedule.name",
        "engine.training.schedules",
        default="cosine",
        meaning="shape of the learning rate",
    ),
)


def of(selector: str) -> Choice:
    """Return the choice that the key ``selector`` makes."""
    return next(choice for choice in CHOICES if choice.selector == selector)
