"""An answer's head and body go out together, in their order, and nothing is kept back."""

import asyncio
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from service.processes.joined import MOST_BYTES, Joined


class Recorder:
    """What a transport was told to send, piece by piece."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.late: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes) -> None:
        (self.late if self.ended else self.sent).append(bytes(data))

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return bool(self.ended)


def joined(recorder: Recorder) -> Joined:
    return Joined(cast(Any, recorder), asyncio.get_running_loop())


def test_a_head_goes_out_with_its_body() -> None:
    async def write() -> None:
        recorder = Recorder()
        transport = joined(recorder)
        for number in (1, 2):
            transport.write(b"head")
            transport.write(b"body%d" % number)
        await asyncio.sleep(0)
        assert recorder.sent == [b"headbody1", b"headbody2"]

    asyncio.run(write())


def test_a_head_whose_body_takes_long_does_not_wait_for_it() -> None:
    async def write() -> None:
        recorder = Recorder()
        transport = joined(recorder)
        transport.write(b"head")
        assert (recorder.sent, transport.get_write_buffer_size()) == ([], 4)
        await asyncio.sleep(0)
        assert (recorder.sent, transport.get_write_buffer_size()) == ([b"head"], 0)
        transport.write(b"and again")
        await asyncio.sleep(0)
        assert recorder.sent[1:] == [b"and again"]

    asyncio.run(write())


def test_a_large_body_is_not_copied() -> None:
    async def write() -> None:
        recorder = Recorder()
        transport, large = joined(recorder), bytes(MOST_BYTES + 1)
        transport.write(b"head")
        transport.write(large)
        transport.write(large)
        assert recorder.sent == [b"head", large, large]

    asyncio.run(write())


def test_what_was_written_goes_out_before_the_end_and_not_after_an_abort() -> None:
    async def write() -> None:
        closed, aborted = Recorder(), Recorder()
        for recorder, end in ((closed, Joined.close), (aborted, Joined.abort)):
            transport = joined(recorder)
            transport.write(b"last words")
            end(transport)
            assert transport.is_closing()
            await asyncio.sleep(0)
            assert recorder.late == []
        assert (closed.sent, closed.ended) == ([b"last words"], "closed")
        assert (aborted.sent, aborted.ended) == ([], "aborted")

    asyncio.run(write())


@given(st.lists(st.one_of(st.none(), st.integers(0, 5), st.sampled_from((MOST_BYTES, MOST_BYTES + 1)))))
def test_all_that_is_written_is_sent_once_and_in_order(steps: list[int | None]) -> None:
    async def write() -> None:
        recorder, expected = Recorder(), b""
        transport = joined(recorder)
        for number, size in enumerate(steps):
            if size is None:
                await asyncio.sleep(0)
            else:
                data = bytes([number % 251]) * size
                expected += data
                transport.write(data)
        await asyncio.sleep(0)
        assert b"".join(recorder.sent) == expected

    asyncio.run(write())
