/* What digit is it?  classify [STATE] < IMAGE
 *
 * An image is 784 bytes, row by row, 0 for black. With a file that learn.c has written, its state is used.
 */
#include "digits.h"

#include <stdio.h>
#include <stdlib.h>

static void check(int code) {
    if (code == DIGITS_OK) return;
    fprintf(stderr, "digits: %s\n", digits_error_text(code));
    exit(1);
}

int main(int argc, char **argv) {
    unsigned char image[784];
    float pixels[784], classes[10];
    void *state = malloc(DIGITS_STATE_BYTES);
    size_t size = digits_workspace_bytes(1);
    void *workspace = malloc(size);
    if (!state || !workspace) return 1;
    if (fread(image, sizeof image, 1, stdin) != 1) {
        fprintf(stderr, "an image of 784 bytes is needed\n");
        return 1;
    }
    for (int k = 0; k < 784; k++) pixels[k] = (float)image[k] / 255.0f;

    check(digits_init(state));
    if (argc > 1) {
        unsigned char *saved = malloc(DIGITS_STATE_BYTES);
        FILE *file = fopen(argv[1], "rb");
        size_t count = file && saved ? fread(saved, 1, DIGITS_STATE_BYTES, file) : 0;
        check(digits_load(state, saved, count));
        fclose(file);
        free(saved);
    }
    check(digits_run(state, pixels, classes, 1, workspace, size));
    int best = 0;
    for (int k = 1; k < 10; k++)
        if (classes[k] > classes[best]) best = k;
    printf("It is a %d, with probability %.4f\n", best, (double)classes[best]);
    free(workspace);
    free(state);
    return 0;
}
