"""Where values of settings come from, and what is wrong with some."""

import dataclasses

import pytest

from actors.config import Limits
from actors.gateway.mqtt_options import MqttLimits
from sib.errors import ConfigurationError
from sib.mqtt.session import QueueBounds
from sofia2.samples import shown_settings
from sofia2.settings import Origin, check_setting, load_settings
from sofia2.settingtable import TABLE


def load(tmp_path, options=None, environment=None, file=None):
    if file is not None:
        (tmp_path / "sofia2.toml").write_text(file)
    options = {"data": str(tmp_path / "data"), **(options or {})}
    return load_settings(options, environment=environment or {}, folder=tmp_path)


def refusal(*arguments, **keywords):
    with pytest.raises(ConfigurationError) as caught:
        load(*arguments, **keywords)
    return caught.value.message


def test_defaults_are_the_limits_of_the_actors(tmp_path):
    config = load(tmp_path).to_platform_config()
    assert config.limits == Limits()
    assert [(each.name, each.host, each.port) for each in config.listeners] == [
        ("mqtt", "127.0.0.1", 1883),
        ("http", "127.0.0.1", 8080),
    ]
    assert config.bdc_url == f"sqlite:///{tmp_path}/data/bdc.db"
    assert config.bdtr_url == f"sqlite:{tmp_path}/data/bdtr"
    assert config.is_loopback


def test_every_limit_of_the_actors_is_a_setting():
    assert {setting.limit for setting in TABLE if setting.limit} == set(Limits.__annotations__)


def test_every_limit_of_mqtt_is_a_setting(tmp_path):
    given = load(tmp_path).to_platform_config().mqtt
    assert MqttLimits(**{**given, "queue": QueueBounds(**given["queue"])}) == MqttLimits()
    assert given.keys() == {each.name for each in dataclasses.fields(MqttLimits)}
    assert given["queue"].keys() == {each.name for each in dataclasses.fields(QueueBounds)}


@pytest.mark.parametrize(
    ("file", "applied", "environment", "options", "expected", "origin"),
    [
        (None, {}, {}, {}, 8080, Origin.DEFAULT),
        ("http_port = 1", {}, {}, {}, 1, Origin.FILE),
        ("http_port = 1", {"http_port": 2}, {}, {}, 2, Origin.APPLIED),
        ("http_port = 1", {"http_port": 2}, {"SOFIA2_HTTP_PORT": "3"}, {}, 3, Origin.VARIABLE),
        ("http_port = 1", {"http_port": 2}, {"SOFIA2_HTTP_PORT": "3"}, {"http_port": 4}, 4, Origin.OPTION),
    ],
)
def test_later_origins_win(tmp_path, file, applied, environment, options, expected, origin):
    settings = load(tmp_path, options, environment, file)
    settings.add_applied(applied)
    assert settings.get("http_port") == expected
    assert settings.origin("http_port") is origin


def test_two_underscores_stand_for_the_dot(tmp_path):
    settings = load(tmp_path, environment={"SOFIA2_LIMITS__WRITE_TIMEOUT_S": "2.5"})
    assert settings.to_platform_config().limits.write_timeout_s == 2.5


def test_tables_of_the_file_are_sections(tmp_path):
    settings = load(tmp_path, file='[query]\nrow_cap = 7\n[listeners]\nown = "mqtt://127.0.0.1:1884?pubsub=true"\n')
    config = settings.to_platform_config()
    assert config.limits.query_row_cap == 7
    assert [each.name for each in config.listeners] == ["mqtt", "http", "own"]


def test_the_file_in_the_data_folder_comes_before_the_one_here(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sofia2.toml").write_text("http_port = 1")
    assert load(tmp_path, file="http_port = 2").get("http_port") == 1


def test_a_file_that_is_named_must_exist(tmp_path):
    assert "no.toml does not exist" in refusal(tmp_path, {"config": str(tmp_path / "no.toml")})


def test_paths_of_the_file_are_relative_to_it(tmp_path):
    settings = load(tmp_path, file='bdc_file = "secret"')
    (tmp_path / "secret").write_text("sqlite:////elsewhere/bdc.db\n")
    assert settings.url("bdc") == "sqlite:////elsewhere/bdc.db"


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("htp_port = 1", "did you mean 'http_port'?"),
        ("[limits]\nwrite_timeout = 1", "did you mean 'limits.write_timeout_s'?"),
        ("http_port = 70000", "http_port is a whole number from 0 to 65535."),
        ('http_port = "x"', "http_port is a whole number"),
        ("http_port = true", "http_port is a whole number"),
        ("ready_timeout = nan", "ready_timeout is a number of at least 1."),
        ('detach = "perhaps"', "detach is true or false."),
        ("http_port =", "is no TOML"),
    ],
)
def test_wrong_settings_are_refused_with_the_place(tmp_path, file, sentence):
    message = refusal(tmp_path, file=file)
    assert sentence in message
    assert str(tmp_path / "sofia2.toml") in message


