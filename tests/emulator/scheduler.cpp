// Runs the threads of one block after another as fibers. A fiber runs until it ends or meets a barrier; blocks and
// threads go in an order that the caller picks, so that a result which depends on the order shows.
#include "device.h"
#undef threadIdx
#undef blockIdx
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <vector>

#if defined(__x86_64__)
// Save the registers that a call must keep, and the stack; take up those of another fiber.
extern "C" void gn_switch(void **save, void *load);
asm(R"(.text
.globl gn_switch
.type gn_switch,@function
gn_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gn_switch, .-gn_switch
)");
struct Context {
  void *stack;
  void prepare(char *base, size_t bytes, void (*body)()) {
    void **top = (void **)((uintptr_t)(base + bytes - 64) & ~(uintptr_t)15);
    *--top = nullptr;  // a return address for `body`, which never returns
    *--top = (void *)body;
    for (int k = 0; k < 6; k++) *--top = nullptr;
    stack = top;
  }
  void enter(Context &from) { gn_switch(&from.stack, stack); }
};
#else
#include <ucontext.h>
struct Context {
  ucontext_t state;
  void prepare(char *base, size_t bytes, void (*body)()) {
    getcontext(&state);
    state.uc_stack.ss_sp = base, state.uc_stack.ss_size = bytes, state.uc_link = nullptr;
    makecontext(&state, body, 0);
  }
  void enter(Context &from) { swapcontext(&from.state, &state); }
};
#endif

