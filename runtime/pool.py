"""The threads that share a launch: a pool written in LLVM IR, one per process.

`text()` is a module that defines

    void PARALLEL(ptr kernel, ptr buffers, ptr sizes, int64 extent, int64 work)

which runs kernel(buffers, sizes, begin, end) over chunks that together are [0, extent); `work` is about how many
nanoseconds the whole takes on one core. Iterations are independent, so neither the number of threads nor that of
chunks changes a result.

One job at a time. Chunks are claimed by an atomic count-down and completion is counted per chunk, so that the caller
finishes alone if workers are asleep, descheduled or, in a forked child, gone. A worker that comes late claims either
nothing or a chunk of whatever job is live by then: both are right, and the fields of a job cannot change while a chunk
of it is unfinished. A launch runs serially on its caller if it is too small, if another thread's job is in progress, or
if it was started by a kernel. Workers are started by the first launch that can use them. Idle ones spin for about 50 us
and then sleep on a futex. Waking one costs its waker 15 to 40 us and it comes as much later, so a launch wakes workers
only if it is large, or if it and the launches just before it, which ran serially, are so together. Whoever enters a
program that is large as a whole wakes them beforehand (`WAKEN`).
A caller that waits for the last chunks spins as long and then yields its core, since the worker may need just that one.
If it waits longer than it worked itself, a worker was put aside in the middle of a chunk: the machine has other things
to do. Launches are then serial for some times as long, so that a busy machine costs a fraction and not a multiple; a
process that was stopped and goes on does not take the pause for such a wait.
Schedulers may leave a worker on the core of the caller that woke it while others are idle (seen for seconds, at no gain
over one thread): a worker that finds itself there excludes that core from those it may run on. It is not bound to one
core, which several processes would choose alike.
"""

from __future__ import annotations

import platform
import sys

SERIAL = 10_000
"""Nanoseconds of work below which a launch is not shared, even if workers are awake."""

WAKE = 150_000
"""Nanoseconds of work, of one launch or of several in a row, from which sleeping workers are woken for it."""

BEFOREHAND = 250_000
"""Nanoseconds of work in a whole program from which workers are woken before it begins."""

CHUNK = 5_000
"""Nanoseconds of work that a chunk should have at least."""

CHUNKS_PER_THREAD = 4
"""Chunks are claimed as threads become free, so several per thread even out what one core loses to other processes. The
first are the largest (a quarter of all, with two threads) and the last the smallest (a sixty-fourth), so that all end
at about the same time."""

PATIENCE = 4
"""How many times as long as a caller waited for a worker that was put aside its launches are then serial."""

MOST = 25_000_000
"""Ticks of the cycle counter that count of such a wait: 10 ms, for which a scheduler puts a thread aside."""

SPIN = 125_000
"""Ticks of the cycle counter that an idle worker, or a caller waiting for one, spins: 50 us at 2.5 GHz."""

PARALLEL, WAKEN = "gnomon.parallel", "gnomon.pool_waken"
RESET, STATE = "gnomon.pool_reset", "gnomon.pool_state"
"""What the module defines: the launcher; void WAKEN(), work is about to come; void RESET(), for a forked child;
int64 STATE(int64), for tests: workers started (0), workers asleep (1), jobs that were shared (2)."""


