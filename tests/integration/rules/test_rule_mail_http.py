"""Mail and HTTP of scripts: what is sent, what is refused, and that nothing is sent twice."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from actors.rules import lane as lane_module
from actors.rules.fetch import AllowList, Fetcher, HttpError
from actors.rules.mail import MailError, MailRefusedError, MailServer
from sib.errors import AuthorizationError, LimitError, MalformedMessageError, NotConfiguredError
from tests.integration.rules.rule_platform import a_rule

LOCAL = ("localhost", "127.0.0.0/8", "::1/128")


class SmtpServer:
    """Takes mail, as far as a client needs that; ``answer`` is what it says to RCPT."""

    def __init__(self):
        self.mails, self.answer, self.port = [], b"250 ok", 0

    async def serve(self, reader, writer):
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            verb = line.split()[0].upper().split(b":")[0]
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                text = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(text.decode())
                writer.write(b"250 taken\r\n")
            elif verb == b"RCPT":
                writer.write(self.answer + b"\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        writer.close()


@asynccontextmanager
async def listening(serve):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class HttpServer:
    """Answers by path."""

    def __init__(self):
        self.requests = []

    async def serve(self, reader, writer):
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            lines = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
            method, path, _ = lines[0].split()
            self.requests.append((method, path, headers, body))
            status, extra, content = self.answer(path)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{extra}\r\n".encode() + content)

    @staticmethod
    def answer(path):
        if path.startswith("/to/"):
            return 302, f"Location: {path.removeprefix('/to/')}\r\n", b""
        if path == "/round":
            return 302, "Location: /round\r\n", b""
        if path == "/large":
            return 200, "", b"x" * 600_000
        return 200, "X-Here: yes\r\n", b'{"a": 1}'


async def test_mail_is_sent_once_although_the_run_comes_again(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.01, 0.01))
    smtp = SmtpServer()
    async with listening(smtp.serve) as port:
        with platform.bdc.change() as configuration:
            for name, value in {"host": "127.0.0.1", "port": port, "security": "none", "sender": "us@here"}.items():
                configuration.settings.put(f"mail.{name}", value)
        then = 'APISofia().sendMail(["a@b.example"], "Hot", "It is hot: ñ")\nsofia.insert("Nowhere", {})'
        await platform.rules(a_rule(then=then))
        await platform.start()
        await platform.send("In", {"n": 1})
        (letter,) = await platform.until(lambda: platform.bdc.rules.dead_letters("rule"))
        assert letter.attempts == 3
        (mail,) = smtp.mails
        assert "To: a@b.example" in mail
        assert "From: us@here" in mail
        assert "Message-ID: <" in mail


async def test_what_a_mail_server_says():
    smtp = SmtpServer()
    async with listening(smtp.serve) as port:
        server = MailServer("127.0.0.1", port, "none", sender="us@here")
        smtp.answer = b"550 nobody"
        with pytest.raises(MailRefusedError):
            await server.send(["a@b"], "s", "b", message_id="1")
        smtp.answer = b"451 later"
        with pytest.raises(MailError):
            await server.send(["a@b"], "s", "b", message_id="1")
        with pytest.raises(MalformedMessageError):
            await server.send(["a@b"], "s\nBcc: c@d", "b", message_id="1")
    with pytest.raises(MailError):
        await server.send(["a@b"], "s", "b", message_id="1")
    with pytest.raises(NotConfiguredError):
        await MailServer().send(["a@b"], "s", "b", message_id="1")


async def test_scripts_fetch_and_post(platform):
    http = HttpServer()
    async with listening(http.serve) as port:
        with platform.bdc.change() as configuration:
            configuration.settings.put("rules.http_allow", list(LOCAL))
        then = f"""
sofia.insert("Out", {{"n": sofia.http("GET", "http://localhost:{port}/x").json()["a"]}})
sofia.http("POST", "http://127.0.0.1:{port}/y", {{"n": 1}})
"""
        await platform.rules(a_rule(then=then))
        await platform.start()
        await platform.send("In", {"n": 1})
        await platform.until_rows("Out", 1)
        await platform.until(lambda: len(http.requests) == 2)
        assert [(method, path, body) for method, path, _, body in http.requests] == [
            ("GET", "/x", ""),
            ("POST", "/y", '{"n": 1}'),
        ]


async def test_what_scripts_may_not_reach():
    http = HttpServer()

    async def resolve(host, port):
        return {"inside.example": ["10.0.0.1"], "both.example": ["10.0.0.1", "127.0.0.1"]}.get(host, ["127.0.0.1"])

    async with listening(http.serve) as port:
        for allow, host in (((), "127.0.0.1"), (("*",), "127.0.0.1"), (("*",), "inside.example"), (("a.b",), "c.d")):
            fetch = Fetcher(allow, resolve=resolve)
            with pytest.raises(AuthorizationError, match=r"rules\.http_allow"):
                await fetch("GET", f"http://{host}:{port}/")
        fetch = Fetcher(("*", "127.0.0.0/8"), resolve=resolve)
        assert (await fetch("GET", f"http://both.example:{port}/"))["status"] == 200
        with pytest.raises(AuthorizationError):
            await fetch("GET", f"http://127.0.0.1:{port}/to/http://inside.example/")
        with pytest.raises(MalformedMessageError):
            await fetch("GET", f"http://127.0.0.1:{port}/to/file:///etc/passwd")


async def test_bounds_of_requests():
    http = HttpServer()
    async with listening(http.serve) as port:
        fetch = Fetcher(LOCAL)
        there = f"http://127.0.0.1:{port}"
        answer = await fetch("GET", f"{there}/to/{there}/z", {"Authorization": "secret"})
        assert (answer["status"], answer["headers"]["x-here"]) == (200, "yes")
        assert http.requests[-1][2]["authorization"] == "secret"
        await fetch("GET", f"{there}/to/http://localhost:{port}/z", {"Authorization": "secret"})
        assert "authorization" not in http.requests[-1][2]
        for method, url, headers, error in (
            ("GET", f"{there}/large", {}, LimitError),
            ("GET", f"{there}/round", {}, LimitError),
            ("TRACE", there, {}, MalformedMessageError),
            ("GET", "file:///etc/passwd", {}, MalformedMessageError),
            ("GET", "http://user:secret@127.0.0.1/", {}, MalformedMessageError),
            ("GET", there, {"Host": "other"}, MalformedMessageError),
            ("GET", there, {"X": "a\r\nY: b"}, MalformedMessageError),
            ("GET", "http://127.0.0.1:1/", {}, HttpError),
        ):
            with pytest.raises(error):
                await fetch(method, url, headers)


def test_the_list_of_hosts():
    allow = AllowList(["api.example.org", "*.example.com", "10.0.0.0/8"])
    assert allow.allows("api.example.org", "93.184.216.34")
    assert allow.allows("a.b.example.com", "93.184.216.34")
    assert allow.allows("intranet", "10.1.2.3")
    assert allow.allows("API.example.org.", "10.1.2.3")
    assert not allow.allows("example.com", "93.184.216.34")
    assert not allow.allows("badexample.com", "93.184.216.34")
    assert not allow.allows("api.example.org", "192.168.1.1")
    assert not allow.allows("api.example.org", "169.254.169.254")
    assert not allow.allows("intranet", "93.184.216.34")
    assert not allow.allows("api.example.org", "::ffff:192.168.1.1")
