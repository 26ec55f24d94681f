#!/bin/sh
# Checks what runs and watches the program elsewhere: alert rules with their tests, dashboards, docker-compose.yml, the manifests for
# Kubernetes, the load scripts. Needs neither a container engine nor a cluster. `install-dependencies.sh test` installs its tools.
set -eu
cd "$(dirname "$0")/.."
tools=target/deploy-tools

if ! cmp -s deploy/requirements.txt "$tools/requirements.txt"; then
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check -r deploy/requirements.txt
    cp deploy/requirements.txt "$tools/"
fi

promtool check config deploy/prometheus/prometheus.yml
promtool test rules deploy/prometheus/rules_test.yml
node scripts/check-monitoring.mjs >"$tools/dashboards.json"
promtool check rules "$tools/dashboards.json"

if docker compose version >/dev/null 2>&1; then
    docker compose config --quiet
else
    docker-compose config --quiet
fi

for overlay in deploy/kubernetes/overlays/*/; do
    # The secrets are the user's: any will do here.
    copy=$(mktemp -d)
    cp -r deploy/kubernetes/. "$copy"
    echo SEALING_KEYS=1:any >"$copy/overlays/example/secrets.env"
    "$tools/bin/kubectl" kustomize "$copy/overlays/$(basename "$overlay")" >"$tools/manifests.yml"
    rm -rf "$copy"
    "$tools/bin/python" scripts/check-kubernetes.py <"$tools/manifests.yml"
done

for script in load/*.js; do
    node --check "$script"
done
echo "What deploys the program is in order."
