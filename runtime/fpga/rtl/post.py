"""The post unit: accumulator tiles become stored values.

Three parts walk through a `post` each at its own pace: one fetches the residual's planes, one feeds accumulators to the lanes,
`post_lanes` of them a step, and one writes finished tiles as planes. So a tile takes as many cycles as the slowest of them, and tiles and
instructions follow each other without gaps; only instructions that change formats wait until everything before them is written.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import BY_NAME, RESIDUAL_BITS
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import READ_LATENCY, instruction
from qcc.runtime.fpga.rtl.post_residual import FetchResidual
from qcc.runtime.fpga.rtl.post_write import WritePlanes, finished_step
from qcc.runtime.fpga.rtl.requantize import (
    ADDEND,
    REQUANTIZE_LATENCY,
    RESIDUAL_LATENCY,
    SCALE,
    AddResidual,
    Requantize,
    Zeros,
)

WAITING = 4  # instructions that each part may be behind
GREATEST_LATENCY = 3
FINISHED_STEPS = 32  # steps on their way through the lanes, or behind them

_ENDS = data.StructLayout({"window": 1, "group": 1, "all": 1})
"""What a tile ends: its window, its group of pixels; `all`: its group is the instruction's last."""


class Feed(wiring.Component):
    """Accumulators, parameters and residuals to the lanes, and what comes out of these.

    A tile that ends a window starts when there is room for its results, so that nothing in the lanes ever has to wait.
    """

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        super().__init__(
            {
                "posts": In(stream.Signature(instruction("post"))),
                "tiles": In(stream.Signature(interfaces.tile(c))),
                "parameters": Out(interfaces.parameter_read()),
                "residuals": In(stream.Signature(interfaces.tile(c, RESIDUAL_BITS))),
                "add": In(1),
                "by": In(SCALE),
                "addend": In(ADDEND),
                "sum_by": In(SCALE),
                "finished": Out(stream.Signature(finished_step(c))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, c = Module(), self.configuration
        size = interfaces.steps(c)
        slots = max(FINISHED_STEPS, 4 * size)
        m.submodules.results = results = SyncFIFO(width=finished_step(c).size, depth=slots)

        # Where we are. A tile has steps enough to find out meanwhile what the next one ends.
        now, busy, step = Signal(instruction("post")), Signal(), Signal(range(size))
        tiles_left, groups_left, window_left = Signal.like(now.tiles), Signal.like(now.groups), Signal.like(now.window)
        entry, room, has_room = Signal.like(now.parameter), Signal(range(slots + 1), init=slots), Signal()
        ends, next_ends = Signal(_ENDS), Signal(_ENDS)
        m.d.sync += [
            next_ends.window.eq(Mux(ends.window, now.window == 1, window_left == 2)),
            next_ends.group.eq(Mux(ends.group, now.tiles == 1, tiles_left == 2)),
            next_ends.all.eq(Mux(ends.group, groups_left == 2, groups_left == 1)),
            has_room.eq(room >= size),
        ]
        go, starts, last_step, finishes = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            starts.eq(step == 0),
            last_step.eq(step == size - 1),
            go.eq(busy & self.tiles.valid & (~starts | ~ends.window | (has_room & (~self.add | self.residuals.valid)))),
            finishes.eq(go & last_step & ends.group & ends.all),
            self.tiles.ready.eq(go & last_step),
            self.residuals.ready.eq(go & last_step & ends.window & self.add),
            self.posts.ready.eq(~busy | finishes),
        ]
        m.d.sync += room.eq(room - Mux(go & starts & ends.window, size, 0) + (results.r_rdy & results.r_en))
        with m.If(go):
            m.d.sync += step.eq(Mux(last_step, 0, step + 1))
        with m.If(go & last_step):
            m.d.sync += [ends.eq(next_ends), tiles_left.eq(tiles_left - 1), window_left.eq(window_left - 1)]
            with m.If(ends.window):
                m.d.sync += [window_left.eq(now.window), entry.eq(entry + c.rows)]
            with m.If(ends.group):
                m.d.sync += [tiles_left.eq(now.tiles), entry.eq(now.parameter), groups_left.eq(groups_left - 1), busy.eq(~ends.all)]
        with m.If(self.posts.valid & self.posts.ready):
            head = self.posts.payload
            m.d.sync += [now.eq(head), busy.eq(1), entry.eq(head.parameter), groups_left.eq(head.groups)]
            m.d.sync += [tiles_left.eq(head.tiles), window_left.eq(head.window)]
            m.d.sync += [ends.window.eq(head.window == 1), ends.group.eq(head.tiles == 1), ends.all.eq(head.groups == 1)]
        m.d.sync += self.parameters.address.eq(entry + step // (c.columns // c.post_lanes))

        # Through the lanes.
        marks = Signal(data.StructLayout({"valid": 1, "starts": 1, "ends": 1, "group": 1, "all": 1, "step": step.shape()}))
        first_of_window = Signal(init=1)
        with m.If(go & last_step):
            m.d.sync += first_of_window.eq(ends.window)
        m.d.comb += [
            marks.valid.eq(go),
            marks.starts.eq(first_of_window),
            marks.ends.eq(go & ends.window),
            marks.group.eq(ends.group),
            marks.all.eq(ends.group & ends.all),
            marks.step.eq(step),
        ]
        chosen = Signal(data.ArrayLayout(signed(32), c.post_lanes), reset_less=True)
        with m.Switch(step):
            for i in range(size):
                with m.Case(i):
                    m.d.sync += [chosen[lane].eq(value) for lane, value in enumerate(interfaces.lanes_of(c, self.tiles.payload, i))]
        accumulators = later(m, chosen, READ_LATENCY)
        scaled: list[Any] = []
        for lane in range(c.post_lanes):
            m.submodules[f"requantize_{lane}"] = unit = Requantize()
            m.d.comb += [unit.accumulator.eq(accumulators[lane]), unit.parameter.eq(self.parameters.data), unit.by.eq(self.by)]
            scaled.append(unit.result)
        marks = later(m, marks, 1 + READ_LATENCY + REQUANTIZE_LATENCY, reset=True)
        greatest = self._greatest(m, marks, scaled)
        marks = later(m, marks, GREATEST_LATENCY, reset=True)

        # Results, with a residual or without.
        done = Signal(finished_step(c))
        m.d.comb += [done.group.eq(marks.group), done.all.eq(marks.all)]
        m.d.comb += [done.values[lane].eq(value) for lane, value in enumerate(greatest)]
        added = self._add_residuals(m, go & ends.window, step, marks.ends, greatest)
        summed = Signal.like(marks)  # only where one is added: results without one may be written long before they would come here
        m.d.comb += [summed.eq(marks), summed.ends.eq(marks.ends & self.add)]
        added_marks = later(m, summed, RESIDUAL_LATENCY, reset=True)
        with m.If(self.add):
            m.d.comb += [done.group.eq(added_marks.group), done.all.eq(added_marks.all)]
            m.d.comb += [done.values[lane].eq(value) for lane, value in enumerate(added)]
        m.d.comb += [
            results.w_en.eq(Mux(self.add, added_marks.ends, marks.ends)),
            results.w_data.eq(done),
            self.finished.payload.eq(results.r_data),
            self.finished.valid.eq(results.r_rdy),
            results.r_en.eq(self.finished.ready),
        ]
        return m

    def _greatest(self, m: Module, marks: Any, values: list[Any]) -> list[Any]:
        """The greatest of the values that each place had since the window's first tile, `GREATEST_LATENCY` cycles later.

        A place comes again after `limits.LEAST_STEPS` cycles or more, when its new value is kept.
        """
        c = self.configuration
        kept = [Signal(data.ArrayLayout(signed(32), c.post_lanes), name=f"kept_{i}", reset_less=True) for i in range(interfaces.steps(c))]
        before = Signal(kept[0].shape(), reset_less=True)
        with m.Switch(marks.step):
            for i, held in enumerate(kept):
                with m.Case(i):
                    m.d.sync += before.eq(held)
        values, marks = [later(m, value) for value in values], later(m, marks, reset=True)
        greater = [later(m, before[lane] - value)[-1] for lane, value in enumerate(values)]  # by its sign: one carry chain
        values, before, marks = [later(m, value) for value in values], later(m, before), later(m, marks, reset=True)
        greatest = Signal(kept[0].shape(), reset_less=True)
        for lane, value in enumerate(values):
            m.d.sync += greatest[lane].eq(Mux(marks.starts | greater[lane], value, before[lane]))
        marks = later(m, marks, reset=True)
        for i, held in enumerate(kept):
            with m.If(marks.valid & (marks.step == i)):
                m.d.sync += held.eq(greatest)
        return [greatest[lane] for lane in range(c.post_lanes)]

    def _add_residuals(self, m: Module, take: Any, step: Any, valid: Any, values: list[Any]) -> list[Any]:
        """Sums of `values` and the residuals that were taken when their accumulators started, `RESIDUAL_LATENCY` cycles later."""
        c = self.configuration
        layout = data.ArrayLayout(signed(RESIDUAL_BITS), c.post_lanes)
        m.submodules.waiting = waiting = SyncFIFO(width=layout.size, depth=FINISHED_STEPS)
        chosen = Signal(layout)
        with m.Switch(step):
            for i in range(interfaces.steps(c)):
                with m.Case(i):
                    m.d.comb += [chosen[lane].eq(value) for lane, value in enumerate(interfaces.lanes_of(c, self.residuals.payload, i))]
        residual = data.View(layout, waiting.r_data)
        m.d.comb += [waiting.w_en.eq(take & self.add), waiting.w_data.eq(chosen), waiting.r_en.eq(valid & self.add)]
        m.submodules.zeros = zeros = Zeros()
        m.d.comb += zeros.addend.eq(self.addend)
        sums: list[Any] = []
        for lane, value in enumerate(values):
            m.submodules[f"residual_{lane}"] = unit = AddResidual()
            m.d.comb += [
                unit.value.eq(value),
                unit.residual.eq(residual[lane]),
                unit.addend.eq(self.addend),
                unit.zeros.eq(zeros.zeros),
                unit.by.eq(self.sum_by),
            ]
            sums.append(unit.result)
        return sums


class Post(wiring.Component):
    """The post unit."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        bank_read = interfaces.bank_read(c)
        super().__init__(
            {
                **interfaces.unit(),
                "tiles": In(stream.Signature(interfaces.tile(c))),
                "parameters": Out(interfaces.parameter_read()),
                "residuals": Out(bank_read),
                "output_read": Out(bank_read),
                "output_write": Out(interfaces.banks_write(c)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, c = Module(), self.configuration
        m.submodules.fetch = fetch = FetchResidual(c)
        m.submodules.feed = feed = Feed(c)
        m.submodules.write = write = WritePlanes(c)
        requantize, scale, residual = (Signal(instruction(n)) for n in ("post_requantize", "post_residual_scale", "post_residual"))

        # An instruction waits in a register, with what it is. A post goes to all parts at once.
        head, waits, unfinished = Signal(instruction("post")), Signal(), Signal(range(2 * WAITING))
        modes = {"post_requantize": requantize, "post_residual_scale": scale, "post_residual": residual}
        is_post, is_mode = Signal(), {name: Signal(name=f"is_{name}") for name in modes}
        sends, sets, idle = Signal(), Signal(), Signal()
        m.d.comb += self.instructions.ready.eq(~waits)
        with m.If(self.instructions.valid & ~waits):
            opcode = data.View(instruction("post"), self.instructions.payload).opcode
            m.d.sync += [head.eq(self.instructions.payload), waits.eq(1), is_post.eq(opcode == BY_NAME["post"].opcode)]
            m.d.sync += [flag.eq(opcode == BY_NAME[name].opcode) for name, flag in is_mode.items()]
        with m.If(sends | sets):
            m.d.sync += waits.eq(0)
        parts, room = (fetch, feed, write), []
        for name, part in zip(("fetch", "feed", "write"), parts, strict=True):
            m.submodules[f"{name}_queue"] = queue = SyncFIFO(width=head.shape().size, depth=WAITING)
            wanted = residual.enable if part is fetch else 1
            m.d.comb += [queue.w_data.eq(head), queue.w_en.eq(sends & wanted)]
            m.d.comb += [part.posts.payload.eq(queue.r_data), part.posts.valid.eq(queue.r_rdy), queue.r_en.eq(part.posts.ready)]
            room.append(queue.w_rdy)
        m.d.comb += [
            idle.eq(unfinished == 0),
            sends.eq(waits & is_post & room[0] & room[1] & room[2] & (unfinished != 2 * WAITING - 1)),
            sets.eq(waits & ~is_post & idle),
            self.done.eq(write.done | later(m, sets, reset=True)),
        ]
        m.d.sync += unfinished.eq(unfinished + sends - write.done)
        for name, mode in modes.items():
            with m.If(sets & is_mode[name]):
                m.d.sync += mode.eq(data.View(instruction(name), head.as_value()))

        # What the modes mean for the parts.
        m.d.comb += [
            feed.add.eq(residual.enable),
            feed.by.half_away.eq(requantize.rounding),
            feed.by.zero_point.eq(requantize.zero_point),
            feed.by.low.eq(requantize.low),
            feed.by.high.eq(requantize.high),
            *(feed.addend[name].eq(scale[name]) for name in ADDEND.members),
            feed.sum_by.shift.eq(scale.shift),
            feed.sum_by.half_away.eq(requantize.rounding),
            feed.sum_by.zero_point.eq(residual.zero_point),
            feed.sum_by.low.eq(residual.low),
            feed.sum_by.high.eq(residual.high),
            *(fetch.mode[name].eq(residual[name]) for name in fetch.mode.shape().members),
            write.bits.eq(requantize.bits),
            write.channels.eq(requantize.channels),
        ]
        for left, right in (
            (wiring.flipped(self.tiles), feed.tiles),
            (feed.parameters, wiring.flipped(self.parameters)),
            (fetch.buffer, wiring.flipped(self.residuals)),
            (fetch.residuals, feed.residuals),
            (feed.finished, write.finished),
            (write.read, wiring.flipped(self.output_read)),
            (write.write, wiring.flipped(self.output_write)),
        ):
            wiring.connect(m, left, right)
        return m
