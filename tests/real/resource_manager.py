"""Microsoft's own client drives the Resource Manager stand-in, with its own pollers.

Usage: resource_manager.py ENDPOINT ROOT_CERTIFICATE; the token is read from standard input.
Prints what it did; the first thing that is not as it should be ends it.
"""

import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.mgmt.appcontainers import ContainerAppsAPIClient
from azure.mgmt.appcontainers.models import CustomScaleRule, HttpScaleRule, Scale, ScaleRule
from azure.mgmt.monitor import MonitorManagementClient

SUBSCRIPTION = "00000000-0000-0000-0000-000000000042"
GROUP = "rg-judge"
# Seconds between two looks where the service does not say, and at most for anything to come true.
LOOK_SECONDS = 1
PATIENCE_SECONDS = 60


class Credential:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **_):
        return AccessToken(self.token, int(time.time()) + 3600)


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, and it should be {expected!r}")
    print(f"  {what}: {found}")


def until(what, look):
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {PATIENCE_SECONDS} seconds")


def app_body(environment_id, image, suffix):
    return {
        "location": "westeurope",
        "properties": {
            "managedEnvironmentId": environment_id,
            "configuration": {
                "activeRevisionsMode": "Multiple",
                "secrets": [{"name": "key", "value": "hush"}],
                "ingress": {"external": True, "targetPort": 8080},
            },
            "template": template(image, suffix),
        },
    }


def template(image, suffix):
    return {
        "revisionSuffix": suffix,
        "containers": [{"name": "api", "image": image}],
        "scale": {"minReplicas": 1, "maxReplicas": 3},
    }


def traffic(**weights):
    entries = [{"revisionName": f"api--{suffix}", "weight": weight} for suffix, weight in weights.items()]
    return {"properties": {"configuration": {"ingress": {"traffic": entries}}}}


def make_group(client, endpoint):
    url = f"{endpoint}/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}?api-version=2024-03-01"
    answer = client.send_request(HttpRequest("PUT", url, json={"location": "westeurope"}))
    same("resource group", answer.status_code, 201)


def make_environment(client):
    poller = client.managed_environments.begin_create_or_update(GROUP, "env", {"location": "westeurope", "properties": {}})
    same("environment, before it is polled", poller.status(), "InProgress")
    environment = poller.result()
    same("environment", environment.properties.provisioning_state, "Succeeded")
    if not environment.properties.default_domain:
        raise SystemExit("the environment has no default domain")
    return environment


def running(client, revision):
    def look():
        found = client.container_apps_revisions.get_revision(GROUP, "api", revision)
        return found if found.properties.running_state == "Running" else None

    return until(f"{revision} to run", look)


def create(client, environment):
    poller = client.container_apps.begin_create_or_update(
        GROUP, "api", app_body(environment.id, "acr.azurecr.io/reservations-api:1.4.1", "one")
    )
    app = poller.result()
    same("app", app.properties.provisioning_state, "Succeeded")
    same("latest revision", app.properties.latest_revision_name, "api--one")
    host = app.properties.configuration.ingress.fqdn
    same("host", host.split(":")[0], f"api.{environment.properties.default_domain}")
    same("secret as shown", app.properties.configuration.secrets[0].value, None)
    secrets = client.container_apps.list_secrets(GROUP, "api").value
    same("secret as listed", [(secret.name, secret.value) for secret in secrets], [("key", "hush")])
    revision = running(client, "api--one")
    same("health", revision.properties.health_state, "Healthy")
    same("revision", revision.properties.provisioning_state, "Provisioned")


def update(client):
    client.container_apps.begin_update(GROUP, "api", traffic(one=100)).result()
    body = {"properties": {"template": template("acr.azurecr.io/reservations-api:1.4.2", "two")}}
    app = client.container_apps.begin_update(GROUP, "api", body, polling_interval=LOOK_SECONDS).result()
    same("update", app.properties.provisioning_state, "Succeeded")
    same("latest revision", app.properties.latest_revision_name, "api--two")
    running(client, "api--two")
    names = [revision.name for revision in client.container_apps_revisions.list_revisions(GROUP, "api")]
    same("revisions", names, ["api--one", "api--two"])


def look_at_replicas(client):
    replicas = client.container_apps_revision_replicas.list_replicas(GROUP, "api", "api--two").value
    same("replicas", len(replicas), 1)
    replica = client.container_apps_revision_replicas.get_replica(GROUP, "api", "api--two", replicas[0].name)
    container = replica.properties.containers[0]
    same("container", (container.name, container.ready, container.started, container.restart_count), ("api", True, True, 0))
    same("container state", container.running_state, "Running")
    same("replica state", replica.properties.running_state, "Running")


