import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stream_interp.cli.configuration import load
from stream_interp.kafka.topics import load_topics
from stream_interp.notify.routes import check_names
from stream_interp.notify.sinks import SinkTools, make_sink
from stream_interp.settings import Settings
from tests.deploy.deployed import MANIFESTS, ROOT, UNITS, address, container, documents, kind, unit, workloads
from tests.deploy.strimzi import FOLDER, READERS, ROLES, generated
from tests.vendored.schemas import faults

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}


def _closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = required | optional
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_NAMED = _closed({"parameter": TEXT, "name": TEXT, "key": TEXT})
_ACL = _closed(
    {
        "resource": _closed(
            {
                "type": {"enum": ["topic", "group", "transactionalId"]},
                "name": TEXT,
                "patternType": {"enum": ["literal", "prefix"]},
            }
        ),
        "operations": {"type": "array", "items": {"enum": ["Read", "Write", "Describe"]}, "uniqueItems": True},
    }
)
# Custom resources have no schema in Kubernetes itself: what we use of those of Strimzi and KEDA.
CUSTOM = {
    ("kafka.strimzi.io/v1", "KafkaTopic"): _closed(
        {
            "partitions": {"type": "integer", "minimum": 1},
            "replicas": {"type": "integer", "minimum": 1},
            "config": {"type": "object"},
        }
    ),
    ("kafka.strimzi.io/v1", "KafkaUser"): _closed(
        {
            "authentication": _closed({"type": {"enum": ["tls", "tls-external", "scram-sha-512"]}}),
            "authorization": _closed({"type": {"const": "simple"}, "acls": {"type": "array", "items": _ACL}}),
        }
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _closed(
        {
            "scaleTargetRef": _closed({"apiVersion": TEXT, "kind": TEXT, "name": TEXT}),
            "minReplicaCount": {"type": "integer", "minimum": 1},
            "maxReplicaCount": {"type": "integer", "minimum": 1},
            "triggers": {
                "type": "array",
                "items": _closed(
                    {
                        "type": {"const": "kafka"},
                        "metadata": {"type": "object", "additionalProperties": TEXT},
                        "authenticationRef": _closed({"name": TEXT}),
                    }
                ),
            },
        },
        pollingInterval={"type": "integer"},
        cooldownPeriod={"type": "integer"},
        advanced=_closed({"horizontalPodAutoscalerConfig": _closed({"behavior": {"type": "object"}})}),
    ),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): _closed(
        {
            "configMapTargetRef": {"type": "array", "items": _NAMED},
            "secretTargetRef": {"type": "array", "items": _NAMED},
        }
    ),
}
PLAIN = [path for path in MANIFESTS if path.name != "kustomization.yaml"]
EVERY = [(path.name, document) for path in PLAIN for document in documents(path)]


@pytest.mark.parametrize(
    ("name", "document"), EVERY, ids=lambda value: value if isinstance(value, str) else value["kind"]
)
def test_it_is_what_its_schema_says(name: str, document: dict[str, Any]) -> None:
    schema = CUSTOM.get((document["apiVersion"], document["kind"]))
    if schema:
        assert faults(document["spec"], schema) == []
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", document["metadata"]["name"])
    else:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_schemas_see_faults() -> None:
    [encode] = [w for w in workloads() if w["metadata"]["name"] == "stream-interp-encode"]
    container(encode)["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(encode, kubernetes_validate.latest_version(), strict=True)
    assert faults({"partitions": 0, "replicas": 1, "config": {}}, CUSTOM["kafka.strimzi.io/v1", "KafkaTopic"]) != []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_builds_it() -> None:
    done = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == len(EVERY)


def test_every_manifest_is_listed() -> None:
    assert set(documents(FOLDER / "kustomization.yaml")[0]["resources"]) == {path.name for path in PLAIN}


@pytest.mark.parametrize("name", generated())
def test_topics_and_users_are_those_of_the_definitions(name: str) -> None:
    assert (FOLDER / name).read_text() == generated()[name], "run `python -m tests.deploy.strimzi`"


def test_topics_agree_with_their_definitions() -> None:
    found = {document["metadata"]["name"]: document["spec"] for document in kind("KafkaTopic")}
    assert set(found) == {topic.name for topic in load_topics()}
    for topic in load_topics():
        spec = found[topic.name]
        assert (spec["partitions"], spec["replicas"], spec["config"]) == (
            topic.partitions, topic.replication, topic.config,
        )  # fmt: skip


def test_every_group_that_the_code_names_is_known() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "stream_interp").rglob("*.py"))
    named = re.findall(r'(?:consumer_config|GroupReader)\(\s*[\w.]+,\s*"([\w-]+)"', sources)
    assert len(set(named)) > 8
    assert set(named) <= {*READERS, "encode", "detect", "notify-ends"}, "give tests/deploy/strimzi.py the new one"


