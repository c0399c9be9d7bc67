"""Where a sweep runs. Knows hosts and Ray's start and stop, jobs and keys, and nothing of networks."""

from cluster.code import git_commit
from cluster.profile import Profile, load_profile, shipped_profiles
from cluster.session import Slots, check_cluster, ray_session

__all__ = ["Profile", "Slots", "check_cluster", "git_commit", "load_profile", "ray_session", "shipped_profiles"]
