"""Pods of `deploy/kubernetes` as containers, with the image, variables, command and stop of the manifests."""

import base64
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests import kubernetes
from tests.kubernetes import FOLDER, Manifest, build, find, kustomize, pod_of
from tests.stack.conftest import SLUG, Stack, wait_until
from tests.variants import EVERYTHING

VARIANTS = [EVERYTHING]
PAUSE = 0.2  # seconds between requests


class Pod:
    """A container that runs as the pod of a Deployment would."""

    numbers = itertools.count()

    def __init__(self, stack: Stack, deployment: Manifest, objects: list[Manifest]) -> None:
        """Start the container."""
        self.stack, self.spec = stack, pod_of(deployment)
        (self.container,) = self.spec["containers"]
        self.name = f"{SLUG}-pod-{self.container['name']}-{next(self.numbers)}"
        options = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        options += ["--user", str(self.spec["securityContext"]["runAsUser"]), "--network", f"{SLUG}_default"]
        for name, value in environment(deployment, objects)[self.container["name"]].items():
            options += ["--env", f"{name}={value}"]
        self.docker("run", "--detach", "--name", self.name, *options, self.container["image"], *self.container["args"])
        self.address = self.docker(
            "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name
        )

    def docker(self, *arguments: str) -> str:
        """Run docker; return its output."""
        return self.stack.project.run("docker", *arguments).stdout.strip()

    def is_started(self) -> bool:
        """Perform the startup probe."""
        probe = self.container["startupProbe"]
        if "exec" in probe:
            return self.succeeds(*probe["exec"]["command"])
        return self.succeeds("python", "-S", "healthcheck.py", "http", "8060", probe["httpGet"]["path"])

    def succeeds(self, *command: str) -> bool:
        """Return whether a command in the container exits with 0."""
        try:
            self.docker("exec", self.name, *command)
        except AssertionError:
            return False
        return True

    def stop(self) -> int:
        """Stop the container as the kubelet does: preStop, SIGTERM, and SIGKILL after the rest of the grace period."""
        pause = self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        time.sleep(pause)  # the pause itself is part of the stop
        grace = self.spec["terminationGracePeriodSeconds"] - pause
        self.docker("stop", "--signal", "SIGTERM", "--timeout", str(grace), self.name)
        code = int(self.docker("inspect", "--format", "{{.State.ExitCode}}", self.name))
        self.remove()
        return code

    def remove(self) -> None:
        """Remove the container, killed if it runs."""
        self.docker("rm", "--force", self.name)


def environment(deployment: Manifest, objects: list[Manifest]) -> dict[str, dict[str, str]]:
    """Return the variables of each container, with the values of Secrets decoded."""
    secret = {
        value: base64.b64decode(value).decode()
        for each in kubernetes.of_kind(objects, "Secret")
        for value in each["data"].values()
    }
    found = kubernetes.variables(deployment, objects)
    return {
        container: {name: secret.get(str(value), str(value)) for name, value in variables.items()}
        for container, variables in found.items()
    }


class Service:
    """A proxy in front of the started pods: a request goes to the next one that accepts a connection."""

    def __init__(self) -> None:
        self.pods: list[Pod] = []
        self.turn = itertools.count()
        self.client = httpx2.Client(timeout=30)

    def post(self, path: str, **params: str) -> httpx2.Response:
        """Send a request; only a refused connection is tried again, at another pod."""
        deadline = time.monotonic() + 20
        while True:
            pods = list(self.pods)
            try:
                pod = pods[next(self.turn) % len(pods)]
                headers = {"Host": "localhost"}
                return self.client.post(f"http://{pod.address}:8060{path}", params=params, headers=headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, ZeroDivisionError):
                if time.monotonic() > deadline:
                    raise


class Cluster:
    """Pods of the API and the worker, and a load."""

    def __init__(self, stack: Stack, objects: list[Manifest]) -> None:
        self.stack, self.objects, self.service = stack, objects, Service()
        self.workers: list[Pod] = []
        self.begin()

    def begin(self) -> None:
        """Forget the previous load."""
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self.is_over = threading.Event()

    def complete(self) -> None:
        """Start pods, side by side, until there are three each of the API and the worker."""
        missing = ["backend"] * (3 - len(self.service.pods)) + ["worker-celery"] * (3 - len(self.workers))
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.start, missing))

    def start(self, name: str) -> Pod:
        """Start a pod of a Deployment, and wait until it is ready."""
        pod = Pod(self.stack, find(self.objects, "Deployment", name), self.objects)
        wait_until(pod.is_started, 120, f"{pod.name} to start")
        (self.service.pods if name == "backend" else self.workers).append(pod)
        return pod

    def replace(self, pods: list[Pod], name: str) -> None:
        """Replace every pod of a list: first a new one starts, then an old one stops, beside the start of the next."""
        with ThreadPoolExecutor() as pool:
            stops = []
            for old in list(pods):
                self.start(name)
                pods.remove(old)
                stops.append(pool.submit(old.stop))
            assert {stop.result() for stop in stops} <= {0, 143}

    def load(self) -> None:
        """Send requests until the end."""
        while not self.is_over.wait(PAUSE):
            try:
                response = self.service.post("/tasks/slow", duration="0.5")
            except httpx2.HTTPError as error:
                self.failed.append(repr(error))
                continue
            if response.status_code == 202:
                self.accepted.append(response.json()["task_id"])
            else:
                self.failed.append(response.text)

    def assert_all_done(self) -> None:
        """Wait until every accepted run has succeeded."""
        with httpx2.Client(
            base_url=f"http://{self.service.pods[0].address}:8060", headers={"Host": "localhost"}, timeout=30
        ) as api:

            def unfinished() -> list[str]:
                return [each for each in self.accepted if api.get(f"/tasks/{each}").json()["state"] != "SUCCESS"]

            wait_until(lambda: not unfinished(), 300, "every accepted run to succeed")


