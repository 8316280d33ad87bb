"""Turns of phrase that this project used to have, and for which there are plainer words."""

from __future__ import annotations

import re

DIALECT = re.compile(
    r"\b(?:"
    r"anew|begun|broke off|twins?|whole modules?|by whatever|likewise|lies in|bears|claims"
    r"|(?:is|are|be|was|not|cannot be) told|says? nothing of|handed over|for this once"
    r"|stands? (?:in|on|twice|beside|for|there)|cannot stand|other side|by itself only"
    r"|has not (?:the|acted|been)|(?<!here )(?:is|are) no(?! longer| single|\w| more| other)"
    r")\b",
    re.IGNORECASE,
)
