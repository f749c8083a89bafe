"""deploy/ha: the settings that the promises of docs/scaling.md rest on; `make drill-ha` shows that they are kept."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

HA = Path(__file__).parents[2] / "deploy" / "ha"
PATRONI = yaml.safe_load((HA / "patroni.yml").read_text(encoding="utf-8"))
DCS = PATRONI["bootstrap"]["dcs"]
NODES = ("10.0.0.11", "10.0.0.12", "10.0.0.13")


def test_patroni_replaces_a_primary_before_its_lock_can_be_lost_twice() -> None:
    assert DCS["loop_wait"] + 2 * DCS["retry_timeout"] <= DCS["ttl"]
    assert DCS["ttl"] >= 20


def test_a_commit_waits_for_a_standby_and_does_not_stop_waiting() -> None:
    assert (DCS["synchronous_mode"], DCS["synchronous_mode_strict"], DCS["synchronous_node_count"]) == (
        "quorum",
        True,
        1,
    )
    assert PATRONI["watchdog"]["mode"] == "required"
    assert "synchronous_commit" not in DCS["postgresql"]["parameters"]


def test_an_old_primary_can_be_rewound() -> None:
    assert DCS["postgresql"]["use_pg_rewind"]
    assert "data-checksums" in PATRONI["bootstrap"]["initdb"]


def test_cloudnativepg_promises_the_same() -> None:
    cluster = yaml.safe_load((HA / "cloudnativepg.yaml").read_text(encoding="utf-8"))["spec"]
    ours = DCS["postgresql"]["parameters"]

    assert cluster["instances"] == 3
    assert cluster["postgresql"]["synchronous"] == {
        "method": "any", "number": 1, "dataDurability": "required", "failoverQuorum": True,
    }  # fmt: skip
    for name, value in cluster["postgresql"]["parameters"].items():
        assert value == str(ours[name]), name


def test_every_node_is_named_in_every_file() -> None:
    haproxy = (HA / "haproxy.cfg").read_text(encoding="utf-8")
    for number, node in enumerate(NODES, 1):
        assert haproxy.count(f"server node{number} {node}:5432 maxconn 100 check port 8008") == 2
        assert f"{node}:2379" in PATRONI["etcd3"]["hosts"]
        assert f"node{number}=http://{node}:2380" in (HA / "etcd.env").read_text(encoding="utf-8")


def test_the_versions_of_patroni_are_the_tested_ones() -> None:
    tested = re.search(
        r'PATRONI = "(.*)"\nDRIVER = "(.*)"', (HA.parents[1] / "tests/helpers/ha/programs.py").read_text()
    )
    assert tested is not None
    for page in (HA / "patroni.service", HA.parents[1] / "docs/scaling.md"):
        assert f"pip install '{tested[1]}' '{tested[2]}'" in page.read_text(encoding="utf-8"), page


def test_haproxy_accepts_its_file(tmp_path: Path) -> None:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        pytest.skip("haproxy is not installed: apt install haproxy")
    text = re.sub(r"^ *(user|group) .*\n", "", (HA / "haproxy.cfg").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "haproxy.cfg").write_text(text, encoding="utf-8")

    done = subprocess.run([program, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, check=False)

    assert (done.returncode, "[ALERT]" in done.stderr, "[WARNING]" in done.stderr) == (0, False, False), done.stderr
