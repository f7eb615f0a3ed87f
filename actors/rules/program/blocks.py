# mypy: ignore-errors
"""One rule's blocks, inside its sandbox: the supervisor sends what triggered them, and gets what they ask for.

Reading (``query``, ``kv.get``, ``http`` with GET) goes out at once; everything else is collected and sent back with the result,
and the supervisor carries it out when the block has ended well. It checks all of it: nothing here protects anything.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
import time
import traceback
import types

import sandbox_channel

OUTPUT_BYTES_MAX = 64 * 1024
RESULTS_BYTES_MAX = 384 * 1024
"""Results of one batch; beyond it the supervisor gets what there is and sends the rest of the batch again."""
BATCH_S_MAX = 0.2
"""A batch that takes longer ends early."""


class RuleError(Exception):
    """A refusal of the platform: ``code`` is stable, the sentence is for people."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


class Instance(str):
    """JSON text that can also be asked like what it says: ``ontology["Sensor"]["measure"]``, ``ontology.get("Sensor.measure")``."""

    __slots__ = ("_value",)

    @property
    def value(self):
        """What the text says, as Python values."""
        try:
            return self._value
        except AttributeError:
            self._value = json.loads(self)
            return self._value

    def __getitem__(self, key):
        return self.value[key] if type(key) is str else str.__getitem__(self, key)

    def get(self, path, default=None):
        """What stands at a dotted path."""
        return dig(self.value, path, default)


def dig(value, path, default=None):
    """What stands at a dotted path; numbers are places in lists."""
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return default
    return value


class Output:
    """Standard output of one run: the end of it."""

    def __init__(self):
        self.parts, self.size, self.is_direct = [], 0, False

    def write(self, text):
        """Keep; what runs alone also writes to the pipe, so that it is not lost with the process."""
        self.parts.append(text)
        self.size += len(text)
        if self.size > 4 * OUTPUT_BYTES_MAX:
            kept = "".join(self.parts)[-OUTPUT_BYTES_MAX:]
            self.parts, self.size = [kept], len(kept)
        if self.is_direct:
            sys.__stdout__.write(text)
            sys.__stdout__.flush()
        return len(text)

    def flush(self):
        """Nothing waits."""

    def writelines(self, lines):
        """As of a file."""
        for line in lines:
            self.write(line)

    def isatty(self):
        """It is none."""
        return False

    def take(self):
        """The text of this run."""
        text = "".join(self.parts)[-OUTPUT_BYTES_MAX:]
        self.parts, self.size = [], 0
        return text


class KeptValues:
    """``sofia.kv``: values that the rule keeps between its runs."""

    def __init__(self, run):
        self._run = run

    def get(self, key, default=None):
        """The value of a key."""
        changed = self._run.values
        if key in changed:
            return default if changed[key] is None else json.loads(changed[key])
        found = call("kv.get", {"key": key})
        return default if found is None else json.loads(found)

    def put(self, key, value):
        """Keep a value (JSON, at most 64 KiB) when the block ends well."""
        text = json.dumps(value)
        self._run.values[key] = text
        self._run.add("kv_put", key=key, value=text)

    set = put

    def delete(self, key):
        """Forget a value."""
        self._run.values[key] = None
        self._run.add("kv_delete", key=key)


class Run:
    """One execution: what it asks for."""

    def __init__(self):
        self.effects, self.values = [], {}

    def add(self, kind, **fields):
        """Collect an effect."""
        if len(self.effects) >= EFFECTS_MAX:
            raise RuleError("platform.limit", f"a run has at most {EFFECTS_MAX} effects")
        self.effects.append({"kind": kind, **fields})


EFFECTS_MAX = 1000


