"""The MLflow run and the registered model of a rerun, linked to its sweep.

In: a `RerunResult` and the sweep's metadata. Out: one run below the sweep's, with the curve, the errors and the folder
`model` (weights, architecture, card); one version of the registered model that is called like the experiment; the
alias `champion`. Called again, they are the same run and the same version.

The alias goes to the better network by validation, never by test error, and only where the two can be compared: they
were confirmed together, or both were confirmed under the same study, or neither was. Else it stays where it is.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.rerun.card import model_card
from sweep.rerun.result import RESULT, WEIGHTS, RerunResult
from sweep.spaces import network_from_json
from sweep.tracking import TrackingError, record_run, strip_credentials
from sweep.tracking.content import experiment_name
from sweep.tracking.delivery import connect, log_artifact

CHAMPION = "champion"


@dataclass(frozen=True)
class Registration:
    """Where MLflow holds a rerun. `is_champion`: the alias points to it; `why` says why it does or does not."""

    run_id: str
    model: str
    version: str
    is_champion: bool
    why: str


def model_name(metadata: Mapping[str, Any]) -> str:
    """MLflow takes no colon in a model's name, which an experiment's may hold."""
    return experiment_name(metadata["study"]["name"]).replace(":", "-")


def record(result: RerunResult, metadata: dict[str, Any], report: Path) -> Registration:
    """Raises `TrackingError` where MLflow cannot be told; the result itself is on disk already.

    The recorded URI has no credentials: a server that wants some gets them from MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD.
    """
    if "parent_run_id" not in metadata:
        raise RuntimeError(
            "rerun: the sweep has no run in MLflow yet to link this one to; launch it with --resume, which delivers "
            f"it, then call this again: the result is kept in {result.directory}"
        )
    run_id = _record_run(result, metadata)
    try:
        client = connect(metadata["tracking_uri"])
        registration = _register(client, result, metadata, run_id)
        parent_run_id = metadata["parent_run_id"]
        client.set_tag(parent_run_id, "rerun_run_id", run_id)
        if registration.is_champion:
            client.set_tag(parent_run_id, CHAMPION, run_id)
        log_artifact(client, parent_run_id, report.name, report)
    except Exception as error:
        raise TrackingError(
            f"tracking: the model of {result.candidate.architecture_id} is not registered in "
            f"{strip_credentials(metadata['tracking_uri'])} ({strip_credentials(str(error))}); call this again: the "
            f"result is kept in {result.directory}"
        ) from error
    return registration


def _record_run(result: RerunResult, metadata: dict[str, Any]) -> str:
    candidate, folder = result.candidate, Path(result.directory)
    with tempfile.TemporaryDirectory() as scratch:
        architecture, card = Path(scratch, "architecture.yaml"), Path(scratch, "README.md")
        architecture.write_text(network_from_json(candidate.architecture).to_yaml(), encoding="utf-8")
        card.write_text(model_card(result, metadata), encoding="utf-8")
        confirmed = {"confirmed/error_pct": candidate.validation_error_pct} if candidate.confirmed_error_pct else {}
        return record_run(
            tracking_uri=metadata["tracking_uri"],
            experiment_id=metadata["experiment_id"],
            parent_run_id=metadata["parent_run_id"],
            rerun_id=candidate.architecture_id,
            name=f"rerun {candidate.architecture_id}",
            tags={
                "space": candidate.space,
                "scale": candidate.scale,
                "architecture_id": candidate.architecture_id,
                "sweep.trial_id": candidate.trial_id,
                "weights_sha256": result.weights_sha256,
            },
            params={
                "batch_size": result.batch_size,
                "epochs": result.epochs,
                "learning_rate": result.learning_rate,
                "num_test": result.num_test,
                "num_train": result.num_train,
                "num_workers": result.num_workers,
                "resolution": result.resolution,
                "seed": result.seed,
            },
            epochs=result.history,
            metrics={
                "test/error_pct": result.test_error_pct,
                "test/loss": result.test_loss,
                "sweep/error_pct": candidate.sweep_error_pct,
                **confirmed,
            },
            artifacts={
                RESULT: folder / RESULT,
                f"model/{WEIGHTS}": folder / WEIGHTS,
                f"model/{architecture.name}": architecture,
                f"model/{card.name}": card,
            },
        )


def _register(client: Any, result: RerunResult, metadata: Mapping[str, Any], run_id: str) -> Registration:
    name, candidate = model_name(metadata), result.candidate
    _ensure_model(client, name, metadata)
    tags = {
        "weights_sha256": result.weights_sha256,
        "architecture_id": candidate.architecture_id,
        "study_hash": metadata.get("study_hash", ""),
        "sweep_run_id": metadata["parent_run_id"],
        "validation_error_pct": f"{candidate.validation_error_pct:.6g}",
        "num_fresh_seeds": str(len(candidate.confirmed_error_pct)),
    }
    found = client.search_model_versions(f"name = '{_quoted(name)}' and run_id = '{run_id}'")
    if found:
        version = found[0].version
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        client.update_model_version(name, version, description=model_card(result, metadata))
    else:
        version = client.create_model_version(
            name, f"runs:/{run_id}/model", run_id=run_id, tags=tags, description=model_card(result, metadata)
        ).version
    champion = _champion(client, name)
    is_champion, why = judge_champion(result, str(version), tags, champion)
    if is_champion and (champion is None or str(champion.version) != str(version)):
        client.set_registered_model_alias(name, CHAMPION, version)
    return Registration(run_id, name, str(version), is_champion, why)


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")


def _ensure_model(client: Any, name: str, metadata: Mapping[str, Any]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=metadata["study"].get("question") or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _champion(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def judge_champion(result: RerunResult, version: str, tags: Mapping[str, str], champion: Any) -> tuple[bool, str]:
    """Whether the alias belongs to this version, and why; `champion` is the version that holds it, or None."""
    if champion is None:
        return True, "the first of its name"
    if str(champion.version) == version:
        return True, "it is the champion already"
    theirs, other = champion.tags, f"version {champion.version}"
    together = {c.architecture_id: c for c in result.candidates if c.confirmed_error_pct}
    rival = together.get(theirs.get("architecture_id", ""))
    same_study = theirs.get("study_hash") == tags["study_hash"]
    if same_study and rival is not None and result.candidate.confirmed_error_pct:
        error_pct = rival.validation_error_pct
    elif same_study and (theirs.get("num_fresh_seeds") == "0") == (tags["num_fresh_seeds"] == "0"):
        error_pct = float(theirs["validation_error_pct"])
    else:
        return False, f"it cannot be compared with {other}: another study, or only one of the two was confirmed"
    own_pct = result.candidate.validation_error_pct
    if own_pct < error_pct:
        return True, f"{own_pct:.2f} % validation error, {other} has {error_pct:.2f} %"
    return False, f"{own_pct:.2f} % validation error, {other} has {error_pct:.2f} % and stays"
