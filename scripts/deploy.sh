#!/bin/sh
# Brings a version to the cluster of kubectl's present context: deploy.sh IMAGE VERSION. First the migration, then one server as a canary
# beside the old ones, then all of them; whatever does not get ready is undone.
set -eu
cd "$(dirname "$0")/.."
image=${1:?an image} version=${2:?a version}
overlay=${OVERLAY:-deploy/kubernetes/overlays/production}
kubectl() { command kubectl -n whitemonday "$@"; }

undo() {
    echo "It does not get ready: undone." >&2
    kubectl rollout resume deployment/server >/dev/null 2>&1 || true
    kubectl rollout undo deployment/server
    kubectl rollout undo deployment/worker
    exit 1
}

sed -i.before "s|newName: .*|newName: $image|; s|newTag: .*|newTag: $version|" "$overlay/kustomization.yaml"
trap 'mv "$overlay/kustomization.yaml.before" "$overlay/kustomization.yaml"' EXIT

kubectl delete job migrate --ignore-not-found
command kubectl kustomize "$overlay" | kubectl apply -f - --selector app.kubernetes.io/component=migrate
kubectl wait --for=condition=complete --timeout=1h job/migrate

# The first new pod is the canary: paused there, the deployment shows for a while what the new version makes of real requests.
kubectl apply -k "$overlay"
kubectl rollout pause deployment/server
kubectl wait --for=jsonpath='{.status.updatedReplicas}'=1 --timeout=1m deployment/server || undo
kubectl wait --for=condition=ready --timeout=5m pod -l "app.kubernetes.io/component=server" || undo
sleep "${CANARY_SECONDS:-300}"
# Prometheus's address, where there is one to ask: a page that has begun meanwhile ends it.
if [ -n "${PROMETHEUS:-}" ] && curl -fsS "$PROMETHEUS/api/v1/alerts" | grep -q '"severity":"page"'; then undo; fi
kubectl rollout resume deployment/server
kubectl rollout status deployment/server --timeout=15m || undo
kubectl rollout status deployment/worker --timeout=15m || undo
