// The testbench of testbench.py with a memory, for rtl_simulation.py. Compiled together with what Verilator made of it.
//
// The memory accepts a request per cycle and answers reads in order, `latency` cycles later. With a seed other than 0 it is unsteady:
// it refuses some requests and answers some reads late.

#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "Vtestbench.h"

#define VISIBLE __attribute__((visibility("default")))

namespace {

enum Status { running = 0, finished = 1, outside = 2 };

struct Answer {
    uint64_t due;
    uint8_t word[WORD_BYTES];
};

struct Simulation {
    VerilatedContext context;
    Vtestbench top{&context};
    uint8_t *dram;
    uint64_t words, stream;  // of memory, and where the instructions begin
    uint64_t latency, random;
    std::deque<Answer> answers;
    std::vector<uint64_t> events;  // cycle << 8 | done << 4 | accepted
    // what `qcc_rtl_counters` reports, in this order
    uint64_t cycles = 0, reads = 0, writes = 0, instruction_reads = 0, address = 0;

    bool now_and_then() {  // xorshift64; true once in four
        if (!random) return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return (random >> 33) % 4 == 0;
    }

    void clock(int level) {
        top.clk = level;
        top.eval();
    }

    Status cycle() {
        top.request_ready = !now_and_then();
        top.answer_valid = !answers.empty() && answers.front().due <= cycles && !now_and_then();
        if (top.answer_valid) {
            std::memcpy(&top.answer_data, answers.front().word, WORD_BYTES);
            answers.pop_front();
        }
        clock(0);
        if (uint64_t seen = top.done << 4 | top.accepted) events.push_back(cycles << 8 | seen);
        if (top.request_valid && top.request_ready) {
            address = top.request_address;
            if (address >= words) return outside;
            uint8_t *place = dram + address * WORD_BYTES;
            if (top.request_write) {
                std::memcpy(place, &top.request_data, WORD_BYTES);
                writes++;
            } else {
                answers.push_back({cycles + latency, {}});
                std::memcpy(answers.back().word, place, WORD_BYTES);
                (address >= stream ? instruction_reads : reads)++;
            }
        }
        bool end = top.finished;
        clock(1);
        cycles++;
        top.start = 0;
        return end ? finished : running;
    }
};

}  // namespace

extern "C" {

VISIBLE Simulation *qcc_rtl_create(uint8_t *dram, uint64_t words, uint64_t stream, uint64_t latency, uint64_t seed) {
    Simulation *s = new Simulation{};
    s->dram = dram;
    s->words = words;
    s->stream = stream;
    s->latency = latency;
    s->random = seed;
    s->top.rst = 1;
    s->clock(0);
    s->clock(1);
    s->top.rst = 0;
    s->top.program_address = stream;
    s->top.start = 1;
    return s;
}

// Simulate up to `cycles` cycles.
VISIBLE int qcc_rtl_run(Simulation *s, uint64_t cycles) {
    Status status = running;
    while (cycles-- && status == running) status = s->cycle();
    return status;
}

VISIBLE const uint64_t *qcc_rtl_counters(Simulation *s) { return &s->cycles; }

VISIBLE const uint64_t *qcc_rtl_events(Simulation *s, uint64_t *count) {
    *count = s->events.size();
    return s->events.data();
}

VISIBLE void qcc_rtl_destroy(Simulation *s) { delete s; }
}
