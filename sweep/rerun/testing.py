"""The test images, opened once: for the network that validation chose, and for the ensemble that it leads.

In: trained networks in their folders, the chosen one first. Out: a `RerunResult`, kept as `result.json` in the folder
of the first; a later call answers what was found then. Nothing is chosen here: the order is that of validation. The
ensemble answers by the mean of its members' softmax probabilities, so that a member counts by how sure it is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.rerun.choose import Candidate
from sweep.rerun.full_scale import job_of, read_history
from sweep.rerun.job import Job, start_trial
from sweep.rerun.result import WEIGHTS, Ensemble, Member, RerunResult, keep
from sweep.rerun.trained import Trained, read_trained, unpacked
from sweep.rerun.workplace import Workplace, resolution_at_full_scale
from sweep.spaces import complexity, network_from_json
from sweep.studies import Study

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST = 1e-300  # a probability that is not zero in double precision: its logarithm is finite


@dataclass(frozen=True)
class _Answers:
    """Mean loss in nats, and for each test image whether the answer is wrong."""

    loss: float
    is_wrong: "Tensor"

    @property
    def error_pct(self) -> float:
        return 100 * int(self.is_wrong.sum()) / len(self.is_wrong)


def open_test_once(
    candidates: list[Candidate],
    folders: list[Path],
    place: Workplace,
    *,
    num_networks: int,
    named: str = "",
    single_was_known: bool = False,
) -> RerunResult:
    """`folders` are those of the first of `candidates`, chosen among `num_networks`; several make an ensemble."""
    candidate, study, folder = candidates[0], place.study, folders[0]
    jobs = [job_of(one, place, path.name) for one, path in zip(candidates, folders)]
    single, together = _answers(jobs, folders)
    trained, job = _trained(folder), jobs[0]
    result = RerunResult(
        candidate=candidate,
        candidates=tuple(candidates),
        num_networks=num_networks,
        sweep_epochs=study.stopping_at(candidate.scale).max_epochs,
        num_validation=study.data.num_validation,
        confidence=study.judging.confidence,
        epochs=job.num_epochs,
        resolution=resolution_at_full_scale(study, candidate.scale),
        num_workers=trained.num_workers,
        batch_size=job.recipe.batch_size,
        learning_rate=job.recipe.learning_rate,
        num_train=trained.num_train,
        num_test=len(single.is_wrong),
        test_error_pct=single.error_pct,
        test_loss=single.loss,
        train_time_s=trained.train_time_s,
        seed=trained.seed,
        pixel_mean=trained.pixel_mean,
        pixel_std=trained.pixel_std,
        weights_sha256=trained.weights_sha256,
        directory=str(folder),
        provenance=_provenance(),
        history=tuple(read_history(folder)),
        named=named,
        warm_start=trained.warm_start,
        ensemble=None if together is None else Ensemble(
            members=tuple(_member(one, path, study) for one, path in zip(candidates, folders)),
            test_error_pct=together.error_pct,
            test_loss=together.loss,
            num_only_single_wrong=int((single.is_wrong & ~together.is_wrong).sum()),
            num_only_ensemble_wrong=int((together.is_wrong & ~single.is_wrong).sum()),
            single_was_known=single_was_known,
        ),
    )  # fmt: skip
    keep(result)
    return result


def _trained(folder: Path) -> Trained:
    trained = read_trained(folder)
    if trained is None:
        raise RuntimeError(f"rerun: the weights in {folder} have changed since they were trained; call it again")
    return trained


def _member(candidate: Candidate, folder: Path, study: Study) -> Member:
    trained, error_pct = _trained(folder), candidate.validation_error_pct
    assert error_pct is not None
    size = complexity(
        network_from_json(candidate.architecture),
        resolution=resolution_at_full_scale(study, candidate.scale),
        channels=study.data.num_channels,
        classes=study.data.num_classes,
    )
    return Member(
        trial_id=candidate.trial_id,
        architecture_id=candidate.architecture_id,
        folder=folder.name,
        validation_error_pct=error_pct,
        flops=size.flops,
        params=size.params,
        seed=trained.seed,
        train_time_s=trained.train_time_s,
        weights_sha256=trained.weights_sha256,
    )


def _answers(jobs: list[Job], folders: list[Path]) -> tuple[_Answers, _Answers | None]:
    """Of the first network, and of all together if there are several: the one place that opens the test images."""
    logits_NK, target_N = _of_one(jobs[0], folders[0])
    single, sum_NK = _judged(logits_NK.log_softmax(1), target_N), logits_NK.softmax(1)
    for job, folder in zip(jobs[1:], folders[1:]):
        sum_NK += _of_one(job, folder)[0].softmax(1)
    if len(jobs) == 1:
        return single, None
    return single, _judged((sum_NK / len(jobs)).clamp_min(_SMALLEST).log(), target_N)


def _judged(log_probabilities_NK: "Tensor", target_N: "Tensor") -> _Answers:
    from torch.nn.functional import nll_loss

    return _Answers(nll_loss(log_probabilities_NK, target_N).item(), log_probabilities_NK.argmax(1) != target_N)


def _of_one(job: Job, folder: Path) -> tuple["Tensor", "Tensor"]:
    """Logits (N, K) in double precision and labels (N,) of the test images, on the CPU."""
    import torch

    from sweep.training.data import open_test
    from sweep.training.trial import logits_of

    trial = start_trial(job)
    trial.network.load_state_dict(unpacked((folder / WEIGHTS).read_bytes()))
    images, labels, index = open_test(job.data.files(job.data_name))
    logits_NK = torch.cat([logits.cpu().double() for _, logits in logits_of(trial, torch.from_numpy(images), index)])
    return logits_NK, torch.from_numpy(labels[index].astype(np.int64))


def _provenance() -> dict[str, Any]:
    from sweep.scheduling.driver import provenance

    return provenance()
