/* AMX instructions as gcc encodes them, one function each, for tests of the emulator. */
#include <immintrin.h>
#include <stdint.h>

/* `config` [64], a [16 x 64], b [16 x 64], c [16 x 16] of 32 bits, all with rows of 64 bytes; c += a * b. */
#define PRODUCT(name)                                                                                                                \
    void name(const void *config, const void *a, const void *b, void *c) {                                                           \
        _tile_loadconfig(config);                                                                                                    \
        _tile_loadd(5, c, 64);                                                                                                       \
        _tile_loadd(6, a, 64);                                                                                                       \
        _tile_stream_loadd(7, b, 64);                                                                                                \
        _tile_##name(5, 6, 7);                                                                                                       \
        _tile_stored(5, c, 64);                                                                                                      \
        _tile_release();                                                                                                             \
    }
PRODUCT(dpbssd)
PRODUCT(dpbsud)
PRODUCT(dpbusd)
PRODUCT(dpbuud)
PRODUCT(dpbf16ps)

void store_config(const void *config, void *stored, void *released) {
    _tile_loadconfig(config);
    _tile_storeconfig(stored);
    _tile_release();
    _tile_storeconfig(released);
}

/* Copies 16 rows of 64 bytes from `from`, `stride` bytes apart, to `to` by six forms of address, 1 KB each. */
void addresses(const void *config, const char *from, int64_t stride, char *to) {
    _tile_loadconfig(config);
    register const char *r13 __asm__("r13") = from - 0x40;
    register int64_t r12 __asm__("r12") = stride / 4;
    __asm__ volatile("tileloadd 0x40(%0,%1,4), %%tmm3" : : "r"(r13), "r"(r12) : "memory");
    _tile_stored(3, to, 64);
    register const char *rsp_like __asm__("r12") = from;
    register int64_t rbp __asm__("r9") = stride;
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm3" : : "r"(rsp_like), "r"(rbp) : "memory");
    _tile_stored(3, to + 1024, 64);
    register const char *far __asm__("rdi") = from - 0x12340;
    register int64_t half __asm__("r15") = stride / 2;
    __asm__ volatile("tileloadd 0x12340(%0,%1,2), %%tmm3" : : "r"(far), "r"(half) : "memory");
    _tile_stored(3, to + 2048, 64);
    __asm__ volatile("tileloadd (%0), %%tmm3" : : "r"(from) : "memory"); /* no index: every row is the first */
    _tile_stored(3, to + 3072, 64);
    register const char *backward __asm__("r8") = from + 15 * stride;
    register int64_t minus __asm__("rbx") = -stride;
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm3" : : "r"(backward), "r"(minus) : "memory");
    _tile_stored(3, to + 4096, 64);
    _tile_zero(3);
    _tile_stored(3, to + 5120, 64);
    _tile_release();
}

/* Loads its own configuration from memory addressed by the instruction pointer, and stores what was loaded. */
void relative_config(void *stored) {
    static const unsigned char config[64] __attribute__((used, aligned(64))) = {1, [16] = 64, [48] = 16};
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
    _tile_storeconfig(stored);
    _tile_release();
}
