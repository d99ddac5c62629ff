import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_interp.cli import main
from stream_interp.cli.configuration import Loaded, load, values
from stream_interp.cli.setting_types import TYPES
from stream_interp.notify.routes import check_names
from stream_interp.settings import RouteSettings, Settings, SinkSettings, SiteSettings

ENTRIES = {"sites": SiteSettings, "notify.sinks": SinkSettings, "notify.routes": RouteSettings}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "init"]) == 0
    return tmp_path


def _load(folder: Path) -> Loaded:
    return load(None, {}, {}, folder)


def _uncommented(folder: Path) -> dict[str, Any]:
    """The file with every commented setting taken in, also written in place."""
    path = folder / "stream-interp.toml"
    path.write_text(re.sub(r"^#(?=\S)", "", path.read_text(), flags=re.MULTILINE))
    return tomllib.loads(path.read_text())


def test_it_loads_as_it_is_and_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = _load(folder).settings
    assert [site.model_id for site in settings.sites] == ["credit-risk", "my-llm"]
    assert [(sink.name, sink.type) for sink in settings.notify.sinks] == [("screen", "console")]
    assert settings.notify.routes == []
    assert main(["config", "show"]) == 0
    assert "notify.sinks" in capsys.readouterr().out


def test_what_is_not_commented_are_lists_of_tables_only(folder: Path) -> None:
    assert set(_load(folder).origins) == {"sites", "notify.sinks"}


def test_everything_uncommented_still_loads_and_holds_the_defaults(folder: Path) -> None:
    _uncommented(folder)
    loaded = _load(folder)
    defaults = values(Settings())
    own = {name for name in values(loaded.settings) if name in ENTRIES or name.startswith("kafka.librdkafka")}
    assert set(TYPES) - {"kafka.librdkafka"} <= set(loaded.origins), "give the missing settings a line in starter.toml"
    changed = {name for name, value in values(loaded.settings).items() if name not in own and value != defaults[name]}
    assert changed == set()
    assert loaded.settings.kafka.librdkafka["security.protocol"] == "SASL_SSL"
    assert [sink.type for sink in loaded.settings.notify.sinks] == ["console", "webhook"]
    check_names(loaded.settings.notify)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_field_of_a_list_of_tables_stands_in_some_entry(folder: Path, name: str) -> None:
    table: Any = _uncommented(folder)
    for part in name.split("."):
        table = table[part]
    fields = {field.name for field in msgspec.structs.fields(ENTRIES[name])}
    assert {key for entry in table for key in entry} == fields


def test_every_setting_is_explained(folder: Path) -> None:
    lines = (folder / "stream-interp.toml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r'#?"?[a-z_.]+"? = ', line) and '"s' not in line[:3]:
            beside, above = re.search(r" # \S", line), lines[number - 1].startswith("# ")
            block = re.match(r"#?\"?(model_id|hook_name|idle_ok|name|ssl|sasl|security)", line)
            assert beside or above or block, f"line {number + 1} is not explained: {line}"


def test_units_and_defaults_of_numbers_are_told(folder: Path) -> None:
    text = (folder / "stream-interp.toml").read_text()
    for line in re.findall(r"^#[a-z_]+ = [0-9].*$", text, flags=re.MULTILINE):
        assert "default" in line, line


def test_a_file_that_is_there_stays_unless_forced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "stream-interp.toml"
    path.write_text("[drift]\ntolerance = 1.5\n")
    assert main(["config", "init"]) == 2
    assert "overwrite it with --force" in capsys.readouterr().err
    assert path.read_text() == "[drift]\ntolerance = 1.5\n"
    assert main(["config", "init", "--force"]) == 0
    assert "[[sites]]" in path.read_text()


def test_a_folder_and_another_name_are_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "etc").mkdir()
    assert main(["config", "init", "etc"]) == 0
    assert (folder / "etc/stream-interp.toml").exists()
    assert main(["config", "init", "a b.toml"]) == 0
    assert "config show --config 'a b.toml'" in capsys.readouterr().err
    assert main(["config", "init", "absent/x.toml"]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
