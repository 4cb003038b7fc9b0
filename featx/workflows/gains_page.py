"""What each of several backbones adds, as a section of a page."""

from __future__ import annotations

from featx.advice.backbone_gains import BackboneGains
from featx.report.html import Section, Table
from featx.text import as_sentence


def gains_sections(gains: BackboneGains | None) -> tuple[Section, ...]:
    """One section; none for one backbone."""
    if gains is None:
        return ()
    heading, *lines = gains.lines
    text = "\n\n".join([gains.judged, *map(as_sentence, gains.sentences)])
    return (Section("Backbones side by side", text, tables=(Table(heading, lines),)),)
