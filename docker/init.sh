#!/usr/bin/env bash
# Makes what compose.yaml needs before its first start: random passwords, folders for the data, and .env.
#
# In:   docker/init.sh        nothing is asked for; SWEEP_UID and SWEEP_GID name another user (rootless Docker: 0 and 0)
# Out:  secrets/ (each file for its owner alone), data/, .env. Refuses to overwrite any of them: a new password would
#       lock the services out of the data that they keep under the old one.
set -euo pipefail
umask 077
cd "$(dirname "${BASH_SOURCE[0]}")"

for path in secrets .env; do
    if [ -e "$path" ]; then
        echo "error: docker/$path is there already, and is left as it is." >&2
        echo "       To begin anew: docker compose down, then remove docker/secrets, docker/data and docker/.env" >&2
        exit 1
    fi
done

# Services run under this id, so that they can read their secrets and nobody else can. Root hands them to the image's user.
uid=${SWEEP_UID:-$(id -u)} gid=${SWEEP_GID:-$(id -g)}
if [ "$(id -u)" = 0 ] && [ -z "${SWEEP_UID:-}" ]; then uid=10001 gid=10001; fi

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

draft=$(mktemp -d ./.secrets.XXXXXX)
trap 'rm -rf "$draft"' EXIT
random 32 >"$draft/ray_token"
random 24 >"$draft/grafana_password"
random 24 >"$draft/postgres_password"
printf 'postgres:5432:*:mlflow:%s\n' "$(cat "$draft/postgres_password")" >"$draft/pgpass"
access_key=$(random 10) secret_key=$(random 24)
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$access_key" "$secret_key" >"$draft/store_credentials"
printf '{"identities": [{"name": "mlflow", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]}]}\n' \
    "$access_key" "$secret_key" >"$draft/store_identities.json"
random 24 >"$draft/mlflow_password"
printf '[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = %s\n' "$(cat "$draft/mlflow_password")" \
    >"$draft/mlflow_credentials"
chmod 0600 "$draft"/*

mkdir -p data/postgres data/store data/mlflow data/runs data/prometheus data/grafana
if [ "$(id -u)" = 0 ]; then chown -R "$uid:$gid" "$draft" data; fi
mv "$draft" secrets

cat >.env <<SETTINGS
# Read by \`docker compose\`; made by init.sh. Change what you like, then \`docker compose up -d\`.
SWEEP_UID=$uid
SWEEP_GID=$gid
# Ray workers, and the cores that each offers.
SWEEP_WORKERS=2
SWEEP_WORKER_CPUS=2
# Where the services keep what stays, and the address that their ports are open on. 127.0.0.1: this host alone.
SWEEP_DATA=./data
SWEEP_BIND=127.0.0.1
SETTINGS
echo "made docker/secrets, docker/data and docker/.env; next: cd docker && docker compose up -d --build"
