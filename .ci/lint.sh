#!/usr/bin/env bash
# Every check that reads the code without running it; `make lint` and tests/project/test_lint.py both call this file.
#
# In:   .ci/lint.sh [FOLDER]   the folder that holds ruff, mypy and lint-imports (default: .venv/bin)
# Out:  each check's own output; exit code 1 when any of them failed, after all have run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
folder=${1:-.venv/bin}
status=0

check() {
    printf '==> %s\n' "$*" >&2
    "$folder/$1" "${@:2}" || status=1
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
exit "$status"
