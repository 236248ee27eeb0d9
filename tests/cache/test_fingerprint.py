"""The digest covers everything that decides a value, and nothing else."""

import json
from dataclasses import fields, replace

import pytest

from cache.fingerprint import Fingerprint, OtherFormat
from tests.helpers.fingerprint import ONE

OTHER = {
    "config": {"embed_dim": 512, "text_cfg": {"width": 640}},
    "weights": "cd" * 32,
    "untrained_seed": 0,
    "quick_gelu": False,
    "tokenizer": "clip-bpe 50000",
    "prompt": "{label}",
    "layout": "full",
    "preprocess": {"size": [32, 128]},
    "compute": "bf16",
    "stored": "float32",
    "format": 1,
}


@pytest.mark.parametrize("name", [f.name for f in fields(Fingerprint) if f.name not in ("model", "pretrained")])
def test_every_field_that_decides_a_value_changes_the_digest(name):
    other = replace(ONE, **{name: OTHER[name]})
    assert other.digest != ONE.digest
    (difference,) = ONE.differences(other)
    assert difference.startswith(name)


def test_names_do_not_change_the_digest():
    assert replace(ONE, model="x", pretrained="moved.pt").digest == ONE.digest


def test_folder_is_readable_and_holds_no_path():
    assert ONE.folder == f"vit-b-16-quickgelu.clip-pt.{ONE.digest[:8]}"


def test_json_comes_back():
    assert Fingerprint.from_json(ONE.to_json().decode()) == ONE


def test_changed_field_in_json_is_noticed():
    """Even in a field that decides no value."""
    for old, new in (("fp32", "bf16"), ("clip.pt", "clop.pt"), (ONE.digest[:4], "0000")):
        with pytest.raises(ValueError, match="does not match its checksum"):
            Fingerprint.from_json(ONE.to_json().decode().replace(old, new))


@pytest.mark.parametrize("found", [0, 1, 3])
def test_other_format_is_told_from_damage(found):
    """Whatever else that format keeps in its file."""
    with pytest.raises(OtherFormat, match=str(found)):
        Fingerprint.from_json(json.dumps({"format": found, "something": "new"}))