def supported() -> bool:
    """Whether the pool runs here; elsewhere every launch is serial."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def text(threads: int) -> str:
    """The module, for `threads` threads: the caller and its workers."""
    return _TEMPLATE.format(
        parallel=PARALLEL,
        waken=WAKEN,
        reset=RESET,
        state=STATE,
        workers=threads - 1,
        serial=SERIAL,
        wake=WAKE,
        chunk=CHUNK,
        chunks=CHUNKS_PER_THREAD * threads,
        spin=SPIN,
        patience=PATIENCE,
        most=MOST,
    )


# Each field that threads write is on a cache line of its own, or every claim would stall the spinning workers.
_TEMPLATE = """\
@left = internal global i64 0, align 128
@unfinished = internal global i64 0, align 128
@generation = internal global i32 0, align 128
@asleep = internal global i32 0, align 128
@busy = internal global i32 0, align 128
@started = internal global i64 0, align 8
@shared = internal global i64 0, align 8
@caller = internal global i32 0, align 4
@allowed = internal global [128 x i8] zeroinitializer, align 8
@missed = internal global i64 0, align 8
@ended = internal global i64 0, align 8
@alone_until = internal global i64 0, align 8
@kernel = internal global ptr null, align 128
@buffers = internal global ptr null, align 8
@sizes = internal global ptr null, align 8
@extent = internal global i64 0, align 8
@count = internal global i64 1, align 8

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sched_yield()
declare i32 @sched_getcpu()
declare i64 @syscall(i64, ...)
declare i64 @llvm.readcyclecounter()
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.x86.sse2.pause()
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; claim and run chunks until none is left; whether any was seen
define internal i1 @take() nounwind {{
entry:
  %waiting = load atomic i64, ptr @left monotonic, align 8     ; a load first: spinning must not write to the line
  %any = icmp sgt i64 %waiting, 0
  br i1 %any, label %claim, label %none
claim:
  %ticket = atomicrmw sub ptr @left, i64 1 acquire
  %mine = icmp sgt i64 %ticket, 0
  br i1 %mine, label %run, label %some
run:
  %f = load ptr, ptr @kernel
  %b = load ptr, ptr @buffers
  %s = load ptr, ptr @sizes
  %n = load i64, ptr @extent
  %k = load i64, ptr @count
  %after = sub i64 %ticket, 1
  %even = icmp ult i64 %k, 4                                   ; before a chunk (its ticket / k)^2 of all is left:
  %tickets = mul i64 %ticket, %ticket                          ; the last chunks are small
  %afters = mul i64 %after, %after
  %ks = mul i64 %k, %k
  %t = select i1 %even, i64 %ticket, i64 %tickets
  %a = select i1 %even, i64 %after, i64 %afters
  %d = select i1 %even, i64 %k, i64 %ks
  %whole = udiv i64 %n, %d                                     ; t * n / d would overflow for large extents
  %rest = urem i64 %n, %d
  %begin0 = mul i64 %t, %whole
  %begin1 = mul i64 %t, %rest
  %begin2 = udiv i64 %begin1, %d
  %begin3 = add i64 %begin0, %begin2
  %begin = sub i64 %n, %begin3
  %end0 = mul i64 %a, %whole
  %end1 = mul i64 %a, %rest
  %end2 = udiv i64 %end1, %d
  %end3 = add i64 %end0, %end2
  %end = sub i64 %n, %end3
  %something = icmp ult i64 %begin, %end
  br i1 %something, label %chunk, label %over
chunk:
  call void %f(ptr %b, ptr %s, i64 %begin, i64 %end)
  br label %over
over:
  %u = atomicrmw sub ptr @unfinished, i64 1 release
  %again = load atomic i64, ptr @left monotonic, align 8
  %more = icmp sgt i64 %again, 0
  br i1 %more, label %claim, label %some
some:
  ret i1 true
none:
  ret i1 false
}}

; keep this thread off a core, if there are others: sched_setaffinity
define internal void @avoid(i32 %cpu) nounwind noinline {{
entry:
  %mask = alloca [128 x i8], align 8
  call void @llvm.memcpy.p0.p0.i64(ptr %mask, ptr @allowed, i64 128, i1 false)
  %known = icmp ult i32 %cpu, 1024
  br i1 %known, label %clear, label %out
clear:
  %place = lshr i32 %cpu, 3
  %q = getelementptr i8, ptr %mask, i32 %place
  %byte = load i8, ptr %q
  %bit = and i32 %cpu, 7
  %bit8 = trunc i32 %bit to i8
  %one = shl i8 1, %bit8
  %others = xor i8 %one, -1
  %left = and i8 %byte, %others
  store i8 %left, ptr %q
  %r = call i64 (i64, ...) @syscall(i64 203, i64 0, i64 128, ptr %mask)
  br label %out
out:
  ret void
}}

