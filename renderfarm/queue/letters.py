"""What messages look like in RabbitMQ, alive and dead."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pika import BasicProperties

from renderfarm.ports import DELIVERIES_MAX, DeadLetter
from renderfarm.queue.channels import Letter

_PERSISTENT = 2
_REASON = "renderfarm-reason"
_DIED_AT = "renderfarm-died-at"
#: Why a message is put aside whose consumers did not survive it.
KILLED_ITS_CONSUMERS = f"its consumer died with it {DELIVERIES_MAX} times"
#: What stands for the topic of a message that nobody can read.
UNREADABLE = "?"
#: Smaller, and the times of two messages of a batch would be the same number.
_MOMENT_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """The names of a farm's queues, and how they are declared."""

    prefix: str

    @property
    def messages(self) -> str:
        return f"{self.prefix}.messages"

    @property
    def dead(self) -> str:
        return f"{self.prefix}.dead"

    def declarations(self) -> list[dict[str, Any]]:
        """Return the arguments of ``queue_declare``, in order.

        A quorum queue's limit counts the returns that are allowed, and the one that is one too many is the death.
        Dead letters go from queue to queue with confirms of RabbitMQ's own, which it does only for a queue that
        would rather refuse messages than drop some (https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
        """
        quorum = {"x-queue-type": "quorum"}
        messages = {
            "x-delivery-limit": DELIVERIES_MAX - 1,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        # Looking at dead letters counts as a delivery, too; RabbitMQ 4 would drop them after 20 looks.
        dead = {"x-delivery-limit": 1_000_000_000}
        return [
            {"queue": self.dead, "durable": True, "arguments": quorum | dead},
            {"queue": self.messages, "durable": True, "arguments": quorum | messages},
        ]


def new_letter(topic: str, key: str) -> Letter:
    """Return a message as it is published, with an id of its own."""
    body = json.dumps({"topic": topic, "key": key}).encode()
    return Letter(body=body, properties=_properties(uuid.uuid4().hex))


def read(body: bytes) -> tuple[str, str]:
    """Return topic and key of a message. Raises ValueError for what is no message of the farm's."""
    content = json.loads(body)
    if not isinstance(content, dict):
        raise ValueError("not an object")
    topic, key = content.get("topic"), content.get("key")
    if not (isinstance(topic, str) and isinstance(key, str)):
        raise ValueError("without topic and key")
    return topic, key


def id_of(letter: Letter) -> str:
    """Return what a message is known by, also when somebody else has published it."""
    return str(letter.properties.message_id or hashlib.sha256(letter.body).hexdigest()[:32])


def fresh(letter: Letter) -> Letter:
    """Return a message as if it had never been delivered."""
    return Letter(body=letter.body, properties=_properties(id_of(letter)))


def buried(batch: Sequence[Letter], reason: str, now: float) -> list[Letter]:
    """Return messages as they are put aside, each a moment after the one before."""
    return [
        Letter(
            body=letter.body,
            properties=_properties(id_of(letter), {_REASON: reason, _DIED_AT: f"{now + _MOMENT_S * number:.6f}"}),
        )
        for number, letter in enumerate(batch)
    ]


def dead_letter(letter: Letter) -> DeadLetter:
    """Return what there is to know of a message that was put aside, by us or by RabbitMQ."""
    try:
        topic, key = read(letter.body)
    except ValueError:
        topic, key = UNREADABLE, ""
    headers = letter.properties.headers or {}
    if _REASON in headers:
        reason, died_at = str(headers[_REASON]), float(headers[_DIED_AT])
    else:
        reason, died_at = _deaths_word(headers)
    return DeadLetter(id=id_of(letter), topic=topic, key=key, reason=reason, died_at=died_at)


def _deaths_word(headers: dict[str, Any]) -> tuple[str, float]:
    """Read RabbitMQ's own words on a death (https://www.rabbitmq.com/docs/dlx#effects)."""
    deaths = headers.get("x-death") or [{}]
    reason = headers.get("x-first-death-reason") or deaths[0].get("reason") or "unknown"
    at = deaths[0].get("time")
    told = KILLED_ITS_CONSUMERS if reason == "delivery_limit" else f"RabbitMQ put it aside: {reason}"
    return told, at.timestamp() if at is not None else 0.0


def _properties(message_id: str, headers: dict[str, Any] | None = None) -> BasicProperties:
    return BasicProperties(
        message_id=message_id, content_type="application/json", delivery_mode=_PERSISTENT, headers=headers
    )
