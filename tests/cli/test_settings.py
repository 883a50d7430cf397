"""Configuration files with mistakes: each is told by its name before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambent.settings import BadSetting, Settings, load


def test_values_of_every_kind(tmp_path: Path) -> None:
    config = tmp_path / "lambent.toml"
    config.write_text("""
        port = 9000
        data_dir = "there"
        [limits]
        scaling_seconds = 3
        [sandbox]
        interpreters = ["a", "b"]
        [sandbox.file_systems]
        arn = "/srv"
        [async]
        retry_waits = [1, 2.5]
        [[credentials]]
        access_key = "A"
        secret_key = "B"
        account = "123456789012"
    """)
    settings = load(config, port=9001, host=None)
    assert (settings.port, settings.data_dir, settings.host) == (9001, Path("there"), "127.0.0.1")
    assert settings.sandbox.interpreters == ("a", "b")
    assert settings.sandbox.file_systems == {"arn": "/srv"}
    assert settings.async_events.retry_waits == (1, 2.5)
    assert load(None) == Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('port = "9000"', "port: '9000' is not a whole number"),
        ("port = true", "port: True is not a whole number"),
        ("port = 65536", "port: 65536 is not between 1 and 65535"),
        ("host = 5", "host: 5 is not text"),
        ("data_dir = 5", "data_dir: 5 is not text"),
        ("limits = 3", "limits: 3 is not a table"),
        ("nonsense = 3", "unknown setting 'nonsense'"),
        ("[async_events]\nage = 1.0", "unknown setting 'async_events'"),
        ("[limits]\npage = 1.5", "limits.page: 1.5 is not a whole number"),
        ("[limits]\nsync_payload = -1", "limits.sync_payload: -1 is not 0 or more"),
        ("[sandbox]\ninit_timeout = nan", "sandbox.init_timeout: nan is not 0 or more"),
        ('[sandbox]\ninit_timeout = "1"', "sandbox.init_timeout: '1' is not a number"),
        ('[sandbox]\ninterpreters = "/usr/bin"', "sandbox.interpreters: '/usr/bin' is not a list, each text"),
        ("[sandbox]\nfile_systems = 3", "sandbox.file_systems: 3 is not a table, each value text"),
        ("[sandbox.file_systems]\na = 3", "is not a table, each value text"),
        ('[async]\nretry_waits = ["1"]', "async.retry_waits: ['1'] is not a list, each a number"),
        ("credentials = 1", "credentials: expected tables [[credentials]]"),
        ("credentials = [1]", "credentials: 1 is not a table"),
        ('[[credentials]]\naccess_key = "a"', "credentials: secret_key and account must be given, too"),
        ('[[credentials]]\naccess_key = "a"\nsecret_key = "b"\naccount = "c"', "credentials.account: 'c' is not 12 digits"),
        ('account = "12"', "account: '12' is not 12 digits"),
        ('auth = "none"', "auth: 'none' is none of any, signature"),
        ("port = ", "lambent.toml: "),
        ("\udcff", "lambent.toml: "),
    ],
)
def test_mistakes(tmp_path: Path, text: str, told: str) -> None:
    config = tmp_path / "lambent.toml"
    config.write_text(text, errors="surrogateescape")
    with pytest.raises(BadSetting) as caught:
        load(config)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
