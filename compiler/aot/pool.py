"""A pool of POSIX threads as LLVM IR: for libraries whose callers have none of their own.

It lies in memory of the caller's, and nothing outside that memory knows of it:

    0     mutex             640   task        680   next       where what is not yet given away begins
    256   condition: work   648   job         688   left       iterations that are not done
    512   condition: done   656   count       696   busy, stopping (bytes)
                            672   chunk       704   threads    768   the threads themselves

A call hands out ranges to whoever comes for the next one, itself included, and returns when all are done. While one
call has the pool, another that is given it too runs alone.

References: "The Open Group Base Specifications Issue 7", pthread_create, pthread_cond_wait; the sizes of mutexes and
conditions are at most 64 bytes on the systems that there are (four times that is reserved).
"""

from __future__ import annotations

from collections.abc import Sequence

HEAD = 768
"""Bytes before the threads' own numbers, 8 each."""

ALIGN = 64

MOST = 1024
"""Threads of a pool."""

SHARED = 40_000
"""Nanoseconds of work from which waking a thread pays."""

SHARES = 2
"""Ranges for each thread: what one is late with, another takes."""

NEEDS = (
    "pthread_create", "pthread_join", "pthread_mutex_init", "pthread_mutex_destroy", "pthread_mutex_lock",
    "pthread_mutex_unlock", "pthread_cond_init", "pthread_cond_destroy", "pthread_cond_wait", "pthread_cond_signal",
    "pthread_cond_broadcast",
)  # fmt: skip
"""What a library with a pool calls of the system."""

FIELDS = {
    "work": 256, "done": 512, "task": 640, "job": 648, "count": 656, "chunk": 672, "next": 680, "left": 688,
    "busy": 696, "stopping": 697, "threads": 704, "ids": HEAD,
}  # fmt: skip


def has_threads(triple: str) -> bool:
    """Whether a target's system has POSIX threads that a library may start."""
    return not any(part in triple for part in ("windows", "wasm", "-none-"))


def _places(*names: str) -> str:
    return "\n".join(f"  %{n}.p = getelementptr i8, ptr %pool, i64 {FIELDS[n]}" for n in names)


DECLARED = """\
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_destroy(ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_destroy(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)"""

TAKE = f"""\
define internal void @gnomon.take(ptr %pool) #0 {{
entry: ; the mutex is held, and held again afterwards; there is something to take
{_places("task", "job", "count", "chunk", "next", "left", "done")}
  %begin = load i64, ptr %next.p, align 8
  %count = load i64, ptr %count.p, align 8
  %chunk = load i64, ptr %chunk.p, align 8
  %task = load ptr, ptr %task.p, align 8
  %job = load ptr, ptr %job.p, align 8
  %far = add i64 %begin, %chunk
  %end = call i64 @llvm.smin.i64(i64 %far, i64 %count)
  store i64 %end, ptr %next.p, align 8
  %a = call i32 @pthread_mutex_unlock(ptr %pool)
  call void %task(ptr %job, i64 %begin, i64 %end)
  %b = call i32 @pthread_mutex_lock(ptr %pool)
  %size = sub i64 %end, %begin
  %before = load i64, ptr %left.p, align 8
  %now = sub i64 %before, %size
  store i64 %now, ptr %left.p, align 8
  %last = icmp eq i64 %now, 0
  br i1 %last, label %tell, label %out
tell:
  %c = call i32 @pthread_cond_signal(ptr %done.p)
  br label %out
out:
  ret void
}}"""

WORKER = f"""\
define internal ptr @gnomon.worker(ptr %pool) #0 {{
entry:
{_places("work", "count", "next", "stopping")}
  %a = call i32 @pthread_mutex_lock(ptr %pool)
  br label %look
look:
  %stop = load i8, ptr %stopping.p, align 1
  %stopped = icmp ne i8 %stop, 0
  br i1 %stopped, label %out, label %any
any:
  %next = load i64, ptr %next.p, align 8
  %count = load i64, ptr %count.p, align 8
  %some = icmp slt i64 %next, %count
  br i1 %some, label %take, label %wait
take:
  call void @gnomon.take(ptr %pool)
  br label %look
wait:
  %b = call i32 @pthread_cond_wait(ptr %work.p, ptr %pool)
  br label %look
out:
  %c = call i32 @pthread_mutex_unlock(ptr %pool)
  ret ptr null
}}"""

