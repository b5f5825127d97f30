/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Counts the instructions of one inference, by class, and the cache misses of a simple model of L1D and L2.
 * This one file is loaded into QEMU, which is GPL-2.0-or-later, and so is this file; the rest of edgecnn is Apache-2.0.
 *
 * The guest marks what is counted with sched_yield(2). Its first one arms the counting: until then the guest runs as fast
 * as without. The next one opens a window, the one after it closes it and writes one line of JSON, and so on. A
 * translation block is a straight run of instructions; how often it ran, times what it holds, is the count.
 *
 * Plugin interface version 1 (QEMU 4.2 to 8.2, docs/devel/tcg-plugins.rst), declared here so that no header is needed.
 * Arguments: out=FILE, yield=NUMBER (of the guest's system call), classes=a64|none, and, for the caches, l1=SETS:WAYS,
 * l2=SETS:WAYS (line of 64 bytes, least recently used goes first, a store allocates).
 *
 * It is in LD_PRELOAD as well, so that the guest, which gets both from QEMU, sees neither this machine's clock nor the
 * number of its core: ONNX Runtime does some bookkeeping whenever so many seconds have passed, and asks before each layer
 * which core it is on. The clock goes on by a microsecond whenever it is read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;
typedef void (*tb_translated)(plugin_id, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned cpu, void *data);
typedef void (*accessed)(unsigned cpu, uint32_t info, uint64_t address, void *data);
typedef void (*called)(plugin_id, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, tb_translated);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t step);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, accessed, int flags, int kind, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, called);
extern void qemu_plugin_reset(plugin_id, void (*then)(plugin_id));
enum { ADD_U64 = 0, NO_REGISTERS = 0, LOADS_AND_STORES = 3 };

EXPORT int qemu_plugin_version = 1;

enum { ALU, MULTIPLY, BRANCH, LOAD, STORE, VECTOR_LOAD, VECTOR_STORE, VECTOR, VECTOR_MAC, DOT, MATRIX, CLASSES };
static const char *const names[CLASSES] = {"alu",         "multiply",     "branch", "load",       "store", "vector_load",
                                           "vector_store", "vector", "vector_mac", "dot",   "matrix"};

/* The class of an A64 instruction: Arm ARM DDI 0487, C4.1. */
static int classify(uint32_t i) {
    bool vector = i >> 26 & 1;
    switch (i >> 25 & 15) {
    case 8: case 9: return ALU;
    case 10: case 11: return BRANCH;
    case 4: case 6: case 12: case 14: {
        bool load = i >> 22 & 1;
        if ((i & 0x3b000000) == 0x18000000)
            load = true; /* of a literal */
        else if ((i >> 28 & 3) == 3 && !vector)
            load = (i >> 22 & 3) != 0;
        return vector ? (load ? VECTOR_LOAD : VECTOR_STORE) : (load ? LOAD : STORE);
    }
    case 5: case 13: return (i >> 24 & 31) == 27 ? MULTIPLY : ALU; /* three sources */
    case 7: case 15:
        if ((i & 0x9f20fc00) == 0x0e009400 || (i & 0x9f00f400) == 0x0f00e000 || (i & 0x9f20fc00) == 0x0e009c00)
            return DOT; /* SDOT UDOT; by element; USDOT */
        if ((i & 0x9f20f400) == 0x0e00a400)
            return MATRIX; /* SMMLA UMMLA USMMLA */
        if ((i & 0x9f20fc00) == 0x0e209400 || (i & 0x9f20dc00) == 0x0e208000 || (i & 0x9f20fc00) == 0x0e20cc00 ||
            (i & 0x9f009400) == 0x0f000000 || (i & 0x5f000000) == 0x1f000000)
            return VECTOR_MAC; /* MLA MLS; SMLAL UMLAL SMLSL UMLSL; FMLA FMLS; by element; scalar FMADD */
        return VECTOR;
    default: return ALU;
    }
}

struct block {
    uint64_t runs, before;
    uint32_t held[CLASSES], all;
    struct block *next;
};
static struct block *blocks;

struct cache {
    uint64_t *tags, sets, ways, misses;
};
static struct cache l1, l2;
static bool a64, armed, open_window;
static int64_t yield_number;
static FILE *out;