define internal ptr @worker(ptr %unused) nounwind {{
entry:
  br label %awake
awake:
  %here = call i32 @sched_getcpu()
  %there = load atomic i32, ptr @caller monotonic, align 4
  %together = icmp eq i32 %here, %there
  br i1 %together, label %move, label %ready
move:
  call void @avoid(i32 %there)
  br label %ready
ready:
  %g = load atomic i32, ptr @generation seq_cst, align 4
  %t0 = call i64 @llvm.readcyclecounter()
  br label %spin
spin:
  %worked = call i1 @take()
  br i1 %worked, label %awake, label %idle
idle:
  call void @llvm.x86.sse2.pause()
  %t1 = call i64 @llvm.readcyclecounter()
  %dt = sub i64 %t1, %t0
  %patient = icmp ult i64 %dt, {spin}
  br i1 %patient, label %spin, label %sleep
sleep:                                                         ; futex(FUTEX_WAIT_PRIVATE): at once if a job came
  %a0 = atomicrmw add ptr @asleep, i32 1 seq_cst
  %r = call i64 (i64, ...) @syscall(i64 202, ptr @generation, i32 128, i32 %g, ptr null)
  %a1 = atomicrmw sub ptr @asleep, i32 1 seq_cst
  br label %awake
}}

; with @busy held: start the workers, deaf to signals, which belong to Python's thread. Fewer may start than wanted.
define internal void @start() nounwind noinline {{
entry:
  %id = alloca i64
  %all = alloca [128 x i8], align 8
  %old = alloca [128 x i8], align 8
  call void @llvm.memset.p0.i64(ptr %all, i8 -1, i64 128, i1 false)
  %a = call i64 (i64, ...) @syscall(i64 204, i64 0, i64 128, ptr @allowed) ; sched_getaffinity
  %m0 = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %old)
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %made ]
  %more = icmp slt i64 %i, {workers}
  br i1 %more, label %create, label %done
create:
  %r = call i32 @pthread_create(ptr %id, ptr null, ptr @worker, ptr null)
  %ok = icmp eq i32 %r, 0
  br i1 %ok, label %made, label %done
made:
  %handle = load i64, ptr %id
  %d = call i32 @pthread_detach(i64 %handle)
  %i1 = add i64 %i, 1
  br label %next
done:
  %m1 = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  %some = icmp sgt i64 %i, 0
  %counted = select i1 %some, i64 %i, i64 -1                   ; -1: none can be had, never try again
  store atomic i64 %counted, ptr @started monotonic, align 8
  ret void
}}

