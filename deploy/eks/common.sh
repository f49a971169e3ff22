# What install.sh, cleanup.sh and snapshot.sh share. Sourced, not run.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
readonly HERE ROOT
# shellcheck source=deploy/eks/versions.sh
source "$HERE/versions.sh"
readonly NAMESPACE=stable-diffusion

dry_run=false
step=0
steps=0

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Takes an argument that every script here knows: one of the shared options, or the configuration.
take_shared() {
  case $1 in
    --dry-run) dry_run=true ;;
    --yes) yes=true ;;
    --help) usage; exit ;;
    -*) fail "$1 is not an option; see --help" ;;
    *) [ -z "$configuration" ] || fail "one configuration at a time"; configuration=$1 ;;
  esac
}

# Announces the next step, with how far we are.
begin() {
  step=$((step + 1))
  printf '\n[%d/%d %s] %s\n' "$step" "$steps" "$(date +%H:%M:%S)" "$*"
}

# Runs a command, or in a dry run shows it.
run() {
  if $dry_run; then
    printf '    %s\n' "$(printf '%q ' "$@")"
  else
    "$@"
  fi
}


# Reads the facts of a configuration into variables of their names; ends where it is wrong.
read_configuration() {
  [ -f "$1" ] || fail "$1 is not there; ready ones: $(cd "$ROOT" && echo deploy/eks/*.yaml)"
  configuration=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
  local facts
  facts=$(PYTHONPATH="$ROOT/deploy/tools:$ROOT/deploy/operators/aws-eks" \
    "$tools/python" -m sd_aws_eks.describe "$configuration") || fail "correct $1 first"
  while IFS='=' read -r key value; do
    printf -v "$key" '%s' "$value"
  done <<<"$facts"
  folder=${folder:-$PWD/$name}
  export AWS_REGION=$region AWS_DEFAULT_REGION=$region AWS_PAGER=
  export KUBECONFIG=$folder/kubeconfig # never the user's own
}

# Ends unless every program is there, and the account answers.
need() {
  local missing=()
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} -eq 0 ] || $dry_run || fail "please install: ${missing[*]}"
  if ! $dry_run; then
    account=$(aws sts get-caller-identity --query Account --output text) \
      || fail "AWS does not know you; run: aws sso login, or set AWS_PROFILE"
    say "    account $account, region $region, cluster $name, files in $folder"
  fi
}

# bentoctl writes into the folder it runs in.
in_folder() {
  if $dry_run; then
    run "$@"
  else
    (cd "$folder" && "$@")
  fi
}

confirm() {
  if $dry_run || $yes; then return; fi
  read -r -p "$1 [y/N] " answer
  [ "$answer" = y ] || fail "stopped; nothing was changed"
}

tools=$ROOT/.venv-deploy/bin
if [ ! -x "$tools/bentoctl" ]; then
  fail "run \`make deploy-tools\` first"
fi
