"""What MQTT is set to on a listener: its own options, else the settings; over WebSocket too."""

from actors.config import Limits, Listener, PlatformConfig, Topology
from actors.gateway.nodes import mqtt_options

TOPOLOGY = Topology((), (), (), (), ())


def test_a_listener_without_options_has_those_of_the_settings():
    limits = Limits(message_bytes_max=5000, mqtt_session_expiry_s=60)
    for kind in ("mqtt", "mqtts", "http", "https"):
        options = mqtt_options(Listener("own", kind, "127.0.0.1", 0), limits)
        assert (options.message_bytes_max, options.session_expiry_s, options.auth) == (5000, 60, False)


def test_what_a_listener_says_counts_over_websocket_too():
    given = {"auth": True, "pubsub": True, "message_bytes_max": 9000, "session_expiry_s": 5}
    options = mqtt_options(Listener("own", "http", "127.0.0.1", 0, given), Limits())
    assert options.auth
    assert options.pubsub
    assert (options.message_bytes_max, options.session_expiry_s) == (9000, 5)


def test_passwords_of_databases_are_in_no_repr():
    config = PlatformConfig("/data", "mysql://u:hunter2@db/bdc", "mysql://u:hunter2@db/bdtr", TOPOLOGY, ())
    assert "hunter2" not in repr(config)
