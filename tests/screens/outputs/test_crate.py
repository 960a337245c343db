"""The RO-Crate of a screen: the entities that the specification requires, and no link that leads nowhere."""

from __future__ import annotations

import json

import pytest

from conftest import lively_model
from napari_milcnn.screens.outputs.crate import CRATE, write_crate

RECORD = {
    "source": "/somebody/private/plate 1", "fields": 8, "wells": 4, "fields_sha256": "ab" * 32,
    "began": "2026-01-02T03:04:05+00:00", "command": ["napari-milcnn", "screen", "/somebody/private/plate 1"],
    "model": {"name": "nuclei", "sha256": "cd" * 32, "path": "/somebody/private/m.zip"},
    "versions": {"napari-milcnn": "0.1.0", "torch": "2.9"},
}  # fmt: skip


@pytest.fixture(params=["with a model", "without a model"])
def graph(request, tmp_path):
    for name in ("predictions.csv", "predictions.parquet", "wells.csv", "run.json", "report.html"):
        (tmp_path / name).write_text("x" * 10)
    (tmp_path / "parts").mkdir()
    (tmp_path / ".lock").touch()
    (tmp_path / "notes of mine.txt").touch()
    model = lively_model() if request.param == "with a model" else None
    write_crate(tmp_path, RECORD, None if model is None else model.with_card(license="CC-BY-4.0", authors=("A. B.",)))
    document = json.loads((tmp_path / CRATE).read_text())
    assert document["@context"][0] == "https://w3id.org/ro/crate/1.2/context"
    found = {entity["@id"]: entity for entity in document["@graph"]}
    assert len(found) == len(document["@graph"])  # each is described once
    return found


def links_in(value):
    if isinstance(value, dict):
        if "@id" in value and len(value) == 1:
            yield value["@id"]
        for one in value.values():
            yield from links_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from links_in(one)


def test_the_crate_has_what_the_specification_requires(graph):
    descriptor, root = graph[CRATE], graph["./"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    assert root["@type"] == "Dataset"
    assert {"name", "description", "datePublished", "license"} <= set(root)
    assert len(root["datePublished"]) == 10
    assert "none" not in root["description"].lower()
    for entity in graph.values():
        assert entity["@type"]
        outside = {"https://w3id.org/ro/crate/1.2"}
        assert set(links_in([one for name, one in entity.items() if name != "@id"])) <= set(graph) | outside


def test_every_file_is_described_and_belongs_to_the_root(graph):
    data = {name for name, entity in graph.items() if entity["@type"] in ("File", "Dataset") and name != "./"}
    assert data == {"predictions.csv", "predictions.parquet", "wells.csv", "run.json", "report.html", "parts/"}
    assert {one["@id"] for one in graph["./"]["hasPart"]} == data
    assert graph["predictions.csv"]["contentSize"] == "10"
    assert graph["wells.csv"]["encodingFormat"] == "text/csv"


def test_the_run_joins_program_images_and_model_without_private_paths(graph):
    run = graph["#run"]
    assert run["@type"] == "CreateAction"
    assert graph[run["instrument"]["@id"]]["version"] == "0.1.0"
    assert graph[run["object"][0]["@id"]]["name"] == "plate 1"
    assert {"@id": "predictions.csv"} in run["result"]
    assert "/somebody" not in json.dumps(list(graph.values()))
    if "author" in graph["#model"]:
        assert graph["#model"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
        assert graph["#author-0"]["name"] == "A. B."
