"""Checks the manifests on standard input against Kubernetes' schemas; of operators' resources the fields that we use."""

import sys

import kubernetes_validate
import yaml

KUBERNETES = "1.30"
# As the operators document them.
CUSTOM = {
    ("postgresql.cnpg.io/v1", "Cluster"): {
        "affinity", "bootstrap", "imageName", "instances", "plugins", "postgresql", "resources", "storage", "walStorage",
    },
    ("postgresql.cnpg.io/v1", "ScheduledBackup"): {"backupOwnerReference", "cluster", "method", "pluginConfiguration", "schedule"},
    ("barmancloud.cnpg.io/v1", "ObjectStore"): {"configuration", "retentionPolicy"},
    ("monitoring.coreos.com/v1", "PodMonitor"): {"jobLabel", "podMetricsEndpoints", "podTargetLabels", "selector"},
}

checked, wrong = 0, []
for manifest in yaml.safe_load_all(sys.stdin):
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    known = CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
    if known is not None:
        wrong += [f"{name}: unknown field {field}" for field in manifest["spec"].keys() - known]
    else:
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except Exception as error:
            wrong.append(f"{name}: {error}")
    checked += 1
print("\n".join(wrong) or f"{checked} manifests are valid.")
sys.exit(1 if wrong or not checked else 0)
