"""Where a sweep runs. Knows hosts and Ray's start and stop, and nothing of networks."""

from cluster.profile import Profile, load_profile, shipped_profiles

__all__ = ["Profile", "load_profile", "shipped_profiles"]
