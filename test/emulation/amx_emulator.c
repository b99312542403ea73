/* AMX in user space: a SIGILL handler that decodes and executes the AMX instructions this machine does not have.
 *
 * Semantics: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (TILELOADD, TDPBUSD, TDPBF16PS, ...). What the
 * manual answers with #UD or #GP ends the process with a message: code that would fault on a real machine must not pass here.
 * Tile state is per thread, as in hardware. Anything that is no AMX instruction goes to the handler that was there before.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

struct state {
    uint8_t palette, start_row;
    uint16_t row_bytes[TILES]; /* colsb */
    uint8_t rows[TILES];
    uint8_t tile[TILES][ROWS][ROW_BYTES];
};

enum kind { LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD, TDPBF16PS, KINDS };

static const char *const names[KINDS] = {"ldtilecfg", "sttilecfg", "tilerelease", "tilezero", "tileloadd", "tileloaddt1",
                                         "tilestored", "tdpbssd",   "tdpbsud",     "tdpbusd",  "tdpbuud",   "tdpbf16ps"};
static int64_t counts[KINDS];
static struct sigaction before;

/* A pointer only: static thread-local storage of a library that is loaded late is scarce. */
static __thread struct state *thread_state __attribute__((tls_model("initial-exec")));

static void fail(const char *instruction, const char *what) {
    char text[256];
    int size = snprintf(text, sizeof text, "AMX emulator: %s: %s\n", instruction, what);
    if (write(2, text, (size_t)size)) abort();
    abort();
}

static struct state *state_of_thread(void) {
    if (!thread_state) {
        void *memory = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) fail("any", "no memory for tile state");
        thread_state = memory;
    }
    return thread_state;
}

/* --- instructions -------------------------------------------------------------------------------------------------------------- */

static void load_config(struct state *s, const uint8_t *config) {
    memset(s, 0, sizeof *s);
    if (config[0] == 0) return;
    if (config[0] != 1) fail("ldtilecfg", "palette is neither 0 nor 1");
    for (int i = 2; i < 16; i++)
        if (config[i]) fail("ldtilecfg", "a reserved byte is not 0");
    for (int i = 0; i < 16; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, config + 16 + 2 * i, 2);
        uint8_t rows = config[48 + i];
        if (i >= TILES ? row_bytes || rows : row_bytes > ROW_BYTES || rows > ROWS || !row_bytes != !rows)
            fail("ldtilecfg", "a tile is larger than the palette allows, or has rows without columns");
        if (i >= TILES) continue;
        s->row_bytes[i] = row_bytes;
        s->rows[i] = rows;
    }
    s->palette = config[0];
    s->start_row = config[1];
}

static void store_config(const struct state *s, uint8_t *config) {
    memset(config, 0, 64);
    if (!s->palette) return;
    config[0] = s->palette;
    config[1] = s->start_row;
    memcpy(config + 16, s->row_bytes, sizeof s->row_bytes);
    memcpy(config + 48, s->rows, sizeof s->rows);
}

static void check_tile(const struct state *s, int tile, const char *name) {
    if (!s->palette) fail(name, "no tile configuration is loaded");
    if (tile >= TILES || !s->rows[tile]) fail(name, "the tile is not configured");
}

static void load_tile(struct state *s, int tile, const uint8_t *memory, int64_t stride) {
    memset(s->tile[tile], 0, sizeof s->tile[tile]);
    for (int r = s->start_row; r < s->rows[tile]; r++) memcpy(s->tile[tile][r], memory + r * stride, s->row_bytes[tile]);
    s->start_row = 0;
}

static void store_tile(struct state *s, int tile, uint8_t *memory, int64_t stride) {
    for (int r = s->start_row; r < s->rows[tile]; r++) memcpy(memory + r * stride, s->tile[tile][r], s->row_bytes[tile]);
    s->start_row = 0;
}

static int32_t byte_value(uint8_t byte, int is_signed) { return is_signed ? (int8_t)byte : byte; }

static void clear_behind(struct state *s, int tile) {
    for (int r = 0; r < ROWS; r++)
        if (r >= s->rows[tile])
            memset(s->tile[tile][r], 0, ROW_BYTES);
        else
            memset(s->tile[tile][r] + s->row_bytes[tile], 0, (size_t)(ROW_BYTES - s->row_bytes[tile]));
}

