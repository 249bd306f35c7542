"""Cortex-M processors: images that QEMU runs, and the example that a person could flash."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers
from gnomon.compiler import aot
from gnomon.compiler.aot import targets

EXAMPLE = Path(__file__).parents[2] / "examples" / "microcontroller"
SOFT, HARD = ["-mfloat-abi=soft"], ["-mfloat-abi=hard"]
BOARDS = {
    "cortex-m0": ("microbit", SOFT, 0x00000000, 0x20000000, 16),
    "cortex-m3": ("mps2-an385", SOFT, 0x00000000, 0x20000000, 64),
    "cortex-m4": ("mps2-an386", [*HARD, "-mfpu=fpv4-sp-d16"], 0x00000000, 0x20000000, 64),
    "cortex-m7": ("mps2-an500", [*HARD, "-mfpu=fpv5-d16"], 0x00000000, 0x20000000, 64),
    "cortex-m33": ("mps2-an505", [*HARD, "-mfpu=fpv5-sp-d16"], 0x10000000, 0x38000000, 64),
    "cortex-m55": ("mps3-an547", [*HARD], 0x00000000, 0x20000000, 64),
}
"""QEMU's board for each processor, flags of the C compiler, where its flash and RAM begin, how many KiB of RAM."""

PROGRAM = """
    #include "net.h"
    #include "data.h"
    extern uint32_t stack_top[], stack_bottom[], bss_start[], bss_end[];
    static uint8_t workspace[NET_WORKSPACE_BYTES];
    static float outputs[OUTPUTS];
    void *memcpy(void *to, const void *from, size_t n) {
        for (size_t k = 0; k < n; k++) ((volatile uint8_t *)to)[k] = ((const uint8_t *)from)[k];
        return to;
    }
    void *memset(void *to, int value, size_t n) {
        for (size_t k = 0; k < n; k++) ((volatile uint8_t *)to)[k] = (uint8_t)value;
        return to;
    }
    static int ask_host(int what, const void *argument) {
        register int r0 __asm__("r0") = what;
        register const void *r1 __asm__("r1") = argument;
        __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
        return r0;
    }
    static void number(uint32_t value) {
        char text[10] = "00000000 ";
        for (int k = 0; k < 8; k++) text[7 - k] = "0123456789abcdef"[value >> 4 * k & 15];
        ask_host(4, text);
    }
    void reset(void) {
    #ifdef __ARM_FP
        *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
        __asm__ volatile("dsb\\n isb");
    #endif
        for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
        uint32_t here, *low = stack_bottom;
        __asm__ volatile("mov %0, sp" : "=r"(here));
        while ((uint32_t)low < here - 64) *low++ = 0xA5A5A5A5u;
        number((uint32_t)net_run(inputs, outputs, workspace, sizeof workspace));
        uint32_t *used = stack_bottom;
        while (*used == 0xA5A5A5A5u) used++;
        number((uint32_t)((char *)low - (char *)used));
        for (int k = 0; k < OUTPUTS; k++) {
            union { float f; uint32_t u; } bits = {outputs[k]};
            number(bits.u);
        }
        const uint32_t argument[2] = {0x20026, 0};
        ask_host(0x20, argument);
        for (;;) {}
    }
    static void stop(void) { ask_host(4, "fault"); for (;;) {} }
    __attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
        stack_top, reset, stop, stop, stop, stop, stop, 0, 0, 0, 0, stop, stop, 0, stop, stop,
    };
"""

MEMORY = """
MEMORY {{
    FLASH (rx) : ORIGIN = {flash}, LENGTH = 256K
    RAM (rw) : ORIGIN = {ram}, LENGTH = {size}K
}}
INCLUDE sections.ld
"""


