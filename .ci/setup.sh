#!/usr/bin/env bash
# Makes a bare machine ready: a Python, .venv, the data, the packages.
#
# In:   .ci/setup.sh base | dev     (dev adds what the tests and `make lint` need)
#       PYTHON=/path/to/python3.12  picks the interpreter; SWEEP_DATA_DIR names a folder that holds Fashion-MNIST
# Out:  .venv with the project installed in editable mode, and Fashion-MNIST where `sweep` looks for it.
# Each step says what it does and is skipped when it has been done, so that it may run again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)

step() { printf '==> %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for remedy in "$@"; do printf '       %s\n' "$remedy" >&2; done
    exit 1
}
is_root() { [ "$(id -u)" = 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command in silence; its output is shown when it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# An update that fails (one source of many is away) does not matter if the package can be had all the same.
apt_install() {
    step "installing $* with apt-get"
    quietly apt-get update || true
    # In runlevel 1 a package starts no service: the tests start their own.
    quietly env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes --no-install-recommends "$@"
}

# ---- Python ----------------------------------------------------------------------------------------------------
is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

find_python() {
    local candidate found='' candidates=(python3 python3.14 python3.13 python3.12 python3.11)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        has "$candidate" || continue
        if is_recent "$candidate"; then
            command -v "$candidate"
            return
        fi
        found="$found $candidate ($(python_version "$candidate" || echo broken))"
    done
    die "Python 3.11 or newer is needed; looked for ${candidates[*]}; found${found:- none}" \
        'Debian 12, Ubuntu 24.04 or newer:  apt-get install python3 python3-venv' \
        'Ubuntu 22.04:                      apt-get install python3.11 python3.11-venv' \
        'elsewhere:                         https://www.python.org/downloads/' \
        'or name one:                       make quickstart PYTHON=/path/to/python3.12'
}

# Debian and Ubuntu ship `venv` without `ensurepip` until pythonX.Y-venv is installed.
ensure_venv_module() {
    local python=$1 package
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    package="python$(python_version "$python")-venv"
    if has apt-get && is_root; then
        apt_install "$package" || die "$package could not be installed; apt-get's message stands above."
        "$python" -c 'import ensurepip, venv' 2>/dev/null && return
        die "$python has no ensurepip, and $package did not bring it." 'Name another:  make quickstart PYTHON=/usr/bin/python3'
    fi
    has apt-get || die "$python has no ensurepip, so it cannot make a virtual environment." 'Install a complete Python 3.11 or newer.'
    die "$python cannot make a virtual environment: $package is missing. Ask for:" "sudo apt-get install $package"
}

# A virtual environment holds absolute paths: one that was moved, or whose Python has gone, is built afresh.
is_usable_venv() {
    [ -x .venv/bin/python ] && is_recent .venv/bin/python || return 1
    [ ! -e .venv/.root ] || [ "$(cat .venv/.root)" = "$root" ]
}

make_venv() {
    local python
    if ! is_usable_venv; then
        [ ! -L .venv ] || die '.venv is a link to the environment of another folder.' 'Remove the link and run again.'
        [ ! -e .venv ] || step 'the folder was moved, or the Python of .venv has gone'
        python=$(find_python)
        ensure_venv_module "$python"
        step "creating .venv with Python $(python_version "$python") ($python)"
        quietly "$python" -m venv --clear .venv || die '.venv could not be created; the message stands above.'
    elif ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        step 'adding pip to .venv'
        quietly .venv/bin/python -m ensurepip --upgrade || die '.venv has no pip.' 'Remove .venv and run again.'
    fi
    printf '%s\n' "$root" >.venv/.root
}

# ---- packages --------------------------------------------------------------------------------------------------
# A stamp per set of packages holds the checksum of the pyproject.toml that it was installed from.
is_installed() { [ -e ".venv/.installed-$1" ] && [ "$(cat ".venv/.installed-$1")" = "$(cksum <pyproject.toml)" ]; }

install_packages() {
    local wanted=$1 target=. done_too=base
    if is_installed "$wanted"; then
        step 'packages: installed already'
        return
    fi
    [ "$wanted" = base ] || target=".[$wanted]"
    step "installing the packages into .venv (the first time: minutes, and several GB for torch)"
    quietly .venv/bin/python -m pip install --disable-pip-version-check --no-compile --editable "$target" ||
        die "pip could not install the packages; its message stands above." \
            'Check the network and the free space (df -h . /tmp), then run again: what was downloaded is kept.'
    # On all cores, where pip takes one for two minutes. What is left out, or fails, is met when it is imported.
    .venv/bin/python -m compileall -q -j 0 -x '/tests?/' .venv/lib/python*/site-packages >/dev/null 2>&1 || true
    for done_too in base "$wanted"; do cksum <pyproject.toml >".venv/.installed-$done_too"; done
}

# ---- data ------------------------------------------------------------------------------------------------------
# Looks where `sweep` looks (sweep/training/data/published.py), and brings the Debian package where apt-get has it. On other machines
# `sweep` downloads the files itself at the first launch.
data_package=dataset-fashion-mnist
system_data=/usr/share/datasets/fashion-mnist
data_files=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)

holds_data() {
    local file inside=$1
    [ ! -d "$1/FashionMNIST/raw" ] || inside=$1/FashionMNIST/raw # as torchvision's download leaves it
    for file in "${data_files[@]}"; do
        [ -s "$inside/$file.gz" ] || [ -s "$inside/$file" ] || return 1
    done
}

# Without root: a private state and cache for apt-get, then the package's files without its installation.
download_data() (
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/package" "$1" || return
    private=(-o "Dir::State=$work/state" -o "Dir::Cache=$work/cache" -o Dir::State::status=/var/lib/dpkg/status)
    quietly apt-get "${private[@]}" update || true
    cd "$work"
    quietly apt-get "${private[@]}" download "$data_package" || return
    quietly dpkg-deb -x "$data_package"_*.deb package || return
    for file in "${data_files[@]}"; do
        cp "package$system_data/$file.gz" "$1/.$file.part" && mv "$1/.$file.part" "$1/$file.gz" || return
    done
)

ensure_data() {
    local folder cache=${XDG_CACHE_HOME:-~/.cache}/designspace-sweep/fashion-mnist
    if [ -n "${SWEEP_DATA_DIR:-}" ]; then
        step "data: SWEEP_DATA_DIR=$SWEEP_DATA_DIR"
        return
    fi
    for folder in "$system_data" "$cache"; do
        if holds_data "$folder"; then
            step "data: Fashion-MNIST is in $folder"
            return
        fi
    done
    if has apt-get && is_root; then
        apt_install "$data_package" && folder=$system_data
    elif has apt-get && has dpkg-deb; then
        step "data: fetching $data_package with apt-get into $cache"
        download_data "$cache" && folder=$cache
    fi
    if holds_data "$folder"; then
        step "data: Fashion-MNIST is in $folder"
    else
        step 'data: not to be had from apt-get; sweep downloads Fashion-MNIST (30 MB) at the first launch'
    fi
}

# ---- programs --------------------------------------------------------------------------------------------------
# What tests run as it is, and the Debian package that brings it (tests/needs.py says the same to a test that misses one).
programs=(
    ip:iproute2 unshare:util-linux postgres:postgresql psql:postgresql-client munged:munge slurmctld:slurm-wlm
    prometheus:prometheus shellcheck:shellcheck curl:curl openssl:openssl ps:procps
)

# Missing ones are no reason to stop: all other tests run without them.
ensure_programs() {
    local entry missing=() PATH=$PATH:/usr/sbin:/sbin folder
    for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done
    for entry in "${programs[@]}"; do
        has "${entry%%:*}" || missing+=("${entry#*:}")
    done
    if [ "${#missing[@]}" = 0 ]; then
        step 'programs of the tests: installed already'
    elif has apt-get && is_root; then
        apt_install "${missing[@]}" || step "not installed: ${missing[*]}; tests that need them are left out"
    else
        step "tests that need these are left out: ${missing[*]}; with Debian or Ubuntu: sudo apt-get install ${missing[*]}"
    fi
}

case "${1:-}" in
base | dev)
    make_venv
    ensure_data
    [ "$1" = base ] || ensure_programs
    install_packages "$1"
    ;;
*) die "unknown step '${1:-}'" 'usage: .ci/setup.sh base | dev' ;;
esac
