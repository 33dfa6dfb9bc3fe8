import re
from collections import Counter

import pytest

from aiproxy.spec import (
    HEADERS,
    checker,
    freeze,
    levels,
    profiles,
    requirement,
    requirements,
    resolutions,
    schema,
    validate,
    vector,
    vectors,
)
from aiproxy.spec.register import read_yaml, rows_as_written

FAMILIES = {
    "AIP-API": 40,
    "AIP-BEN": 12,
    "AIP-BUDGET": 14,
    "AIP-CFG": 115,
    "AIP-CHK": 25,
    "AIP-CLI": 5,
    "AIP-DOC": 1,
    "AIP-EXT": 9,
    "AIP-FAIL": 10,
    "AIP-LB": 7,
    "AIP-LEVEL": 12,
    "AIP-MESH": 27,
    "AIP-NODE": 5,
    "AIP-OBS": 18,
    "AIP-PROB": 6,
    "AIP-PROV": 12,
    "AIP-ROUTE": 28,
    "AIP-SECURITY": 22,
    "AIP-USE": 5,
    "ASC-CACHE": 7,
    "ASC-CAP": 5,
    "ASC-CB": 5,
    "ASC-CRED": 5,
    "ASC-HEALTH": 3,
    "ASC-LB": 4,
    "ASC-NORM": 9,
    "ASC-OPS": 5,
    "ASC-RULE": 7,
    "ASC-STREAM": 3,
    "UNI-API": 13,
    "UNI-BENCH": 4,
    "UNI-ENS": 12,
    "UNI-EXT": 6,
    "UNI-GOV": 13,
    "UNI-OPT": 2,
    "UNI-PROTO": 14,
    "UNI-PROV": 16,
    "UNI-REG": 23,
    "UNI-ROUTE": 17,
    "UNI-STAT": 7,
    "UNI-TEST": 4,
    "UNI-UI": 4,
    "XAI-ARCH": 14,
    "XAI-AUTO": 30,
    "XAI-COMPAT": 22,
    "XAI-DOC": 2,
    "XAI-FAIL": 26,
    "XAI-FIG": 22,
    "XAI-HDR": 79,
    "XAI-IANA": 3,
    "XAI-PERF": 8,
    "XAI-PRIN": 8,
    "XAI-REASON": 12,
    "XAI-RESP": 40,
    "XAI-SEC": 28,
    "XAI-STREAM": 18,
    "XAI-SYNC": 18,
    "XAI-TOOL": 16,
    "XAI-WF": 18,
}


def test_the_register_has_its_925_rows_in_its_families():
    rows = requirements()
    assert len({row.id for row in rows}) == len(rows) == 925
    assert Counter(row.family for row in rows) == FAMILIES


def test_every_row_satisfies_its_schema():
    row_is = checker("requirements")
    assert [row["id"] for row in rows_as_written() if not row_is.ok(row)] == []


def test_capitals_in_the_source_make_a_row_normative():
    capitals = [row for row in requirements() if row.keyword != "descriptive"]
    assert {row.origin for row in capitals} == {"normative"}
    assert len(capitals) == 7


def test_what_we_added_for_safety_is_marked_as_ours():
    for row in requirements():
        assert (row.origin == "house") == ("safety" in row.source)


def test_what_a_row_leans_on_exists():
    known = resolutions()
    for row in requirements():
        assert all(known[tension] for tension in row.tensions)
        assert all(requirement(reference) for reference in row.refs)


def test_what_tests_cite_exists():
    for row in requirements():
        for identifier in re.findall(r"\b(?:XAI|AIP|UNI|ASC)-[A-Z]+-\d{3}\b", row.test):
            assert requirement(identifier)


def test_the_decisions_are_numbered_without_gaps():
    assert list(resolutions()) == [f"T-{number:02d}" for number in range(1, 94)]
    superseded = {key for key, entry in resolutions().items() if "superseded" in entry}
    assert superseded == {"T-09", "T-10", "T-32"}


def test_the_frozen_files_satisfy_their_schemas():
    written = read_yaml("levels.yaml")
    validate({**written, "levels": {str(n): ids for n, ids in written["levels"].items()}}, "levels")
    validate(read_yaml("profiles.yaml"), "profiles")


def test_levels_freeze_the_musts_that_are_not_stretch():
    """A row that came after the release waits under ``not_scored``."""
    musts = {row.id: row.level for row in requirements() if row.adopt == "MUST"}
    frozen = {identifier: level for level, ids in levels().items() for identifier in ids}
    assert frozen.items() <= musts.items()
    assert set(musts) - set(frozen) <= set(freeze().not_scored)
    assert set(levels()) == {1, 2, 3, 4, 5}
    assert not any(requirement(identifier).stretch for identifier in frozen)
    assert sum(map(len, levels().values())) == len(frozen)


def test_exceptions_are_about_musts():
    for identifier in (*freeze().not_scored, *freeze().may_refuse):
        assert requirement(identifier).adopt == "MUST"
    assert not set(freeze().not_scored) & set(freeze().may_refuse)


def test_profiles_cover_whole_families_and_no_row_twice():
    families = [family for profile in profiles().values() for family in profile.families]
    assert len(families) == len(set(families))
    assert set(families) <= set(FAMILIES)
    for profile in profiles().values():
        assert len(profile.members) == sum(FAMILIES[family] for family in profile.families)
        for identifier in profile.demands:
            assert identifier in profile.members
            assert requirement(identifier).adopt in ("SHOULD", "MAY")


def test_headers_and_vectors_cite_rows_that_exist():
    cited = {identifier for field in HEADERS.values() for identifier in field.requirements}
    cited |= {identifier for name in vectors() for identifier in vector(name)["requirements"]}
    assert all(requirement(identifier) for identifier in cited)


def test_an_unknown_id_suggests_close_ones():
    with pytest.raises(KeyError, match="did you mean XAI-HDR-0"):
        requirement("XAI-HDR-01")


def test_every_row_on_a_request_header_is_cited_by_a_header_or_is_about_all_of_them():
    cited = {identifier for field in HEADERS.values() for identifier in field.requirements}
    general = {f"XAI-HDR-{number:03d}" for number in (1, 2, 6, 7, 8, 9, 10, 11, 76, 77, 78, 79)}
    rows = {row.id for row in requirements() if row.family == "XAI-HDR"}
    assert rows - cited <= general


def test_the_error_table_and_its_enumerations_agree():
    error = schema("error")
    table = error["x-aiproxy-errors"]
    assert list(table) == error["$defs"]["code"]["enum"]
    assert {entry["type"] for entry in table.values()} == set(error["$defs"]["type"]["enum"])
    statuses = {status for entry in table.values() for status in entry["statuses"]}
    assert statuses == {
        400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 501, 502, 503, 504, 508,
    }  # fmt: skip


def test_a_code_is_only_sent_with_its_own_type():
    ok = checker("error-emitted").ok
    for code, entry in schema("error")["x-aiproxy-errors"].items():
        for kind in schema("error")["$defs"]["type"]["enum"]:
            detail = {"message": "m", "type": kind, "param": None, "code": code}
            assert ok({"error": detail}) == (kind == entry["type"])
