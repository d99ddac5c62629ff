"""Requests that a producer says belong together (a session, a customer): how their features are counted by group.

A group key is hashed to one of `BUCKETS`: requests of a group lie in one bucket, and groups are independent, so counts
by bucket vary as much as counts by group do, whatever number of groups there is. No key leaves ENCODE. Of many features
only some are looked at, at equal distances: a design effect is a mean over features.
"""

from __future__ import annotations

import hashlib

BUCKETS = 256
MOST_FEATURES = 1_024
NO_GROUP = -1


def bucket_of(group_key: str) -> int:
    """0 to BUCKETS − 1; NO_GROUP of an empty key."""
    if not group_key:
        return NO_GROUP
    return hashlib.blake2b(group_key.encode(), digest_size=1, person=b"group").digest()[0]


def stride(d_sae: int) -> int:
    """One of so many features is looked at, feature 0 first."""
    return max(1, -(-d_sae // MOST_FEATURES))


def looked_at(d_sae: int) -> int:
    """How many features are."""
    return -(-d_sae // stride(d_sae))