def test_an_unknown_variable_is_refused(tmp_path):
    assert "did you mean 'mqtt_port'?" in refusal(tmp_path, environment={"SOFIA2_MQT_PORT": "1"})


SECRET_URLS = [
    "mysql://user:hunter2@host/db",
    "mysql://user:a/hunter2@host/db",
    "mysql://user:a@hunter2@host/db",
    "mysql://:hunter2@host/db",
    "mysql://host/db?user=u&password=hunter2",
    "mysql://u@host/db?PASSWD=hunter2&charset=utf8",
    "postgresql://u@host/db?sslpassword=hunter2",
    "oracle://u@host/?service_name=x&wallet_password=hunter2",
    "oracle://u@host/?access_token=hunter2",
    "mongodb://u@host/db?authPassword=hunter2",
    "mongodb://host/db?tls=true&tlsCertificateKeyFilePassword=hunter2",
    "mongodb://host/db?authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
]


@pytest.mark.parametrize("name", ["bdc", "bdtr", "bdh"])
@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_password_on_the_command_line_is_refused(tmp_path, name, url):
    message = refusal(tmp_path, {name: url})
    assert f"SOFIA2_{name.upper()}_FILE" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/sofia2/bdc.db",
        "mysql://user@host:3306/db?charset=utf8mb4&ssl_ca=/etc/ca.pem",
        "mongodb://user@one:27017,two:27017/db?replicaSet=rs0&tls=true&authSource=admin",
        "hdfs://hadoop@host:8020/sofia2",
    ],
)
def test_a_url_without_a_secret_is_taken_from_the_command_line_and_shown_whole(tmp_path, url):
    settings = load(tmp_path, {"bdc": url})
    assert url in [row["value"] for row in shown_settings(settings, changed=True)]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_secret_in_a_url_is_not_shown(tmp_path, url):
    shown = shown_settings(load(tmp_path, environment={"SOFIA2_BDTR": url}), changed=True)
    value = next(row["value"] for row in shown if row["name"] == "bdtr")
    assert "hunter2" not in value
    assert value.startswith(url.partition("://")[0] + "://")
    assert "host" in value


def test_a_password_in_a_variable_is_taken(tmp_path):
    settings = load(tmp_path, environment={"SOFIA2_BDC": "mysql://user:hunter2@host/db"})
    assert settings.url("bdc") == "mysql://user:hunter2@host/db"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o644, 1)])
def test_a_password_in_a_file_that_others_can_read_is_warned_of(tmp_path, mode, count):
    path = tmp_path / "sofia2.toml"
    path.write_text('bdc = "mysql://user:hunter2@host/db"')
    path.chmod(mode)
    assert len(load(tmp_path).warnings) == count


@pytest.mark.parametrize(
    ("options", "port"),
    [({"mqtt_port": 5}, 5), ({"listeners.mqtt": "mqtt://127.0.0.1:6"}, 6), ({}, 4)],
)
def test_a_port_and_a_url_of_the_same_listener(tmp_path, options, port):
    listeners = load(tmp_path, options, file='[listeners]\nmqtt = "mqtt://127.0.0.1:4?auth=true"').listeners()
    assert next(each.port for each in listeners if each.name == "mqtt") == port


def test_a_standard_listener_can_be_off(tmp_path):
    assert [each.name for each in load(tmp_path, {"listeners.http": "off"}).listeners()] == ["mqtt"]


def test_tls_listeners_need_a_certificate(tmp_path):
    assert "set tls_cert and tls_key" in _listeners_refusal(load(tmp_path, {"https_port": 8443}))
    assert "needs both" in _listeners_refusal(load(tmp_path, {"tls_cert": __file__}))
    assert "does not exist" in _listeners_refusal(load(tmp_path, {"tls_cert": "/none", "tls_key": "/none"}))


def _listeners_refusal(settings):
    with pytest.raises(ConfigurationError) as caught:
        settings.listeners()
    return caught.value.message


def test_mqtts_opens_once_there_is_a_certificate(tmp_path):
    listeners = load(tmp_path, {"tls_cert": __file__, "tls_key": __file__}).listeners()
    assert [(each.name, each.port, each.certificate) for each in listeners] == [
        ("mqtt", 1883, None),
        ("mqtts", 8883, __file__),
        ("http", 8080, None),
    ]


