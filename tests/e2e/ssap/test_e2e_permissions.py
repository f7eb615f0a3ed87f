"""Rights in their documented order, and taken back while the platform runs: felt within a second at every gateway."""

import asyncio
import time

import pytest

EVA = "eva00000000000000000000000000001"
SPARE = "eva00000000000000000000000000002"
KP_EVA = """
kps:
  - {{name: KPEva, owner: eva, ontologies: [{ontologies}], tokens: [{{token: {spare}, active: {active}}}]}}
"""
ALL = "PublicThing, InsertOnly, QueryOnly, Everything, Closed"
FELT_S = 1.0
SLACK_S = 1.5
"""The machine of the tests may be busy."""


def config(ontologies=ALL, active="true"):
    return KP_EVA.format(ontologies=ontologies, active=active, spare=SPARE)


async def outcome(device, kind, ontology):
    body = {
        "INSERT": {"data": {"a": 1}, "query": None},
        "QUERY": {"query": "{}"},
        "UPDATE": {"data": {"a": 2}, "query": "{a:1}"},
        "DELETE": {"query": "{a:1}"},
        "SUBSCRIBE": {"query": "", "msRefresh": 0},
    }[kind]
    answer = await device.ask(kind, body, ontology=ontology)
    return "ok" if answer.ok else answer.code


@pytest.mark.parametrize(("ontology", "allowed"), [
    ("PublicThing", {"QUERY", "SUBSCRIBE"}), ("InsertOnly", {"INSERT"}), ("QueryOnly", {"QUERY", "SUBSCRIBE"}),
    ("Everything", {"INSERT", "QUERY", "UPDATE", "DELETE", "SUBSCRIBE"}), ("Closed", set()), ("Thing", set()),
    ("TestSensorTemperatura", set()),
])  # fmt: skip
@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
async def test_rights_by_operation(mqtt, websocket, transport, ontology, allowed):
    device = await (mqtt if transport == "mqtt" else websocket)(join=False)
    device.dialect = "object"
    await device.join("KPEva", "p1", EVA)
    for kind in ("INSERT", "QUERY", "UPDATE", "DELETE", "SUBSCRIBE"):
        assert await outcome(device, kind, ontology) == ("ok" if kind in allowed else "AUTHORIZATION"), kind


async def test_the_order_of_checks(websocket):
    """Session, then the ontology exists, the KP has it, the user may, the schema last."""
    device = await websocket(join=False)
    await device.join("KPEva", "p1", EVA)
    bad = {"data": "no instance at all", "query": None}
    assert (await device.ask("INSERT", bad, key="dead", ontology="Nothing")).code == "AUTENTICATION"
    assert (await device.ask("INSERT", bad, ontology="Nothing")).code == "ONTOLOGY_NOT_FOUND"
    assert (await device.ask("INSERT", bad, ontology="QueryOnly")).code == "AUTHORIZATION"
    assert (await device.ask("INSERT", bad, ontology="InsertOnly")).code == "PERSISTENCE"


async def test_statements_are_checked_by_the_ontology_that_they_name(websocket):
    device = await websocket(join=False)
    await device.join("KPEva", "p1", EVA)
    lookup = "{$lookup:{from:'InsertOnly',localField:'a',foreignField:'a',as:'x'}}"
    for text, kind in (("select * from InsertOnly", "SQLLIKE"), ("db.InsertOnly.find()", "NATIVE"),
                       ("delete from QueryOnly where a=1", "SQLLIKE"), ("insert into QueryOnly(a) values (1)", "SQLLIKE"),
                       (f"db.Everything.aggregate([{lookup}])", "NATIVE"),
                       ("db.Everything.aggregate([{$facet:{x:[{$graphLookup:{from:'Thing',startWith:'$a',connectFromField:'a',"
                        "connectToField:'b',as:'y'}}]}}])", "NATIVE")):  # fmt: skip
        answer = await device.query(text, kind, ontology="Everything")
        assert (answer.ok, answer.code) == (False, "AUTHORIZATION"), text
    assert (await device.query("select * from Everything", "SQLLIKE", ontology="InsertOnly")).ok


async def until(condition, began):
    """Waits until it holds; the seconds since ``began``."""
    while time.monotonic() - began < FELT_S + SLACK_S:
        if await condition():
            return time.monotonic() - began
        await asyncio.sleep(0.05)
    raise AssertionError("not felt in time")


@pytest.fixture
async def evas(mqtt, websocket):
    """A session of Eva on each gateway, with the spare token."""
    opened = [await mqtt(join=False), await websocket(join=False)]
    for device in opened:
        device.dialect = "object"
        await device.join("KPEva", "r1", SPARE)
    return opened


@pytest.fixture
def restored(sib):
    yield
    sib.apply(config() + "users:\n  - {name: eva, active: true}\n" + PERMISSIONS.format("QUERY"))
    time.sleep(1)


PERMISSIONS = """
ontologies:
  - {{name: QueryOnly, owner: luis, template: Empty, permissions: {{eva: {}}}}}
"""


