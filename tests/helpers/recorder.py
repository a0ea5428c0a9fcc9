"""Remembers the events of LlamaIndex's instrumentation."""

from __future__ import annotations

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent


class Recorder(BaseEventHandler):
    """Keeps every event."""

    events: list[BaseEvent] = []

    def handle(self, event: BaseEvent, **kwargs: object) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