@pytest.fixture(scope="module")
def pods(deployed: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Stop the services of compose, which the pods replace."""
    if not deployed.variant["kubernetes"]:
        pytest.skip("--only or --all-stacks selected a variant without manifests")
    deployed.project.run("bash", f"{FOLDER}/prepare.sh", "local")
    objects = build(deployed.project, "local", kustomize(tmp_path_factory.mktemp("kustomize")))
    deployed.compose("stop", "backend", "worker", "flower")
    made = Cluster(deployed, objects)
    try:
        yield made
    finally:
        listed = deployed.project.run(
            "docker", "ps", "--all", "--quiet", "--filter", f"name={SLUG}-pod-"
        ).stdout.split()
        if listed:
            deployed.project.run("docker", "rm", "--force", *listed)
        made.service.client.close()
        deployed.up()


@pytest.fixture
def cluster(pods: Cluster) -> Iterator[Cluster]:
    """Return three pods each of the API and the worker, under load."""
    pods.begin()
    pods.complete()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(pods.load)
        try:
            yield pods
        finally:
            pods.is_over.set()
        running.result()


def test_rolling_replacement_fails_no_request_and_loses_no_run(cluster: Cluster) -> None:
    cluster.replace(cluster.service.pods, "backend")
    cluster.replace(cluster.workers, "worker-celery")
    cluster.is_over.set()
    cluster.assert_all_done()
    assert cluster.failed == []
    assert len(cluster.accepted) > 50


def test_runs_wait_while_there_are_no_workers(cluster: Cluster) -> None:
    wait_until(lambda: len(cluster.accepted) > 10, 60, "requests")
    with ThreadPoolExecutor() as pool:  # a Deployment stops all its pods at once
        assert list(pool.map(Pod.stop, cluster.workers)) == [0] * len(cluster.workers)
    cluster.workers.clear()
    before = len(cluster.accepted)
    wait_until(lambda: len(cluster.accepted) > before + 20, 60, "requests without a worker")
    cluster.complete()
    cluster.is_over.set()
    cluster.assert_all_done()
    assert cluster.failed == []


def test_lost_node_loses_no_run(cluster: Cluster) -> None:
    """A request that the lost API pod was executing has no answer; all others succeed, and every accepted run."""
    wait_until(lambda: len(cluster.accepted) > 10, 60, "requests")
    lost = [cluster.service.pods.pop(), cluster.workers.pop()]
    cluster.stack.project.run("docker", "kill", *(pod.name for pod in lost))
    cluster.start("backend")
    cluster.start("worker-celery")
    cluster.is_over.set()
    cluster.assert_all_done()
    assert len(cluster.failed) <= 1, json.dumps(cluster.failed)


def test_running_tasks_are_terminated(cluster: Cluster) -> None:
    """By the API, and by Celery's own command with the signal that Flower sends."""
    cluster.is_over.set()
    cluster.assert_all_done()
    processes = wait_until(lambda: pool_processes(cluster), 30, "every worker to answer")
    sent = [cluster.service.post("/tasks/slow", duration="300").json()["task_id"] for _ in processes]
    address = f"http://{cluster.service.pods[0].address}:8060/tasks"

    def running() -> int:
        active = cluster.service.client.get(f"{address}/", headers={"Host": "localhost"}).json()["tasks"]
        return sum(run["state"] == "STARTED" for run in active)

    wait_until(lambda: running() == len(processes), 60, "every process to execute a task")
    by_api, by_command = sent[: len(sent) // 2], sent[len(sent) // 2 :]
    for task_id in by_api:
        assert cluster.service.client.delete(f"{address}/{task_id}", headers={"Host": "localhost"}).is_success
    call_celery(cluster, f"celery_app.control.revoke({by_command}, terminate=True, signal='SIGTERM')")
    wait_until(lambda: running() == 0, 60, "every run to be revoked")
    wait_until(lambda: (now := pool_processes(cluster)) and not processes & now, 60, "every process to be replaced")
    cluster.accepted[:] = [cluster.service.post("/tasks/slow", duration="1").json()["task_id"] for _ in processes]
    cluster.assert_all_done()


def call_celery(cluster: Cluster, code: str) -> str:
    """Execute Python with the Celery application in a worker's pod; return its output."""
    pod = cluster.workers[0]
    return pod.docker("exec", pod.name, "python", "-c", f"from app.celery_app import celery_app; {code}")


def pool_processes(cluster: Cluster) -> set[tuple[str, int]]:
    """Return the processes that execute tasks, by worker and process id, or nothing unless all workers answer."""
    code = "import json; print(json.dumps(celery_app.control.inspect(timeout=5).stats() or {}))"
    stats = json.loads(call_celery(cluster, code))
    if len(stats) < len(cluster.workers):
        return set()
    return {(worker, process) for worker, each in stats.items() for process in each["pool"]["processes"]}


def test_migration_job_succeeds(cluster: Cluster) -> None:
    job = Pod(cluster.stack, find(cluster.objects, "Job", "migrate"), cluster.objects)
    assert job.docker("wait", job.name) == "0", job.docker("logs", job.name)


def test_variables_of_services_would_make_the_settings_invalid(cluster: Cluster) -> None:
    """Kubernetes sets none in these pods."""
    pod = cluster.workers[0]
    read = "from app.core.settings import settings; settings()"
    assert pod.succeeds("python", "-c", read)
    assert not pod.succeeds("env", "RABBITMQ_PORT=tcp://10.96.0.10:5672", "python", "-c", read)
