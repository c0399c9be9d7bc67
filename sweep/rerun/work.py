"""The course of a rerun: chosen or named, confirmed, trained, tested; what an earlier call has done is not done again.

In: a sweep's tables and study, where it trains, over how many workers, and whom to tell. Out: a `RerunResult`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import Profile
from sweep.records import Tables
from sweep.rerun.choose import Candidate, choose
from sweep.rerun.confirm import Progress, confirm, confirmed
from sweep.rerun.full_scale import check_workers, train_at_full_scale
from sweep.rerun.named import named_candidate
from sweep.rerun.result import FOLDER, RerunResult, folder_name, keep, read
from sweep.rerun.testing import open_test_once
from sweep.rerun.warm_start import open_source, refuse_misfit
from sweep.rerun.workplace import Workplace, open_workplace
from sweep.scheduling.engine import sweep_id
from sweep.studies import Study


@dataclass(frozen=True)
class Work:
    """What both kinds of rerun need: the sweep, where it trains, over how many workers, whom it tells."""

    tables: Tables
    study: Study
    folder: Path
    profile: Profile
    workers: int
    progress: Progress

    def chosen(self, best: int, seeds: int, num_members: int) -> RerunResult:
        """The best, confirmed, trained and tested, with the next `num_members` - 1 beside it."""
        candidates = choose(self.tables, max(best, num_members))
        if num_members > len(candidates):
            raise ValueError(
                f"--ensemble: {num_members} networks, but only {len(candidates)} different ones of this sweep have "
                "trained to the end; name fewer"
            )
        confirms = best > 1 or seeds > 1
        known = confirmed(candidates, self.folder, seeds=seeds) if confirms else candidates
        if known and (done := self._answer(known, num_members, confirms)):
            return done
        with self._place({candidate.scale for candidate in candidates}) as place:
            if confirms:
                candidates = confirm(candidates, place, seeds=seeds, progress=self.progress)
            if done := self._answer(candidates, num_members, confirms):
                return done
            folders = [
                train_at_full_scale(one, place, workers=self.workers, progress=self.progress)
                for one in candidates[:num_members]
            ]
            return open_test_once(
                candidates,
                folders,
                place,
                num_networks=self._num_networks,
                single_was_known=read(folders[0]) is not None,
            )

    def _answer(self, candidates: list[Candidate], num_members: int, confirms: bool) -> RerunResult | None:
        """What an earlier call found of these networks: the test is not opened again."""
        done = read(self.folder / FOLDER / folder_name(candidates[0].architecture_id))
        if done is None or (num_members > 1 and not _is_ensemble_of(candidates[:num_members], done)):
            return None
        if confirms:  # what was confirmed since belongs to the result
            done = replace(done, candidate=candidates[0], candidates=tuple(candidates))
            keep(done)
        return done

    def named(self, text: str, warm_start: str) -> RerunResult:
        """The network that the user named, trained and tested."""
        candidate, data = named_candidate(text, self.tables, self.study), self.study.data
        source = open_source(warm_start) if warm_start else None
        if source:
            refuse_misfit(source, candidate, channels=data.num_channels, classes=data.num_classes)
        began_from = source.weights_sha256 if source else ""
        name = folder_name(candidate.architecture_id, is_named=True, began_from=began_from)
        if done := read(self.folder / FOLDER / name):
            return done
        with self._place({candidate.scale}) as place:
            trained = train_at_full_scale(
                candidate, place, workers=self.workers, progress=self.progress, is_named=True, source=source
            )
            return open_test_once([candidate], [trained], place, num_networks=self._num_networks, named=text)

    @property
    def _num_networks(self) -> int:
        """Among so many was chosen: repeats of a scale do not compete."""
        competing = {scale.name for scale in self.study.judged_scales}
        return sum(scale in competing for scale in self.tables.trials["scale"].to_pylist())

    @contextmanager
    def _place(self, scales: set[str]) -> Iterator[Workplace]:
        name = sweep_id(self.tables.metadata)
        with open_workplace(self.study, self.folder, self.profile, sweep_id=name, scales=sorted(scales)) as place:
            check_workers(self.workers, place)
            yield place


def _is_ensemble_of(candidates: list[Candidate], done: RerunResult) -> bool:
    members = done.ensemble.members if done.ensemble else ()
    return [one.architecture_id for one in candidates] == [member.architecture_id for member in members]
