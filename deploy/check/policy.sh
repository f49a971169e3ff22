#!/usr/bin/env bash
# checkov over the Terraform of every operator, in an environment of its own (it pins over a hundred
# packages): ends with 1 if anything is found that is not argued beside the resource.
#
# usage: deploy/check/policy.sh [CHECKOV_VERSION]
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:-3.3.30}
if [ ! -x .venv-checkov/bin/checkov ]; then
  "${PYTHON:-python3}" -m venv .venv-checkov
  .venv-checkov/bin/pip install --quiet "checkov==$version"
fi
status=0
for folder in deploy/operators/*/*/terraform; do
  echo "== $folder"
  .venv-checkov/bin/checkov --directory "$folder" --framework terraform --compact --quiet \
    --skip-download || status=1
done
exit $status
