#!/bin/bash
# Boot of an instance: settings, model, and the container as a systemd unit. Written by Terraform.
# Every step can be repeated; the unit starts again by itself, and at every later boot.
set -euo pipefail

command -v docker > /dev/null || { apt-get update -qq && apt-get install -y -qq docker.io; }
command -v aws > /dev/null || snap install aws-cli --classic

install -d -m 0700 /etc/stable-diffusion
install -d -m 0755 /opt/stable-diffusion/models
base64 -d > /etc/stable-diffusion/env <<'SETTINGS'
U0RfREVWSUNFPWN1ZGEKU0RfRFJBSU5fUz03MApTRF9MT0dfRk9STUFUPWpzb24KU0RfUFJFQ0lTSU9OPWZwMTYK
SETTINGS

cat > /usr/local/sbin/stable-diffusion-prepare <<'PREPARE'
#!/bin/bash
# Before every start: what may have changed since the last one.
set -euo pipefail
export AWS_DEFAULT_REGION=us-east-1
log=/run/stable-diffusion-prepare.log
stream=boot/$(hostname)
exec 3>&1 > >(tee "$log") 2>&1
tee=$!

# tell TEXT: into the deployment's log group, of which `bentoctl apply` shows the end while it waits.
tell() {
  echo "$1"
  timeout 20 aws logs create-log-stream --log-group-name '/stable-diffusion/stable-diffusion' \
    --log-stream-name "$stream" > /dev/null 2>&1 || true # it may be there
  timeout 20 aws logs put-log-events --log-group-name '/stable-diffusion/stable-diffusion' --log-stream-name "$stream" \
    --log-events "timestamp=$(date +%s%3N),message='${1//[^[:alnum:] .:\/_-]/ }'" > /dev/null 2>&1 || true
}

ended() {
  local status=$?
  exec >&3 2>&1
  wait "$tee"
  [ "$status" = 0 ] || tell "failed with status $status: $(tail -n 3 "$log")"
}
trap ended EXIT

install -m 0600 /etc/stable-diffusion/env /etc/stable-diffusion/env.run
aws ecr get-login-password | docker login --username AWS --password-stdin '123456789012.dkr.ecr.us-east-1.amazonaws.com'
if ! docker image inspect '123456789012.dkr.ecr.us-east-1.amazonaws.com/stable-diffusion:check' > /dev/null 2>&1; then
  tell "pulling the image"
  docker pull --quiet '123456789012.dkr.ecr.us-east-1.amazonaws.com/stable-diffusion:check'
fi
docker rm --force stable-diffusion > /dev/null 2>&1 || true
tell "starting the service, which loads the model"
PREPARE
chmod 0755 /usr/local/sbin/stable-diffusion-prepare

cat > /etc/systemd/system/stable-diffusion.service <<'UNIT'
[Unit]
Description=Stable Diffusion service
Wants=network-online.target
After=network-online.target docker.service
Requires=docker.service
StartLimitIntervalSec=0

[Service]
Restart=always
RestartSec=10
TimeoutStartSec=infinity
TimeoutStopSec=90
ExecStartPre=/usr/local/sbin/stable-diffusion-prepare
ExecStart=/usr/bin/docker run --rm --name stable-diffusion --gpus all \
  --publish 3000:3000 \
  --env-file /etc/stable-diffusion/env.run \
  --volume /opt/stable-diffusion/models:/models:ro \
  --stop-timeout 75 \
  --shm-size 1g \
  --security-opt no-new-privileges \
  --cap-drop ALL \
  --log-driver awslogs \
  --log-opt awslogs-region=us-east-1 \
  --log-opt awslogs-group=/stable-diffusion/stable-diffusion \
  --log-opt mode=non-blocking \
  123456789012.dkr.ecr.us-east-1.amazonaws.com/stable-diffusion:check
ExecStop=/usr/bin/docker stop --time 75 stable-diffusion

[Install]
WantedBy=multi-user.target
UNIT

# beside NAME DESCRIPTION: a unit that runs the program stable-diffusion-NAME beside the service.
beside() {
  chmod 0755 "/usr/local/sbin/stable-diffusion-$1"
  cat > "/etc/systemd/system/stable-diffusion-$1.service" <<UNIT
[Unit]
Description=$2
Wants=network-online.target
After=network-online.target

[Service]
Restart=on-failure
ExecStart=/usr/local/sbin/stable-diffusion-$1

[Install]
WantedBy=multi-user.target
UNIT
  units+=("stable-diffusion-$1.service")
}
units=(stable-diffusion.service)

systemctl daemon-reload
systemctl enable --now --no-block "${units[@]}"
