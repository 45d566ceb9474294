#!/usr/bin/env bash
# Builds the images and says how large they are:
#
#   deploy/images/build.sh [service] [trainer] [service-cuda] [trainer-cuda]      service and trainer, if none is named
#
# With a Docker engine by it, else by buildah (Debian: buildah, debootstrap), which needs none. Where no registry of
# images is reached, BASE=debootstrap makes a stand-in for the base image from Debian's packages. WHEELS=FOLDER takes
# wheels from there too, PyTorch's among them; TORCH_BACKEND= (empty) then leaves the choice to the folder.
set -euo pipefail
cd "$(dirname "$0")/../.."

targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(service trainer)
arguments=()
[[ -n ${TORCH_BACKEND+set} ]] && arguments+=(--build-arg "TORCH_BACKEND=$TORCH_BACKEND")

if docker info >/dev/null 2>&1; then
    for target in "${targets[@]}"; do
        docker build "${arguments[@]}" --target "$target" --tag "ganserve-$target" .
        docker image inspect --format "ganserve-$target: {{.Size}} bytes" "ganserve-$target"
    done
    exit
fi

command -v buildah >/dev/null || { echo "neither a Docker engine nor buildah is here: apt-get install buildah" >&2; exit 1; }
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
base=docker.io/library/python:3.11-slim

if [[ ${BASE:-} == debootstrap ]] && ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates bookworm "$root/base" >"$root/log" ||
        { tail -n 5 "$root/log" >&2; exit 1; }
    # The base image's own names: `python`, and a pip that may write where it stands.
    ln -s python3 "$root/base/usr/bin/python"
    rm -rf "$root"/base/usr/lib/python3.11/EXTERNALLY-MANAGED "$root"/base/var/cache/apt/* "$root"/base/var/lib/apt/lists/*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root/base" / >/dev/null
    buildah commit --quiet --rm "$container" "$base" >/dev/null
fi

# A build sees the certificates and the wheels of where it runs.
if [[ -n ${SSL_CERT_FILE:-} ]]; then
    arguments+=(--volume "$SSL_CERT_FILE:/tmp/certificates.pem:ro"
        --build-arg SSL_CERT_FILE=/tmp/certificates.pem --build-arg PIP_CERT=/tmp/certificates.pem)
fi
if [[ -n ${WHEELS:-} ]]; then
    arguments+=(--volume "$WHEELS:/tmp/wheels:ro" --build-arg UV_FIND_LINKS=/tmp/wheels)
fi
for target in "${targets[@]}"; do
    buildah bud --format docker --layers --pull-never "${arguments[@]}" --target "$target" --tag "ganserve-$target" .
    container=$(buildah from --pull-never "localhost/ganserve-$target")
    root=$(buildah mount "$container")
    echo "ganserve-$target: $(du --summarize --block-size=1M --one-file-system "$root" | cut -f1) MiB"
    buildah umount "$container" >/dev/null
    buildah rm "$container" >/dev/null
done
