"""The archives that fastai publishes of imagenette and imagewoof: downloaded, verified, and unpacked into the cache."""

import hashlib
import http.client
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dmgd.errors import ArtifactError, without_credentials
from dmgd.progress import Progress, Task
from dmgd.sources.data_cache import data_folder, filled

MB = 1_000_000
BLOCK = MB
STALLED_SECONDS = 30.0
ATTEMPTS = 5


@dataclass(frozen=True)
class Archive:
    """`NAME.tgz`, which holds the folder NAME, its size in bytes, and its "algorithm:hexadecimal digest"."""

    name: str
    bytes: int
    checksum: str

    @property
    def url(self) -> str:
        """DMGD_ARCHIVES replaces fastai's address, for a mirror of one's own."""
        return f"{os.environ.get('DMGD_ARCHIVES', 'https://s3.amazonaws.com/fast-ai-imageclas')}/{self.name}.tgz"

    @property
    def folder(self) -> Path:
        """Where it is unpacked; it exists if it is whole."""
        return data_folder(self.name)


# By source and variant. Sizes are those of fastai/data/checks.txt in fastai/fastai, since the archives were renewed in
# February 2021; its checksums are of the first megabyte only. The SHA-256 of imagenette's archives are those of
# tensorflow_datasets/datasets/imagenette/checksums.tsv in tensorflow/datasets. Nobody seems to publish those of
# imagewoof's: the MD5 of the whole files are those of catalyst/contrib/datasets/imagewoof.py in
# catalyst-team/catalyst, which for imagenette has those of torchvision/datasets/imagenette.py.
ARCHIVES = {
    ("imagenette", "full_size"): Archive(
        "imagenette2", 1557161267, "sha256:6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd"
    ),
    ("imagenette", "320px"): Archive(
        "imagenette2-320", 341663724, "sha256:569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c"
    ),
    ("imagenette", "160px"): Archive(
        "imagenette2-160", 99003388, "sha256:64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5"
    ),
    ("imagewoof", "full_size"): Archive("imagewoof2", 1343715595, "md5:9aafe18bcdb1632c4249a76c458465ba"),
    ("imagewoof", "320px"): Archive("imagewoof2-320", 328387740, "md5:0f46d997ec2264e97609196c95897a44"),
    ("imagewoof", "160px"): Archive("imagewoof2-160", 92612825, "md5:3d200a7be99704a0d7509be2a9fbfe15"),
}


def fetch_archive(archive: Archive, progress: Progress) -> Path:
    """The folder of the unpacked archive in the cache, downloaded if it is not there yet.

    An interrupted download is continued the next time. Raises ArtifactError if the server refuses or breaks off, and
    for other bytes than the pinned ones, which are deleted unread.
    """

    if not hasattr(tarfile, "data_filter"):
        raise ArtifactError("this Python cannot unpack archives safely; use 3.10.12, 3.11.4 or a later one")

    def fill(work: Path) -> Path:
        file, unpacked = work / f"{archive.name}.tgz", work / "unpacked"
        _download(archive, file, progress)
        _verify(archive, file)
        shutil.rmtree(unpacked, ignore_errors=True)
        with progress.task(f"unpack {file.name}", None, "files") as task:
            _unpack(file, unpacked, task)
        file.unlink()
        return unpacked / archive.name

    return filled(archive.folder, fill)


def _download(archive: Archive, file: Path, progress: Progress) -> None:
    """All bytes of the archive in `file`, which may have the first of them already."""
    with progress.task(f"download {archive.name}.tgz", archive.bytes // MB, "MB") as task:
        task.advance(_size(file) // MB)
        for attempt in range(ATTEMPTS):
            if (before := _size(file)) >= archive.bytes:
                return
            problem = _continue(archive, file, task)
            if _size(file) <= before or (attempt == ATTEMPTS - 1 and _size(file) < archive.bytes):
                so_far = f", after {_size(file):,} of {archive.bytes:,} bytes; the same command continues there"
                raise ArtifactError(f"{without_credentials(archive.url)}: {problem}{so_far if _size(file) else ''}")


def _continue(archive: Archive, file: Path, task: Task) -> str:
    """Append to `file` what it lacks, as far as the connection lasts; returned is why it ended."""
    request = Request(archive.url, headers={"Range": f"bytes={_size(file)}-", "User-Agent": "dmgd"})
    try:
        with urlopen(request, timeout=STALLED_SECONDS) as answer:
            if answer.status != 206:  # the whole file, whatever was asked
                task.advance(-(_size(file) // MB))
                file.unlink(missing_ok=True)
            with file.open("ab") as out:
                while block := answer.read(BLOCK):
                    out.write(block)
                    task.advance(len(block) // MB)
                    if out.tell() > archive.bytes:
                        break
    except HTTPError as error:
        return f"the server answers {error.code}"
    except (URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return f"the connection broke ({getattr(error, 'reason', None) or type(error).__name__})"
    return "the connection ended early"


def _verify(archive: Archive, file: Path) -> None:
    """Delete the file and raise ArtifactError unless size and checksum are the pinned ones."""
    algorithm = archive.checksum.partition(":")[0]
    digest = hashlib.new(algorithm)
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    found = (_size(file), f"{algorithm}:{digest.hexdigest()}")
    if found != (archive.bytes, archive.checksum):
        file.unlink()
        raise ArtifactError(
            f"{without_credentials(archive.url)} has {found[0]:,} bytes and {found[1]}, not {archive.bytes:,} and "
            f"{archive.checksum}; it was deleted"
        )


def _unpack(file: Path, folder: Path, task: Task) -> None:
    """Unpack the archive: plain files and folders inside `folder` only, whatever it says (tarfile's data filter)."""
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                archive.extract(member, folder, filter="data")
                task.advance()
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(f"{file.name} cannot be unpacked: {error}") from error


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
