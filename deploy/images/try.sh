#!/usr/bin/env bash
# Starts the images that build.sh built by buildah, as a user of a number that they do not know, and asks them: the
# service for a picture, the trainer for a run of a minute's tenth. No engine and no root file system of the host's.
set -euo pipefail
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
port=${PORT:-18080}

service=$(buildah from --pull-never localhost/ganserve-service)
trainer=$(buildah from --pull-never localhost/ganserve-trainer)
trap 'kill "${served:-$$}" 2>/dev/null; wait "${served:-}" 2>/dev/null; buildah rm "$service" "$trainer" >/dev/null' EXIT

buildah run --user 123456:0 --env GANSERVE_HOST=127.0.0.1 --env "GANSERVE_PORT=$port" --env GANSERVE_ADMIN_TOKEN=trial \
    "$service" -- python -m service &
served=$!
for _ in $(seq 100); do
    curl --silent --fail "http://127.0.0.1:$port/health/ready" >/dev/null && break
    sleep 0.2
done
curl --silent --fail "http://127.0.0.1:$port/generate?label=3&n=16&seed=42" | head --bytes 8 | od -c | head -n 1
# What an admin changes is written by that user too.
curl --silent --fail --request PUT "http://127.0.0.1:$port/models/mnist-projgan/live" --json '{"version":1}' \
    --header 'Authorization: Bearer trial'
echo
buildah run --user 123456:0 --env HOME=/tmp --env USER=ganserve "$trainer" -- \
    python -m training.train --recipe cgan --dataset digits --images 640 --run /srv/ganserve/var/run 2>&1 | tail -n 1
buildah run --user 123456:0 --env HOME=/tmp --env USER=ganserve "$trainer" -- python -m training.worker --help | head -n 1
