"""What a coordinator keeps, and how much room it takes."""

from dataclasses import dataclass

from shoal.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what lies in a home. Sizes are bytes, times seconds.

    Of each task the newest `keep_versions` stay (None: all), with version 0 and those that are pinned. What lies in
    the home stays under `quota` (None: no bound), and the disk keeps `reserve` free: uploads that would break either
    are refused. Bytes of updates that nothing refers to go when they are older than `grace`.
    """

    keep_versions: int | None = None
    quota: int | None = None
    reserve: int = 0
    grace: float = 3600.0

    def __post_init__(self) -> None:
        if self.keep_versions is not None and self.keep_versions < 1:
            raise ConfigurationError(f"keep_versions is {self.keep_versions}", "keep at least 1 version of each task")
        if (self.quota is not None and self.quota < 1) or self.reserve < 0 or self.grace < 0:
            raise ConfigurationError(
                f"limits with quota={self.quota}, reserve={self.reserve}, grace={self.grace}",
                "give a quota of at least 1 byte, and a reserve and a grace that are not negative",
            )