/* c += a * b over bytes in quadruples; wraps. */
static void dot_bytes(struct state *s, int c, int a, int b, int a_signed, int b_signed) {
    for (int m = 0; m < s->rows[c]; m++)
        for (int k = 0; k < s->row_bytes[a] / 4; k++)
            for (int n = 0; n < s->row_bytes[c] / 4; n++) {
                uint32_t sum;
                memcpy(&sum, s->tile[c][m] + 4 * n, 4);
                for (int j = 0; j < 4; j++)
                    sum += (uint32_t)(byte_value(s->tile[a][m][4 * k + j], a_signed) * byte_value(s->tile[b][k][4 * n + j], b_signed));
                memcpy(s->tile[c][m] + 4 * n, &sum, 4);
            }
    clear_behind(s, c);
}

static float float_of_bf16(const uint8_t *bytes) {
    uint32_t word = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 24;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

/* c += a * b over bfloat16 in pairs: even and odd products are summed apart by fused multiply-adds and joined at the end. */
static void dot_bf16(struct state *s, int c, int a, int b) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(0x1f80 | 0x8040); /* no exceptions, round to nearest even, denormals are zero on both sides */
    for (int m = 0; m < s->rows[c]; m++)
        for (int n = 0; n < s->row_bytes[c] / 4; n++) {
            volatile float even = 0, odd = 0; /* volatile: nothing is contracted or reordered */
            for (int k = 0; k < s->row_bytes[a] / 4; k++) {
                const uint8_t *x = s->tile[a][m] + 4 * k, *w = s->tile[b][k] + 4 * n;
                even = __builtin_fmaf(float_of_bf16(x), float_of_bf16(w), even);
                odd = __builtin_fmaf(float_of_bf16(x + 2), float_of_bf16(w + 2), odd);
            }
            volatile float sum = even + odd, total;
            float old;
            memcpy(&old, s->tile[c][m] + 4 * n, 4);
            total = old + sum;
            float result = total;
            memcpy(s->tile[c][m] + 4 * n, &result, 4);
        }
    _mm_setcsr(mode);
    clear_behind(s, c);
}

static void dot(struct state *s, enum kind kind, int c, int a, int b) {
    const char *name = names[kind];
    check_tile(s, c, name);
    check_tile(s, a, name);
    check_tile(s, b, name);
    if (c == a || c == b || a == b) fail(name, "two of its tiles are one");
    if (s->row_bytes[c] % 4 || s->row_bytes[a] % 4 || s->row_bytes[b] % 4) fail(name, "a row is no multiple of 4 bytes");
    if (s->rows[b] != s->row_bytes[a] / 4 || s->rows[c] != s->rows[a] || s->row_bytes[c] != s->row_bytes[b])
        fail(name, "the shapes of its tiles do not fit");
    switch (kind) {
    case TDPBSSD: dot_bytes(s, c, a, b, 1, 1); break;
    case TDPBSUD: dot_bytes(s, c, a, b, 1, 0); break;
    case TDPBUSD: dot_bytes(s, c, a, b, 0, 1); break;
    case TDPBUUD: dot_bytes(s, c, a, b, 0, 0); break;
    default: dot_bf16(s, c, a, b);
    }
    s->start_row = 0;
}

/* --- decoding ------------------------------------------------------------------------------------------------------------------ */

