"""The looks of a sweep that may end early, taken as they become due.

In: the journal of a sweep whose study has `judging.stop_when = "decided"`. Out: the looks in it, each once and in their
order (sweep/statistics/rules/looks.py says what one is).

The supervisor's process takes them, while the engine trains. A look and what follows from it are one commit; it is for
the conductor to heed it. A process that is killed before that commit has taken no look, and the next one takes it again
from the same trials; one that is killed after it leaves it to the next one to heed.
"""

import time
from collections.abc import Callable

from sweep.records import Journal, from_journal
from sweep.records.journal import DECIDED, LOOKS
from sweep.scheduling.standing import decided_text
from sweep.statistics import Look, due_look
from sweep.statistics.tables import first_rungs
from sweep.studies import Study, study_from_dict

_LOOK_EVERY_S = 1.0

Log = Callable[[str], None]


class Looks:
    """Takes the looks of a sweep: call it again and again. `log` is told of each."""

    def __init__(self, journal: Journal, log: Log, *, clock: Callable[[], float] = time.monotonic):
        self._journal, self._log, self._clock = journal, log, clock
        self._study: Study = study_from_dict(journal.get("study"))
        self._sizes = self._study.judging.look_sizes(self._study.num_trials)
        self._next_s = 0.0

    def __call__(self) -> None:
        """Take the looks before the end that are due; asked of the journal alone, and at most once a second."""
        if self._sizes and self._clock() >= self._next_s:
            if self._is_next_complete():
                self.take_due()
            self._next_s = self._clock() + _LOOK_EVERY_S

    def _is_next_complete(self) -> bool:
        num_taken = len(self._journal.get(LOOKS, []))
        if num_taken >= len(self._sizes) or self._journal.get(DECIDED):
            return False
        return self._journal.num_on_their_way(self._sizes[num_taken], first_rungs(self._study)) == 0

    def take_due(self) -> None:
        """Take and record every look that is due, that at the end too. Raises what the journal raises."""
        while self._sizes:
            taken = [Look.from_dict(look) for look in self._journal.get(LOOKS, [])]
            look = due_look(from_journal(self._journal), taken)
            if look is None:
                return
            self._journal.record_look(look.to_dict(), said(look), decides_all=look.decides_all)
            self._log(said(look))


def said(look: Look) -> str:
    """What a look has found, in words."""
    after = f"look {look.number} of {max(look.number, look.num_looks)}, at {look.num_trials} of {look.num_known} trials"
    return f"{after}: {decided_text(look.num_decided, len(look.compared))}"
