"""What lives as long as a context: servers, and sets of them."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Lifetime(ABC):
    """Starts with a context and ends with it, or at once if the start fails."""

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _begin(self) -> None:
        """Start it."""

    @abstractmethod
    def close(self) -> None:
        """End it, and leave nothing of it."""
