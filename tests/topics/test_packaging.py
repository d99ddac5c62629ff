import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed_for_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {
        p.parent.relative_to(ROOT).as_posix().replace("/", ".") for p in ROOT.glob("stream_interp/**/__init__.py")
    }
    assert listed == folders | {"stream_interp.topic_files"}