/* Whether a line is in the cache; it is afterwards. Each set is ordered, the most recently used first. */
static bool touch(struct cache *c, uint64_t line) {
    uint64_t *set = c->tags + line % c->sets * c->ways, way = 0;
    if (set[0] == line + 1)
        return true;
    while (way < c->ways && set[way] != line + 1)
        way++;
    bool hit = way < c->ways;
    if (!hit)
        way = c->ways - 1;
    memmove(set + 1, set, way * sizeof *set);
    set[0] = line + 1;
    c->misses += !hit && open_window;
    return hit;
}

static void access_memory(unsigned cpu, uint32_t info, uint64_t address, void *data) {
    uint64_t last = address + (UINT64_C(1) << (info & 15)) - 1;
    for (uint64_t line = address >> 6; line <= last >> 6; line++)
        if (!touch(&l1, line))
            touch(&l2, line);
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    struct block *b = calloc(1, sizeof *b);
    b->all = qemu_plugin_tb_n_insns(tb);
    for (size_t k = 0; k < b->all; k++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, k);
        if (a64) {
            uint32_t word;
            memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
            b->held[classify(word)]++;
        }
        if (l1.tags)
            qemu_plugin_register_vcpu_mem_cb(insn, access_memory, NO_REGISTERS, LOADS_AND_STORES, NULL);
    }
    do
        b->next = blocks;
    while (!__atomic_compare_exchange_n(&blocks, &b->next, b, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &b->runs, 1);
}

static void count(plugin_id);

static void mark(plugin_id id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                 uint64_t a6, uint64_t a7, uint64_t a8) {
    if (number != yield_number)
        return;
    if (!armed) {
        armed = true;
        qemu_plugin_reset(id, count); /* drops what was translated so far */
        return;
    }
    uint64_t all = 0, held[CLASSES] = {0};
    for (struct block *b = blocks; b; b = b->next) {
        all += (b->runs - b->before) * b->all;
        for (int c = 0; c < CLASSES; c++)
            held[c] += (b->runs - b->before) * b->held[c];
        b->before = b->runs;
    }
    if (open_window) {
        fprintf(out, "{\"instructions\": %" PRIu64 ", \"mix\": {", all);
        for (int c = 0; a64 && c < CLASSES; c++)
            fprintf(out, "%s\"%s\": %" PRIu64, c ? ", " : "", names[c], held[c]);
        fprintf(out, "}, \"misses\": {");
        if (l1.tags)
            fprintf(out, "\"l1d\": %" PRIu64 ", \"l2\": %" PRIu64, l1.misses, l2.misses);
        fprintf(out, "}}\n");
        fflush(out);
    }
    l1.misses = l2.misses = 0;
    open_window = !open_window;
}

static void count(plugin_id id) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, mark);
}

static bool geometry(struct cache *c, const char *text) {
    if (sscanf(text, "%" SCNu64 ":%" SCNu64, &c->sets, &c->ways) != 2 || !c->sets || !c->ways)
        return false;
    c->tags = calloc(c->sets * c->ways, sizeof *c->tags);
    return c->tags != NULL;
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    for (int k = 0; k < argc; k++) {
        char *value = strchr(argv[k], '=');
        if (!value)
            return -1;
        *value++ = 0;
        if (!strcmp(argv[k], "out"))
            out = fopen(value, "w");
        else if (!strcmp(argv[k], "yield"))
            yield_number = atoll(value);
        else if (!strcmp(argv[k], "classes"))
            a64 = !strcmp(value, "a64");
        else if (!geometry(!strcmp(argv[k], "l1") ? &l1 : &l2, value))
            return -1;
    }
    if (!out || !l1.tags != !l2.tags)
        return -1;
    qemu_plugin_register_vcpu_syscall_cb(id, mark);
    return 0;
}

/* --- what the guest sees of this machine --- */

EXPORT int clock_gettime(clockid_t clock, struct timespec *now) {
    static uint64_t read;
    uint64_t microseconds = __atomic_add_fetch(&read, 1, __ATOMIC_SEQ_CST);
    *now = (struct timespec){.tv_sec = 1000000000 + microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000};
    return 0;
}

EXPORT long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    va_list given;
    va_start(given, number);
    long a[6];
    for (int k = 0; k < 6; k++)
        a[k] = va_arg(given, long);
    va_end(given);
    if (number != SYS_getcpu)
        return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    for (int k = 0; k < 2; k++) /* core, node */
        if (a[k])
            *(unsigned *)a[k] = 0;
    return 0;
}
