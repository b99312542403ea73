"""One memory port for fetch, load and store: a word per cycle.

Fetch comes first, then store, then load. None of them starves: fetch asks for no more than the units' queues take, and store has nothing
to write unless load has read. A register in front of memory and one behind it keep the paths to the pins short.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.interfaces import memory, reader, writer
from qcc.runtime.fpga.rtl.limits import PREFETCH_WORDS
from qcc.runtime.fpga.rtl.load_words import reads_ahead


class Arbiter(wiring.Component):
    """`idle` says that memory has accepted all requests that the parts got rid of: what is stored can be read by others."""

    def __init__(self, configuration: Configuration) -> None:
        self._reads = reads_ahead(configuration) + PREFETCH_WORDS
        bits = configuration.word_bits
        super().__init__(
            {"fetch": In(reader(bits)), "load": In(reader(bits)), "store": In(writer(bits)), "memory": Out(memory(bits)), "idle": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.owners = owners = fifo.SyncFIFO(width=1, depth=self._reads)  # of reads without an answer: 1 is load; never full
        fetch, load, store, request, answer = self.fetch, self.load, self.store, self.memory.request, self.memory.answer

        free = Signal()
        m.d.comb += [
            free.eq(~request.valid | request.ready),
            fetch.request.ready.eq(free),
            store.ready.eq(free & ~fetch.request.valid),
            load.request.ready.eq(free & ~fetch.request.valid & ~store.valid),
            owners.w_data.eq(~fetch.request.valid),
            owners.w_en.eq(free & (fetch.request.valid | (load.request.valid & ~store.valid))),
            self.idle.eq(~request.valid),
        ]
        with m.If(free):
            write = store.valid & ~fetch.request.valid
            read_address = Mux(fetch.request.valid, fetch.request.payload, load.request.payload)
            m.d.sync += [
                request.valid.eq(fetch.request.valid | load.request.valid | store.valid),
                request.payload.write.eq(write),
                request.payload.address.eq(Mux(write, store.payload.address, read_address)),
                request.payload.data.eq(store.payload.data),
            ]

        m.d.comb += owners.r_en.eq(answer.valid)
        m.d.sync += [fetch.answer.valid.eq(answer.valid & ~owners.r_data), load.answer.valid.eq(answer.valid & owners.r_data)]
        word = Signal.like(answer.payload)
        m.d.sync += word.eq(answer.payload)
        m.d.comb += [fetch.answer.payload.eq(word), load.answer.payload.eq(word)]
        return m
