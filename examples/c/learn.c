/* Train on the device: learn ROWS STATE < DATA
 *
 * The data are ROWS * 784 floats, then ROWS int32 classes. What was learned is written to the file STATE.
 */
#include "digits.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 32 };

static void check(int code) {
    if (code == DIGITS_OK) return;
    fprintf(stderr, "digits: %s\n", digits_error_text(code));
    exit(1);
}

int main(int argc, char **argv) {
    size_t rows = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
    float *pixels = malloc(rows * 784 * sizeof *pixels), loss = 0, accuracy = 0;
    int32_t *labels = malloc(rows * sizeof *labels);
    void *state = malloc(DIGITS_STATE_BYTES), *saved = malloc(DIGITS_STATE_BYTES);
    size_t size = digits_workspace_bytes(BATCH);
    void *workspace = malloc(size);
    if (!rows || !pixels || !labels || !state || !saved || !workspace) return 1;
    if (fread(pixels, 784 * sizeof *pixels, rows, stdin) != rows || fread(labels, sizeof *labels, rows, stdin) != rows) {
        fprintf(stderr, "there are fewer than %lu samples\n", (unsigned long)rows);
        return 1;
    }

    check(digits_init(state));
    for (size_t at = 0; at + BATCH <= rows; at += BATCH) {
        check(digits_reset_metrics(state));
        check(digits_step(state, pixels + at * 784, labels + at, &accuracy, &loss, BATCH, workspace, size));
        if (at / BATCH % 50 == 0) printf("step %4lu  loss %.4f\n", (unsigned long)(at / BATCH), (double)loss);
    }

    check(digits_save(state, saved, DIGITS_STATE_BYTES));
    FILE *file = fopen(argv[2], "wb");
    if (!file || fwrite(saved, DIGITS_STATE_BYTES, 1, file) != 1 || fclose(file)) {
        fprintf(stderr, "cannot write %s\n", argv[2]);
        return 1;
    }
    free(workspace);
    free(saved);
    free(state);
    free(labels);
    free(pixels);
    return 0;
}
