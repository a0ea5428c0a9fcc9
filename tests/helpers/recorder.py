"""Remembers the events of LlamaIndex's instrumentation."""

from __future__ import annotations

from typing import TypeVar

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent

Event = TypeVar("Event", bound=BaseEvent)


class Recorder(BaseEventHandler):
    """Keeps every event."""

    events: list[BaseEvent] = []

    def handle(self, event: BaseEvent, **kwargs: object) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
