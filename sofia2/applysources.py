"""What a declaration takes from elsewhere: files beside the applied one, and passwords from files and variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sofia2.applyfile import Declared
from sofia2.filereaders import LocatedText
from sofia2.yamlnodes import FILE_BYTES_MAX, problem_at

PASSWORD_KEYS = ("password", "password_hash", "password_file", "password_env")


def read_file_text(folder: Path, path: LocatedText) -> str:
    """The text of a file, character for character; a relative path starts at the folder of the applied file.

    Raises:
        FileProblems: it cannot be read, is no UTF-8 text or is larger than 16 MiB.
    """
    try:
        with (folder / path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) <= FILE_BYTES_MAX:
            return content.decode("utf-8")
        reason: str | None = f"it is larger than {FILE_BYTES_MAX} bytes"
    except OSError as error:
        reason = error.strerror
    except ValueError:
        reason = "it is no UTF-8 text"
    raise problem_at(path.line, f"the file {str(path)!r} cannot be read: {reason}.")


def declared_password(declared: Declared, folder: Path, environment: Mapping[str, str]) -> str | None:
    """The password of a declared user, wherever it stands; None if none was given.

    Raises:
        FileProblems: it is empty, or its file or variable is not there.
    """
    given = declared.given
    if "password" in given:
        password, line = str(given["password"]), declared.line_of("password")
    elif "password_env" in given:
        password, line = environment.get(given["password_env"], ""), declared.line_of("password_env")
    elif "password_file" in given:
        line = declared.line_of("password_file")
        password = read_file_text(folder, given["password_file"]).removesuffix("\n").removesuffix("\r")
    else:
        return None
    if not password:
        raise problem_at(line, "the password is empty or not set.")
    return password