namespace {
enum State { READY, WAITING, MEETING, EVERYWHERE, ENDED };  // waiting for the block, meeting the warp, or all blocks
struct Fiber {
  gn_thread where; Context context; State state; unsigned line;
  unsigned long long given[2]; unsigned turn;  // to shuffles, which nobody runs ahead of by more than one
};
struct Array { char *data; size_t bytes; };

const unsigned WARP = 32;
const size_t STACK = 64 << 10, LIMIT = 227 << 10, RED = 64;
const unsigned ARRAYS = 64;
const unsigned char POISON = 0xff, CANARY = 0xa5;  // bytes of 0xff are a NaN in every float

const unsigned RESIDENT = 4;  // blocks that can run at once
struct Block {
  char arena[LIMIT + (ARRAYS + 1) * (RED + 16)] __attribute__((aligned(256)));
  size_t used, asked;
  Array arrays[ARRAYS], dynamic;
};
Block blocks_at_once[RESIDENT];
std::vector<Fiber> fibers;  // those of each block begin at a multiple of a warp
Context scheduler;
Fiber *running;
bool with_fibers, together;
char *stacks;
Block *here;  // the block of the running thread
unsigned threads_of_block, fibers_of_block, resident;
void (*entry)(void **);
void **arguments;
char message[400];
sigjmp_buf escape;

void fail(const char *what) {
  gn_thread *t = gn_current;
  if (t) snprintf(message, sizeof message, "%s (block %u,%u,%u thread %u,%u,%u)", what, t->block.x, t->block.y,
                  t->block.z, t->thread.x, t->thread.y, t->thread.z);
  else snprintf(message, sizeof message, "%s", what);
  siglongjmp(escape, 1);
}
void fault(int signal, siginfo_t *info, void *) {
  char what[100];
  if (signal == SIGFPE) snprintf(what, sizeof what, "an integer divided by zero");
  else if (info->si_addr) snprintf(what, sizeof what, "access outside of every buffer, at %p", info->si_addr);
  else snprintf(what, sizeof what, "misaligned vector access, or a null pointer");
  fail(what);
}
void body() {
  entry(arguments);
  running->state = ENDED;
  scheduler.enter(running->context);
  __builtin_trap();
}
Array reserve(size_t bytes) {
  here->asked += bytes;
  if (here->asked > LIMIT) fail("more than 227 KiB of shared memory");
  Array a = {here->arena + here->used, bytes};
  memset(a.data, POISON, bytes);
  memset(a.data + bytes, CANARY, RED);
  here->used = (here->used + bytes + RED + 15) & ~(size_t)15;
  return a;
}
void check(const Array &a, const char *what) {
  if (a.data)
    for (size_t i = 0; i < RED; i++)
      if ((unsigned char)a.data[a.bytes + i] != CANARY) fail(what);
}
// 0 forward, 1 backward, else shuffled by that seed (xorshift, Marsaglia 2003)
void arrange(std::vector<unsigned> &v, unsigned order) {
  unsigned n = v.size();
  for (unsigned i = 0; i < n; i++) v[i] = order == 1 ? n - 1 - i : i;
  uint64_t s = order * 0x9e3779b97f4a7c15ull + 1;
  for (unsigned i = n; order > 1 && i > 1; i--) {
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    unsigned j = s % i, x = v[i - 1];
    v[i - 1] = v[j], v[j] = x;
  }
}
gn_index split(unsigned i, const unsigned *n) { return {i % n[0], i / n[0] % n[1], i / n[0] / n[1]}; }

// Let warps go on whose threads have all met at one line; whether there were any.
bool release_warps() {
  bool released = false;
  char what[120];
  for (unsigned first = 0; first < resident * fibers_of_block; first += WARP) {
    unsigned end = first / fibers_of_block * fibers_of_block + threads_of_block;
    unsigned last = first + WARP < end ? first + WARP : end, meeting = 0, line = 0;
    for (unsigned i = first; i < last; i++)
      if (fibers[i].state == MEETING) {
        if (line && fibers[i].line != line) {
          snprintf(what, sizeof what, "divergent warp: threads meet at lines %u and %u", line, fibers[i].line);
          fail(what);
        }
        meeting++, line = fibers[i].line;
      }
    if (!meeting) continue;
    if (meeting != last - first) {
      snprintf(what, sizeof what, "divergent warp: %u of %u threads come to line %u", meeting, last - first, line);
      fail(what);
    }
    for (unsigned i = first; i < last; i++) fibers[i].state = READY;
    released = true;
  }
  return released;
}
// Let blocks go on whose threads all wait at one line; whether there were any. A thread that is elsewhere cannot come.
bool release_blocks() {
  bool released = false;
  char what[120];
  for (unsigned block = 0; block < resident; block++) {
    Fiber *first = &fibers[block * fibers_of_block];
    unsigned arrived = 0, line = 0;
    for (unsigned i = 0; i < threads_of_block; i++)
      if (first[i].state == WAITING) {
        if (line && first[i].line != line) {
          snprintf(what, sizeof what, "divergent barrier: threads of one block wait at lines %u and %u", line, first[i].line);
          fail(what);
        }
        arrived++, line = first[i].line;
      }
    if (!arrived) continue;
    if (arrived != threads_of_block) {
      snprintf(what, sizeof what, "deadlock: %u of %u threads wait at the barrier of line %u", arrived, threads_of_block, line);
      fail(what);
    }
    for (unsigned i = 0; i < threads_of_block; i++) first[i].state = READY;
    released = true;
  }
  return released;
}
// All threads that are left wait for all blocks: let them go on if nobody has ended and all are at one line.
void release_all(const std::vector<unsigned> &turns) {
  unsigned line = 0, arrived = 0;
  char what[120];
  for (unsigned i : turns)
    if (fibers[i].state == EVERYWHERE) {
      if (line && fibers[i].line != line) {
        snprintf(what, sizeof what, "divergent barrier: blocks wait for all at lines %u and %u", line, fibers[i].line);
        fail(what);
      }
      arrived++, line = fibers[i].line;
    }
  if (arrived != turns.size()) {
    snprintf(what, sizeof what, "deadlock: %u of %zu threads wait for all blocks at line %u", arrived, turns.size(), line);
    fail(what);
  }
  for (unsigned i : turns) fibers[i].state = READY;
}
void run_fibers(const std::vector<unsigned> &turns) {
  unsigned left = turns.size();
  while (left) {
    for (unsigned i : turns) {
      Fiber &f = fibers[i];
      if (f.state != READY) continue;
      running = &f, gn_current = &f.where, here = &blocks_at_once[i / fibers_of_block];
      f.context.enter(scheduler);
      left -= f.state == ENDED;
    }
    gn_current = nullptr;
    if (left && !release_warps() && !release_blocks()) release_all(turns);
  }
}
void begin_block(unsigned number, size_t shared) {
  here = &blocks_at_once[number];
  here->used = here->asked = 0;
  memset(here->arrays, 0, sizeof here->arrays);
  here->dynamic = shared ? reserve(shared) : Array{nullptr, 0};
}
void end_block(unsigned number) {
  check(blocks_at_once[number].dynamic, "a write past the end of dynamic shared memory");
  for (Array &a : blocks_at_once[number].arrays) check(a, "a write past the end of a shared array");
}
}  // namespace

