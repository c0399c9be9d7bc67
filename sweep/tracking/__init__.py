"""MLflow: what a sweep's runs hold, the outbox that delivers them, and the server that shows them."""

from sweep.tracking.client import TrackingError
from sweep.tracking.outbox import Outbox, deliver
from sweep.tracking.preflight import artifact_root, default_tracking_uri, preflight, strip_credentials
from sweep.tracking.reruns import record_run
from sweep.tracking.server import experiment_url, run_url, serve
from sweep.tracking.team import serve_team

__all__ = [
    "Outbox",
    "TrackingError",
    "artifact_root",
    "default_tracking_uri",
    "deliver",
    "experiment_url",
    "preflight",
    "record_run",
    "run_url",
    "serve",
    "serve_team",
    "strip_credentials",
]