async def test_a_token_turned_off(sib, evas, restored):
    began = sib.apply(config(active="false"))
    for device in evas:
        await until(lambda device=device: refused(device, "AUTENTICATION"), began)
        answer = await device.ask("JOIN", {"instance": "KPEva:r1", "token": SPARE}, key=None)
        assert answer.code == "AUTENTICATION"
    other = evas[0]
    await other.join("KPEva", "r1", EVA)
    assert await outcome(other, "INSERT", "InsertOnly") == "ok"


async def test_a_token_turned_off_listens_for_no_commands(sib, evas, restored):
    wish = {"thinkp": "KPEva", "thinkpInstance": "KPEva:r1", "token": SPARE, "type": "STATUS"}
    command = {"thinkp": "KPEva", "thinkpInstance": "r1", "type": "STATUS", "args": {}}
    for device in evas:
        assert (await device.ask("SUBSCRIBECOMMAND", wish, key=None)).ok
    began = sib.apply(config(active="false"))
    for device in evas:
        await until(lambda device=device: refused(device, "AUTENTICATION"), began)
    await evas[0].join("KPEva", "r1", EVA)
    assert (await evas[0].ask("COMMAND", command)).ok
    for device in evas:
        await device.nothing("command", 0.4)


async def refused(device, code, kind="QUERY", ontology="QueryOnly"):
    return await outcome(device, kind, ontology) == code


async def test_a_permission_removed_and_given(sib, evas, restored):
    for device in evas:
        assert await outcome(device, "QUERY", "QueryOnly") == "ok"
    began = sib.apply(PERMISSIONS.format("INSERT"))
    for device in evas:
        await until(lambda device=device: refused(device, "AUTHORIZATION"), began)
        assert await outcome(device, "INSERT", "QueryOnly") == "ok"
    began = sib.apply(PERMISSIONS.format("QUERY"))
    for device in evas:
        await until(lambda device=device: refused(device, "AUTHORIZATION", "INSERT"), began)
        assert await outcome(device, "QUERY", "QueryOnly") == "ok"


async def test_a_subscription_is_silent_while_its_user_may_not_read(sib, evas, websocket, restored):
    owner = await websocket(join=False)
    sib.apply("kps:\n  - {name: KPLuis, owner: luis, ontologies: [Thing, QueryOnly]}\n")
    await asyncio.sleep(FELT_S)
    await owner.join("KPLuis", "o", "luis0000000000000000000000000001")
    for device in evas:
        await device.subscribe("{n:{$gt:0}}", ontology="QueryOnly", ms_refresh=0)
    for permission, is_told in (("QUERY", True), ("INSERT", False), ("QUERY", True)):
        sib.apply(PERMISSIONS.format(permission))
        await asyncio.sleep(FELT_S)
        assert (await owner.insert({"n": 1}, "QueryOnly")).ok
        for device in evas:
            if is_told:
                await device.indication()
            else:
                await device.nothing("indication", 0.3)


async def test_a_user_deactivated(sib, evas, restored):
    await evas[0].subscribe("{n:{$gt:0}}", ontology="QueryOnly", ms_refresh=0)
    began = sib.apply("users:\n  - {name: eva, active: false}\n")
    for device in evas:
        await until(lambda device=device: refused(device, "AUTENTICATION"), began)
        for body in ({"token": EVA}, {"token": SPARE}, {"user": "eva", "password": "eva-password"}):
            assert (await device.ask("JOIN", {"instance": "KPEva:r1", **body}, key=None)).code == "AUTENTICATION"


async def test_an_ontology_taken_from_the_kp_and_one_closed(sib, evas, restored):
    began = sib.apply(config("InsertOnly"))
    for device in evas:
        await until(lambda device=device: refused(device, "AUTHORIZATION"), began)
        assert await outcome(device, "INSERT", "InsertOnly") == "ok"
    began = sib.apply(
        "ontologies:\n  - {name: InsertOnly, owner: luis, template: Empty, active: false, permissions: {eva: INSERT}}\n"
    )
    for device in evas:
        await until(lambda device=device: refused(device, "AUTHORIZATION", "INSERT", "InsertOnly"), began)
    sib.apply(
        "ontologies:\n  - {name: InsertOnly, owner: luis, template: Empty, active: true, permissions: {eva: INSERT}}\n"
    )


async def test_a_new_schema_is_in_force(sib, websocket):
    device = await websocket()
    schema = (
        '{{"type":"object","required":["{0}"],"properties":{{"{0}":{{"type":"number"}}}},"additionalProperties":true}}'
    )
    ontology = "ontologies:\n  - {{name: Evolving, owner: sofia, schema_text: '{}'}}\n"
    names = "TestSensorTemperatura, LegacyTemplate, Anything, Unique, Crowd, Heavy, Evolving"
    kp = f"kps:\n  - {{name: KPSsap, owner: sofia, ontologies: [{names}]}}\n"
    for field, other in (("a", "b"), ("b", "a")):
        began = sib.apply(ontology.format(schema.format(field)) + kp)

        async def accepted(field=field):
            return (await device.insert({field: 1}, "Evolving")).ok

        await until(accepted, began)
        assert (await device.insert({other: 1}, "Evolving")).code == "PERSISTENCE"