extern "C" {
gn_thread *gn_current;
const char *gn_message() { return message; }

void gn_barrier(unsigned line) {
  if (!with_fibers) fail("a barrier in a module that was loaded as having none");
  running->line = line, running->state = WAITING;
  scheduler.enter(running->context);
}
void gn_barrier_of_all(unsigned *come, unsigned line) {
  if (!with_fibers || !together) fail("blocks wait for each other in a launch that was not asked to be cooperative");
  (void)*(volatile unsigned *)come;  // what a GPU counts with must be there
  running->line = line, running->state = EVERYWHERE;
  scheduler.enter(running->context);
}
unsigned gn_warp(void) { return (unsigned)(running - &fibers[0]) / WARP; }
void gn_warp_barrier(unsigned line) {
  if (!with_fibers) fail("threads of a warp meet in a module that was loaded as having no barriers");
  running->line = line, running->state = MEETING;
  scheduler.enter(running->context);
}
unsigned long long gn_exchange(unsigned long long bits, unsigned lane, unsigned line) {
  Fiber *me = running;
  unsigned turn = me->turn++ & 1, other = (unsigned)(me - &fibers[0]) ^ lane;
  me->given[turn] = bits;
  gn_warp_barrier(line);
  if (other % fibers_of_block >= threads_of_block) fail("a shuffle with a thread that there is not");
  return fibers[other].given[turn];
}
void *gn_shared_array(unsigned number, size_t bytes) {
  if (number >= ARRAYS) fail("more than 64 shared arrays in one kernel");
  if (!here->arrays[number].data) here->arrays[number] = reserve(bytes);
  return here->arrays[number].data;
}
void *gn_shared_bytes() { return here->dynamic.data; }

// Returns 0, or -1 and gn_message().
int gn_launch(void (*kernel)(void **), void **args, const unsigned *grid, const unsigned *block, size_t shared,
              unsigned order, int barriers, int cooperative) {
  unsigned threads = block[0] * block[1] * block[2], blocks = grid[0] * grid[1] * grid[2];
  entry = kernel, arguments = args, with_fibers = barriers, gn_current = nullptr, threads_of_block = threads;
  fibers_of_block = (threads + WARP - 1) / WARP * WARP, resident = cooperative ? blocks : 1, together = cooperative;
  if (resident > RESIDENT) return snprintf(message, sizeof message, "%u blocks do not fit at once", blocks), -1;
  std::vector<unsigned> turns(threads * resident), block_turns(blocks);
  arrange(turns, order), arrange(block_turns, order);
  for (unsigned &i : turns) i = i / threads * fibers_of_block + i % threads;
  if (!stacks) {
    void *p = mmap(nullptr, STACK * RESIDENT * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return snprintf(message, sizeof message, "no memory for stacks"), -1;
    stacks = (char *)p, fibers.resize(RESIDENT * 1024);
  }
  static char alternate[64 << 10];
  stack_t ours = {alternate, 0, sizeof alternate}, theirs;
  struct sigaction action, segv, bus, fpe;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = fault, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaltstack(&ours, &theirs), sigaction(SIGSEGV, &action, &segv), sigaction(SIGBUS, &action, &bus);
  sigaction(SIGFPE, &action, &fpe);
  int failed = sigsetjmp(escape, 1);
  if (!failed) {
    for (unsigned turn = 0; turn < blocks; turn += resident) {
      for (unsigned k = 0; k < resident; k++) {
        begin_block(k, shared);
        gn_index place = split(cooperative ? k : block_turns[turn], grid);
        gn_thread where = {{0, 0, 0}, place, {block[0], block[1], block[2]}, {grid[0], grid[1], grid[2]}};
        for (unsigned i = 0; i < threads; i++) {
          Fiber &f = fibers[k * fibers_of_block + i];
          f.where = where, f.where.thread = split(i, block), f.state = READY, f.turn = 0;
          if (with_fibers) f.context.prepare(stacks + (k * fibers_of_block + i) * STACK, STACK, body);
        }
      }
      if (with_fibers) run_fibers(turns);
      else
        for (unsigned i : turns) gn_current = &fibers[i].where, kernel(args);
      gn_current = nullptr;
      for (unsigned k = 0; k < resident; k++) end_block(k);
    }
  }
  gn_current = nullptr;
  sigaction(SIGSEGV, &segv, nullptr), sigaction(SIGBUS, &bus, nullptr), sigaction(SIGFPE, &fpe, nullptr);
  sigaltstack(&theirs, nullptr);
  return failed ? -1 : 0;
}
}