define void @{parallel}(ptr %f, ptr %b, ptr %s, i64 %n, i64 %work) nounwind {{
entry:
  %large = icmp sge i64 %work, {serial}
  %several = icmp sgt i64 %n, 1
  %worth = and i1 %large, %several
  br i1 %worth, label %lock, label %serial
lock:
  %old = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %got = extractvalue {{ i32, i1 }} %old, 1
  br i1 %got, label %ready, label %serial
ready:
  %w0 = load atomic i64, ptr @started monotonic, align 8
  %fresh = icmp eq i64 %w0, 0
  br i1 %fresh, label %first, label %ask
first:
  call void @start()
  br label %ask
ask:
  %w = load atomic i64, ptr @started monotonic, align 8
  %have = icmp sgt i64 %w, 0
  br i1 %have, label %look, label %alone
look:
  %now = call i64 @llvm.readcyclecounter()
  %until = load i64, ptr @alone_until
  %crowded = icmp ult i64 %now, %until
  br i1 %crowded, label %alone, label %count_
count_:
  %a = load atomic i32, ptr @asleep seq_cst, align 4
  %a64 = sext i32 %a to i64
  %awake = icmp slt i64 %a64, %w
  br i1 %awake, label %share, label %weigh
weigh:                                                         ; all asleep: what was missed in a row until now?
  %before = load i64, ptr @ended
  %pause = sub i64 %now, %before
  %near = icmp ult i64 %pause, {spin}
  %m0 = load i64, ptr @missed
  %m1 = select i1 %near, i64 %m0, i64 0
  %m2 = add i64 %m1, %work
  store i64 %m2, ptr @missed
  %enough = icmp sge i64 %m2, {wake}
  br i1 %enough, label %share, label %alone
alone:                                                         ; @busy is kept: others would be alone, too
  call void %f(ptr %b, ptr %s, i64 0, i64 %n)
  %then = call i64 @llvm.readcyclecounter()
  store i64 %then, ptr @ended
  br label %out
share:
  %waking = phi i1 [ false, %count_ ], [ true, %weigh ]
  %large_ = icmp sge i64 %work, {wake}
  %rouse = or i1 %waking, %large_
  store i64 0, ptr @missed
  %fit = udiv i64 %work, {chunk}
  %k0 = call i64 @llvm.umin.i64(i64 %fit, i64 {chunks})
  %k = call i64 @llvm.umin.i64(i64 %k0, i64 %n)
  %h0 = load i64, ptr @shared
  %h1 = add i64 %h0, 1
  store i64 %h1, ptr @shared
  %cpu = call i32 @sched_getcpu()
  store atomic i32 %cpu, ptr @caller monotonic, align 4
  store ptr %f, ptr @kernel
  store ptr %b, ptr @buffers
  store ptr %s, ptr @sizes
  store i64 %n, ptr @extent
  store i64 %k, ptr @count
  store atomic i64 %k, ptr @unfinished monotonic, align 8
  store atomic i64 %k, ptr @left release, align 8
  %g = atomicrmw add ptr @generation, i32 1 seq_cst            ; before @asleep is read: a worker about to sleep sees it
  %sleeping = load atomic i32, ptr @asleep seq_cst, align 4
  %anyone = icmp sgt i32 %sleeping, 0
  %call = and i1 %anyone, %rouse
  br i1 %call, label %wake, label %help
wake:                                                          ; futex(FUTEX_WAKE_PRIVATE)
  %wanted64 = sub i64 %k, 1
  %wanted = trunc i64 %wanted64 to i32
  %r = call i64 (i64, ...) @syscall(i64 202, ptr @generation, i32 129, i32 %wanted)
  br label %help
help:
  %worked = call i1 @take()
  %t0 = call i64 @llvm.readcyclecounter()
  br label %join
join:
  %u = load atomic i64, ptr @unfinished acquire, align 8
  %done = icmp eq i64 %u, 0
  br i1 %done, label %met, label %wait
met:
  %t2 = call i64 @llvm.readcyclecounter()
  %waited = sub i64 %t2, %t0
  %worked_ = sub i64 %t0, %now
  %long = icmp ugt i64 %waited, {spin}
  %longer = icmp ugt i64 %waited, %worked_
  %stalled = and i1 %long, %longer
  br i1 %stalled, label %resign, label %out
resign:
  %counted = call i64 @llvm.umin.i64(i64 %waited, i64 {most})    ; the process itself may have been stopped for minutes
  %rest = mul i64 %counted, {patience}
  %later = add i64 %t2, %rest
  store i64 %later, ptr @alone_until
  br label %out
wait:
  call void @llvm.x86.sse2.pause()
  %t1 = call i64 @llvm.readcyclecounter()
  %dt = sub i64 %t1, %t0
  %patient = icmp ult i64 %dt, {spin}
  br i1 %patient, label %join, label %yield
yield:
  %y = call i32 @sched_yield()
  br label %join
out:
  store atomic i32 0, ptr @busy release, align 4
  ret void
serial:
  call void %f(ptr %b, ptr %s, i64 0, i64 %n)
  ret void
}}

define void @{waken}() nounwind {{
entry:
  %a = load atomic i32, ptr @asleep monotonic, align 4
  %some = icmp sgt i32 %a, 0
  br i1 %some, label %wake, label %out
wake:
  %g = atomicrmw add ptr @generation, i32 1 seq_cst
  %r = call i64 (i64, ...) @syscall(i64 202, ptr @generation, i32 129, i32 2147483647)
  br label %out
out:
  ret void
}}

; the child of a fork has its parent's memory and none of its workers, whatever they were doing
define void @{reset}() nounwind {{
entry:
  store atomic i64 0, ptr @left seq_cst, align 8
  store atomic i64 0, ptr @unfinished seq_cst, align 8
  store atomic i32 0, ptr @asleep seq_cst, align 4
  store atomic i64 0, ptr @started seq_cst, align 8
  store atomic i32 0, ptr @busy seq_cst, align 4
  ret void
}}

define i64 @{state}(i64 %which) nounwind {{
entry:
  switch i64 %which, label %workers [ i64 1, label %sleepers
                                      i64 2, label %jobs ]
workers:
  %w = load atomic i64, ptr @started monotonic, align 8
  ret i64 %w
sleepers:
  %a = load atomic i32, ptr @asleep monotonic, align 4
  %a64 = sext i32 %a to i64
  ret i64 %a64
jobs:
  %h = load i64, ptr @shared
  ret i64 %h
}}
"""
