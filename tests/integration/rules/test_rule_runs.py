"""What rules do: types, blocks, effects, and what the process log says."""

import asyncio
from datetime import datetime

from sib.rules.rule import RuleType
from tests.integration.rules.rule_platform import SOFIA, TOKEN, a_rule

BRANCHES = {"then": 'sofia.insert("Out", {"n": 1})', "else_": 'sofia.insert("Out", {"n": 2})'}


async def test_an_instance_runs_then(platform):
    await platform.rules(a_rule(then='print("seen", ontology["n"])\nsofia.insert("Out", {"n": ontology["n"] + 1})'))
    await platform.start()
    await platform.send("In", {"n": 1}, {"n": 2})
    assert await platform.until_rows("Out", 2) == [{"n": 2}, {"n": 3}]
    await platform.until_idle()
    newest = platform.log("rule")[0]
    assert newest.summary == "The script has been executed correctly"
    assert newest.user == "sofia"
    assert (newest.details["result"], newest.details["branch"], newest.details["output"]) == ("ok", "then", "seen 2\n")
    assert newest.details["duration_ms"] > 0


async def test_what_a_rule_inserts_says_who_made_it(platform):
    await platform.rules(a_rule(then=BRANCHES["then"]))
    await platform.start()
    await platform.send("In", {"n": 1})
    await platform.until_rows("Out", 1)
    (row,) = await platform.devices.query(SOFIA, "select * from Out")
    assert (row["contextData"]["user"], row["contextData"]["session_key"]) == ("sofia", "rule:rule:1")


async def test_if_decides_between_then_and_else(platform):
    for if_ in ("return ontology['n'] > 5", "ontology.get('n') > 5"):
        await platform.rules(a_rule(if_=if_, **BRANCHES))
        await (platform.start() if platform.runner is None else asyncio.sleep(0))
        before = len(await platform.rows("Out"))
        await platform.send("In", {"n": 9}, {"n": 1})
        assert (await platform.until_rows("Out", before + 2))[-2:] == [{"n": 1}, {"n": 2}]


async def test_a_condition_in_the_language_of_cep_needs_no_script(platform):
    await platform.rules(a_rule(when="n > 5 and not n = 7", **BRANCHES), a_rule("only", when="n > 99"))
    runner = await platform.start()
    await platform.send("In", {"n": 9}, {"n": 7})
    assert await platform.until_rows("Out", 2) == [{"n": 1}, {"n": 2}]
    await platform.until_idle()
    assert runner.rules()["rules"]["only"]["processes"] == 0


async def test_an_error_runs_error_without_what_the_block_had_asked_for(platform):
    then = 'sofia.insert("Out", {"n": 1})\nx = 1\nundefined_name'
    error = 'sofia.insert("Out", {"n": error["line"], "why": error["type"], "in": error["block"]})'
    await platform.rules(a_rule(then=then, error=error))
    await platform.start()
    await platform.send("In", {"n": 1})
    assert await platform.until_rows("Out", 1) == [{"n": 3, "why": "NameError", "in": "then"}]
    await platform.until_idle()
    assert platform.log("rule")[0].details["result"] == "handled"
    assert not platform.bdc.rules.dead_letters()


async def test_a_time_out_ends_the_script_and_runs_error(platform):
    then = "print('in a loop')\nwhile ontology['n'] == 1: pass\nsofia.insert('Out', {'n': ontology['n']})"
    await platform.rules(a_rule(then=then, error="sofia.insert('Out', {'why': error['type']})", timeout_s=0.3))
    await platform.start()
    await platform.send("In", {"n": 1}, {"n": 2})
    assert await platform.until_rows("Out", 2) == [{"why": "TimeoutError"}, {"n": 2}]
    await platform.until_idle()
    outputs = [record.details.get("output") for record in platform.log("rule")]
    assert "in a loop\n" in outputs


async def test_children_of_a_parent_ontology(platform):
    then = 'sofia.insert("Out", {"n": ontology["n"]})'
    await platform.rules(a_rule("all", children=True, then=then), a_rule("one", then='sofia.insert("Out", {"n": 100})'))
    await platform.start()
    await platform.send("In", {"n": 1})
    await platform.send("InChild", {"n": 2})
    await platform.send("InGrandchild", {"n": 3})
    rows = await platform.until_rows("Out", 4)
    assert sorted(row["n"] for row in rows) == [1, 2, 3, 100]


async def test_a_modification_triggers_too(platform):
    await platform.send("In", {"n": 1})
    await platform.rules(a_rule(when="n = 2", **BRANCHES))
    await platform.start()
    await platform.devices.update(SOFIA, 'db.In.update({"n": 1}, {"$set": {"n": 2}})')
    assert await platform.until_rows("Out", 1) == [{"n": 1}]


async def test_a_timed_rule_runs_at_once_and_then_every_period(platform):
    await platform.rules(a_rule(type=RuleType.TIMED, schedule="200ms", then='sofia.insert("Out", {"n": 1})'))
    await platform.start()
    await platform.until_rows("Out", 3)