def network() -> gnomon.Model:
    """Something of everything that is likely to be flashed; small enough for 16 KiB of RAM."""
    gnomon.utils.set_random_seed(2)
    return gnomon.Sequential(
        [
            gnomon.Input((10, 10, 2), name="image"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(),
            layers.Reshape((4, 16)),
            layers.SimpleRNN(5),
            layers.Dense(3, activation="softmax"),
        ],
        name="net",
    )


@pytest.mark.parametrize("bits", ["32", "8", "whole"])
@pytest.mark.parametrize("cpu", BOARDS)
def test_results_on_a_board(cpu, bits, tmp_path):
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here")
    board, flags, flash, ram, size = BOARDS[cpu]
    model, target = network(), targets.find(cpu)
    x = np.random.default_rng(0).normal(size=(1, 10, 10, 2)).astype("float32")
    samples = [np.concatenate([x, -x, x + 1])]
    source = model if bits == "32" else ahead.quantized(model, samples, target=target, whole=bits == "whole")
    library = ahead.build(source, "net", target, batch=1)
    written = ahead.write(library, tmp_path / "net", "obj", ".o")
    (tmp_path / "data.h").write_text(
        f"#define OUTPUTS 3\nstatic const float inputs[] = {{{','.join(f'{v:.9e}f' for v in x.ravel())}}};\n"
    )
    (tmp_path / "main.c").write_text(PROGRAM)
    (tmp_path / "board.ld").write_text(MEMORY.format(flash=hex(flash), ram=hex(ram), size=size))
    limits = f"-Wl,--defsym=CODE_LIMIT=24576,--defsym=RAM_LIMIT={size << 10},--no-warn-execstack"
    command = ["arm-none-eabi-gcc", f"-mcpu={cpu}", "-mthumb", *flags, "-Os", "-std=c99", "-Wall", "-Wextra", "-Werror",
               "-ffreestanding", "-nostdlib", "main.c", "net.o", f"-L{EXAMPLE}", "-T", "board.ld", "-lgcc", limits,
               "-o", "net.elf"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    machine = ["-M", board, "-nographic", "-semihosting-config", "enable=on,target=native", "-kernel", "net.elf"]
    done = subprocess.run(["qemu-system-arm", *machine], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)  # fmt: skip
    code, stack, *words = (done.stdout + done.stderr).split()
    assert code == "00000000", done.stdout + done.stderr
    assert 0.3 * written.stack < int(stack, 16) <= written.stack
    found = np.array([int(w, 16) for w in words], np.uint32).view(np.float32)
    if bits == "32":
        np.testing.assert_allclose(found, model.predict(x, verbose=0)[0], rtol=1e-5, atol=1e-6)
    else:
        graph = source.traced[0].graph
        np.testing.assert_allclose(found, gnomon.functions.Function(graph)(x)[0], rtol=1e-5, atol=1e-6)


def test_memory_and_code_are_told_and_small():
    model, target = network(), targets.find("cortex-m4")
    library = ahead.build(model, "net", target, batch=1)
    texts, exported = aot.modules(library)
    content = aot.compile_object(texts, exported, target)
    sections = aot.symbols.read(content).sections
    assert set(sections) <= {".text", ".rodata", ".rodata.str1.1", ".ARM.exidx"}  # nothing is written to
    assert sum(sections.values()) - len(library.weights) < 12_000
    assert library.greatest_workspace < 4_000
    assert 300 < aot.stack_bytes(texts, exported, target) < 3_000


def test_the_example(tmp_path):
    command = [sys.executable, str(EXAMPLE / "digits.py"), "--short", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert float(re.search(r"Test accuracy ([\d.]+) %", printed)[1]) > 80
    found = re.findall(r"accuracy: ([\d.]+)% -> ([\d.]+)%", printed)
    assert len(found) == 2
    assert all(abs(float(before) - float(after)) < 1.5 for before, after in found)
    codes = [int(n.replace(",", "")) for n in re.findall(r"code ([\d,]+) bytes", printed)]
    weights = [int(n.replace(",", "")) for n in re.findall(r"weights ([\d,]+) bytes", printed)]
    assert max(codes) < 24 << 10
    assert max(weights[1:]) < 0.35 * weights[0]
    workspaces = [int(n.replace(",", "")) for n in re.findall(r"workspace ([\d,]+) bytes", printed)]
    assert workspaces[2] < 0.3 * workspaces[1]
    for told in re.findall(r"in QEMU: (\d+) of 20 digits", printed):
        assert int(told) >= 19
    if shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm"):
        assert printed.count("in QEMU") == 3
    for name in ("float32", "int8", "integers"):
        assert (tmp_path / name / "digits.o").is_file()
