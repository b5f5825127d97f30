/* Runs a network on a bare Cortex-M: inputs in input.bin, outputs in output.bin, and what each inference cost in
   costs.bin, all on the machine that emulates it (Arm semihosting, version 3). */
#include <stdint.h>

/* Given by the compiler: the network's header; MARKS; INVOKE, a function; INPUTS and OUTPUTS, the structs of pointers
   that it takes; of each pointer a place and a size in bytes, INPUT_PLACES, INPUT_SIZES and so on. Given by the linker: see linker.ld. */
extern uint32_t stack_low[], stack_top[], data_begin[], data_end[], data_source[], bss_begin[], bss_end[];
extern uint8_t flash_bytes[], ram_bytes[];

#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */
#define CPACR (*(volatile uint32_t *)0xE000ED88)
#define WRAP 0x1000000u
#define PAINT 0xA5A5A5A5u

enum { OPEN = 1, SAY = 4, WRITE = 5, READ = 6, EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026, RUN_TIME_ERROR = 0x20023 };

static int32_t host(uint32_t operation, const void *parameters) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = parameters;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return (int32_t)r0;
}

static void fail(const char *reason) {
  host(SAY, reason);
  host(EXIT, (void *)RUN_TIME_ERROR);
}

static int32_t open_file(const char *name, uint32_t length, uint32_t mode) {
  const uint32_t parameters[3] = {(uint32_t)name, mode, length};
  const int32_t file = host(OPEN, parameters);
  if (file < 0) fail(name);
  return file;
}

static int32_t transfer(uint32_t operation, int32_t file, const void *bytes, uint32_t size) { /* bytes left */
  const uint32_t parameters[3] = {(uint32_t)file, (uint32_t)bytes, size};
  return host(operation, parameters);
}

/* Ticks since the start. The counter goes down, and an interrupt counts how often it wraps. */
static volatile uint32_t wraps;
static uint64_t ticks(void) {
  uint32_t high, low;
  do {
    high = wraps;
    low = SYSTICK[2];
  } while (high != wraps);
  return (uint64_t)high * WRAP + (WRAP - 1 - low);
}
static void wrapped(void) { wraps++; }

/* A source that is compiled to measure its ops calls this before each of them. */
static uint64_t marks[MARKS];
static uint32_t marked;
void mark(void) { marks[marked++] = ticks(); }

static uint32_t transfer_all(uint32_t operation, int32_t file, const void *pointers, const uint32_t *sizes, uint32_t n) {
  uint32_t left = 0;
  for (uint32_t k = 0; k < n; k++) left += (uint32_t)transfer(operation, file, ((int8_t *const *)pointers)[k], sizes[k]);
  return left;
}

static void run(void) {
  const INPUTS inputs = {INPUT_PLACES};
  const OUTPUTS outputs = {OUTPUT_PLACES};
  static const uint32_t read[] = {INPUT_SIZES}, written[] = {OUTPUT_SIZES};
  const int32_t in = open_file("input.bin", 9, READ_BINARY);
  const int32_t out = open_file("output.bin", 10, WRITE_BINARY), costs = open_file("costs.bin", 9, WRITE_BINARY);
  for (uint32_t *p = stack_low; p < (uint32_t *)__builtin_frame_address(0) - 64; p++) *p = PAINT;
  while (transfer_all(READ, in, &inputs, read, sizeof read / sizeof *read) == 0) {
    marked = 0;
    const uint64_t begin = ticks();
    INVOKE(&inputs, &outputs);
    marks[MARKS - 1] = ticks();
    uint32_t *used = stack_low;
    while (*used == PAINT) used++;
    const uint64_t cost[4] = {marks[MARKS - 1] - begin, (uint32_t)flash_bytes, (uint32_t)ram_bytes,
                              (uint32_t)((uint8_t *)stack_top - (uint8_t *)used)};
    if (transfer_all(WRITE, out, &outputs, written, sizeof written / sizeof *written) != 0 || transfer(WRITE, costs, cost, sizeof cost) != 0 ||
        transfer(WRITE, costs, marks, sizeof marks) != 0)
      fail("the outputs cannot be written");
  }
}

void *memset(void *to, int value, uint32_t size) { /* compilers may call these two */
  for (uint8_t *p = to; size--;) *p++ = (uint8_t)value;
  return to;
}
void *memcpy(void *to, const void *from, uint32_t size) {
  const uint8_t *q = from;
  for (uint8_t *p = to; size--;) *p++ = *q++;
  return to;
}

void reset(void) {
  CPACR |= 0xFu << 20; /* the floating point and vector unit, where there is one */
  __asm__ volatile("dsb\n isb");
  const uint32_t *from = data_source;
  for (uint32_t *p = data_begin; p < data_end;) *p++ = *from++;
  for (uint32_t *p = bss_begin; p < bss_end;) *p++ = 0;
  SYSTICK[1] = WRAP - 1;
  SYSTICK[2] = 0;
  SYSTICK[0] = 7; /* by the core's clock, with an interrupt at each wrap */
  run();
  host(EXIT, (void *)APPLICATION_EXIT);
}

static void fault(void) { fail("the core took a fault"); }

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    stack_top, reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, wrapped};
