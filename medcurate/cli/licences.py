"""Options about licences that several verbs share."""

from __future__ import annotations

from enum import StrEnum

LICENCE_HELP = (
    "Use only sources whose licence allows it: commercial (use), share-alike (passing copies on, if only "
    "under the same terms), any. Unknown is no."
)
ACCEPT_HELP = (
    "You accept the terms of this source, or of `all`; needed once for sources that ask for it (see `plan`). "
    "The date goes to dataset.json."
)


class LicenceUse(StrEnum):
    """What is wanted of licences; medcurate.choice holds the same names."""

    any = "any"
    share_alike = "share-alike"
    commercial = "commercial"