class Sofia:
    """``sofia``: the platform, with the rights of the rule's owner."""

    def __init__(self, run):
        self._run = run
        self.kv = KeptValues(run)
        self.rule = RULE

    def insert(self, ontology, instance, *, kp=None, instance_name=None, token=None):
        """Insert an instance (a map, or JSON text) when the block ends well."""
        self._run.add(
            "insert",
            ontology=ontology,
            instance=as_text(instance),
            kp=kp,
            kp_instance=instance_name,
            token=token,
        )

    def query(self, text, ontology=None, type=None, params=None):
        """The instances that a query finds, now, as a list of maps; the number, for a count."""
        begin = text.lstrip()[:3]
        type = type or ("SQLLIKE" if begin.isalpha() else "NATIVE")
        return json.loads(call("query", {"query": text, "ontology": ontology, "type": type, "params": params}))

    def update(self, query, data=None, ontology=None, type=None):
        """Change what a statement says, or replace by ``data`` what a condition finds, when the block ends well."""
        type = type or ("SQLLIKE" if query.lstrip()[:7].lower() == "update " else "NATIVE")
        self._run.add("update", query=query, data=None if data is None else as_text(data), ontology=ontology, type=type)

    def delete(self, query, ontology=None, type=None):
        """Delete what a condition or statement finds, when the block ends well."""
        type = type or ("SQLLIKE" if query.lstrip()[:7].lower() == "delete " else "NATIVE")
        self._run.add("delete", query=query, ontology=ontology, type=type)

    def sendMail(self, to, subject, body):
        """Send a mail when the block ends well."""
        recipients = [to] if isinstance(to, str) else list(to)
        self._run.add("mail", to=recipients, subject=str(subject), body=str(body))

    send_mail = sendMail

    def http(self, method, url, body=None, headers=None, *, wait=None):
        """An HTTP request. GET and HEAD, and with ``wait=True`` all others, are made now and give their answer.

        The others are made when the block ends well, and give None.
        """
        method = method.upper()
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
            headers = {"Content-Type": "application/json", **(headers or {})}
        request = {"method": method, "url": url, "headers": headers, "body": body}
        if wait or (wait is None and method in ("GET", "HEAD")):
            return HttpAnswer(call("http", request))
        self._run.add("http", **request)
        return None

    def log(self, text, level="INFO"):
        """A line in the process log, when the block ends well."""
        self._run.add("log", level=str(level), text=str(text)[:OUTPUT_BYTES_MAX])

    def schedule(self, rule, in_s=0, data=None):
        """Run a rule's script later; it gets ``data``."""
        self._run.add("schedule", rule=rule, in_s=float(in_s), data=json.dumps(data))

    def runScript(self, rule, data=None):
        """Run a rule's script as soon as this block has ended well."""
        self.schedule(rule, 0, data)

    run_script = runScript


class HttpAnswer:
    """The answer to an HTTP request."""

    def __init__(self, answer):
        self.status, self.headers, self.text = answer["status"], answer["headers"], answer["body"]

    def json(self):
        """Its body as JSON."""
        return json.loads(self.text)

    def __str__(self):
        return self.text


def as_text(instance):
    """The JSON text of an instance."""
    if isinstance(instance, bytes):
        return instance.decode()
    return str(instance) if isinstance(instance, str) else ENCODER.encode(instance)


ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str)


class BatchEnds(BaseException):
    """The run wants to read while effects of runs before it wait: they come first, then it is run again."""


PENDING = {"effects": False, "is_cut": False}


def call(method, payload):
    """Ask the supervisor."""
    if PENDING["effects"]:
        PENDING["is_cut"] = True
        raise BatchEnds
    try:
        return sandbox_channel.call(method, payload)
    except sandbox_channel.CallError as error:
        raise RuleError(error.code, error.message) from None


RULE = ""
BLOCKS = {}
NAMES = {}
CURRENT = [None]
OUT = Output()
PARAMETERS = ("ontology", "cepData", "data", "sofia", "error")


def load(message):
    """Take over the blocks of a rule, compiled once."""
    global RULE
    RULE = message["rule"]
    legacy = types.ModuleType("sofia2_legacy")
    legacy.__dict__.update(current=current_sofia, dig=dig, as_text=as_text, RuleError=RuleError)
    exec(compile(message["legacy"], "sofia2_legacy", "exec"), legacy.__dict__)  # noqa: S102 - inside the sandbox
    sys.modules["sofia2_legacy"] = legacy
    NAMES.update(__name__=RULE, __builtins__=builtins, json=json, RuleError=RuleError)
    NAMES.update({name: getattr(legacy, name) for name in legacy.NAMES})
    for name, text in message["blocks"].items():
        BLOCKS[name] = compile_block(name, text)
    sys.stdout = sys.stderr = OUT
    return True


