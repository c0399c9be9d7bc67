#!/usr/bin/env bash
# Writes docker/requirements.lock: every package of the image but torch, with its version and the hashes of its files.
#
# In:   docker/lock.sh [OPTION…]   needs `uv` (pip install uv); options go to `uv pip compile`, such as --upgrade
# Out:  docker/requirements.lock, for Python 3.11 on Linux. Torch, torchvision and CUDA's libraries are left out: the
#       Dockerfile takes them from the index of the variant that it builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || {
    echo 'error: uv is needed; install it with: pip install uv' >&2
    exit 1
}
lock=docker/requirements.lock
arguments=(
    pyproject.toml --extra cluster --extra build --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes
    --no-annotate --custom-compile-command docker/lock.sh --output-file "$lock"
    --no-emit-package torch --no-emit-package torchvision --no-emit-package triton
)
# Which of CUDA's libraries torch asks for changes with its version: a first pass tells their names.
while read -r name; do
    arguments+=(--no-emit-package "$name")
done < <(uv pip compile --quiet pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header \
    --no-annotate | sed -n 's/^\(nvidia-[a-z0-9-]*\|cuda-[a-z0-9-]*\)\(\[.*\]\)*==.*/\1/p' | sed '/^nvidia-ml-py$/d')
uv pip compile --quiet "${arguments[@]}" "$@"
echo "$lock: $(grep -c '^[a-z0-9].*==' "$lock") packages"
