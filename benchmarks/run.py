"""gnomon beside installed peers, in one run.

    python benchmarks/run.py --peer keras-jax=/path/to/python --peer torch=/path/to/python
    python benchmarks/run.py --workload matmul --workload article --rounds 9 --json figures.json
    python benchmarks/run.py --device gpu --peer jax=/path/to/python --peer cublas

Each library runs in its own interpreter, warmed up, and they take turns: in every round each does as many iterations as
take about `--seconds`, the others stopped meanwhile, so that neither a slow minute of the machine nor another library's
waiting threads fall on one of them. Told are the best and the median of the rounds, the ratio to gnomon (median of the
ratios within each round; below 1 is quicker than gnomon), and the floor: what the machine, measured in the same run,
needs at least for the workload's arithmetic and memory.

`--device gpu` runs all of this on the first NVIDIA card (CUDA_VISIBLE_DEVICES says which that is): `card.py` measures
its floor, `workers/common.py` tells where data are. float32 is float32 for all: none rounds factors to TensorFloat-32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from card import Card, CardError, measured
from machine import Machine, measure
from workloads import SCALE, Workload, chosen

WORKERS = Path(__file__).resolve().parent / "workers"

# name -> worker script, variant
PEERS = {
    "gnomon": ("use_gnomon.py", ""),
    "numpy": ("use_numpy.py", ""),
    "keras-jax": ("use_keras.py", "jax"),
    "keras-jax-32": ("use_keras.py", "jax-32"),
    "keras-tensorflow": ("use_keras.py", "tensorflow"),
    "keras-torch": ("use_keras.py", "torch"),
    "jax": ("use_jax.py", ""),
    "jax-scan": ("use_jax.py", "scan"),
    "torch": ("use_torch.py", "eager"),
    "torch-compile": ("use_torch.py", "compile"),
    "torch-graphs": ("use_torch.py", "graphs"),
    "cublas": ("use_cupy.py", ""),
    "pytensor": ("use_pytensor.py", ""),
    "onnxruntime": ("use_onnxruntime.py", ""),
    "openvino": ("use_openvino.py", ""),
}

# A variant that differs in one workload only runs in that one.
COMPILED = (
    *("article_mlp_fit", "mlp_1024_adam", "one_row_inference", "black_scholes", "logsoftmax_sum"),
    *("convnet", "resnet50", "dilated", "transformer"),
)
ONLY = {
    "jax-scan": ("article_mlp_fit",),
    "keras-jax-32": ("article_mlp_fit",),
    "torch-compile": COMPILED,
    "torch-graphs": COMPILED,
}

ON_CARD = {"gnomon": "gpu:0", "keras-tensorflow": "GPU", "cublas": "cuda"} | dict.fromkeys(
    ("keras-jax", "keras-jax-32", "keras-torch", "jax", "jax-scan", "torch", "torch-compile", "torch-graphs"), "cuda"
)
"""Who runs on a card, and what each calls it."""


def takes_part(peer: str, workload: Workload) -> bool:
    return workload.name.startswith(ONLY.get(peer, ("",)))


@dataclass
class Figures:
    """What was measured of one library in one workload, in seconds (or a share, for an accuracy)."""

    peer: str
    versions: str = ""
    rounds: list[float] = field(default_factory=list)
    load_seconds: float = 0
    check: list[float] | None = None
    error: str = ""


@dataclass(frozen=True)
class Setting:
    """What libraries are to use: so many threads of the host; 'cpu', or 'gpu' for the first card."""

    threads: int
    device: str = "cpu"


class WorkerError(Exception):
    """A worker ended, or never became ready; the text is the end of what it printed."""


class Worker:
    """A library's process, kept stopped while it is not its turn."""

    def __init__(self, peer: str, python: str, workload: str, setting: Setting, **more: str):
        script, variant = PEERS[peer]
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [python, str(WORKERS / script), workload, variant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=WORKERS,
            env=os.environ | environment(peer, setting) | more,
        )

    def read(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise WorkerError(self.log.read()[-2000:].strip() or f"ended with {self.process.returncode}")
        return json.loads(line)

    def seconds(self, n: int) -> float:
        """Seconds that `n` iterations take."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        print(n, file=self.process.stdin, flush=True)
        found = self.read()["seconds"]
        self.pause()
        return found

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            assert pipe is not None
            pipe.close()


def environment(peer: str, setting: Setting) -> dict[str, str]:
    """Every library's own way to be told how many threads it may use, and which device."""
    names = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS NUMBA_NUM_THREADS GNOMON_THREADS BENCHMARK_THREADS"
    found = dict.fromkeys(names.split(), str(setting.threads))
    if setting.device == "cpu":
        return found | {"BENCHMARK_DEVICE": "cpu", "GNOMON_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    found["BENCHMARK_DEVICE"] = ON_CARD[peer]
    if peer == "gnomon":
        return found | {"GNOMON_DEVICE": ON_CARD[peer], "GNOMON_MATMUL_PRECISION": "float32"}
    # JAX and TensorFlow would take the card's whole memory, JAX and NVIDIA's libraries round factors to 19 bits
    return found | {
        "JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_DEFAULT_MATMUL_PRECISION": "float32",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true", "NVIDIA_TF32_OVERRIDE": "0",
    }  # fmt: skip


def take_turns(
    workload: Workload, peers: dict[str, str], rounds: int, seconds: float, setting: Setting
) -> list[Figures]:
    """Start every library, let each warm up alone, then measure round by round."""
    figures: list[Figures] = []
    running: list[tuple[Figures, Worker, int]] = []
    try:
        for peer, python in peers.items():
            if not takes_part(peer, workload):
                continue
            worker = Worker(peer, python, workload.name, setting)
            found = Figures(peer)
            try:
                ready = worker.read()
                if ready.get("missing"):
                    worker.end()
                    continue
                found.versions, found.load_seconds = ready["versions"], ready["load_seconds"]
                found.check = ready["check"]
                n = 1
                while (taken := worker.seconds(n)) < seconds / 2 and n < 10**6:
                    n = max(n + 1, min(10 * n, int(n * seconds / max(taken, 1e-9))))
                running.append((found, worker, n))
            except WorkerError as e:
                found.error = str(e)
                worker.end()
            figures.append(found)
        for turn in range(rounds):
            first = turn % max(1, len(running))
            for found, worker, n in running[first:] + running[:first]:
                found.rounds.append(worker.seconds(n) / n / workload.per)
    finally:
        for _, worker, _ in running:
            worker.end()
    disagree(workload, figures)
    return figures


def disagree(workload: Workload, figures: list[Figures]) -> None:
    """Note libraries whose results differ from the first's: their times would not be comparable."""
    known = [f for f in figures if f.check]
    if workload.tolerance is None or not known:
        return
    first = known[0].check or []
    largest = max(map(abs, first))
    for f in known[1:]:
        apart = max(abs(a - b) for a, b in zip(first, f.check or [], strict=True)) / largest
        if not apart <= workload.tolerance:
            f.error = f"computes something else than {known[0].peer}: results differ by {apart:.1e} of the largest"


def whole_processes(workload: Workload, peers: dict[str, str], rounds: int, setting: Setting) -> list[Figures]:
    """Process start to first training step, with empty and with filled caches; or the accuracy a process reaches."""
    if workload.name == "import_gnomon":
        return [import_time(peers["gnomon"], rounds)] if "gnomon" in peers else []
    figures: list[Figures] = []
    if workload.name == "mnist_accuracy":
        for peer, python in peers.items():
            if takes_part(peer, workload):
                figures.append(_one_process(Figures(peer), python, workload, setting, {})[0])
        return [f for f in figures if f.error or f.rounds]
    for peer, python in peers.items():
        if not takes_part(peer, workload):
            continue
        cold, warm = Figures(f"{peer}, cold cache"), Figures(f"{peer}, warm cache")
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                caches = {
                    "GNOMON_CACHE_DIR": folder,
                    "PYTENSOR_FLAGS": f"base_compiledir={folder}",
                    "NUMBA_CACHE_DIR": folder,
                    "TORCHINDUCTOR_CACHE_DIR": folder,
                    "TRITON_CACHE_DIR": folder,
                    "CUDA_CACHE_PATH": folder,
                }
                for found in (cold, warm):
                    _, seconds = _one_process(found, python, workload, setting, caches, peer)
                    if seconds is not None:
                        found.rounds.append(seconds)
            if cold.error or not cold.rounds:
                break
        figures += [f for f in (cold, warm) if f.error or f.rounds]
    return figures


def _one_process(found, python, workload, setting, caches, peer=None):
    start = time.perf_counter()
    worker = Worker(peer or found.peer, python, workload.name, setting, **caches)
    seconds = None
    try:
        message = worker.read()
        if not message.get("missing"):
            seconds, found.versions = time.perf_counter() - start, message["versions"]
            if workload.name == "mnist_accuracy":
                found.rounds.append(message["result"])
    except WorkerError as e:
        found.error = str(e)
    worker.end()
    return found, seconds


def import_time(python: str, rounds: int) -> Figures:
    """Seconds that `import gnomon` takes beyond NumPy's own import."""
    found = Figures("gnomon")

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([python, "-c", code], check=True, cwd=WORKERS)
        return time.perf_counter() - start

    for _ in range(max(rounds, 5)):
        found.rounds.append(seconds("import numpy, gnomon") - seconds("import numpy"))
    return found


# ---- telling


def table(workload: Workload, figures: list[Figures], machine: Machine | Card) -> str:
    scale = SCALE[workload.unit]
    floor = workload.floor(machine)
    head = f"{workload.name} [{workload.unit}]" + (f"   floor {floor * scale:.3g}" if floor else "")
    lines = [head, f"  {'':26}{'best':>10}{'median':>10}{'to gnomon':>11}{'of floor':>10}"]
    ours = {f.peer.removeprefix("gnomon"): f.rounds for f in figures if f.peer.startswith("gnomon")}
    for f in sorted(figures, key=lambda f: statistics.median(f.rounds) if f.rounds else 1e9):
        if f.rounds:
            best, median = min(f.rounds), statistics.median(f.rounds)
            base = ours.get("".join(f.peer.partition(",")[1:]), [])  # cold beside cold, warm beside warm
            ratios = [a / b for a, b in zip(f.rounds, base, strict=False) if b]
            ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
            share = f"{floor / best:.2f}" if floor else "-"
            times = f"{best * scale:>10.4g}{median * scale:>10.4g}"
            lines.append(f"  {f.peer:26}{times}{ratio:>11}{share:>10}  {f.versions}")
        if f.error:
            lines.append(f"  {f.peer:26}{f.error.splitlines()[-1]}")
    return "\n".join(lines)


def parsed(arguments: list[str] | None = None) -> tuple[argparse.Namespace, dict[str, str], Setting]:
    """The options, the libraries with their Pythons, and what these are to use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", default=[], metavar="NAME", help="those whose names begin so")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--without-gnomon", action="store_true", help="peers alone")
    parser.add_argument("--quick", action="store_true", help="the main workloads only")
    parser.add_argument("--list", action="store_true", help="print the workloads and end")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="about how long a library's turn takes")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where the libraries run")
    parser.add_argument("--threads", type=int, help="of the host; 2 on the CPU, beside a card as many as there are")
    parser.add_argument("--json", type=Path, help="also write every round's figure to this file")
    args = parser.parse_args(arguments)
    own = ("gnomon", "numpy") if args.device == "cpu" else ("gnomon",)
    peers = {} if args.without_gnomon else dict.fromkeys(own, sys.executable)
    for text in args.peer:
        name, _, python = text.partition("=")
        if name not in PEERS:
            parser.error(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
        if args.device == "gpu" and name not in ON_CARD:
            parser.error(f"{name!r} runs on no card here; there are: {', '.join(ON_CARD)}")
        if args.device == "cpu" and name == "cublas":
            parser.error("'cublas' needs --device gpu")
        peers[name] = python or sys.executable
    threads = args.threads or (2 if args.device == "cpu" else os.cpu_count() or 2)
    return args, peers, Setting(threads, args.device)


def floor_of(setting: Setting) -> Machine | Card:
    """What the host or the card can do, measured now. Raises CardError."""
    return measure(setting.threads) if setting.device == "cpu" else measured()


def main(arguments: list[str] | None = None) -> int:
    args, peers, setting = parsed(arguments)
    workloads = chosen(args.workload, args.quick, setting.device)
    if args.list:
        print("\n".join(w.name for w in workloads))
        return 0
    if hasattr(os, "sched_setaffinity"):  # libraries that cannot be told are held to as many cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.threads])

    try:
        machine = floor_of(setting)
    except CardError as error:
        print(f"--device gpu: {error}", file=sys.stderr)
        return 2
    host = f"{platform.processor() or platform.machine()}, " if setting.device == "cpu" else ""
    print(f"{host}{machine}\n", flush=True)
    record = {"machine": vars(machine), "workloads": {}}
    failed = False
    for workload in workloads:
        if workload.once:
            figures = whole_processes(workload, peers, min(args.rounds, 3), setting)
        else:
            figures = take_turns(workload, peers, args.rounds, args.seconds, setting)
        machine = machine.best(floor_of(setting))
        record["machine"] = vars(machine)
        if figures:
            print(table(workload, figures, machine) + "\n", flush=True)
        failed = failed or any(f.error for f in figures)
        record["workloads"][workload.name] = [vars(f) for f in figures]
        if args.json:
            args.json.write_text(json.dumps(record, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
