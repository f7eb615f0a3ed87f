"""Mail of scripts, through the SMTP server of the settings ``mail.*``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib

from sib.errors import ConfigurationError, MalformedMessageError, NotConfiguredError, SibError

TIMEOUT_S = 20.0
SECURITIES = ("starttls", "tls", "none")


class MailError(SibError):
    """The mail server was not reached, or cannot take the mail now."""

    code, status, is_retryable = "rules.mail", 502, True


class MailRefusedError(SibError):
    """The mail server will never take this mail."""

    code = "rules.mail_refused"


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail goes to."""

    host: str = ""
    port: int = 587
    security: str = "starttls"
    user: str = ""
    password_file: str = ""
    sender: str = ""

    async def send(self, to: Sequence[str], subject: str, body: str, *, message_id: str) -> None:
        """Send one mail. The same ``message_id`` again is the same mail.

        Raises:
            NotConfiguredError: there is no mail server. MailError: it may work later. MailRefusedError: it never will.
            MalformedMessageError: it is no mail. ConfigurationError: the password cannot be read.
        """
        if not self.host or not self.sender:
            raise NotConfiguredError("scripts cannot send mail: set mail.host and mail.sender")
        message = self._message(to, subject, body, message_id)
        try:
            await aiosmtplib.send(
                message,
                hostname=self.host,
                port=self.port,
                username=self.user or None,
                password=self._password(),
                use_tls=self.security == "tls",
                start_tls=self.security == "starttls",
                timeout=TIMEOUT_S,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refused.code for refused in error.recipients]
            raise _error(max(codes, default=550), "the mail server refused every recipient") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _error(error.code, f"the mail server answered {error.code}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailError(f"the mail server {self.host} was not reached ({type(error).__name__})") from None

    def _message(self, to: Sequence[str], subject: str, body: str, message_id: str) -> EmailMessage:
        message = EmailMessage()
        try:
            message["From"] = self.sender
            message["To"] = ", ".join(to)
            message["Subject"] = subject
            message["Message-ID"] = f"<{message_id}@sofia2>"
            message.set_content(body)
        except ValueError as error:
            raise MalformedMessageError(f"this is no mail: {error}") from None
        return message

    def _password(self) -> str | None:
        if not self.user:
            return None
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"mail.password_file cannot be read: {error.strerror}") from None


def _error(code: int, sentence: str) -> SibError:
    return MailRefusedError(sentence) if code >= 500 else MailError(sentence)
