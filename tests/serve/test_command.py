"""Limits, addresses and refusals of `secateurs serve`."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.limits import LIMITS
from secateurs.serve.run import is_loopback, listen
from secateurs.serve.service import ServiceLimits


def test_limits_are_checked():
    for name, value in (("max_mb", 0), ("max_images", 0), ("max_requests", 1.5), ("max_mp", -1)):
        with pytest.raises(InputError, match=f"{name} is out of range"):
            ServiceLimits(**{name: value})
    assert LIMITS["max_requests"].high >= 64


def test_addresses():
    assert not is_loopback("192.168.0.1") and is_loopback("127.0.0.2")
    assert not is_loopback("127.example.org")  # a name, of any machine
    with pytest.raises(InputError, match="host: expected an address of this machine, got an empty"):
        listen(0, "")  # would be every network
    with pytest.raises(InputError, match="host no such place: not an address of this machine"):
        listen(0, "no such place")
    with pytest.raises(InputError, match=r"host 192\.0\.2\.1: not an address of this machine"):
        listen(0, "192.0.2.1")


def test_the_address_given_is_one_of_its_names(net: Path, monkeypatch, capsys):
    names: list[tuple[str, ...]] = []
    monkeypatch.setattr("secateurs.serve.run.serve", lambda app, listener: listener.close())
    monkeypatch.setattr(
        "secateurs.serve.service.make_service", lambda service, card, hosts: names.append(hosts)
    )
    for host, shown in (("127.0.0.2", "127.0.0.2"), ("::1", "[::1]"), ("0.0.0.0", "0.0.0.0")):
        words = ["secateurs", "serve", str(net), "--host", host, "--port", "0", "--quiet"]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        assert capsys.readouterr().out.startswith(f"http://{shown}:")
    assert "127.0.0.2" in names[0] and "[::1]" in names[1] and "0.0.0.0" not in names[2]


def test_the_command_refuses_in_one_line(net: Path, tmp_path: Path, monkeypatch, capsys):
    def refused(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["secateurs", "serve", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    odd = tmp_path / "photos.txt"
    odd.write_text("no model")
    assert "expected a file that ends in" in refused(str(odd), "--port", "0")
    assert "no such model" in refused(str(tmp_path / "gone"))
    assert "port is out of range" in refused(str(net), "--port", "70000")
    assert "--allow-host: expected a host name" in refused(str(net), "--allow-host", "a:80")
    with listen() as taken:
        port = str(taken.getsockname()[1])
        assert "cannot be used" in refused(str(net), "--port", port)
    monkeypatch.setattr("secateurs.extras.find_spec", lambda name: None)
    assert "pip install 'secateurs[serve]'" in refused(str(net))
