"""Feature labels: files good, bad and hostile; which lanes they are shown on; and that `step` never sees them."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from stream_interp.detect.label_files import read_labels, read_site_labels
from stream_interp.detect.labels import MAX_LABEL_CHARS, SiteLabels, parse_labels
from stream_interp.errors import UsageError
from stream_interp.records.alert import Alert, FeatureDrift, Position
from stream_interp.records.lane import Lane
from stream_interp.records.status import IncidentCard, Status
from stream_interp.records.text import inert
from stream_interp.settings import SiteSettings

FINGERPRINT = "3b7e1c04d2aa" + "0" * 52
PREFIX = FINGERPRINT[:12]
LANE = Lane(model_id="m", hook_name="h", sae_fingerprint=FINGERPRINT)
OTHER = Lane(model_id="m", hook_name="h", sae_fingerprint="f" * 64)
HOSTILE = "\x1b[31m<script>alert(1)</script>\n[bold]x[/bold]\u202egnp\x9b\ud800"


def in_json(labels, fingerprint=PREFIX):
    return json.dumps({"sae_fingerprint": fingerprint, "labels": labels, "source": "by hand"}).encode()


def in_csv(*rows, first=f"# sae_fingerprint: {PREFIX}", header="id,label"):
    return "\r\n".join([first, header, *rows, ""]).encode()


def drift(feature):
    return FeatureDrift(
        feature=feature, direction="up", log_e=21.0, log_threshold=20.6, rate_baseline=0.01, rate_now=0.5,
        detected_request=9,
    )  # fmt: skip


def alert(lane, *features):
    return Alert(
        event_id="e", lane=lane, incident_id="i", transition="opened", severity="critical", status="critical",
        cause_hint="data_shift", features=[drift(f) for f in features], at_ms=1,
        position=Position(partition=0, offset=1),
    )  # fmt: skip


def status(lane, *features):
    card = IncidentCard(
        incident_id="i", severity="critical", opened_request=1, opened_at_ms=1, cause_hint="data_shift",
        features_drifted=len(features), features=[drift(f) for f in features],
    )  # fmt: skip
    return Status(
        lane=lane, state="critical", as_of_ms=1, closed_at_ms=1, position=Position(partition=0, offset=1), sequence=1,
        incident=card,
    )  # fmt: skip


def site_labels(content=None, **names):
    sites = [SiteSettings(feature_labels="a.json", **names)]
    return SiteLabels(sites, {"a.json": parse_labels(content or in_json({"1": "one", "7": "seven"}), "/x/a.json")})


@pytest.mark.parametrize("fingerprint", [PREFIX, PREFIX.upper(), FINGERPRINT])
def test_json_and_csv_say_the_same(fingerprint):
    expected = {12: "loan, large", 40: "young"}
    as_json = parse_labels(in_json({"12": "loan, large", "40": " young "}, fingerprint), "a.json")
    first = f"# sae_fingerprint: {fingerprint}"
    as_csv = parse_labels(
        b"\xef\xbb\xbf" + in_csv('12,"loan, large",0.9', "40,young,", first=first, header="id,label,score"), "a.CSV"
    )
    assert as_json.texts == as_csv.texts == expected
    assert as_json.fingerprint == as_csv.fingerprint == fingerprint.lower()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"kind \.txt; expected a \.json or \.csv"),
        ("a.json", b"\xff", "byte 0 is not UTF-8"),
        ("a.json", b"{", "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.json", b"[]", "no object `labels`"),
        ("a.json", b'{"labels": ["one"]}', "no object `labels`"),
        ("a.json", b'{"labels": {"1": "one"}}', "sae_fingerprint is 'None'; expected 12 to 64 hex digits"),
        ("a.json", in_json({"1": "one"}, PREFIX[:11]), "expected 12 to 64 hex digits"),
        ("a.json", in_json({"1": "one"}, "none"), "expected 12 to 64 hex digits"),
        ("a.json", in_json({"1": "one"}, FINGERPRINT + "0"), "expected 12 to 64 hex digits"),
        ("a.json", in_json({"-1": "one"}), "id '-1'; expected the number of a feature"),
        ("a.json", in_json({"1e3": "one"}), "id '1e3'"),
        ("a.json", in_json({"٣": "three"}), "id '٣'"),
        ("a.json", in_json({"9" * 5000: "one"}), "id '9999"),
        ("a.json", in_json({"1": 5}), "label of id 1 is int; expected text"),
        ("a.json", in_json({"1": "one", "01": "again"}), "id 1 comes twice"),
        ("a.json", b'{"sae_fingerprint": "%s", "labels": {"1": "a", "1": "b"}}' % PREFIX.encode(), "id 1 comes twice"),
        ("a.csv", in_csv("1,one", first="id,label"), "first line 'id,label"),
        ("a.csv", in_csv("1,one", header="feature,text"), "no column id, label"),
        ("a.csv", in_csv("1,one", "1,two"), "id 1 comes twice"),
        ("a.csv", in_csv("1"), "label of id 1 is NoneType"),
        ("a.csv", in_csv('1,"open'), r"near line \d: unexpected end of data"),
        ("a.csv", in_csv("1," + "x" * 200_000), r"near line \d: field larger than field limit"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_refused_with_what_was_found(name, content, message):
    with pytest.raises(UsageError, match=message):
        parse_labels(content, name)


def test_hostile_and_long_labels_are_stored_inert_and_short():
    labels = parse_labels(in_json({"1": HOSTILE, "2": "x" * 10_240, "3": " \n ", "4": "good"}), "a.json")
    assert set(labels.texts) == {1, 2, 4}
    assert all(text.isprintable() and len(text) <= MAX_LABEL_CHARS for text in labels.texts.values())
    assert labels.texts[1] == "\ufffd[31m<script>alert(1)</script> [bold]x[/bold]\ufffdgnp\ufffd\ufffd"
    assert labels.texts[2].endswith("x…")
    assert (labels.cut, labels.cleaned) == (1, 1)


def test_inert_text_is_one_printable_line():
    assert inert("Größe 資料 – ok") == "Größe 資料 – ok"
    assert inert("a\r\nb\tc\u2028d\u2066e\x07") == "a  b c d\ufffde\ufffd"


def test_labels_are_on_alerts_and_statuses_of_their_sae():
    labels = site_labels()
    assert [f.label for f in labels.on_alert(alert(LANE, 7, 2)).features] == ["seven", ""]
    by_effect = structs.replace(alert(LANE, 7), by_effect=[drift(1)])
    assert [f.label for f in labels.on_alert(by_effect).by_effect] == ["one"]
    card = structs.replace(status(LANE, 1).incident, by_effect=[drift(7)])
    shown = labels.on_status(structs.replace(status(LANE, 1), incident=card), d_sae=96)
    assert [f.label for f in shown.incident.by_effect] == ["seven"]
    told = labels.on_status(status(LANE, 1, 7), d_sae=96)
    assert [f.label for f in told.incident.features] == ["one", "seven"]
    assert told.labels == ""


def test_on_another_sae_no_label_is_shown_and_the_status_says_why():
    labels = site_labels()
    assert labels.on_alert(alert(OTHER, 7)) == alert(OTHER, 7)
    told = labels.on_status(status(OTHER, 7), d_sae=96)
    assert [f.label for f in told.incident.features] == [""]
    assert told.labels == f"a.json is for SAE {PREFIX}, this lane has ffffffffffff"


def test_ids_that_the_sae_does_not_have_are_told():
    told = site_labels().on_status(status(LANE, 1), d_sae=7)
    assert told.labels == "a.json: 1 ids are no feature of this SAE (7); it has 7"
    assert site_labels().on_status(status(LANE, 1), d_sae=None).labels == ""


def test_a_site_without_a_file_is_left_as_it_is():
    labels = site_labels(model_id="another")
    assert labels.on_alert(alert(LANE, 7)) == alert(LANE, 7)
    assert labels.on_status(status(LANE, 7), d_sae=96) == status(LANE, 7)


def test_the_event_is_the_same_but_for_the_label():
    plain, labelled = alert(LANE, 7), site_labels().on_alert(alert(LANE, 7))
    assert (labelled.event_id, labelled.features[0].log_e) == (plain.event_id, plain.features[0].log_e)
    assert labelled != plain


def test_files_are_read_once_and_told_of(tmp_path):
    path = tmp_path / "labels.json"
    path.write_bytes(in_json({"1": "a\x00", "2": "x" * 300}))
    said = []
    sites = [SiteSettings(hook_name=hook, feature_labels=str(path)) for hook in ("h", "g")]
    assert read_site_labels(sites, said.append).of(LANE).texts[1] == "a\ufffd"
    assert said == [
        f"labels: labels.json names 2 features of SAE {PREFIX}; 1 longer than 200 characters were cut; "
        "in 1 characters that do not print were replaced; a changed file needs a restart"
    ]


def test_a_missing_or_huge_file_ends_the_start(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"sites\.feature_labels: cannot read .*: No such file"):
        read_labels(str(tmp_path / "no.json"))
    with pytest.raises(UsageError, match="cannot read"):
        read_labels(str(tmp_path))
    monkeypatch.setattr("stream_interp.detect.label_files.MAX_FILE_BYTES", 10)
    (tmp_path / "big.json").write_bytes(b"x" * 11)
    with pytest.raises(UsageError, match="larger than 10 bytes"):
        read_labels(str(tmp_path / "big.json"))
