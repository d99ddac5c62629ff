import re
from typing import Any

import pytest

from stream_interp.cli.configuration import load
from tests.deploy.deployed import COMPOSE, GPU, ROOT, address, compose
from tests.vendored.schemas import faults, vendored

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = {name for name, service in SERVICES.items() if service["image"] == "stream-interp"}
LONG_RUNNING = {name for name in SERVICES if "restart" in SERVICES[name]}
SCHEMA = vendored("compose-spec")


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_it_is_what_the_compose_specification_says(path: Any) -> None:
    assert faults(compose(path), SCHEMA) == []


def test_the_schema_sees_faults() -> None:
    for spoil in ({"imag": "x"}, {"ports": "8080"}, {"depends_on": {"kafka": {"condition": "healthy"}}}):
        assert faults({"services": {"a": {"image": "x"} | spoil}}, SCHEMA) != []


def test_ports_are_published_on_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_profiles_hold_what_they_should() -> None:
    core = {name for name, service in SERVICES.items() if "core" in service["profiles"]}
    demo = {name for name, service in SERVICES.items() if "demo" in service["profiles"]}
    assert core == {"kafka", "valkey", "topics", "encode", "detect", "notify", "ui"}
    assert demo == core - {"encode"} | {"demo-files", "demo-baseline", "demo-encode", "demo-null", "demo-shift"}


@pytest.mark.parametrize("name", SERVICES)
def test_waits_are_for_services_of_all_its_profiles_that_can_fulfil_them(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert set(SERVICES[name]["profiles"]) <= set(SERVICES[other]["profiles"]), other
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"], other
        else:
            assert how["condition"] == "service_completed_successfully"
            assert other not in LONG_RUNNING
            assert SERVICES[other]["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_are_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_health_is_asked_where_the_process_answers(name: str) -> None:
    service = SERVICES[name]
    port = address(service["command"]).rpartition(":")[2]
    assert f"http://127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


def test_environment_and_file_hold_settings_that_load() -> None:
    service = SERVICES["notify"]
    file, target, mode = service["volumes"][0].split(":")
    assert (target, mode) == ("/etc/stream-interp/stream-interp.toml", "ro")
    settings = load(ROOT / file, {}, service["environment"], ROOT).settings
    assert settings.kafka.bootstrap in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert [sink.type for sink in settings.notify.sinks] == ["console"]
    assert compose(SETTINGS_FILE="/x.toml")["services"]["notify"]["volumes"][0].startswith("/x.toml:")


@pytest.mark.parametrize("name", ["encode", "detect", "notify", "ui"])
def test_every_process_of_core_reads_the_settings_file(name: str) -> None:
    assert SERVICES[name]["volumes"][0] == SERVICES["notify"]["volumes"][0]


def test_the_overlay_changes_services_that_are_there_and_asks_for_a_gpu() -> None:
    overlay = compose(GPU)["services"]
    assert set(overlay) <= set(SERVICES)
    [device] = overlay["encode"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_what_is_built_is_there() -> None:
    build = SERVICES["encode"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()
