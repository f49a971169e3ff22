#!/usr/bin/env bash
# Builds the fp32 Bento's image, runs it, and answers both curls from it.
#
# usage: deploy/image.sh [--host bentoml|ray] [--base registry|debootstrap] [--port PORT] [--keep]
#
#   --host ray           the Bento with Ray inside (deploy/ray/bento.py), and what Ray Serve answers
#   --base registry      take python:3.11-slim from the registry, as users do (default)
#   --base debootstrap   make a Debian 12 base under that name: for places without a registry (root)
#   --port PORT          where the container answers while it is tried (default 3310)
#   --keep               leave the image in the store
#
# Needs podman (or docker for --base registry) and `make setup deploy-tools`. Settings of the machine,
# like storage or volumes with a package mirror, are podman's own: CONTAINERS_CONF and
# CONTAINERS_STORAGE_CONF.
set -euo pipefail
cd "$(dirname "$0")/.."

host=bentoml base=registry port=3310 keep=no
while [ $# -gt 0 ]; do
  case $1 in
    --host) host=$2; shift 2 ;;
    --base) base=$2; shift 2 ;;
    --port) port=$2; shift 2 ;;
    --keep) keep=yes; shift ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit ;;
    *) echo "$0: unknown option $1; see --help" >&2; exit 2 ;;
  esac
done
case $host in bentoml | ray) ;; *) echo "--host: bentoml or ray" >&2; exit 2 ;; esac
case $base in registry | debootstrap) ;; *) echo "--base: registry or debootstrap" >&2; exit 2 ;; esac

work=$(mktemp -d)
name=sd-image-check-$$
tool=${BENTOCTL_BUILDER:-podman}
export BENTOCTL_BUILDER=$tool BENTOML_HOME=$work/bentoml BENTOCTL_HOME=$work/bentoctl
export BENTOML_DO_NOT_TRACK=True
mkdir -p "$BENTOML_HOME"
tidy() {
  "$tool" rm --force "$name" > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap tidy EXIT

say() { printf '%s %s\n' "$(date +%T)" "$*"; }

# Debian's python3.11 is what the Dockerfile asks for, but for its pip's reluctance.
debian_base() {
  local root=$work/root
  debootstrap --variant=minbase \
    --include=python3,python3-pip,python3-venv,ca-certificates bookworm "$root" > "$work/log"
  rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
  ln -sf python3 "$root/usr/bin/python"
  rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  if [ -n "${IMAGE_BASE_OVERLAY:-}" ]; then # files to lay over it, like a package index's settings
    cp -a "$IMAGE_BASE_OVERLAY/." "$root/"
  fi
  tar -C "$root" -c . | "$tool" import - docker.io/library/python:3.11-slim > /dev/null 2>&1
}

if [ "$base" = debootstrap ]; then
  say "base from debootstrap"
  debian_base
fi

say "Bento"
if [ "$host" = ray ]; then
  bento=stable_diffusion_fp32_ray
  .venv/bin/python -m deploy.ray.bento fp32 > "$work/log" 2>&1
else
  bento=stable_diffusion_fp32
  .venv/bin/bentoml build -f bentofile.yaml . > "$work/log" 2>&1
fi
say "image, with bentoctl build"
.venv-deploy/bin/bentoctl operator install ./deploy/operators/aws-ec2 > /dev/null
.venv-deploy/bin/bentoctl build -b "$bento:latest" --dry-run \
  -f deploy/ec2/g5-fp32.yaml > "$work/log" 2>&1 || { tail -20 "$work/log" >&2; exit 1; }
image=$("$tool" images --format '{{.Repository}}:{{.Tag}}' | grep "aws-ec2-$bento:" | head -1)
say "size: $("$tool" image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}')"

say "start"
command=(serve --host 127.0.0.1 --port "$port")
if [ "$host" = ray ]; then
  # as a pod runs it: no entry point of BentoML's, the Bento's sources importable
  command=(python -m hosts.ray --port "$port")
fi
"$tool" run --detach --name "$name" --network host --cap-drop ALL --security-opt no-new-privileges \
  --workdir /home/bentoml/bento/src "$image" "${command[@]}" > /dev/null
url=http://127.0.0.1:$port
until curl -sf "$url/readyz" > /dev/null; do
  [ -n "$("$tool" ps --quiet --filter "name=$name")" ] || { "$tool" logs "$name" >&2; exit 1; }
  sleep 1
done
say "ready; user $("$tool" exec "$name" id -un)"

curl -sSf -X POST "$url/txt2img" -H 'Content-Type: application/json' \
  -d '{"prompt":"View of a cyberpunk city"}' --output "$work/txt2img.jpg"
curl -sSf -X POST "$url/img2img" -H 'Content-Type: multipart/form-data' -F img="@input.jpg" \
  -F data='{"prompt":"View of a cyberpunk city"}' --output "$work/img2img.jpg"
for file in txt2img img2img; do
  .venv/bin/python -c 'import sys; from PIL import Image; i = Image.open(sys.argv[1]); i.load()
print(sys.argv[2], i.format, "%dx%d" % i.size)' "$work/$file.jpg" "$file"
done
"$tool" stop --time 75 "$name" > /dev/null
say "stopped with status $("$tool" inspect --format '{{.State.ExitCode}}' "$name")"
[ "$keep" = yes ] || { "$tool" rm --force "$name"; "$tool" rmi "$image"; } > /dev/null
say "passed"
