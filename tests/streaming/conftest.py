"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# A deadline is a wall clock: on two shared cores it fails tests that are right.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
