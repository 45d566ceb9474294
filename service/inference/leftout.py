"""What the repository has and this process cannot serve as it stands there, each with the reason."""

from __future__ import annotations

import logging

from service.observe import metrics

REPOSITORY = "(repository)"

log = logging.getLogger(__name__)


class LeftOut:
    """The reasons, and their count in the metrics.

    Attributes:
        models: of live versions, by model; the version that was live before may still be served.
        versions: of other versions.
    """

    def __init__(self) -> None:
        self.models: dict[str, str] = {}
        self.versions: dict[tuple[str, int], str] = {}
        self._repository: str | None = None
        self._shown: dict[str, str] = {}

    @property
    def repository(self) -> str | None:
        """Why the models' folder itself cannot be followed."""
        return self._repository

    def told(self) -> dict[str, str]:
        """For people: by ``name``, or ``name/version`` of a version that is not live."""
        whole = {} if self._repository is None else {REPOSITORY: self._repository}
        return whole | self.models | {f"{name}/{version}": why for (name, version), why in self.versions.items()}

    def set_repository(self, reason: str | None) -> None:
        """The folder's own reason; None: it can be followed."""
        self._repository = reason
        self._show()

    def add(self, name: str, reason: str, version: int | None = None) -> None:
        """Leave out a model's live version, or another one."""
        if version is None:
            self.models[name] = reason
        else:
            self.versions[name, version] = reason
        self._show()

    def discard(self, name: str, version: int | None = None) -> None:
        """Put a model's live version back, or another one."""
        if version is None:
            self.models.pop(name, None)
        else:
            self.versions.pop((name, version), None)
        self._show()

    def forget(self, name: str) -> None:
        """Nothing is known of a model any more."""
        self.models.pop(name, None)
        for key in [key for key in self.versions if key[0] == name]:
            del self.versions[key]
        self._show()

    def _show(self) -> None:
        told = self.told()
        for place, reason in told.items():
            if self._shown.get(place) != reason:
                log.error("%s is left out: %s", place, reason)
                metrics.LEFT_OUT_WHY.labels(place, reason).set(1)
        for place, reason in self._shown.items():
            if told.get(place) != reason:
                metrics.LEFT_OUT_WHY.labels(place, reason).set(0)
        self._shown = told
        metrics.LEFT_OUT.set(len(told))
