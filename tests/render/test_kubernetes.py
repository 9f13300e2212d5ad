"""`deploy/kubernetes`, built by Kustomize and checked against schemas and docker-compose.yml, without a cluster."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import kubernetes
from tests.kubernetes import FOLDER, OVERLAYS, Manifest, build, faults, find, kustomize, of_kind, pod_of, schema_faults
from tests.project import Project, code_blocks
from tests.render.conftest import Distinct, needs_compose
from tests.render.test_rendered_documents import anchors
from tests.variants import CHOICES, OAUTH, TEMPLATE

SECRETS = {
    "API_KEYS": "web:0123456789abcdef",
    "FLOWER_AUTH": "'ann@example.com|bob@example.com'",
    "FLOWER_OAUTH2_KEY": "the-key",
    "FLOWER_OAUTH2_SECRET": "the-secret",
    "FLOWER_OAUTH2_OKTA_BASE_URL": "https://example.okta.com/oauth2",
}
"""Values that the owner of a project enters."""

pytestmark = needs_compose


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command that builds a kustomization."""
    return kustomize(tmp_path_factory.mktemp("kubectl"))


def prepare(project: Project) -> None:
    """Write the secrets of the overlays, as the guide describes."""
    for overlay in ("local", "production"):
        project.run("bash", f"{FOLDER}/prepare.sh", overlay)


@pytest.fixture(scope="session")
def deployable(distinct: Distinct, tmp_path_factory: pytest.TempPathFactory) -> list[Project]:
    """Select projects that differ in their manifests, in copies with secrets."""
    folder = tmp_path_factory.mktemp("kubernetes")

    def copied(project: Project) -> Project:
        mine = Project(folder / project.variant.id / project.path.name, project.variant)
        shutil.copytree(project.path, mine.path)
        env = mine.path / ".env"
        text = env.read_text(encoding="utf-8")
        for name, value in SECRETS.items():
            text = re.sub(f"^{name}=$", f"{name}={value}", text, flags=re.M)
        env.write_text(f"{text}CELERY_RESULT_BACKEND=rediss://:secret@redis.example.com\n", encoding="utf-8")
        prepare(mine)
        return mine

    selected = [each for each in distinct(lambda path: path.startswith(FOLDER)) if each.variant["kubernetes"]]
    with ThreadPoolExecutor() as pool:
        copies = list(pool.map(copied, selected))
    for name in ("result_backend", "flower_auth", "flower_persistence"):
        assert {project.variant[name] for project in copies} == set(CHOICES[name]), name
    return copies


@pytest.fixture(scope="session")
def built(deployable: list[Project], command: list[str]) -> list[tuple[Project, str, list[Manifest]]]:
    """Build every overlay of every project."""
    pairs = [(project, overlay) for project in deployable for overlay in OVERLAYS]
    with ThreadPoolExecutor() as pool:
        objects = pool.map(lambda pair: build(pair[0], pair[1], command), pairs)
        return [(*pair, each) for pair, each in zip(pairs, objects, strict=True)]


def test_manifests_have_no_faults(built: list[tuple[Project, str, list[Manifest]]]) -> None:
    found = {
        f"{project.variant.id}: {overlay}: {fault}"
        for project, overlay, objects in built
        for fault in faults(objects, project, overlay)
    }
    assert sorted(found) == []


@pytest.mark.parametrize("version", kubernetes.newest_versions())
def test_manifests_follow_the_schemas(built: list[tuple[Project, str, list[Manifest]]], version: str) -> None:
    seen: set[str] = set()
    checked: set[str] = set()
    found = []
    for project, overlay, objects in built:
        for each in objects:
            text = json.dumps({key: each[key] for key in each if key != "data"}, sort_keys=True)
            if text not in checked:
                checked.add(text)
                seen.add(each["kind"])
                found += [f"{project.variant.id}: {overlay}: {fault}" for fault in schema_faults([each], version)]
    assert found == []
    assert seen == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "Namespace", "NetworkPolicy",
        "PersistentVolumeClaim", "PodDisruptionBudget", "ScaledObject", "Secret", "Service", "ServiceAccount",
        "StatefulSet", "TriggerAuthentication",
    }  # fmt: skip


