"""The table of faults in README.md, from what the tests recorded: `python tests/faults/table.py RECORD`.

In: lines of JSON that the fixture `injected` wrote. Out: Markdown on stdout; one row a fault, with how often it was
injected, how often all invariants held after it, and the seconds until the sweep went on (median and worst).
"""

import json
import statistics
import sys
from pathlib import Path


def rows(lines: list[dict]) -> list[tuple[str, ...]]:
    faults: dict[tuple[int, str], list[dict]] = {}
    for line in lines:
        faults.setdefault((line["number"], line["fault"]), []).append(line)
    found = []
    for (number, fault), records in sorted(faults.items()):
        times = sum(record["times"] for record in records)
        held = sum(record["times"] for record in records if record["held"])
        seconds = [record["recovery_s"] for record in records if record["recovery_s"] is not None]
        recovery = f"{statistics.median(seconds):.0f} ({max(seconds):.0f})" if seconds else "–"
        found.append((str(number), fault, str(times), f"{held} of {times}", recovery))
    return found


def markdown(lines: list[dict]) -> str:
    head = ("", "fault", "injected", "invariants held", "goes on after, s: median (worst)")
    table = [head, ("---",) * len(head), *rows(lines)]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in table)


def main(path: str) -> None:
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    sys.stdout.write(markdown(lines) + "\n")
    broken = sum(not line["held"] for line in lines)
    sys.exit(f"{broken} records of faults after which not everything held" if broken else 0)


if __name__ == "__main__":
    main(sys.argv[1])
