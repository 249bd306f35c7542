/* Digits on a microcontroller without an operating system: classifies the images in images.h and prints what it sees.
 *
 * There is no C library: the model needs none. Text goes to the debugger by semihosting, which QEMU has too.
 */
#include "digits.h"
#include "images.h"

extern uint32_t data_start[], data_end[], data_stored[], bss_start[], bss_end[], stack_top[];

static uint8_t workspace[DIGITS_WORKSPACE_BYTES];
static float classes[10];

/* The model copies and clears memory by these two. */
void *memcpy(void *target, const void *source, size_t count) {
    for (size_t k = 0; k < count; k++) ((volatile uint8_t *)target)[k] = ((const uint8_t *)source)[k];
    return target;
}

void *memset(void *target, int value, size_t count) {
    for (size_t k = 0; k < count; k++) ((volatile uint8_t *)target)[k] = (uint8_t)value;
    return target;
}

static int ask_host(int what, const void *argument) {
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(const char *text) { ask_host(4, text); }

static void leave(int code) {
    const uint32_t argument[2] = {0x20026, (uint32_t)code}; /* the application has ended */
    ask_host(0x20, argument);
    for (;;) {}
}

static int best(const float *values, int count) {
    int found = 0;
    for (int k = 1; k < count; k++)
        if (values[k] > values[found]) found = k;
    return found;
}

int main(void) {
    int right = 0;
    for (int k = 0; k < IMAGE_COUNT; k++) {
        float image[28 * 28];
        for (int i = 0; i < 28 * 28; i++) image[i] = (float)images[k][i] * (1.0f / 255.0f);
        int code = digits_run(image, classes, workspace, sizeof workspace);
        if (code != DIGITS_OK) {
            print(digits_error_text(code));
            return code;
        }
        int digit = best(classes, 10);
        char text[] = {(char)('0' + digit), digit == labels[k] ? ' ' : '!', 0};
        print(text);
        right += digit == labels[k];
    }
    char text[] = {'\n', (char)('0' + right / 100), (char)('0' + right / 10 % 10), (char)('0' + right % 10), '\n', 0};
    print(text);
    return 0;
}

void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* let the program use the float registers */
    __asm__ volatile("dsb\n isb");
    for (uint32_t *to = data_start, *from = data_stored; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    leave(main());
}

static void stop(void) { leave(1); }

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, reset, stop, stop, stop, stop, stop, 0, 0, 0, 0, stop, stop, 0, stop, stop,
};