def test_overlays_have_the_objects_of_their_purpose(built: list[tuple[Project, str, list[Manifest]]]) -> None:
    for project, overlay, objects in built:
        stores = {each["metadata"]["name"] for each in of_kind(objects, "StatefulSet")}
        expected = {"db", "rabbitmq"} | ({"redis"} if project.variant["result_backend"] == "redis" else set())
        assert stores == (expected if overlay == "local" else set()), project.variant.id
        deployments = {each["metadata"]["name"] for each in of_kind(objects, "Deployment")}
        assert deployments == {"backend", "worker-celery", "flower"}
        assert bool(of_kind(objects, "Ingress")) == (overlay != "local")
        assert bool(of_kind(objects, "ScaledObject")) == (overlay == "production")
        assert bool(of_kind(objects, "HorizontalPodAutoscaler")) == (overlay == "production-hpa")
        assert {each["metadata"].get("namespace") for each in objects} == {project.path.name, None}
        hosts = {rule["host"] for each in of_kind(objects, "Ingress") for rule in each["spec"]["rules"]}
        is_open = project.variant["flower_auth"] == "none"
        assert not (is_open and "flower.example.com" in hosts), "Flower without a login is not published"


# ---- secrets -------------------------------------------------------------------------------------------------------


def test_secrets_are_git_ignored_and_readable_by_their_owner_only(deployable: list[Project], tmp_path: Path) -> None:
    (project, *_) = deployable
    shutil.copytree(project.path, tmp_path / "repository")
    git = ["git", "-C", str(tmp_path / "repository")]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    listed = subprocess.run([*git, "ls-files", FOLDER], check=True, capture_output=True, text=True).stdout
    assert "worker-celery.yaml" in listed
    assert "generated" not in listed
    files = list((project.path / FOLDER).glob("overlays/*/generated/*.env"))
    assert len(files) > 3
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


def test_secrets_have_the_values_of_the_environment_file(deployable: list[Project]) -> None:
    for project in deployable:
        folder = project.path / FOLDER / "overlays/local/generated"
        lines = [line for file in folder.glob("*.env") for line in file.read_text(encoding="utf-8").splitlines()]
        written = dict(line.split("=", 1) for line in lines)
        derived = {"CELERY_RESULT_BACKEND", "FLOWER_OAUTH2_REDIRECT_URI"}
        for name, value in written.items():
            if name not in derived:
                assert value == project.env[name].strip("'"), f"{project.variant.id}: {name}"
        user = json.loads((folder / "10-user.json").read_text(encoding="utf-8"))["users"][0]
        assert user["password"] == project.env["RABBITMQ_DEFAULT_PASS"]
        assert (folder / "20-topology.json").read_text() == project.files["rabbitmq/definitions.json"]
        if project.variant["result_backend"] == "database":
            own = project.compose["services"]["worker"]["environment"]["CELERY_RESULT_BACKEND"]
            assert written["CELERY_RESULT_BACKEND"].replace(":5432", "") == own
            production = (project.path / FOLDER / "overlays/production/generated/results.env").read_text()
            assert "@db.example.com:5432/" in production


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "API_KEYS", "CELERY_RESULT_BACKEND"])
def test_missing_secret_is_reported(deployable: list[Project], tmp_path: Path, name: str) -> None:
    project = next(each for each in deployable if each.variant["result_backend"] == "redis")
    empty = tmp_path / "empty.env"
    empty.write_text(re.sub(f"^{name}=.*$", f"{name}=", (project.path / ".env").read_text(), flags=re.M))
    done = subprocess.run(
        ["bash", f"{FOLDER}/prepare.sh", "production", str(empty)], cwd=project.path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"{name} is not set" in done.stderr


# ---- the guide -----------------------------------------------------------------------------------------------------


def test_links_of_the_guide_lead_to_files_and_headings(deployable: list[Project]) -> None:
    for project in deployable:
        text = project.files[f"{FOLDER}/README.md"]
        targets = re.findall(r"\]\((?!https://)([^)#]+)(?:#([^)]+))?\)", text)
        assert targets
        for path, anchor in targets:
            found = (project.path / FOLDER / path).resolve().read_text(encoding="utf-8")
            assert not anchor or anchor in anchors(found), f"{project.variant.id}: {path}#{anchor}"
        assert f"({FOLDER}/README.md)" in project.files["README.md"]


def test_commands_of_the_guide_name_existing_objects(built: list[tuple[Project, str, list[Manifest]]]) -> None:
    """No cluster can run them; bash parses them."""
    names = set()
    for project, overlay, objects in built:
        known = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in objects}
        for block in code_blocks(project.files[f"{FOLDER}/README.md"], "bash"):
            subprocess.run(["bash", "-n"], input=block, text=True, check=True)
            assert set(re.findall(r"kubectl -n (\S+)", block)) <= {project.path.name}
            assert all((project.path / path).exists() for path in re.findall(r"deploy/kubernetes/\S+", block))
            used = {
                "/".join(pair) for pair in re.findall(r"(?<![\w-])(service|deployment|job)[/ ]([a-z][\w-]*)", block)
            }
            assert used <= known, f"{project.variant.id}: {overlay}: {used - known}"
            names |= used
    assert names == {
        "service/backend", "deployment/backend", "deployment/worker-celery", "job/migrate"
    }  # fmt: skip