RUN = f"""\
define internal void @gnomon.pool(ptr %pool, ptr %task, ptr %job, i64 %count, i64 %work) #0 {{
entry:
{_places("work", "done", "task", "job", "count", "chunk", "next", "left", "busy", "threads")}
  %small = icmp slt i64 %work, {SHARED}
  %single = icmp slt i64 %count, 2
  %threads = load i64, ptr %threads.p, align 8
  %nobody = icmp slt i64 %threads, 2
  %one = or i1 %small, %single
  %alone.1 = or i1 %one, %nobody
  br i1 %alone.1, label %alone, label %ask
ask:
  %a = call i32 @pthread_mutex_lock(ptr %pool)
  %used = load i8, ptr %busy.p, align 1
  %free = icmp eq i8 %used, 0
  br i1 %free, label %share, label %leave
leave:
  %b = call i32 @pthread_mutex_unlock(ptr %pool)
  br label %alone
alone:
  call void %task(ptr %job, i64 0, i64 %count)
  ret void
share:
  %ranges = mul i64 %threads, {SHARES}
  %more = add i64 %count, %ranges
  %above = sub i64 %more, 1
  %chunk = sdiv i64 %above, %ranges
  store i8 1, ptr %busy.p, align 1
  store ptr %task, ptr %task.p, align 8
  store ptr %job, ptr %job.p, align 8
  store i64 %chunk, ptr %chunk.p, align 8
  store i64 %count, ptr %left.p, align 8
  store i64 0, ptr %next.p, align 8
  store i64 %count, ptr %count.p, align 8
  %c = call i32 @pthread_cond_broadcast(ptr %work.p)
  br label %look
look:
  %next = load i64, ptr %next.p, align 8
  %some = icmp slt i64 %next, %count
  br i1 %some, label %take, label %rest
take:
  call void @gnomon.take(ptr %pool)
  br label %look
rest:
  %left = load i64, ptr %left.p, align 8
  %over = icmp eq i64 %left, 0
  br i1 %over, label %out, label %wait
wait:
  %d = call i32 @pthread_cond_wait(ptr %done.p, ptr %pool)
  br label %rest
out:
  store i64 0, ptr %count.p, align 8
  store i8 0, ptr %busy.p, align 1
  %e = call i32 @pthread_mutex_unlock(ptr %pool)
  ret void
}}"""

END = f"""\
define internal void @gnomon.end(ptr %pool, i64 %threads) #0 {{
entry: ; the first `threads` - 1 threads were started
{_places("work", "done", "stopping", "ids")}
  %a = call i32 @pthread_mutex_lock(ptr %pool)
  store i8 1, ptr %stopping.p, align 1
  %b = call i32 @pthread_cond_broadcast(ptr %work.p)
  %c = call i32 @pthread_mutex_unlock(ptr %pool)
  br label %look
look:
  %k = phi i64 [ 1, %entry ], [ %next, %join ]
  %more = icmp slt i64 %k, %threads
  br i1 %more, label %join, label %out
join:
  %id.p = getelementptr i64, ptr %ids.p, i64 %k
  %id = load i64, ptr %id.p, align 8
  %d = call i32 @pthread_join(i64 %id, ptr null)
  %next = add i64 %k, 1
  br label %look
out:
  %e = call i32 @pthread_cond_destroy(ptr %work.p)
  %f = call i32 @pthread_cond_destroy(ptr %done.p)
  %g = call i32 @pthread_mutex_destroy(ptr %pool)
  ret void
}}"""

START = f"""\
define internal i32 @gnomon.start(ptr %pool, i64 %threads) #0 {{
entry:
{_places("work", "done", "threads", "ids")}
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 {HEAD}, i1 false)
  %a = call i32 @pthread_mutex_init(ptr %pool, ptr null)
  %b = call i32 @pthread_cond_init(ptr %work.p, ptr null)
  %c = call i32 @pthread_cond_init(ptr %done.p, ptr null)
  store i64 %threads, ptr %threads.p, align 8
  br label %look
look:
  %k = phi i64 [ 1, %entry ], [ %next, %begun ]
  %more = icmp slt i64 %k, %threads
  br i1 %more, label %begin, label %out
begin:
  %id.p = getelementptr i64, ptr %ids.p, i64 %k
  %failed = call i32 @pthread_create(ptr %id.p, ptr null, ptr @gnomon.worker, ptr %pool)
  %bad = icmp ne i32 %failed, 0
  br i1 %bad, label %undo, label %begun
begun:
  %next = add i64 %k, 1
  br label %look
undo:
  call void @gnomon.end(ptr %pool, i64 %k)
  ret i32 1
out:
  ret i32 0
}}"""

PARTS: Sequence[str] = (TAKE, WORKER, RUN, END, START)
"""@gnomon.start(pool, threads) makes a pool and returns whether that failed, @gnomon.pool is what `run` of a library's
threads is, @gnomon.end(pool, threads) waits for the threads and takes it apart."""

__all__ = ["ALIGN", "DECLARED", "FIELDS", "HEAD", "MOST", "NEEDS", "PARTS", "has_threads"]