def compile_block(name, text):
    """The function whose body the block is; one that is a single expression returns its value."""
    tree = ast.parse(text, name)
    body = tree.body or [ast.Pass()]
    if len(body) == 1 and isinstance(body[0], ast.Expr):
        body = [ast.copy_location(ast.Return(body[0].value), body[0])]
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(item) for item in PARAMETERS], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    function = ast.FunctionDef(name="block", args=arguments, body=body, decorator_list=[])
    module = ast.fix_missing_locations(ast.Module(body=[function], type_ignores=[]))
    space = {}
    exec(compile(module, name, "exec", dont_inherit=True), NAMES, space)  # noqa: S102 - inside the sandbox
    return space["block"]


def current_sofia():
    """The ``sofia`` of the run at work."""
    return CURRENT[0]


def run(message):
    """Carry out a batch; it may end early, with results for the first ones."""
    began, results, size = time.monotonic(), [], 0
    OUT.is_direct = message["is_alone"]
    PENDING.update(effects=not message["may_read"], is_cut=False)
    for event in message["events"]:
        result = run_one(event)
        if PENDING["is_cut"]:
            break
        size += result.pop("size")
        results.append(result)
        PENDING["effects"] = PENDING["effects"] or "effects" in result
        if size > RESULTS_BYTES_MAX or time.monotonic() - began > BATCH_S_MAX:
            break
    return results


def run_one(event):
    """IF, then THEN or ELSE; ERROR when one of them fails."""
    began = time.perf_counter()
    given = {
        "ontology": text_of(event, "ontology"),
        "cepData": text_of(event, "cepData"),
        "data": event.get("data"),
    }
    branch, failure = event.get("branch", "if"), event.get("error")
    state = Run()
    if failure is None:
        try:
            if branch == "if":
                decided = "if" not in BLOCKS or carry_out("if", given, state, None)
                branch = "then" if decided else "else"
            if branch in BLOCKS:
                carry_out(branch, given, state, None)
        except BaseException as error:
            failure = describe(error, branch)
            state = Run()
    is_handled = failure is not None and "error" in BLOCKS
    if is_handled:
        try:
            carry_out("error", given, state, failure)
        except BaseException as error:
            failure = {**describe(error, "error"), "first": failure}
            is_handled, state = False, Run()
    ms = round((time.perf_counter() - began) * 1000, 3)
    result = {"branch": branch, "ms": ms}
    if state.effects:
        result["effects"] = state.effects
    if failure is not None:
        result.update(error=failure, is_handled=is_handled)
    output = OUT.take()
    if output:
        result["output"] = output
    result["size"] = len(json.dumps(result)) if len(result) > 2 else 40
    if result["size"] > 900_000:
        failure = {
            "block": branch,
            "type": "LimitError",
            "message": "the effects of a run are at most 900 kB",
            "line": None,
        }
        return {"branch": branch, "ms": ms, "error": failure, "is_handled": False, "size": 200}
    return result


def text_of(event, name):
    """JSON text as the script gets it."""
    text = event.get(name)
    return None if text is None else Instance(text)


def carry_out(name, given, state, error):
    """One block."""
    CURRENT[0] = sofia = Sofia(state)
    return BLOCKS[name](given["ontology"], given["cepData"], given["data"], sofia, error)


def describe(error, block):
    """What went wrong, for the block ERROR and for the log."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.name == "block"]
    kind = getattr(error, "code", None) if isinstance(error, RuleError) else type(error).__name__
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    return {"block": block, "type": kind, "message": str(error)[:4000], "line": lines[-1] if lines else None}


sandbox_channel.serve({"load": load, "run": run})
