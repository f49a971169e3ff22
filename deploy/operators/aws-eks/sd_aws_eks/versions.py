"""Kubernetes versions of EKS, and when their standard support ends.

EKS upgrades a cluster by itself when standard support ends (its upgrade policy here is STANDARD),
and Terraform would then ask for a downgrade: so none is made of a version with only months left.
"""

from __future__ import annotations

import datetime

#: End of standard support: EKS user guide, release calendar. Of 1.36 we have no date to cite; this
#: is 14 months after its release, as the guide says of every version. Karpenter 1.14 knows all.
SUPPORTED_UNTIL = {
    "1.33": datetime.date(2026, 7, 29),
    "1.34": datetime.date(2026, 12, 2),
    "1.35": datetime.date(2027, 3, 27),
    "1.36": datetime.date(2027, 8, 1),
}
#: How long a new cluster must have before EKS upgrades it.
LEFT = datetime.timedelta(days=90)


def known(value: str) -> str:
    """A version of the table.

    Raises:
        ValueError: it is unknown; the versions that would do are named.
    """
    if value not in SUPPORTED_UNTIL:
        raise ValueError(f"{value!r} is not a version that is known here; use {_good()}")
    return value


def ending(value: str, today: datetime.date | None = None) -> str:
    """Why no cluster should be made of a version; empty where it has months left."""
    end = SUPPORTED_UNTIL[value]
    if end - (today or datetime.date.today()) >= LEFT:
        return ""
    return f"{value} leaves standard support on {end}, and EKS upgrades it then; use {_good(today)}"


def _good(today: datetime.date | None = None) -> str:
    now = today or datetime.date.today()
    good = [name for name, end in SUPPORTED_UNTIL.items() if end - now >= LEFT]
    return " or ".join(good) or "a newer one, after raising this table"