static const int register_index[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                       REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

struct address {
    int64_t base, stride;
    int has_sib, size; /* size: bytes behind the ModRM byte */
};

static struct address decode_address(const uint8_t *modrm, const greg_t *registers, int x, int b, const uint8_t *end_of_modrm) {
    struct address found = {0, 0, 0, 0};
    const uint8_t *p = modrm + 1;
    int mod = *modrm >> 6, rm = *modrm & 7, base = rm | b << 3, no_base = 0;
    if (rm == 4) {
        int scale = *p >> 6, index = (*p >> 3 & 7) | x << 3;
        base = (*p & 7) | b << 3;
        no_base = mod == 0 && (*p & 7) == 5;
        if (index != 4) found.stride = (int64_t)((uint64_t)registers[register_index[index]] << scale);
        found.has_sib = 1;
        p++;
    }
    int32_t displacement = 0;
    int relative = mod == 0 && rm == 5;
    if (mod == 1) {
        displacement = (int8_t)*p;
        p++;
    } else if (mod == 2 || no_base || relative) {
        memcpy(&displacement, p, 4);
        p += 4;
    }
    found.base = displacement + (relative ? (int64_t)(intptr_t)p : no_base ? 0 : registers[register_index[base]]);
    found.size = (int)(p - end_of_modrm);
    return found;
}

/* Executes the instruction at `code`; its length, or 0 where it is none of AMX. */
static int execute(const uint8_t *code, const greg_t *registers) {
    if (code[0] != 0xc4) return 0;
    int r = !(code[1] >> 7), x = !(code[1] >> 6 & 1), b = !(code[1] >> 5 & 1), map = code[1] & 31;
    int w = code[2] >> 7, vvvv = ~code[2] >> 3 & 15, l = code[2] >> 2 & 1, pp = code[2] & 3; /* pp: none, 66, F3, F2 */
    uint8_t opcode = code[3], modrm = code[4];
    int mod = modrm >> 6, reg = (modrm >> 3 & 7) | r << 3, rm = modrm & 7;
    if (map != 2 || w || l) return 0;
    enum kind kind;
    if (opcode == 0x49 && mod != 3 && (modrm >> 3 & 7) == 0 && pp < 2) kind = pp ? STTILECFG : LDTILECFG;
    else if (opcode == 0x49 && modrm == 0xc0 && pp == 0) kind = TILERELEASE;
    else if (opcode == 0x49 && mod == 3 && rm == 0 && pp == 3) kind = TILEZERO;
    else if (opcode == 0x4b && mod != 3 && rm == 4 && pp) kind = (enum kind[]){0, TILELOADDT1, TILESTORED, TILELOADD}[pp];
    else if (opcode == 0x5e && mod == 3) kind = (enum kind[]){TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD}[pp];
    else if (opcode == 0x5c && mod == 3 && pp == 2) kind = TDPBF16PS;
    else return 0;
    struct state *s = state_of_thread();
    __atomic_add_fetch(&counts[kind], 1, __ATOMIC_RELAXED);
    struct address address = {0, 0, 0, 0};
    if (mod != 3) address = decode_address(code + 4, registers, x, b, code + 5);
    uint8_t *memory = (uint8_t *)(intptr_t)address.base;
    if ((opcode == 0x49 || opcode == 0x4b) && vvvv) fail(names[kind], "vvvv is not 1111b");
    switch (kind) {
    case LDTILECFG: load_config(s, memory); break;
    case STTILECFG: store_config(s, memory); break;
    case TILERELEASE: memset(s, 0, sizeof *s); break;
    case TILEZERO:
        check_tile(s, reg, names[kind]);
        memset(s->tile[reg], 0, sizeof s->tile[reg]);
        break;
    case TILELOADD:
    case TILELOADDT1:
        check_tile(s, reg, names[kind]);
        load_tile(s, reg, memory, address.stride);
        break;
    case TILESTORED:
        check_tile(s, reg, names[kind]);
        store_tile(s, reg, memory, address.stride);
        break;
    default: dot(s, kind, reg, rm | b << 3, vvvv);
    }
    return 5 + address.size;
}

static void on_illegal_instruction(int signal, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    int length = execute((const uint8_t *)u->uc_mcontext.gregs[REG_RIP], u->uc_mcontext.gregs);
    if (length) {
        u->uc_mcontext.gregs[REG_RIP] += length;
        return;
    }
    if (before.sa_flags & SA_SIGINFO && before.sa_sigaction)
        before.sa_sigaction(signal, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(signal);
    else
        sigaction(signal, &before, NULL); /* it happens again, without us */
}

/* Start emulating in this process; 0 on success. Calling it again does nothing, unless somebody else took the signal meanwhile. */
int amx_emulator_install(void) {
    struct sigaction action;
    if (sigaction(SIGILL, NULL, &action)) return -1;
    if (action.sa_flags & SA_SIGINFO && action.sa_sigaction == on_illegal_instruction) return 0;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGILL, &action, &before);
}

/* How many instructions called `name` were emulated since the start; -1 for an unknown name. */
int64_t amx_emulator_count(const char *name) {
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(name, names[i])) return __atomic_load_n(&counts[i], __ATOMIC_RELAXED);
    return -1;
}
