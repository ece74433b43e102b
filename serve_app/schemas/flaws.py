"""What looks wrong with pictures, on the wire."""

from __future__ import annotations

from pydantic import BaseModel, Field

from renderfarm.domain import flaws as domain
from renderfarm.domain.flaws import FlawKind
from renderfarm.services import flaws as services


class Flaw(BaseModel):
    """One thing that looks wrong with a picture: a hint, as it may be what the artist wants."""

    kind: FlawKind
    message: str = Field(description="One line, for people.", examples=["the picture is all black"])

    @staticmethod
    def of(flaw: domain.Flaw) -> Flaw:
        return Flaw(kind=flaw.kind, message=flaw.message)


class FrameFlaw(Flaw):
    """The same, with the picture that it is about."""

    frame: int
    camera: str | None
    output_id: str
    name: str = Field(description="Path below the task's output folder.", examples=["0012.png"])

    @classmethod
    def of_frame(cls, flaw: services.FrameFlaw) -> FrameFlaw:
        return FrameFlaw(
            kind=flaw.kind,
            message=flaw.message,
            frame=flaw.frame,
            camera=flaw.camera,
            output_id=flaw.output_id,
            name=flaw.name,
        )