def test_users_may_do_what_the_definitions_say_and_no_more() -> None:
    roles = {role.name: role for role in ROLES}
    names = {topic.name.removeprefix("interp.") for topic in load_topics()}
    for topic in load_topics():
        if topic.owner in roles:
            assert topic.name.removeprefix("interp.") in roles[topic.owner].writes
    for role in ROLES:
        assert {*role.reads, *role.writes, *role.sees} <= names
    assert [role.name for role in ROLES if "activations" in role.reads] == ["encode"]
    assert [role.name for role in ROLES if "alerts" in role.writes] == ["detect"]
    assert [role.name for role in ROLES if "dlq" in role.reads] == []
    assert {role.name for role in ROLES if "control" in role.writes} == {"detect", "operator"}
    assert roles["ui"].writes == roles["keda"].writes == ()


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload["metadata"]["name"])
def test_pods_are_confined_and_probed(workload: dict[str, Any]) -> None:
    pod, own = workload["spec"]["template"]["spec"], container(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    [port] = own["ports"]
    assert address(own["args"]) == f"0.0.0.0:{port['containerPort']}"
    assert own["livenessProbe"]["httpGet"] == own["startupProbe"]["httpGet"] == {"path": "/livez", "port": port["name"]}
    assert own["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    assert {mount["name"] for mount in own["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all(mount.get("readOnly") for mount in own["volumeMounts"] if mount["name"] != "tmp")
    assert "limits" in own["resources"]


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload["metadata"]["name"])
def test_a_process_has_its_own_user_and_its_password(workload: dict[str, Any]) -> None:
    name = workload["metadata"]["name"]
    environment = {entry["name"]: entry.get("value") for entry in container(workload)["env"]}
    assert environment["STREAM_INTERP_KAFKA__LIBRDKAFKA__SASL_USERNAME"] == name
    assert name in {user["metadata"]["name"] for user in kind("KafkaUser")}
    secrets = [
        volume["secret"]["secretName"]
        for volume in workload["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    ]
    assert secrets == [name, "interp-cluster-ca-cert"]
    # Only stages with transactions need a name that comes back.
    assert (workload["kind"] == "StatefulSet") == ("STREAM_INTERP_KAFKA__INSTANCE" in environment)


def _settings(tmp_path: Path) -> Settings:
    [settings] = kind("ConfigMap")
    path = tmp_path / "stream-interp.toml"
    secret = tmp_path / "password"
    secret.write_text("x")
    path.write_text(settings["data"]["stream-interp.toml"].replace("/run/secrets/kafka/password", str(secret)))
    return load(path, {}, {}, tmp_path).settings


def test_settings_load_and_name_what_is_mounted(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    assert settings.kafka.bootstrap == kind("ScaledObject")[0]["spec"]["triggers"][0]["metadata"]["bootstrapServers"]
    mounts = {mount["mountPath"] for workload in workloads() for mount in container(workload)["volumeMounts"]}
    assert Path(settings.kafka.librdkafka["ssl.ca.location"]).parent.as_posix() in mounts
    assert all(Path("/", *Path(site.sae).parts[1:2]).as_posix() in mounts for site in settings.sites)


def test_its_sinks_can_be_made(tmp_path: Path) -> None:
    notify = _settings(tmp_path).notify
    check_names(notify)
    assert [type(make_sink(sink, SinkTools())).__name__.lower() for sink in notify.sinks] == ["alertmanager"]


def test_scaling_is_by_the_group_of_encode_and_never_beyond_the_partitions() -> None:
    [scaled] = kind("ScaledObject")
    trigger = scaled["spec"]["triggers"][0]["metadata"]
    [topic] = [topic for topic in load_topics() if topic.name == trigger["topic"]]
    assert scaled["spec"]["maxReplicaCount"] <= topic.partitions
    assert trigger["consumerGroup"] == f"{Settings().kafka.group_prefix}-encode"
    target = scaled["spec"]["scaleTargetRef"]
    [encode] = [w for w in workloads() if w["metadata"]["name"] == target["name"]]
    assert (encode["kind"], "replicas" in encode["spec"]) == (target["kind"], False)


def test_disruptions_services_and_policies_select_pods_that_are_there() -> None:
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads()]
    selectors = [d["spec"]["selector"]["matchLabels"] for d in kind("PodDisruptionBudget")]
    selectors += [d["spec"]["selector"] for d in kind("Service")]
    selectors += [d["spec"]["podSelector"]["matchLabels"] for d in kind("NetworkPolicy")]
    assert len(selectors) == 10
    for selector in selectors:
        assert any(selector.items() <= label.items() for label in labels), selector


def test_units_and_pods_are_the_same_processes() -> None:
    units = {unit(path)["Service"]["ExecStart"][0].split()[1] for path in UNITS}
    assert units == {container(workload)["name"] for workload in workloads()}
