"""Settings that are no YAML, in every way that a file or a command line can be: one clear error that names them."""

from pathlib import Path

import pytest

from slotid_core.errors import SlotIDError
from training import settings_file
from training.yaml_text import parse_yaml

TINY = Path(settings_file.__file__).parent / "configs" / "tiny.yaml"

ODD = {
    "2024-13-45": "'2024-13-45' is no timestamp",
    "!!int abc": "'abc' is no int",
    "!!int ''": "'' is no int",
    "!!float abc": "'abc' is no float",
    "!!bool perhaps": "'perhaps' is no bool",
    "!!timestamp soon": "'soon' is no timestamp",
    "0x_": "'0x_' is no int",
    "[" * 5000: "too many lists or mappings",
    "{a: " * 5000: "too many lists or mappings",
    "[1": "expected ',' or ']'",
    "!!python/object:os.system x": "could not determine a constructor",
}


@pytest.mark.parametrize(("value", "said"), ODD.items(), ids=[value[:20] for value in ODD])
def test_a_value_that_can_not_be_read(value, said, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(f"run:\n  seed: {value}\n", encoding="utf-8")
    with pytest.raises(SlotIDError, match="^odd.yaml") as caught:
        settings_file.load(file)
    assert said in str(caught.value)
    with pytest.raises(SlotIDError, match="^run.seed=") as caught:
        settings_file.load(TINY, [f"run.seed={value}"])
    assert said in str(caught.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32"])
def test_another_encoding(encoding, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_bytes(f"# Zoë's\n{TINY.read_text(encoding='utf-8')}".encode(encoding))
    with pytest.raises(SlotIDError, match="odd.yaml is not UTF-8.*Save it as UTF-8"):
        settings_file.load(file)


def test_the_mark_of_windows_editors_is_none_of_it(tmp_path):
    file = tmp_path / "marked.yaml"
    file.write_text(TINY.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert settings_file.load(file) == settings_file.load(TINY)


def test_a_file_that_may_not_be_read(monkeypatch):
    """The refusal is made here: root may read everything."""

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SlotIDError, match="tiny.yaml can't be read: Permission denied"):
        settings_file.load(TINY)


def test_values_are_read_as_people_mean_them():
    assert parse_yaml("{a: 1e-4, b: 0x10, c: true}", "test") == {"a": 1e-4, "b": 16, "c": True}
