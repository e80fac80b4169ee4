"""Latents are streamed into parts that survive an interruption and are used only if their checksum is right."""

import errno
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from platformdirs import user_cache_path
from source_stand_ins import PER_CLASS, as_folder, pictures, small_prior

import dmgd.statistics.encoding
from dmgd.errors import DmgdError
from dmgd.priors.load import load_prior
from dmgd.progress import Silent
from dmgd.sources.open import open_source
from dmgd.statistics.encoding import encode_source


@dataclass
class Ear(Silent):
    """Records warnings and notes."""

    notes: list = field(default_factory=list)
    warnings: list = field(default_factory=list)

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load_prior(str(small_prior(tmp_path_factory.mktemp("prior"))))


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(dmgd.statistics.encoding, "PART_ITEMS", 64)  # three parts of 140 images
    return open_source(f"folder:{as_folder(tmp_path / 'data', pictures())}")


def encode(source, prior, **options):
    ear = Ear()
    return encode_source(source, prior, workers=0, progress=ear, **options), ear


def parts():
    return sorted((user_cache_path("dmgd") / "latents").rglob("part-*.npy"))


def test_threads_do_not_open_files_at_the_same_time(source, prior, monkeypatch):
    """CPython 3.11 may raise a SystemError of literals, such as the headers of these files, that two threads parse."""
    latents, opened, opening = encode(source, prior)[0], np.load, []

    def load(*arguments, **options):
        opening.append(True)
        time.sleep(0.01)
        assert len(opening) == 1
        opening.pop()
        return opened(*arguments, **options)

    monkeypatch.setattr(np, "load", load)
    with ThreadPoolExecutor(4) as pool:
        assert len([*pool.map(latents.__getitem__, range(10))]) == 10


def test_latents_come_with_the_ordinals_of_their_images(source, prior):
    latents, _ = encode(source, prior)
    assert len(latents) == 10
    from dmgd.images import to_square

    samples = list(source.decoded("train"))
    for label, own in enumerate(latents):
        assert own.rows.shape == (PER_CLASS, 256)
        image, wanted = samples[own.ordinals[3]]
        assert wanted == label
        alone = prior.encode(to_square(image, 16, 3)[None]).flatten().numpy()
        np.testing.assert_allclose(own.rows[3], alone, atol=1e-5)
    assert sorted(np.concatenate([own.ordinals for own in latents])) == list(range(140))
    assert latents.batch_invariant


def test_an_interrupted_encoding_is_continued(source, prior, monkeypatch):
    whole, _ = encode(source, prior, cache=False)
    assert not parts()
    codec, calls = type(prior.codec), []
    original = codec.encode

    def until_the_second_part(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images)

    monkeypatch.setattr(codec, "encode", until_the_second_part)
    with pytest.raises(KeyboardInterrupt):
        encode(source, prior)
    assert len(parts()) == 2  # one part: its latents and their index
    calls.clear()
    calls.extend([0] * 3)
    resumed, ear = encode(source, prior)
    assert len(calls) == 3 + 2  # two parts were left
    assert "continuing with part 1" in ear.notes[0]
    assert resumed.content == whole.content
    assert all(
        (a.rows == b.rows).all() and (a.ordinals == b.ordinals).all() for a, b in zip(resumed, whole, strict=True)
    )


@pytest.mark.parametrize("damage", ["flip a byte", "truncate", "remove", "pipe", "garble the record", "change it"])
def test_damaged_parts_are_encoded_again(source, prior, damage):
    first, _ = encode(source, prior)
    victim = parts()[2]
    data = victim.read_bytes()
    if damage == "flip a byte":
        victim.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif damage == "truncate":
        victim.write_bytes(data[:-100])
    elif damage == "remove":
        victim.unlink()
    elif damage == "pipe":
        victim.unlink()
        os.mkfifo(victim)
    elif damage == "garble the record":
        victim.with_name("part-00001.json").write_text('{"items": 64')
    else:
        record = victim.with_name("part-00001.json")
        record.write_text(record.read_text().replace('"bad": []', '"bad": [["cat.jpg", "the file is empty"]]'))
    second, ear = encode(source, prior)
    assert re.search(r"part-00001\.(npy is damaged|json (is damaged|was changed)).*encoded again", ear.warnings[0])
    assert all((a.rows == b.rows).all() for a, b in zip(first, second, strict=True))
    third, ear = encode(source, prior)
    assert "reused latents" in ear.notes[0]
    assert third.content == first.content


def test_a_changed_file_or_encoder_is_not_taken_from_the_cache(source, prior, tmp_path):
    encode(source, prior)
    (tmp_path / "data" / "n01440764" / "n01440764_0.JPEG").write_bytes(pictures(per_class=1, seed=5)[0].jpeg)
    _, ear = encode(source, prior)
    assert not ear.notes


def test_mirror_images_count_as_latents_not_as_images(source, prior):
    plain, _ = encode(source, prior)
    both, _ = encode(source, prior, mirror=True)
    assert len(both[0].rows) == 2 * PER_CLASS
    assert (both.images(0), both.total, both.content) == (PER_CLASS, 140, plain.content)
    image = torch.from_numpy(both[0].rows)
    assert {row.tobytes() for row in plain[0].rows} < {row.numpy().tobytes() for row in image}


def test_unreadable_images_are_listed_or_fail_the_run(source, prior, tmp_path):
    root = tmp_path / "data" / "n03888257"
    (root / "a.jpg").write_bytes(b"")
    with pytest.raises(DmgdError, match=r"1 of 141 images .* more than 0\.50%: n03888257/a\.jpg \(the file is empty\)"):
        encode(source, prior, max_bad=0.005)
    latents, ear = encode(source, prior, max_bad=0.01)
    assert ear.notes  # nothing is encoded twice for that
    assert "1 of 141 images cannot be read" in ear.warnings[0]
    assert latents.bad == [("n03888257/a.jpg", "the file is empty")]
    samples = [label for _, label in source.decoded("train")]
    assert all(samples[ordinal] == 9 for ordinal in latents[9].ordinals)


def test_an_encoder_that_depends_on_the_batch_is_detected(source, prior, monkeypatch):
    codec = type(prior.codec)
    original = codec.encode
    monkeypatch.setattr(codec, "encode", lambda self, images: original(self, images) + images[0, 0, 0, 0] * 1e-6)
    latents, ear = encode(source, prior, cache=False)
    assert not latents.batch_invariant
    assert "depends on the batch" in ear.warnings[0]


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_cache_is_done_without(source, prior, monkeypatch, after):
    """The disk is full at once, or in the second part: what is there is used, the rest is temporary."""
    wanted, _ = encode(source, prior, cache=False)
    save, saved = np.save, []

    def full(file, rows, **options):
        if str(user_cache_path("dmgd")) in file.name:
            if len(saved) >= after:
                raise OSError(errno.ENOSPC, "No space left on device")
            saved.append(file.name)
        save(file, rows, **options)

    monkeypatch.setattr(np, "save", full)
    found, ear = encode(source, prior)
    [warning] = ear.warnings
    assert "the cache cannot be written (No space left on device" in warning
    assert len(parts()) == after  # the index of the second part is missing
    assert found.content == wanted.content
    assert all((a.rows == b.rows).all() for a, b in zip(wanted, found, strict=True))


def test_the_record_of_a_part_is_written_last(source, prior):
    encode(source, prior)
    for record in sorted((user_cache_path("dmgd") / "latents").rglob("*.json")):
        assert record.stat().st_mtime_ns >= record.with_suffix(".npy").stat().st_mtime_ns
        assert len(json.loads(record.read_text())["sha256"]) == 2