def test_capacity_of_the_guide_follows_from_the_measurements(projects: list[Project]) -> None:
    guide = next(text for each in projects if (text := each.files.get(f"{FOLDER}/README.md")))
    report = (TEMPLATE / "docs" / "performance.md").read_text(encoding="utf-8")
    for name in ("accept/plain-def", "worker", "finish"):
        (measured,) = re.findall(rf"^\| {name} \|[^|]+\| ([\d,]+) /s", report, re.M)
        assert f"{measured} per second" in guide, name
    requests = int(re.findall(r"^API_CONNECTIONS = (\d+)$", database_module(), re.M)[0])
    each = requests + 1 + 2  # the relay, and metrics
    assert f"{each} * (API pods + 1) + 15 * worker pods" in guide
    assert each * 3 + 15 * 10 + 10 == int(re.findall(r"which is (\d+) for 2 API pods", guide)[0])


def database_module() -> str:
    """Return the source of the module that opens connections."""
    return (TEMPLATE / "{{cookiecutter.project_slug}}/backend/app/core/database.py").read_text(encoding="utf-8")


def test_worker_of_another_queue_is_a_copy(deployable: list[Project], command: list[str], tmp_path: Path) -> None:
    """Run the commands of the guide, and check the overlays again."""
    (first, *_) = deployable
    project = Project(tmp_path / first.path.name, first.variant)
    shutil.copytree(first.path, project.path)
    text = project.files[f"{FOLDER}/README.md"]
    (block,) = [each for each in code_blocks(text, "bash") if "worker-mail" in each]
    project.run("bash", "-euc", block)
    for overlay, file, line in [
        ("../base", "kustomization.yaml", "  - worker-mail.yaml"),
        ("production", "kustomization.yaml", "  - keda-mail.yaml"),
        ("production-hpa", "kustomization.yaml", "  - hpa-mail.yaml"),
    ]:
        path = project.path / FOLDER / "overlays" / overlay / file
        path.write_text(path.read_text().replace("resources:\n", f"resources:\n{line}\n", 1))
    fresh = Project(project.path, project.variant)
    for overlay in OVERLAYS:
        objects = build(fresh, overlay, command)
        queues = {
            each["metadata"]["name"]: pod_of(each)["containers"][0]["env"][0]["value"]
            for each in of_kind(objects, "Deployment")
            if each["metadata"]["name"].startswith("worker")
        }
        assert queues == {"worker-celery": "celery", "worker-mail": "mail"}
        assert faults(objects, fresh, overlay) == []
        assert {each["metadata"]["name"] for each in of_kind(objects, "PodDisruptionBudget")} >= set(queues)
    autoscaled = {each["metadata"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")}
    assert autoscaled == set(queues)
    triggers = {
        each["metadata"]["name"]: each["spec"]["triggers"][0]["metadata"]["queueName"]
        for each in of_kind(build(fresh, "production", command), "ScaledObject")
    }
    assert triggers == queues


# ---- service variables ---------------------------------------------------------------------------------------------

SERVICE_VARIABLES = {
    "RABBITMQ_PORT": "tcp://10.96.0.10:5672",
    "RABBITMQ_SERVICE_HOST": "10.96.0.10",
    "DB_PORT": "tcp://10.96.0.11:5432",
    "FLOWER_PORT": "tcp://10.96.0.12:5555",
    "BACKEND_PORT": "tcp://10.96.0.13:8060",
}
"""Variables that Kubernetes sets for the Services of the namespace, unless `enableServiceLinks` is false."""


def test_settings_are_valid_in_every_container(built: list[tuple[Project, str, list[Manifest]]]) -> None:
    """Parse the variables of each container as Kubernetes passes them; ports are numbers to the settings."""
    seen = set()
    for project, overlay, objects in built:
        for name, port, value in ports_of(objects):
            assert value.isdigit(), f"{project.variant.id}: {overlay}: {name}: {port}"
            seen.add(port)
    assert seen == {"RABBITMQ_PORT", "RABBITMQ_MANAGEMENT_PORT", "POSTGRES_PORT"}


def test_service_variables_would_be_read_as_ports(example: dict[str, tuple[Project, list[Manifest]]]) -> None:
    changed = copy.deepcopy(example["local"][1])
    worker(changed).pop("enableServiceLinks")
    assert ("worker", "RABBITMQ_PORT", SERVICE_VARIABLES["RABBITMQ_PORT"]) in ports_of(changed)


def ports_of(objects: list[Manifest]) -> list[tuple[str, str, str]]:
    """Return the ports that each container reads from its variables, those of Kubernetes included."""
    found = []
    for workload in kubernetes.workloads(objects):
        links = SERVICE_VARIABLES if pod_of(workload).get("enableServiceLinks", True) else {}
        for name, variables in kubernetes.variables(workload, objects).items():
            environment = {**links, **variables}
            if workload["kind"] != "StatefulSet":
                ports = ("RABBITMQ_PORT", "RABBITMQ_MANAGEMENT_PORT", "POSTGRES_PORT", "FLOWER_PORT")
                found += [(name, port, str(environment[port])) for port in ports if port in environment]
    return found


# ---- the checks ----------------------------------------------------------------------------------------------------

Mutation = Callable[[list[Manifest]], Any]


def worker(objects: list[Manifest]) -> Manifest:
    """Return the pods of the worker."""
    return pod_of(find(objects, "Deployment", "worker-celery"))


def backend(objects: list[Manifest]) -> Manifest:
    """Return the container of the API."""
    container: Manifest = pod_of(find(objects, "Deployment", "backend"))["containers"][0]
    return container


def trigger(objects: list[Manifest]) -> Manifest:
    """Return the trigger of KEDA's object."""
    found: Manifest = find(objects, "ScaledObject", "worker-celery")["spec"]["triggers"][0]
    return found


def without_policy(name: str) -> Mutation:
    """Return a mutation that removes a NetworkPolicy."""

    def remove(objects: list[Manifest]) -> None:
        objects.remove(find(objects, "NetworkPolicy", name))

    return remove


def without(kind: str, key: str) -> Mutation:
    """Return a mutation that removes the ConfigMap or Secret with a key."""

    def remove(objects: list[Manifest]) -> None:
        for each in of_kind(objects, kind):
            if key in each["data"]:
                objects.remove(each)

    return remove


MUTATIONS: dict[str, tuple[str, Mutation, str]] = {
    "label of a pod": (
        "local",
        lambda objects: find(objects, "Deployment", "backend")["spec"]["template"]["metadata"]["labels"].update(
            {kubernetes.NAME: "api"}
        ),
        "its selector does not match",
    ),
    "spread": (
        "local",
        lambda objects: worker(objects)["topologySpreadConstraints"][0].update(labelSelector={}),
        "spread by another selector",
    ),
    "port of a Service": (
        "local",
        lambda objects: find(objects, "Service", "flower")["spec"]["ports"][0].update(targetPort="web"),
        "no pod with these labels and ports",
    ),
    "selector of a budget": (
        "local",
        lambda objects: find(objects, "PodDisruptionBudget", "backend")["spec"]["selector"].update(
            matchLabels={kubernetes.NAME: "api"}
        ),
        "does not match one workload",
    ),
    "budget": (
        "local",
        lambda objects: find(objects, "PodDisruptionBudget", "backend")["spec"].update(maxUnavailable=0),
        "blocks the drain",
    ),
    "Ingress": (
        "production",
        lambda objects: find(objects, "Ingress", "public")["spec"]["rules"][0]["http"]["paths"][0]["backend"][
            "service"
        ].update(name="api"),
        "is no Service with this port",
    ),
    "TLS": (
        "production",
        lambda objects: find(objects, "Ingress", "public")["spec"]["tls"][0].update(hosts=[]),
        "has no TLS",
    ),
    "Secret of KEDA": (
        "production",
        lambda objects: find(objects, "TriggerAuthentication", "broker")["spec"]["secretTargetRef"][0].update(
            name="broker"
        ),
        "no Secret broker",
    ),
    "authentication of KEDA": (
        "production",
        lambda objects: trigger(objects)["authenticationRef"].update(name="none"),
        "no TriggerAuthentication",
    ),
    "target of KEDA": (
        "production",
        lambda objects: find(objects, "ScaledObject", "worker-celery")["spec"]["scaleTargetRef"].update(name="worker"),
        "no Deployment worker",
    ),
    "queue of KEDA": (
        "production",
        lambda objects: trigger(objects)["metadata"].update(queueName="mail"),
        "its queue is not that of its workers",
    ),
    "host of KEDA": (
        "production",
        lambda objects: trigger(objects)["metadata"].update(host="http://rabbitmq:15672"),
        "without a slash",
    ),
    "replicas": (
        "production-hpa",
        lambda objects: find(objects, "Deployment", "worker-celery")["spec"].update(replicas=2),
        "undo the autoscaler",
    ),
    "volume": ("local", lambda objects: worker(objects)["volumes"].clear(), "no volume tmp"),
    "configuration file": (
        "local",
        without("ConfigMap", "10-role.sql"),
        "no ConfigMap db-init",
    ),
    "Secret": (
        "local",
        without("Secret", "POSTGRES_USER"),
        "POSTGRES_USER is missing",
    ),
    "key of a Secret": (
        "local",
        lambda objects: [each["data"].pop("POSTGRES_ADMIN_PASSWORD", 0) for each in of_kind(objects, "Secret")],
        "POSTGRES_PASSWORD refers to nothing",
    ),
    "variable": (
        "local",
        lambda objects: worker(objects)["containers"][0]["env"].append({"name": "BACKEND_PROCESSES", "value": "2"}),
        "BACKEND_PROCESSES is not in docker-compose.yml",
    ),
    "image": (
        "production",
        lambda objects: backend(objects).update(image="registry.example.com/my-service-api:1"),
        "is not the image",
    ),
    "command": ("local", lambda objects: worker(objects)["containers"][0]["args"].pop(), "its command is not"),
    "service variables": (
        "local",
        lambda objects: worker(objects).pop("enableServiceLinks"),
        "gets the variables of Services",
    ),
    "token": ("local", lambda objects: worker(objects).pop("automountServiceAccountToken"), "gets a token"),
    "user": ("local", lambda objects: worker(objects)["securityContext"].pop("runAsUser"), "runs as root"),
    "seccomp": ("local", lambda objects: worker(objects)["securityContext"].pop("seccompProfile"), "no seccomp"),
    "host network": ("local", lambda objects: worker(objects).update(hostNetwork=True), "a namespace of the host"),
    "host path": (
        "local",
        lambda objects: worker(objects)["volumes"].append({"name": "a", "hostPath": {"path": "/"}}),
        "a volume that is not allowed",
    ),
    "capabilities": ("local", lambda objects: backend(objects)["securityContext"].pop("capabilities"), "privileges"),
    "writable root": (
        "local",
        lambda objects: backend(objects)["securityContext"].pop("readOnlyRootFilesystem"),
        "may write to its root",
    ),
    "requests": ("local", lambda objects: backend(objects)["resources"].pop("requests"), "has no requests"),
    "grace period": (
        "local",
        lambda objects: worker(objects).update(terminationGracePeriodSeconds=30),
        "too few for a soft shutdown",
    ),
    "signal": (
        "local",
        lambda objects: worker(objects)["containers"][0]["env"].pop(),
        "SIGTERM is not a graceful stop",
    ),
    "standard": (
        "local",
        lambda objects: find(objects, "Namespace", "my-service")["metadata"].update(labels={}),
        "does not enforce",
    ),
    "readiness": (
        "local",
        lambda objects: backend(objects)["readinessProbe"]["httpGet"].update(path="/health/ready"),
        "fails without a broker",
    ),
    "host of a probe": (
        "local",
        lambda objects: backend(objects)["livenessProbe"]["httpGet"].pop("httpHeaders"),
        "the pod's address as its host",
    ),
    "port of a probe": (
        "local",
        lambda objects: backend(objects)["livenessProbe"]["httpGet"].update(port="web"),
        "uses an unknown port",
    ),
    "timeout": ("local", lambda objects: backend(objects)["livenessProbe"].pop("timeoutSeconds"), "a short timeout"),
    "impatience": (
        "local",
        lambda objects: worker(objects)["containers"][0]["livenessProbe"]["exec"]["command"].append("60"),
        "an outage of the broker would restart it",
    ),
    "readiness of a worker": (
        "local",
        lambda objects: worker(objects)["containers"][0].update(readinessProbe={"timeoutSeconds": 5}),
        "serves no requests",
    ),
    "no liveness": ("local", lambda objects: backend(objects).pop("livenessProbe"), "has no liveness probe"),
    "no denial": ("local", without_policy("default-deny"), "nothing is denied"),
    "DNS": ("local", without_policy("dns"), "no name resolution"),
    "database": ("local", without_policy("database-egress"), "worker to db: needs {5432}"),
    "broker": ("local", without_policy("broker-ingress"), "flower to rabbitmq: needs"),
    "managed database": ("production", without_policy("database-egress"), "worker: needs"),
    "too much": (
        "production",
        lambda objects: find(objects, "NetworkPolicy", "database-egress")["spec"]["egress"][0]["ports"].append(
            {"protocol": "TCP", "port": 22}
        ),
        "worker: needs",
    ),
    "anything": (
        "production",
        lambda objects: find(objects, "NetworkPolicy", "database-egress")["spec"]["egress"].append(
            {"to": [], "ports": [{"port": 443}]}
        ),
        "may connect to anything",
    ),
    "login": ("production", without_policy("login-egress"), "flower: needs {443} of public servers"),
    "anyone": (
        "production",
        lambda objects: find(objects, "NetworkPolicy", "public-ingress")["spec"]["ingress"][0].pop("from"),
        "from anywhere",
    ),
    "ingress controller": ("production", without_policy("public-ingress"), "the ingress controller may not reach"),
}
"""A change of an overlay, and the fault that it has to cause."""


@pytest.fixture(scope="session")
def example(deployable: list[Project], command: list[str]) -> dict[str, tuple[Project, list[Manifest]]]:
    """Build the overlays of one project."""
    project = next(each for each in deployable if each.variant["flower_auth"] in OAUTH)
    return {overlay: (project, build(project, overlay, command)) for overlay in OVERLAYS}


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_is_reported(example: dict[str, tuple[Project, list[Manifest]]], name: str) -> None:
    overlay, mutate, message = MUTATIONS[name]
    project, objects = example[overlay]
    changed = copy.deepcopy(objects)
    mutate(changed)
    found = faults(changed, project, overlay)
    assert [fault for fault in found if message in fault], found


SCHEMA_MUTATIONS: dict[str, tuple[str, Mutation]] = {
    "a misspelt key": ("local", lambda objects: worker(objects).update(terminationGracePeriod=60)),
    "a wrong type": ("local", lambda objects: worker(objects).update(enableServiceLinks="no")),
    "a misspelt key of KEDA": (
        "production",
        lambda objects: find(objects, "ScaledObject", "worker-celery")["spec"].update(minReplicas=1),
    ),
    "a number in a trigger": ("production", lambda objects: trigger(objects)["metadata"].update(value=4)),
    "an unknown key of a trigger": ("production", lambda objects: trigger(objects)["metadata"].update(queueLength="4")),
    "waiting messages only": ("production", lambda objects: trigger(objects)["metadata"].update(protocol="amqp")),
}


@pytest.mark.parametrize("name", SCHEMA_MUTATIONS)
def test_violation_of_a_schema_is_reported(example: dict[str, tuple[Project, list[Manifest]]], name: str) -> None:
    overlay, mutate = SCHEMA_MUTATIONS[name]
    changed = copy.deepcopy(example[overlay][1])
    mutate(changed)
    assert schema_faults(changed, kubernetes.newest_versions()[-1])