def scale(client):
    rules = [
        ScaleRule(name="requests", http=HttpScaleRule(metadata={"concurrentRequests": "20"})),
        ScaleRule(name="cpu", custom=CustomScaleRule(type="cpu", metadata={"type": "Utilization", "value": "70"})),
    ]
    wanted = template("acr.azurecr.io/reservations-api:1.4.2", "two") | {"revisionSuffix": "three"}
    wanted["scale"] = Scale(min_replicas=2, max_replicas=4, rules=rules).as_dict()
    body = {"properties": {"template": wanted}}
    client.container_apps.begin_update(GROUP, "api", body, polling_interval=LOOK_SECONDS).result()
    revision = running(client, "api--three")
    found = revision.properties.template.scale
    same("scale", (found.min_replicas, found.max_replicas, revision.properties.replicas), (2, 4, 2))
    same("rules", [rule.name for rule in found.rules], ["requests", "cpu"])
    same("rule by requests", found.rules[0].http.metadata, {"concurrentRequests": "20"})
    same("rule by processor", (found.rules[1].custom.type, found.rules[1].custom.metadata["value"]), ("cpu", "70"))
    wanted["scale"] = {"rules": [{"name": "k", "custom": {"type": "kafka", "metadata": {}}}]}
    wanted["revisionSuffix"] = "four"
    try:
        client.container_apps.begin_update(GROUP, "api", body).result()
    except HttpResponseError as error:
        found = (error.status_code, error.error.code)
        same("a rule that is not known", found, (400, "InvalidParameterValueInContainerTemplate"))
    else:
        raise SystemExit("a rule that is not known was taken")
    client.container_apps_revisions.deactivate_revision(GROUP, "api", "api--three")


def measure(monitor):
    app = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.App/containerApps/api"

    def look():
        answer = monitor.metrics.list(
            app,
            metricnames="Replicas,UsageNanoCores,WorkingSetBytes",
            aggregation="Maximum,Average",
            interval="PT1M",
            timespan="PT5M",
            filter="revisionName eq 'api--two'",
        )
        points = [point for metric in answer.value for series in metric.timeseries for point in series.data]
        return answer if any(point.maximum for point in points) else None

    answer = until("metrics", look)
    same("metrics", [metric.name.value for metric in answer.value], ["Replicas", "UsageNanoCores", "WorkingSetBytes"])
    same("unit", (answer.value[1].unit, answer.namespace), ("NanoCores", "microsoft.app/containerapps"))
    series = answer.value[0].timeseries[0]
    same("dimension", [(at.name.value, at.value) for at in series.metadatavalues], [("revisionname", "api--two")])
    batch = monitor.metrics.list_at_subscription_scope(
        region="westeurope",
        metricnamespace="Microsoft.App/containerApps",
        metricnames="Requests,Replicas",
        aggregation="Maximum",
        timespan="PT5M",
        filter="Microsoft.ResourceId eq '*'",
    )
    series = batch.value[1].timeseries
    same("apps of a region", [at.value for one in series for at in one.metadatavalues], [app])
    if not any(point.maximum for point in series[0].data):
        raise SystemExit("a batch knows of no replica")
    try:
        monitor.metrics.list(app, metricnames="Nope")
    except HttpResponseError as error:
        same("a metric that is not there", error.status_code, 400)
    else:
        raise SystemExit("a metric that is not there was answered")


def shift(client):
    for one, two in [(90, 10), (50, 50), (0, 100)]:
        client.container_apps.begin_update(GROUP, "api", traffic(one=one, two=two)).result()
        weights = {
            revision.name: revision.properties.traffic_weight
            for revision in client.container_apps_revisions.list_revisions(GROUP, "api")
        }
        same("weights", weights, {"api--one": one, "api--two": two, "api--three": 0})
    try:
        client.container_apps.begin_update(GROUP, "api", traffic(one=50, two=49)).result()
    except HttpResponseError as error:
        same("weights of 99", (error.status_code, error.error.code), (400, "ContainerAppInvalidTrafficConfiguration"))
    else:
        raise SystemExit("weights of 99 were taken")


def switch(client):
    client.container_apps_revisions.deactivate_revision(GROUP, "api", "api--one")
    revision = client.container_apps_revisions.get_revision(GROUP, "api", "api--one")
    same("deactivated", (revision.properties.active, revision.properties.replicas), (False, 0))
    client.container_apps_revisions.activate_revision(GROUP, "api", "api--one")
    same("activated", running(client, "api--one").properties.active, True)
    client.container_apps_revisions.restart_revision(GROUP, "api", "api--one")
    running(client, "api--one")


def stop_and_start(client):
    app = client.container_apps.begin_stop(GROUP, "api").result()
    same("stopped", app.properties.running_status, "Stopped")
    app = client.container_apps.begin_start(GROUP, "api").result()
    same("started", app.properties.running_status, "Running")
    running(client, "api--two")


def delete(client):
    same("apps", [app.name for app in client.container_apps.list_by_resource_group(GROUP)], ["api"])
    client.container_apps.begin_delete(GROUP, "api").result()
    try:
        client.container_apps.get(GROUP, "api")
    except ResourceNotFoundError as error:
        same("deleted app", error.error.code, "ResourceNotFound")
    else:
        raise SystemExit("the deleted app is still there")
    client.managed_environments.begin_delete(GROUP, "env").result()
    same("apps", list(client.container_apps.list_by_subscription()), [])


def main():
    endpoint, root = sys.argv[1:]
    credential = Credential(sys.stdin.readline().strip())
    client = ContainerAppsAPIClient(
        credential,
        SUBSCRIPTION,
        base_url=endpoint,
        connection_verify=root,
        polling_interval=LOOK_SECONDS,
    )
    monitor = MonitorManagementClient(credential, SUBSCRIPTION, base_url=endpoint, connection_verify=root)
    print(f"{ContainerAppsAPIClient.__module__} against {endpoint}")
    make_group(client, endpoint)
    environment = make_environment(client)
    create(client, environment)
    update(client)
    look_at_replicas(client)
    scale(client)
    measure(monitor)
    shift(client)
    switch(client)
    stop_and_start(client)
    delete(client)


if __name__ == "__main__":
    main()