async def test_outputs_of_cep_rules(platform):
    then = 'x = APIUtils().getValueJson(cepData, "inEvents")\nsofia.insert("Out", {"n": cepData["inEvents"]["temp"], "x": x})'
    await platform.rules(a_rule("c", type=RuleType.CEP, cep="Hot", when="temp > 40", then=then))
    runner = await platform.start()
    events = [
        {"id": str(n), "stream": "hot", "ts": 1000 * n, "data": {"temp": 40 + n}, "ontology": "In"} for n in range(3)
    ]
    await runner.cep_events(events)
    await runner.cep_events(events)  # they come again
    rows = sorted(await platform.rows("Out"), key=lambda row: row["n"])
    assert [row["n"] for row in rows] == [41, 42]
    assert rows[0]["x"] == '{"temp": 41}'


async def test_rules_change_while_they_run(platform):
    runner = await platform.start()
    await platform.send("In", {"n": 1})
    await platform.rules(a_rule(then='sofia.insert("Out", {"n": 1})'))
    await platform.send("In", {"n": 1})
    await platform.until_rows("Out", 1)
    await platform.rules(a_rule(then='sofia.insert("Out", {"n": 2})'))
    await platform.send("In", {"n": 1})
    assert await platform.until_rows("Out", 2) == [{"n": 1}, {"n": 2}]
    await platform.rules(a_rule(then='sofia.insert("Out", {"n": 2})', active=False))
    await platform.send("In", {"n": 1})
    await asyncio.sleep(0.1)
    assert (len(await platform.rows("Out")), runner.rules()["rules"]) == (2, {})


async def test_the_names_of_old_scripts(platform):
    then = f"""
value = new = APISofia().getValue(ontology, "a.b")
APIRTDB().insertInBDTR("{TOKEN}", "KP1:script", "Out", json.dumps({{"n": int(value)}}))
APISSAP().sendInsertMessage("{TOKEN}", "KP1:script", "Out", '{{"n": 8}}')
APIBDTR().insertInBDTR("wrong", "KP1:script", "Out", '{{"n": 9}}') if ontology.get("bad") else None
"""
    await platform.rules(a_rule(then=then))
    await platform.start()
    await platform.send("In", {"a": {"b": 7}})
    assert sorted(row["n"] for row in await platform.until_rows("Out", 2)) == [7, 8]
    (row, _) = await platform.devices.query(SOFIA, "select * from Out")
    assert (row["contextData"]["kp"], row["contextData"]["kp_instancia"]) == ("KP1", "script")
    await platform.send("In", {"a": {"b": 1}, "bad": 1})
    await platform.until(lambda: platform.bdc.rules.dead_letters())


async def test_reading_sees_what_the_run_before_it_wrote(platform):
    then = """
n = sofia.query("select count(*) from Out")
sofia.insert("Out", {"n": n})
sofia.kv.put("count", sofia.kv.get("count", 0) + 1)
sofia.kv.put("count", sofia.kv.get("count") + 1)
"""
    await platform.rules(a_rule(then=then))
    await platform.start()
    await platform.send("In", *[{"n": n} for n in range(30)])
    rows = await platform.until_rows("Out", 30)
    assert [row["n"] for row in rows] == list(range(30))
    await platform.until_idle()
    assert platform.bdc.rules.values("rule") == {"count": "60"}


async def test_changing_and_deleting(platform):
    then = """
sofia.update('db.Out.update({"n": 1}, {"$set": {"n": 5}})')
sofia.update("update Out set n = 6 where n = 2")
sofia.delete('{"n": 3}', ontology="Out")
"""
    await platform.send("Out", {"n": 1}, {"n": 2}, {"n": 3})
    await platform.rules(a_rule(then=then))
    await platform.start()
    await platform.send("In", {"n": 1})
    await platform.until_idle()
    assert await platform.rows("Out") == [{"n": 5}, {"n": 6}]


async def test_scripts_call_one_another_now_and_later(platform):
    first = 'sofia.runScript("second", {"n": 1})\nsofia.schedule("second", in_s=0.4, data={"n": 2})\nsofia.log("done", "WARN")'
    second = a_rule("second", type=RuleType.TIMED, schedule="0 0 1 1 *", then='sofia.insert("Out", {"n": data["n"]})')
    await platform.rules(a_rule(then=first), second)
    await platform.start()
    await platform.send("In", {"n": 0})
    began = asyncio.get_running_loop().time()
    assert await platform.until_rows("Out", 1) == [{"n": 1}]
    assert await platform.until_rows("Out", 2) == [{"n": 1}, {"n": 2}]
    assert asyncio.get_running_loop().time() - began >= 0.35
    await platform.until(lambda: not platform.bdc.rules.due(datetime(2999, 1, 1), 10))
    (line,) = platform.bdc.read_log(10, kind="LOG")
    assert (line.summary, line.details["level"], line.details["rule"]) == ("done", "WARN", "rule")


async def test_a_trial_has_no_effects(platform):
    then = 'print("x")\nsofia.insert("Out", {"n": ontology["n"]})\nsofia.sendMail("a@b", "s", "t")'
    await platform.rules(a_rule(when="n > 1", then=then, active=False), a_rule("bad", then="1/0", active=False))
    runner = await platform.start()
    answer = await runner.test("rule", {"ontology": {"n": 5}})
    assert (answer["ok"], answer["branch"], answer["output"]) == (True, "then", "x\n")
    assert [effect["kind"] for effect in answer["effects"]] == ["insert", "mail"]
    assert (await runner.test("rule", {"ontology": '{"n": 1}'}))["branch"] is None
    answer = await runner.test("bad", {"ontology": {"n": 5}})
    assert (answer["ok"], answer["error"]["type"], answer["error"]["line"]) == (False, "ZeroDivisionError", 1)
    assert await platform.rows("Out") == []