def test_other_addresses_than_loopback_are_exposed(tmp_path):
    settings = load(tmp_path, {"host": "0.0.0.0", "listeners.own": "mqtt://[::1]:0"})
    assert [each.name for each in settings.exposed()] == ["mqtt", "http"]
    assert not settings.to_platform_config().is_loopback


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [("console", "not part of this version"), ("sib,consul", "no module 'consul'"), (",", "must name it")],
)
def test_modules_that_do_not_exist_are_refused(tmp_path, modules, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        load(tmp_path, {"modules": modules}).to_platform_config()


def test_a_module_that_needs_it_brings_ray_serve(tmp_path):
    assert load(tmp_path).to_platform_config().topology.serve_gateways == ()
    config = load(tmp_path, {"modules": "sib,api", "serve_port": 8001}).to_platform_config()
    assert len(config.topology.serve_gateways) == 1
    assert [(each.name, each.kind, each.port) for each in config.listeners][-1] == ("serve", "serve", 8001)


@pytest.mark.parametrize(
    ("name", "url", "sentence"),
    [
        ("bdtr", "couchdb://u:hunter2@host/db", "No BDTR has URLs of the kind 'couchdb'"),
        ("bdtr", "mysql://u:hunter2@host", "names no database"),
        ("bdtr", "mysql://u:hunter2@host:many/db", "cannot be read"),
        ("bdtr", "mongodb://u:hunter2@host:many/db", "cannot be used"),
        ("bdtr", "sqlite:", "is sqlite:FOLDER"),
        ("bdc", "mongodb://u:hunter2@host/db", "cannot be on 'mongodb'"),
        ("bdc", "postgresql://u:hunter2@host/db", "cannot be on 'postgresql'"),
        ("bdc", "hunter2", "cannot be read"),
        ("bdh", "s3://u:hunter2@bucket/x", "No BDH has URLs of the kind 's3'"),
        ("bdh", "hdfs://u:hunter2@host/x", "has a host, a port and a folder"),
        ("bdh", "file:", "is file:FOLDER"),
    ],
)
def test_a_database_that_is_not_supported_is_refused_without_its_password(tmp_path, name, url, sentence):
    settings = load(tmp_path, environment={f"SOFIA2_{name.upper()}": url})
    with pytest.raises(ConfigurationError) as caught:
        settings.to_platform_config()
    assert sentence in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:p@host:3306/sofia2",
        "mariadb://u:p%40ss@host/sofia2",
        "postgresql://u:p@host/sofia2",
        "oracle://u:p@host:1521/?service_name=x",
        "mongodb://u:p@one,two,three/sofia2?replicaSet=rs0",
    ],
)
def test_a_bdtr_on_a_server_has_its_first_partition_where_the_url_says(tmp_path, url):
    config = load(tmp_path, environment={"SOFIA2_BDTR": url}).to_platform_config()
    assert config.bdtr_url == config.partition_url("partition-0") == url
    assert config.partition_url("partition-1") == f"{url}{'&' if '?' in url else '?'}partition=partition-1"


def test_local_databases_are_absolute_for_actors_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {"SOFIA2_BDC": "sqlite:///c.db", "SOFIA2_BDTR": "sqlite:r", "SOFIA2_BDH": "file:h"}
    config = load(tmp_path, environment=environment).to_platform_config()
    assert (config.bdc_url, config.bdtr_url, config.bdh_url) == (
        f"sqlite:///{tmp_path}/c.db",
        f"sqlite:{tmp_path}/r",
        f"file:{tmp_path}/h",
    )


@pytest.mark.parametrize(
    ("name", "value", "is_hot"),
    [
        ("query.row_cap", 10, True),
        ("sessions.expiry_s", 60, True),
        ("limits.write_timeout_s", 5, False),
        ("rest.callback_allow", ["127.0.0.0/8"], True),
        ("listeners.own", "mqtt://127.0.0.1:1", False),
        ("listeners.secure", "mqtts://127.0.0.1:1", False),
    ],
)
def test_applied_settings_say_when_they_act(name, value, is_hot):
    assert check_setting(name, value) is is_hot


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("query.row_cup", 10, "did you mean 'query.row_cap'"),
        ("query.row_cap", 0, "at least 1"),
        ("rest.callback_allow", ["here"], "list of networks"),
        ("bdc", "sqlite:///x", "put it into sofia2.toml"),
        ("listeners.own", "mqtt://127.0.0.1:1?pubsup=true", "did you mean 'pubsub'"),
        ("modules", ["console"], "not part of this version"),
    ],
)
def test_applied_settings_are_checked(name, value, sentence):
    with pytest.raises(ConfigurationError) as caught:
        check_setting(name, value)
    assert sentence in caught.value.message


def test_an_applied_setting_that_this_version_does_not_know_is_left_out_with_a_warning(tmp_path):
    settings = load(tmp_path)
    settings.add_applied({"later.setting": 1, "query.row_cap": 5})
    assert settings.get("query.row_cap") == 5
    assert len(settings.warnings) == 1
