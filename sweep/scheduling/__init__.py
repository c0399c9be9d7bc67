"""When trials start and stop: the decisions, Ray Tune around them, and the driver of a sweep."""
