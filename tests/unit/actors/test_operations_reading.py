"""Where the router reads the texts of queries."""

import threading

import pytest

from actors.operations import TEXT_CHARS_AT_ONCE_MAX, read_text
from sib.errors import QuerySyntaxError


async def test_a_long_text_is_read_beside_the_event_loop():
    here = threading.get_ident()
    assert await read_text("x" * TEXT_CHARS_AT_ONCE_MAX, lambda text: threading.get_ident()) == here
    assert await read_text("x" * (TEXT_CHARS_AT_ONCE_MAX + 1), lambda text: threading.get_ident()) != here


@pytest.mark.parametrize("size", [1, TEXT_CHARS_AT_ONCE_MAX + 1])
async def test_a_refusal_comes_back_from_either_place(size):
    def read(text, ontology):
        raise QuerySyntaxError(f"{ontology}: {len(text)}")

    with pytest.raises(QuerySyntaxError, match=f"O: {size}"):
        await read_text("x" * size, read, "O")
